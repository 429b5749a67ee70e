"""gTop-k without the tree: gather everyone's top-k, sum, and select again. O(kP), but the same k for all."""

from __future__ import annotations

from algorithms.compression import outside, restore, select, total
from algorithms.feedback import ErrorFeedback, Feedback
from netsim.comm.collectives import ring_all_gather
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution


class GTopKNaive(ErrorFeedback):
    """The k largest entries of the sum of all selections; a worker takes back what is not among them."""

    name = "gtopk-naive"
    title = "gTop-k (naive)"

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        assert vector is not None
        selector = self.selector.at(worker.step, template.size)
        local, memory = await self.compress(worker, vector, memory)
        summed = await worker.replicated("merge", total, *await ring_all_gather(worker, local))
        chosen, _ = await worker.replicated("merge", select, summed, selector)
        back = await worker.compute("merge", outside, local, chosen)
        residual = await worker.compute("merge", restore, memory.residual, back)
        return chosen, memory._replace(residual=residual)
