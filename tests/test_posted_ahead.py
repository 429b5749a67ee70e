"""Rounds posted ahead: arrays and the compiled loop give the instants and critical paths of the event engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim._util.errors import InfeasibleError
from netsim.comm.collectives import (
    Pipeline,
    chain_broadcast,
    chain_reduce,
    ring_all_gather,
    ring_all_reduce,
    ring_reduce,
)
from netsim.comm.collectives.double_trees import double_tree_broadcast, double_tree_reduce
from netsim.comm.payload import SizeOnly, split
from netsim.comm.worker import Worker
from netsim.network.fabric import Fabric
from netsim.simulator.engines import StepPlayer, VectorizedMethod
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.scheduler import RankScheduler
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.simulator.vectorized import CriticalPathBacktracker, RankClocks
from netsim.training.costs import AssumedCosts
from tests.engines import NUMBA, results_of
from topologies import TOPOLOGIES
from topologies.builder import Shape

INSIDES: list[VectorizedMethod] = ["batched", "compiled"] if NUMBA else ["batched"]


class Exchange(NamedTuple):
    """Steps in which all workers of a network run a collective, and then compute for a while or not."""

    collective: Callable[[Worker, SizeOnly, Pipeline], Any]
    elements: int
    pipeline: Pipeline
    fabric: Fabric
    merge_s: float
    steps: int

    @property
    def workers(self) -> int:
        return len(self.fabric.workers)

    @property
    def costs(self) -> AssumedCosts:
        return AssumedCosts({"merge": self.merge_s})

    async def run(self, worker: Worker, ended: Callable[[Worker], None]) -> None:
        for _ in range(self.steps):
            await self.collective(worker, SizeOnly(self.elements), self.pipeline)
            ended(worker)


class Outcome(NamedTuple):
    """When each rank ended in picoseconds, and the time of each kind on the critical paths of the last ranks."""

    ends: list[int]
    spent: dict[Any, float]


def by_events(exchange: Exchange) -> Outcome:
    fabric, ends = exchange.fabric, dict.fromkeys(range(exchange.workers), 0)
    transport = SimulatedTransport(fabric, fabric.hosts, exchange.costs)

    def ended(worker: Worker) -> None:
        ends[worker.rank] = transport.now

    ranks = [Worker(rank, exchange.workers) for rank in range(exchange.workers)]
    tasks = RankScheduler[None](transport).run(ranks, lambda worker: exchange.run(worker, ended))
    spent: Counter[Any] = Counter()
    for rank, task in enumerate(tasks):
        totals = task.path.totals()
        assert totals.total() == ends[rank], "a path does not sum to its instant"
        if ends[rank] == max(ends.values()):
            spent.update(totals)
    return Outcome(list(ends.values()), {what: time for what, time in spent.items() if time})


def at_once(exchange: Exchange, inside: VectorizedMethod) -> Outcome:
    world = RoleMap(exchange.workers)
    recorder = SymmetryRecorder(world, exchange.costs)
    recorder.run(lambda worker: exchange.run(worker, recorder.end))
    clocks = RankClocks(exchange.fabric, world)
    histories = StepPlayer(clocks, recorder.steps, inside).histories
    last = (clocks.clock == clocks.clock.max()).astype(np.int64)
    backtracker = CriticalPathBacktracker(clocks, last, len(exchange.fabric.bandwidth_bps))
    for history, times in reversed(histories):
        backtracker.backtrack(history, times)
    spent: dict[Any, float] = {what: time for what, time in backtracker.totals.items() if time}
    for link in np.flatnonzero(backtracker.on_links).tolist():
        spent[exchange.fabric.links[link]] = backtracker.on_links[link]
    return Outcome(clocks.clock.tolist(), spent)


def gathered(worker: Worker, vector: SizeOnly, pipeline: Pipeline) -> Any:
    slices = split(vector, pipeline.slices(vector.value_bytes))
    return ring_all_gather(worker, *slices, pipeline=pipeline)


async def over_a_tree(worker: Worker, vector: SizeOnly, pipeline: Pipeline) -> None:
    slices = split(vector, pipeline.slices(vector.value_bytes))
    window = pipeline.ahead(len(slices)) + 1
    reduced = await double_tree_reduce(worker, slices, 0, window)
    await double_tree_broadcast(worker, reduced, slices, 0, window)


PAIRS_APART = [ring_all_reduce, gathered, chain_broadcast, chain_reduce]
"""Collectives in which a rank receives from one rank only, so that no messages share a link of a star."""


@st.composite
def exchanges(draw: st.DrawFn, collectives: list[Any], topologies: list[str]) -> Exchange:
    workers, elements = draw(st.integers(2, 17)), draw(st.integers(1, 3000))
    latency_s = draw(st.sampled_from([0.0, 1e-9, 3e-6, 200e-6]))
    shape = Shape(workers, draw(st.sampled_from([10**6, 10**9, 703 * 10**8])), latency_s)
    graph = TOPOLOGIES[topology := draw(st.sampled_from(topologies))](shape)
    order = None if topology == "star" else draw(st.none() | st.permutations(range(workers)))
    return Exchange(
        draw(st.sampled_from(collectives)),
        elements,
        Pipeline(max(1, 4 * elements // draw(st.integers(1, 30))), draw(st.integers(1, 9)), draw(st.integers(1, 4))),
        Fabric(graph, workers, order),
        draw(st.sampled_from([0.0, 1e-7, 50e-6])),
        draw(st.integers(1, 3)),
    )


@pytest.mark.parametrize("inside", INSIDES)
@settings(max_examples=100, deadline=None)
@given(exchange=exchanges(PAIRS_APART, ["star"]))
def test_on_a_star_all_is_the_same_to_the_picosecond(inside: VectorizedMethod, exchange: Exchange) -> None:
    """No two pairs share a link of a star, so that arrays never give up."""
    assert at_once(exchange, inside) == by_events(exchange)


@pytest.mark.parametrize("inside", INSIDES)
@settings(max_examples=80, deadline=None)
@given(exchange=exchanges([*PAIRS_APART, ring_reduce, over_a_tree], ["star", "ring", "racks", "fat-tree", "torus"]))
def test_where_links_are_shared_it_is_the_same_but_for_rounding(inside: VectorizedMethod, exchange: Exchange) -> None:
    """A shared rate is a float, and an instant half-way between two picoseconds may be rounded up or down."""
    try:
        found = at_once(exchange, inside)
    except NoScheduleError:  # arrays give up where rounds share links; the compiled loop never does
        if inside == "batched":
            return
        raise
    np.testing.assert_allclose(found.ends, by_events(exchange).ends, rtol=1e-9, atol=100)
    last = found.ends.count(max(found.ends))
    assert sum(found.spent.values()) == pytest.approx(last * max(found.ends), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(2, 12),
    chunk=st.integers(1, 3000),
    k=st.integers(1, 1500),
    segment=st.integers(100, 5000),
    algorithm=st.sampled_from(["dense", "topk"]),
    rounds=st.integers(1, 2),
    latency=st.sampled_from(["1ns", "5us", "3ms"]),
    bandwidth=st.sampled_from(["1Mbps", "1Gbps", "70.3Gbps"]),
    merge_time=st.sampled_from([None, "1us", "7ms"]),
)
def test_one_rank_of_a_pipelined_ring_tells_the_time_of_all(
    workers: int, chunk: int, k: int, algorithm: str, segment: int, **options: Any
) -> None:
    """Chunks of one size keep all ranks in step, and then the formula is exact."""
    elements = workers * chunk
    options |= {"workers": workers, "elements": elements, "algorithm": f"{algorithm}:segment={segment}B"}
    options |= {"k": min(k, elements)}
    (one,), (other,) = (results_of(way, **options) for way in ("event", "closed-form"))
    assert other.way == "closed-form"
    # Of many links alike, a formula does not know which is the first.
    one, other = (replace(each, bound_by=each.bound_by.split(", e.g.")[0], way=None) for each in (one, other))
    assert asdict(one) | {"way_reason": None} == asdict(other)


def test_chunks_of_several_sizes_are_played() -> None:
    """Ranks are not in step then, and which of them is the last one no formula says."""
    with pytest.raises(InfeasibleError, match="chunks of different sizes are forwarded in slices"):
        results_of("closed-form", workers=3, elements=1000, algorithm="dense:segment=100B")


def test_a_ring_of_65536_workers_in_slices() -> None:
    """By hand: 2 (P-1) m slices of t = 32 us, and the latency α = 30 us twice; it hides behind the 3 other slices."""
    options = {"workers": 65_536, "elements": 4 * 1000 * 65_536, "algorithm": "dense:segment=4kB", "latency": "30us"}
    (result,) = results_of("auto", **options)
    assert result.way == "closed-form"
    assert result.round_time_s == pytest.approx(2 * (30e-6 + 65_535 * 4 * 32e-6), rel=1e-12)
