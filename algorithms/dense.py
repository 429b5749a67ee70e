"""S-SGD with a dense ring all-reduce: 2(P-1)α + 2((P-1)/P) d β."""

from __future__ import annotations

from netsim.comm.collectives import ring_all_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class DenseRing(Algorithm):
    """Every worker sends every gradient, in chunks around a ring (gTop-k paper, eq. (2))."""

    name = "dense"
    title = "dense"

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        assert vector is not None
        return await ring_all_reduce(worker, vector), None
