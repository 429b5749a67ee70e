"""Synchronous SGD with a hierarchical all-reduce: 2(m-1)(α₁ + dβ₁/m) in machines + 2(g-1)(α₂ + dβ₂/g) across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from algorithms.groups import GROUP_SIZE, groups_of_ranks
from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from netsim.comm.collectives import hierarchical_all_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class DenseHierarchical(Algorithm):
    """The gradients are summed by rings inside the groups, across them, and inside again.

    With g groups of m workers, the ranks of a group reduce-scatter; then each rank sums its chunk with the ranks at its
    place of the other groups; then the ranks of a group all-gather. A group's link carries 2 (g-1)/g d elements each
    way, however many ranks the group has.

    Parameters
    ----------
    groups
        The group of every rank, or the size of groups of consecutive ranks. None is one group of all ranks, which is
        a ring all-reduce.
    segment
        The slices in which rings forward, as for :class:`~algorithms.dense.DenseRing`.
    """

    name = "dense-hier"
    title = "dense (hierarchical)"
    colour = "#3078fc"
    exchanges = "synchronous SGD, rings inside each of g machines of m workers, and m rings across them"
    sends = "2((m-1)/m) d values per worker inside, 2((g-1)/g) d values per machine across"
    half_precision = True
    options = (GROUP_SIZE, SEGMENT)
    grouped: ClassVar[bool] = True

    def __init__(self, groups: Sequence[int] | int | None = None, segment: Segment = DEFAULT) -> None:
        self.groups = groups
        self._pipeline = pipeline_of(segment)
        self._members: tuple[tuple[int, ...], ...] | None = None

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum of all vectors (d,) by a hierarchical all-reduce."""
        assert vector is not None
        if self._members is None:
            self._members = groups_of_ranks(self.groups, worker.workers)
        return await hierarchical_all_reduce(worker, vector, self._members, self._pipeline), None
