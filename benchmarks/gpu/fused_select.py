"""A prototype in Triton: residual += factor × gradient, and exact top-k of all rows of (P, d), in one pass.

A floor comes from a strided sample of each row. One kernel adds, stores, and appends (magnitude, index) of the elements
above the floor to a list of the row, in whatever order atomics give. One small top-k of int64 numbers, the magnitude
before the complement of the index, is exact and the same every time. A row whose list overflowed, or is too short, is
sorted by torch.

``bench.py`` compares it with netsim's way (:mod:`algorithms.rows`); netsim does not use it. It was tried in Triton's
interpreter only, never on a GPU.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

triton: Any = import_module("triton")  # comes with torch for CUDA; netsim does not depend on it
tl: Any = import_module("triton.language")

BLOCK = 4096
"""Elements that one program of the kernel adds and compares."""


@triton.jit
def _pass(residual, gradient, factor, floors, counts, lists, d, stride_r, stride_g, room, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < d
    r = tl.load(residual + row * stride_r + at, mask=inside, other=0.0)
    g = tl.load(gradient + row * stride_g + at, mask=inside, other=0.0)
    product = g * factor
    r = r + product
    tl.store(residual + row * stride_r + at, r, mask=inside)
    key = r.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    floor = tl.load(floors + row)
    chosen = inside & (key > floor)
    ones = chosen.to(tl.int32)
    n = tl.sum(ones, 0)
    if n > 0:
        base = tl.atomic_add(counts + row, n)
        place = base + tl.cumsum(ones, 0) - 1
        both = (key.to(tl.int64) << 32) | (0xFFFFFFFF - at.to(tl.int64))
        tl.store(lists + row * room + place, both, mask=chosen & (place < room))


def padded(rows: torch.Tensor) -> torch.Tensor:
    """Return rows (P, d) that each begin at a multiple of 256 bytes, so that loads are 16 bytes wide."""
    workers, d = rows.shape
    return rows.new_zeros(workers, d + -d % 64)[:, :d].copy_(rows)


def accumulate_select(
    residual: torch.Tensor, gradient: torch.Tensor, factor: float, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add factor × gradient to the residual (P, d), and take the k largest entries of each row out of it.

    Returns
    -------
    positions, values
        (P, k), ascending positions.
    """
    counts, lists = _one_pass(residual, gradient, factor, k)
    best = lists.topk(k, dim=1).values
    positions = (0xFFFFFFFF - (best & 0xFFFFFFFF)).sort(dim=1).values
    for row in ((counts < k) | (counts > lists.shape[1])).nonzero().flatten().tolist():  # the one wait for the GPU
        order = torch.sort(residual[row].abs(), descending=True, stable=True).indices[:k]
        positions[row] = order.sort().values
    values = residual.gather(1, positions)
    residual.scatter_(1, positions, 0.0)
    return positions, values


def _one_pass(
    residual: torch.Tensor, gradient: torch.Tensor, factor: float, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add, and return the number of candidates of each row and the lists of them."""
    rows, d = residual.shape
    floors, room = _floors(residual, gradient, factor, k)
    counts = torch.zeros(rows, dtype=torch.int32, device=residual.device)
    lists = torch.zeros(rows, room, dtype=torch.int64, device=residual.device)
    # Without fusion: the product is rounded before it is added, as on the CPU.
    _pass[triton.cdiv(d, BLOCK), rows](
        *(residual, gradient, factor, floors, counts, lists, d, residual.stride(0), gradient.stride(0), room),
        BLOCK=BLOCK,
        num_warps=8,
        enable_fp_fusion=False,
    )
    return counts, lists


def _floors(residual: torch.Tensor, gradient: torch.Tensor, factor: float, k: int) -> tuple[torch.Tensor, int]:
    """Return a magnitude of each row that is probably below the k-th largest, and the room for candidates."""
    d = residual.shape[1]
    step = max(1, d // (4096 if d < 2**22 else 65536))
    sample = (residual[:, ::step] + gradient[:, ::step] * factor).abs().view(torch.int32)
    expected = k * sample.shape[1] / d
    rank = int(expected + 3 * expected**0.5 + 4)
    if rank >= sample.shape[1]:
        return torch.zeros_like(sample[:, 0]), 1 << d.bit_length()
    room = 1 << int(2 * rank * d / sample.shape[1]).bit_length()
    return (sample.topk(rank, dim=1).values[:, -1] - 1).clamp_(min=0), room
