"""S-SGD with top-k sparsification and error feedback, gathered by all: O(kP)."""

from __future__ import annotations

from typing import Literal

from algorithms.compression import sum_to_dense
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.selection import Selector
from netsim._util.errors import check_choice
from netsim.comm.collectives import doubling_all_gather, ring_all_gather
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig

Gather = Literal["ring", "doubling"]
GATHERS = {"ring": ring_all_gather, "doubling": doubling_all_gather}


class TopK(ErrorFeedback):
    """Every worker sends its k largest values and their indices to all others (gTop-k paper, eq. (3)).

    Ring: (P-1)(α + 2kβ). Recursive doubling: α log₂P + 2(P-1) k β. Nothing selected is ever
    dropped, so mass is conserved whatever the residual rule.
    """

    name = "topk"
    title = "Top-k"

    def __init__(
        self, selector: Selector, momentum_correction: SGDConfig | float = 0.0, gather: Gather = "ring"
    ) -> None:
        super().__init__(selector, momentum_correction)
        check_choice("gather", gather, GATHERS)
        self._gather = GATHERS[gather]

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        assert vector is not None
        local, memory = await self.compress(worker, vector, memory)
        everyones = await self._gather(worker, local)
        return await worker.replicated("merge", sum_to_dense, *everyones), memory
