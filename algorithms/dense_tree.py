"""Synchronous SGD with a dense tree all-reduce: 2 log₂P (α + d β)."""

from __future__ import annotations

from netsim.comm.collectives import tree_all_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class DenseTree(Algorithm):
    """The gradients are summed up a binomial tree, and the sum is broadcast down the same tree."""

    name = "dense-tree"
    title = "dense tree"
    colour = "#549cfc"
    exchanges = "synchronous SGD, reduce and broadcast on a binomial tree"
    sends = "d values per message, 2 log₂P stages"
    half_precision = True

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum of all vectors (d,) by a tree all-reduce."""
        assert vector is not None
        return await tree_all_reduce(worker, vector), None
