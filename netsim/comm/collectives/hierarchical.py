"""A hierarchical all-reduce: reduce-scatter in every group of ranks, rings across the groups, all-gather in the groups.

Groups are the ranks of a machine or rack. With g groups of m ranks, the ranks at one place of all groups form a ring,
which sums a chunk of S/m bytes. All m rings cross between groups at once, and share the links there. With α₁ and B₁
between ranks of a group, and α₂ and B₂ of the link of a group, rings of whole chunks take
2 (m-1) (α₁ + S / (m B₁)) + 2 (g-1) (α₂ + S / (g B₂)).

If groups differ in size, there are as many rings across as the smallest group has ranks. The other groups sum their
vectors into as many chunks, and the rest of their ranks only add and forward.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from netsim.comm.collectives.pipeline import Pipeline, addition
from netsim.comm.collectives.rings import ring_all_reduce
from netsim.comm.payload import Vector, concatenate, nbytes, split
from netsim.comm.schedule import LazyRounds, Pairs, Round, Schedule, scheduled
from netsim.comm.worker import Worker

RankGroups: TypeAlias = tuple[tuple[int, ...], ...]
"""The ranks of every group."""


class Rings(NamedTuple):
    """Disjoint rings of ranks, around each of which chunks travel.

    Parameters
    ----------
    members
        The ranks of every ring, in order.
    chunks
        The number of chunks in a ring, at most its number of ranks: chunk c belongs to rank c of the ring.
    separate
        Whether each ring has chunks of its own, which follow those of the ring before. Otherwise all rings have the
        same chunks.
    """

    members: RankGroups
    chunks: int
    separate: bool = False


class Cut(NamedTuple):
    """How chunks are cut into slices: the number of slices of a chunk, and how many of them are posted ahead."""

    slices: int
    ahead: int

    @classmethod
    def of(cls, chunk: Vector, pipeline: Pipeline | None) -> Cut:
        """Return the cut of the largest chunk; one slice without a pipeline."""
        slices = 1 if pipeline is None else pipeline.slices(nbytes(chunk))
        return cls(slices, 0 if pipeline is None else pipeline.ahead(slices))

    def slices_of(self, *chunks: Vector) -> list[Vector]:
        """Return the slices of all chunks."""
        return [each for chunk in chunks for each in split(chunk, self.slices)]


@scheduled
def rings_reduce_scatter(
    worker: Worker, own: Sequence[Vector], templates: Sequence[Vector], rings: Rings, cut: Cut
) -> Schedule[list[Vector]]:
    """Return the slices of this rank's chunk of the sum over its ring; none if it has no chunk.

    Parameters
    ----------
    own
        The slices of this rank's vector, which has all chunks of its ring; none if it is in no ring.
    templates
        A template of every slice of all rings.
    rings, cut
        The rings, and how chunks are cut.
    """
    slots, chunk = _slots_of(worker.rank, rings, cut.slices)
    return Schedule(
        _around(rings, worker.workers, cut.slices, 1),
        [*templates[: slots.start], *own, *templates[slots.stop :]],
        lambda held: [held[slot] for slot in chunk],
        combine=addition(worker, cut.slices),
        ahead=cut.ahead,
    )


@scheduled
def rings_all_gather(
    worker: Worker, own: Sequence[Vector], templates: Sequence[Vector], rings: Rings, cut: Cut
) -> Schedule[list[Vector]]:
    """Return the slices of all chunks of this rank's ring: the inverse of :func:`rings_reduce_scatter`.

    `own` holds the slices of this rank's chunk.
    """
    slots, chunk = _slots_of(worker.rank, rings, cut.slices)
    return Schedule(
        _around(rings, worker.workers, cut.slices, 0),
        [*templates[: chunk.start], *own, *templates[chunk.stop :]],
        lambda held: [held[slot] for slot in slots],
        ahead=cut.ahead,
    )


async def hierarchical_all_reduce(
    worker: Worker, vector: Vector, groups: RankGroups, pipeline: Pipeline | None = None
) -> Vector:
    """Return the sum over workers, by rings in the groups and across them; of whole chunks if `pipeline` is None."""
    if len(groups) == 1:
        return await ring_all_reduce(worker, vector, pipeline)
    inside, across, without_chunk = _rings(groups)
    chunks = split(vector, inside.chunks)
    cut = Cut.of(chunks[0], pipeline)
    slices = cut.slices_of(*chunks)
    own = await rings_reduce_scatter(worker, slices, slices, inside, cut)
    has_chunk = worker.rank not in without_chunk
    parts = [part for chunk in chunks for part in split(chunk, across.chunks)]
    finer = Cut.of(parts[0], pipeline)
    templates = finer.slices_of(*parts)
    mine = finer.slices_of(*split(await _whole(worker, own), across.chunks)) if has_chunk else []
    mine = await rings_reduce_scatter(worker, mine, templates, across, finer)
    mine = await rings_all_gather(worker, mine, templates, across, finer)
    own = cut.slices_of(await _whole(worker, mine)) if has_chunk else []
    slices = await rings_all_gather(worker, own, slices, inside, cut)
    return await worker.replicated("merge", concatenate, *slices)


async def _whole(worker: Worker, slices: Sequence[Vector]) -> Vector:
    """Join the slices of a chunk."""
    return slices[0] if len(slices) == 1 else await worker.compute("merge", concatenate, *slices)


@functools.lru_cache(maxsize=16)
def _rings(groups: RankGroups) -> tuple[Rings, Rings, tuple[int, ...]]:
    """Return the rings inside the groups, those across them, and the ranks without a chunk."""
    fewest = min(map(len, groups))
    columns = tuple(zip(*(group[:fewest] for group in groups), strict=True))
    return Rings(groups, fewest), Rings(columns, len(groups), True), tuple(r for g in groups for r in g[fewest:])


def _slots_of(rank: int, rings: Rings, slices: int) -> tuple[range, range]:
    """Return the slots of the chunks of a rank's ring, and those of the rank's own chunk; empty ranges without."""
    for number, ring in enumerate(rings.members):
        if rank in ring:
            first = number * rings.chunks if rings.separate else 0
            begin = first + min(ring.index(rank), rings.chunks)
            end = min(begin + 1, first + rings.chunks)
            return range(first * slices, (first + rings.chunks) * slices), range(begin * slices, end * slices)
    return range(0), range(0)


@functools.lru_cache(maxsize=64)
def _around(rings: Rings, workers: int, slices: int, behind: int) -> LazyRounds:
    """Return the steps around all rings at once, of one round a slice of a chunk.

    In step i, the rank at place p of a ring sends chunk p - i - `behind`, modulo the size of the ring, if there is one.
    """
    place, size, first, following = np.zeros((4, workers), np.int64)
    for number, ring in enumerate(rings.members):
        ranks = np.array(ring)
        place[ranks], size[ranks] = np.arange(len(ring)), len(ring)
        first[ranks], following[ranks] = number * rings.chunks if rings.separate else 0, np.roll(ranks, -1)
    known: dict[bytes, Pairs] = {}

    @functools.cache
    def pairs(step: int) -> Pairs:
        chunk = (place - step - behind) % np.maximum(size, 1)
        sending = np.flatnonzero((step < size - 1) & (chunk < rings.chunks))
        return known.setdefault(sending.tobytes(), Pairs(sending, following[sending]))

    def hop(index: int) -> Round:
        step, part = divmod(index, slices)
        slot = lambda src, dst: (first[src] + (place[src] - step - behind) % size[src]) * slices + part  # noqa: E731
        return Round(pairs(step), slot)

    return LazyRounds((max(map(len, rings.members)) - 1) * slices, hop)
