"""Pipelines: rounds posted ahead, messages of a pair in order, and the collectives that forward in slices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim.comm.collectives import (
    Pipeline,
    chain_broadcast,
    chain_reduce,
    doubling_broadcast,
    ring_all_gather,
    ring_all_reduce,
    ring_reduce,
)
from netsim.comm.payload import Dense, SizeOnly
from netsim.comm.worker import Worker
from netsim.network.effects import Effects
from netsim.network.fabric import Fabric
from netsim.simulator.effects_engine import EffectsTransport
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.exchange_time import exchange_time
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.training.costs import AssumedCosts
from tests.command import run
from tests.strategies import gradients
from topologies import TOPOLOGIES
from topologies.builder import Shape

PS = 10**12
BITS = 32
"""Bits of an element."""
pipelines = (
    st.builds(
        Pipeline,
        slice_bytes=st.integers(1, 60),
        window=st.integers(1, 9),
        fewest=st.integers(1, 3),
        most=st.none() | st.integers(1, 9),
    )
    | st.none()
)


def star(workers: int, latency_s: float = 1e-3, bandwidth_bps: int = 10**9) -> Fabric:
    return Fabric(TOPOLOGIES["star"](Shape(workers, bandwidth_bps, latency_s)))


def in_memory(collective: Callable[[Worker, Any], Awaitable[Any]], vectors: np.ndarray) -> tuple[list[Any], list[Any]]:
    """Return what each rank gets from a collective, and the bytes that it sent and received."""

    async def program(worker: Worker) -> Any:
        return await collective(worker, Dense(torch.from_numpy(vectors[worker.rank].copy())))

    ranks = [Worker(rank, len(vectors)) for rank in range(len(vectors))]
    tasks = RankScheduler[Any](InMemoryTransport()).run(ranks, program)
    return [task.result for task in tasks], [(rank.traffic.bytes_up, rank.traffic.bytes_down) for rank in ranks]


def joined(slices: list[Dense]) -> np.ndarray:
    return torch.cat([each.values for each in slices]).numpy()


# What is computed does not depend on slices.


@settings(max_examples=150, deadline=None)
@given(vectors=gradients(), pipeline=pipelines)
def test_a_pipelined_ring_adds_the_same_numbers_in_the_same_order(vectors: np.ndarray, pipeline: Pipeline) -> None:
    vectors = vectors * np.float32(1 / 3)  # sums are rounded, so that another order would give other bits
    textbook, sent = in_memory(ring_all_reduce, vectors)
    done, sent_in_slices = in_memory(lambda worker, own: ring_all_reduce(worker, own, pipeline), vectors)
    for one, other in zip(textbook, done, strict=True):
        np.testing.assert_array_equal(one.values.numpy(), other.values.numpy())
    assert sent == sent_in_slices
    assert sum(up for up, _ in sent) == sum(down for _, down in sent)


@settings(max_examples=100, deadline=None)
@given(vectors=gradients(), pipeline=pipelines)
def test_sums_are_those_of_numpy(vectors: np.ndarray, pipeline: Pipeline) -> None:
    """Sums on the grid are exact in any order; every vector is sent P-1 times, whole or in chunks."""
    ranks = len(vectors)
    for reduce in (chain_reduce, ring_reduce):
        done, sent = in_memory(lambda worker, own, of=reduce: of(worker, own, pipeline), vectors)
        np.testing.assert_array_equal(joined(done[0]), vectors.sum(0))
        assert done[1:] == [None] * (ranks - 1)
        assert sum(up for up, _ in sent) == sum(down for _, down in sent)
    done, _ = in_memory(lambda worker, own: ring_all_reduce(worker, own, pipeline), vectors)
    for each in done:
        np.testing.assert_array_equal(each.values.numpy(), vectors.sum(0))


@settings(max_examples=100, deadline=None)
@given(vectors=gradients(), pipeline=pipelines)
def test_broadcasts_give_every_rank_the_vector_of_rank_0(vectors: np.ndarray, pipeline: Pipeline) -> None:
    ranks, size = vectors.shape
    done, sent = in_memory(lambda worker, own: chain_broadcast(worker, own, pipeline), vectors)
    for each in done:
        np.testing.assert_array_equal(joined(each), vectors[0])
    assert sent == [(4 * size * (rank < ranks - 1), 4 * size * (rank > 0)) for rank in range(ranks)]
    done, sent = in_memory(doubling_broadcast, vectors)
    for each in done:
        np.testing.assert_array_equal(each.values.numpy(), vectors[0])
    assert [down for _, down in sent] == [0] + [4 * size] * (ranks - 1)


@settings(max_examples=60, deadline=None)
@given(vectors=gradients(), k=st.integers(1, 40), segment=st.integers(1, 100))
def test_topk_and_random_k_add_the_same_entries_in_slices(vectors: np.ndarray, k: int, segment: int) -> None:
    k = min(k, vectors.shape[1])
    for name in ("topk", "randk"):
        whole = netsim.exchange(name, vectors, k=k, segment="none")
        sliced = netsim.exchange(name, vectors, k=k, segment=segment)
        np.testing.assert_array_equal(whole.aggregated.numpy(), sliced.aggregated.numpy())
        np.testing.assert_array_equal(whole.residuals.numpy(), sliced.residuals.numpy())
        assert whole.bytes_sent == sliced.bytes_sent


# How long it takes: closed forms of an idle star, where a slice takes t to drain and a message has the latency α.


def drained(rounds: int, window: int, latency: int, slice_ps: int) -> int:
    """Return when the last of `rounds` slices has drained that ranks in step pass around a ring.

    A slice is posted when the one `window` before it has drained, and drains α later, but after the slice before it.
    """
    ends: list[int] = []
    for index in range(rounds):
        posted = ends[index - window] if index >= window else 0
        begins = max(posted + latency, ends[-1] if ends else 0)
        ends.append(begins + slice_ps)
    return ends[-1] if ends else 0


worlds = {
    "workers": st.integers(2, 9),
    "slices": st.integers(1, 12),
    "window": st.integers(1, 9),
    "latency": st.integers(0, 10**9),
    "elements": st.integers(1, 10**4),
}


@settings(max_examples=80, deadline=None)
@given(**worlds)
def test_a_pipelined_ring_takes_the_time_of_its_recurrence(
    workers: int, slices: int, window: int, latency: int, elements: int
) -> None:
    """All chunks have the same number of slices, and these the same number of elements."""
    pipeline, slice_ps = Pipeline(4 * elements, window), elements * BITS * 1000
    phase = drained((workers - 1) * slices, min(window, slices), latency, slice_ps)
    fabric, size = star(workers, latency / PS), workers * slices * elements
    for engine in ("event", "auto"):
        time = exchange_time(
            lambda worker, vector: ring_all_reduce(worker, vector, pipeline), size, fabric, engine=engine
        )
        assert time == float(Fraction(2 * phase, PS))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 10**6), st.integers(1, 10**6))
def test_the_recurrence_is_the_closed_form_of_the_docstring(
    rounds: int, window: int, latency: int, slice_ps: int
) -> None:
    """The link is always busy after α; or every window of slices takes α + t, and the last slices of it t each."""
    windows, rest = divmod(rounds - 1, window)
    if latency <= (window - 1) * slice_ps:
        expected = latency + rounds * slice_ps
    else:
        expected = (windows + 1) * (latency + slice_ps) + rest * slice_ps
    assert drained(rounds, window, latency, slice_ps) == expected


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 9),
    st.integers(1, 10**8),
    st.floats(1e-9, 10),
    st.sampled_from([10**8, 10**10, 10**12]),
    st.booleans(),
)
def test_slices_by_default_are_never_slower_than_whole_chunks_or_small_slices(
    workers: int, elements: int, latency_s: float, bandwidth_bps: int, gather: bool
) -> None:
    """On links of any latency. A chunk's slices differ by an element at most, which makes the tolerance."""
    name = "topk" if gather else "dense"
    options: dict[str, Any] = {"elements": elements, "k": max(1, elements // 100)} if gather else {"elements": elements}
    options |= {"workers": workers, "latency": latency_s, "bandwidth": bandwidth_bps, "timing_only": True}
    auto, *others = (
        netsim.simulate(algorithm=f"{name}:segment={segment}", **options).results[0].round_time_s
        for segment in ("auto", "none", "512KiB")
    )
    element_s = 64 / bandwidth_bps
    assert auto <= min(others) * (1 + 1e-12) + 2 * workers * element_s


@settings(max_examples=80, deadline=None)
@given(**worlds)
def test_a_chain_takes_the_time_of_its_recurrence(
    workers: int, slices: int, window: int, latency: int, elements: int
) -> None:
    """Slice j leaves link n when it has come over link n-1, slice j-w over link n, and the slice before it has left."""
    pipeline, slice_ps = Pipeline(4 * elements, window), elements * BITS * 1000
    window = min(window, slices)
    before = [0] * slices
    for _ in range(workers - 1):
        ends: list[int] = []
        for index in range(slices):
            # A rank posts a slice after it has finished the round `window` before: its slice of then, and its receive.
            posted = max(before[index], ends[index - window] if index >= window else 0)
            ends.append(max(posted + latency, ends[-1] if ends else 0) + slice_ps)
        before = ends
    fabric, size = star(workers, latency / PS), slices * elements
    for collective in (chain_broadcast, chain_reduce):
        for engine in ("event", "auto"):
            time = exchange_time(
                lambda worker, vector, of=collective: of(worker, vector, pipeline), size, fabric, engine=engine
            )
            assert time == float(Fraction(before[-1], PS))
    if latency <= (window - 1) * slice_ps:
        assert before[-1] == (workers - 1) * (latency + slice_ps) + (slices - 1) * slice_ps


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(1, 10**5), st.integers(0, 10**9))
def test_gloos_reduce_is_a_reduce_scatter_and_a_gather(workers: int, chunk: int, latency: int) -> None:
    """(P-1)(α + t) around the ring, then α + (P-1) t through the link of rank 0, with t the time of a chunk."""
    chunk_ps = chunk * BITS * 1000
    expected = (workers - 1) * (latency + chunk_ps) + latency + (workers - 1) * chunk_ps
    time = exchange_time(ring_reduce, workers * chunk, star(workers, latency / PS))
    assert time == pytest.approx(float(Fraction(expected, PS)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_eager_sends_of_a_doubling_broadcast_share_their_senders_link(levels: int) -> None:
    """Rank 0 sends L messages at once, which end together; the last rank to get one sends L-1 more, and so on."""
    elements, latency = 10**5, 5 * 10**9
    message_ps = elements * BITS * 1000
    fabric = star(2**levels, latency / PS)
    eager = exchange_time(doubling_broadcast, elements, fabric, sends="eager")
    assert eager == pytest.approx((levels * latency + levels * (levels + 1) // 2 * message_ps) / PS, rel=1e-12)
    assert exchange_time(doubling_broadcast, elements, fabric) == levels * (latency + message_ps) / PS


# Messages of a pair drain in the order in which they were posted.


def sent_together(transport: SimulatedTransport, sizes: list[int]) -> tuple[list[int], Any]:
    """Return when each of several messages from rank 0 to rank 1 arrives, and the critical path of rank 1."""
    arrivals: list[int] = []

    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            for handle in [await worker.start_send(1, SizeOnly(size)) for size in sizes]:
                await handle
        else:
            for size in sizes:
                await worker.recv(0, SizeOnly(size))
                arrivals.append(transport.now)

    tasks = RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    return arrivals, tasks[1].path.totals()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=6), st.integers(0, 10**9), st.booleans())
def test_messages_of_a_pair_drain_one_after_another(sizes: list[int], latency: int, eager: bool) -> None:
    """Posted together, message n arrives at α + (M1 + … + Mn) / B; the path of the last names one α, and links."""
    fabric = star(2, latency / PS)
    expected = [latency + total * BITS * 1000 for total in accumulate(sizes)]
    for effects in (None, Effects(compute_jitter="uniform:0.1")):
        transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts({}))
        if effects is not None:
            transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({}), effects=effects, seed=0)
        transport.eager = eager
        arrivals, totals = sent_together(transport, sizes)
        assert arrivals == expected
        assert totals.total() == expected[-1]
        assert totals["latency"] == latency
        assert sum(totals[link] for link in fabric.links if link in totals) == sum(sizes) * BITS * 1000


def test_a_connection_per_message_lets_messages_share_the_link() -> None:
    """Two equal messages with connections of their own end together, when the link has carried both."""
    fabric = star(2)
    effects = Effects(protocol="tcp", connections="per-message", initial_window=10**6)
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({}), effects=effects, seed=0)
    arrivals, _ = sent_together(transport, [10**5, 10**5])
    assert arrivals[0] == arrivals[1]


def test_messages_of_two_pairs_share_a_link() -> None:
    """Only the messages of one pair wait: the link of rank 2 is shared by two ranks."""
    fabric, arrivals = star(3), []
    transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts({}))

    async def program(worker: Worker) -> None:
        if worker.rank < 2:
            await worker.send(2, SizeOnly(10**5))
            return
        for handle in [await worker.start_recv(src, SizeOnly(10**5)) for src in range(2)]:
            await handle
            arrivals.append(transport.now)

    RankScheduler[None](transport).run([Worker(rank, 3) for rank in range(3)], program)
    assert arrivals == [10**9 + 2 * 10**5 * BITS * 1000] * 2


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(1, 7),
    pipeline=pipelines,
    elements=st.integers(1, 200),
    topology=st.sampled_from(["star", "racks", "ring", "fat-tree"]),
    merge=st.sampled_from([0.0, 1e-6, 3e-3]),
)
def test_the_parts_of_every_path_sum_to_the_clock(
    workers: int, pipeline: Pipeline | None, elements: int, topology: str, merge: float
) -> None:
    fabric = Fabric(TOPOLOGIES[topology](Shape(workers, 10**6, 50e-6)))
    transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts({"merge": merge}))
    ends: dict[int, int] = {}

    async def program(worker: Worker) -> None:
        await ring_all_reduce(worker, SizeOnly(elements), pipeline)
        await chain_reduce(worker, SizeOnly(elements), pipeline)
        ends[worker.rank] = transport.now

    tasks = RankScheduler[None](transport).run([Worker(rank, workers) for rank in range(workers)], program)
    for task in tasks:
        assert task.path.totals().total() == ends[task.worker.rank]


def test_slices_are_charged_their_share_of_a_merge() -> None:
    """A slow link hides nothing: two ranks add their four slices of a chunk for a quarter of the merge's time each."""
    fabric = star(2, 0.0, 10**4)
    transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts({"merge": 8e-6}))

    async def program(worker: Worker) -> None:
        await ring_all_gather(worker, *[SizeOnly(2)] * 4, pipeline=Pipeline(8))
        await ring_all_reduce(worker, SizeOnly(16), Pipeline(8, window=1))

    (task, _) = RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    # Four additions of slices, and the concatenation of all.
    assert task.path.totals()["merge"] == 4 * 2 * 10**6 + 8 * 10**6


# Options.


@pytest.mark.parametrize(
    ("algorithm", "title"),
    [
        ("dense", "dense"),
        ("dense:segment=auto", "dense"),
        ("dense:segment=none", "dense (segment none)"),
        ("dense:segment=512KB", "dense (segment 512kB)"),
        ("topk:segment=512KiB", "Top-k (segment 512KiB)"),
        ("topk:gather=bruck,segment=64KiB", "Top-k (bruck segment 64KiB)"),
    ],
)
def test_titles_name_slices_that_are_not_the_default(algorithm: str, title: str) -> None:
    (result,) = netsim.simulate(workers=2, algorithm=algorithm, timing_only=True, elements=1000, k=10).results
    assert result.title == title


@pytest.mark.parametrize(("algorithm", "size"), [("dense", "50 MB"), ("topk", "80 MB")])
def test_too_many_slices_are_one_line(capsys: pytest.CaptureFixture[str], algorithm: str, size: str) -> None:
    """A chunk of d/2 values, or k values and indices."""
    sizes = "--workers 2 --elements 25000000 --k 10000000"
    ran = run(capsys, f"simulate --timing-only {sizes} --algorithm {algorithm}:segment=100B")
    assert (ran.code, ran.out) == (3, "")
    assert f"{size} in slices of 100 B are" in ran.err
    assert ran.err.count("\n") == 1


def test_auto_is_nccls_slice_and_a_chunk_of_one_slice_is_the_textbooks_ring() -> None:
    """4 workers, 1 Gbit/s, 1 ms: 2α + 2 (P-1)/P d β with slices, 2(P-1)(α + d/P β) without; equal up to 512 KiB."""

    def time(segment: str, elements: int) -> float:
        options: dict[str, Any] = {"workers": 4, "elements": elements, "latency": "1ms", "bandwidth": "1Gbps"}
        (result,) = netsim.simulate(algorithm=f"dense:segment={segment}", timing_only=True, **options).results
        return result.round_time_s

    chunk = 2**17 * 32e-9
    assert time("auto", 4 * 2**17) == time("none", 4 * 2**17) == pytest.approx(6 * (1e-3 + chunk), rel=1e-12)
    assert time("none", 64 * 2**17) == pytest.approx(6 * (1e-3 + 16 * chunk), rel=1e-12)
    assert time("auto", 64 * 2**17) == time("512KiB", 64 * 2**17) == pytest.approx(2e-3 + 96 * chunk, rel=1e-12)
