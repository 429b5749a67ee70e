"""Flows on links: each gets its max-min fair share, and time is integer picoseconds.

A flow first waits its route's latency, then drains its bits at the rate that sharing allows, and is
done when the last bit has drained; so a message alone takes exactly latency + bits / bandwidth. All
that happens at one instant is applied before the rates are solved once, and only for the flows
that share a link, directly or through others, with one that came or went.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable

import simpy

from netsim.network.fabric import Link, Route
from netsim.units import PICOSECONDS


class Flow:
    """A message draining through its route's links."""

    __slots__ = ("bits", "bottleneck", "bottlenecks", "done", "due", "rate", "remaining", "route", "updated")

    def __init__(self, route: Route, bits: int, done: Callable[[Flow], None]) -> None:
        self.route = route
        self.bits = bits
        self.done = done
        self.remaining = float(bits)
        self.rate = 0.0
        self.updated = 0
        self.due = -1
        self.bottleneck: Link | None = None
        self.bottlenecks: list[tuple[Link, int]] = []
        """Which link held the flow back, and for how many picoseconds."""

    def progress(self, now: int) -> None:
        """Account for what drained at the present rate since the last change."""
        elapsed = now - self.updated
        if elapsed and self.bottleneck is not None:
            self.remaining = max(0.0, self.remaining - self.rate * elapsed / PICOSECONDS)
            self.bottlenecks.append((self.bottleneck, elapsed))
        self.updated = now


class Network:
    """Carries flows through links, as a part of a SimPy simulation."""

    def __init__(self, environment: simpy.Environment) -> None:
        self._environment = environment
        self._agenda: list[tuple[int, int, Flow]] = []
        self._order = 0
        self._wake_at: int | None = None
        self._on_link: dict[Link, dict[Flow, None]] = {}
        self.solved = 0
        """How often rates were solved for flows that share links."""

    def start(self, route: Route, nbytes: int, done: Callable[[Flow], None]) -> None:
        """Send `nbytes` along `route`; call ``done(flow)`` at the instant the last one arrives."""
        flow = Flow(route, 8 * nbytes, done)
        self._schedule(flow, self._now + route.latency_ps)

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
        if self._agenda and (self._wake_at is None or self._agenda[0][0] < self._wake_at):
            self._wake_at = self._agenda[0][0]
            alarm = self._environment.timeout(self._wake_at - self._now)
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
            (leaving if flow.bottleneck is not None or not flow.bits or not flow.route.links else entering).append(flow)
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
            if flow.bottleneck is not None:
                left += flow.route.links
                for link in flow.route.links:
                    del self._on_link[link][flow]
        # The flows left behind on a link depend on each other, so one of them stands for all.
        unsettled = [flow for link in left for flow in itertools.islice(self._on_link[link], 1)]
        for flow in entering:
            flow.updated = now
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
            link = alone.route.narrowest
            assert link is not None
            self._set_rate(alone, float(link.bandwidth_bps), link)
            return
        self.solved += 1
        for flow, (rate, bottleneck) in max_min(component).items():
            self._set_rate(flow, rate, bottleneck)

    def _set_rate(self, flow: Flow, rate: float, bottleneck: Link) -> None:
        if rate != flow.rate or bottleneck is not flow.bottleneck:
            flow.progress(self._now)
            flow.rate, flow.bottleneck = rate, bottleneck
            self._schedule(flow, self._now + self._time_left(flow))

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
        if flow.remaining == flow.bits and flow.bottleneck is not None and flow.rate == flow.bottleneck.bandwidth_bps:
            # Alone from the start: integers, so that the time is exact at any size.
            return (2 * flow.bits * PICOSECONDS // flow.bottleneck.bandwidth_bps + 1) // 2
        return round(flow.remaining * PICOSECONDS / flow.rate)


def max_min(flows: Iterable[Flow]) -> dict[Flow, tuple[float, Link]]:
    """Return each flow's max-min fair rate in bit/s and the link that limits it.

    Progressive filling: all rates grow together; when a link is full its flows are fixed at their
    present rate and the others go on (Bertsekas and Gallager, Data Networks, section 6.5).
    """
    unfixed: dict[Link, dict[Flow, None]] = {}
    for flow in flows:
        for link in flow.route.links:
            unfixed.setdefault(link, {})[flow] = None
    spare = {link: float(link.bandwidth_bps) for link in unfixed}
    fixed: dict[Flow, tuple[float, Link]] = {}
    while unfixed:
        tightest = min(unfixed, key=lambda link: (spare[link] / len(unfixed[link]), link.index))
        rate = spare[tightest] / len(unfixed[tightest])
        for flow in unfixed.pop(tightest):
            fixed[flow] = (rate, tightest)
            for link in flow.route.links:
                if link is not tightest:
                    spare[link] = max(0.0, spare[link] - rate)
                    del unfixed[link][flow]
                    if not unfixed[link]:
                        del unfixed[link]
    return fixed
