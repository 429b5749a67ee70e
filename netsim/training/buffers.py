"""Memory for vectors of d elements, outside the general allocator: residuals, which stay, and gradients of a step.

Rows of memory lie one after another in large pages. A row is used again once its vector was dropped: its cache lines
may still be there, and a fresh page costs more than the arithmetic on it. ``benchmarks/rounds.py`` measures the effect:
a round's time, and peak memory relative to P·d·4 bytes.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BLOCK = 2**26
"""Bytes of address space that rows are cut from; unused pages take no memory."""
HUGE = 2**21
"""Bytes of a huge page."""

_lock = threading.Lock()
_uncut = memoryview(b"")
_dropped: defaultdict[int, list[memoryview]] = defaultdict(list)


def zero_row(template: torch.Tensor) -> torch.Tensor:
    """Return zeros, (d,), of the size and type of `template`, to be kept and updated in place.

    On a CPU they are a row of the memory described above, apart from the other tensors that come and go at every step.
    """
    if template.device.type != "cpu" or not template.numel():
        return template.new_zeros(template.numel())
    row, used = _row(template)
    return row.zero_() if used else row


def passing_row(template: torch.Tensor) -> torch.Tensor:
    """Return a vector of the size and type of `template` with arbitrary values, for short use."""
    import torch

    if template.device.type != "cpu" or not template.numel():
        return torch.empty_like(template)
    return _row(template)[0]


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; on its way to a GPU it passes pinned memory, so that the CPU need not wait."""
    import torch

    if values.device == device:
        return values
    if values.device.type != "cpu":
        return values.to(device)
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values).to(device, non_blocking=True)


def from_device(values: torch.Tensor) -> torch.Tensor:
    """Return a tensor in main memory, for which the CPU waits; from a GPU into pinned memory, which is quicker."""
    import torch

    if values.device.type == "cpu":
        return values
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)


def _row(template: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return a vector in the row that was dropped last, or in a fresh one, and whether the row was used before."""
    import torch

    size = template.numel() * template.element_size()
    try:
        memory, used = _dropped[size].pop(), True
    except IndexError:
        memory, used = _cut(size), False
    lent = memory[:]
    weakref.finalize(lent, _dropped[size].append, memory)  # when the last tensor that uses it is freed
    return torch.frombuffer(lent, dtype=template.dtype), used


def _cut(size: int) -> memoryview:
    """Return `size` zero bytes that were never used."""
    global _uncut
    room = size + -size % 64  # whole cache lines, so that no two threads write to the same one
    with _lock:
        if room > len(_uncut):
            for rows in list(_dropped.values()):
                rows.clear()  # rows of other sizes: the kernel gets blocks back of which no row is in use
            _uncut = _mapped(max(BLOCK, room))
        taken, _uncut = _uncut[:size], _uncut[room:]
    return taken


def _mapped(size: int) -> memoryview:
    block = mmap.mmap(-1, size + -size % HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)
