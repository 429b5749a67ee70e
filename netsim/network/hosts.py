"""A host's processor: it computes, and takes messages in and out, one thing after another."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, Self, TypeVar

from netsim._util.units import HORIZON_PS, beyond_horizon


class Chain(Protocol):
    """A chain of events that can be made longer; see :class:`netsim.simulator.critical_path.CriticalPath`."""

    def then(self, what: Hashable, duration: int) -> Self:
        """Return the chain, longer by `duration` picoseconds of `what`."""


PathT = TypeVar("PathT", bound=Chain)


class Host(Generic[PathT]):
    """First come, first served, nothing interrupted; `free_at` is when all that came is done, in picoseconds."""

    __slots__ = ("_path", "free_at")

    def __init__(self) -> None:
        self.free_at = 0
        self._path: PathT | None = None

    def occupy(self, now: int, path: PathT, what: Hashable, duration: int) -> PathT:
        """Do `what` for `duration` picoseconds as soon as the host is free; return the path to its end, `free_at`.

        What waits for the host takes over the path of what it waited for.
        """
        if self.free_at > now and self._path is not None:
            path = self._path
        self.free_at = max(now, self.free_at) + duration
        if self.free_at >= HORIZON_PS:
            raise beyond_horizon()
        self._path = path.then(what, duration)
        return self._path
