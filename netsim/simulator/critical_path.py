"""Critical paths: the chain of events that led to an instant. The longest one shows the bottleneck of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

LONGEST = 4096
"""Events after which a chain is summed up, so that the memory of a long run stays constant."""


class CriticalPath:
    """A chain of (event, picoseconds). Chains share their beginnings.

    The durations of a worker's path always sum to the present instant: a worker that waited for a message continues the
    path of that message.

    >>> path = CriticalPath.start(0).then("gradient", 5).then("latency", 2).then("gradient", 1)
    >>> path.totals()["gradient"], path.totals().total()
    (6, 8)
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

    def __repr__(self) -> str:
        return f"CriticalPath(…, {self._what!r} for {self._duration} ps)"

    @classmethod
    def start(cls, now: int) -> CriticalPath:
        """Return the path of a worker that starts at `now`, in picoseconds."""
        return cls(None, "start", now)

    @classmethod
    def after(cls, totals: Counter[Hashable]) -> CriticalPath:
        """Return a path that continues another one, of which only the totals are known."""
        path = cls.start(0)
        path._summed = totals
        return path

    def then(self, what: Hashable, duration: int) -> CriticalPath:
        """Return this path extended by `duration` picoseconds of `what`."""
        return CriticalPath(self, what, duration) if duration else self

    def totals(self) -> Counter[Hashable]:
        """Return the picoseconds of each event along the path."""
        totals: Counter[Hashable] = Counter()
        link: CriticalPath | None = self
        while link is not None:
            if link._summed is not None:
                totals.update(link._summed)
            else:
                totals[link._what] += link._duration
            link = link._previous
        return totals
