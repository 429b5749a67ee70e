"""Synchronous SGD with a tree reduction and a broadcast along a chain."""

from __future__ import annotations

from typing import Any

from netsim.comm.collectives.chain import chain_broadcast
from netsim.comm.collectives.trees import tree_reduce
from netsim.comm.payload import Vector, add
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class DenseChain(Algorithm):
    """Sum over a tree, broadcast along a chain."""

    name = "dense-chain"
    title = "dense chain"

    async def exchange(self, worker: Worker, vector: Vector | None, memory: None, template: Vector) -> Any:
        async def combine(mine: Vector, theirs: Vector) -> Vector:
            return await worker.compute("merge", add, mine, theirs)

        return await chain_broadcast(worker, await tree_reduce(worker, vector, combine), template), None
