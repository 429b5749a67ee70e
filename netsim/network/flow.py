"""One message draining through the links of its route."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, Protocol

from netsim._util.units import HORIZON_PS, PICOSECONDS
from netsim.network.fabric import Link, Route

SHARING: Final = -1
"""Stands for the instant at which a flow is due that shares links: the sharers know."""

CAP: Final = "rate limit"
"""Stands for a link where a flow is held back by its own cap."""
Bottleneck = Link | Literal["rate limit"]


class Flow:
    """A message on its way, of `bits`; ``done(flow)`` is called when the last has drained.

    On a link that holds several flows back, their rates are in proportion to their `weight`; `cap` is a
    rate in bit/s that the flow never exceeds. It waits until `due`, in picoseconds, drains from `since` on, and
    alone on its links is over when it is `due` again.
    """

    __slots__ = ("bits", "cap", "done", "due", "held", "number", "remaining", "route", "since", "weight")

    def __init__(
        self,
        route: Route,
        bits: int,
        done: Callable[[Flow], None],
        weight: float = 1.0,
        cap: float = math.inf,
        due: int = 0,
        number: int = 0,
    ) -> None:
        self.route = route
        self.bits = bits
        self.done = done
        self.weight = weight
        self.cap = cap
        self.due = due
        self.number = number
        self.since = -1
        self.remaining: float = bits
        self.held: dict[Bottleneck, int] | None = None
        """For how many picoseconds it was held back where, as far as it is known."""

    @property
    def bottlenecks(self) -> list[tuple[Bottleneck, int]]:
        """What held a flow back that is over, and for how many picoseconds."""
        if self.held is not None:
            return list(self.held.items())
        return [(self.alone_at, self.due - self.since)] if self.since >= 0 else []

    @property
    def alone_at(self) -> Bottleneck:
        """What holds the flow back while it is alone on links that never changed."""
        narrowest = self.route.narrowest
        assert narrowest is not None
        return narrowest if narrowest.bandwidth_bps <= self.cap else CAP

    @property
    def rate_alone(self) -> float:
        """The rate in bit/s of the flow while it is alone on links that never changed."""
        narrowest = self.route.narrowest
        assert narrowest is not None
        return min(narrowest.bandwidth_bps, self.cap)

    def hold(self, at: Bottleneck, duration: int) -> None:
        """Note that something held the flow back for so long."""
        if self.held is None:
            self.held = {}
        if duration:
            self.held[at] = self.held.get(at, 0) + duration


def time_left(bits: int, remaining: float, rate: float) -> int:
    """Return the picoseconds that the rest of a flow of so many bits takes at a rate in bit/s, or the horizon."""
    if remaining == bits and rate == math.floor(rate):
        # As a rule alone from the start: integers, so that the time is exact at any size.
        return min((2 * bits * PICOSECONDS // int(rate) + 1) // 2, HORIZON_PS)
    return round(min(remaining * PICOSECONDS / rate, HORIZON_PS))


class FairShareSolver(Protocol):
    """Flows that share links with each other and with nobody else, and how much of them each one gets.

    Changes take effect, all at once, with the next :meth:`settle`; it is called at every `next_instant`.
    """

    @property
    def shared_out(self) -> int:
        """How often a flow was given a share so far: a measure of the work done."""

    @property
    def next_instant(self) -> int | None:
        """When the first flow is over as things stand, in picoseconds; None if none ever is."""

    def add(self, flow: Flow) -> None:
        """Have a flow drain what remains of it."""

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        """Give a link another bandwidth."""

    def set_cap(self, flow: Flow) -> None:
        """Learn that a flow's cap is another one now."""

    def settle(self, now: int) -> list[Flow]:
        """Share links; return the flows that are over, in order of their numbers, with all that held them back."""

    def rates(self) -> dict[Flow, float]:
        """Return the present rate of every flow in bit/s."""
