"""S-SGD over a parameter server: 2(α + n d β) for n workers that are not the server itself."""

from __future__ import annotations

from netsim.algorithm import Algorithm
from netsim.collectives import gather, scatter
from netsim.payload import Vector, add_all
from netsim.worker import Worker


class ParameterServer(Algorithm):
    """Workers send dense gradients to a server, which sends their sum back to all of them."""

    name = "ps"
    title = "parameter server"
    uses_server = True

    async def exchange(self, worker: Worker, vector: Vector, state: None) -> tuple[Vector, None]:
        if worker.rank == worker.server:
            return await self._reduce(worker, vector, like=vector), None
        await worker.send(worker.server, vector)
        return await worker.recv(worker.server, like=vector), None

    async def serve(self, worker: Worker, like: Vector) -> Vector:
        return await self._reduce(worker, None, like)

    async def _reduce(self, worker: Worker, own: Vector | None, like: Vector) -> Vector:
        vectors = await gather(worker, own, like)
        total = await worker.compute("merge", add_all, *vectors)
        await scatter(worker, total)
        return total
