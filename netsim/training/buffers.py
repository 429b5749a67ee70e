"""Memory for vectors of d elements, outside the general allocator: residuals, which stay, and gradients of a step.

The residuals of all workers lie one after another in large pages. The gradients of a step reuse the memory of
earlier gradients, which may still be in the cache. ``benchmarks/rounds.py`` measures the effect: a round's time, and
peak memory relative to P·d·4 bytes.
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

    The rows of all workers lie one after another, like the rows of one matrix, in pages as large as the kernel grants.
    They lie apart from the vectors that come and go at every step, so they leave no holes among those.
    """
    if template.device.type != "cpu" or not template.numel():
        return template.new_zeros(template.numel())
    return _tensor(_cut(template.numel() * template.element_size()), template)


def passing_row(template: torch.Tensor) -> torch.Tensor:
    """Return a vector of the size and type of `template` with arbitrary values, for short use.

    It reuses the memory of the vector that was dropped last, which the cache may still hold.
    """
    import torch

    if template.device.type != "cpu" or not template.numel():
        return torch.empty_like(template)
    size = template.numel() * template.element_size()
    try:
        memory = _dropped[size].pop()
    except IndexError:
        memory = _cut(size)
    lent = memory[:]
    weakref.finalize(lent, _dropped[size].append, memory)  # when the last tensor that uses it is freed
    return _tensor(lent, template)


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; on its way to a GPU it passes pinned memory, so that the CPU need not wait."""
    import torch

    if values.device == device:
        return values
    if values.device.type != "cpu":
        return values.to(device)
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values).to(device, non_blocking=True)


def _tensor(memory: memoryview, template: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.frombuffer(memory, dtype=template.dtype)


def _cut(size: int) -> memoryview:
    """Return `size` zero bytes that were never used."""
    global _uncut
    room = size + -size % 64  # whole cache lines, so that no two threads write to the same one
    with _lock:
        if room > len(_uncut):
            _uncut = _mapped(max(BLOCK, room))
        taken, _uncut = _uncut[:size], _uncut[room:]
    return taken


def _mapped(size: int) -> memoryview:
    block = mmap.mmap(-1, size + -size % HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)
