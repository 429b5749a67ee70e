"""Top-k compression as pure functions: select, merge and sum sparse vectors, and restore dropped entries.

Sparse vectors are in main memory, also where dense ones are on a GPU: the CPU merges a few thousand entries in less
time than launching kernels takes. Their indices are int32 and strictly ascending. Values keep their sign, although
eq. (6) of the gTop-k paper writes |·|, which would lose it. A name (d,) or (k,) after a vector is its shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from algorithms import fused_rows, kernels
from algorithms.rows import add_rows, take_largest
from algorithms.selection import Selector, on_kernels
from netsim.comm.payload import (
    Dense,
    Precision,
    SizeOnly,
    Sparse,
    Vector,
    add_all,
    in_place,
    many_on_gpu,
    rounded,
    size_rule,
    widened,
)
from netsim.training.buffers import on_device
from netsim.training.sgd import Scaled, product, scaled

if TYPE_CHECKING:
    import numpy as np
    import torch


AT_ONCE = 2**25
"""Elements of all vectors on a GPU that are selected from at once: 128 MiB of float32, which take longer to read than a
kernel to launch, and fewer than an int32 counts."""


class Selected(NamedTuple):
    """The selected entries (k,), and the vector (d,) with zeros in their place."""

    local: Vector
    rest: Vector


class Merged(NamedTuple):
    """The k largest entries of a sum of sparse vectors, and its other entries."""

    kept: Vector
    dropped: Vector


@size_rule(lambda vector, selector: Selected(vector.resized(vector.size, min(selector.k, vector.size)), vector))
def select(vector: Dense, selector: Selector) -> Selected:
    """Return TopK(vector) (gTop-k paper, eq. (4)) and the rest; the two sum to `vector` exactly."""
    rest = vector.values.clone()
    if selector.how == "exact" and not on_kernels(rest):
        ((indices, values),) = take_largest(rest[None], selector)
        return Selected(Sparse(indices, values, vector.size), Dense(rest))
    return take_out(rest, selector.positions(rest))


def accumulate_and_select_rows(calls: Iterable[tuple[Dense, Dense | Scaled, Selector]]) -> Iterator[Selected]:
    """Yield what :func:`accumulate_and_select` returns for each of `calls`, by a few kernels on many vectors at once.

    Triton's kernel leaves residuals where they are. From torch's operators, the new residuals are rows of matrices,
    which the next calls need not copy together. No more calls are taken than are made at once, so that `calls` may
    compute their vectors when they are taken.
    """
    waiting = iter(calls)
    while group := list(islice(waiting, 1)):
        group += islice(waiting, max(1, AT_ONCE // group[0][0].size) - 1)
        yield from _select_from_group(group)


def _select_from_group(group: list[tuple[Dense, Dense | Scaled, Selector]]) -> list[Selected]:
    """Return the selected entries of each call; torch's operators empty the group, whose memory their keys take."""
    residuals, vectors, selectors = zip(*group, strict=True)
    selector = selectors[0]
    if selector.how != "exact" or len(set(selectors)) > 1 or len({residual.size for residual in residuals}) > 1:
        return [accumulate_and_select(*call) for call in group]
    rests, size = [residual.values for residual in residuals], residuals[0].size
    if fused_rows.is_fused(rests, vectors, selector):
        taken = fused_rows.accumulate_and_take(rests, vectors, selector.k)
        return [Selected(Sparse(*entries, size), _changed(rest)) for entries, rest in zip(taken, rests, strict=True)]
    matrix = add_rows(rests, vectors)
    group.clear()
    del residuals, vectors, rests
    return [
        Selected(Sparse(*entries, size), Dense(matrix[row]))
        for row, entries in enumerate(take_largest(matrix, selector))
    ]


@many_on_gpu(accumulate_and_select_rows)
@in_place
@size_rule(lambda residual, vector, selector: select(vector, selector))
def accumulate_and_select(residual: Dense, vector: Dense | Scaled, selector: Selector) -> Selected:
    """Return TopK(residual + vector) and the new residual.

    Parameters
    ----------
    residual
        (d,); overwritten by the new residual.
    vector
        (d,), possibly times a factor that is not multiplied yet.
    selector
        k, and how to select.

    References
    ----------
    gTop-k paper, algorithm 1, lines 3 to 5.
    """
    rest, (values, factor) = residual.values, scaled(vector)
    if selector.how == "exact":
        if not on_kernels(rest):
            return next(accumulate_and_select_rows([(residual, vector, selector)]))
        if selector.blocks:
            selected = kernels.accumulate_select_blocks(rest.numpy(), values.numpy(), *selector.bounds(), factor)
        else:
            selected = kernels.accumulate_select(rest.numpy(), values.numpy(), selector.k, factor)
        return Selected(_sparse(*selected, residual.size), _changed(rest))
    rest += product(vector)
    return take_out(rest, selector.positions(rest))


@in_place
@size_rule(lambda residual, vector: residual)
def accumulated(residual: Dense, vector: Dense | Scaled) -> Dense:
    """Return residual + vector (d,), in the memory of the residual."""
    return Dense(residual.values.add_(product(vector)))


def take_out(vector: torch.Tensor, positions: torch.Tensor) -> Selected:
    """Return the entries at the ascending `positions`, and `vector` itself with zeros written there."""
    import torch

    there = on_device(positions, vector.device)
    local = Sparse(positions.cpu().to(torch.int32), vector[there].cpu(), vector.numel())
    vector.index_fill_(0, there, 0)
    return Selected(local, Dense(vector))


@in_place
@size_rule(lambda residual, local, precision: Selected(rounded(local, precision), residual))
def round_selected(residual: Dense, local: Sparse, precision: Precision) -> Selected:
    """Return the selected entries rounded to a precision, and the residual with what rounding took from them.

    Parameters
    ----------
    residual
        (d,), zero at the selected entries; overwritten.
    local
        The selected entries (k,).
    precision
        The precision of messages. What rounding takes from a value is exact in float32, so that nothing is lost.
    """
    sent, lost = _rounded_and_lost(local, precision)
    return Selected(sent, _plus(residual.values, lost))


def _rounded_and_lost(exact: Sparse, precision: Precision) -> tuple[Sparse, Sparse]:
    """Return entries rounded to a precision, and the differences that rounding made."""
    sent = rounded(exact, precision)
    return sent, Sparse(exact.indices, exact.values - sent.values, exact.size)


@size_rule(
    lambda left, right, selector: Merged(
        left.resized(left.size, min(selector.k, left.entries + right.entries)), SizeOnly(left.size, 0)
    )
)
def merge(left: Sparse, right: Sparse, selector: Selector) -> Merged:
    """Return left ⊤ right, the k largest entries of the sum, and the dropped entries of the sum.

    ⊤ is commutative but not associative. The left operand belongs to the lower rank. Entries of 16 bits are added and
    selected in float32; what rounding takes from the kept ones is among the dropped ones.

    References
    ----------
    gTop-k paper, eq. (6).
    """
    merged = _merged(widened(left), widened(right), selector)
    if left.precision == "fp32":
        return merged
    assert isinstance(merged.kept, Sparse)
    assert isinstance(merged.dropped, Sparse)
    kept, lost = _rounded_and_lost(merged.kept, left.precision)
    return Merged(kept, sum_sparse(merged.dropped, lost))


def _merged(left: Sparse, right: Sparse, selector: Selector) -> Merged:
    import torch

    if on_kernels(left.values) and not selector.blocks:
        indices, values, dropped, lost = kernels.merge(
            left.indices.numpy(), left.values.numpy(), right.indices.numpy(), right.values.numpy(), selector.k
        )
        return Merged(_sparse(indices, values, left.size), _sparse(dropped, lost, left.size))
    total = sum_sparse(left, right)
    positions = selector.among(total.indices, total.values)
    is_kept = torch.zeros(total.values.numel(), dtype=torch.bool, device=total.values.device)
    is_kept[positions] = True
    return Merged(_masked(total, is_kept), _masked(total, ~is_kept))


def sum_sparse(left: Sparse, right: Sparse) -> Sparse:
    """Return left + right as a sparse vector."""
    import torch

    indices, order = torch.cat([left.indices, right.indices]).sort(stable=True)
    values = torch.cat([left.values, right.values])[order]
    first = torch.ones_like(indices, dtype=torch.bool)
    first[1:] = indices[1:] != indices[:-1]
    twice = (~first).nonzero().flatten()
    values[twice - 1] += values[twice]
    return _masked(Sparse(indices, values, left.size), first)


@size_rule(lambda first, *others: SizeOnly(first.size))
def sum_to_dense(first: Sparse, *others: Sparse) -> Dense:
    """Return the sum of sparse vectors as a dense vector (d,), added from left to right in at least float32."""
    return _plus(widened(first).values.new_zeros(first.size), first, *others)


@in_place
@size_rule(lambda residual, *additions: residual)
def restore(residual: Dense, *additions: Sparse) -> Dense:
    """Return the residual with sparse vectors added to it, from left to right."""
    return _plus(residual.values, *additions)


@size_rule(lambda local, total: local.resized(local.size, 0))
def outside(local: Sparse, total: Sparse) -> Sparse:
    """Return the entries of `local` whose indices are not in `total`."""
    import torch

    return _masked(local, ~torch.isin(local.indices, total.indices))


@size_rule(lambda template: template.resized(template.size, 0))
def no_entries(template: Vector) -> Vector:
    """Return a sparse vector of the size and type of `template`, without entries; in main memory."""
    import torch

    assert isinstance(template, Dense)
    return Sparse(torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=template.values.dtype), template.size)


def total(*vectors: Vector) -> Vector:
    """Return the sum (d,) of vectors that are all dense or all sparse, added from left to right."""
    if isinstance(vectors[0], Dense):
        return add_all(*vectors)  # type: ignore[arg-type]
    return sum_to_dense(*vectors)  # type: ignore[arg-type]


def _plus(total: torch.Tensor, *parts: Sparse) -> Dense:
    """Add sparse vectors in place, in the order of `parts`; the indices of one part are distinct."""
    if not parts:
        return Dense(total)
    if not on_kernels(total):
        for part in parts:
            there = (on_device(each, total.device) for each in (part.indices.long(), part.values.to(total.dtype)))
            total.index_add_(0, *there)  # one launch; on a GPU its atomic additions turn denormal sums into zeros
        return Dense(total)
    for part in map(widened, parts):
        kernels.add_at(total.numpy(), part.indices.numpy(), part.values.numpy())
    return _changed(total)


def _changed(values: torch.Tensor) -> Dense:
    """Return a vector into which NumPy or Triton wrote, with a new torch version: torch does not notice such writes."""
    from torch.autograd.graph import increment_version

    increment_version(values)
    return Dense(values)


def _sparse(indices: np.ndarray, values: np.ndarray, size: int) -> Sparse:
    import torch

    return Sparse(torch.from_numpy(indices), torch.from_numpy(values), size)


def _masked(vector: Sparse, mask: torch.Tensor) -> Sparse:
    return Sparse(vector.indices[mask], vector.values[mask], vector.size)


@in_place
@size_rule(lambda vector, entries: vector)
def without(vector: Dense, entries: Sparse) -> Dense:
    """Return the vector with zeros at the indices of `entries`."""
    vector.values.index_fill_(0, on_device(entries.indices.long(), vector.values.device), 0)
    return Dense(vector.values)


@in_place
@size_rule(lambda velocity, vector, momentum: vector)
def accelerate(velocity: Dense, vector: Dense | Scaled, momentum: float) -> Dense:
    """Return the velocity μ u + g, for momentum before selection (Deep Gradient Compression, "momentum correction")."""
    return Dense(velocity.values.mul_(momentum).add_(product(vector)))
