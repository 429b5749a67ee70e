"""Collectives over binomial trees: in round s, rank r with r mod 2^(s+1) = 0 and rank r + 2^s are partners.

A tree may have *levels*, as a network has: at the first, every group of ranks is a tree by itself; the groups of the
next level are made of the first ranks of the groups below. Without levels, all ranks are one group.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import numpy as np

from netsim.comm.payload import PayloadT, Vector, add
from netsim.comm.schedule import Combine, Pairs, Round, RoundsByRank, Schedule, scheduled
from netsim.comm.worker import Worker

Levels: TypeAlias = tuple[tuple[tuple[int, ...], ...], ...]
"""Levels of groups of ranks; the very first rank of the first group is the root."""


@scheduled
def tree_reduce(
    worker: Worker, own: PayloadT, combine: Combine[PayloadT], levels: Levels | None = None
) -> Schedule[PayloadT | None]:
    """Combine over a binomial tree; the root, rank 0, gets the result, the others None: log₂P (α + d β).

    In round s, rank r with r mod 2^(s+1) = 0 absorbs rank r + 2^s. A partner that does not exist
    (P is not a power of two) is passed over. `combine` need not be associative: the tree is fixed.
    """
    return Schedule(_absorbing(levels or worker.workers), [own], lambda held: held[0], combine=combine)


@scheduled
def tree_broadcast(
    worker: Worker, own: PayloadT | None, template: PayloadT, levels: Levels | None = None, root: int = 0
) -> Schedule[PayloadT]:
    """Return the payload of the root everywhere, over the same tree: log₂P (α + d β).

    Another root than rank 0 needs a tree without levels. Ranks then count from the root on, modulo the workers.
    """
    is_root = worker.rank == root
    if is_root and own is None:
        raise ValueError(f"rank {worker.rank} has nothing to broadcast")
    held = [own if is_root else template]
    rounds = _spreading(levels or worker.workers, root)
    return Schedule(rounds, held, lambda held: held[0], holder=root)


@scheduled
def doubling_broadcast(worker: Worker, vector: Vector) -> Schedule[Vector]:
    """Return rank 0's vector everywhere, as gloo does: in round s, every rank r < 2^s sends to rank r + 2^s.

    A rank's own sends are posted in the order of rounds. Eager sends are posted together and share the link of their
    sender, so that a power of two of ranks takes L α + (L (L+1) / 2) d β, with L = log₂P; other sends L (α + d β).

    Parameters
    ----------
    vector
        The vector (d,) at rank 0; a template of it elsewhere.
    """
    return Schedule(_doubling(worker.workers), [vector], lambda held: held[0], holder=0)


async def tree_all_reduce(worker: Worker, vector: Vector) -> Vector:
    """Return the sum over workers by tree reduction and broadcast: 2 log₂P (α + d β)."""

    async def combine(mine: Vector, theirs: Vector) -> Vector:
        return await worker.compute("merge", add, mine, theirs)

    return await tree_broadcast(worker, await tree_reduce(worker, vector, combine), template=vector)


@functools.lru_cache(maxsize=16)
def _absorbing(tree: Levels | int) -> RoundsByRank:
    """Return the rounds of a reduction over levels or a number of ranks: each higher partner sends to the lower."""
    levels = [[np.arange(tree)]] if isinstance(tree, int) else [[np.array(group) for group in level] for level in tree]
    rounds = []
    for level in levels:
        distance = 1
        while groups := [group for group in level if distance < len(group)]:
            lower = [group[: len(group) - distance : 2 * distance] for group in groups]
            higher = [group[distance :: 2 * distance] for group in groups]
            rounds.append(Round(Pairs(np.concatenate(higher), np.concatenate(lower))))
            distance *= 2
    return RoundsByRank(rounds)


@functools.lru_cache(maxsize=16)
def _spreading(tree: Levels | int, root: int = 0) -> RoundsByRank:
    """Return the rounds of a broadcast: the rounds of a reduction in reverse order, with reversed messages."""
    if isinstance(tree, int) and root:
        from_0 = (pairs for pairs, *_ in _spreading(tree))
        return RoundsByRank(Round(Pairs((pairs.src + root) % tree, (pairs.dst + root) % tree)) for pairs in from_0)
    return RoundsByRank(Round(pairs.reversed) for pairs, *_ in reversed(_absorbing(tree)))


@functools.lru_cache(maxsize=16)
def _doubling(workers: int) -> RoundsByRank:
    """Return the rounds of a broadcast in which the number of ranks that have the vector doubles."""
    distances = [1 << round_ for round_ in range((workers - 1).bit_length())]
    having = [np.arange(min(distance, workers - distance)) for distance in distances]
    return RoundsByRank(Round(Pairs(src, src + distance)) for src, distance in zip(having, distances, strict=True))
