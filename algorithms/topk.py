"""Synchronous SGD with top-k sparsification, error feedback and an all-gather: O(kP) bytes per worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from algorithms.compression import sum_to_dense
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.gathering import GATHER, Gather, all_gathered
from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from algorithms.selection import Selector
from netsim.comm.payload import Vector, entry_bytes, split_entries
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig


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
        The slices in which a ring forwards, as for :class:`~algorithms.dense.DenseRing`; "none" for whole vectors.

    References
    ----------
    gTop-k paper, eq. (3).
    """

    name = "topk"
    title = "Top-k"
    colour = "#d55e00"
    exchanges = "top-k with error feedback, all-gather: O(kP)"
    sends = "(P-1) k values and indices per worker"
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = ({"gather": "ring"}, {"gather": "bruck"})
    options = (GATHER, SEGMENT)

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
        # Every worker cuts into the same number of slices, though one may have selected fewer entries than k.
        size = entry_bytes(local) * min(self.selected(local.size, worker.step), local.size)
        everyones = await all_gathered(worker, local, self._gather, self._pipeline, size, split_entries)
        return await worker.replicated("merge", sum_to_dense, *everyones), memory
