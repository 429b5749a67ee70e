"""The device of a run: which one, exact arithmetic, what a report says, and readiness by events of a GPU.

Machines without a GPU have one that a CPU passes for (:mod:`tests.fake_gpu`); ``tests/test_cuda.py`` needs a real one.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import Executor
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

import netsim
from netsim._util.device import check_gpu_each, exact_arithmetic, gpu_of_rank, resolve_device
from netsim._util.errors import UsageError
from netsim.comm.pieces import InPieces
from netsim.comm.worker import Compute, Worker
from netsim.distributed import rank_main
from netsim.distributed.overlap_threads import Backward
from netsim.experiment.configuration import Experiment
from netsim.simulator import opening
from netsim.simulator.opening import faster_device, load_task
from netsim.simulator.timeline import Timeline
from netsim.testbed.local_work import TimedTransport
from netsim.testbed.work_timings import step_samples, work_samples
from netsim.training.costs import MeasuredCosts
from netsim.training.overlap import pieces_of
from netsim.training.workloads.lstm import Lstm
from tests.fake_gpu import FakeCuda, fake_gpu

ASSUMED = {"compute_time": "1ms", "select_time": "1ms", "merge_time": "1ms"}
SMALL = {"workers": 2, "rounds": 1, "batch_size": 4, "algorithm": "dense", **ASSUMED}
SETTINGS = (
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "deterministic"),
    (torch.backends.cudnn, "benchmark"),
)


def settings() -> list[bool]:
    """Return whether TF32 is allowed in convolutions and products, and whether cuDNN is deterministic and searches."""
    return [getattr(place, name) for place, name in SETTINGS]


@pytest.mark.parametrize("tf32", [False, True])
def test_a_run_on_a_gpu_is_exact_unless_tf32_is_asked_for_and_says_so(tf32: bool) -> None:
    seen = []
    before = settings()
    with fake_gpu(), mock.patch.dict(os.environ):
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        report = netsim.simulate(**SMALL, device="cuda", tf32=tf32, on_round=lambda *_: seen.append(settings()))
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert seen == [[tf32, tf32, True, False]]
    assert settings() == before
    said = report.environment
    assert {"device", "device_name", "driver", "cuda", "cudnn"} <= said.keys()
    assert (said["device"], said["tf32"], said["deterministic"]) == ("cuda:0", tf32, True)


def test_settings_of_a_gpu_are_left_alone_on_a_cpu() -> None:
    before = settings()
    with exact_arithmetic("cpu"):
        assert settings() == before
    report = netsim.simulate(**SMALL, device="cpu", tf32=True)
    assert "tf32" not in report.environment
    assert "--tf32 changed nothing: a CPU computes in float32." in report.notes


@pytest.mark.parametrize(
    ("device", "local_rank", "gpus", "expected"),
    [
        *(("cuda", rank, 2, f"cuda:{rank % 2}") for rank in range(4)),
        ("auto", 3, 4, "cuda:3"),
        ("cuda:1", 0, 2, "cuda:1"),
        ("cpu", 1, 2, "cpu"),
        ("auto", 1, 0, "cpu"),
    ],
)
def test_ranks_of_a_machine_share_its_gpus(device: str, local_rank: int, gpus: int, expected: str) -> None:
    with fake_gpu(gpus), mock.patch.dict(os.environ, {"LOCAL_RANK": str(local_rank)}):
        assert gpu_of_rank(device) == expected


def test_nccl_asks_for_a_gpu_for_each_rank_in_one_line() -> None:
    with fake_gpu(2):
        check_gpu_each(2, "cuda")
        with pytest.raises(UsageError, match="3 ranks on this machine, and torch sees 2") as refused:
            rank_main.check_backend("nccl", Experiment.of(workers=3, device="cuda"))
        assert "\n" not in str(refused.value)
        with pytest.raises(UsageError, match="'cuda:1' is one GPU"):
            check_gpu_each(2, "cuda:1")
        check_gpu_each(1, "cuda:1")
        with mock.patch.dict(os.environ, {"LOCAL_WORLD_SIZE": "2"}):  # torchrun on several machines
            check_gpu_each(16, "cuda")


def test_a_rank_under_nccl_connects_its_own_gpu_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: dict[str, Any] = {}
    monkeypatch.setattr(rank_main, "rendezvous", lambda *_: (None, None))
    monkeypatch.setattr(rank_main, "verify_config", lambda *_: None)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **options: joined.update(options))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setattr(rank_main, "wake_without_preempting", lambda: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with fake_gpu(2), rank_main.process_group("nccl", 1.0, "env://", 1, 2, {"experiment": {"device": "cuda"}}):
        assert joined["device_id"] == torch.device("cuda:1")


@pytest.mark.parametrize(("on_cpu", "chosen"), [(3.0, "cpu"), (5.0, "cuda:0")])
def test_auto_takes_the_faster_device_and_says_so(monkeypatch: pytest.MonkeyPatch, on_cpu: float, chosen: str) -> None:
    """One gradient takes 2 s on the GPU; two threads of the CPU compute one in half of `on_cpu`."""
    seconds = {"cpu": on_cpu, "cuda:0": 2.0}
    monkeypatch.setattr(opening, "seconds_of_gradient", lambda task: seconds[task.device])
    with fake_gpu():
        device, reason = faster_device(Experiment.of(workers=2), threads=2)
        real = rank_main.on_faster_device(Experiment.of(workers=2), "gloo")
    assert device == chosen
    assert reason is not None
    assert "2 s on cuda:0" in reason
    assert real.device == ("cuda" if on_cpu > 2 else "cpu")  # a rank has one thread


def test_auto_measures_and_a_report_has_the_choice() -> None:
    with fake_gpu():
        report = netsim.simulate(**SMALL)
    assert report.environment["device_choice"].startswith(f"auto took {report.environment['device']}: ")
    assert "MEASURED" in report.environment["device_choice"]
    assert resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        assert faster_device(Experiment.of(workers=2), 2) == ("cpu", None)


def test_readiness_on_a_gpu_is_when_kernels_end_not_when_they_are_launched() -> None:
    """The clock of the fake GPU's events is the number of kernels; the CPU's clock does not tell here."""
    with fake_gpu() as counts, mock.patch("time.perf_counter", side_effect=AssertionError("the CPU's clock")):
        task, tensors, device = load_task(Experiment.of(workers=1, batch_size=4), "cuda")
        launched: dict[int, int] = {}

        def gradual(written: Any) -> Any:
            first = counts.launches

            def noted(vector: Any, tensor: int) -> None:
                launched[tensor] = counts.launches - first
                written(vector, tensor)

            result = task.gradual(noted, task.initial_parameters(), 0, 0)
            launched[len(tensors)] = counts.launches - first
            return result

        shares = MeasuredCosts({}, device).ready(gradual)
    assert shares == pytest.approx([launched[tensor] / launched[len(tensors)] for tensor in range(len(tensors))])
    assert shares[-1] < shares[0] < 1


class Inline(Executor):
    """Runs what is submitted at once, so that the fake GPU sees all operators."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        function(*args, **kwargs)


def test_overlap_waits_for_a_piece_by_its_event_not_for_the_whole_gpu() -> None:
    with fake_gpu() as counts:
        task, tensors, device = load_task(Experiment.of(workers=1, batch_size=4), "cuda")
        parameters = task.initial_parameters()
        pieces = pieces_of(tensors, "tensor", [1.0] * len(tensors))
        whole: Compute[Any] = Compute("gradient", task.gradient, (parameters, 0, 0), gradual=task.gradual)
        backward = Backward(InPieces(whole, pieces), Inline(), Timeline(), device)
        waits = counts.operators["wait: event"]
        parts = []
        for _ in pieces:
            with pytest.raises(StopIteration) as ended:
                backward.next().send(None)
            parts.append(ended.value.value.values)
        assert counts.operators["wait: event"] - waits == len(pieces)
        assert counts.synchronised == 0
        assert torch.equal(torch.cat(parts[::-1]), task.gradient(parameters, 0, 0).values)


@pytest.mark.slow
def test_calibration_times_work_on_the_gpu() -> None:
    with fake_gpu() as counts:
        elements, steps = step_samples("digits-mlp", 4, "cuda:0")
        launches = counts.launches
        on_gpu = work_samples((2_000,), device="cuda:0")
    assert launches > 0
    assert elements == 1_126_410
    assert len(steps) == 5
    assert on_gpu.keys() == work_samples((2_000,)).keys()


def test_local_work_waits_for_the_gpu_before_it_reads_the_clock() -> None:
    transport = TimedTransport("cuda:0")
    worker = Worker(0, 1)
    worker.step = 1  # the first step, which warms up, is not counted
    with fake_gpu() as counts:
        row = FakeCuda(torch.ones(4))
        transport.compute(worker, worker.compute("update", row.add, 1), lambda: None, None, lambda *_: None)  # type: ignore[arg-type]
    assert counts.operators["wait: stream"] == 1
    assert [len(times) for times in transport.seconds.values()] == [1]


def test_an_lstm_on_a_gpu_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest a warning is an error, whatever a module ignored when it was imported."""

    def forward(self: nn.LSTM, states: torch.Tensor) -> torch.Tensor:
        warnings.warn("RNN module weights are not part of single contiguous chunk of memory.", stacklevel=1)
        return states

    monkeypatch.setattr(nn.LSTM, "forward", forward)
    with fake_gpu():
        Lstm(2, 2, 1)(FakeCuda(torch.ones(1, 1, 2)))
