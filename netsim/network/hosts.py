"""The processor of a simulated host: computations and per-message work, one after another."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, Self, TypeVar

from netsim._util.units import HORIZON_PS, beyond_horizon


class Chain(Protocol):
    """A chain of events that can be extended; see :class:`netsim.simulator.critical_path.CriticalPath`."""

    def then(self, what: Hashable, duration: int) -> Self:
        """Return the chain extended by `duration` picoseconds of `what`."""


PathT = TypeVar("PathT", bound=Chain)


class Host(Generic[PathT]):
    """A processor that serves first come, first served, without interruption.

    `free_at` is the instant at which all work so far is done, in picoseconds.
    """

    __slots__ = ("_path", "free_at")

    def __init__(self) -> None:
        self.free_at = 0
        self._path: PathT | None = None

    def __repr__(self) -> str:
        return f"Host(free at {self.free_at} ps)"

    def occupy(self, now: int, path: PathT, what: Hashable, duration: int) -> PathT:
        """Do `what` for `duration` picoseconds as soon as the host is free; return the path to its end, `free_at`.

        Work that waits for the host continues the path of the work before it.
        """
        if self.free_at > now and self._path is not None:
            path = self._path
        self.free_at = max(now, self.free_at) + duration
        if self.free_at >= HORIZON_PS:
            raise beyond_horizon()
        self._path = path.then(what, duration)
        return self._path
