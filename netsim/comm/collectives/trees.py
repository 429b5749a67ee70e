"""Collectives over binomial trees: in round s, rank r with r mod 2^(s+1) = 0 and rank r + 2^s are partners."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.payload import Payload, PayloadT, Vector, add
from netsim.comm.schedule import (
    NoScheduleError,
    Pairs,
    PerRole,
    PostCompute,
    RoleMap,
    Round,
    Schedule,
    asked,
    kind_of,
    schedule_of,
    size_of,
)
from netsim.comm.worker import Compute, Worker, collective

Combine = Callable[[PayloadT, PayloadT], Awaitable[PayloadT]]
"""Combine what this rank holds (left) with what a higher rank sent (right)."""
Level: TypeAlias = Sequence[Sequence[int]]
"""Groups of ranks, each of them a tree by itself."""


@collective
async def tree_reduce(worker: Worker, own: PayloadT, combine: Combine[PayloadT]) -> PayloadT | None:
    """Combine over a binomial tree; rank 0 gets the result, the others None: log₂P (α + d β).

    In round s, rank r with r mod 2^(s+1) = 0 absorbs rank r + 2^s. A partner that does not exist
    (P is not a power of two) is passed over. `combine` need not be associative: the tree is fixed.
    """
    return await _reduce(worker, range(worker.workers), own, combine)


@schedule_of(tree_reduce)
def _tree_reduce(world: RoleMap, own: PerRole[Payload], combine: PerRole[Combine[Payload]]) -> Schedule:
    return _reducing(world, [[np.arange(world.workers)]], own, combine)


@collective
async def tree_broadcast(worker: Worker, own: PayloadT | None, template: PayloadT) -> PayloadT:
    """Return rank 0's payload everywhere, over the same tree: log₂P (α + d β)."""
    return await _broadcast(worker, range(worker.workers), own, template)


@schedule_of(tree_broadcast)
def _tree_broadcast(world: RoleMap, own: PerRole[Payload | None], template: PerRole[Payload]) -> Schedule:
    return _broadcasting(world, [[np.arange(world.workers)]], own)


@collective
async def tree_reduce_level_by_level(
    worker: Worker, levels: Sequence[Level], own: PayloadT, combine: Combine[PayloadT]
) -> PayloadT | None:
    """Combine inside every group of the first level, then the results of their first ranks in the groups of the next.

    A level holds the first ranks of the groups below it. The very first rank gets the result, the others None.
    """
    result: PayloadT | None = own
    for group in _groups_of(worker.rank, levels):
        if result is not None:
            result = await _reduce(worker, group, result, combine)
    return result


@schedule_of(tree_reduce_level_by_level)
def _reduce_level_by_level(
    world: RoleMap, levels: PerRole[Sequence[Level]], own: PerRole[Payload], combine: PerRole[Combine[Payload]]
) -> Schedule:
    return _reducing(world, _arrays(levels[0]), own, combine)


@collective
async def tree_broadcast_back(
    worker: Worker, levels: Sequence[Level], own: PayloadT | None, template: PayloadT
) -> PayloadT:
    """Return the very first rank's payload everywhere, down the levels of :func:`tree_reduce_level_by_level`."""
    for group in reversed(_groups_of(worker.rank, levels)):
        own = await _broadcast(worker, group, own, template)
    assert own is not None
    return own


@schedule_of(tree_broadcast_back)
def _broadcast_back(
    world: RoleMap, levels: PerRole[Sequence[Level]], own: PerRole[Payload | None], template: PerRole[Payload]
) -> Schedule:
    return _broadcasting(world, _arrays(levels[0]), own)


def _groups_of(rank: int, levels: Sequence[Level]) -> list[Sequence[int]]:
    """Return the groups that a rank is in, from the first level up to the one where it is not first."""
    found = []
    for level in levels:
        found.append(next(group for group in level if rank in group))
        if found[-1][0] != rank:
            break
    return found


async def _reduce(worker: Worker, ranks: Sequence[int], own: PayloadT, combine: Combine[PayloadT]) -> PayloadT | None:
    place = ranks.index(worker.rank)
    distance = 1
    while distance < len(ranks):
        if place % (2 * distance):
            await worker.send(ranks[place - distance], own)
            return None
        if place + distance < len(ranks):
            theirs = await worker.recv(ranks[place + distance], template=own)
            own = await combine(own, theirs)
        distance *= 2
    return own


async def _broadcast(worker: Worker, ranks: Sequence[int], own: PayloadT | None, template: PayloadT) -> PayloadT:
    place = ranks.index(worker.rank)
    distance = 1 << (len(ranks) - 1).bit_length()
    while distance > 1:
        distance //= 2
        if place % (2 * distance) == distance:
            own = await worker.recv(ranks[place - distance], template=template)
        elif place % (2 * distance) == 0 and place + distance < len(ranks):
            if own is None:
                raise ValueError(f"rank {worker.rank} has nothing to broadcast")
            await worker.send(ranks[place + distance], own)
    if own is None:
        raise ValueError(f"rank {worker.rank} has nothing to broadcast")
    return own


def _arrays(levels: Sequence[Level]) -> list[list[IntArray]]:
    return [[np.asarray(group) for group in level] for level in levels]


def _partners(level: Sequence[IntArray]) -> Iterator[Pairs]:
    """Yield, for distances 1, 2, 4 …, who in the groups of a level absorbs whom: the pairs (higher rank, lower)."""
    distance = 1
    while groups := [group for group in level if distance < len(group)]:
        lower = [group[: len(group) - distance : 2 * distance] for group in groups]
        higher = [group[distance :: 2 * distance] for group in groups]
        yield Pairs(np.concatenate(higher), np.concatenate(lower))
        distance *= 2


def _reducing(
    world: RoleMap, levels: Sequence[Sequence[IntArray]], own: PerRole[Payload], combine: PerRole[Combine[Payload]]
) -> Schedule:
    """Rank 0, which is the first of the first group at every level, stands for all who absorb."""
    sizes = np.array([size_of(world.alike(own))])
    requests: list[Sequence[Compute[Any]]] = []
    rounds = []
    first, result = min(int(level[0][0]) for level in levels), own[0]
    for pairs in (pairs for level in levels for pairs in _partners(level)):
        if first in pairs.dst:
            request, after = asked(combine[0](result, own[0]))
            if (kind_of(after), size_of(after)) != (kind_of(result), size_of(result)):
                raise NoScheduleError("what is combined over a tree changes its size")
            result = after
            requests.append(request)
        elif not requests:
            requests.append(asked(combine[0](result, own[0]))[0])  # what it is charged where others do
        none = np.zeros(len(pairs.src), np.int64)
        rounds.append(Round(pairs, sizes, none, PostCompute(pairs.dst, none + len(requests) - 1)))
    return Schedule(rounds, world.only_at(first, result), requests, uneven=True)


def _broadcasting(world: RoleMap, levels: Sequence[Sequence[IntArray]], own: PerRole[Payload | None]) -> Schedule:
    payload = world.alike(own)
    sizes = np.array([size_of(payload)])
    up = [Pairs(pairs.dst, pairs.src) for level in levels for pairs in _partners(level)]
    rounds = [Round(pairs, sizes, np.zeros(len(pairs.src), np.int64)) for pairs in reversed(up)]
    return Schedule(rounds, world.everywhere(payload))


async def tree_all_reduce(worker: Worker, vector: Vector) -> Vector:
    """Return the sum over workers by tree reduction and broadcast: 2 log₂P (α + d β)."""

    async def combine(mine: Vector, theirs: Vector) -> Vector:
        return await worker.compute("merge", add, mine, theirs)

    return await tree_broadcast(worker, await tree_reduce(worker, vector, combine), template=vector)
