"""The path of ``--device cuda`` on a CPU that passes for a GPU: the CPU's bits, and counted launches and waits."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import netsim
from algorithms import BUILT_IN
from algorithms.compression import accumulate_and_select, accumulate_and_select_rows
from algorithms.selection import Selector
from netsim._util.device import gpus_beside, is_gpu, resolve_device
from netsim._util.errors import NonFiniteGradientError
from netsim.comm.payload import Dense
from netsim.experiment.configuration import Experiment
from netsim.simulator.session import Session
from netsim.training.costs import MeasuredCosts
from netsim.training.sgd import Scaled
from netsim.training.workloads.fully_connected import FullyConnected
from netsim.training.workloads.gpu_task import GpuTask
from netsim.training.workloads.gradient_graph import GradientGraph
from netsim.training.workloads.task import DataParallelTask
from tests.fake_gpu import counts_of_an_exchange, fake_gpu
from tests.fake_streams import FakeGraph

LONG = 4096 * 8
"""Elements of a vector from which on the k-th largest is guessed from a sample."""


@functools.cache
def workload() -> netsim.Workload:
    """Return a fully connected network of more than LONG elements on random data."""
    random = np.random.default_rng(0)
    inputs = torch.from_numpy(random.standard_normal((60, 32), np.float32))
    labels = torch.from_numpy(random.integers(0, 4, 60))
    model = FullyConnected(32, 1024, 4)
    initial = (random.standard_normal(sum(p.numel() for p in model.parameters())) / 16).astype(np.float32)
    assert len(initial) > LONG
    return netsim.Workload(model=model, data=TensorDataset(inputs, labels), initial=initial)


gradient = DataParallelTask.gradient  # before it is replaced
USUAL: dict[str, Any] = {"workers": 3, "rounds": 3, "density": 0.01, "batch_size": 4}
USUAL |= {"compute_time": "1ms", "select_time": "1ms", "merge_time": "1ms"}


def hashes(device: str, beside: Sequence[str] = (), **options: Any) -> dict[str, str | None]:
    """Return the SHA-256 of the parameters after a short run, by algorithm."""
    experiment = Experiment.of(**(USUAL | options), device=device)
    given: dict[str, Any] = {"workload": workload(), "workers": 3, "batch_size": 4, "seed": 0}
    given |= {"device": resolve_device(device), "accumulate": experiment.accumulate}
    task = GpuTask(beside, **given) if is_gpu(given["device"]) else DataParallelTask(**given)
    tensors = tuple(size for _, size in task.tensors)
    session = Session(experiment, task, tensors, MeasuredCosts(experiment.assumed_costs(), task.device), task.device)
    return {name: session.simulate(name).parameters_sha256 for name in experiment.algorithms}


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "dense,gtopk,sasg,ps-topk", "rounds": 2},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"algorithm": ",".join(sorted(BUILT_IN)), "rounds": 2},
                {"algorithm": "gtopk,sasg", "per_tensor": True},
                {"algorithm": "topk,dense", "overlap": "100kB"},
                {"algorithm": "gtopk", "overlap": "tensor", "communicator": "serial"},
                {"algorithm": "ps,ps-topk", "topology": "ps:servers=2"},
                {"algorithm": "gtopk,topk", "select": "sampled"},
                {"algorithm": "gtopk", "select": "threshold"},
                {"algorithm": "topk,randk", "momentum": 0.9, "momentum_correction": True},
                {"algorithm": "gtopk:residual=index-intersection", "momentum": 0.9, "clip": 0.1, "weight_decay": 1e-3},
                {"algorithm": "gtopk,topk,ps,sasg", "dtype": "bf16"},
                {"algorithm": "gtopk", "engine": "event", "send_mode": "eager"},
                {"algorithm": "dense,gtopk", "accumulate": 2, "density_warmup": 2},
            )
        ),
    ],
    ids=lambda options: " ".join(map(str, options.values()))[:60],
)
def test_a_run_on_the_gpu_has_the_bits_of_one_on_the_cpu(options: dict[str, Any]) -> None:
    on_cpu = hashes("cpu", **options)
    with fake_gpu():
        assert hashes("cuda", **options) == on_cpu


@pytest.mark.parametrize(
    ("gpus", "options"),
    [
        (2, {"algorithm": "dense,gtopk", "rounds": 2}),
        pytest.param(4, {"algorithm": "dense,gtopk,sasg"}, marks=pytest.mark.slow),
        pytest.param(2, {"algorithm": "gtopk", "accumulate": 2, "batch_size": 2}, marks=pytest.mark.slow),
        pytest.param(2, {"algorithm": "dense,gtopk", "engine": "event"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_several_gpus_compute_the_bits_of_one(gpus: int, options: dict[str, Any]) -> None:
    """With four GPUs, one has no worker."""
    on_cpu = hashes("cpu", **options)
    with fake_gpu(gpus):
        assert hashes("cuda", gpus_beside("cuda:0", "cuda"), **options) == on_cpu


@pytest.mark.parametrize("graphs", [True, False])
def test_workers_are_spread_over_all_gpus_and_results_stay_on_the_first(graphs: bool) -> None:
    """By graphs, and without them by threads."""
    devices: Counter[str] = Counter()

    def counted(task: DataParallelTask, *call: Any) -> Dense:
        devices[task.device] += 1
        return gradient(task, *call)

    def begun(graph: GradientGraph, *call: Any) -> None:
        assert graphs, "the threads' kernels"
        devices[str(graph._flat.device)] += 1
        begin(graph, *call)

    begin = GradientGraph.begin

    def capture(graph: FakeGraph) -> None:
        if not graphs:
            raise RuntimeError("no graphs here")
        made(graph)

    made = FakeGraph.__init__
    with (
        fake_gpu(3),
        mock.patch.object(DataParallelTask, "gradient", counted),
        mock.patch.object(GradientGraph, "begin", begun),
        mock.patch.object(FakeGraph, "__init__", capture),
    ):
        report = netsim.simulate(
            **USUAL | {"workers": 6, "rounds": 2, "workload": workload()}, algorithm="dense", device="cuda"
        )
        assert report.environment["gradient_devices"] == ["cuda:0", "cuda:1", "cuda:2"]
        assert "on cuda:0, cuda:1, cuda:2" in str(report)
    # Each GPU has two of six workers in two rounds. To compare bits, every graph and the first GPU compute once more.
    assert devices == ({"cuda:0": 12, "cuda:1": 6, "cuda:2": 6} if graphs else {"cuda:0": 4, "cuda:1": 4, "cuda:2": 4})


def test_a_gpu_of_another_model_does_not_compute() -> None:
    """It may give other bits."""
    models = {"cuda:0": "A", "cuda:1": "B", "cuda:2": "A"}
    with fake_gpu(3), mock.patch("torch.cuda.get_device_name", models.__getitem__):
        assert gpus_beside("cuda:0", "cuda") == gpus_beside("cuda:0", "auto") == ["cuda:2"]
        assert gpus_beside("cuda:0", "cuda:0") == gpus_beside("cpu", "auto") == []


def test_several_gpus_name_the_worker_whose_gradient_is_not_finite() -> None:
    with fake_gpu(2), pytest.raises(NonFiniteGradientError, match="step"):
        hashes("cuda", ["cuda:1"], algorithm="dense", lr=1e30)


@pytest.mark.slow
def test_metrics_and_a_resumed_checkpoint_have_the_values_of_the_cpu(tmp_path: Path) -> None:
    def resumed(device: str) -> tuple[list[str | None], list[dict[str, Any]]]:
        """Interrupt a run, resume it, and return the hashes of all results and the rows after the checkpoint."""
        given = USUAL | {"algorithm": "gtopk,sasg:history=2", "rounds": 4, "checkpoint_every": 2, "eval_every": 2}
        given |= {"workload": workload(), "device": device}
        files = {"checkpoint": tmp_path / device, "metrics": tmp_path / f"{device}.jsonl"}

        def interrupt(algorithm: str, step: int) -> None:
            if algorithm.startswith("sasg") and step == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            netsim.simulate(**given, **files, on_round=interrupt)
        results = netsim.simulate(**given, **files, resume=True).results
        rows = [json.loads(line) for line in files["metrics"].read_text().splitlines()]
        return [result.parameters_sha256 for result in results], rows

    expected, of_cpu = resumed("cpu")
    with fake_gpu():
        found, rows = resumed("cuda")
    assert found == expected
    for row, numbers in zip(rows, of_cpu, strict=True):
        assert row.pop("algorithm") == numbers.pop("algorithm")
        assert [name for name, value in row.items() if value is None] == [
            name for name, value in numbers.items() if value is None
        ]
        # a GPU adds squares in another order
        assert [value for value in row.values() if value is not None] == pytest.approx(
            [value for value in numbers.values() if value is not None], rel=1e-6
        )


@pytest.mark.parametrize(("blocks", "at_once"), [((), 3), ((3, LONG, 70, LONG + 5), 2)])
@pytest.mark.parametrize("kind", ["normal", "equal", "mostly zero", "large at the stride", "not finite"])
def test_rows_are_selected_as_the_compiled_kernels_do(
    monkeypatch: pytest.MonkeyPatch, kind: str, blocks: tuple[int, ...], at_once: int
) -> None:
    size, k, rows = sum(blocks) or 2 * LONG, 500, 3
    random = np.random.default_rng(1)
    drawn = {
        "normal": random.standard_normal((rows, size)),
        "equal": np.full((rows, size), -0.5),
        "mostly zero": random.standard_normal((rows, size)) * (random.random((rows, size)) < 2e-3),
        # What the sample sees is larger than everything else, so the guess is far too high.
        "large at the stride": np.where(np.arange(size) % (size // 4096) == 0, 1e3, random.random((rows, size))),
        # NaN is above infinity, as the kernels order it: a run that diverged shows it.
        "not finite": np.where(random.random((rows, size)) < 1e-3, [[np.nan], [np.inf], [-np.inf]], 1.0),
    }[kind].astype(np.float32)
    selector = Selector(k, tuple((of, max(1, of // 100)) for of in blocks))
    gradients = random.standard_normal((rows, size)).astype(np.float32)

    def calls(device: str) -> Any:
        pairs = zip(torch.from_numpy(drawn.copy()), torch.from_numpy(gradients), (0.1, 0.1, 0.3), strict=True)
        return [(Dense(a.to(device)), Scaled(Dense(b.to(device)), factor), selector) for a, b, factor in pairs]

    expected = [accumulate_and_select(*call) for call in calls("cpu")]
    monkeypatch.setattr("algorithms.compression.AT_ONCE", at_once * size)
    with fake_gpu():
        for selected, one in zip(accumulate_and_select_rows(calls("cuda:0")), expected, strict=True):
            assert torch.equal(selected.local.indices, one.local.indices)
            np.testing.assert_array_equal(selected.local.values.numpy(), one.local.values.numpy())
            np.testing.assert_array_equal(selected.rest.values.cpu().numpy(), one.rest.values.numpy())


def test_launches_and_waits_of_a_round_do_not_grow() -> None:
    workers = 64
    counts = counts_of_an_exchange(workers)
    assert counts.launches <= 2 * workers, counts
    assert counts.waits <= 4, counts


def test_a_round_needs_the_residuals_and_little_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, at_once, size = 64, 3, 2**12
    monkeypatch.setattr("algorithms.compression.AT_ONCE", at_once * size)
    rows = counts_of_an_exchange(workers, size).most_memory / (4 * size)
    # the residuals; of three workers at once the gradients, and their products with the learning rate; the template
    assert workers < rows <= workers + 2 * at_once + 1
