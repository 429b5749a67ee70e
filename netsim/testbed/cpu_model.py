"""What ranks of real hosts work on: cores that are shared, and for how long those had nothing to do with messages."""

from __future__ import annotations

import math
from collections.abc import Callable

import simpy

from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Link, Route
from netsim.network.flows import Network


class Machine:
    """A number of cores, as a link on which each carries 10¹² bit/s, and for how long they worked on no message."""

    __slots__ = ("_count", "_rested", "_since", "_wanted", "route")

    def __init__(self, number: int, cores: int, now: int) -> None:
        self.route = Route((Link(number, "cores", f"{cores} cores", cores * PICOSECONDS, 0.0),), 0)
        self._count, self._wanted, self._rested, self._since = cores, 0.0, 0.0, now

    def rested(self, now: int) -> float:
        """Return the picoseconds for which cores have worked on no message, in the mean over cores."""
        self._rested += max(0.0, 1 - self._wanted / self._count) * (now - self._since)
        self._since = now
        return self._rested

    def want(self, more: float, now: int) -> None:
        """Say that so many cores more are wanted from now on for messages."""
        self.rested(now)
        self._wanted += more


class Processors:
    """The cores of ranks, `shared` by all of them or (None) one of each rank's own; who wants some gets equal parts."""

    def __init__(self, environment: simpy.Environment, ranks: int, shared: int | None) -> None:
        self._environment = environment
        self._work = Network(environment)
        now = int(environment.now)
        if shared is None:
            self._machines = [Machine(rank, 1, now) for rank in range(ranks)]
        else:
            self._machines = [Machine(0, shared, now)] * ranks

    def run(
        self, rank: int, charge: int, ended: Callable[[], object], *, most: float = 1.0, on_message: bool = True
    ) -> None:
        """Work for `charge` picoseconds of a core where a rank is, on no more than `most` of one; then call `ended`."""
        machine, wanted = self._machines[rank], most if on_message else 0.0

        def end() -> None:
            machine.want(-wanted, self._now)
            ended()

        machine.want(wanted, self._now)
        # A picosecond of a core is a bit of its link, and links carry bytes.
        self._work.start(machine.route, math.ceil(charge / 8), lambda _: end(), cap_bps=most * PICOSECONDS)

    def rested(self, rank: int) -> float:
        """Return the picoseconds for which cores where a rank is worked on no message, in the mean over them."""
        return self._machines[rank].rested(self._now)

    @property
    def _now(self) -> int:
        return int(self._environment.now)
