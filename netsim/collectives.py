"""Collectives over the workers, expanded from point-to-point messages.

α is the latency of a message, β the time of an element, d the elements of a vector and P the
number of workers; the costs are those of an idle full-duplex network (gTop-k paper, table of costs).
The order in which operands are combined is fixed, so results agree bit for bit on every backend.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from netsim.payload import Bundle, Flag, Payload, Vector, add, concatenate, split
from netsim.worker import Worker, collective

PayloadT = TypeVar("PayloadT", bound=Payload)
VectorT = TypeVar("VectorT", bound=Vector)
Combine = Callable[[PayloadT, PayloadT], Awaitable[PayloadT]]
"""Combine what this rank holds (left) with what a higher rank sent (right)."""


@collective
async def ring_reduce_scatter(worker: Worker, vector: Vector) -> Vector:
    """Return chunk `rank` of the sum over workers: (P-1)α + ((P-1)/P) d β.

    Chunk c starts at rank c+1 and travels once around the ring, each rank adding its own.
    """
    rank, workers = worker.rank, worker.workers
    chunks = split(vector, workers)
    partial = chunks[(rank - 1) % workers]
    for hop in range(2, workers + 1):
        own = chunks[(rank - hop) % workers]
        theirs = await worker.sendrecv((rank + 1) % workers, partial, (rank - 1) % workers, like=own)
        partial = await worker.compute("merge", add, theirs, own)
    return partial


@collective
async def ring_all_gather(worker: Worker, own: VectorT, likes: list[VectorT] | None = None) -> list[VectorT]:
    """Return every worker's vector in rank order: (P-1)α + (P-1) d β for vectors of d elements.

    `likes` are examples of what each rank sends, where they differ in size.
    """
    rank, workers = worker.rank, worker.workers
    gathered = [own] * workers
    for hop in range(1, workers):
        passed_on = gathered[(rank - hop + 1) % workers]
        source = (rank - hop) % workers
        like = own if likes is None else likes[source]
        gathered[source] = await worker.sendrecv((rank + 1) % workers, passed_on, (rank - 1) % workers, like=like)
    return gathered


@collective
async def ring_all_reduce(worker: Worker, vector: Vector) -> Vector:
    """Return the sum over workers: 2(P-1)α + 2((P-1)/P) d β."""
    if worker.workers == 1:
        return vector
    reduced = await ring_reduce_scatter(worker, vector)
    chunks = await ring_all_gather(worker, reduced, split(vector, worker.workers))
    return await worker.replicated("merge", concatenate, *chunks)


@collective
async def doubling_all_gather(worker: Worker, own: VectorT) -> list[VectorT]:
    """Return every worker's vector in rank order, by recursive doubling: log₂P α + (P-1) d β.

    When P is not a power of two, the ranks above the largest one below P first hand theirs to a
    partner, and receive the whole at the end.
    """
    rank, workers = worker.rank, worker.workers
    core = 1 << (workers.bit_length() - 1)
    like = Bundle((own,))
    if rank >= core:
        await worker.send(rank - core, like)
        everything = await worker.recv(rank - core, like=like)
        return list(everything.parts)  # type: ignore[arg-type]
    held: dict[int, Vector] = {rank: own}
    if rank + core < workers:
        (held[rank + core],) = _vectors(await worker.recv(rank + core, like=like))
    distance = 1
    while distance < core:
        partner = rank ^ distance
        mine = Bundle(tuple(held[source] for source in sorted(held)))
        theirs = await worker.sendrecv(partner, mine, partner, like=like)
        block = range(partner & -distance, (partner & -distance) + distance)
        sources = sorted([*block, *(source + core for source in block if source + core < workers)])
        held |= zip(sources, _vectors(theirs), strict=True)
        distance *= 2
    gathered = [held[source] for source in range(workers)]
    if rank + core < workers:
        await worker.send(rank + core, Bundle(tuple(gathered)))
    return gathered  # type: ignore[return-value]


def _vectors(bundle: Bundle) -> list[Vector]:
    return [part for part in bundle.parts if not isinstance(part, Flag)]


@collective
async def tree_reduce(worker: Worker, own: PayloadT, combine: Combine[PayloadT]) -> PayloadT | None:
    """Combine over a binomial tree; rank 0 gets the result, the others None: log₂P (α + d β).

    In round s, rank r with r mod 2^(s+1) = 0 absorbs rank r + 2^s. A partner that does not exist
    (P is not a power of two) is passed over. `combine` need not be associative: the tree is fixed.
    """
    return await _reduce(worker, range(worker.workers), own, combine)


@collective
async def tree_broadcast(worker: Worker, own: PayloadT | None, like: PayloadT) -> PayloadT:
    """Return rank 0's payload everywhere, over the same tree: log₂P (α + d β)."""
    return await _broadcast(worker, range(worker.workers), own, like)


@collective
async def tree_reduce_among(
    worker: Worker, ranks: Sequence[int], own: PayloadT, combine: Combine[PayloadT]
) -> PayloadT | None:
    """Combine over the binomial tree of some ranks, this one among them; the first gets the result, the others None."""
    return await _reduce(worker, ranks, own, combine)


@collective
async def tree_broadcast_among(worker: Worker, ranks: Sequence[int], own: PayloadT | None, like: PayloadT) -> PayloadT:
    """Return the payload of the first of some ranks to all of them, over the same tree."""
    return await _broadcast(worker, ranks, own, like)


async def _reduce(worker: Worker, ranks: Sequence[int], own: PayloadT, combine: Combine[PayloadT]) -> PayloadT | None:
    place = ranks.index(worker.rank)
    distance = 1
    while distance < len(ranks):
        if place % (2 * distance):
            await worker.send(ranks[place - distance], own)
            return None
        if place + distance < len(ranks):
            theirs = await worker.recv(ranks[place + distance], like=own)
            own = await combine(own, theirs)
        distance *= 2
    return own


async def _broadcast(worker: Worker, ranks: Sequence[int], own: PayloadT | None, like: PayloadT) -> PayloadT:
    place = ranks.index(worker.rank)
    distance = 1 << (len(ranks) - 1).bit_length()
    while distance > 1:
        distance //= 2
        if place % (2 * distance) == distance:
            own = await worker.recv(ranks[place - distance], like=like)
        elif place % (2 * distance) == 0 and place + distance < len(ranks):
            if own is None:
                raise ValueError(f"rank {worker.rank} has nothing to broadcast")
            await worker.send(ranks[place + distance], own)
    if own is None:
        raise ValueError(f"rank {worker.rank} has nothing to broadcast")
    return own


@collective
async def gather(worker: Worker, own: PayloadT | None, like: PayloadT, serial: bool = False) -> list[PayloadT] | None:
    """Return the workers' payloads in rank order at the server, None elsewhere: α + n d β.

    The server receives from n workers at once, and they share its link; or, if `serial`, from one
    after another, giving each its turn: n (2α + d β). `own` is None at a server that has a host, and
    no data, of its own.
    """
    if worker.rank != worker.server:
        assert own is not None, "only a server has nothing to send"
        if serial:
            await worker.recv(worker.server, like=Flag(True))
        await worker.send(worker.server, own)
        return None
    others = [rank for rank in range(worker.workers) if rank != worker.rank]
    gathered: dict[int, PayloadT] = {} if own is None else {worker.rank: own}
    if serial:
        for rank in others:
            await worker.send(rank, Flag(True))
            gathered[rank] = await worker.recv(rank, like)
    else:
        underway = [(rank, await worker.start_recv(rank, like)) for rank in others]
        for rank, handle in underway:
            gathered[rank] = await handle
    return [gathered[rank] for rank in sorted(gathered)]


@collective
async def scatter(worker: Worker, payloads: list[PayloadT] | None, like: PayloadT) -> PayloadT | None:
    """Return to each worker its own of the server's `payloads`, which are in rank order: α + n d β.

    `payloads` is None elsewhere; a server with a host of its own gets None.
    """
    if worker.rank != worker.server:
        return await worker.recv(worker.server, like)
    if payloads is None:
        raise ValueError("the server has nothing to scatter")
    others = [rank for rank in range(worker.workers) if rank != worker.rank]
    underway = [await worker.start_send(rank, payloads[rank]) for rank in others]
    for handle in underway:
        await handle
    return payloads[worker.rank] if worker.trains else None


@collective
async def broadcast_from_server(worker: Worker, own: PayloadT | None, like: PayloadT) -> PayloadT:
    """Return the server's payload everywhere, sent to all workers at once: α + n d β."""
    if worker.rank != worker.server:
        return await worker.recv(worker.server, like)
    if own is None:
        raise ValueError("the server has nothing to broadcast")
    underway = [await worker.start_send(rank, own) for rank in range(worker.workers) if rank != worker.rank]
    for handle in underway:
        await handle
    return own


async def tree_all_reduce(worker: Worker, vector: Vector) -> Vector:
    """Return the sum over workers by tree reduction and broadcast: 2 log₂P (α + d β)."""

    async def combine(mine: Vector, theirs: Vector) -> Vector:
        return await worker.compute("merge", add, mine, theirs)

    return await tree_broadcast(worker, await tree_reduce(worker, vector, combine), like=vector)
