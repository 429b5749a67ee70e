"""The connections of a pair of hosts: how many carry a message, how fast each is, and how much it may send ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Streams:
    """The connections of every pair of hosts.

    A message is striped over all connections of its pair. On a full link they have the share of so many flows, and
    together they move at most so many times the rate of one.

    A connection has at most a window of bytes on their way: sent, and not acknowledged. One window leaves at once, at
    the rate of the links. More leaves as acknowledgements come back, at window / round trip.

    Parameters
    ----------
    count
        Number of connections of a pair.
    rate_bps
        Highest rate of one connection in bit/s, infinite without a limit.
    window_bytes
        Window of one connection in bytes; None without a limit.
    """

    count: int = 1
    rate_bps: float = math.inf
    window_bytes: int | None = None

    @property
    def cap_bps(self) -> float:
        """The highest rate of a message in bit/s."""
        return self.count * self.rate_bps
