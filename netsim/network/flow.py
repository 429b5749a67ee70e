"""A flow: one message that drains through the links of its route; and how flows share a full link.

Flows have equal rates, or rates in inverse proportion to the latency of their routes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, Protocol

from netsim._util.errors import UsageError
from netsim._util.units import HORIZON_PS, PICOSECONDS
from netsim.network.fabric import Link, Route

DUE_BY_SOLVER: Final = -1
"""The `due` of a flow that shares links; only the solver knows when it ends."""

CAP: Final = "rate limit"
"""The bottleneck of a flow that its own cap limits."""
Bottleneck = Link | Literal["rate limit"]

Sharing = Literal["maxmin", "rtt"]
SHARINGS: dict[Sharing, str] = {
    "maxmin": "max-min fairness",
    "rtt": "max-min fairness weighted by 1 / latency of routes",
}
"""The name of each choice of ``--sharing`` in words. Long-lived TCP flows have rates inverse to latency."""


class Flow:
    """A message on its way through the network. All instants are picoseconds.

    A flow waits until `due`, then drains from `since` on. If it is alone on its links, `due` becomes the instant at
    which it ends; if it shares links, :data:`DUE_BY_SOLVER`.

    Parameters
    ----------
    route
        The links, in order.
    bits
        The size of the message.
    done
        ``done(flow)`` is called when the last bit has drained.
    weight
        On a full link, rates are in proportion to the flows' weights.
    cap
        The highest rate that the flow may have, in bit/s.
    due
        The instant at which the flow begins to drain.
    number
        Flows that end at one instant end in the order of their numbers.
    """

    __slots__ = ("bits", "cap", "done", "due", "held", "links", "number", "remaining", "route", "since", "weight")

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
        self.links = route.links
        self.bits = bits
        self.done = done
        self.weight = weight
        self.cap = cap
        self.due = due
        self.number = number
        self.since = -1
        self.remaining: float = bits
        self.held: dict[Bottleneck, int] | None = None
        """For how many picoseconds each bottleneck limited the flow so far; None while it was always alone."""

    def __repr__(self) -> str:
        ends = f"{self.links[0].source}→{self.links[-1].target}" if self.links else "within a host"
        return f"Flow({self.number}, {ends}, {self.remaining:g} of {self.bits} bits left)"

    @property
    def bottlenecks(self) -> list[tuple[Bottleneck, int]]:
        """The bottlenecks of a flow that has ended, and for how many picoseconds each limited the flow."""
        if self.held is not None:
            return list(self.held.items())
        return [(self.alone_at, self.due - self.since)] if self.since >= 0 else []

    @property
    def alone_at(self) -> Bottleneck:
        """The bottleneck of the flow while it is alone on links that never changed."""
        narrowest = self.route.narrowest
        assert narrowest is not None
        return narrowest if narrowest.bandwidth_bps <= self.cap else CAP

    @property
    def rate_alone(self) -> float:
        """The rate of the flow while it is alone on links that never changed, in bit/s."""
        narrowest = self.route.narrowest
        assert narrowest is not None
        return min(narrowest.bandwidth_bps, self.cap)

    def hold(self, bottleneck: Bottleneck, duration: int) -> None:
        """Add `duration` picoseconds to the time for which a bottleneck limited the flow."""
        if self.held is None:
            self.held = {}
        if duration:
            self.held[bottleneck] = self.held.get(bottleneck, 0) + duration


def weight_by_latency(route: Route) -> float:
    """Return a flow's weight with ``rtt`` sharing: one over its route's latency in seconds.

    Raises
    ------
    UsageError
        If the route has no latency.
    """
    if not route.latency_ps:
        raise UsageError(
            f"sharing 'rtt' on the route {route.links[0].source}→{route.links[-1].target}, which has no latency to "
            "weigh by; give its links a latency, or share 'maxmin'"
        )
    return PICOSECONDS / route.latency_ps


def time_alone(bits: int, rate: int) -> int:
    """Return the picoseconds that `bits` take at `rate` bit/s, in integers and rounded once; at most the horizon.

    >>> time_alone(bits=8, rate=3)
    2666666666667
    """
    return min((2 * bits * PICOSECONDS // rate + 1) // 2, HORIZON_PS)


def time_left(bits: int, remaining: float, rate: float) -> int:
    """Return the picoseconds until a flow of `bits`, with `remaining` bits left, ends at `rate` bit/s.

    Never more than the horizon.
    """
    if remaining == bits and rate == math.floor(rate):
        # The usual case, a flow at one rate from its start: integers keep the time exact at any size.
        return time_alone(bits, int(rate))
    return round(min(remaining * PICOSECONDS / rate, HORIZON_PS))


class FairShareSolver(Protocol):
    """Computes the rates of flows that share links, and the instants at which they end.

    Changes take effect together at the next :meth:`settle`. The caller must call it at every `next_instant`.
    """

    @property
    def shared_out(self) -> int:
        """Number of rates computed so far, as a measure of the solver's work."""

    @property
    def next_instant(self) -> int | None:
        """The instant at which the first flow ends at the present rates, in picoseconds; None if none does."""

    def add(self, flow: Flow) -> None:
        """Add a flow, which drains its `remaining` bits."""

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        """Give a link another bandwidth."""

    def set_cap(self, flow: Flow) -> None:
        """Apply the flow's new cap."""

    def settle(self, now: int) -> list[Flow]:
        """Share the links; return the flows that end now, in the order of their numbers, with their bottlenecks."""

    def rates(self) -> dict[Flow, float]:
        """Return the present rate of every flow in bit/s."""
