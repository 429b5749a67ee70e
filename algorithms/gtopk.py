"""gTop-k: the k largest entries over all workers, by merges on a binomial tree.

The tree is plain, or follows groups of ranks that share a machine, rack or site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from algorithms.compression import merge, outside, restore
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.groups import GROUP_SIZE, groups_of_ranks
from algorithms.selection import Selector
from netsim._util.options import Choice, Option
from netsim.comm.collectives import Levels, tree_broadcast, tree_reduce
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig

Residual = Literal["keep-at-merge", "index-intersection"]
RESIDUALS: tuple[Residual, ...] = ("keep-at-merge", "index-intersection")


class GTopK(ErrorFeedback):
    """At every node of a binomial tree, two sparse vectors are merged and cut to their k largest entries.

    Communication takes 2 log₂P (α + 2kβ): log₂P messages of k values and k indices up the tree, and as many down.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.
    residual
        Which selected entries return to a residual (``docs/decisions/0002-residual-rule.md``). With ``keep-at-merge``
        the merging worker adds the entries that it drops to its residual, and gradient mass is conserved exactly. With
        ``index-intersection``, the rule of the authors' code, a worker keeps the entries whose index is not in the
        result. An entry that is dropped in the tree can then be lost.

    References
    ----------
    gTop-k paper, algorithm 1 and eq. (7).
    """

    name = "gtopk"
    title = "gTop-k"
    colour = "#029e73"
    exchanges = "global top-k by merges on a binomial tree: O(k log P)"
    sends = "k values and indices per message, 2 log₂P stages"
    options = (
        Option(
            Choice(RESIDUALS),
            "keep-at-merge",
            "Which selected entries return to a worker's residual: {choices}.",
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
        """Return the global top-k entries as a sparse vector, the same on every rank."""
        assert vector is not None
        selector = self.selector.at(worker.step, template.size)
        local, memory = await self.compress(worker, vector, memory)
        levels = self.levels(worker.workers)
        dropped: list[Vector] = []

        async def combine(mine: Vector, theirs: Vector) -> Vector:
            merged = await worker.compute("merge", merge, mine, theirs, selector)
            dropped.append(merged.dropped)
            return merged.kept

        root = await tree_reduce(worker, local, combine, levels)
        total = await tree_broadcast(worker, root, local, levels)
        if self.rule == "index-intersection":
            dropped = [await worker.compute("merge", outside, local, total)]
        residual = await worker.compute("merge", restore, memory.residual, *dropped)
        return total, Feedback(residual, memory.velocity)

    def levels(self, workers: int) -> Levels | None:
        """Return the levels of the tree; None for one plain tree of all ranks."""
        return None


class GTopKHierarchical(GTopK):
    """gTop-k on a tree that follows the network: ranks merge inside their group, then the groups' lowest ranks merge.

    With g groups of m workers, communication takes 2 log₂m (α₁ + 2kβ₁) + 2 log₂g (α₂ + 2kβ₂). α₁ and β₁ are the latency
    and the time of an element inside a group, α₂ and β₂ those between groups. One worker of each group sends to other
    groups. The merging worker adds the entries that it drops to its residual, so gradient mass is conserved.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.
    groups
        The group of every rank, or the size of groups of consecutive ranks. None is one group of all ranks, which is
        plain gTop-k.
    """

    name = "gtopk-hier"
    title = "gTop-k (hierarchical)"
    colour = "#3ca848"
    exchanges = "gTop-k inside each of g racks or machines of m workers, then across them"
    sends = "k values and indices per message, 2 log₂m + 2 log₂g stages"
    options = (GROUP_SIZE,)
    grouped: ClassVar[bool] = True
    same_parameters_as: ClassVar[str | None] = "gtopk"

    @classmethod
    def why_untried(cls, groups: Sequence[int]) -> str:
        """Return why the algorithm is no candidate, such as that the tree of gTop-k merges inside the groups first.

        In rank order it does if each group has the same power of two of ranks.
        """
        sizes = list(Counter(groups).values())
        aligned = len(set(sizes[:-1])) < 2 and sizes[0].bit_count() == 1
        return super().why_untried(groups) or ("the tree of gtopk" if aligned else "")

    def __init__(
        self,
        selector: Selector,
        momentum_correction: SGDConfig | float = 0.0,
        groups: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__(selector, momentum_correction)
        self.groups = groups
        self._levels: Levels | None = None

    def levels(self, workers: int) -> Levels:
        """Return two levels: the ranks of every group, and one group of the lowest rank of each."""
        if self._levels is None:
            members = groups_of_ranks(self.groups, workers)
            self._levels = members, (tuple(ranks[0] for ranks in members),)
        return self._levels
