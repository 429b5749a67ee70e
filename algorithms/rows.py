"""Exact selection in several vectors at once, by torch's operators: how netsim selects from vectors on a GPU.

The GPU finds candidates: all elements whose magnitude reaches a floor, which is at most the k-th largest. Their bits
are copied to main memory, where the compiled kernels select among them. Ties, zeros and NaN therefore follow the rule
of :mod:`algorithms.kernels` on every device. The CPU waits for the GPU twice, however many vectors there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from algorithms import kernels
from algorithms.selection import Selector, sampled_rank
from netsim.training.buffers import on_device
from netsim.training.sgd import Scaled, scaled

if TYPE_CHECKING:
    import torch

    from netsim.comm.payload import Dense


def matrix_of(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return vectors (d,) as the rows of a matrix (n, d): a view if they are consecutive rows of one, else a copy."""
    import torch

    first, size = rows[0], rows[0].numel()
    if len(rows) == 1:
        return first[None]
    whole = first._base
    if whole is not None and whole.dim() == 2 and whole.shape[1] == size and whole.is_contiguous():
        start = first.storage_offset() - whole.storage_offset()
        places = range(first.storage_offset(), first.storage_offset() + len(rows) * size, size)
        if all(row._base is whole and row.storage_offset() == place for row, place in zip(rows, places, strict=True)):
            return whole[start // size : start // size + len(rows)]
    return torch.stack(list(rows))


def add_rows(residuals: Sequence[torch.Tensor], vectors: Sequence[Dense | Scaled]) -> torch.Tensor:
    """Return a matrix (n, d) of residuals, to each of which a vector times its factor was added.

    The residuals may be overwritten. A product is rounded before it is added, as the compiled kernels do.
    """
    import torch

    total = matrix_of(residuals)
    values, factors = zip(*map(scaled, vectors), strict=True)
    addends = torch.stack(values)
    if len(set(factors)) == 1:
        addends.mul_(factors[0])
    else:
        addends.mul_(on_device(torch.tensor(factors, dtype=addends.dtype), addends.device)[:, None])
    return total.add_(addends)


def take_largest(matrix: torch.Tensor, selector: Selector) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Remove the selected entries from every row of a matrix, and return them.

    Parameters
    ----------
    matrix
        (n, d), contiguous, float32 or float64; overwritten with zeros at the selected entries.
    selector
        The number of entries of each row, or of each block of a row; its method is "exact".

    Returns
    -------
    list of (indices, values)
        For each row, in main memory: int32 indices, ascending, and their values.
    """
    import torch

    size = matrix.shape[1]
    bounds, ks = selector.bounds() if selector.blocks else ([0, size], [selector.k])
    taken = _largest(matrix, bounds, ks, guess=True)
    if any(sampled_rank(last - first, k)[1] for (first, last), k in zip(pairwise(bounds), ks, strict=True)):
        complete(taken, list(matrix), bounds, ks)
    places = np.concatenate([positions + row * size for row, (positions, _) in enumerate(taken)])
    matrix.view(-1).index_fill_(0, on_device(torch.from_numpy(places), matrix.device), 0)
    return as_tensors(taken)


def as_tensors(taken: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return positions and values of each row as tensors, with int32 for positions."""
    import torch

    return [(torch.from_numpy(positions.astype(np.int32)), torch.from_numpy(values)) for positions, values in taken]


def complete(
    taken: list[tuple[np.ndarray, np.ndarray]], rows: Sequence[torch.Tensor], bounds: Sequence[int], ks: Sequence[int]
) -> None:
    """Select again, without a guess, from rows of which too few entries were taken.

    Their floor was too high, or no other elements are left than zeros.
    """
    import torch

    enough = min(sum(ks), bounds[-1])
    short = [row for row, (positions, _) in enumerate(taken) if len(positions) < enough]
    again = _largest(torch.stack([rows[row] for row in short]), bounds, ks, guess=False) if short else []
    for row, entries in zip(short, again, strict=True):
        taken[row] = entries


def _largest(
    matrix: torch.Tensor, bounds: Sequence[int], ks: Sequence[int], guess: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positions and values of the k largest entries of each block of each row; `guess` the floors if quicker."""
    import torch

    bits = matrix.view(torch.int32 if matrix.element_size() == 4 else torch.int64)
    keys = bits.bitwise_and(torch.iinfo(bits.dtype).max)
    reach = torch.empty(matrix.shape, dtype=torch.bool, device=matrix.device)
    for (first, last), k in zip(pairwise(bounds), ks, strict=True):
        block = keys[:, first:last]
        torch.ge(block, _floors(block, k) if guess else 1, out=reach[:, first:last])
    found = reach.view(-1).nonzero().view(-1)
    places, raw = torch.stack([found, bits.view(-1)[found].long()]).cpu().numpy()
    values = raw.astype(np.int32).view(np.float32) if bits.dtype == torch.int32 else raw.view(np.float64)
    return among(places, values, len(matrix), bounds, ks)


def among(
    places: np.ndarray, values: np.ndarray, rows: int, bounds: Sequence[int], ks: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positions and values of the k largest candidates of each block of each row.

    Parameters
    ----------
    places, values
        (n,); a place is the number of the row times its size, plus the position in it; ascending.
    rows
        The number of rows.
    bounds, ks
        The boundaries of the blocks of a row, one more than there are blocks, and the k of each block.
    """
    size = bounds[-1]
    edges = np.append((np.arange(rows)[:, None] * size + bounds[:-1]).ravel(), rows * size)
    chosen = kernels.top_positions_blocks(values, np.searchsorted(places, edges), [*ks] * rows)
    places, values = places[chosen], values[chosen]
    ends = np.searchsorted(places, np.arange(rows + 1) * size)
    return [(places[first:last] - row * size, values[first:last]) for row, (first, last) in enumerate(pairwise(ends))]


def _floors(keys: torch.Tensor, k: int) -> Any:
    """Return a key (n, 1) for each row that is probably at most its k-th largest, and at least 1, which no zero has."""
    size = keys.shape[1]
    if k >= size:
        return 1
    stride, rank = sampled_rank(size, k)
    if not rank:  # the vector is short, or k large: the k-th largest itself
        return keys.topk(k).values[:, -1:].clamp_(min=1)
    return keys[:, ::stride].contiguous().topk(rank).values[:, -1:].clamp_(min=1)
