"""The network of a simulation: every flow gets its max-min fair share, plain or weighted.

A flow first waits the latency of its route. Then its bits drain at its fair rate, and it ends with the last bit. A
message alone on its links therefore takes exactly latency + bits / bandwidth, in integer picoseconds.

All changes of one instant are applied before links are shared once, with one SimPy timeout. The end of a flow alone on
its links follows from arithmetic. Only flows that share links go to a :class:`~netsim.network.flow.FairShareSolver`:
plain Python at first, compiled code in runs that share much, if numba is installed.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable
from importlib.util import find_spec
from operator import attrgetter
from typing import Any, Literal

import simpy

from netsim._util.units import HORIZON_PS, PICOSECONDS, beyond_horizon
from netsim.network.fabric import Link, Route
from netsim.network.filling import ProgressiveFilling, max_min
from netsim.network.flow import (
    CAP,
    DUE_BY_SOLVER,
    Bottleneck,
    FairShareSolver,
    Flow,
    Sharing,
    time_left,
    weight_by_latency,
)

__all__ = ["CAP", "Bottleneck", "Flow", "Network", "max_min"]

logger = logging.getLogger(__name__)

Solver = Literal["auto", "python", "compiled"]
"""Which solver shares links: plain Python, compiled code, or plain Python until compiled code pays."""

MUCH = 4096
"""Rates computed after which compiled code pays. A count and not a time, so that equal runs change over alike."""


class Network:
    """Carries flows through links, as a part of a SimPy simulation."""

    def __init__(self, environment: simpy.Environment, sharing: Sharing = "maxmin", solver: Solver = "auto") -> None:
        self._environment: Any = environment  # its clock counts whole picoseconds
        self._plain = sharing == "maxmin"
        self._started = 0
        # SimPy hears of an instant once, however many flows begin or end then, because each of its events costs time.
        self._agenda: dict[int, list[Flow]] = {}
        """By instant: the flows that begin to drain then, and those alone on their links that end then."""
        self._instants: list[int] = []
        self._wake_at: int | None = None
        self._alone: dict[Link, Flow] = {}
        """For each link of a flow that is alone on all its links: that flow."""
        self._shared: dict[Link, int] = {}
        """For each other link in use: how many flows use it."""
        self._bandwidth: dict[Link, float] = {}
        """The present bandwidth of each link whose bandwidth has changed."""
        self._solver: FairShareSolver = _compiled() if solver == "compiled" else ProgressiveFilling()
        self._may_change_over = solver == "auto" and find_spec("numba") is not None
        self._unsettled = False

    def __repr__(self) -> str:
        flows = len(set(self._alone.values())) + len(self._solver.rates())
        return f"Network({flows} flows drain at {self._environment.now} ps)"

    def start(
        self,
        route: Route,
        nbytes: int,
        done: Callable[[Flow], None],
        *,
        weight: float | None = None,
        cap_bps: float | None = None,
        wait_ps: int | None = None,
    ) -> Flow:
        """Send `nbytes` along `route`; call ``done(flow)`` at the instant at which the last one arrives.

        Parameters
        ----------
        weight
            The flow's weight on shared links. Without it 1, or with ``rtt`` sharing one over the route's latency in
            seconds, as in SimGrid's CM02.
        cap_bps
            The highest rate that the flow may have; None for no limit.
        wait_ps
            Picoseconds until the flow begins to drain, if not the latency of the route.

        Raises
        ------
        UsageError
            With ``rtt`` sharing, for a route without latency.
        """
        if weight is None:
            weight = 1.0 if self._plain or not route.links else weight_by_latency(route)
        self._started += 1
        due = self._environment.now + (route.latency_ps if wait_ps is None else wait_ps)
        flow = Flow(route, 8 * nbytes, done, weight, math.inf if cap_bps is None else cap_bps, due, self._started)
        if (agenda := self._agenda.get(due)) is not None:
            agenda.append(flow)
        else:
            self._open(due, flow)
        return flow

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        """Give `link` another bandwidth from now on; at 0 the link is down and its flows stop."""
        self._bandwidth[link] = float(bandwidth_bps)
        alone = self._alone.get(link)
        # A flow that is due now has drained all its bits, although its end may not have been handled yet.
        if alone is not None and alone.due > self._environment.now:
            self._have_share(alone)
        self._solver.set_bandwidth(link, float(bandwidth_bps))
        self._settle_now()

    def set_cap(self, flow: Flow, cap_bps: float | None) -> None:
        """Limit the rate of `flow` to `cap_bps` from now on; None removes the limit."""
        if flow.due > self._environment.now and flow.since >= 0:
            self._have_share(flow)
        flow.cap = math.inf if cap_bps is None else cap_bps
        if flow.due < 0:
            self._solver.set_cap(flow)
            self._settle_now()

    def bandwidth(self, link: Link) -> float:
        """Return the present bandwidth of a link in bit/s."""
        return self._bandwidth.get(link, float(link.bandwidth_bps))

    def rates(self) -> dict[Flow, float]:
        """Return the present rate, in bit/s, of every flow that is draining."""
        return {flow: flow.rate_alone for flow in self._alone.values()} | self._solver.rates()

    def _open(self, instant: int, *flows: Flow) -> None:
        """Put the first flows of an instant on the agenda."""
        self._agenda[instant] = list(flows)
        heapq.heappush(self._instants, instant)
        self._wake(instant)

    def _settle_now(self) -> None:
        self._unsettled = True
        self._wake(self._environment.now)

    def _wake(self, instant: int) -> None:
        """Set SimPy's alarm for an instant unless an earlier one is set; a later one is then ignored.

        The alarm for an instant beyond the horizon is set at the horizon. It is an error if the flow is still due then.
        """
        instant = max(min(instant, HORIZON_PS), self._environment.now)
        if self._wake_at is None or instant < self._wake_at:
            self._wake_at = instant
            alarm = self._environment.timeout(instant - self._environment.now)
            alarm.callbacks.append(self._on_alarm)

    def _on_alarm(self, _: simpy.Event) -> None:
        now = self._environment.now
        if now != self._wake_at:  # an alarm cannot be taken back when an earlier one is set
            return
        self._wake_at = None
        if now >= HORIZON_PS:
            if self._is_late:
                raise beyond_horizon()
            return
        # All changes of an instant come first; then rates are solved once, and do not depend on the order of changes.
        over = self._due(now) if self._instants and self._instants[0] == now else []
        if self._unsettled or self._solver.next_instant == now:
            over += self._settle(now)
            over.sort(key=attrgetter("number"))  # the same order whether arithmetic or the solver ended a flow
        if self._instants:
            self._wake(self._instants[0])
        if (instant := self._solver.next_instant) is not None:
            self._wake(instant)
        # Last, because those that are called may start flows, also at this instant.
        for flow in over:
            flow.done(flow)

    @property
    def _is_late(self) -> bool:
        """Whether a flow on its way ends at the horizon or later."""
        alone = (flow.due == instant for instant in self._instants for flow in self._agenda[instant])
        return any(alone) or (self._solver.next_instant or 0) >= HORIZON_PS

    def _due(self, now: int) -> list[Flow]:
        """Handle the flows on the agenda of this instant; return those that end."""
        alone = self._alone
        over: list[Flow] = []
        entering: list[Flow] = []
        heapq.heappop(self._instants)
        for flow in self._agenda.pop(now):
            if flow.due != now:
                continue  # it has shared links since, and ends when the solver says
            if flow.since >= 0:
                for link in flow.links:
                    del alone[link]
                over.append(flow)
            elif flow.bits and flow.links:
                entering.append(flow)
            else:
                over.append(flow)
        # After all ends: a flow that enters at the instant at which another one leaves does not share a link with it.
        for flow in entering:
            self._enter(flow, now)
        return over

    def _enter(self, flow: Flow, now: int) -> None:
        """Start draining a flow: by itself if it is alone on its links, else by the solver."""
        flow.since = now
        links, alone = flow.links, self._alone
        if (
            not alone.keys().isdisjoint(links)
            or (self._shared and not self._shared.keys().isdisjoint(links))
            or (self._bandwidth and not self._bandwidth.keys().isdisjoint(links))  # `rate_alone` is the nominal one
        ):
            self._have_share(flow)
            return
        for link in links:
            alone[link] = flow
        flow.due = due = now + time_left(flow.bits, flow.bits, flow.rate_alone)
        if (agenda := self._agenda.get(due)) is not None:
            agenda.append(flow)
        else:
            self._open(due, flow)

    def _have_share(self, flow: Flow) -> None:
        """Hand a flow to the solver, and with it the flows that were alone on its links."""
        now, alone, shared = self._environment.now, self._alone, self._shared
        flow.due = DUE_BY_SOLVER
        if flow.since < now:
            flow.hold(flow.alone_at, now - flow.since)
            # From here on the flow's bits are a float. While it was alone, its end was exact, in integers.
            flow.remaining = max(0.0, flow.bits - flow.rate_alone * (now - flow.since) / PICOSECONDS)
        for link in flow.links:
            other = alone.pop(link, flow)
            if other is not flow:
                # Put back, because the call below takes the other flow off all of its links, this one included.
                alone[link] = other
                self._have_share(other)
            shared[link] = shared.get(link, 0) + 1
        self._solver.add(flow)
        self._unsettled = True

    def _settle(self, now: int) -> list[Flow]:
        """Compute the solver's rates anew; return the flows that end now."""
        self._unsettled = False
        over = self._solver.settle(now)
        shared = self._shared
        for flow in over:
            flow.due = now
            for link in flow.links:
                if shared[link] == 1:
                    del shared[link]
                else:
                    shared[link] -= 1
        if self._may_change_over and self._solver.shared_out > MUCH:
            self._change_over(now)
        return over

    def _change_over(self, now: int) -> None:
        """Hand all flows to compiled code, unless numba is installed but does not compile."""
        self._may_change_over = False
        assert isinstance(self._solver, ProgressiveFilling)
        try:
            compiled = _compiled()
        except ImportError:
            return
        staying = self._solver.leave(now)
        logger.info("compiled code shares links from %d ps on, for %d flows", now, len(staying))
        self._solver = compiled
        for link, bandwidth_bps in self._bandwidth.items():
            self._solver.set_bandwidth(link, bandwidth_bps)
        for flow in staying:
            self._solver.add(flow)
        self._solver.settle(now)


def _compiled() -> FairShareSolver:
    from netsim.network.repairing import IncrementalFairShare

    return IncrementalFairShare()
