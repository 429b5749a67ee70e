"""Synchronous SGD with top-k sparsification, error feedback and an all-gather: O(kP) bytes per worker."""

from __future__ import annotations

from typing import Literal

from algorithms.compression import sum_to_dense
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from algorithms.selection import Selector
from netsim._util.options import Choice, Option
from netsim.comm.collectives import bruck_all_gather, ring_all_gather
from netsim.comm.payload import INDEX_BYTES, VALUE_BYTES, Vector, split_entries
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig

Gather = Literal["ring", "bruck"]
GATHERS: tuple[Gather, ...] = ("ring", "bruck")


class TopK(ErrorFeedback):
    """Every worker sends its k largest values and their indices to all other workers.

    Communication takes (P-1)(α + 2kβ) by a ring, about α + 2(P-1)kβ by one that forwards in slices, and
    α ⌈log₂P⌉ + 2(P-1)kβ by Bruck's all-gather. No selected entry is dropped, so result and residuals together contain
    the whole gradient mass.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.
    gather
        The all-gather: "ring" or "bruck".
    segment
        The slices in which a ring forwards: "auto" of 512 KiB, "none" for whole vectors, or a size.

    References
    ----------
    gTop-k paper, eq. (3).
    """

    name = "topk"
    title = "Top-k"
    options = (
        Option(
            Choice(GATHERS, {"doubling": "bruck"}),
            "ring",
            "All-gather of the selected entries: {choices}.",
            name="gather",
        ),
        SEGMENT,
    )

    def __init__(
        self,
        selector: Selector,
        momentum_correction: SGDConfig | float = 0.0,
        gather: Gather = "ring",
        segment: Segment = DEFAULT,
    ) -> None:
        super().__init__(selector, momentum_correction)
        self._gather = gather
        self._pipeline = pipeline_of(segment)

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the dense sum (d,) of the workers' top-k entries."""
        assert vector is not None
        local, memory = await self.compress(worker, vector, memory)
        everyones = await self._gathered(worker, local)
        return await worker.replicated("merge", sum_to_dense, *everyones), memory

    async def _gathered(self, worker: Worker, local: Vector) -> list[Vector]:
        """Return the entries of all workers in rank order; those of a worker may be several vectors."""
        if self._gather == "bruck":
            return await bruck_all_gather(worker, local)
        if self._pipeline is None:
            return await ring_all_gather(worker, local)
        # Every worker cuts into the same number of slices, though one may have selected fewer entries than k.
        size = (VALUE_BYTES + INDEX_BYTES) * min(self.selected(local.size, worker.step), local.size)
        slices = self._pipeline.slices(size)
        parts = split_entries(local, slices) if slices > 1 else [local]
        return await ring_all_gather(worker, *parts, pipeline=self._pipeline)
