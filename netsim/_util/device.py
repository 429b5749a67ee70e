"""Where gradients are computed, and with how many threads."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from netsim._util.errors import UsageError, suggestion

if TYPE_CHECKING:
    import torch


def check_device(name: str) -> None:
    """Raise UsageError unless `name` is written like a device, whether or not it is there."""
    if re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name) is None:
        close = suggestion(name, ["auto", "cpu", "cuda"])
        raise UsageError(f"unknown device {name!r}{close}; expected auto, cpu, cuda or cuda:0")


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda:i" for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``."""
    import torch

    check_device(name)
    kind, _, index = name.partition(":")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "auto" and not available):
        return "cpu"
    if int(index or 0) >= available:
        raise UsageError(f"device {name!r} is not there: torch sees {available} CUDA devices; use --device cpu")
    return f"cuda:{int(index or 0)}"


@contextmanager
def one_thread_each() -> Iterator[tuple[int, Callable[[], None]]]:
    """Have torch compute with one thread at a time, and put it back afterwards.

    The number of threads inside an operator changes the last bits of a result, so workers are what
    runs in parallel. Yields how many threads to run, and what each must call first.
    """
    import torch

    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield len(os.sched_getaffinity(0)), lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Ask glibc to reuse large freed blocks rather than return them to the kernel.

    Every step frees and allocates vectors of d elements; faulting their pages in again costs more
    than the arithmetic on them. Elsewhere than on glibc this does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_mmap_threshold, 2**25)  # the most that glibc takes
        mallopt(m_arena_max, 1)  # a thread's own arena would give memory back all the same


BLOCK = 2**26
"""Bytes of address space that rows are cut from; what nobody asked for yet takes no memory."""
HUGE = 2**21

_lock = threading.Lock()
_uncut = memoryview(b"")
_dropped: defaultdict[int, list[memoryview]] = defaultdict(list)


def zero_row(template: torch.Tensor) -> torch.Tensor:
    """Return zeros (d,) of the size and type of `template`, to be kept and worked on in place.

    Those of all workers lie one after another, as the rows of one matrix would, in pages as large as the kernel
    grants, and apart from the vectors that come and go at every step, among which they would leave holes.
    """
    if template.device.type != "cpu" or not template.numel():
        return template.new_zeros(template.numel())
    return _tensor(_cut(template.numel() * template.element_size()), template)


def passing_row(template: torch.Tensor) -> torch.Tensor:
    """Return a vector of the size and type of `template` that is soon dropped, with whatever values.

    It lies where the last one that was dropped lay, which the cache may still hold.
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
    weakref.finalize(lent, _dropped[size].append, memory)  # when the last tensor that uses it is gone
    return _tensor(lent, template)


def _tensor(memory: memoryview, template: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.frombuffer(memory, dtype=template.dtype)


def _cut(size: int) -> memoryview:
    """Return `size` bytes, zero, that were never used."""
    global _uncut
    room = size + -size % 64  # a cache line, so that no two threads write to one
    with _lock:
        if room > len(_uncut):
            _uncut = _mapped(max(BLOCK, room))
        taken, _uncut = _uncut[:size], _uncut[room:]
    return taken


def _mapped(size: int) -> memoryview:
    block = mmap.mmap(-1, size + -size % HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)
