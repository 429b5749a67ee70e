"""The machine and the Python installation: versions and hardware for reports, memory, processors, child processes.

:func:`one_thread_each` sets the number of threads of torch's operators.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netsim._util.device import gpu_facts
from netsim._util.errors import InfeasibleError
from netsim._util.units import format_bytes

DISTRIBUTION = "netsim-dsgd"
"""The name of this distribution; another project is called "netsim" on package indexes."""

HOME = Path(__file__).parents[2]
"""The folder where Python found netsim."""


def child_environment() -> dict[str, str]:
    """Return the environment for a Python process that netsim starts.

    The process does not import from the current folder, where a file ``random.py`` would replace Python's own module.
    Folders in PYTHONPATH stay, and so does the current folder if netsim itself is in it.
    """
    with suppress(OSError):  # a current folder that was removed
        if Path.cwd() == HOME:
            return dict(os.environ)
    return os.environ | {"PYTHONSAFEPATH": "1"}


@contextmanager
def safe_children() -> Iterator[None]:
    """Give the :func:`child_environment` to processes that a library starts within this block."""
    before = os.environ.copy()
    os.environ.update(child_environment())
    try:
        yield
    finally:
        if "PYTHONSAFEPATH" not in before:
            os.environ.pop("PYTHONSAFEPATH", None)


def compiler() -> Any:
    """Return the module numba; raise ImportError if it is missing or its compiler is disabled.

    Numba reads ``.numba_config.yaml`` in the current folder, which may name a folder of compiled code to load. The
    environment takes precedence over that file, and an empty variable means numba's default.
    """
    for name in ("NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES"):
        os.environ.setdefault(name, "")
    import numba

    config: Any = numba.config
    if config.DISABLE_JIT:
        raise ImportError("numba is told not to compile (NUMBA_DISABLE_JIT)")
    return numba


def version() -> str:
    """Return the installed version, or "unknown" in a checkout that was not installed."""
    try:
        return installed_version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def environment(device: str | None) -> dict[str, Any]:
    """Return versions and hardware for a report; `device` is where gradients were computed, None if nowhere."""
    facts: dict[str, Any] = {"netsim": version(), "python": platform.python_version(), "machine": platform.machine()}
    if device is not None:
        import torch

        facts |= {
            "torch": torch.__version__,
            "device": device,
            "device_name": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **gpu_facts(device),
        }
    return facts


class _CollectorSettings:
    """What simulations change of the garbage collector: the first to begin changes it, the last to end restores it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._simulations = 0
        self._before: tuple[int, int, int] | None = None

    def begin(self) -> None:
        """Set objects aside, unless another simulation, or the caller of this one, has done so."""
        with self.lock:
            self._simulations += 1
            if self._simulations == 1 and not gc.get_freeze_count():
                self._before = gc.get_threshold()
                gc.freeze()
                gc.set_threshold(NEW_OBJECTS, *self._before[1:])

    def end(self) -> None:
        """Restore the collector after the last simulation."""
        with self.lock:
            self._simulations -= 1
            if self._simulations == 0 and self._before is not None:
                gc.unfreeze()
                gc.set_threshold(*self._before)
                self._before = None


_collector = _CollectorSettings()
if hasattr(os, "register_at_fork"):  # another thread may hold the lock at that moment
    os.register_at_fork(after_in_child=lambda: setattr(_collector, "lock", threading.Lock()))


@contextmanager
def old_objects_set_aside() -> Iterator[None]:
    """Exempt the objects that exist from garbage collection within this block, and let new ones gather for longer.

    The old objects are mostly imported modules, which stay. A simulation of many messages triggers the collector often:
    scanning the modules took half of the time, and scanning messages on their way a quarter of the rest.
    """
    _collector.begin()
    try:
        yield
    finally:
        _collector.end()


NEW_OBJECTS = 5_000
"""Objects that are made, less those that went, before a simulation or the command line looks for garbage among them."""


def surroundings() -> dict[str, str]:
    """Return the versions that determine a study's numbers, and the machine, as text."""
    versions = [f"Python {platform.python_version()}"]
    for name in ("torch", "numpy", "scikit-learn"):
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {installed_version(name)}")
    return {"versions": ", ".join(versions), "hardware": f"{processor()}, {os.cpu_count()} cores"}


def processor() -> str:
    """Return the processor's name from Linux, or else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def memory_bytes() -> int | None:
    """Return the memory of this machine in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def check_memory(what: str, nbytes: int, instead: str) -> None:
    """Raise InfeasibleError if `what` takes more than this machine's memory; `instead` is the likely fix."""
    has = memory_bytes()
    if has is not None and nbytes > has:
        raise InfeasibleError(
            f"{what} would take about {format_bytes(nbytes)} of memory, and this machine has {format_bytes(has)}; "
            f"{instead}"
        )


def processor_ticks() -> tuple[int, int]:
    """Return the busy time and the total time of all processors since boot, in the kernel's ticks.

    Both are 0 on other systems than Linux. Time that a virtual machine's host took counts as busy.
    """
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0, 0
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, and waiting for disks


def busy_share(*spans: tuple[tuple[int, int], tuple[int, int]], seconds: float | None = None) -> float | None:
    """Return the share of all processors' time that any program used.

    Parameters
    ----------
    spans
        Pairs of :func:`processor_ticks`, at the begin and the end of each span.
    seconds
        If given, the share refers to this time instead of the length of all spans.

    Returns
    -------
    float or None
        None if it is unknown, or if the spans are shorter than a tick of the kernel (10 ms).
    """
    busy, total = (sum(end[part] - begin[part] for begin, end in spans) for part in (0, 1))
    if seconds is None or not total:
        return busy / total if total else None
    return min(1.0, busy / (seconds * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)))


AWAKE = Path("/dev/cpu_dma_latency")


@contextmanager
def inhibit_cpu_idle() -> Iterator[bool]:
    """Keep idle processors from sleeping, if the kernel permits this; yield whether it does.

    A sleeping processor delays timers and wake-ups by its exit latency; a virtual one, until its host schedules it.
    The kernel's limit on that latency is the number of microseconds that a process writes to ``/dev/cpu_dma_latency``,
    for as long as the process keeps the file open (PM QoS).
    """
    with ExitStack() as held:
        try:
            held.enter_context(AWAKE.open("wb", buffering=0)).write(bytes(4))
            allowed = True
        except OSError:
            allowed = False
        yield allowed


def listening(pid: int | str = "self") -> list[tuple[str, int]]:
    """Return the addresses and TCP ports at which a process listens, from Linux's /proc; none if it has ended."""
    owned = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # the process may have closed it
                owned.add(str(descriptor.readlink()))
    sockets = []
    for table in ("tcp", "tcp6"):
        rows: list[str] = []
        with suppress(OSError):
            rows = Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        for row in rows:
            columns = row.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in owned:
                address, _, port = columns[1].partition(":")
                sockets.append((_address(address), int(port, 16)))
    return sorted(sockets)


def _address(text: str) -> str:
    """Return an address from /proc/net/tcp, which has 32-bit words in the machine's byte order."""
    words = [int(text[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(text), 8)]
    return str(ip_address(b"".join(words)))


def where_it_listens() -> str:
    """Return the addresses at which this process listens as text, with a warning for all-interface addresses."""
    if not Path("/proc/self/fd").exists():
        return "listens where gloo chose to"
    addresses = sorted({address for address, _ in listening()})
    everywhere = [address for address in addresses if ip_address(address).is_unspecified]
    warning = f" (warning: {', '.join(everywhere)} is every address of this host)" if everywhere else ""
    return f"listens at {', '.join(addresses) or 'no address'}{warning}"


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
