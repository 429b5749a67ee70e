"""PowerSGD against a transcription from its paper, against torch's hook, and its laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import netsim
from algorithms.powersgd import PowerSGD, layout_of
from netsim._util.errors import UsageError
from netsim._util.random_streams import Stream, generator
from netsim.comm.payload import Dense, SizeOnly
from netsim.experiment.configuration import Experiment
from netsim.simulator.opening import load_task
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.workers import make_workers
from netsim.training.loop import Trained, train
from tests import papers
from tests.engines import results_of
from tests.ranks import on_ranks
from tests.strategies import gradients
from tests.test_against_papers import MEAN, RECIPES, WORKERS, Both, D, hold

SHAPES = ((4, 6), (4,), (6, 2))
"""Of 24, 4 and 12 elements."""


def drawn(count: int, step: int) -> np.ndarray:
    """What netsim draws is a definition."""
    return generator(0, Stream.POWER_SGD, 0, step).standard_normal(count)


def both(workers: int, sgd: papers.Sgd = MEAN, rank: int = 1, start: int = 0, warm: bool = True) -> Both:
    method = papers.PowerSGD(workers, D, sgd, SHAPES, rank, lambda n, t: drawn(n, 0 if warm else t), start, warm)
    return Both(PowerSGD(SHAPES, rank=rank, min_rate=0, dense_steps=start, warm_start=warm), method)


ROUNDING = 1e-8
"""Of float64, which the power method amplifies in 50 steps; parameters are about 1."""


@pytest.mark.parametrize("workers", WORKERS)
def test_50_steps_are_those_of_the_paper(workers: int) -> None:
    hold(both(workers), atol=ROUNDING)


@pytest.mark.parametrize("options", [{"rank": 2}, {"start": 20}, {"warm": False}, {"sgd": RECIPES["all"]}], ids=str)
def test_50_steps_with_other_options(options: dict[str, Any]) -> None:
    hold(both(3, **options), atol=ROUNDING)


@settings(max_examples=60, deadline=None)
@given(gradients(largest_p=6, largest_d=40), st.integers(1, 4))
def test_result_and_residuals_sum_to_the_gradients(vectors: np.ndarray, rank: int) -> None:
    """To the rounding of products of 40 elements that are less than 1."""
    done = netsim.exchange("powersgd", vectors, rank=rank, min_rate=0)
    np.testing.assert_allclose((done.aggregated + done.residuals.sum(0)).numpy(), vectors.sum(0), rtol=0, atol=2e-5)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_matrix_of_the_rank_is_exchanged_whole(ranks: int) -> None:
    random = np.random.default_rng(0)
    columns = random.standard_normal((6, 2))
    matrices = [columns @ random.standard_normal((2, 8)) for _ in range(ranks)]
    vectors = np.array([np.append(matrix, [1.0, 2.0]) for matrix in matrices])
    done = netsim.exchange("powersgd", vectors, shapes=((6, 8), (2,)), rank=2, min_rate=0)
    np.testing.assert_allclose(done.aggregated.numpy(), vectors.sum(0), atol=1e-12)
    assert not np.allclose(netsim.exchange("powersgd", vectors, rank=1, min_rate=0).aggregated.numpy(), vectors.sum(0))


def test_a_gradient_of_zeros_leaves_factors_that_can_go_on() -> None:
    vectors, shapes = torch.zeros(2, 16), ((4, 4),)
    assert not netsim.exchange("powersgd", vectors, shapes=shapes, min_rate=0).aggregated.any()


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_a_rank_sends_the_papers_bytes(ranks: int) -> None:
    """2 (P-1)/P (Σ r (n + m) + elements of one dimension) values: 8 divides each of the three vectors."""
    shapes, rank = ((16, 24), (8,), (24, 8), (16,)), 2
    values = rank * (16 + 24) + rank * (24 + 8) + 8 + 16
    size = sum(int(np.prod(shape)) for shape in shapes)
    done = netsim.exchange("powersgd", np.ones((ranks, size), np.float32), shapes=shapes, rank=rank, min_rate=1.0)
    assert done.bytes_sent == [4 * 2 * (ranks - 1) * values // ranks] * ranks


def test_what_is_compressed_is_torchs_rule() -> None:
    """2 r (n + m) < n m, of the rank that the matrix can have; a kernel of a convolution is a matrix (n, m k k)."""
    layout = layout_of(((64,), (16, 8, 3, 3), (10, 16), (2, 100), ()), 4, 2.0)
    assert [matrix[1:] for matrix in layout.matrices] == [(16, 72, 4)]
    assert layout.others == ((0, 64), (1216, 1376), (1376, 1576), (1576, 1577))


@pytest.mark.parametrize("way", ["event", "batched", "closed-form"])
def test_on_an_idle_star_three_rings_follow_each_other(way: str) -> None:
    """Of 50 elements that do not fit into the square, and of 4 · 1000 a factor: 2(P-1)α + 2((P-1)/P) v β each.

    1000² + 50 elements, P = 50, α = 2 · 1 ms (two links of a star), β = 32 µs at 1 Mbit/s.
    """
    options = {"workers": 50, "elements": 1000**2 + 50, "latency": "1ms", "bandwidth": "1Mbps"}
    (result,) = results_of(way, algorithm="powersgd:segment=none", **options)
    hops = 2 * 49
    expected = sum(hops * (1e-3 + values / 50 * 32e-6) for values in (50, 4000, 4000))
    assert result.round_time_s == pytest.approx(expected, rel=1e-12)


def test_first_steps_are_dense_without_data() -> None:
    options = {"workers": 4, "elements": 10**6, "timing_only": True, "rounds": 2}
    dense, late = netsim.simulate(algorithm=["dense", "powersgd:dense-steps=2"], **options).results
    assert late.round_time_s == dense.round_time_s
    both_kinds, low = netsim.simulate(algorithm=["powersgd:dense-steps=1", "powersgd"], **options).results
    assert both_kinds.round_time_s == pytest.approx((dense.round_time_s + low.round_time_s) / 2)


def test_shapes_come_from_the_model_and_are_cut_into_buckets() -> None:
    experiment = Experiment.of(timing_only=True, model="resnet18", overlap="tensor", algorithm="powersgd")
    overlapped: Any = experiment.algorithm("powersgd", experiment.known_tensors(), None, experiment.known_shapes())
    last = overlapped.buckets[1].algorithm  # the weight of the last layer; the first bucket is its bias
    assert last.shapes == ((1000, 512),)
    memory = last.initial_memory(SizeOnly(512_000))
    assert memory.right.size == 4 * 512


def test_shapes_that_do_not_fit_are_refused() -> None:
    for shapes in (((3, 3),), (4,), 7, ((2, -5),), ((2.0, 5),)):
        with pytest.raises(UsageError, match=r"shapes .* must be of tensors with 10 elements in all"):
            netsim.exchange("powersgd", np.ones((2, 10)), shapes=shapes)


LR, STEPS, START = 0.125, 12, 2


def by_hook(rank: int, ranks: int, r: int, first: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """Train digits-mlp with torch's hook, which begins with the right factors `first`, by shape."""
    task, _, _ = load_task(Experiment.of(workers=ranks), "cpu")
    net = task.workload.model.to_empty(device="cpu")
    nn.utils.vector_to_parameters(task.initial_parameters().values.clone(), net.parameters())
    model = DistributedDataParallel(net, bucket_cap_mb=100)
    state = PowerSGDState(None, r, START, random_seed=0)

    def hook(state: PowerSGDState, bucket: Any) -> Any:
        if state.iter == START and not state.p_memory_dict:
            given = [first[shape] for tensor in bucket.gradients() if (shape := tuple(tensor.shape)) in first]
            state.q_memory_dict[bucket.index()] = torch.cat([q.flatten() for q in given])
            rows = sum(shape[0] * first[shape].shape[1] for shape in first)
            state.p_memory_dict[bucket.index()] = torch.empty(rows)
        return powerSGD_hook(state, bucket)

    model.register_comm_hook(state, lambda state, bucket: hook(state, bucket))  # DDP reads annotations, not texts
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for step in range(STEPS):
        inputs, labels = task.samples(rank, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(net.parameters()).detach()


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("r", [1, 4])  # torch orthogonalises by Gram and Schmidt up to 2, by QR from 3 on
def test_torchs_hook_ends_with_the_same_parameters(r: int) -> None:
    """After two dense steps and ten compressed ones on two ranks, to the rounding of float32."""
    experiment = Experiment.of(workers=2, algorithm=f"powersgd:rank={r},dense-steps={START}", lr=LR, rounds=STEPS)
    task, tensors, _ = load_task(experiment, "cpu")
    algorithm: Any = experiment.algorithm(experiment.algorithms[0], tensors, shapes=task.shapes)
    recipe, start = experiment.recipe("powersgd"), task.initial_parameters()
    ranks = RankScheduler[Trained](InMemoryTransport()).run(
        make_workers(algorithm, 2, 0), lambda worker: train(worker, algorithm, task, STEPS, recipe)
    )
    layout = algorithm.layout(start.size)
    right = algorithm.initial_memory(start).right.values.split_with_sizes(layout.right_sizes)
    first = {(m.rows, m.columns): q.view(m.columns, -1) for m, q in zip(layout.matrices, right, strict=True)}
    assert len(first) == len(layout.matrices) > 1
    theirs, _ = on_ranks(by_hook, 2, r, first)
    result = ranks[0].result
    assert result is not None
    assert isinstance(result.parameters, Dense)
    moved = (theirs - start.values).abs().max()
    assert moved > 0.01
    assert (theirs - result.parameters.values).abs().max() < 1e-4 * moved
