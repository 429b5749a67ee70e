"""Backward passes in a trace of torch.profiler: when each gradient is complete, and how long a step computes.

The trace is the JSON of ``prof.export_chrome_trace``, also compressed by gzip. A step is an annotation
``ProfilerStep#N``, which ``prof.step()`` ends. A gradient is complete when its ``AccumulateGrad`` has ended and all
kernels launched until then have ended, too. Communication does not count: neither NCCL's kernels, nor, in a trace with
collectives, the wait between the last gradient and the optimizer. Each time is the median over the steps.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import math
import statistics
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from netsim._util.errors import UsageError, check_file_name, unreadable
from netsim._util.storage import MOST_READ, content_of

SUFFIXES = (".json", ".json.gz")
"""The endings of a trace's name."""
MICROSECONDS = 1e-6
HOW = "record steps with torch.profiler.schedule and prof.step(), as docs/overlap.md shows"


class BackwardTrace(NamedTuple):
    """The median step of a trace.

    Parameters
    ----------
    origin
        The beginning of error messages: the name of the file.
    steps
        The number of steps.
    ready_s
        When each gradient is complete, in seconds after the begin of the step, in the order of completion, (n,).
    elements
        The elements of each gradient, in the same order; None if the trace has no shapes.
    update_s
        The seconds that a step computes after the last gradient is complete: the optimizer.
    """

    origin: str
    steps: int
    ready_s: tuple[float, ...]
    elements: tuple[int, ...] | None
    update_s: float

    @property
    def gradient_s(self) -> float:
        """The seconds from the begin of a step until all gradients are complete."""
        return self.ready_s[-1]

    @property
    def tensors(self) -> tuple[int, ...]:
        """The elements of each tensor, first layer first; empty if the trace has no shapes."""
        return () if self.elements is None else self.elements[::-1]

    def check(self, elements: int) -> None:
        """Raise UsageError if the gradients of the trace have another number of elements in all."""
        if self.elements is not None and sum(self.elements) != elements:
            here = sum(self.elements)
            raise UsageError(
                f"{self.origin} has gradients of {here:,} elements in all, and the model has {elements:,}; trace this "
                f"model, or give --timing-only --elements {here}"
            )

    def shares(self, tensors: Sequence[int]) -> list[float]:
        """Return, for each tensor, the fraction of the gradient's time after which the tensor is complete.

        Parameters
        ----------
        tensors
            The elements of each tensor of the model, first layer first. The last one is the first to be complete.

        Raises
        ------
        UsageError
            If the trace is not one of this model.
        """
        sizes = self.elements
        if sizes is None and len(tensors) != len(self.ready_s):
            raise UsageError(
                f"{self.origin} has {len(self.ready_s)} gradients a step, without shapes, and the model has "
                f"{len(tensors)} tensors; record with record_shapes=True, or trace this model"
            )
        self.check(sum(tensors))
        known = [*accumulate(sizes or tensors[::-1])]
        wanted = accumulate(reversed(tensors))
        # bisect finds the first gradient after which a bucket's last element is complete.
        at = [bisect_right(known, elements - 1) for elements in wanted]
        return [self.ready_s[index] / self.gradient_s for index in at][::-1]


def is_trace(text: str) -> bool:
    """Return whether a value of --ready is the name of a trace."""
    return text.lower().endswith(SUFFIXES)


def read_trace(name: str) -> BackwardTrace:
    """Return the median step of a trace.

    Raises
    ------
    UsageError
        For a file that cannot be read, that is no trace, or that has no steps or no backward pass.
    """
    check_file_name("ready", name)
    path = Path(name)
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(f"ready {name!r}", error) from None
    return _read(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int) -> BackwardTrace:
    origin = f"ready {str(path)!r}"
    events = list(_events(_unpacked(content_of(path, origin), origin), origin))
    steps = sorted((each for each in events if each.name.startswith("ProfilerStep")), key=lambda each: each.start)
    steps = [step for step in steps if step.kind in ("", "user_annotation", "cpu_op")]  # not the copy on the GPU
    if not steps:
        raise UsageError(
            f"{origin} has no steps; {HOW}; a schedule that goes on has begun a new cycle and dropped the steps: add "
            "repeat=1 to it, or export in on_trace_ready"
        )
    gradients = sorted((each for each in events if each.is_gradient), key=lambda each: each.end)
    in_steps = [(step, [each for each in gradients if step.start <= each.start < step.end]) for step in steps]
    count, _ = max(Counter(len(found) for _, found in in_steps if found).items(), key=lambda i: i[::-1], default=(0, 0))
    if not count:
        raise UsageError(
            f"{origin} has no backward pass in its steps; profile loss.backward() with ProfilerActivity.CPU"
        )
    alike = [(step, found) for step, found in in_steps if len(found) == count]
    device = _Kernels(events)
    communicates = any(each.is_collective for each in events)
    optimizers = [each for each in events if each.name.startswith("Optimizer.step")]
    timed = [_step(step, found, device, optimizers if communicates else []) for step, found in alike]
    ready = tuple(statistics.median(instants) for instants in zip(*(instants for instants, _ in timed), strict=True))
    if not ready[0] > 0:
        raise UsageError(f"{origin} has gradients that are complete before their step begins; {HOW}")
    sizes = [each.elements for each in alike[0][1]]
    known = tuple(size for size in sizes if size is not None)
    update = statistics.median(update for _, update in timed)
    return BackwardTrace(origin, len(alike), ready, known if len(known) == count else None, update)


class _Event(NamedTuple):
    """An event of a trace with a duration, in microseconds."""

    name: str
    kind: str
    start: float
    end: float
    details: dict[str, Any]

    @property
    def is_gradient(self) -> bool:
        """Whether the event completes a gradient."""
        return self.name.rpartition("::")[2] == "AccumulateGrad" and not self.name.startswith("autograd::engine")

    @property
    def is_collective(self) -> bool:
        """Whether the event is a part of communication between ranks."""
        return self.name.startswith(("c10d::", "nccl", "gloo:", "mpi:", "record_param_comms"))

    @property
    def elements(self) -> int | None:
        """The elements of the event's first tensor; None if the trace has no shapes."""
        shapes = self.details.get("Input Dims")
        shape = shapes[0] if isinstance(shapes, list) and shapes else None
        if not isinstance(shape, list) or not all(isinstance(side, int) and 0 < side < 2**40 for side in shape):
            return None
        return min(math.prod(shape), 2**60)


class _Kernels:
    """The kernels of a trace, in the order in which they were launched."""

    def __init__(self, events: Sequence[_Event]) -> None:
        launched = {_correlation(each): each.start for each in events if each.kind in ("cuda_runtime", "cuda_driver")}
        work = ("kernel", "gpu_memcpy", "gpu_memset")
        kernels = [each for each in events if each.kind in work and not each.name.startswith("nccl")]
        pairs = [(launched[key], each) for each in kernels if (key := _correlation(each)) in launched]
        pairs.sort(key=lambda pair: pair[0])
        self._launches = [launch for launch, _ in pairs]
        self._starts = [each.start for _, each in pairs]
        self._ends = [*accumulate((each.end for _, each in pairs), max)]

    def done(self, instant: float) -> float:
        """Return when all that was launched until an instant is complete."""
        before = bisect_right(self._launches, instant)
        return max(instant, self._ends[before - 1]) if before else instant

    def begins(self, instant: float) -> float:
        """Return when the first kernel begins that is launched after an instant; the instant if there is none."""
        after = bisect_right(self._launches, instant)
        return max(instant, self._starts[after]) if after < len(self._starts) else instant


def _correlation(event: _Event) -> Any:
    key = event.details.get("correlation")
    return key if isinstance(key, int) else None


def _step(
    step: _Event, gradients: Sequence[_Event], device: _Kernels, optimizers: Sequence[_Event]
) -> tuple[list[float], float]:
    """Return when each gradient of a step is complete, and how long the step computes after that, in seconds.

    With `optimizers`, the wait for communication before the first of them in the step does not count.
    """
    begin, end = device.done(step.start), device.done(step.end)
    ready = [*accumulate((device.done(each.end) for each in gradients), max)]
    later = [each.start for each in optimizers if gradients[-1].end <= each.start < step.end]
    resumed = device.begins(min(later)) if later else ready[-1]
    return [(instant - begin) * MICROSECONDS for instant in ready], max(0.0, end - resumed) * MICROSECONDS


def _events(content: bytes, origin: str) -> Iterator[_Event]:
    """Yield the events of a trace that have a duration."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin} is not JSON: {error}") from None
    listed = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(listed, list):
        raise UsageError(f"{origin} has no traceEvents; give the file that prof.export_chrome_trace writes")
    for each in listed:
        if isinstance(each, dict) and each.get("ph") == "X" and isinstance(each.get("name"), str):
            start, duration, details = each.get("ts"), each.get("dur"), each.get("args")
            if _is_time(start) and _is_time(duration):
                kind = str(each.get("cat", "")).lower()
                yield _Event(each["name"], kind, start, start + duration, details if isinstance(details, dict) else {})


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**62


def _unpacked(content: bytes, origin: str) -> bytes:
    """Return the content of a file that may be compressed by gzip."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MOST_READ + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{origin} cannot be unpacked: {error}; export the trace again") from None
    if len(unpacked) > MOST_READ:
        raise UsageError(f"{origin} has more than {MOST_READ:,} bytes unpacked; record fewer steps")
    return unpacked
