"""CPU load under concurrency: ranks of one machine share its cores, and threads fall asleep while those are idle."""

from __future__ import annotations

import math
from collections.abc import Callable

import simpy

from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Link, Route
from netsim.network.flows import Network


class CorePool:
    """Cores of one machine, shared max-min like a link on which each core carries 10¹² bit/s.

    The pool also integrates for how long its cores had no message to work on.
    """

    __slots__ = ("_busy_cores", "_cores", "_idle_ps", "_since", "route")

    def __init__(self, index: int, cores: int, now: int) -> None:
        self.route = Route((Link(index, "cores", f"{cores} cores", cores * PICOSECONDS, 0.0),), 0)
        self._cores, self._busy_cores, self._idle_ps, self._since = cores, 0, 0.0, now

    def idle_ps(self, now: int) -> float:
        """Return the picoseconds without message work since the start, averaged over the cores."""
        self._idle_ps += max(0.0, 1 - self._busy_cores / self._cores) * (now - self._since)
        self._since = now
        return self._idle_ps

    def occupy(self, cores: int, now: int) -> None:
        """Change the number of cores that messages want, from now on, by `cores` (negative: release)."""
        self.idle_ps(now)
        self._busy_cores += cores


class Processors:
    """The cores that ranks compute on.

    Parameters
    ----------
    environment
        SimPy's simulation, in picoseconds.
    ranks
        Number of ranks.
    shared
        Number of cores that all ranks share; None gives each rank one core of its own.
    """

    def __init__(self, environment: simpy.Environment, ranks: int, shared: int | None) -> None:
        self._environment = environment
        self._work = Network(environment)
        now = int(environment.now)
        if shared is None:
            self._pools = [CorePool(rank, 1, now) for rank in range(ranks)]
        else:
            self._pools = [CorePool(0, shared, now)] * ranks

    def run(self, rank: int, charge: int, ended: Callable[[], object], *, on_message: bool = True) -> None:
        """Occupy the cores of a rank for `charge`, then call ``ended()``.

        Parameters
        ----------
        rank
            The rank whose cores do the work.
        charge
            Core time in picoseconds.
        on_message
            Whether the work belongs to a message. Only message work keeps threads awake.
        """
        pool, cores = self._pools[rank], 1 if on_message else 0

        def end() -> None:
            pool.occupy(-cores, self._now)
            ended()

        pool.occupy(cores, self._now)
        # A picosecond of a core is a bit of its link, and links carry bytes.
        self._work.start(pool.route, math.ceil(charge / 8), lambda _: end(), cap_bps=PICOSECONDS)

    def idle_ps(self, rank: int) -> float:
        """Return the picoseconds without message work since the start, averaged over the cores of a rank."""
        return self._pools[rank].idle_ps(self._now)

    @property
    def _now(self) -> int:
        return int(self._environment.now)
