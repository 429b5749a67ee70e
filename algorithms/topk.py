"""S-SGD with top-k sparsification and error feedback, gathered by all: O(kP)."""

from __future__ import annotations

from typing import Literal

from algorithms.compression import accumulate_and_select, sum_to_dense
from netsim.algorithm import ErrorFeedback
from netsim.collectives import doubling_all_gather, ring_all_gather
from netsim.payload import Vector
from netsim.worker import Worker

Gather = Literal["ring", "doubling"]
GATHERS = {"ring": ring_all_gather, "doubling": doubling_all_gather}


class TopK(ErrorFeedback):
    """Every worker sends its k largest values and their indices to all others (gTop-k paper, eq. (3)).

    Ring: (P-1)(α + 2kβ). Recursive doubling: α log₂P + 2(P-1) k β. Nothing selected is ever
    dropped, so mass is conserved whatever the residual rule.
    """

    name = "topk"
    title = "Top-k"

    def __init__(self, k: int, gather: Gather = "ring") -> None:
        super().__init__(k)
        self._gather = GATHERS[gather]

    async def exchange(self, worker: Worker, vector: Vector, state: Vector) -> tuple[Vector, Vector]:
        local, residual = await worker.compute("select", accumulate_and_select, state, vector, self.k)
        everyones = await self._gather(worker, local)
        return await worker.replicated("merge", sum_to_dense, *everyones), residual
