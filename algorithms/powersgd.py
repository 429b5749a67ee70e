"""PowerSGD: each matrix of the gradient is exchanged as the product of two factors of a small rank.

Vogels, Karimireddy and Jaggi, PowerSGD: Practical low-rank gradient compression for distributed optimization, NeurIPS
2019 (arXiv 1905.13727). The start after dense steps, and the rule that says which tensors are compressed, are those of
``powerSGD_hook`` of torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import accumulate as running_sums
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from algorithms.compression import accumulated
from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from netsim._util.options import Choice, Number, OnOff, Option, Whole
from netsim._util.random_streams import Stream, generator
from netsim.comm.collectives import ring_all_reduce, tree_all_reduce
from netsim.comm.payload import Dense, Sparse, Vector, cut, in_place, size_rule
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm, Convergence, TensorShapes
from netsim.training.sgd import zeros

if TYPE_CHECKING:
    import torch

AllReduce = Literal["ring", "tree"]
ALL_REDUCES: tuple[AllReduce, ...] = ("ring", "tree")


class Matrix(NamedTuple):
    """A tensor of n · m elements from `first` on, as a matrix (n, m) that is approximated with a rank."""

    first: int
    rows: int
    columns: int
    rank: int

    def of(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the matrix (n, m) in a flat vector (d,), as a view."""
        return vector[self.first : self.first + self.rows * self.columns].view(self.rows, self.columns)


class TensorLayout(NamedTuple):
    """The tensors in a flat vector: matrices that are compressed, and the ranges (from, to) of other elements."""

    matrices: tuple[Matrix, ...]
    others: tuple[tuple[int, int], ...]

    @property
    def left_sizes(self) -> list[int]:
        """The elements n r of the left factor P of each matrix."""
        return [matrix.rows * matrix.rank for matrix in self.matrices]

    @property
    def right_sizes(self) -> list[int]:
        """The elements m r of the right factor Q of each matrix."""
        return [matrix.columns * matrix.rank for matrix in self.matrices]

    @property
    def uncompressed(self) -> int:
        """The number of elements that are exchanged as they are."""
        return sum(last - first for first, last in self.others)


class LowRankMemory(NamedTuple):
    """The memory of a worker: the residual (d,), and the right factors Q of the last exchange, one after another."""

    residual: Vector
    right: Vector


class PowerSGD(Algorithm):
    """Every matrix M (n, m) is approximated by P Qᵀ of rank r, which one step of the power method improves.

    With error feedback, each worker adds its residual to its gradient. The workers then sum P = M Q, orthogonalise
    the sum to P̂, sum Q = Mᵀ P̂, and apply P̂ Qᵀ. Three all-reduces follow each other: of the tensors that are not
    compressed, of Σ r n elements and of Σ r m elements. Each one of v elements takes 2(P-1)α + 2((P-1)/P) v β by rings,
    and 2 log₂P (α + v β) by binomial trees.

    Without known shapes, a vector of d elements is ASSUMED to be one square matrix of ⌊√d⌋ rows, and a rest that is not
    compressed.

    Parameters
    ----------
    shapes
        The shape of each tensor, in the order of the vector. The first dimension has the rows of a matrix.
    seed, bucket
        They determine the first right factors; `bucket` is the index of a bucket of the gradient.
    rank
        r, at most n and m of a matrix.
    dense_steps
        The number of first steps that exchange dense gradients; torch's ``start_powerSGD_iter``.
    min_rate
        A matrix is compressed if this many times r (n + m) is less than n m; torch's ``min_compression_rate``.
    warm_start
        Whether Q of an exchange begins the next one. Otherwise each one begins with new random factors.
    all_reduce
        The all-reduce of factors and uncompressed tensors: "ring", or "tree" for vectors so short that latency counts.
    segment
        The slices in which the rings forward, as for :class:`~algorithms.dense.DenseRing`.

    References
    ----------
    PowerSGD paper, algorithms 1 and 2. Residuals sum to what is not applied yet, because each worker keeps its vector
    minus the mean P̂ Qᵀ / P.
    """

    name = "powersgd"
    title = "PowerSGD"
    colour = "#87a569"
    exchanges = "PowerSGD: matrices as products of factors of rank r, with error feedback, all-reduces of the factors"
    sends = "2((P-1)/P) Σ r (n + m) values per worker"
    lossy: ClassVar[bool] = True
    convergence: ClassVar[Convergence] = Convergence.FEEDBACK
    remembers: ClassVar[tuple[type, ...]] = (LowRankMemory,)
    options = (
        Option(Whole(1), 4, "Rank of the matrices that approximate the gradient's.", name="rank"),
        Option(
            Whole(0),
            0,
            "Number of first steps that exchange dense gradients (in torch by default 1000).",
            name="dense_steps",
        ),
        Option(
            Number(lambda rate: 0 <= rate < math.inf, "finite and at least 0, such as 2"),
            2.0,
            "A matrix is compressed if its two factors have this many times fewer elements.",
            name="min_rate",
        ),
        Option(OnOff(), True, "Whether an exchange begins with the factors of the last one.", name="warm_start"),
        Option(Choice(ALL_REDUCES), "ring", "All-reduce of the factors: {choices}.", name="all_reduce"),
        SEGMENT,
    )

    def __init__(
        self,
        shapes: TensorShapes = (),
        seed: int = 0,
        bucket: int = 0,
        rank: int = 4,
        dense_steps: int = 0,
        min_rate: float = 2.0,
        warm_start: bool = True,
        all_reduce: AllReduce = "ring",
        segment: Segment = DEFAULT,
    ) -> None:
        self.shapes: TensorShapes = tuple(map(tuple, shapes))
        self.seed, self.bucket = seed, bucket
        self.rank, self.dense_steps, self.min_rate, self.warm_start = rank, dense_steps, min_rate, warm_start
        self._all_reduce, self._pipeline = all_reduce, pipeline_of(segment)

    def layout(self, size: int) -> TensorLayout:
        """Return the matrices in a vector of `size` elements."""
        return layout_of(self.shapes or square(size), self.rank, self.min_rate)

    def initial_memory(self, template: Vector) -> LowRankMemory:
        """Return a residual of zeros, and random right factors, the same on all ranks."""
        assert not isinstance(template, Sparse)
        return LowRankMemory(zeros(template), self.first_right(template, 0))

    def first_right(self, template: Vector, step: int) -> Vector:
        """Return normal random numbers for the right factors of an exchange that does not continue another one."""
        return random_factors(template, sum(self.layout(template.size).right_sizes), self.seed, self.bucket, step)

    def memory_sizes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the number of elements of each tensor's right factor; 0 for a tensor that is not compressed."""
        layouts = [layout_of((shape,), self.rank, self.min_rate) for shape in self.shapes]
        return {"right": tuple(sum(layout.right_sizes) for layout in layouts)}

    def residual(self, memory: LowRankMemory) -> Vector:
        """Return the residual (d,)."""
        return memory.residual

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: LowRankMemory, template: Vector
    ) -> tuple[Vector, LowRankMemory]:
        """Return the sum (d,) of the workers' vectors with residuals, each matrix of which has rank r."""
        assert vector is not None
        if worker.step < self.dense_steps:
            return await ring_all_reduce(worker, vector, self._pipeline), memory
        layout = self.layout(template.size)
        right = memory.right if self.warm_start else self.first_right(template, worker.step)
        own = await worker.compute("select", accumulated, memory.residual, vector)
        others = await self._summed(worker, await worker.compute("select", others_of, own, layout), template)
        left = await self._summed(worker, await worker.compute("select", times_right, own, right, layout), template)
        left = await worker.replicated("merge", orthogonal, left, layout)
        right = await self._summed(worker, await worker.compute("select", times_left, own, left, layout), template)
        total = await worker.replicated("merge", product_of, left, right, others, layout, template.size)
        residual = await worker.compute("merge", minus_mean, own, total, layout, worker.workers)
        return total, LowRankMemory(residual, right)

    async def _summed(self, worker: Worker, vector: Vector, template: Vector) -> Vector:
        if not vector.size:  # one object for all ranks: what follows from it is computed once
            return await worker.replicated("merge", cut, template, 0, 0)
        if self._all_reduce == "tree":
            return await tree_all_reduce(worker, vector)
        return await ring_all_reduce(worker, vector, self._pipeline)


def square(size: int) -> TensorShapes:
    """Return the shapes that a vector of unknown tensors is ASSUMED to have: a square matrix, and the rest."""
    side = math.isqrt(size)
    return ((side, side), (size - side * side,)) if size > side * side else ((side, side),)


@lru_cache(maxsize=256)
def layout_of(shapes: TensorShapes, rank: int, min_rate: float) -> TensorLayout:
    """Return the matrices of tensors with these shapes, by the rule of torch's ``powerSGD_hook``.

    A tensor (n, …) is a matrix of n rows. It is compressed if `min_rate` · r (n + m) < n m, which no tensor of one
    dimension is.
    """
    matrices, others = [], []
    for first, shape in zip(running_sums(map(math.prod, shapes), initial=0), shapes, strict=False):
        rows = shape[0] if shape else 1
        columns = math.prod(shape[1:])
        most = min(rows, columns, rank)
        if len(shape) > 1 and min_rate * most * (rows + columns) < rows * columns:
            matrices.append(Matrix(first, rows, columns, most))
        else:
            others.append((first, first + rows * columns))
    return TensorLayout(tuple(matrices), tuple(others))


@size_rule(lambda template, count, seed, bucket, step: template.resized(count))
def random_factors(template: Vector, count: int, seed: int, bucket: int, step: int) -> Vector:
    """Return `count` normal random numbers of the type and on the device of `template`."""
    import torch

    assert isinstance(template, Dense)
    drawn = generator(seed, Stream.POWER_SGD, bucket, step).standard_normal(count)
    return Dense(torch.from_numpy(drawn).to(template.values.device, template.values.dtype))


@size_rule(lambda own, layout: own.resized(layout.uncompressed))
def others_of(own: Dense, layout: TensorLayout) -> Dense:
    """Return the elements that are not compressed, one tensor after another."""
    import torch

    return Dense(torch.cat([own.values[:0], *(own.values[first:last] for first, last in layout.others)]))


@size_rule(lambda own, right, layout: own.resized(sum(layout.left_sizes)))
def times_right(own: Dense, right: Dense, layout: TensorLayout) -> Dense:
    """Return the left factors P = M Q (n, r) of all matrices, one after another."""
    pieces = _pieces(right, layout.right_sizes, layout)
    return _joined(own, [matrix.of(own.values) @ q for matrix, q in pieces])


@size_rule(lambda left, layout: left)
def orthogonal(left: Dense, layout: TensorLayout) -> Dense:
    """Return left factors P̂ with orthonormal columns that span those of P.

    The QR decomposition gives orthonormal columns also where those of P depend on each other. A gradient of zeros thus
    leaves factors with which the next exchange can go on.
    """
    import torch

    return _joined(left, [torch.linalg.qr(p).Q for _, p in _pieces(left, layout.left_sizes, layout)])


@size_rule(lambda own, left, layout: own.resized(sum(layout.right_sizes)))
def times_left(own: Dense, left: Dense, layout: TensorLayout) -> Dense:
    """Return the right factors Q = Mᵀ P̂ (m, r) of all matrices, one after another."""
    pieces = _pieces(left, layout.left_sizes, layout)
    return _joined(own, [matrix.of(own.values).T @ p for matrix, p in pieces])


@size_rule(lambda left, right, others, layout, size: left.resized(size))
def product_of(left: Dense, right: Dense, others: Dense, layout: TensorLayout, size: int) -> Dense:
    """Return the sum (d,): P̂ Qᵀ for each matrix, and the other elements as they were summed."""
    import torch

    total = others.values.new_empty(size)
    factors = zip(_pieces(left, layout.left_sizes, layout), _pieces(right, layout.right_sizes, layout), strict=True)
    for (matrix, p), (_, q) in factors:
        torch.matmul(p, q.T, out=matrix.of(total))
    sizes = [last - first for first, last in layout.others]
    for (first, last), piece in zip(layout.others, others.values.split_with_sizes(sizes), strict=True):
        total[first:last] = piece
    return Dense(total)


@in_place
@size_rule(lambda own, total, layout, workers: own)
def minus_mean(own: Dense, total: Dense, layout: TensorLayout, workers: int) -> Dense:
    """Return the new residual (d,): the worker's matrices minus the mean P̂ Qᵀ / P, and zero elsewhere."""
    residual = own.values.sub_(total.values, alpha=1 / workers)
    for first, last in layout.others:
        residual[first:last] = 0
    return Dense(residual)


def _pieces(factors: Dense, sizes: list[int], layout: TensorLayout) -> Iterator[tuple[Matrix, torch.Tensor]]:
    """Yield each matrix with its factor (n, r) or (m, r)."""
    for matrix, piece in zip(layout.matrices, factors.values.split_with_sizes(sizes), strict=True):
        yield matrix, piece.view(-1, matrix.rank)


def _joined(like: Dense, factors: list[torch.Tensor]) -> Dense:
    import torch

    return Dense(torch.cat([like.values[:0], *(factor.reshape(-1) for factor in factors)]))
