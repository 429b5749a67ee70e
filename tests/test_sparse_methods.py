"""DGC, ScaleCom, Ok-Topk and SparCML: what the papers say of bytes, and times on an idle star."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from algorithms.oktopk import OkTopk
from algorithms.scalecom import ScaleCom
from algorithms.selection import Selector
from netsim.comm.payload import Dense
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from tests import papers
from tests.engines import results_of
from tests.test_against_papers import MEAN, WHOLE, Both, D, hold, selector_of


def test_dgc_has_its_momentum_at_the_workers_and_clips_by_the_root_of_the_workers() -> None:
    experiment = Experiment.of(workers=16, algorithm="dgc,topk", momentum=0.9, clip=2.0)
    assert (experiment.momentum_of("dgc"), experiment.momentum_of("topk")) == ("workers", "sum")
    assert (experiment.recipe("dgc").clip, experiment.recipe("dgc").momentum) == (0.5, 0)
    assert (experiment.recipe("topk").clip, experiment.recipe("topk").momentum) == (2, 0.9)


def test_dgc_is_top_k_with_all_its_parts_asked_for() -> None:
    common = {"workers": 4, "workload": "tests.tiny:tiny", "rounds": 5, "density": 0.2, "momentum": 0.9, "lr": 0.05}
    (dgc,) = netsim.simulate(algorithm="dgc", clip=0.2, density_warmup=2, **common).results
    (topk,) = netsim.simulate(algorithm="topk", momentum_correction=True, clip=0.1, density_warmup=2, **common).results
    assert dgc.parameters_sha256 == topk.parameters_sha256
    assert dgc.bytes_sent_by_rank == topk.bytes_sent_by_rank


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_scalecom_filters_its_residual(beta: float) -> None:
    method = papers.ScaleCom(3, D, MEAN, WHOLE)
    method.beta = beta
    hold(Both(ScaleCom(selector_of(WHOLE), beta=beta), method))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
def test_bytes_of_scalecom(ranks: int) -> None:
    """k indices in P - 1 messages of the tree, and 2 (P-1)/P k values a rank; k = 120 is divided by every P."""
    done = netsim.exchange(
        "scalecom", np.random.default_rng(0).standard_normal((ranks, 1000)).astype(np.float32), k=120
    )
    assert sum(done.bytes_sent) == (ranks - 1) * 4 * 120 + 2 * (ranks - 1) * 4 * 120
    assert min(done.bytes_sent) == 2 * (ranks - 1) * 4 * 120 // ranks
    assert np.count_nonzero(done.aggregated.numpy()) == 120


@pytest.mark.parametrize("way", ["event", "batched", "closed-form"])
@pytest.mark.parametrize("workers", [2, 8, 64])
def test_scalecom_on_an_idle_star(way: str, workers: int) -> None:
    """log₂P (α + kβ) + 2(P-1) (α + (k/P) β), with α = 2 · 1 ms, β = 32 µs and k = 640."""
    options = {"workers": workers, "elements": 10**5, "k": 640, "latency": "1ms", "bandwidth": "1Mbps"}
    (result,) = results_of(way, algorithm="scalecom:segment=none", **options)
    expected = log2(workers) * (1e-3 + 640 * 32e-6) + 2 * (workers - 1) * (1e-3 + 640 / workers * 32e-6)
    assert result.round_time_s == pytest.approx(expected, rel=1e-12)


STEPS = 3


def words_of_steps(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exchange (step, P, d) vectors by Ok-Topk; return sent and received words by rank and step, and what is left.

    The first step computes thresholds and boundaries, and the others use them. Each rank's P - 1 counts are left out.
    """
    algorithm, ranks = OkTopk(Selector(k)), vectors.shape[1]

    async def program(worker: Worker) -> tuple[list[tuple[float, float]], np.ndarray]:
        memory: Any = algorithm.initial_memory(Dense(torch.zeros(vectors.shape[2])))
        words, applied = [], np.zeros(vectors.shape[2], np.float32)
        for step in range(len(vectors)):
            worker.step, before = step, (worker.traffic.bytes_up, worker.traffic.bytes_down)
            vector = Dense(torch.from_numpy(vectors[step, worker.rank].copy()))
            total, memory = await algorithm.exchange(worker, vector, memory, vector)
            after = worker.traffic.bytes_up, worker.traffic.bytes_down
            words.append(((after[0] - before[0]) / 4 - (ranks - 1), (after[1] - before[1]) / 4 - (ranks - 1)))
            applied[total.indices.numpy()] += total.values.numpy()  # type: ignore[union-attr]
            assert total.values.numel() <= k  # type: ignore[union-attr]
        left: Any = algorithm.residual(memory)
        return words, left.values.numpy() + applied * (worker.rank == 0)

    tasks = RankScheduler[Any](InMemoryTransport()).run([Worker(rank, ranks) for rank in range(ranks)], program)
    sent, received = np.moveaxis(np.array([task.result[0] for task in tasks]), 2, 0)
    return sent, received, sum(task.result[1] for task in tasks)


@st.composite
def skewed(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Vectors whose large entries lie anywhere: spread, in one region for all workers, or in another one for each.

    Sizes of vectors and places of entries change from step to step, so that thresholds and boundaries do not fit.
    """
    ranks, size, k = draw(st.integers(1, 32)), draw(st.integers(12, 90)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = random.integers(-8, 8, (STEPS, ranks, size)).astype(np.float32)
    for step in range(STEPS):
        kind = draw(st.sampled_from(["spread", "together", "apart", "the same", "zero"]))
        first, width = random.integers(size, size=ranks), draw(st.integers(1, size))
        if kind in ("together", "the same"):
            first[:] = first[0]
        for rank in range(ranks):
            if kind in ("together", "apart"):
                vectors[step, rank, (first[rank] + np.arange(width)) % size] *= 64
        if kind == "the same":
            vectors[step] = vectors[step, 0]
        vectors[step] *= 0 if kind == "zero" else draw(st.sampled_from([1, 4, 32]))
    return vectors, min(k, size)


@settings(max_examples=20, deadline=None)
@given(skewed())
def test_oktopk_sends_fewer_than_6k_words_whatever_the_workers_and_the_skew(case: tuple[np.ndarray, int]) -> None:
    """Of values and indices, in each step that uses thresholds and boundaries; and no gradient mass is lost.

    The first step gathers all sums, and averages P - 1 boundaries over a tree. A rank receives up to 2k words from
    each other one, then its share of the kept entries and those of others: in the mean as many as ranks send.
    """
    vectors, k = case
    ranks, size = vectors.shape[1:]
    sent, received, left = words_of_steps(vectors, k)
    assert sent[:, 1:].max() < 6 * k
    assert sent[:, 0].max() < 6 * k + 2 * min(ranks * k, size) + (ranks - 1) * (1 + (ranks - 1).bit_length())
    assert received[:, 1:].max() <= 2 * (ranks - 1) * k + 4 * k
    assert received.sum(0).tolist() == sent.sum(0).tolist()
    np.testing.assert_array_equal(left, vectors.sum((0, 1)))


def test_an_owner_of_oktopk_receives_more_than_6k_words_when_the_skew_has_moved() -> None:
    """Boundaries fit large entries spread over the vector; then all workers have theirs in the region of one.

    The owner receives 2k words from each of 31 workers. After that, k entries are kept and balanced.
    """
    ranks, k, size = 32, 64, 4096
    vectors = np.zeros((2, ranks, size), np.float32)
    vectors[0, :, :: size // k] = 1
    vectors[1, :, 128 : 128 + k] = 2 + np.arange(k, dtype=np.float32)
    sent, received, _ = words_of_steps(vectors, k)
    assert sent[:, 1].max() < 6 * k
    assert received[:, 1].max() == 2 * (ranks - 1) * k + 2 * (k - k // ranks)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_bytes_of_oktopk_where_all_is_even(ranks: int) -> None:
    """4 k (P-1)/P words: every worker selects the same k entries, evenly spread, and k is a multiple of P."""
    k = 8 * ranks
    row = np.where(np.arange(16 * k) % 16 == 3, 5.0, 0.25).astype(np.float32)
    sent, received, _ = words_of_steps(np.broadcast_to(row, (2, ranks, len(row))), k)
    assert sent[:, 1].tolist() == received[:, 1].tolist() == [4 * k * (ranks - 1) / ranks] * ranks


@pytest.mark.parametrize("way", ["event", "batched", "closed-form"])
@pytest.mark.parametrize("k", [640, 645, 5])
@pytest.mark.parametrize("workers", [2, 8, 32])
def test_oktopk_on_an_idle_star(way: str, workers: int, k: int) -> None:
    """2(P-1) α + 4(k - ⌈k/P⌉) β + log₂P α + (P-1) β in the second step, with α = 2 · 1 ms and β = 32 µs.

    Rounds carry k entries in all, of which ⌈k/P⌉ stay: 4 ((P-1)/P) kβ if P divides k.
    """
    options = {"workers": workers, "elements": 10**5, "k": k, "latency": "1ms", "bandwidth": "1Mbps"}
    first, two = (results_of(way, algorithm="oktopk", rounds=rounds, **options)[0].round_time_s for rounds in (1, 2))
    split_and_gather = 2 * (workers - 1) * 1e-3 + 4 * (k - -(-k // workers)) * 32e-6
    expected = split_and_gather + log2(workers) * 1e-3 + (workers - 1) * 32e-6
    assert 2 * two - first == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("workers", "k"), [(7, 5), (24, 10), (64, 640), (1024, 1000), (65536, 25000)])
def test_without_data_a_worker_sends_fewer_than_6k_words_whatever_the_workers(workers: int, k: int) -> None:
    """Also where there are more workers than entries: 4(k - ⌈k/P⌉) words, and P - 1 counts."""
    way = "event" if workers < 64 else "closed-form"
    once, twice = (
        rounds * (result.value_bytes_up + result.index_bytes_up) / 4
        for rounds in (1, 2)
        for result in results_of(way, algorithm="oktopk", workers=workers, k=k, elements=10**5, rounds=rounds)
    )
    assert twice - once == pytest.approx(4 * (k - -(-k // workers)) + workers - 1)
    (dsar,) = results_of(way, algorithm="dsar", workers=workers, k=k, elements=10**5)
    assert dsar.index_bytes_up == pytest.approx(4 * (k - -(-k // workers)))


@pytest.mark.parametrize(("k", "dense_from"), [(10, 8), (60, 8), (130, 4), (300, 2), (600, 1)])
def test_bytes_of_ssar(k: int, dense_from: int) -> None:
    """Of 8 workers with k entries each, none twice: in round i all send 2^i k entries of 8 bytes, or 1000 values.

    Entries take as many bytes from 500 on (δ), so that a union of `dense_from` selections is sent dense.
    """
    size = 1000
    vectors = np.zeros((8, size), np.float32)
    for rank in range(8):
        vectors[rank, (rank + 8 * np.arange(min(k, size // 8))) % size] = 1 + rank
        vectors[rank, np.flatnonzero(vectors[rank] == 0)[: k - np.count_nonzero(vectors[rank])]] = 0.25
    done = netsim.exchange("ssar", vectors, k=k)
    disjoint = k <= size // 8
    expected = sum(4 * size if unions >= dense_from else 8 * unions * k for unions in (1, 2, 4))
    if disjoint:
        assert done.bytes_sent == [expected] * 8
    else:  # unions overlap, and are sent dense where 2^i k says so
        assert max(done.bytes_sent) <= expected
    np.testing.assert_array_equal((done.aggregated + done.residuals.sum(0)).numpy(), vectors.sum(0))


@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
def test_bytes_of_dsar(ranks: int) -> None:
    """8 bytes for each entry in another's region, and P - 1 dense regions; k entries are spread evenly."""
    size, k = 120 * ranks, 12 * ranks
    vectors = np.broadcast_to(np.where(np.arange(size) % 10 == 4, 3.0, 0.5).astype(np.float32), (ranks, size))
    done = netsim.exchange("dsar", vectors, k=k)
    assert done.bytes_sent == [(ranks - 1) * (8 * k // ranks + 4 * size // ranks)] * ranks


@pytest.mark.parametrize("way", ["event", "batched", "closed-form"])
@pytest.mark.parametrize("workers", [2, 8, 32])
def test_sparcml_on_an_idle_star(way: str, workers: int) -> None:
    """Of 64,000 elements and k = 640, δ = 32,000: with α = 2 · 1 ms and β = 32 µs.

    SSAR takes log₂P α + 2(P-1) kβ, and DSAR (P-1) (2α + (2k/P + d/P) β).
    """
    options = {"workers": workers, "elements": 64_000, "k": 640, "latency": "1ms", "bandwidth": "1Mbps"}
    (ssar,), (dsar,) = (results_of(way, algorithm=name, **options) for name in ("ssar", "dsar"))
    assert ssar.round_time_s == pytest.approx(log2(workers) * 1e-3 + 2 * (workers - 1) * 640 * 32e-6, rel=1e-12)
    per_part = (2 * 640 + 64_000) / workers * 32e-6  # P divides 640
    assert dsar.round_time_s == pytest.approx((workers - 1) * (2e-3 + per_part), rel=1e-12)


@pytest.mark.parametrize(
    "name", ["powersgd:min-rate=0", "dgc", "scalecom:beta=0.5", "oktopk:threshold-period=2", "ssar", "dsar"]
)
def test_timing_a_computation_does_not_change_it(name: str) -> None:
    """A computation that overwrites its first argument and does not say so would be timed on the very vector."""
    options = {"workers": 3, "workload": "tests.tiny:tiny", "rounds": 4, "density": 0.2, "compute_time": "1ms"}
    (timed,) = netsim.simulate(algorithm=name, **options).results
    (assumed,) = netsim.simulate(algorithm=name, select_time="1ms", merge_time="1ms", **options).results
    assert timed.parameters_sha256 == assumed.parameters_sha256
