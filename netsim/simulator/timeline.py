"""What a rank was at: when it computed, and when it waited for messages, also at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from netsim.comm.worker import COMPUTE


class Spent(NamedTuple):
    """How long a rank computed, selected (while it did not compute), and waited for messages.

    `hidden` is how much of the last was while it computed or selected.
    """

    compute: float = 0
    select: float = 0
    communication: float = 0
    hidden: float = 0

    def plus(self, other: Spent) -> Spent:
        """Return the sum of both."""
        return Spent(*(one + more for one, more in zip(self, other, strict=True)))


class Timeline:
    """Intervals of one rank, in any unit of time; several may overlap."""

    def __init__(self) -> None:
        self._computing: list[tuple[float, float]] = []
        self._selecting: list[tuple[float, float]] = []
        self._communicating: list[tuple[float, float]] = []

    def computed(self, work: str, start: float, end: float) -> None:
        """Note that it computed, for what `work`, from `start` to `end`."""
        (self._computing if work in COMPUTE else self._selecting).append((start, end))

    def communicated(self, start: float, end: float) -> None:
        """Note that one of its coroutines waited for a message."""
        self._communicating.append((start, end))

    def spent(self) -> Spent:
        """Return how long it was at what since this was last asked; ask when nothing is under way: after a round."""
        busy = [*self._computing, *self._selecting]
        compute, either = covered(self._computing), covered(busy)
        communication = covered(self._communicating)
        hidden = communication + either - covered([*busy, *self._communicating])
        for intervals in (self._computing, self._selecting, self._communicating):
            intervals.clear()
        return Spent(compute, either - compute, communication, hidden)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how much time lies in at least one of the intervals."""
    total: float = 0
    until: float | None = None
    for start, end in sorted(intervals):
        if until is None or start > until:
            total, until = total + (end - start), end
        elif end > until:
            total, until = total + (end - until), end
    return total
