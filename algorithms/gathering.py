"""The option ``gather``: the all-gather by which workers send what they selected or quantised to all other workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from netsim._util.options import Choice, Option
from netsim.comm.collectives import Pipeline, bruck_all_gather, ring_all_gather
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker

Gather = Literal["ring", "bruck"]
GATHERS: tuple[Gather, ...] = ("ring", "bruck")
GATHER: Final = Option(
    Choice(GATHERS, {"doubling": "bruck"}), "ring", "All-gather of what workers send: {choices}.", name="gather"
)


async def all_gathered(
    worker: Worker,
    own: Vector,
    gather: Gather,
    pipeline: Pipeline | None,
    size: int,
    cut: Callable[[Vector, int], list[Vector]],
) -> list[Vector]:
    """Return the vectors of all workers in rank order; a ring that forwards in slices returns each in its slices.

    Parameters
    ----------
    worker, own
        The rank, and its vector.
    gather, pipeline
        The all-gather, and how a ring forwards; None for whole vectors.
    size
        The bytes that set the number of slices, the same on every rank.
    cut
        ``cut(own, slices)`` returns the slices.
    """
    if gather == "bruck":
        return await bruck_all_gather(worker, own)
    slices = 1 if pipeline is None else pipeline.slices(size)
    return await ring_all_gather(worker, *(cut(own, slices) if slices > 1 else [own]), pipeline=pipeline)
