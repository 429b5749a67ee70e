"""The chain of events that led to an instant: what a run is bound by is read off the longest one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

LONGEST = 4096
"""Links of a chain after which it is summed up, so that a long run's memory stays flat."""


class CriticalPath:
    """A chain of (what, picoseconds); chains share their beginnings.

    The durations of a worker's path always sum to the present: a worker that waits takes over the
    path of the message that it waited for.
    """

    __slots__ = ("_depth", "_duration", "_previous", "_summed", "_what")

    def __init__(self, previous: CriticalPath | None, what: Hashable, duration: int) -> None:
        self._previous = previous
        self._what = what
        self._duration = duration
        self._depth: int = 1 if previous is None else previous._depth + 1
        self._summed: Counter[Hashable] | None = None
        if self._depth > LONGEST:
            self._summed = self.totals()
            self._previous, self._depth = None, 1

    @classmethod
    def start(cls, now: int) -> CriticalPath:
        """Return the path of a worker that starts at `now`."""
        return cls(None, "start", now)

    @classmethod
    def after(cls, totals: Counter[Hashable]) -> CriticalPath:
        """Return a path that begins after another one, of which only the totals are known."""
        path = cls.start(0)
        path._summed = totals
        return path

    def then(self, what: Hashable, duration: int) -> CriticalPath:
        """Return this path, longer by `duration` picoseconds of `what`."""
        return CriticalPath(self, what, duration) if duration else self

    def totals(self) -> Counter[Hashable]:
        """Return the picoseconds spent on each thing along the path."""
        totals: Counter[Hashable] = Counter()
        link: CriticalPath | None = self
        while link is not None:
            if link._summed is not None:
                totals.update(link._summed)
            else:
                totals[link._what] += link._duration
            link = link._previous
        return totals
