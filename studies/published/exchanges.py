"""Bare exchanges as questions: a collective of some bytes per rank, over a network that the question describes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from netsim._util.errors import InfeasibleError
from netsim.comm.collectives import (
    Pipeline,
    chain_broadcast,
    chain_reduce,
    double_tree_all_reduce,
    doubling_broadcast,
    ring_all_gather,
    ring_all_reduce,
    ring_reduce,
    tree_all_reduce,
    tree_broadcast,
    tree_reduce,
)
from netsim.comm.payload import VALUE_BYTES, Vector, add, nbytes, split
from netsim.comm.schedule import Combine, LazyRounds, Round, Schedule, scheduled, shift
from netsim.comm.worker import Handle, Start, Worker, collective
from netsim.network.effects import Effects
from netsim.network.fabric import Fabric
from netsim.simulator.exchange_time import exchange_time
from netsim.study_engine.kinds import Outcome, Point
from studies.published.plans import Question
from topologies import build
from topologies.builder import Shape

BareExchange: TypeAlias = Callable[[Worker, Vector, Pipeline | None], Awaitable[Any]]
MOST_MESSAGES = 10**7
"""Messages of an exchange that is simulated, to stop a file with an absurd size or number of ranks."""


def exchange_question(
    exchange: str,
    ranks: int,
    size: float,
    *,
    bandwidth_bps: float,
    latency_s: float,
    topology: str = "star",
    pipeline: Pipeline | None = None,
    eager: bool = False,
    effects: dict[str, Any] | None = None,
) -> Question:
    """Return the question for the time of an exchange.

    Parameters
    ----------
    exchange
        A name in :data:`EXCHANGES`.
    ranks, size
        Number of ranks, and bytes of each rank's vector.
    bandwidth_bps, latency_s, topology
        Bandwidth of a link, one-way latency between two hosts, and topology of the network.
    pipeline
        Size of slices and number of slices in flight; None forwards whole chunks.
    eager
        Whether a sender continues at once, so that its next message shares the link.
    effects
        Options of :class:`~netsim.network.effects.Effects`.
    """
    question: dict[str, Any] = {
        "exchange": exchange,
        "ranks": ranks,
        "elements": max(1, round(size / VALUE_BYTES)),
        "bandwidth_bps": round(bandwidth_bps),
        "latency_s": latency_s,
    }
    optional = {
        "topology": None if topology == "star" else topology,
        "pipeline": None if pipeline is None else list(pipeline),
        "eager": eager or None,
        "effects": effects or None,
    }
    return question | {name: value for name, value in optional.items() if value is not None}


def simulate_exchange(question: Point) -> Outcome:
    """Simulate the exchange of a question; return its ``seconds``.

    Raises
    ------
    InfeasibleError
        If the exchange could have more than ten million messages.
    """
    exchange, sliced = EXCHANGES[question["exchange"]], question.get("pipeline")
    pipeline = None if sliced is None else Pipeline(*sliced)
    slices = 0 if pipeline is None else pipeline.slices(VALUE_BYTES * question["elements"])
    if (messages := 2 * question["ranks"] * (question["ranks"] + slices)) > MOST_MESSAGES:
        raise InfeasibleError(f"the exchange has up to {messages:,} messages; at most {MOST_MESSAGES:,} are simulated")
    shape = Shape(question["ranks"], question["bandwidth_bps"], question["latency_s"])
    fabric = Fabric(build(question.get("topology", "star"), shape))

    @collective
    async def run(worker: Worker, vector: Vector) -> Any:
        return await exchange(worker, vector, pipeline)

    seconds = exchange_time(
        run,
        question["elements"],
        fabric,
        sends="eager" if question.get("eager") else "rendezvous",
        effects=Effects(**question.get("effects", {})),
    )
    return {"seconds": seconds}


def _sum(worker: Worker) -> Combine[Vector]:
    async def combine(mine: Vector, theirs: Vector) -> Vector:
        return await worker.compute("merge", add, mine, theirs)

    return combine


async def _point_to_point(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> None:
    """Send rank 0's vector to rank 1."""
    if worker.rank == 0:
        await worker.send(1, vector)
    elif worker.rank == 1:
        await worker.recv(0, vector)


@scheduled
def _hop(worker: Worker, vector: Vector, pipeline: Pipeline, count: int) -> Schedule[None]:
    """Send the first `count` slices of a chunk one rank further around a ring."""
    to_the_next = shift(worker.workers, 1)
    rounds = LazyRounds(count, lambda index: Round(to_the_next, lambda src, dst: 0 * src + index))
    return Schedule(
        rounds, split(vector, pipeline.slices(nbytes(vector))), lambda held: None, ahead=pipeline.window - 1
    )


async def _gloo_reduce(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> None:
    """Reduce as gloo does: around the ring, nearly one chunk further than needed, then all chunks to rank 0.

    The loop of ``gloo/reduce.cc`` passes on the segments of P chunks but for the last two segments; P-1 chunks suffice.
    """
    if pipeline is not None and worker.workers > 1:
        chunk = split(vector, worker.workers)[0]
        await _hop(worker, chunk, pipeline, pipeline.slices(nbytes(chunk)) - pipeline.window)
    await ring_reduce(worker, vector, pipeline)


async def _sharded(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> None:
    """Exchange all chunks with all ranks at once, then gather the sums around a ring."""
    rank, chunks = worker.rank, split(vector, worker.workers)
    others = [(rank + distance) % worker.workers for distance in range(1, worker.workers)]
    receives: list[Handle[Vector]] = [await Start(worker.recv(other, chunks[rank])) for other in others]
    sends: list[Handle[None]] = [await Start(worker.send(other, chunks[other])) for other in others]
    for send in sends:
        await send
    for receive in receives:
        await receive
    own, slices = chunks[rank], 1 if pipeline is None else pipeline.slices(nbytes(chunks[0]))
    templates = [part for chunk in chunks for part in split(chunk, slices)]
    await ring_all_gather(worker, *split(own, slices), templates=templates, pipeline=pipeline)


async def _all_gather(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> None:
    """Gather every rank's vector around a ring."""
    slices = 1 if pipeline is None else pipeline.slices(nbytes(vector))
    await ring_all_gather(worker, *split(vector, slices), pipeline=pipeline)


async def _chain_reduce_and_broadcast(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> None:
    await chain_reduce(worker, vector, pipeline)
    await chain_broadcast(worker, vector, pipeline)


async def _recursive_doubling(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> Any:
    """Sum by recursive doubling; by a tree if the number of ranks is no power of two."""
    if worker.workers & (worker.workers - 1):
        return await tree_all_reduce(worker, vector)
    for power in range(worker.workers.bit_length() - 1):
        other = worker.rank ^ (1 << power)
        theirs = await worker.sendrecv(other, vector, other, template=vector)
        vector = await worker.compute("merge", add, vector, theirs)
    return vector


def _tree_all_reduce(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> Coroutine[Any, Any, Any]:
    return tree_all_reduce(worker, vector)


def _doubling_broadcast(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> Awaitable[Vector]:
    return doubling_broadcast(worker, vector)


async def _tree_broadcast(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> Any:
    return await tree_broadcast(worker, vector, template=vector)


async def _tree_reduce(worker: Worker, vector: Vector, pipeline: Pipeline | None) -> Any:
    return await tree_reduce(worker, vector, _sum(worker))


EXCHANGES: dict[str, BareExchange] = {
    "point-to-point": _point_to_point,
    "ring-all-reduce": ring_all_reduce,
    "ring-all-gather": _all_gather,
    "recursive-doubling": _recursive_doubling,
    "tree-all-reduce": _tree_all_reduce,
    "double-tree-all-reduce": double_tree_all_reduce,
    "doubling-broadcast": _doubling_broadcast,
    "tree-broadcast": _tree_broadcast,
    "tree-reduce": _tree_reduce,
    "chain-broadcast": chain_broadcast,
    "chain-reduce": chain_reduce,
    "chain-reduce-broadcast": _chain_reduce_and_broadcast,
    "ring-reduce": ring_reduce,
    "gloo-reduce": _gloo_reduce,
    "sharded": _sharded,
}
"""The exchanges, by name."""
