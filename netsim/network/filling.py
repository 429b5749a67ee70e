"""The reference of max-min sharing, in plain Python: :func:`max_min`, and a solver that calls it for each component.

A component is a set of flows that share links, directly or through other flows. Whenever a flow begins, ends or
changes, :class:`ProgressiveFilling` computes the rates of its whole component anew. That is fast for small components
and needs no compiler; :mod:`netsim.network.repairing` takes over in runs that share much.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Link
from netsim.network.flow import CAP, Bottleneck, Flow, time_left


class Sharer(Protocol):
    """A user of links: a flow, or any other object with a route, a weight and a cap."""

    @property
    def links(self) -> tuple[Link, ...]:
        """The links of its route."""

    @property
    def weight(self) -> float:
        """Its share of a full link, relative to the other sharers there."""

    @property
    def cap(self) -> float:
        """The highest rate that it may have, in bit/s; infinite without a limit."""


SharerT = TypeVar("SharerT", bound=Sharer)


def nominal(link: Link) -> float:
    """Return the bandwidth that a link has unless it changed, in bit/s."""
    return float(link.bandwidth_bps)


def max_min(
    sharers: Iterable[SharerT], bandwidth: Callable[[Link], float] = nominal
) -> dict[SharerT, tuple[float, Bottleneck]]:
    """Return each sharer's weighted max-min fair rate in bit/s, and its bottleneck: a full link, or its own cap.

    Progressive filling: all rates grow together, in proportion to the weights. When a link is full or a sharer at its
    cap, the sharers concerned are fixed at their present rate, and the others go on growing.

    Parameters
    ----------
    sharers
        The users of the links, each with at least one link.
    bandwidth
        The present bandwidth of a link, in bit/s.

    References
    ----------
    Bertsekas and Gallager, *Data Networks*, section 6.5.

    Examples
    --------
    Two flows share the first link; the second link would let the other flow go faster than it can.

    >>> from netsim.network.fabric import Route
    >>> narrow, wide = Link(0, "a", "b", 100, 0.0), Link(1, "b", "c", 1000, 0.0)
    >>> flows = [Flow(Route(links, 0), 8, print) for links in [(narrow,), (narrow, wide), (wide,)]]
    >>> [rate for rate, bottleneck in max_min(flows).values()]
    [50.0, 50.0, 950.0]
    """
    unfixed: dict[Link, dict[SharerT, None]] = {}
    capped: list[tuple[float, int, SharerT]] = []
    for position, sharer in enumerate(sharers):
        for link in sharer.links:
            unfixed.setdefault(link, {})[sharer] = None
        if sharer.cap < math.inf:
            capped.append((sharer.cap / sharer.weight, position, sharer))
    heapq.heapify(capped)
    spare = {link: bandwidth(link) for link in unfixed}
    weight = {link: math.fsum([sharer.weight for sharer in on_link]) for link, on_link in unfixed.items()}
    fixed: dict[SharerT, tuple[float, Bottleneck]] = {}

    def fix(sharer: SharerT, rate: float, bottleneck: Bottleneck) -> None:
        fixed[sharer] = (rate, bottleneck)
        for link in sharer.links:
            spare[link] = max(0.0, spare[link] - rate)
            weight[link] -= sharer.weight
            del unfixed[link][sharer]
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
        for sharer in list(unfixed[tightest]):
            # The last sharer takes all that is left, however the sum of the weights was rounded.
            fix(sharer, level * sharer.weight if len(unfixed[tightest]) > 1 else spare[tightest], tightest)
    return fixed


class FlowShare:
    """The state of one flow: its rate in bit/s since `updated`, its bottleneck, and the instant at which it ends.

    Instants are picoseconds; `due` is -1 while no end is known.
    """

    __slots__ = ("bottleneck", "due", "flow", "rate", "updated")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.rate = 0.0
        self.bottleneck: Bottleneck | None = None
        self.updated = 0
        self.due = -1

    def __repr__(self) -> str:
        return f"FlowShare({self.flow!r}, {self.rate:g} bit/s, bottleneck {self.bottleneck}, due {self.due})"

    def progress(self, now: int) -> None:
        """Subtract the bits that drained at the present rate since the last change."""
        elapsed = now - self.updated
        if elapsed and self.bottleneck is not None:
            flow = self.flow
            flow.remaining = max(0.0, flow.remaining - self.rate * elapsed / PICOSECONDS)
            flow.hold(self.bottleneck, elapsed)
        self.updated = now


class ProgressiveFilling:
    """A :class:`~netsim.network.flow.FairShareSolver` that recomputes all rates of a component when a flow changes.

    A component is a set of flows that are connected through links that they share.
    """

    def __init__(self) -> None:
        self._shares: dict[Flow, FlowShare] = {}
        self._on_link: dict[Link, dict[Flow, None]] = {}
        self._bandwidth: dict[Link, float] = {}
        self._agenda: list[tuple[int, int, int, FlowShare]] = []
        self._entries = itertools.count()
        self._changed: dict[Flow, None] = {}
        self.shared_out = 0

    def __repr__(self) -> str:
        return f"ProgressiveFilling({len(self._shares)} flows)"

    @property
    def next_instant(self) -> int | None:
        """The instant at which the first flow ends at the present rates, in picoseconds; None if none does."""
        agenda = self._agenda
        while agenda and agenda[0][3].due != agenda[0][0]:
            heapq.heappop(agenda)  # its rate has changed since, and it has another entry
        return agenda[0][0] if agenda else None

    def add(self, flow: Flow) -> None:
        """Add a flow, which shares links from the next :meth:`settle` on."""
        self._shares[flow] = FlowShare(flow)
        for link in flow.links:
            self._on_link.setdefault(link, {})[flow] = None
        self._changed[flow] = None

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        """Give a link another bandwidth from the next :meth:`settle` on."""
        self._bandwidth[link] = bandwidth_bps
        self._changed |= self._on_link.get(link, {})

    def set_cap(self, flow: Flow) -> None:
        """Apply the flow's new cap from the next :meth:`settle` on."""
        self._changed[flow] = None

    def rates(self) -> dict[Flow, float]:
        """Return the present rate of every flow in bit/s."""
        return {flow: share.rate for flow, share in self._shares.items()}

    def leave(self, now: int) -> list[Flow]:
        """Return all flows, each with the bits that remain of it, so that another solver can go on."""
        for share in self._shares.values():
            share.progress(now)
        return list(self._shares)

    def settle(self, now: int) -> list[Flow]:
        """Remove and return the flows that end now, and share the links among the others."""
        ended: list[Flow] = []
        unsettled: list[Flow] = []
        while self.next_instant == now:
            share = heapq.heappop(self._agenda)[3]
            share.progress(now)
            share.due = -1
            ended.append(share.flow)
            del self._shares[share.flow]
            self._changed.pop(share.flow, None)
            for link in share.flow.links:
                del self._on_link[link][share.flow]
        for flow in ended:
            for link in flow.links:
                # The flows left on a link are in one component, so any one of them stands for all.
                unsettled += itertools.islice(self._on_link[link], 1)
        unsettled += self._changed
        self._changed.clear()
        settled: set[Flow] = set()
        for flow in unsettled:
            if flow not in settled:
                component = self._component(flow)
                settled.update(component)
                self._share(component, now)
        return ended

    def _share(self, component: list[Flow], now: int) -> None:
        """Give the flows of one component their rates and ends."""
        self.shared_out += len(component)
        for flow, (rate, bottleneck) in max_min(component, self._bandwidth_of).items():
            share = self._shares[flow]
            if rate != share.rate or bottleneck is not share.bottleneck:
                share.progress(now)
                share.rate, share.bottleneck, share.due = rate, bottleneck, -1
                if rate:
                    share.due = now + time_left(flow.bits, flow.remaining, rate)
                    heapq.heappush(self._agenda, (share.due, flow.number, next(self._entries), share))

    def _bandwidth_of(self, link: Link) -> float:
        return self._bandwidth.get(link, float(link.bandwidth_bps))

    def _component(self, start: Flow) -> list[Flow]:
        """Return the flows that share links with `start`, directly or through others, itself included."""
        component = {start: None}
        frontier = [start]
        passed: set[Link] = set()
        while frontier:
            for link in frontier.pop().links:
                on_link = self._on_link[link]
                if len(on_link) > 1 and link not in passed:
                    passed.add(link)
                    fresh = [flow for flow in on_link if flow not in component]
                    component |= dict.fromkeys(fresh)
                    frontier += fresh
        return list(component)
