"""Progressive filling in plain Python: all flows that depend on each other are shared out anew.

Quick to start and for few flows. :mod:`netsim.network.repairing` takes over where there is much to do.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable

from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Link
from netsim.network.flow import CAP, Bottleneck, Flow, time_left


class Share:
    """How a flow stands: its rate in bit/s since `updated`, what holds it back, and when it is over."""

    __slots__ = ("at", "due", "flow", "rate", "updated")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.rate = 0.0
        self.at: Bottleneck | None = None
        self.updated = 0
        self.due = -1

    def progress(self, now: int) -> None:
        """Account for what drained at the present rate since the last change."""
        elapsed = now - self.updated
        if elapsed and self.at is not None:
            flow = self.flow
            flow.remaining = max(0.0, flow.remaining - self.rate * elapsed / PICOSECONDS)
            flow.hold(self.at, elapsed)
        self.updated = now


class ProgressiveFilling:
    """Shares links out by components: flows that share links, directly or through others."""

    def __init__(self) -> None:
        self._shares: dict[Flow, Share] = {}
        self._on_link: dict[Link, dict[Flow, None]] = {}
        self._bandwidth: dict[Link, float] = {}
        self._agenda: list[tuple[int, int, int, Share]] = []
        self._entries = itertools.count()
        self._changed: dict[Flow, None] = {}
        self.shared_out = 0

    @property
    def next_instant(self) -> int | None:
        agenda = self._agenda
        while agenda and agenda[0][3].due != agenda[0][0]:
            heapq.heappop(agenda)  # its rate has changed since: it is due at another instant
        return agenda[0][0] if agenda else None

    def add(self, flow: Flow) -> None:
        self._shares[flow] = Share(flow)
        for link in flow.route.links:
            self._on_link.setdefault(link, {})[flow] = None
        self._changed[flow] = None

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        self._bandwidth[link] = bandwidth_bps
        self._changed |= self._on_link.get(link, {})

    def set_cap(self, flow: Flow) -> None:
        self._changed[flow] = None

    def rates(self) -> dict[Flow, float]:
        return {flow: share.rate for flow, share in self._shares.items()}

    def leave(self, now: int) -> list[Flow]:
        for share in self._shares.values():
            share.progress(now)
        return list(self._shares)

    def settle(self, now: int) -> list[Flow]:
        over: list[Flow] = []
        unsettled: list[Flow] = []
        while self.next_instant == now:
            share = heapq.heappop(self._agenda)[3]
            share.progress(now)
            share.due = -1
            over.append(share.flow)
            del self._shares[share.flow]
            self._changed.pop(share.flow, None)
            for link in share.flow.route.links:
                del self._on_link[link][share.flow]
        for flow in over:
            for link in flow.route.links:
                # The flows left behind on a link depend on each other, so one of them stands for all.
                unsettled += itertools.islice(self._on_link[link], 1)
        unsettled += self._changed
        self._changed.clear()
        settled: set[Flow] = set()
        for flow in unsettled:
            if flow not in settled:
                component = self._component(flow)
                settled.update(component)
                self._share(component, now)
        return over

    def _share(self, component: list[Flow], now: int) -> None:
        """Give the flows of a component, which share links with each other and nobody else, their rates."""
        self.shared_out += len(component)
        for flow, (rate, at) in max_min(component, self._bandwidth_of).items():
            share = self._shares[flow]
            if rate != share.rate or at is not share.at:
                share.progress(now)
                share.rate, share.at, share.due = rate, at, -1
                if rate:
                    share.due = now + time_left(flow.bits, flow.remaining, rate)
                    heapq.heappush(self._agenda, (share.due, flow.number, next(self._entries), share))

    def _bandwidth_of(self, link: Link) -> float:
        return self._bandwidth.get(link, float(link.bandwidth_bps))

    def _component(self, start: Flow) -> list[Flow]:
        """Return the flows that share links with `start`, directly or through others, itself included."""
        found = {start: None}
        frontier = [start]
        passed: set[Link] = set()
        while frontier:
            for link in frontier.pop().route.links:
                on_link = self._on_link[link]
                if len(on_link) > 1 and link not in passed:
                    passed.add(link)
                    fresh = [flow for flow in on_link if flow not in found]
                    found |= dict.fromkeys(fresh)
                    frontier += fresh
        return list(found)


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
    weight = {link: math.fsum([flow.weight for flow in on_link]) for link, on_link in unfixed.items()}
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
            # The last one takes all that is left, whatever its weight was rounded to.
            fix(flow, level * flow.weight if len(unfixed[tightest]) > 1 else spare[tightest], tightest)
    return fixed
