"""What computations of training cost on this machine, one by one, in a run of all ranks in memory.

Several ranks make that run at the same time and pause before every call, so that each finds the processor's caches
as others left them, as it does in training, and is charged by its processor's time, not by the clock. Nothing is sent.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netsim._util.units import PICOSECONDS
from netsim.comm.worker import Compute, Worker, evaluate
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.in_memory import InMemoryTransport
from netsim.simulator.scheduler import Done
from netsim.training.costs import elements_of

PAUSE_S = 0.001
COMPANY = 4
"""Ranks that measure at the same time."""


class TimedTransport(InMemoryTransport):
    """Memory as a network; `seconds` are the processor's time of every call after the first step, by :func:`key_of`.

    The first costs more than those after it, and is not timed in real training either.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        def timed(stage: Compute[Any], args: list[Any]) -> Any:
            time.sleep(PAUSE_S)
            began = time.thread_time()
            result = stage.function(*args)
            if worker.step > 0:
                self.seconds[key_of(stage)].append(time.thread_time() - began)
            return result

        done(evaluate(request, timed), path)


def key_of(request: Compute[Any]) -> str:
    """Return which computation it is, and how large, to a factor of two."""
    elements = sum(map(elements_of, request.args))
    return f"{request.work} {request.function.__qualname__} {elements.bit_length()}"


def medians(everyones: list[Mapping[str, list[float]]]) -> dict[str, float]:
    """Return the median time of each computation over all ranks and calls."""
    together: defaultdict[str, list[float]] = defaultdict(list)
    for seconds in everyones:
        for key, times in seconds.items():
            together[key] += times
    return {key: statistics.median(times) for key, times in together.items()}


@dataclass(frozen=True, slots=True)
class TimedCosts:
    """Charges what ranks measured; a size that none of them met is charged like the nearest."""

    seconds: Mapping[str, float]

    def picoseconds(self, request: Compute[Any], _: Any) -> int:
        key = key_of(request)
        if key not in self.seconds:
            name, _, magnitude = key.rpartition(" ")
            known = [each.rpartition(" ") for each in self.seconds if each.rpartition(" ")[0] == name]
            if not known:
                return 0
            nearest = min((int(size) for _, _, size in known), key=lambda size: abs(size - int(magnitude)))
            return round(self.seconds[f"{name} {nearest}"] * 2.0 ** (int(magnitude) - nearest) * PICOSECONDS)
        return round(self.seconds[key] * PICOSECONDS)
