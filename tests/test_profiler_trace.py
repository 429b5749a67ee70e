"""Backward passes from traces of torch.profiler, as torch writes them here, and made up so that the times are known."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import netsim
from netsim._util.errors import UsageError
from netsim.training.profiler_trace import BackwardTrace, read_trace
from tests.command import run

GRADIENT = "torch::autograd::AccumulateGrad"
LAYERS = (12, 40, 30, 5)
SIZES = tuple(size for rows, columns in zip(LAYERS[1:], LAYERS, strict=False) for size in (rows * columns, rows))
"""The elements of the parameters of linear layers of these widths: a weight and a bias each."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of three steps of a small model, recorded as docs/overlap.md says."""
    path = tmp_path_factory.mktemp("trace") / "trace.json.gz"
    pairs = itertools.pairwise(LAYERS)
    model = nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = torch.profiler.schedule(wait=1, warmup=1, active=3)
    quiet = os.dup(1)  # some builds of torch print from C
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], schedule=steps, record_shapes=True
        ) as profiler:
            for _ in range(5):
                optimizer.zero_grad()
                model(torch.ones(8, LAYERS[0])).sum().backward()
                optimizer.step()
                profiler.step()
        profiler.export_chrome_trace(str(path))
    finally:
        os.dup2(quiet, 1)
        os.close(quiet)
    return path


def test_a_trace_of_torch_has_a_gradient_for_every_parameter(recorded: Path) -> None:
    trace = read_trace(str(recorded))
    assert trace.steps == 3
    assert trace.elements is not None
    # Back-propagation reaches the last layer first; within a layer autograd may finish weight or bias first.
    assert [sorted(trace.tensors[at : at + 2]) for at in (0, 2, 4)] == [sorted(SIZES[at : at + 2]) for at in (0, 2, 4)]
    assert list(trace.ready_s) == sorted(trace.ready_s)
    events = json.loads(gzip.decompress(recorded.read_bytes()))["traceEvents"]
    longest = max(each["dur"] for each in events if each["name"].startswith("ProfilerStep"))
    assert 0 < trace.ready_s[0] < trace.gradient_s < trace.gradient_s + trace.update_s <= longest * 1e-6
    shares = trace.shares(SIZES)
    assert shares[0] == 1
    assert shares[-1] < shares[2] < 1


def test_a_simulation_takes_buckets_and_compute_time_from_the_trace(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = read_trace(str(recorded))
    options: dict[str, Any] = {"timing_only": True, "elements": sum(SIZES), "workers": 2, "ready": str(recorded)}
    report = netsim.simulate(algorithm="dense", overlap="tensor", **options)
    (dense,) = report.results
    assert dense.buckets is not None
    assert [each["elements"] for each in dense.buckets] == list(trace.elements or ())
    assert [each["ready"] for each in dense.buckets] == pytest.approx(
        [instant / trace.gradient_s for instant in trace.ready_s]
    )
    assert (dense.ready_provenance, dense.compute_provenance, dense.select_provenance) == (
        "MEASURED", "MEASURED", "ASSUMED",
    )  # fmt: skip
    assert dense.compute_time_s == pytest.approx(trace.gradient_s + trace.update_s, abs=1e-11)
    assumed = netsim.simulate(algorithm="dense", overlap="tensor", compute_time="1ms", **options).results[0]
    assert (assumed.compute_time_s, assumed.compute_provenance) == (0.001, "ASSUMED")
    assert assumed.ready_provenance == "MEASURED"
    # Two passes a round take the gradient's time twice, and only the second one completes gradients.
    twice = netsim.simulate(algorithm="dense", overlap="tensor", accumulate=2, **options).results[0]
    assert twice.compute_time_s == pytest.approx(2 * trace.gradient_s + trace.update_s, abs=1e-11)
    assert twice.buckets is not None
    assert twice.buckets[0]["ready"] == pytest.approx((1 + trace.ready_s[0] / trace.gradient_s) / 2)
    command = f"simulate --timing-only --elements {sum(SIZES)} --workers 2 --overlap 1kB --ready {recorded}"
    out = run(capsys, f"{command} --algorithm dense").out
    assert f"trace    {recorded}   3 steps   gradient " in out
    assert "--compute-time" not in out


def test_without_overlap_a_trace_gives_the_compute_time_alone(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = read_trace(str(recorded))
    options: dict[str, Any] = {"timing_only": True, "elements": sum(SIZES), "workers": 2, "ready": str(recorded)}
    result = netsim.simulate(algorithm="dense", **options).results[0]
    assert result.compute_time_s == pytest.approx(trace.gradient_s + trace.update_s, abs=1e-11)
    assert (result.compute_provenance, result.buckets, result.ready_provenance) == ("MEASURED", None, None)
    command = f"simulate --timing-only --elements {sum(SIZES)} --workers 2 --ready {recorded}"
    assert f"trace    {recorded}   3 steps   gradient " in run(capsys, f"{command} --algorithm dense").out
    with pytest.raises(
        UsageError, match=r"nothing overlaps, and --compute-time replaces the compute time of the trace"
    ):
        netsim.simulate(algorithm="dense", compute_time="1ms", **options)
    with pytest.raises(UsageError, match=r"has gradients of [\d,]+ elements in all, and the model has 1,000; trace"):
        netsim.simulate(algorithm="dense", **options | {"elements": 1000})


def event(name: str, start: float, end: float, kind: str = "cpu_op", **details: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": kind, "name": name, "ts": start, "dur": end - start, "args": details}


def written(folder: Path, events: list[Any], name: str = "trace.json") -> str:
    path = folder / name
    path.write_text(json.dumps({"traceEvents": events}))
    return str(path)


def two_steps(**details: Any) -> list[dict[str, Any]]:
    """Return two steps of 1,000 and 1,200 µs whose two gradients are complete after 400 and 600, 500 and 700 µs."""
    step = [
        event(f"ProfilerStep#{number}", at, at + took, "user_annotation")
        for number, at, took in ((1, 0, 1000), (2, 1000, 1200))
    ]
    gradients = [event(GRADIENT, at - 10, at, **details) for at in (400, 600, 1500, 1700)]
    return [*step, *gradients, event(f"autograd::engine::evaluate_function: {GRADIENT}", 300, 900), {"ph": "M"}, 7]


def test_times_are_medians_over_the_steps(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, two_steps()))
    assert trace.ready_s == pytest.approx((450e-6, 650e-6))  # of 400 and 500, of 600 and 700
    assert trace.update_s == pytest.approx(450e-6)  # of 1000 - 600 and 1200 - 700
    assert (trace.elements, trace.tensors) == (None, ())
    assert trace.shares((5, 7)) == pytest.approx([1, 450 / 650])
    with pytest.raises(UsageError, match=r"has 2 gradients a step, without shapes, and the model has 3 tensors"):
        trace.shares((5, 7, 9))


def test_waiting_for_an_all_reduce_is_no_computation(tmp_path: Path) -> None:
    optimizers = [event("Optimizer.step#SGD.step", at, at + 50, "user_annotation") for at in (950, 2100)]
    events = [*two_steps(), *optimizers]
    assert read_trace(written(tmp_path, events)).update_s == pytest.approx(450e-6)
    events.append(event("c10d::allreduce_", 610, 620))
    trace = read_trace(written(tmp_path, events, "ddp.json"))
    assert trace.update_s == pytest.approx(75e-6)  # of 1000 - 950 and 2200 - 2100
    assert trace.ready_s == pytest.approx((450e-6, 650e-6))


def test_gradients_of_a_gpu_are_complete_when_its_kernels_are(tmp_path: Path) -> None:
    """Every kernel takes 1,000 µs and follows the one before; the CPU runs ahead. NCCL's kernel does not count."""
    events = [event("ProfilerStep#1", 100, 400, "user_annotation")]
    for number, launch in enumerate((50, 150, 250, 350)):
        events.append(event("cudaLaunchKernel", launch, launch + 5, "cuda_runtime", correlation=number))
        events.append(event("gemm", 60 + 1000 * number, 1060 + 1000 * number, "kernel", correlation=number))
    events += [event("cudaLaunchKernel", 260, 265, "cuda_runtime", correlation=9)]
    events += [event("ncclDevKernel_AllReduce", 300, 9000, "kernel", correlation=9)]
    events += [event(GRADIENT, 190, 200), event(GRADIENT, 290, 300)]
    trace = read_trace(written(tmp_path, events))
    # The step begins when the kernel launched before it ends, at 1,060 µs.
    assert trace.ready_s == pytest.approx((1000e-6, 2000e-6))
    assert trace.update_s == pytest.approx(1000e-6)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.data())
def test_shares_of_other_cuts_of_the_same_gradient(sizes: list[int], data: st.DataObject) -> None:
    """A tensor is complete with the gradient that completes its first element: later never less, the first one 1."""
    instants = sorted(data.draw(st.lists(st.floats(1e-6, 1), min_size=len(sizes), max_size=len(sizes))))
    trace = BackwardTrace("t", 1, tuple(instants), tuple(sizes), 0.0)
    total = sum(sizes)
    cut = data.draw(st.integers(1, total))
    tensors = [part for part in (cut, total - cut) if part]
    shares = trace.shares(tensors)
    assert shares[0] == 1
    if len(tensors) == 2:
        done = next(at for at in range(len(sizes)) if sum(sizes[: at + 1]) >= total - cut)
        assert shares[1] == instants[done] / instants[-1]
    assert trace.shares(trace.tensors)[::-1] == [instant / instants[-1] for instant in instants]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"{}", "has no traceEvents; give the file that prof.export_chrome_trace writes"),
        (b'{"traceEvents": []}', "has no steps; record steps with torch.profiler.schedule"),
        (b'{"traceEvents": []}', "add repeat=1 to it, or export in on_trace_ready"),
        (json.dumps([event("ProfilerStep#1", 0, 9)]).encode(), "has no backward pass in its steps; profile"),
        (json.dumps([event("ProfilerStep#1", 0, 9), event(GRADIENT, 20, 30)]).encode(), "has no backward pass"),
        (gzip.compress(b"{}", mtime=0)[:-4], "cannot be unpacked"),
    ],
)
def test_what_is_no_trace_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_trace(str(path))
    assert str(error.value).startswith(f"ready {str(path)!r}")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_trace_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, two_steps(**{"Input Dims": [[3, 4]]}))
    command = f"simulate --timing-only --workers 2 --overlap tensor --ready {path} --algorithm dense --elements"
    assert run(capsys, f"{command} 24").code == 0
    ran = run(capsys, f"{command} 25")
    assert ran.code == 2
    assert "has gradients of 24 elements in all, and the model has 25" in ran.err
    ran = run(capsys, f"simulate --timing-only --elements 24 --workers 2 --overlap tensor --ready {path}x.json")
    assert (ran.code, "cannot be read: No such file" in ran.err) == (2, True)
    ran = run(capsys, f"{command} 24 --out {path}")
    assert "is the file of ready, too" in ran.err
