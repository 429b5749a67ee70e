"""ScaleCom: one worker after another chooses the k entries that all workers send, so that entries do not add up to Pk.

Chen et al., ScaleCom: Scalable sparsified gradient compression for communication-efficient distributed training,
NeurIPS 2020 (arXiv 2104.11125).
"""

from __future__ import annotations

from functools import partial

from algorithms.compression import Selected, accumulated, take_out
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from algorithms.randk import values_of
from algorithms.selection import Selector
from netsim._util.options import Number, Option
from netsim.comm.collectives import ring_all_reduce, tree_broadcast
from netsim.comm.payload import Dense, SizeOnly, Sparse, Vector, copied, in_place, size_rule
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig


class ScaleCom(ErrorFeedback):
    """In step t, worker t mod P broadcasts the indices of its k largest entries; the workers sum their values there.

    Communication takes log₂P (α + kβ) for the indices over a binomial tree, and 2(P-1)α + 2((P-1)/P) kβ for the values
    by a ring all-reduce. Every worker sends k entries also if some of its values are 0.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`; the leader selects.
    beta
        β of the low-pass filter on the residual, e ← (1 - β) e + β (e + g - sent). With 1, the gradient mass is
        conserved. The paper uses 0.1 for large batches.
    segment
        The slices in which the ring forwards, as for :class:`~algorithms.dense.DenseRing`.

    References
    ----------
    ScaleCom paper, algorithm 1 and eq. (4), (5).
    """

    name = "scalecom"
    title = "ScaleCom"
    colour = "#4b78e1"
    exchanges = "ScaleCom: workers in turn choose k entries, whose values a ring all-reduce sums"
    sends = "k indices per message, log₂P stages; 2((P-1)/P) k values per worker"
    untried = "one worker's choice, which suits all or not"
    options = (
        Option(
            Number(lambda beta: 0 < beta <= 1, "more than 0 and at most 1, such as 0.1"),
            1.0,
            "Weight of the new residual in the low-pass filter.",
            name="beta",
        ),
        SEGMENT,
    )

    def __init__(
        self,
        selector: Selector,
        momentum_correction: SGDConfig | float = 0.0,
        beta: float = 1.0,
        segment: Segment = DEFAULT,
    ) -> None:
        super().__init__(selector, momentum_correction)
        self.beta = beta
        self._pipeline = pipeline_of(segment)

    async def _select_as_leader(
        self, chosen_by_leader: list[Vector], worker: Worker, residual: Vector, vector: Contribution, selector: Selector
    ) -> Selected:
        """Return the entries of residual + vector at the leader's indices, which are told, and the new residual."""
        leader = worker.step % worker.workers
        before = None if self.beta == 1 else await worker.compute("update", copied, residual)
        own = await worker.compute("select", accumulated, residual, vector)
        chosen = await worker.compute("select", indices_of_largest, own, selector) if worker.rank == leader else None
        indices = await tree_broadcast(worker, chosen, no_indices(own, selector), root=leader)
        chosen_by_leader.append(indices)
        local, rest = await worker.compute("select", take_at, own, indices)
        if before is not None:
            rest = await worker.compute("update", filtered, rest, before, self.beta)
        return Selected(local, rest)

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the sum of the workers' values at the leader's indices, as a sparse vector."""
        assert vector is not None
        told: list[Vector] = []
        picked, memory = await self.compress(worker, vector, memory, partial(self._select_as_leader, told))
        summed = await ring_all_reduce(worker, values_of(picked), self._pipeline)
        return await worker.replicated("merge", placed_at, *told, summed, template), memory


@size_rule(lambda own, selector: SizeOnly(min(selector.k, own.size)))
def indices_of_largest(own: Dense, selector: Selector) -> Dense:
    """Return the min(k, d) indices of the selected entries, ascending int32; the first zeros fill up a selection."""
    import torch

    count = min(selector.k, own.size)
    positions = selector.positions(own.values)[:count]
    if positions.numel() < count:
        is_free = torch.ones(own.size, dtype=torch.bool, device=own.values.device)
        is_free[positions] = False
        free = is_free.nonzero().flatten()[: count - positions.numel()]
        positions = torch.cat([positions, free]).sort().values
    return Dense(positions.to(torch.int32))


@size_rule(lambda own, selector: SizeOnly(min(selector.k, own.size)))
def no_indices(own: Dense, selector: Selector) -> Dense:
    """Return a template of the indices of :func:`indices_of_largest`."""
    import torch

    return Dense(own.values.new_zeros(1, dtype=torch.int32).expand(min(selector.k, own.size)))


@in_place
@size_rule(lambda own, indices: Selected(own.resized(own.size, indices.size), own))
def take_at(own: Dense, indices: Dense) -> Selected:
    """Return the entries at these indices, zeros included, and the vector with zeros in their place."""
    return take_out(own.values, indices.values.long())


@in_place
@size_rule(lambda rest, before, beta: rest)
def filtered(rest: Dense, before: Dense, beta: float) -> Dense:
    """Return β rest + (1 - β) before: the residual (d,) after the low-pass filter (ScaleCom paper, eq. (5))."""
    return Dense(rest.values.mul_(beta).add_(before.values, alpha=1 - beta))


@size_rule(lambda indices, summed, template: summed.resized(template.size, summed.size))
def placed_at(indices: Dense, summed: Dense, template: Dense) -> Sparse:
    """Return the summed values as entries at these indices."""
    return Sparse(indices.values, summed.values, template.size)
