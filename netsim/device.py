"""Where gradients are computed, and with how many threads."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netsim.errors import UsageError, suggestion


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
