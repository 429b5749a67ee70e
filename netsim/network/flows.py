"""Flows on links: each gets its max-min fair share, plain or weighted, and time is integer picoseconds.

A flow first waits its route's latency, then drains its bits at the rate that sharing allows, and is
done when the last bit has drained; so a message alone takes exactly latency + bits / bandwidth. All
that happens at one instant is applied before the rates are solved once, and only for the flows
that share a link, directly or through others, with one that came or went.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Final, Literal

import simpy

from netsim.network.fabric import Link, Route
from netsim.network.sharing import Sharing, weight_by_latency
from netsim.units import PICOSECONDS

CAP: Final = "rate limit"
"""Stands for a link where a flow is held back by its own cap."""
Bottleneck = Link | Literal["rate limit"]


class Flow:
    """A message draining through its route's links.

    On a link that holds several flows back, their rates are in proportion to their `weight`; `cap` is a
    rate in bit/s that the flow never exceeds.
    """

    __slots__ = (
        *("bits", "bottleneck", "bottlenecks", "cap", "done", "draining", "due", "rate", "remaining", "route"),
        *("updated", "weight"),
    )

    def __init__(
        self, route: Route, bits: int, done: Callable[[Flow], None], weight: float = 1.0, cap: float = math.inf
    ) -> None:
        self.route = route
        self.bits = bits
        self.done = done
        self.weight = weight
        self.cap = cap
        self.draining = False
        self.remaining = float(bits)
        self.rate = 0.0
        self.updated = 0
        self.due = -1
        self.bottleneck: Bottleneck | None = None
        self.bottlenecks: list[tuple[Bottleneck, int]] = []
        """What held the flow back, and for how many picoseconds."""

    def progress(self, now: int) -> None:
        """Account for what drained at the present rate since the last change."""
        elapsed = now - self.updated
        if elapsed and self.bottleneck is not None:
            self.remaining = max(0.0, self.remaining - self.rate * elapsed / PICOSECONDS)
            self.bottlenecks.append((self.bottleneck, elapsed))
        self.updated = now


class Network:
    """Carries flows through links, as a part of a SimPy simulation."""

    def __init__(self, environment: simpy.Environment, sharing: Sharing = "maxmin") -> None:
        self._environment = environment
        self._sharing = sharing
        self._agenda: list[tuple[int, int, Flow]] = []
        self._order = 0
        self._wake_at: int | None = None
        self._on_link: dict[Link, dict[Flow, None]] = {}
        self._bandwidth: dict[Link, float] = {}
        self._changed: dict[Flow, None] = {}
        self.solved = 0
        """How often rates were solved for flows that share links."""

    def start(
        self,
        route: Route,
        nbytes: int,
        done: Callable[[Flow], None],
        *,
        weight: float | None = None,
        cap_bps: float | None = None,
    ) -> Flow:
        """Send `nbytes` along `route`; call ``done(flow)`` at the instant the last one arrives.

        A flow's `weight` is 1, or with ``rtt`` sharing one over its route's latency, as in SimGrid's CM02;
        raise UsageError where that route has none. The flow never exceeds `cap_bps`.
        """
        if weight is None:
            weight = 1.0 if self._sharing == "maxmin" or not route.links else weight_by_latency(route)
        flow = Flow(route, 8 * nbytes, done, weight, math.inf if cap_bps is None else cap_bps)
        self._schedule(flow, self._now + route.latency_ps)
        return flow

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        """Give `link` another bandwidth from now on; at 0 it is down, and its flows stand still."""
        self._bandwidth[link] = float(bandwidth_bps)
        self._changed |= self._on_link.get(link, {})
        self._wake(self._now)

    def set_cap(self, flow: Flow, cap_bps: float | None) -> None:
        """Let `flow` not exceed `cap_bps` from now on; None lifts the cap."""
        flow.cap = math.inf if cap_bps is None else cap_bps
        if flow.draining:
            self._changed[flow] = None
            self._wake(self._now)

    def bandwidth(self, link: Link) -> float:
        """Return the present bandwidth of a link in bit/s."""
        return self._bandwidth.get(link, float(link.bandwidth_bps))

    @property
    def _now(self) -> int:
        return int(self._environment.now)

    def rates(self) -> dict[Flow, float]:
        """Return the present rate, in bit/s, of every flow that is draining."""
        return {flow: flow.rate for flows in self._on_link.values() for flow in flows}

    def _schedule(self, flow: Flow, due: int) -> None:
        flow.due = due
        self._order += 1
        heapq.heappush(self._agenda, (due, self._order, flow))
        self._wake_for_next()

    def _wake_for_next(self) -> None:
        """Have SimPy call at the next instant on the agenda; an alarm set for later is then ignored."""
        if self._agenda:
            self._wake(self._agenda[0][0])

    def _wake(self, instant: int) -> None:
        if self._wake_at is None or instant < self._wake_at:
            self._wake_at = instant
            alarm = self._environment.timeout(instant - self._now)
            alarm.callbacks.append(self._on_alarm)

    def _on_alarm(self, _: simpy.Event) -> None:
        now = self._now
        if now != self._wake_at:
            return
        self._wake_at = None
        entering: list[Flow] = []
        leaving: list[Flow] = []
        while self._agenda and self._agenda[0][0] == now:
            flow = heapq.heappop(self._agenda)[2]
            if flow.due != now:
                continue  # its rate has changed since: it is due at another instant
            flow.due = -1
            (leaving if flow.draining or not flow.bits or not flow.route.links else entering).append(flow)
        self._change(entering, leaving)
        self._wake_for_next()
        for flow in leaving:
            flow.done(flow)

    def _change(self, entering: list[Flow], leaving: list[Flow]) -> None:
        """Put flows on their links and take flows off, and give all whom that concerns their new rate."""
        now = self._now
        left: list[Link] = []
        for flow in leaving:
            flow.progress(now)
            if flow.draining:
                flow.draining = False
                left += flow.route.links
                for link in flow.route.links:
                    del self._on_link[link][flow]
        # The flows left behind on a link depend on each other, so one of them stands for all.
        unsettled = [flow for link in left for flow in itertools.islice(self._on_link[link], 1)]
        unsettled += [flow for flow in self._changed if flow.draining]
        self._changed.clear()
        for flow in entering:
            flow.updated, flow.draining = now, True
            for link in flow.route.links:
                self._on_link.setdefault(link, {})[flow] = None
        unsettled.extend(entering)
        settled: set[Flow] = set()
        for flow in unsettled:
            if flow not in settled:
                component = self._component(flow)
                settled.update(component)
                self._share(component)

    def _share(self, component: list[Flow]) -> None:
        """Give the flows of a component, which share links with each other and nobody else, their rates."""
        if len(component) == 1:
            (alone,) = component
            link = min(alone.route.links, key=self.bandwidth)
            bandwidth = self.bandwidth(link)
            self._set_rate(alone, min(bandwidth, alone.cap), link if bandwidth <= alone.cap else CAP)
            return
        self.solved += 1
        for flow, (rate, bottleneck) in max_min(component, self.bandwidth).items():
            self._set_rate(flow, rate, bottleneck)

    def _set_rate(self, flow: Flow, rate: float, bottleneck: Bottleneck) -> None:
        if rate != flow.rate or bottleneck is not flow.bottleneck:
            flow.progress(self._now)
            flow.rate, flow.bottleneck = rate, bottleneck
            if rate:
                self._schedule(flow, self._now + self._time_left(flow))
            else:
                flow.due = -1

    def _component(self, start: Flow) -> list[Flow]:
        """Return the flows that share links with `start`, directly or through others, itself included."""
        found = {start: None}
        frontier = [start]
        while frontier:
            for link in frontier.pop().route.links:
                on_link = self._on_link[link]
                if len(on_link) > 1:
                    fresh = [flow for flow in on_link if flow not in found]
                    found |= dict.fromkeys(fresh)
                    frontier += fresh
        return list(found)

    @staticmethod
    def _time_left(flow: Flow) -> int:
        if flow.remaining == flow.bits and flow.rate.is_integer():
            # As a rule alone from the start: integers, so that the time is exact at any size.
            return (2 * flow.bits * PICOSECONDS // int(flow.rate) + 1) // 2
        return round(flow.remaining * PICOSECONDS / flow.rate)


def max_min(
    flows: Iterable[Flow], bandwidth: Callable[[Link], float] = lambda link: float(link.bandwidth_bps)
) -> dict[Flow, tuple[float, Bottleneck]]:
    """Return each flow's weighted max-min fair rate in bit/s, and what limits it.

    Progressive filling: all rates grow together, in proportion to their weights; when a link is full, or
    a flow at its cap, the flows concerned are fixed at their present rate and the others go on
    (Bertsekas and Gallager, Data Networks, section 6.5).
    """
    unfixed: dict[Link, dict[Flow, None]] = {}
    capped: list[tuple[float, int, Flow]] = []
    for number, flow in enumerate(flows):
        for link in flow.route.links:
            unfixed.setdefault(link, {})[flow] = None
        if flow.cap < math.inf:
            capped.append((flow.cap / flow.weight, number, flow))
    heapq.heapify(capped)
    spare = {link: bandwidth(link) for link in unfixed}
    weight = {link: math.fsum(flow.weight for flow in on_link) for link, on_link in unfixed.items()}
    fixed: dict[Flow, tuple[float, Bottleneck]] = {}

    def fix(flow: Flow, rate: float, at: Bottleneck) -> None:
        fixed[flow] = (rate, at)
        for link in flow.route.links:
            spare[link] = max(0.0, spare[link] - rate)
            weight[link] -= flow.weight
            del unfixed[link][flow]
            if not unfixed[link]:
                del unfixed[link]

    while unfixed:
        tightest = min(unfixed, key=lambda link: (spare[link] / weight[link], link.index))
        level = spare[tightest] / weight[tightest]
        while capped and capped[0][2] in fixed:
            heapq.heappop(capped)
        if capped and capped[0][0] < level:
            fix(capped[0][2], capped[0][2].cap, CAP)
            continue
        for flow in list(unfixed[tightest]):
            fix(flow, level * flow.weight, tightest)
    return fixed
