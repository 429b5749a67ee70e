"""Max-min rates of the flows of one round, which share links with each other and with no others.

All flows of an instant are handled by a few array operations. Flows of a round usually begin at one instant, and then
this is many times faster than the solvers of :mod:`netsim.network`, which handle one flow at a time
(docs/decisions/0012-flow-engine.md has figures). The tests hold it to the same rates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray
from netsim._util.units import HORIZON_PS, PICOSECONDS, beyond_horizon
from netsim.network.flow import time_alone
from netsim.network.routing import FloatArray
from netsim.simulator.layout import NoScheduleError

MOST_INSTANTS = 256
"""Beyond so many changes of rates, arrays a change are no faster than a message at a time."""


class Drained(NamedTuple):
    """When the last bit of each flow arrived, in picoseconds; and per note, which flow a link limited, and how long."""

    leave: IntArray
    flows: IntArray
    links: IntArray
    durations: IntArray


def drain(owners: IntArray, links: IntArray, enter: IntArray, bits: IntArray, bandwidth_bps: IntArray) -> Drained:
    """Let flow i drain ``bits[i]`` from instant ``enter[i]`` on, over all ``links[j]`` with ``owners[j] == i``.

    The arithmetic is that of :class:`netsim.network.flows.Network`, for all flows of an instant at once.

    Raises
    ------
    NoScheduleError
        If rates change too often.
    """
    flows = _Flows(owners, links, enter, bits, bandwidth_bps)
    for _ in range(MOST_INSTANTS):
        if not flows.next():
            notes = [np.concatenate(column) for column in zip(*flows.notes, strict=True)]
            return Drained(flows.due, *notes) if notes else Drained(flows.due, *np.zeros((3, 0), np.int64))
    raise NoScheduleError("rates change too often in one round")


class _Flows:
    def __init__(
        self, owners: IntArray, links: IntArray, enter: IntArray, bits: IntArray, bandwidth_bps: IntArray
    ) -> None:
        self._numbers, self._link = np.unique(links, return_inverse=True)
        self._owner = owners
        self._bandwidth = bandwidth_bps[self._numbers].astype(np.float64)
        self._enter, self._bits = enter, bits
        self._remaining = bits.astype(np.float64)
        self._rate = np.zeros(len(bits))
        self._bottleneck = np.full(len(bits), -1)
        self._updated = enter.copy()
        self._on = np.zeros(len(bits), np.bool_)
        self._over = bits == 0
        self.due = np.where(self._over, enter, np.iinfo(np.int64).max)
        self.notes: list[tuple[IntArray, IntArray, IntArray]] = []

    def next(self) -> bool:
        """Advance to the next instant at which a flow begins or ends; return whether there was one."""
        waiting = ~self._on & ~self._over
        if not (waiting.any() or self._on.any()):
            return False
        now = min(self._enter[waiting].min(initial=np.iinfo(np.int64).max), self.due[self._on].min(initial=2**63 - 1))
        leaving = self._on & (self.due == now)
        if now >= HORIZON_PS:
            raise beyond_horizon()
        self._progress(leaving, now)
        self._on &= ~leaving
        self._over |= leaving
        self._on |= waiting & (self._enter == now)
        self._share(now)
        return True

    def _progress(self, which: npt.NDArray[np.bool_], now: int) -> None:
        moved = np.flatnonzero(which & (self._bottleneck >= 0) & (self._updated < now))
        elapsed = now - self._updated[moved]
        drained = self._rate[moved] * elapsed / PICOSECONDS
        self._remaining[moved] = np.maximum(0.0, self._remaining[moved] - drained)
        self._updated[moved] = now
        self.notes.append((moved, self._numbers[self._bottleneck[moved]], elapsed))

    def _share(self, now: int) -> None:
        rate, bottleneck = self._fill()
        changed = self._on & ((rate != self._rate) | (bottleneck != self._bottleneck))
        self._progress(changed, now)
        self._rate, self._bottleneck = rate, bottleneck
        which = np.flatnonzero(changed)
        whole = (self._remaining[which] == self._bits[which]) & (np.floor(rate[which]) == rate[which])
        inexact, exact = which[~whole], which[whole]
        left = np.minimum(self._remaining[inexact] * PICOSECONDS / rate[inexact], HORIZON_PS)
        self.due[inexact] = now + np.rint(left).astype(np.int64)
        if len(exact):
            kinds, kind = np.unique(
                np.stack([self._bits[exact], rate[exact].astype(np.int64)]), axis=1, return_inverse=True
            )
            self.due[exact] = now + np.array([time_alone(*pair) for pair in kinds.T.tolist()])[kind.ravel()]

    def _fill(self) -> tuple[FloatArray, IntArray]:
        """Progressive filling (Bertsekas and Gallager, Data Networks, section 6.5) of all tightest links at a time."""
        rate, bottleneck = np.zeros(len(self._on)), np.full(len(self._on), -1)
        live = self._on[self._owner]
        owner, link = self._owner[live], self._link[live]
        spare, most = self._bandwidth.copy(), len(self._numbers)
        while len(owner):
            count = np.bincount(link, minlength=most)
            with np.errstate(divide="ignore", invalid="ignore"):
                level = np.where(count > 0, spare / count, np.inf)
            least = level.min()
            tight = level[link] == least
            first = np.full(len(rate), most)
            np.minimum.at(first, owner[tight], link[tight])
            fixed = first < most
            rate[fixed], bottleneck[fixed] = least, first[fixed]
            gone = fixed[owner]
            spare = np.maximum(0.0, spare - least * np.bincount(link[gone], minlength=most))
            owner, link = owner[~gone], link[~gone]
        return rate, bottleneck
