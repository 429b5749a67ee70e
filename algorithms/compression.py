"""Top-k compression as pure functions: select, merge, sum, and what they leave behind.

Indices are int32 and strictly ascending; values keep their sign (eq. (6) of the gTop-k paper writes
|·|, which would lose it).
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
    """The selected entries, and the vector without them."""

    local: Vector
    rest: Vector


class Merged(NamedTuple):
    """The k largest entries of a sum, and the entries of the sum that were dropped."""

    kept: Vector
    dropped: Vector


@size_rule(lambda vector, selector: Selected(SizeOnly(vector.size, min(selector.k, vector.size)), vector))
def select(vector: Dense, selector: Selector) -> Selected:
    """Return TopK(vector) (eq. (4)) and the rest; the two sum to `vector` exactly."""
    return take_out(vector.values.clone(), selector.positions(vector.values))


@in_place
@size_rule(lambda residual, vector, selector: select(vector, selector))
def accumulate_and_select(residual: Dense, vector: Dense | Scaled, selector: Selector) -> Selected:
    """Return TopK(residual + vector) and the new residual (gTop-k paper, algorithm 1, lines 3 to 5)."""
    rest, (values, factor) = residual.values, scaled(vector)
    if selector.how == "exact" and on_kernels(rest):
        if selector.blocks:
            found = kernels.accumulate_select_blocks(rest.numpy(), values.numpy(), *selector.bounds(), factor)
        else:
            found = kernels.accumulate_select(rest.numpy(), values.numpy(), selector.k, factor)
        return Selected(_sparse(*found, residual.size), _changed(rest))
    rest += product(vector)
    return take_out(rest, selector.positions(rest))


def take_out(vector: torch.Tensor, positions: torch.Tensor) -> Selected:
    """Return the entries at `positions`, ascending, and the vector, which then has zeros there."""
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
    """Return left ⊤ right (eq. (6)): the k largest of the sum, and what was dropped of it.

    ⊤ is commutative but not associative. The left operand is the one of the lower rank.
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
    """Return left + right, sparse."""
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
    """Return the dense sum, taken from left to right."""
    return _plus(first.values.new_zeros(first.size), first, *others)


@in_place
@size_rule(lambda residual, *additions: residual)
def restore(residual: Dense, *additions: Sparse) -> Dense:
    """Return the residual with sparse vectors added to it, from left to right."""
    return _plus(residual.values, *additions)


@size_rule(lambda local, total: SizeOnly(local.size, 0))
def outside(local: Sparse, total: Sparse) -> Sparse:
    """Return the entries of `local` whose indices `total` does not hold."""
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
    """Return the dense sum of dense or of sparse vectors, taken from left to right."""
    if isinstance(vectors[0], Dense):
        return add_all(*vectors)  # type: ignore[arg-type]
    return sum_to_dense(*vectors)  # type: ignore[arg-type]


def _plus(total: torch.Tensor, *parts: Sparse) -> Dense:
    """Add sparse vectors in place. Indices are distinct, so the order of additions is that of the parts."""
    if not on_kernels(total):
        for part in parts:
            total[part.indices.long()] += part.values
        return Dense(total)
    for part in parts:
        kernels.add_at(total.numpy(), part.indices.numpy(), part.values.numpy())
    return _changed(total)


def _changed(values: torch.Tensor) -> Dense:
    """Return a vector that NumPy wrote into: torch does not see that, and a payload's version must tell."""
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
    """Return the vector with zeros where `entries` has indices."""
    vector.values[entries.indices.long()] = 0
    return Dense(vector.values)


@in_place
@size_rule(lambda velocity, vector, momentum: vector)
def accelerate(velocity: Dense, vector: Dense | Scaled, momentum: float) -> Dense:
    """Return μ u + g: momentum before selection (Deep Gradient Compression, "momentum correction")."""
    return Dense(velocity.values.mul_(momentum).add_(product(vector)))
