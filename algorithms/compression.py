"""Top-k compression as pure functions: select, merge, sum, and what they leave behind.

Indices are int32 and strictly ascending; values keep their sign (eq. (6) of the gTop-k paper writes
|·|, which would lose it). Selection is exact: min(k, number of non-zeros) entries, ordered by
magnitude and, among equal magnitudes, by index; "> the k-th largest" (eq. (4)) would keep k-1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from netsim.payload import Dense, SizeOnly, Sparse, Vector, size_rule

if TYPE_CHECKING:
    import torch

SAMPLE = 4096
"""How many elements of a long vector are looked at for a first guess of the k-th magnitude."""


class Selected(NamedTuple):
    """The selected entries, and the vector without them."""

    local: Vector
    rest: Vector


class Merged(NamedTuple):
    """The k largest entries of a sum, and the entries of the sum that were dropped."""

    kept: Vector
    dropped: Vector


def top_positions(magnitudes: torch.Tensor, k: int) -> torch.Tensor:
    """Return the positions, ascending, of the min(k, non-zeros) largest magnitudes; ties to the lower position."""
    import torch

    threshold = _guess(magnitudes, k)
    candidates = torch.nonzero(magnitudes >= threshold).flatten() if threshold > 0 else None
    if candidates is None or candidates.numel() < k:
        candidates = torch.nonzero(magnitudes).flatten()
    if candidates.numel() <= k:
        return candidates
    among = magnitudes[candidates]
    order = torch.sort(among, descending=True, stable=True).indices[:k]
    return candidates[torch.sort(order).values]


def _guess(magnitudes: torch.Tensor, k: int) -> float:
    """Return a magnitude likely to be a little below the k-th largest, or 0 if a guess is not worth it.

    From a strided sample: the position of the k-th largest in it, three standard deviations further
    down. A wrong guess costs time, never exactness.
    """
    stride = magnitudes.numel() // SAMPLE
    if stride < 8:
        return 0.0
    sample = magnitudes[::stride]
    expected = k / stride
    rank = int(expected + 3 * expected**0.5 + 4)
    if rank >= sample.numel():
        return 0.0
    return float(sample.topk(rank).values[-1])


@size_rule(lambda vector, k: Selected(SizeOnly(vector.size, min(k, vector.size)), vector))
def select(vector: Dense, k: int) -> Selected:
    """Return TopK(vector) (eq. (4)) and the rest; the two sum to `vector` exactly."""
    import torch

    positions = top_positions(vector.values.abs(), k)
    local = Sparse(positions.to(torch.int32), vector.values[positions], vector.size)
    rest = vector.values.clone()
    rest[positions] = 0
    return Selected(local, Dense(rest))


@size_rule(lambda residual, vector, k: select(vector, k))
def accumulate_and_select(residual: Dense, vector: Dense, k: int) -> Selected:
    """Return TopK(residual + vector) and the new residual (gTop-k paper, algorithm 1, lines 3 to 5)."""
    return select(Dense(residual.values + vector.values), k)


@size_rule(
    lambda left, right, k: Merged(SizeOnly(left.size, min(k, left.entries + right.entries)), SizeOnly(left.size, 0))
)
def merge(left: Sparse, right: Sparse, k: int) -> Merged:
    """Return left ⊤ right (eq. (6)): the k largest of the sum, and what was dropped of it.

    ⊤ is commutative but not associative. The left operand is the one of the lower rank.
    """
    import torch

    total = sum_sparse(left, right)
    positions = top_positions(total.values.abs(), k)
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
    total = first.values.new_zeros(first.size)
    for part in (first, *others):
        # Indices within a part are distinct, so the order of additions is that of the parts.
        total[part.indices.long()] += part.values
    return Dense(total)


@size_rule(lambda residual, *additions: residual)
def restore(residual: Dense, *additions: Sparse) -> Dense:
    """Return the residual with sparse vectors added to it, from left to right."""
    restored = residual.values.clone()
    for part in additions:
        restored[part.indices.long()] += part.values
    return Dense(restored)


@size_rule(lambda local, total: SizeOnly(local.size, 0))
def outside(local: Sparse, total: Sparse) -> Sparse:
    """Return the entries of `local` whose indices `total` does not hold."""
    import torch

    return _masked(local, ~torch.isin(local.indices, total.indices))


def dense(vector: Vector) -> Vector:
    """Return a vector with all its elements written out."""
    return sum_to_dense(vector) if isinstance(vector, Sparse) else vector


def _masked(vector: Sparse, mask: torch.Tensor) -> Sparse:
    return Sparse(vector.indices[mask], vector.values[mask], vector.size)
