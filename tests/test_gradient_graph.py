"""Gradients by CUDA graphs on the fake GPU: the bits of single gradients, and when graphs are not used.

The fake GPU runs a graph's operators again on the memory that they had, and finds memory that streams use in no order.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import netsim
from netsim._util.errors import NonFiniteGradientError
from netsim.comm.payload import Dense
from netsim.training.workloads.fully_connected import FullyConnected
from netsim.training.workloads.gpu_task import GRAPHS, GpuTask
from tests.fake_gpu import CUDA, FakeCuda, fake_gpu
from tests.fake_streams import FakeGraph

WORKERS = GRAPHS + 3


class Reads(nn.Module):
    """A network that reads a value from the GPU in its forward, which a capture cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return scores (n, 3)."""
        scores: torch.Tensor = self.layer(inputs.flatten(1))
        return scores if float(scores.detach().abs().sum()) >= 0 else -scores


def convolutions() -> nn.Module:
    """Return a network with convolutions, batch norm and max pooling for inputs (n, 1, 2, 3)."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "fully connected": lambda: FullyConnected(6, 8, 3),
    "by autograd": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)),
    "convolutions": convolutions,
}


@functools.cache
def workload(model: Callable[[], nn.Module]) -> netsim.Workload:
    """Return a model with 200 random samples."""
    random = np.random.default_rng(0)
    inputs = torch.from_numpy(random.standard_normal((200, 1, 2, 3), np.float32))
    return netsim.Workload(model=model(), data=TensorDataset(inputs, torch.from_numpy(random.integers(0, 3, 200))))


def task_of(model: Callable[[], nn.Module], gpus: int = 1, accumulate: int = 1) -> GpuTask:
    """Return a task on the first of the fake GPUs, with the others beside it."""
    beside = [f"cuda:{index}" for index in range(1, gpus)]
    return GpuTask(
        beside, workload=workload(model), workers=WORKERS, batch_size=5, seed=0, device="cuda:0", accumulate=accumulate
    )


def in_turn(task: GpuTask, calls: Any) -> list[torch.Tensor]:
    """Return the gradients of `calls`, each computed alone and launched kernel by kernel, in main memory."""
    return [task.gradient(*call).values.cpu() for call in calls]


def together(task: GpuTask, calls: Any) -> list[torch.Tensor]:
    """Return the gradients of `calls` in main memory, each read when it is yielded."""
    return [each.values.cpu() for each in task.gradients(calls)]


@pytest.mark.parametrize(
    ("name", "accumulate", "gpus"),
    [
        *((name, 1, 1) for name in MODELS),
        ("fully connected", 2, 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("by autograd", 2, 3), ("convolutions", 2, 1))),
    ],
)
def test_graphs_give_the_bits_of_single_gradients(name: str, accumulate: int, gpus: int) -> None:
    with fake_gpu(gpus):
        task = task_of(MODELS[name], gpus, accumulate)
        parameters = task.initial_parameters()
        for step in range(2):
            calls = [(parameters, rank, step) for rank in range(WORKERS)]
            assert all(map(torch.equal, together(task, calls), in_turn(task, calls)))
            parameters = Dense(parameters.values - 0.1 * task.gradient(*calls[0]).values)
        assert task.graphs


def test_workers_with_their_own_parameters_and_parameters_changed_in_place() -> None:
    with fake_gpu():
        task = task_of(MODELS["by autograd"])
        initial = task.initial_parameters().values
        of_rank = [Dense(initial + rank) for rank in range(WORKERS)]
        for step in range(2):
            calls = [(of_rank[rank], rank, step) for rank in range(WORKERS)]
            assert all(map(torch.equal, together(task, calls), in_turn(task, calls)))
            for each in of_rank:
                each.values.mul_(0.5)
        assert task.graphs


def test_a_gradient_is_one_launch_and_copies_around_it() -> None:
    """What is launched for each worker: copies of its samples' numbers and of its gradient, the graph, one wait."""
    with fake_gpu() as counts:
        task = task_of(MODELS["by autograd"])
        calls = [(task.initial_parameters(), rank, 0) for rank in range(WORKERS)]
        list(task.gradients(calls))
        launches, waits, graphs = counts.launches, counts.waits, counts.operators["graph"]
        list(task.gradients(calls))
    assert counts.operators["graph"] - graphs == WORKERS
    assert counts.launches - launches <= 3 * WORKERS + GRAPHS  # and the parameters, once for each graph
    assert counts.waits - waits == WORKERS


def test_a_model_that_reads_from_the_gpu_is_launched_kernel_by_kernel(caplog: pytest.LogCaptureFixture) -> None:
    with fake_gpu():
        task, usual = task_of(Reads), torch.cuda.current_stream("cuda:0")
        calls = [(task.initial_parameters(), rank, 0) for rank in range(WORKERS)]
        assert all(map(torch.equal, together(task, calls), in_turn(task, calls)))
        assert task.graphs == []
        assert torch.cuda.current_stream("cuda:0") is usual
    assert "launched kernel by kernel" in caplog.text
    assert "not permitted when stream is capturing" in caplog.text


def test_a_capture_that_fails_spoils_no_other_one() -> None:
    with fake_gpu():
        for model in (Reads, MODELS["by autograd"]):
            task = task_of(model)
            calls = [(task.initial_parameters(), rank, 0) for rank in range(WORKERS)]
            list(task.gradients(calls))
        assert len(task.graphs or ()) == GRAPHS


@pytest.mark.parametrize("gpus", [1, 2])
def test_more_calls_get_more_graphs(gpus: int) -> None:
    with fake_gpu(gpus):
        task = task_of(MODELS["fully connected"], gpus)
        for few in (2, 3, WORKERS):
            calls = [(task.initial_parameters(), rank, 0) for rank in range(few)]
            assert all(map(torch.equal, together(task, calls), in_turn(task, calls)))
            assert len(task.graphs or ()) == min(few, gpus * GRAPHS)


def test_a_task_that_nobody_holds_is_freed_with_its_graphs_at_once() -> None:
    """A garbage collection may never come: simulations set objects aside, and the GPU's memory with them."""
    with fake_gpu(2):
        task = task_of(MODELS["by autograd"], 2)
        list(task.gradients([(task.initial_parameters(), rank, 0) for rank in range(WORKERS)]))
        assert task.graphs
        gone = weakref.ref(task)
        gc.collect()
        gc.disable()
        try:
            del task
            assert gone() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_graph_with_other_bits_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gpus: int
) -> None:
    replay = FakeGraph.replay

    def wrong(graph: FakeGraph) -> None:
        replay(graph)
        graph.operators[-2].made.view(-1)[0] += 1e-7

    monkeypatch.setattr(FakeGraph, "replay", wrong)
    with fake_gpu(gpus):
        task = task_of(MODELS["by autograd"], gpus)
        calls = [(task.initial_parameters(), rank, 0) for rank in range(WORKERS)]
        assert all(map(torch.equal, together(task, calls), in_turn(task, calls)))
        assert task.graphs == []
    assert "its bits differ" in caplog.text


def test_a_worker_whose_gradient_is_not_finite_is_named_and_the_rest_can_go_on() -> None:
    with fake_gpu():
        task = task_of(MODELS["by autograd"])
        good = task.initial_parameters()
        calls = [(good, rank, 0) for rank in range(WORKERS)]
        list(task.gradients(calls))
        bad = Dense(good.values * torch.inf)
        with pytest.raises(NonFiniteGradientError, match="worker 5, step 1"):
            list(task.gradients([(bad if rank == 5 else good, rank, 1) for rank in range(WORKERS)]))
        assert all(map(torch.equal, together(task, calls), in_turn(task, calls)))


def test_gradients_that_nobody_takes_are_waited_for() -> None:
    with fake_gpu():
        task = task_of(MODELS["by autograd"])
        some = task.gradients([(task.initial_parameters(), rank, 0) for rank in range(WORKERS)])
        next(some)
        some.close()  # type: ignore[attr-defined]
        del task


class TestOfTheFake:
    """What the fake GPU finds, so that it would find it in the product."""

    def test_a_stream_that_does_not_wait(self) -> None:
        def launched() -> None:
            with fake_gpu():
                made = torch.ones(5, device="cuda:0")
                with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
                    made.add_(1)
                torch.cuda.synchronize()

        with pytest.raises(AssertionError, match="another stream may still use"):
            launched()

    def test_a_stream_that_waits(self) -> None:
        with fake_gpu():
            made = torch.ones(5, device="cuda:0")
            side, usual = torch.cuda.Stream("cuda:0"), torch.cuda.current_stream("cuda:0")
            side.wait_stream(usual)
            with torch.cuda.stream(side):
                made.add_(1)
            usual.wait_event(side.record_event())
            made.add_(1)

    def test_memory_that_is_freed_too_early(self) -> None:
        def freed() -> None:
            with fake_gpu():
                made = torch.ones(5, device="cuda:0")
                side = torch.cuda.Stream("cuda:0")
                side.wait_stream(torch.cuda.current_stream("cuda:0"))
                with torch.cuda.stream(side):
                    kept = made + 1
                del made
                assert kept.device == CUDA

        with pytest.raises(AssertionError, match="memory was freed"):
            freed()

    def test_a_graph_that_is_not_replayed_has_computed_nothing(self) -> None:
        with fake_gpu():
            given = torch.ones(3, device="cuda:0")
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream("cuda:0")
            with torch.cuda.graph(graph, pool=torch.cuda.graph_pool_handle(), stream=stream):
                made = given * 2
            assert isinstance(made, FakeCuda)
            assert made.held.isnan().all()
            given.fill_(3)
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                graph.replay()
                assert made.cpu().tolist() == [6, 6, 6]
