"""All-reduce over a double binary tree: two trees at once, each for half of a vector, which is forwarded in slices.

The inner nodes of one tree are the leaves of the other, but for one rank of an odd number. Every link then carries
about one vector each way in a reduction, as in a ring, after the latency of a tree. Let each half be m slices that each
take t to drain, w ≤ m of them in flight, and α be the latency. A reduction or a broadcast among P = 2^L > 2 ranks takes
L α + (2m + 2L - 3) t if α ≤ 2 (w-1) t: a link carries two messages at a time, but for that to or from a root.

P. Sanders, J. Speck and J. L. Träff, Two-tree algorithms for full bandwidth broadcast, reduction and scan, Parallel
Computing 35(12), 2009.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.collectives.pipeline import Pipeline, addition
from netsim.comm.payload import Vector, concatenate, nbytes, split
from netsim.comm.schedule import LazyRounds, Pairs, Round, Schedule, scheduled
from netsim.comm.worker import Worker


class Tree(NamedTuple):
    """A binary tree of all ranks: the parent of every rank, itself at the root, and its distance to the root; (P,)."""

    parents: IntArray
    depths: IntArray


async def double_tree_all_reduce(worker: Worker, vector: Vector, pipeline: Pipeline | None = None) -> Vector:
    """Return the sum over workers: 2 log₂P α + (2 + (2 log₂P - 3) / m) d β with m slices a half; one slice if None.

    The trees do not wait for each other: each is a coroutine of its own.
    """
    if worker.workers == 1:
        return vector
    first, second = split(vector, 2)
    strand = worker.strand(1)
    other = await worker.fork(strand, _all_reduce(strand, second, 1, pipeline))
    slices = await _all_reduce(worker, first, 0, pipeline)
    slices += await other
    worker.traffic.add(strand.traffic)
    return await worker.replicated("merge", concatenate, *slices)


async def _all_reduce(worker: Worker, half: Vector, number: int, pipeline: Pipeline | None) -> list[Vector]:
    """Return the slices of the sum of the workers' halves, over one of the trees."""
    count = 1 if pipeline is None else pipeline.slices(nbytes(half))
    window = 1 if pipeline is None else pipeline.ahead(count) + 1
    slices = split(half, count)
    reduced = await double_tree_reduce(worker, slices, number, window)
    return await double_tree_broadcast(worker, reduced, slices, number, window)


@scheduled
def double_tree_reduce(
    worker: Worker, slices: Sequence[Vector], number: int, window: int
) -> Schedule[list[Vector | None]]:
    """Return the sums of the workers' slices at the root of a tree; elsewhere None replaces each slice.

    Parameters
    ----------
    slices
        The slices of this rank's half of the vector.
    number
        Which tree: 0 or 1.
    window
        The number of slices that a rank has in flight to another rank.
    """
    # Half of a vector: its additions take half as long.
    combine = addition(worker, 2 * len(slices))
    rounds = _climbing(worker.workers, number, len(slices), window)
    return Schedule(rounds, [*slices], list, combine=combine, ahead=window - 1)


@scheduled
def double_tree_broadcast(
    worker: Worker, own: Sequence[Vector | None], templates: Sequence[Vector], number: int, window: int
) -> Schedule[list[Vector]]:
    """Return the root's slices everywhere.

    Parameters
    ----------
    own
        The slices that this rank holds, as :func:`double_tree_reduce` returns them.
    templates
        A template of every slice.
    number
        Which tree: 0 or 1.
    window
        The number of slices that a rank has in flight to another rank.
    """
    held = [template if mine is None else mine for mine, template in zip(own, templates, strict=True)]
    return Schedule(_descending(worker.workers, number, len(held), window), held, list, ahead=window - 1)


@functools.lru_cache(maxsize=16)
def double_tree(workers: int) -> tuple[Tree, Tree]:
    """Return both trees: the second mirrors the first, or is shifted by a rank for an odd number of workers.

    In the first, ranks are in order from left to right, below rank 0 as the root with one child.
    """
    ranks = np.arange(workers)
    lowest = ranks & -ranks
    # The children of a rank whose lowest bit is 2^i are 2^(i-1) before and after it. Of the last ranks, some have no
    # parent after them, and hang on the one before.
    above = (ranks ^ lowest) | (lowest << 1)
    parents = np.where(above < workers, above, ranks ^ lowest)
    depths = np.zeros_like(ranks)
    node = ranks
    while node.any():
        depths += node > 0
        node = parents[node]
    place = workers - 1 - ranks if workers % 2 == 0 else (ranks - 1) % workers  # of each rank in the second tree
    return Tree(parents, depths), Tree(np.argsort(place)[parents[place]], depths[place])


@functools.lru_cache(maxsize=16)
def _climbing(workers: int, number: int, slices: int, window: int) -> LazyRounds:
    """Return the rounds of a reduction: in L levels, a rank at depth D sends slice j in round j + (L - D) `window`.

    A rank then has a slice from its children `window` rounds before it passes the sum on: what it waits for before it
    posts the round.
    """
    tree = double_tree(workers)[number]
    depths, levels = tree.depths, int(tree.depths.max())
    parents = frozenset(tree.parents.tolist())

    def make(index: int) -> Round:
        deepest = levels - max(0, -((slices - 1 - index) // window))
        first = index - levels * window
        return Round(
            _upwards(workers, number, levels - index // window, deepest), lambda src, dst: first + depths[src] * window
        )

    def of(rank: int) -> range:
        to_parent = levels - int(depths[rank])
        first = to_parent - (rank in parents)  # from children
        last = to_parent - (rank == tree.parents[rank])  # the root sends nothing
        return range(first * window, last * window + slices)

    return LazyRounds(slices + (levels - 1) * window, make, of)


@functools.lru_cache(maxsize=16)
def _descending(workers: int, number: int, slices: int, window: int) -> LazyRounds:
    """Return the rounds of a broadcast: those of a reduction backwards, with the slices in their order."""
    climbing = _climbing(workers, number, slices, window)

    def make(index: int) -> Round:
        up = climbing[len(climbing) - 1 - index]
        return Round(up.pairs.reversed, lambda src, dst: slices - 1 - up.slot(dst, src))

    def of(rank: int) -> list[int]:
        return sorted(len(climbing) - 1 - index for index in climbing.of(rank))

    return LazyRounds(len(climbing), make, of)


@functools.lru_cache(maxsize=1024)
def _upwards(workers: int, number: int, least: int, most: int) -> Pairs:
    """Return the messages to parents in a tree, from the ranks at depths from `least` to `most`."""
    tree = double_tree(workers)[number]
    ranks = np.flatnonzero((np.maximum(least, 1) <= tree.depths) & (tree.depths <= most))
    return Pairs(ranks, tree.parents[ranks])
