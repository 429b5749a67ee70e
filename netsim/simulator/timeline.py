"""The timeline of one rank: when it computed, selected and waited for messages, which may overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from netsim.comm.worker import COMPUTE, Worker
from netsim.simulator.observer import Computation, RunObserver
from netsim.training.loop import Trained


class Spent(NamedTuple):
    """The times for which a rank computed, selected without computing, and waited for messages.

    `hidden` is the part of `communication` during which the rank computed or selected.
    """

    compute: float = 0
    select: float = 0
    communication: float = 0
    hidden: float = 0

    def plus(self, other: Spent) -> Spent:
        """Return the sum of both, field by field."""
        return Spent(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


class Timeline:
    """The intervals of one rank in a step, in any unit of time; they may overlap.

    A wait for a message belongs to the step in which it ends. It may have begun up to `steps` steps before that end.
    """

    def __init__(self, steps: int = 1) -> None:
        self._earlier: deque[list[tuple[float, float]]] = deque(maxlen=max(0, steps - 1))
        self._computing: list[tuple[float, float]] = []
        self._selecting: list[tuple[float, float]] = []
        self._communicating: list[tuple[float, float]] = []

    def __repr__(self) -> str:
        intervals = (self._computing, self._selecting, self._communicating)
        return "Timeline({} computations, {} selections, {} waits)".format(*map(len, intervals))

    def computed(self, work: str, start: float, end: float) -> None:
        """Add a computation of a kind of `work`, from `start` to `end`."""
        (self._computing if work in COMPUTE else self._selecting).append((start, end))

    def communicated(self, start: float, end: float) -> None:
        """Add a wait of one of the rank's coroutines for a message, from `start` to `end`."""
        self._communicating.append((start, end))

    def spent(self) -> Spent:
        """Return the times since the last call, and begin anew; call it after a round."""
        busy = [*self._computing, *self._selecting]
        compute, either = covered(self._computing), covered(busy)
        communication = covered(self._communicating)
        recent = [*chain(*self._earlier), *busy]
        hidden = communication + covered(recent) - covered([*recent, *self._communicating])
        self._earlier.append(busy)
        for intervals in (self._computing, self._selecting, self._communicating):
            intervals.clear()
        return Spent(compute, either - compute, communication, hidden)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of the intervals.

    >>> covered([(0, 2), (1, 3), (5, 6)])
    4
    """
    total: float = 0
    until: float | None = None
    for start, end in sorted(intervals):
        if until is None or start > until:
            total, until = total + (end - start), end
        elif end > until:
            total, until = total + (end - until), end
    return total


class TimelineObserver(RunObserver):
    """Fills a timeline for each rank, and adds the times of each step to the rank's tally, in picoseconds."""

    def __init__(self, ranks: int, steps: int = 1) -> None:
        self._timelines = [Timeline(steps) for _ in range(ranks)]

    def computed(self, computation: Computation) -> None:
        """Add a computation to its rank's timeline."""
        self._timelines[computation.rank].computed(computation.work, computation.start, computation.end)

    def waited(self, rank: int, start: int, end: int) -> None:
        """Add a wait for a message to the rank's timeline."""
        self._timelines[rank].communicated(start, end)

    def step_ended(self, worker: Worker, trained: Trained) -> None:
        """Add the step's times to the worker's tally, and begin the next step's timeline."""
        spent = self._timelines[worker.rank].spent()
        worker.tally.update({name: int(time) for name, time in spent._asdict().items()})
