"""A token bucket: what may be sent at once, and how fast more may follow.

A shaped link has one (:mod:`netsim.testbed.shaped_links`), and so has a connection with a window
(:mod:`netsim.simulator.effects_engine`): acknowledgements return tokens.
"""

from __future__ import annotations

from netsim._util.units import PICOSECONDS

NOTHING = 1e-3
"""Fewer bits than this are rounding errors."""


class TokenBucket:
    """Tokens in bits; negative means a deficit.

    Parameters
    ----------
    capacity
        Tokens of a full bucket, in bits; a bucket starts full.
    rate
        Tokens gained a second, in bit/s.
    now
        Present time in picoseconds.
    """

    __slots__ = ("bits", "capacity", "rate", "since")

    def __init__(self, capacity: float, rate: float, now: int) -> None:
        self.bits = self.capacity = capacity
        self.rate = rate
        self.since = now

    def refill(self, now: int) -> float:
        """Add the tokens gained until `now` (picoseconds), and return the tokens in the bucket, in bits."""
        self.bits = min(self.capacity, self.bits + self.rate * (now - self.since) / PICOSECONDS)
        self.since = now
        return self.bits

    @property
    def in_deficit(self) -> bool:
        """Whether the bucket holds less than zero tokens: the link has sent more than its rate allows."""
        return self.bits < -NOTHING
