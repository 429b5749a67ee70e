"""Streams, events and CUDA graphs of the fake GPU: they find uses of memory that nothing orders.

Kernels run when they are launched, so a stream that does not wait for another one gives the right result here, and
perhaps a wrong one on a GPU. Therefore every stream, and the CPU, has a vector clock: the last kernel of each stream
that surely ended before. A kernel that uses memory which another stream may still be writing, or that writes memory
which another stream may still be reading, is a race. So is memory that is freed, for the next kernel of the stream
that allocated it, while another stream may still use it.

A graph holds its operators with their memory, and a replay runs them again. During the capture nothing is computed on
a GPU; here, what it wrote is NaN afterwards. A wait during the capture is an error, as it is on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

Clock = dict["FakeStream", int]


def _join(clock: Clock, other: Clock) -> None:
    for stream, time in other.items():
        clock[stream] = max(time, clock.get(stream, 0))


class FakeStream:
    """A stream of a GPU, with the kernels that ended before its next one begins."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.gpu = gpu_of(device)
        self.clock: Clock = {self: 0}

    def synchronize(self) -> None:
        """Let the CPU wait until all kernels of the stream have ended."""
        order.waits("stream", self)

    def wait_stream(self, other: FakeStream) -> None:
        """Let the next kernel begin after those that `other` has."""
        _join(self.clock, other.clock)

    def wait_event(self, event: FakeEvent) -> None:
        """Let the next kernel begin after those before an event."""
        _join(self.clock, event.clock)

    def record_event(self) -> FakeEvent:
        """Return an event at this place of the stream."""
        event = FakeEvent()
        event.record(self)
        return event


class FakeEvent:
    """An event of a stream; the clock that it reads is the number of kernels launched, a millisecond each."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.launches: int | None = None
        self.clock: Clock = {}

    def record(self, stream: FakeStream | None = None) -> None:
        """Note what the stream has done at this place, and the present number of launches."""
        self.launches = order.launches()
        self.clock = dict((order.current_stream() if stream is None else stream).clock)

    def synchronize(self) -> None:
        """Let the CPU wait until the stream has come to this event."""
        assert self.launches is not None, "an event that was not recorded"
        order.waits("event", self)

    def elapsed_time(self, later: FakeEvent) -> float:
        """Return the milliseconds between this event and a later one."""
        assert self.launches is not None
        assert later.launches is not None
        return float(later.launches - self.launches)


@dataclass
class _Memory:
    """The kernels that used a piece of memory, each as a stream and its time there."""

    stream: FakeStream
    written: tuple[FakeStream, int] | None = None
    read: Clock = field(default_factory=dict)


@dataclass
class Operator:
    """An operator on the GPU: its call and result in main memory, and the addresses that it reads and writes."""

    name: str
    call: tuple[Any, Sequence[Any], dict[str, Any]]
    made: Any
    read: set[int]
    written: set[int]
    kept: Any
    """The result on the GPU, whose memory is the graph's."""


class FakeGraph:
    """A CUDA graph."""

    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.stream: FakeStream | None = None

    def replay(self) -> None:
        """Run the operators again, with the memory that they had, as one launch on the current stream."""
        assert self.operators, "a graph without a capture"
        order.launched("graph")
        used, stream = self.operators, order.current_stream(self.stream.gpu if self.stream else None)
        order.used(
            "a graph",
            stream,
            set().union(*(each.read for each in used)),
            set().union(*(each.written for each in used)),
        )
        with _disable_current_modes(), torch.no_grad():
            for each in used:
                func, args, kwargs = each.call
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(each.made), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Order:
    """What happened before what on the fake GPU; `counts` are those of :mod:`tests.fake_gpu`."""

    def __init__(self, counts: Any) -> None:
        self.counts = counts
        self.races: list[str] = []
        self.capturing: FakeGraph | None = None
        self._cpu: Clock = {}
        self._memory: dict[int, _Memory] = {}
        self._own = threading.local()
        self._defaults: dict[torch.device, FakeStream] = {}
        self._lock = threading.RLock()
        self._pools: set[object] = set()

    def launches(self) -> int:
        """Return the number of kernels launched so far."""
        return int(self.counts.launches)

    def launched(self, name: str) -> None:
        """Count a launch."""
        self.counts.launched(name)

    def current_stream(self, device: Any = None) -> FakeStream:
        """Return the stream of a GPU to which this thread launches."""
        gpu = gpu_of(device)
        chosen: dict[torch.device, FakeStream] = getattr(self._own, "streams", {})
        if gpu not in chosen:
            return self._defaults.setdefault(gpu, FakeStream(gpu))
        return chosen[gpu]

    @contextmanager
    def stream(self, stream: FakeStream | None) -> Iterator[None]:
        """Let this thread launch to a stream within this block."""
        if stream is None:
            yield
            return
        before = getattr(self._own, "streams", {})
        self._own.streams = before | {stream.gpu: stream}
        try:
            yield
        finally:
            self._own.streams = before

    @contextmanager
    def graph(
        self, graph: FakeGraph, pool: object, stream: FakeStream, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        """Capture what this block launches.

        After an error, torch before 2.12 leaves the stream the current one, and the pool of memory in a capture.
        """
        if self._pools:
            raise RuntimeError("INTERNAL ASSERT FAILED: captures_underway.empty()")
        self.waits("all streams", *self._streams())
        self.counts.waits -= 1  # counted as a synchronisation
        before = getattr(self._own, "streams", {})
        self._own.streams = before | {stream.gpu: stream}
        self._pools.add(pool)
        graph.stream, self.capturing = stream, graph
        try:
            yield
        except BaseException:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
        finally:
            self.capturing = None
        self._pools.remove(pool)
        self._own.streams = before
        with _disable_current_modes(), torch.no_grad():
            for each in graph.operators:
                for leaf in tree_leaves(each.made):
                    if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                        leaf.fill_(torch.nan)

    def end_allocation(self, _gpu: int, pool: object) -> None:
        """End that memory is allocated for a capture."""
        self._pools.remove(pool)

    def waits(self, what: str, *befores: FakeStream | FakeEvent) -> None:
        """Let the CPU wait for streams or events."""
        if self.capturing is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
        self.counts.waited(what)
        self.waited(*befores)

    def waited(self, *befores: FakeStream | FakeEvent) -> None:
        """Note that what streams or events had before has ended."""
        with self._lock:
            for each in befores:
                _join(self._cpu, each.clock)

    def synchronize(self, *_: Any) -> None:
        """Wait for everything."""
        self.counts.synchronised += 1
        self.waited(*self._streams())

    def ran(self, operator: Operator, gpus: set[torch.device]) -> None:
        """Note an operator, on the current stream of its GPU; a copy between GPUs is on both."""
        first, *others = (self.current_stream(gpu) for gpu in sorted(gpus, key=str))
        if self.capturing is not None and first is self.capturing.stream:
            self.capturing.operators.append(operator)
            return
        for other in others:
            first.wait_stream(other)
        self.used(operator.name, first, operator.read, operator.written)
        for other in others:
            other.wait_stream(first)

    def used(self, name: str, stream: FakeStream, read: set[int], written: set[int]) -> None:
        """Note that the next kernel of a stream reads and writes memory, and whether that is a race."""
        with self._lock:
            _join(stream.clock, self._cpu)
            stream.clock[stream] += 1
            for address in read | written:
                if (memory := self._memory.get(address)) is None:  # of an empty tensor
                    continue
                users = [memory.written] if memory.written else []
                users += memory.read.items() if address in written else ()
                if any(not self._ended(stream, *user) for user in users):
                    self.races.append(f"{name} uses memory that another stream may still use")
                memory.read[stream] = stream.clock[stream]
                if address in written:
                    memory.written = stream, stream.clock[stream]

    def allocated(self, address: int, gpu: torch.device) -> None:
        """Note memory that the current stream allocated."""
        self._memory[address] = _Memory(self.current_stream(gpu))

    def freed(self, address: int) -> None:
        """Note that memory was freed, and whether another stream may still use it."""
        with self._lock:
            memory = self._memory.pop(address, _Memory(FakeStream()))
            used = [*memory.read.items(), *([memory.written] if memory.written else ())]
            if any(not self._ended(memory.stream, *user) for user in used):
                self.races.append("memory was freed that another stream than the one that allocated it may still use")

    def _ended(self, stream: FakeStream, user: FakeStream, time: int) -> bool:
        """Return whether a kernel of `user` has ended before the next one of `stream` begins."""
        return time <= max(stream.clock.get(user, 0), self._cpu.get(user, 0))

    def _streams(self) -> list[FakeStream]:
        known = [memory.stream for memory in self._memory.values()]
        users = [user for memory in self._memory.values() for user in memory.read]
        return list(dict.fromkeys([*known, *users, *self._defaults.values()]))


def gpu_of(device: Any) -> torch.device:
    """Return a GPU by its name; "cuda" and None are the first one."""
    found = torch.device("cuda" if device is None else device)
    return torch.device("cuda:0") if found.index is None else found


order = Order(None)
"""The order of the fake GPU that is in use, which :func:`tests.fake_gpu.fake_gpu` sets."""
