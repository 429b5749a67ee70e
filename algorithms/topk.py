"""Synchronous SGD with top-k sparsification, error feedback and an all-gather: O(kP) bytes per worker."""

from __future__ import annotations

from typing import Literal

from algorithms.compression import sum_to_dense
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.selection import Selector
from netsim._util.options import Choice, Option
from netsim.comm.collectives import bruck_all_gather, ring_all_gather
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig

Gather = Literal["ring", "bruck"]
GATHERS = {"ring": ring_all_gather, "bruck": bruck_all_gather}


class TopK(ErrorFeedback):
    """Every worker sends its k largest values and their indices to all other workers.

    Communication takes (P-1)(α + 2kβ) by a ring, and α ⌈log₂P⌉ + 2(P-1)kβ by Bruck's all-gather. No selected entry
    is dropped, so result and residuals together contain the whole gradient mass.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.
    gather
        The all-gather: "ring" or "bruck".

    References
    ----------
    gTop-k paper, eq. (3).
    """

    name = "topk"
    title = "Top-k"
    options = (Option(Choice(GATHERS), "ring", "All-gather of the selected entries: {choices}.", name="gather"),)

    def __init__(
        self, selector: Selector, momentum_correction: SGDConfig | float = 0.0, gather: Gather = "ring"
    ) -> None:
        super().__init__(selector, momentum_correction)
        self._gather = GATHERS[gather]

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the dense sum (d,) of the workers' top-k entries."""
        assert vector is not None
        local, memory = await self.compress(worker, vector, memory)
        everyones = await self._gather(worker, local)
        return await worker.replicated("merge", sum_to_dense, *everyones), memory
