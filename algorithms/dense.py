"""Synchronous SGD with a dense ring all-reduce: 2(P-1)α + 2((P-1)/P) d β (gTop-k paper, eq. (2))."""

from __future__ import annotations

from netsim.comm.collectives import ring_all_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class DenseRing(Algorithm):
    """The gradients are summed in P chunks around a ring: reduce-scatter, then all-gather."""

    name = "dense"
    title = "dense"

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum of all vectors (d,) by a ring all-reduce."""
        assert vector is not None
        return await ring_all_reduce(worker, vector), None
