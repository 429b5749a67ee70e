"""S-SGD over a parameter server: 2(α + n d β) for n workers that are not the server itself."""

from __future__ import annotations

from netsim.algorithm import Algorithm
from netsim.collectives import broadcast_from_server, gather
from netsim.payload import Vector, add_all
from netsim.worker import Worker


class ParameterServer(Algorithm):
    """Workers send dense gradients to a server, which sends their sum back to all of them."""

    name = "ps"
    title = "parameter server"
    uses_server = True

    async def exchange(self, worker: Worker, vector: Vector, state: None) -> tuple[Vector, None]:
        return await self._through_server(worker, vector, like=vector), None

    async def serve(self, worker: Worker, like: Vector) -> Vector:
        return await self._through_server(worker, None, like)

    @staticmethod
    async def _through_server(worker: Worker, own: Vector | None, like: Vector) -> Vector:
        vectors = await gather(worker, own, like)
        total = None if vectors is None else await worker.compute("merge", add_all, *vectors)
        return await broadcast_from_server(worker, total, like)
