"""Several mini-batches a round and one exchange: the gradients, times and samples of a loop in plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

import netsim
from netsim._util.system import one_thread_each
from netsim.comm.payload import Dense, Vector
from netsim.experiment.configuration import Experiment
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.workers import make_workers
from netsim.training.loop import Trained, train
from netsim.training.workloads.fully_connected import FullyConnected
from netsim.training.workloads.task import DataParallelTask
from tests import own

WORKERS, STEPS, LR = 2, 3, 0.125
BATCH = 16
"""Rows of a mini-batch: for fewer, MKL adds the products in an order that depends on the CPU (see `Pass`)."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread_each():
        yield


def task_of(model: nn.Module, accumulate: int = 1, sampling: str = "random") -> DataParallelTask:
    workload = own.workload(model, own.points(0))
    return DataParallelTask(workload, WORKERS, BATCH, 0, "cpu", sampling=sampling, accumulate=accumulate)


def shared() -> nn.Module:
    """Return a model whose workers share a pass."""
    return FullyConnected(own.FEATURES, 8, own.CLASSES)


def separate() -> nn.Module:
    """Return a model whose workers have a pass each."""
    return nn.Sequential(nn.Linear(own.FEATURES, 8), nn.Tanh(), nn.Linear(8, own.CLASSES))


MODELS = (shared, separate)


def by_netsim(task: DataParallelTask) -> torch.Tensor:
    """Return the parameters after training in memory."""
    experiment = Experiment.of(workers=WORKERS, algorithm="dense", lr=LR)
    algorithm = experiment.algorithm("dense", tuple(size for _, size in task.tensors))
    tasks = RankScheduler[Trained](InMemoryTransport()).run(
        make_workers(algorithm, WORKERS, 0),
        lambda worker: train(worker, algorithm, task, STEPS, experiment.recipe("dense")),
    )
    assert tasks[0].result is not None
    assert isinstance(tasks[0].result.parameters, Dense)
    return tasks[0].result.parameters.values


def by_torch(task: DataParallelTask, passes: int, *, divides_loss: bool) -> torch.Tensor:
    """Train two workers in turn; each accumulates its own `parameter.grad`, as ranks do inside ``no_sync()``."""
    net = copy.deepcopy(task.workload.model)
    nn.utils.vector_to_parameters(task.initial_parameters().values.clone(), net.parameters())
    parameters = list(net.parameters())
    optimizer = torch.optim.SGD(parameters, lr=LR)
    for step in range(STEPS):
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        for rank in range(WORKERS):
            optimizer.zero_grad()
            for micro in range(passes):
                inputs, labels = task.samples(rank, step * passes + micro)
                loss = nn.functional.cross_entropy(net(inputs), labels)
                (loss / passes if divides_loss else loss).backward()
            for total, parameter in zip(totals, parameters, strict=True):
                total += parameter.grad if divides_loss else parameter.grad / passes
        for total, parameter in zip(totals, parameters, strict=True):
            parameter.grad = total / WORKERS
        optimizer.step()
    return nn.utils.parameters_to_vector(parameters).detach()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("passes", "divides_loss"), [(1, False), (2, True), (3, False), (4, True), (4, False)])
def test_accumulated_gradients_train_as_a_loop_of_torch(
    model: Callable[[], nn.Module], passes: int, divides_loss: bool
) -> None:
    """Bit for bit: the rate, the workers and, where the loss is divided, the passes are powers of two."""
    expected = by_torch(task_of(model()), passes, divides_loss=divides_loss)
    assert torch.equal(by_netsim(task_of(model(), passes)), expected)


@pytest.mark.parametrize("model", MODELS)
def test_a_gradient_that_becomes_ready_tensor_by_tensor_has_the_same_bits(model: Callable[[], nn.Module]) -> None:
    task = task_of(model(), accumulate=3)
    start = task.initial_parameters()
    whole = task.gradient(start, 1, 2).values
    starts = np.cumsum([0, *(size for _, size in task.tensors)])
    ready: list[int] = []

    def written(vector: Vector, tensor: int) -> None:
        assert isinstance(vector, Dense)
        first, last = starts[tensor : tensor + 2]
        assert torch.equal(vector.values[first:last], whole[first:last])
        ready.append(tensor)

    assert torch.equal(task.gradual(written, start, 1, 2).values, whole)
    assert sorted(ready) == list(range(len(task.tensors)))
    # Independently: the mean of the gradients of mini-batches 6, 7 and 8.
    single = task_of(model())
    parts = [single.gradient(start, 1, number).values for number in (6, 7, 8)]
    assert torch.equal((parts[0] + parts[1] + parts[2]) / 3, whole)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sampling", ["random", "epochs"])
def test_a_round_uses_the_samples_of_as_many_rounds(model: Callable[[], nn.Module], sampling: str) -> None:
    one, other = (task_of(model(), accumulate, sampling) for accumulate in (1, 4))
    for number in range(8):
        np.testing.assert_array_equal(one.batch(1, number), other.batch(1, number))
    calls = [(one.initial_parameters(), rank, 1) for rank in range(WORKERS)]
    for rank, gradient in enumerate(other.gradients(calls)):
        assert torch.equal(gradient.values, other.gradient(calls[rank][0], rank, 1).values)


@pytest.mark.parametrize("engine", ["event", "vectorized"])
def test_a_round_takes_the_compute_time_of_every_pass_and_one_exchange(engine: str) -> None:
    options = {"workers": 4, "elements": 10**6, "timing_only": True, "engine": engine, "algorithm": "dense,gtopk"}
    one, four = (netsim.simulate(accumulate=passes, compute_time="10ms", **options).results for passes in (1, 4))
    for before, after in zip(one, four, strict=True):
        assert after.round_time_s == pytest.approx(before.round_time_s + 0.03, rel=1e-9)
        assert after.bytes_sent_by_rank == before.bytes_sent_by_rank


def test_a_step_of_a_profile_is_charged_for_every_pass() -> None:
    rates = (("gradient", 2e-3, 0.0, 0.0),)
    base = {"workers": 2, "elements": 1000, "timing_only": True, "algorithms": ("dense",)}
    results = [netsim.simulate(work_rates=rates, accumulate=passes, **base).results[0] for passes in (1, 3)]
    assert [result.compute_time_s for result in results] == pytest.approx([2e-3, 6e-3])


def test_only_the_last_pass_completes_buckets() -> None:
    """With T for all passes, a bucket that a pass completes at share s of its time is complete at (N - 1 + s) / N T."""
    buckets = {"elements": 1000, "timing_only": True, "overlap": "1kB", "compute_time": "1ms"}
    for options in ({}, {"ready": "0.25,0.5,0.75,1"}):
        once, four = (Experiment.of(accumulate=passes, **buckets, **options) for passes in (1, 4))
        shares = [piece.ready for piece in once.pieces((250,) * 4)]
        assert [piece.ready for piece in four.pieces((250,) * 4)] == pytest.approx([(3 + at) / 4 for at in shares])


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
def test_real_ranks_accumulate_as_simulated_ones() -> None:
    for overlap in ({}, {"overlap": "1MB"}):
        options = {"workers": 2, "algorithm": "dense,gtopk", "rounds": 3, "accumulate": 3, "density": 0.01, **overlap}
        simulated, real = netsim.simulate(compute_time="1ms", **options).results, netsim.run(**options).results
        for one, other in zip(simulated, real, strict=True):
            assert one.parameters_sha256 == other.parameters_sha256
            assert one.bytes_sent_by_rank == other.bytes_sent_by_rank
