"""gTop-k without a tree: all-gather the workers' top-k entries, sum them, and select k again: O(kP) bytes."""

from __future__ import annotations

from algorithms.compression import outside, restore, select, total
from algorithms.feedback import ErrorFeedback, Feedback
from netsim.comm.collectives import ring_all_gather
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution


class GTopKNaive(ErrorFeedback):
    """The result is the k largest entries of the sum of all selections.

    A worker adds its entries outside the result back to its residual.
    """

    name = "gtopk-naive"
    title = "gTop-k (naive)"
    colour = "#308430"
    exchanges = "all-gather as `topk`, then a second selection of k entries"
    sends = "as `topk`"
    untried = "rounds as long as those of topk"

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the k largest entries of the sum of the workers' top-k entries."""
        assert vector is not None
        selector = self.selector.at(worker.step, template.size)
        local, memory = await self.compress(worker, vector, memory)
        summed = await worker.replicated("merge", total, *await ring_all_gather(worker, local))
        chosen, _ = await worker.replicated("merge", select, summed, selector)
        back = await worker.compute("merge", outside, local, chosen)
        residual = await worker.compute("merge", restore, memory.residual, back)
        return chosen, memory._replace(residual=residual)
