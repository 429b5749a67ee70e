"""The exchanges that are validated; simulated and real ranks run the same programs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from netsim.comm.collectives import (
    broadcast_from_server,
    gather,
    ring_all_gather,
    ring_all_reduce,
    tree_all_reduce,
    tree_broadcast,
    tree_reduce,
)
from netsim.comm.payload import INDEX_BYTES, VALUE_BYTES, SizeOnly, Vector
from netsim.comm.worker import Worker

ENTRY_BYTES = VALUE_BYTES + INDEX_BYTES
Program = Callable[[Worker, Vector], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange of vectors.

    Parameters
    ----------
    title
        Name in words.
    program
        Coroutine function that a rank runs, with its worker and its vector.
    sparse
        Whether vectors are sparse; their bytes then count values and indices.
    source
        ``source(rank, ranks)`` is the rank whose flow a rank receives, where flows do not depend on each other and are
        compared one by one; None for a collective.
    """

    title: str
    program: Program
    sparse: bool = False
    source: Callable[[int, int], int] | None = None

    def size_only(self, nbytes: int) -> SizeOnly:
        """Return a vector without values, of `nbytes` to the nearest element."""
        if self.sparse:
            entries = max(1, nbytes // ENTRY_BYTES)
            return SizeOnly(SPREAD * entries, entries)
        return SizeOnly(max(1, nbytes // VALUE_BYTES))


SPREAD = 10
"""Elements of a sparse vector for each entry; messages do not depend on it."""


async def _gtopk_tree(worker: Worker, vector: Vector) -> Vector:
    """Run gTop-k's tree without merging: every rank passes on as many entries as it received."""

    async def keep(mine: Vector, theirs: Vector) -> Vector:
        return mine

    return await tree_broadcast(worker, await tree_reduce(worker, vector, keep), template=vector)


async def _into_server(worker: Worker, vector: Vector) -> Any:
    return await gather(worker, vector, template=vector)


async def _out_of_server(worker: Worker, vector: Vector) -> Vector:
    return await broadcast_from_server(worker, vector, template=vector)


def shift(ranks: int) -> int:
    """Return the distance of a permutation; between two contiguous racks, some of its flows cross and some do not."""
    return max(1, ranks // 2 - 1)


async def permutation(worker: Worker, vector: Vector) -> Vector:
    """Send this rank's vector to another rank, and return the vector that comes."""
    rank, ranks = worker.rank, worker.workers
    return await worker.sendrecv((rank + shift(ranks)) % ranks, vector, _source(rank, ranks), template=vector)


def _source(rank: int, ranks: int) -> int:
    return (rank - shift(ranks)) % ranks


EXCHANGES: dict[str, Exchange] = {
    "ring-all-reduce": Exchange("ring all-reduce", ring_all_reduce),
    "tree-all-reduce": Exchange("tree all-reduce", tree_all_reduce),
    "all-gather": Exchange("all-gather", ring_all_gather, sparse=True),
    "gtopk-tree": Exchange("gTop-k tree", _gtopk_tree, sparse=True),
    "ps-in": Exchange("parameter server, in", _into_server),
    "ps-out": Exchange("parameter server, out", _out_of_server),
    "permutation": Exchange("permutation", permutation, source=_source),
}
COLLECTIVES = [name for name, exchange in EXCHANGES.items() if exchange.source is None]
