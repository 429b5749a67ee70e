"""Synchronous SGD with a dense ring all-reduce: 2(P-1)α + 2((P-1)/P) d β (gTop-k paper, eq. (2)), or pipelined."""

from __future__ import annotations

from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from netsim.comm.collectives import ring_all_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class DenseRing(Algorithm):
    """The gradients are summed in P chunks around a ring: reduce-scatter, then all-gather.

    Parameters
    ----------
    segment
        The slices in which the ring forwards chunks: with "auto" of 512 KiB, so that chunks of several slices take
        2α + 2((P-1)/P) d β; "none" for whole chunks, as in the gTop-k paper; or a size.
    """

    name = "dense"
    title = "dense"
    options = (SEGMENT,)

    def __init__(self, segment: Segment = DEFAULT) -> None:
        self._pipeline = pipeline_of(segment)

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum of all vectors (d,) by a ring all-reduce."""
        assert vector is not None
        return await ring_all_reduce(worker, vector, self._pipeline), None
