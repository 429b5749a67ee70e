"""Synchronous SGD with a dense all-reduce over a double binary tree: 2 log₂P α + 2 d β, and a pipeline's ends."""

from __future__ import annotations

from typing import Final

from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from netsim.comm.collectives import Pipeline, double_tree_all_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm

TREE: Final = Pipeline(window=128, most=128)
"""The slices by default: all are in flight, so that latency delays them no more than whole halves."""


class DenseDoubleTree(Algorithm):
    """The halves of the gradients are summed up two binary trees at once, and the sums are broadcast down these trees.

    Each rank is an inner node of one tree and a leaf of the other, so the bandwidth is that of a ring and the latency
    that of a tree: 2 log₂P α + (2 + (2 log₂P - 3) / m) d β with m slices a half, for P a power of two above 2.

    Parameters
    ----------
    segment
        The slices in which halves are forwarded: with "auto" of 512 KiB, or a 128th of a half if that is more; "none"
        for whole halves; or a size, of which eight slices are in flight.

    References
    ----------
    Sanders, Speck and Träff, Parallel Computing 35(12), 2009; NCCL's algorithm ``tree`` between machines.
    """

    name = "dense-double-tree"
    title = "dense double tree"
    colour = "#0c60b4"
    exchanges = "synchronous SGD, two binary trees at once, each for half of the gradient"
    sends = "about 2 d values per worker, 2 log₂P stages"
    half_precision = True
    options = (SEGMENT,)

    def __init__(self, segment: Segment = DEFAULT) -> None:
        self._pipeline = pipeline_of(segment, TREE)

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum of all vectors (d,) by an all-reduce over both trees."""
        assert vector is not None
        return await double_tree_all_reduce(worker, vector, self._pipeline), None
