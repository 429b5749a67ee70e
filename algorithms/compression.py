"""Top-k compression as pure functions: select, merge and sum sparse vectors, and restore dropped entries.

The indices of a sparse vector are int32 and strictly ascending. Values keep their sign, although eq. (6) of the gTop-k
paper writes |·|, which would lose it. A name (d,) or (k,) after a vector is its shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from algorithms import kernels
from algorithms.selection import Selector, on_kernels
from netsim.comm.payload import Dense, SizeOnly, Sparse, Vector, add_all, in_place, size_rule
from netsim.training.sgd import Scaled, product, scaled

if TYPE_CHECKING:
    import numpy as np
    import torch


class Selected(NamedTuple):
    """The selected entries (k,), and the vector (d,) with zeros in their place."""

    local: Vector
    rest: Vector


class Merged(NamedTuple):
    """The k largest entries of a sum of sparse vectors, and its other entries."""

    kept: Vector
    dropped: Vector


@size_rule(lambda vector, selector: Selected(SizeOnly(vector.size, min(selector.k, vector.size)), vector))
def select(vector: Dense, selector: Selector) -> Selected:
    """Return TopK(vector) (gTop-k paper, eq. (4)) and the rest; the two sum to `vector` exactly."""
    return take_out(vector.values.clone(), selector.positions(vector.values))


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
    if selector.how == "exact" and on_kernels(rest):
        if selector.blocks:
            selected = kernels.accumulate_select_blocks(rest.numpy(), values.numpy(), *selector.bounds(), factor)
        else:
            selected = kernels.accumulate_select(rest.numpy(), values.numpy(), selector.k, factor)
        return Selected(_sparse(*selected, residual.size), _changed(rest))
    rest += product(vector)
    return take_out(rest, selector.positions(rest))


def take_out(vector: torch.Tensor, positions: torch.Tensor) -> Selected:
    """Return the entries at the ascending `positions`, and `vector` itself with zeros written there."""
    import torch

    local = Sparse(positions.to(torch.int32), vector[positions], vector.numel())
    vector[positions] = 0
    return Selected(local, Dense(vector))


@size_rule(
    lambda left, right, selector: Merged(
        SizeOnly(left.size, min(selector.k, left.entries + right.entries)), SizeOnly(left.size, 0)
    )
)
def merge(left: Sparse, right: Sparse, selector: Selector) -> Merged:
    """Return left ⊤ right, the k largest entries of the sum, and the dropped entries of the sum.

    ⊤ is commutative but not associative. The left operand belongs to the lower rank.

    References
    ----------
    gTop-k paper, eq. (6).
    """
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
    """Return the sum of sparse vectors as a dense vector (d,), added from left to right."""
    return _plus(first.values.new_zeros(first.size), first, *others)


@in_place
@size_rule(lambda residual, *additions: residual)
def restore(residual: Dense, *additions: Sparse) -> Dense:
    """Return the residual with sparse vectors added to it, from left to right."""
    return _plus(residual.values, *additions)


@size_rule(lambda local, total: SizeOnly(local.size, 0))
def outside(local: Sparse, total: Sparse) -> Sparse:
    """Return the entries of `local` whose indices are not in `total`."""
    import torch

    return _masked(local, ~torch.isin(local.indices, total.indices))


@size_rule(lambda template: SizeOnly(template.size, 0))
def no_entries(template: Vector) -> Vector:
    """Return a sparse vector of the size and type of `template`, without entries."""
    import torch

    assert isinstance(template, Dense)
    nothing = template.values[:0]
    return Sparse(nothing.to(torch.int32), nothing, template.size)


def total(*vectors: Vector) -> Vector:
    """Return the sum (d,) of vectors that are all dense or all sparse, added from left to right."""
    if isinstance(vectors[0], Dense):
        return add_all(*vectors)  # type: ignore[arg-type]
    return sum_to_dense(*vectors)  # type: ignore[arg-type]


def _plus(total: torch.Tensor, *parts: Sparse) -> Dense:
    """Add sparse vectors in place, in the order of `parts`; the indices of one part are distinct."""
    if not on_kernels(total):
        for part in parts:
            total[part.indices.long()] += part.values
        return Dense(total)
    for part in parts:
        kernels.add_at(total.numpy(), part.indices.numpy(), part.values.numpy())
    return _changed(total)


def _changed(values: torch.Tensor) -> Dense:
    """Return a vector into which NumPy wrote, with a new torch version: torch does not notice such writes itself."""
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
    vector.values[entries.indices.long()] = 0
    return Dense(vector.values)


@in_place
@size_rule(lambda velocity, vector, momentum: vector)
def accelerate(velocity: Dense, vector: Dense | Scaled, momentum: float) -> Dense:
    """Return the velocity μ u + g, for momentum before selection (Deep Gradient Compression, "momentum correction")."""
    return Dense(velocity.values.mul_(momentum).add_(product(vector)))
