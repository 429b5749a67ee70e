"""Ok-Topk: a sparse all-reduce of fewer than 6k values and indices a worker, whatever the number of workers.

Li and Hoefler, Near-optimal sparse allreduce for distributed deep learning, PPoPP 2022 (arXiv 2201.07598).
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from typing import Any, ClassVar, NamedTuple

from algorithms.compression import Selected, accumulated, outside, restore, sum_sparse, take_out
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.selection import Selector, above, top_positions
from netsim._util.options import Option, Whole
from netsim.comm.collectives import all_to_all, bruck_all_gather, ring_all_gather, tree_all_reduce
from netsim.comm.payload import Dense, SizeOnly, Sparse, Vector, in_place, size_rule, split_entries
from netsim.comm.worker import Handle, Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig, quotient, zeros


class RegionMemory(NamedTuple):
    """The memory of a worker.

    Attributes
    ----------
    feedback
        Residual and velocity.
    thresholds
        (2,): the magnitudes that an entry of this worker, and an entry of the sum, must reach.
    boundaries
        The first elements of the regions of ranks 1 to P-1, int32 (P-1,); None before the first exchange.
    """

    feedback: Feedback
    thresholds: Vector
    boundaries: Vector | None


class OkTopk(ErrorFeedback):
    """The vector is divided into P regions; the owner of a region sums it and keeps the entries that are large enough.

    A worker selects up to k entries above its threshold and sends each to the owner of its region: at most 2k words.
    Of the sums, up to k entries above the common threshold are kept. Owners with many of them pass some on, so that
    all ranks have as many (at most 2k words), and a ring all-gather spreads them (at most 2k words). With equal
    regions the exchange takes 2(P-1)α + 4 ((P-1)/P) kβ, and ⌈log₂P⌉ α + (P-1) β for the counts of kept entries.

    The bound of fewer than 6k words, and P-1 counts, is that of what a worker sends in a step that reuses thresholds
    and boundaries. A step that computes thresholds also gathers all sums, so that the first round is longer than most.
    A worker may receive more than 6k words: boundaries that no longer fit leave up to k entries of each worker in one
    region, (P-1) 2k words for its owner. Without data, all workers select the same k entries, evenly spread, so that
    the messages of a worker have k/P entries in the mean, and differ by at most one.

    A worker forgets an entry that it selected if the result has its index. The sum of such an index then contains the
    worker's value, and gradient mass is conserved exactly.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.
    threshold_period
        τ': thresholds are computed in every τ'-th step, by exact selections and an all-gather of all regions' sums.
    region_period
        τ: in every τ-th step an all-reduce of P-1 values over a tree averages the boundaries at which each worker would
        divide its own entries evenly.

    References
    ----------
    Ok-Topk paper, algorithms 1 and 2. Three choices differ: no worker sends more than k entries, and no more than k are
    kept, which the paper's thresholds only approximate; kept entries are balanced whenever there are P or more; they
    are gathered by a ring, because an unbalanced ring still sends each entry only once.
    """

    name = "oktopk"
    title = "Ok-Topk"
    colour = "#c30096"
    exchanges = "Ok-Topk: each worker sums one of P regions; the kept entries are balanced and gathered"
    sends = "fewer than 6k values and indices per worker, whatever P, in steps that reuse thresholds and boundaries"
    untried = "bytes that depend on the data"
    half_precision: ClassVar[bool] = False
    rounds: ClassVar[bool] = False
    remembers: ClassVar[tuple[type, ...]] = (Feedback, RegionMemory)
    options = (
        Option(
            Whole(1), 32, "Steps for which thresholds are used before they are computed anew.", name="threshold_period"
        ),
        Option(Whole(1), 64, "Steps for which the boundaries of regions are used.", name="region_period"),
    )

    def __init__(
        self,
        selector: Selector,
        momentum_correction: SGDConfig | float = 0.0,
        threshold_period: int = 32,
        region_period: int = 64,
    ) -> None:
        super().__init__(selector, momentum_correction)
        self.threshold_period, self.region_period = threshold_period, region_period

    def initial_memory(self, template: Vector) -> RegionMemory:  # type: ignore[override]
        """Return a residual of zeros, and thresholds of 0; the first exchange computes thresholds and boundaries."""
        return RegionMemory(super().initial_memory(template), zeros(first_two(template)), None)

    def residual(self, memory: RegionMemory) -> Vector:  # type: ignore[override]
        """Return the residual (d,)."""
        return memory.feedback.residual

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: RegionMemory, template: Vector
    ) -> tuple[Vector, RegionMemory]:
        """Return the kept entries of the sum as a sparse vector, the same on every rank."""
        assert vector is not None
        feedback, thresholds, boundaries = memory
        selector = self.selector.at(worker.step, template.size)
        anew = worker.step % self.threshold_period == 0
        reuse = None if anew else partial(self._select_above, thresholds)
        local, feedback = await self.compress(worker, vector, feedback, reuse)
        if boundaries is None or worker.step % self.region_period == 0:
            boundaries = await self._agreed(worker, local, template)
        parts = await worker.compute("select", regions_of, local, boundaries, worker.rank, worker.workers)
        received = await all_to_all(worker, parts, by_distance=True)
        reduced = await worker.compute("merge", sum_in_order, *received)
        if anew:
            everyones = await ring_all_gather(worker, reduced, entries=selector.k)
            thresholds = await worker.compute("merge", thresholds_of, selector.k, local, *everyones)
        kept = await worker.compute("select", large_enough, reduced, thresholds)
        total = await self._gathered(worker, kept, selector.k)
        back = await worker.compute("merge", outside, local, total)
        residual = await worker.compute("merge", restore, feedback.residual, back)
        return total, RegionMemory(feedback._replace(residual=residual), thresholds, boundaries)

    async def _select_above(
        self, thresholds: Vector, worker: Worker, residual: Vector, vector: Contribution, selector: Selector
    ) -> Selected:
        """Return up to k entries of residual + vector above the worker's threshold, and the rest."""
        own = await worker.compute("select", accumulated, residual, vector)
        return await worker.compute("select", take_above, own, thresholds, selector.k)

    async def _agreed(self, worker: Worker, local: Vector, template: Vector) -> Vector:
        """Return the means of all workers' boundaries."""
        own = await worker.compute("select", even_boundaries, local, template, worker.workers)
        summed = await tree_all_reduce(worker, own)
        return await worker.replicated("merge", mean_boundaries, summed, worker.workers)

    async def _gathered(self, worker: Worker, kept: Vector, k: int) -> Vector:
        """Return the kept entries of all regions, at most k, after balancing them among the ranks."""
        counts = await bruck_all_gather(worker, count_of(kept))  # type: ignore[arg-type]
        quotas = await worker.replicated("merge", quotas_of, k, *counts)
        if quotas is not None:
            kept = await worker.compute("select", largest_of, kept, quotas[worker.rank])
            if sum(quotas) >= worker.workers:
                kept = await self._balanced(worker, kept, quotas)
        everyones = await ring_all_gather(worker, kept, entries=k)
        return await worker.replicated("merge", entries_in_order, *everyones)

    async def _balanced(self, worker: Worker, kept: Vector, quotas: list[int]) -> Vector:
        """Return this rank's equal share of all kept entries, in the order of indices; ranks send what others miss."""
        rank, total = worker.rank, sum(quotas)
        held = list(pairwise(accumulate(quotas, initial=0)))
        shares = list(pairwise(total * number // worker.workers for number in range(worker.workers + 1)))
        sending, receiving = [], dict[int, Handle[Vector]]()
        for other in range(worker.workers):
            if other != rank and (first := max(held[other][0], shares[rank][0])) < min(held[other][1], shares[rank][1]):
                receiving[other] = await worker.start_recv(other, kept)
        pieces: dict[int, Vector] = {}
        for other in range(worker.workers):
            first, last = max(held[rank][0], shares[other][0]), min(held[rank][1], shares[other][1])
            if first < last:
                piece = part_of_entries(kept, first - held[rank][0], last - held[rank][0])
                if other == rank:
                    pieces[rank] = piece
                else:
                    sending.append(await worker.start_send(other, piece))
        for handle in sending:
            await handle
        for other, arriving in receiving.items():
            pieces[other] = await arriving
        return entries_in_order(*(pieces[other] for other in sorted(pieces)))  # type: ignore[arg-type]


@size_rule(lambda template: template.resized(2))
def first_two(template: Vector) -> Any:
    """Return a vector of two elements of the type of `template`."""
    assert isinstance(template, Dense)
    return Dense(template.values.new_zeros(2))


@in_place
@size_rule(lambda own, thresholds, k: Selected(own.resized(own.size, min(k, own.size)), own))
def take_above(own: Dense, thresholds: Dense, k: int) -> Selected:
    """Return the entries of at least the worker's threshold, of more than k the k largest, and the rest."""
    positions = above(own.values.abs(), float(thresholds.values[0]))
    if positions.numel() > k:
        positions = positions[top_positions(own.values[positions], k)]
    return take_out(own.values, positions)


@size_rule(lambda local, template, workers: template.resized(workers - 1))
def even_boundaries(local: Sparse, template: Dense, workers: int) -> Dense:
    """Return the P-1 indices that divide a worker's entries evenly, or the vector if there are fewer than P entries."""
    import torch

    entries = local.indices.numel()
    if entries < workers:
        even = torch.arange(1, workers).to(template.values.dtype) * (local.size / workers)
    else:
        even = local.indices[[entries * number // workers for number in range(1, workers)]].to(template.values.dtype)
    return Dense(even.to(template.values.device))


@size_rule(lambda summed, workers: SizeOnly(summed.size))
def mean_boundaries(summed: Dense, workers: int) -> Dense:
    """Return the mean of all workers' boundaries, rounded down, as int32 (P-1,)."""
    import torch

    return Dense(quotient(summed.values, workers).floor().to(torch.int32))


@size_rule(lambda local, boundaries, rank, workers: split_entries(local, workers))
def regions_of(local: Sparse, boundaries: Dense, rank: int, workers: int) -> list[Sparse]:
    """Return the entries in each of the P regions: the rank's own, then those of the ranks after it."""
    import torch

    ends = torch.searchsorted(local.indices, boundaries.values.cpu()).tolist()
    parts = [part_of_entries(local, first, last) for first, last in pairwise([0, *ends, local.indices.numel()])]
    return parts[rank:] + parts[:rank]


def part_of_entries(vector: Vector, first: int, last: int) -> Sparse:
    """Return entries `first` to `last` of a sparse vector."""
    assert isinstance(vector, Sparse)
    return Sparse(vector.indices[first:last], vector.values[first:last], vector.size)


@size_rule(lambda *vectors: max(vectors, key=lambda vector: vector.entries))
def sum_in_order(first: Sparse, *others: Sparse) -> Sparse:
    """Return the sum of sparse vectors, added from left to right; without values, that of workers who select alike."""
    for other in others:
        first = sum_sparse(first, other)
    return first


@size_rule(lambda k, local, *regions: local.resized(2))
def thresholds_of(k: int, local: Sparse, *regions: Sparse) -> Dense:
    """Return the magnitude of a worker's smallest selected entry, and that of the k-th largest of the sum."""
    import torch

    values = torch.cat([region.values for region in regions]).abs()
    large = values[top_positions(values, k)]
    least = [sent.abs().min() if sent.numel() >= k else sent.new_zeros(()) for sent in (local.values, large)]
    return Dense(torch.stack(least))


@size_rule(lambda reduced, thresholds: reduced)
def large_enough(reduced: Sparse, thresholds: Dense) -> Sparse:
    """Return the entries whose magnitude reaches the common threshold."""
    return _at(reduced, above(reduced.values.abs(), float(thresholds.values[1])))


@size_rule(lambda kept: SizeOnly(1))
def count_of(kept: Sparse) -> Dense:
    """Return the number of entries as int32 (1,)."""
    import torch

    return Dense(torch.tensor([kept.indices.numel()], dtype=torch.int32))


@size_rule(lambda k, *counts: None)
def quotas_of(k: int, *counts: Dense) -> list[int]:
    """Return how many entries each rank keeps: all, or its share of k if there are more. None without values."""
    found = [int(count.values) for count in counts]
    return found if sum(found) <= k else [count * k // sum(found) for count in found]


def largest_of(kept: Sparse, count: int) -> Sparse:
    """Return the `count` entries of largest magnitude."""
    return kept if kept.indices.numel() <= count else _at(kept, top_positions(kept.values, count))


@size_rule(lambda first, *others: first.resized(first.size, sum(part.entries for part in (first, *others))))
def entries_in_order(first: Sparse, *others: Sparse) -> Sparse:
    """Return the entries of sparse vectors whose indices ascend from one to the next."""
    import torch

    parts = (first, *others)
    return Sparse(torch.cat([each.indices for each in parts]), torch.cat([each.values for each in parts]), first.size)


def _at(vector: Sparse, places: object) -> Sparse:
    return Sparse(vector.indices[places], vector.values[places], vector.size)  # type: ignore[index]
