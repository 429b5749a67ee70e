"""gTop-k S-SGD: the global top-k by a tree of merges: 2 log₂P α + 4k log₂P β."""

from __future__ import annotations

from typing import Literal

from algorithms.compression import merge, outside, restore
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.selection import Selector
from netsim._util.options import Choice, Option
from netsim.comm.collectives import tree_broadcast, tree_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig

Residual = Literal["keep-at-merge", "index-intersection"]
RESIDUALS: tuple[Residual, ...] = ("keep-at-merge", "index-intersection")


class GTopK(ErrorFeedback):
    """Two workers' k entries are merged and cut to k again at every node of a binomial tree.

    Which of its selected values a worker may forget (eq. (7)) is the `residual` rule's to say:
    under ``keep-at-merge`` the worker that merges keeps what it drops, and gradient mass is conserved
    exactly; under ``index-intersection``, the rule that the authors shipped, a worker forgets
    whatever index is also in the result, and a value dropped in mid-tree may be lost
    (``docs/decisions/0002-residual-rule.md``).
    """

    name = "gtopk"
    title = "gTop-k"
    options = (
        Option(
            Choice(RESIDUALS),
            "keep-at-merge",
            "What a worker keeps of its selected values: {choices}.",
            name="residual",
            title="residual rule",
        ),
    )

    def __init__(
        self, selector: Selector, momentum_correction: SGDConfig | float = 0.0, residual: Residual = "keep-at-merge"
    ) -> None:
        super().__init__(selector, momentum_correction)
        self.rule = residual

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        assert vector is not None
        selector = self.selector.at(worker.step, template.size)
        local, memory = await self.compress(worker, vector, memory)
        dropped: list[Vector] = []

        async def combine(mine: Vector, theirs: Vector) -> Vector:
            merged = await worker.compute("merge", merge, mine, theirs, selector)
            dropped.append(merged.dropped)
            return merged.kept

        root = await tree_reduce(worker, local, combine)
        total = await tree_broadcast(worker, root, template=local)
        if self.rule == "index-intersection":
            dropped = [await worker.compute("merge", outside, local, total)]
        residual = await worker.compute("merge", restore, memory.residual, *dropped)
        return total, memory._replace(residual=residual)
