"""The device that computes gradients, the number of threads there, and how freed memory is reused."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netsim._util.errors import UsageError, suggestion


def check_device(name: str) -> None:
    """Raise UsageError unless `name` is the name of a device, whether or not this machine has it."""
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
        raise UsageError(f"device {name!r} was not found: torch sees {available} CUDA devices; use --device cpu")
    return f"cuda:{int(index or 0)}"


@contextmanager
def one_thread_each() -> Iterator[tuple[int, Callable[[], None]]]:
    """Let every torch operator use one thread; restore the setting afterwards.

    The number of threads inside an operator changes the last bits of its result, so workers run in parallel instead.
    Yields the number of threads to start, and a function that every thread must call first.
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
    """Ask glibc to keep large freed blocks instead of returning them to the kernel; other C libraries ignore this.

    Every step frees and allocates vectors of d elements. Page faults of fresh blocks cost more than the arithmetic.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_mmap_threshold, 2**25)  # the most that glibc takes
        mallopt(m_arena_max, 1)  # a thread's own arena would give memory back all the same
