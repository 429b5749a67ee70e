"""The common part of algorithms whose workers send a few bits for each element to all other workers."""

from __future__ import annotations

from typing import ClassVar, Final

from algorithms.gathering import GATHER, Gather, all_gathered
from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from algorithms.quantisation import Grid, add_quantised
from netsim._util.options import Option, Whole
from netsim.comm.payload import Vector, nbytes, split
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm

BLOCK: Final = Option(
    Whole(1),
    None,
    "Number of consecutive elements that share a scale.",
    otherwise="all of an exchange; with --overlap tensor, those of a tensor",
    name="block",
)


class Quantised(Algorithm):
    """An algorithm whose workers send quantised vectors by an all-gather, because sums do not fit their bits.

    With messages of m bytes, communication takes (P-1)(α + mβ) by a ring, about α + (P-1) mβ by one that forwards in
    slices, and α ⌈log₂P⌉ + (P-1) mβ by Bruck's all-gather. Here β is the time of a byte.

    Parameters
    ----------
    gather
        The all-gather: "ring" or "bruck".
    segment
        The slices in which a ring forwards, as for :class:`~algorithms.dense.DenseRing`; "none" for whole messages.
    """

    lossy: ClassVar[bool] = True
    options: ClassVar[tuple[Option, ...]] = (GATHER, SEGMENT)

    def __init__(self, gather: Gather = "ring", segment: Segment = DEFAULT) -> None:
        self._gather = gather
        self._pipeline = pipeline_of(segment)

    async def gathered(self, worker: Worker, message: Vector) -> list[Vector]:
        """Return the messages of all workers in rank order, each in one slice or several."""
        return await all_gathered(worker, message, self._gather, self._pipeline, nbytes(message), split)

    async def sum_of(self, worker: Worker, message: Vector, grid: Grid, template: Vector) -> Vector:
        """Return the sum (d,) of the quantised vectors of all workers."""
        messages = await self.gathered(worker, message)
        return await worker.replicated("merge", add_quantised, template, grid, *messages)
