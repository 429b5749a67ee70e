"""Kernels in Triton that accumulate and select in vectors on a GPU, which read and write each of them once.

:mod:`algorithms.fused_rows` imports this module where CUDA and Triton are installed, and nothing else does.

A row is a residual and the gradient that is added to it. Rows may lie anywhere in memory: a table has, for each,
the addresses of both and the bits of the factor of the gradient. ``_accumulate`` adds, and appends the elements that
reach the floor of their row to its list. Blocks of a row append in the order in which they run, so ``_order`` copies
the list by position. An entry of a list is one number: the position in its upper 32 bits, the value's bits below.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from netsim.training.buffers import from_device, on_device

BLOCK = 4096
"""Elements that one program adds and compares."""
CHUNK = 1024
"""Elements that one program samples or clears."""
FEW = 128
"""Entries that one program copies at a time: about 15 of a block where one in a thousand is selected."""


@triton.jit
def _pointer(table: tl.tensor, row: tl.tensor, column: tl.constexpr, aligned: tl.constexpr) -> tl.tensor:
    """Return the address in a column of the table as a pointer; multiples of 16 bytes are loaded 16 bytes at once."""
    pointer = tl.load(table + 3 * row + column).to(tl.pointer_type(tl.float32))
    if aligned:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def _factor(table: tl.tensor, row: tl.tensor) -> tl.tensor:
    return tl.load(table + 3 * row + 2).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["stride", "samples"])
def _sample(table: tl.tensor, keys: tl.tensor, stride: tl.tensor, samples: tl.tensor, chunk: tl.constexpr) -> None:
    """Write the keys of every `stride`-th sum: its bits without the sign, as in :mod:`algorithms.kernels`."""
    row = tl.program_id(1)
    residual, gradient = _pointer(table, row, 0, False), _pointer(table, row, 1, False)
    at = tl.program_id(0) * chunk + tl.arange(0, chunk)
    inside = at < samples
    total = tl.load(residual + at * stride, mask=inside) + tl.load(gradient + at * stride, mask=inside) * _factor(
        table, row
    )
    tl.store(keys + row * samples + at, total.to(tl.int32, bitcast=True) & 0x7FFFFFFF, mask=inside)


@triton.jit(do_not_specialize=["size", "room"])
def _accumulate(
    table: tl.tensor,
    floors: tl.tensor,
    counts: tl.tensor,
    starts: tl.tensor,
    lengths: tl.tensor,
    lists: tl.tensor,
    size: tl.tensor,
    room: tl.tensor,
    aligned: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Add a block of a gradient to its residual, and append what reaches the floor to the list of the row."""
    block, row = tl.program_id(0), tl.program_id(1)
    residual, gradient = _pointer(table, row, 0, aligned), _pointer(table, row, 1, aligned)
    factor = _factor(table, row)
    at = block * width + tl.arange(0, width)
    inside = at < size
    if block * width + width <= size:  # without a mask, whose edge would forbid wide loads for most sizes
        total = tl.load(residual + at) + tl.load(gradient + at) * factor
        tl.store(residual + at, total)
    else:
        total = tl.load(residual + at, mask=inside) + tl.load(gradient + at, mask=inside) * factor
        tl.store(residual + at, total, mask=inside)
    bits = total.to(tl.int32, bitcast=True)
    reaches = inside & ((bits & 0x7FFFFFFF) >= tl.load(floors + row))
    ones = reaches.to(tl.int32)
    length = tl.sum(ones, 0)
    start = tl.atomic_add(counts + row, length)
    piece = row * tl.num_programs(0) + block
    tl.store(starts + piece, start)
    tl.store(lengths + piece, length)
    if length > 0:
        place = start + tl.cumsum(ones, 0) - 1
        entry = (at.to(tl.int64) << 32) | (bits.to(tl.int64) & 0xFFFFFFFF)
        tl.store(lists + row.to(tl.int64) * room + place, entry, mask=reaches & (place < room))


@triton.jit(do_not_specialize=["room"])
def _order(
    starts: tl.tensor,
    lengths: tl.tensor,
    ends: tl.tensor,
    lists: tl.tensor,
    ordered: tl.tensor,
    room: tl.tensor,
    chunk: tl.constexpr,
) -> None:
    """Copy what a block appended to the list of its row to the place that it has by position.

    Behind its `room` entries, each row of `ordered` gets the number of entries that there were.
    """
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    piece = row * tl.num_programs(0) + block
    start, length, end = tl.load(starts + piece), tl.load(lengths + piece), tl.load(ends + piece)
    of_row = ordered + row * (room + 1)
    if block == tl.num_programs(0) - 1:
        tl.store(of_row + room, end.to(tl.int64))
    for first in range(0, length, chunk):
        at = first + tl.arange(0, chunk)
        there = (at < length) & (start + at < room) & (end - length + at < room)
        entry = tl.load(lists + row * room + start + at, mask=there)
        tl.store(of_row + end - length + at, entry, mask=there)


@triton.jit(do_not_specialize=["number"])
def _clear(table: tl.tensor, places: tl.tensor, number: tl.tensor, chunk: tl.constexpr) -> None:
    """Write zeros to residuals; a place has the row in its upper 32 bits, and the position below."""
    at = tl.program_id(0) * chunk + tl.arange(0, chunk)
    inside = at < number
    place = tl.load(places + at, mask=inside, other=0)
    residual = tl.load(table + 3 * (place >> 32), mask=inside, other=0).to(tl.pointer_type(tl.float32))
    tl.store(residual + (place & 0xFFFFFFFF), 0.0, mask=inside)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launch a kernel on the GPU of its first argument; no product is fused with an addition, as on the CPU."""
    device = args[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*args, **options, enable_fp_fusion=False)


class Rows:
    """Residuals (d,), and the gradients that are added to them once."""

    def __init__(
        self, residuals: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], factors: Sequence[float]
    ) -> None:
        """Note where the vectors are, which must stay there: float32, contiguous, of one size and on one GPU."""
        addresses = np.array([[address(each) for each in pair] for pair in zip(residuals, gradients, strict=True)])
        bits = np.array(factors, np.float32).view(np.int32).astype(np.int64)
        self._number, self._size = len(residuals), residuals[0].numel()
        self._aligned = not (addresses % 16).any()
        self._table = on_device(torch.from_numpy(np.column_stack([addresses, bits])), residuals[0].device)

    def accumulate(self, stride: int, rank: int, room: int) -> tuple[np.ndarray, np.ndarray]:
        """Add the gradients, each times its factor, and return candidates for the largest sums of each row.

        Parameters
        ----------
        stride, rank
            Every `stride`-th sum is sampled, and candidates are the elements that reach the sample of that rank.
        room
            The most candidates of a row; if there are more, none is returned.

        Returns
        -------
        places, values
            In main memory, by ascending place: the number of the row times d, plus the position; and the sum there.
        """
        rows, size = self._number, self._size
        ordered = from_device(self._candidates(self._floors(stride, rank), room)).numpy()
        totals = ordered[:, room]
        found = np.where(totals <= room, totals, 0)
        entries = np.concatenate([row[:number] for row, number in zip(ordered, found.tolist(), strict=True)])
        places = (entries >> 32) + np.repeat(np.arange(rows) * size, found)
        return places, entries.astype(np.int32).view(np.float32)

    def _floors(self, stride: int, rank: int) -> torch.Tensor:
        """Return the key (n,) of a rank in the sample of each row, and at least 1, which no zero has."""
        samples = -(-self._size // stride)
        keys = self._table.new_empty((self._number, samples), dtype=torch.int32)
        launch(_sample, (triton.cdiv(samples, CHUNK), self._number), self._table, keys, stride, samples, chunk=CHUNK)
        return keys.topk(rank).values[:, -1].clamp(min=1)

    def _candidates(self, floors: torch.Tensor, room: int) -> torch.Tensor:
        """Add, and return the entries (n, room) that reach the floors, and behind them how many there were."""
        rows, new = self._number, self._table.new_empty
        blocks = triton.cdiv(self._size, BLOCK)
        counts = self._table.new_zeros(rows, dtype=torch.int32)
        starts, lengths = new((rows, blocks), dtype=torch.int32), new((rows, blocks), dtype=torch.int32)
        lists, ordered = new((rows, room)), new((rows, room + 1))
        launch(
            *(_accumulate, (blocks, rows), self._table, floors, counts, starts, lengths, lists, self._size, room),
            aligned=self._aligned,
            width=BLOCK,
            num_warps=8,
        )
        ends = lengths.cumsum(1, dtype=torch.int32)
        launch(_order, (blocks, rows), starts, lengths, ends, lists, ordered, room, chunk=FEW, num_warps=1)
        return ordered

    def clear(self, row: np.ndarray, positions: np.ndarray) -> None:
        """Write zeros to the residuals of rows (n,) at positions (n,)."""
        if not len(row):
            return
        places = on_device(torch.from_numpy((row << 32) | positions), self._table.device)
        launch(_clear, (triton.cdiv(len(row), CHUNK),), self._table, places, len(row), chunk=CHUNK)


def address(values: torch.Tensor) -> int:
    """Return where a vector is in the memory of its device."""
    return values.data_ptr()
