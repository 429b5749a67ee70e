"""SparCML's all-reduces of sparse vectors: by recursive doubling, and by a split and a dense all-gather.

Renggli, Ashkboos, Aghagolzadeh, Alistarh and Hoefler, SparCML: High-performance sparse communication for machine
learning, SC 2019 (arXiv 1802.08021). The paper's names are SSAR_Recursive_double and DSAR_Split_allgather.
"""

from __future__ import annotations

from typing import ClassVar

from algorithms.compression import sum_sparse, sum_to_dense
from algorithms.feedback import ErrorFeedback, Feedback
from netsim.comm.collectives import all_to_all, fold, ring_all_gather, swap, unfold
from netsim.comm.payload import INDEX_BYTES, Dense, Sparse, Vector, add, entry_bytes, size_rule, split_entries
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution


class SSAR(ErrorFeedback):
    """Pairs of workers at distances 1, 2, 4, … exchange and add all that they hold; nothing is dropped.

    In round i a message holds the union of 2^i selections, up to 2^i k entries, or d values once these are fewer bytes.
    With 2^i k below that size δ communication takes log₂P α + 2 (P-1) kβ. If P is no power of two, the workers beyond
    it first send their entries to a worker each, and receive the result from it. The result is sparse, or dense from δ.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.

    References
    ----------
    SparCML paper, sections 5.1 (switch to dense vectors) and 5.3.1 (SSAR_Recursive_double). Workers switch together,
    where 2^i k reaches δ; in the paper, where the sum of the entries that two of them hold does.
    """

    name = "ssar"
    title = "SSAR"
    colour = "#a52d69"
    exchanges = "SparCML: pairs add growing unions of top-k entries, dense ones when these are smaller"
    sends = "2^i k values and indices in round i, or d values; log₂P rounds"
    untried = "bytes that depend on the data"
    same_parameters_as: ClassVar[str | None] = "topk"
    half_precision: ClassVar[bool] = False
    rounds: ClassVar[bool] = False

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the sum of the workers' entries, sparse or dense."""
        assert vector is not None
        held, memory = await self.compress(worker, vector, memory)
        entries, core = self.selected(template.size, worker.step), 1 << (worker.workers.bit_length() - 1)
        beyond, distance = worker.workers - core, 1
        if beyond:
            pair = await fold(worker, held, core)
            if worker.rank < beyond:
                held = await worker.replicated("merge", union, *pair)
            entries *= 2
        while True:
            if held.index_bytes and is_dense(entries, template):
                held = await worker.replicated("merge", sum_to_dense, held)
            if distance == core:
                break
            pair = await swap(worker, held, distance, core)
            if not beyond or worker.rank < core:
                held = await worker.replicated("merge", union, *pair)
            distance, entries = 2 * distance, 2 * entries
        return (await unfold(worker, held, core) if beyond else held), memory


class DSAR(ErrorFeedback):
    """Each worker sums one of P regions of the vector, and a ring gathers the dense sums; nothing is dropped.

    Communication takes (P-1)(α + 2 (k/P) β) for entries that are spread evenly, and (P-1)(α + (d/P) β). That is more
    than half of a dense all-reduce. Regions have ⌈d/P⌉ elements, of which some of the last are padding.

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.

    References
    ----------
    SparCML paper, section 5.3.3 (DSAR_Split_allgather).
    """

    name = "dsar"
    title = "DSAR"
    colour = "#3c96e1"
    exchanges = "SparCML: top-k entries go to the owners of P regions, whose dense sums are gathered"
    sends = "about k values and indices, and ((P-1)/P) d values per worker"
    untried = "bytes that depend on the data"
    same_parameters_as: ClassVar[str | None] = "topk"
    half_precision: ClassVar[bool] = False
    rounds: ClassVar[bool] = False

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the dense sum (d,) of the workers' entries."""
        assert vector is not None
        local, memory = await self.compress(worker, vector, memory)
        width = -(-template.size // worker.workers)
        parts = await worker.compute("select", regions_of_width, local, width, worker.rank, worker.workers)
        received = await all_to_all(worker, parts, by_distance=True)
        own = await worker.compute("merge", region_sum, worker.rank, width, *received)
        regions = await ring_all_gather(worker, own)
        return await worker.replicated("merge", joined_regions, template, *regions), memory


def is_dense(entries: int, template: Vector) -> bool:
    """Return whether `entries` values and indices are at least as many bytes as all values: whether they reach δ."""
    return entries * entry_bytes(template) >= template.size * (entry_bytes(template) - INDEX_BYTES)


@size_rule(
    lambda left, right: (
        left if left.entries is None else left.resized(left.size, min(left.size, left.entries + right.entries))
    )
)
def union(left: Sparse | Dense, right: Sparse | Dense) -> Sparse | Dense:
    """Return the sum of two vectors, both sparse or both dense."""
    if isinstance(left, Sparse) and isinstance(right, Sparse):
        return sum_sparse(left, right)
    assert isinstance(left, Dense)
    assert isinstance(right, Dense)
    return add(left, right)


@size_rule(lambda local, width, rank, workers: split_entries(local, workers))
def regions_of_width(local: Sparse, width: int, rank: int, workers: int) -> list[Sparse]:
    """Return the entries in each of P regions of `width` elements: the rank's own, then those of the ranks after it."""
    import torch

    borders = torch.arange(1, workers, dtype=torch.int64, device=local.indices.device) * width
    ends = torch.searchsorted(local.indices.long(), borders).tolist()
    pieces = zip(local.indices.tensor_split(ends), local.values.tensor_split(ends), strict=True)
    parts = [Sparse(indices, values, local.size) for indices, values in pieces]
    return parts[rank:] + parts[:rank]


@size_rule(lambda rank, width, first, *others: first.resized(width))
def region_sum(rank: int, width: int, *parts: Sparse) -> Dense:
    """Return the sum of the workers' entries in this rank's region (width,), added in rank order."""
    total = parts[0].values.new_zeros(width)
    for part in parts:
        total[part.indices.long() - rank * width] += part.values
    return Dense(total)


@size_rule(lambda template, *regions: template)
def joined_regions(template: Dense, *regions: Dense) -> Dense:
    """Return the vector (d,) of all regions, without padding."""
    import torch

    return Dense(torch.cat([region.values for region in regions])[: template.size])
