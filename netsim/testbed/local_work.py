"""CPU time of each computation of training, from a run of all ranks in memory; nothing is sent.

Several ranks make that run at the same time and pause before every call. So each call finds the caches as other ranks
left them, as in training. A thread's CPU time is counted, not wall-clock time.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netsim._util.device import is_gpu, wait_for_gpu
from netsim._util.units import PICOSECONDS
from netsim.comm.worker import Compute, Worker, evaluate
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.scheduler import Done, InMemoryTransport
from netsim.training.costs import elements_of

PAUSE_S = 0.001
"""Pause before every timed call, in seconds."""
CONCURRENT_RANKS = 4
"""Ranks that measure at the same time."""


class TimedTransport(InMemoryTransport):
    """An in-memory transport that times computations.

    Parameters
    ----------
    device
        Where computations run. On a GPU their wall-clock time counts, until the GPU has done them.

    Attributes
    ----------
    seconds : dict
        Seconds of every call by :func:`key_of`. Calls of the first step, which costs more, are left out, as they
        are in real training.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._clock = time.perf_counter if is_gpu(device) else time.thread_time
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Time each stage of a computation, and hand on its result."""

        def timed(stage: Compute[Any], args: list[Any]) -> Any:
            time.sleep(PAUSE_S)
            began = self._clock()
            result = stage.function(*args)
            wait_for_gpu(self._device)
            if worker.step > 0:
                self.seconds[key_of(stage)].append(self._clock() - began)
            return result

        done(evaluate(request, timed), path)


def key_of(request: Compute[Any]) -> str:
    """Return a computation's kind, function and size to a factor of two, as text."""
    elements = sum(map(elements_of, request.args))
    return f"{request.work} {request.function.__qualname__} {elements.bit_length()}"


def medians(runs: list[Mapping[str, list[float]]]) -> dict[str, float]:
    """Return the median seconds of each computation over all ranks and calls."""
    merged: defaultdict[str, list[float]] = defaultdict(list)
    for seconds in runs:
        for key, times in seconds.items():
            merged[key] += times
    return {key: statistics.median(times) for key, times in merged.items()}


@dataclass(frozen=True, slots=True)
class TimedCosts:
    """Charges measured seconds. A size without a measurement is charged in proportion to the nearest measured size.

    Parameters
    ----------
    seconds
        Seconds of each computation by :func:`key_of`.
    """

    seconds: Mapping[str, float]

    def picoseconds(self, request: Compute[Any], _: Any) -> int:
        """Return the time to charge for a computation."""
        key = key_of(request)
        if key not in self.seconds:
            name, _, magnitude = key.rpartition(" ")
            measured = [split for each in self.seconds if (split := each.rpartition(" "))[0] == name]
            if not measured:
                return 0
            nearest = min((int(size) for _, _, size in measured), key=lambda size: abs(size - int(magnitude)))
            return round(self.seconds[f"{name} {nearest}"] * 2.0 ** (int(magnitude) - nearest) * PICOSECONDS)
        return round(self.seconds[key] * PICOSECONDS)
