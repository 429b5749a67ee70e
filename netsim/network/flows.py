"""Flows on links: each gets its max-min fair share, and time is integer picoseconds.

A flow first waits its route's latency, then drains its bits at the rate that sharing allows, and is
done when the last bit has drained; so a message alone takes exactly latency + bits / bandwidth. All
that happens at one instant is applied before the rates are solved once, and only for the flows
that share a link, directly or through others, with one that came or went.
"""

from __future__ import annotations

import heapq
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
        self._schedule(flow, self._environment.now + route.latency_ps)

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
            alarm = self._environment.timeout(self._wake_at - self._environment.now)
            alarm.callbacks.append(self._on_alarm)

    def _on_alarm(self, _: simpy.Event) -> None:
        now = self._environment.now
        if now != self._wake_at:
            return
        self._wake_at = None
        entering, leaving = [], []
        while self._agenda and self._agenda[0][0] == now:
            flow = heapq.heappop(self._agenda)[2]
            if flow.due != now:
                continue  # its rate has changed since: it is due at another instant
            flow.due = -1
            (leaving if flow.bottleneck is not None or not flow.bits or not flow.route.links else entering).append(flow)
        for flow in leaving:
            flow.progress(now)
            if flow.bottleneck is not None:
                for link in flow.route.links:
                    del self._on_link[link][flow]
        for flow in entering:
            flow.updated = now
            for link in flow.route.links:
                self._on_link.setdefault(link, {})[flow] = None
        self._share(flow for flow in (*leaving, *entering) if flow.bits)
        self._wake_for_next()
        for flow in leaving:
            flow.done(flow)

    def _share(self, changed: Iterable[Flow]) -> None:
        """Give every flow that shares links with those that came or went its new rate."""
        now = self._environment.now
        seen: set[Flow] = set()
        for start in changed:
            for component in self._components(start, seen):
                if len(component) == 1:
                    (flow,) = component
                    assert flow.route.narrowest is not None
                    rates = {flow: (float(flow.route.narrowest.bandwidth_bps), flow.route.narrowest)}
                else:
                    rates = max_min(component)
                    self.solved += 1
                for flow, (rate, bottleneck) in rates.items():
                    if rate != flow.rate or bottleneck is not flow.bottleneck:
                        flow.progress(now)
                        flow.rate, flow.bottleneck = rate, bottleneck
                        self._schedule(flow, now + self._time_left(flow))

    def _components(self, start: Flow, seen: set[Flow]) -> list[list[Flow]]:
        """Return the groups of flows that depend on each other and touch a link of `start`."""
        groups = []
        for link in start.route.links:
            group: list[Flow] = []
            frontier = list(self._on_link.get(link, ()))
            while frontier:
                flow = frontier.pop()
                if flow in seen:
                    continue
                seen.add(flow)
                group.append(flow)
                for crossed in flow.route.links:
                    if len(self._on_link[crossed]) > 1:
                        frontier.extend(self._on_link[crossed])
            if group:
                groups.append(group)
        return groups

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
