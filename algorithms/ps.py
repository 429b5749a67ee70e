"""Distributed SGD over a parameter server: 2(α + n d β) for n workers that are not the server itself."""

from __future__ import annotations

from algorithms.server import OverServer
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker


class ParameterServer(OverServer):
    """Workers send dense gradients to a server, and the server sends the sum to all workers."""

    name = "ps"
    title = "parameter server"
    colour = "#c765ad"
    exchanges = "synchronous SGD over a parameter server, on worker 0's host or, with `--topology ps`, on its own"
    sends = "d values to the server, d back"

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum of all vectors (d,), computed by the server."""
        return await self.sum_at_server(worker, vector, template), None
