"""The compiled solver of :mod:`netsim.network.compiled` behind the interface of flows. Needs numba."""

from __future__ import annotations

import numpy as np

from netsim._util.units import beyond_horizon
from netsim.network import compiled
from netsim.network.fabric import Link
from netsim.network.flow import CAP, Flow


class IncrementalFairShare:
    """A :class:`~netsim.network.flow.FairShareSolver` that computes only the rates that a change can affect.

    Links are numbered when a flow first uses them, flows when they are added.
    """

    def __init__(self) -> None:
        self._core = compiled.new_core(np.zeros(64))
        self._links: dict[Link, int] = {}
        self._flows: dict[int, Flow] = {}
        self._routes: dict[tuple[Link, ...], np.ndarray] = {}
        self.next_instant: int | None = None
        """The instant at which the first flow ends at the present rates, in picoseconds; None if none does."""
        self._make_room()

    def __repr__(self) -> str:
        return f"IncrementalFairShare({len(self._flows)} flows, {len(self._links)} links)"

    def _make_room(self, flows: int = 0, knots: int = 0) -> None:
        self._core = compiled.grow(self._core, flows, knots)
        self._done = np.zeros(len(self._core.flows), np.int32)
        self._report = np.zeros(2 * len(self._core.flows) + len(self._core.knots), np.int64)

    @property
    def shared_out(self) -> int:
        """Number of rates computed so far."""
        return int(self._core.head["shared_out"][0])

    def add(self, flow: Flow) -> None:
        """Add a flow, which shares links from the next :meth:`settle` on."""
        links = self._routes.get(flow.links)
        if links is None:
            links = np.array([self._index(link) for link in flow.links], np.int64)
            self._routes[flow.links] = links
        arguments = (flow.number, links, flow.bits, flow.weight, float(flow.cap), 0)
        while (slot := compiled.add(self._core, *arguments)) == compiled.NONE:
            self._make_room(len(self._core.flows), len(self._core.knots))
        if flow.remaining != flow.bits:
            self._core.flows["remaining"][slot] = flow.remaining
        self._flows[slot] = flow

    def _index(self, link: Link) -> int:
        index = self._links.get(link)
        if index is None:
            index = self._links[link] = len(self._links)
            if index == len(self._core.links):
                self._core = compiled.grow(self._core, links=index)
            self._core.links["capacity"][index] = link.bandwidth_bps
        return index

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        """Give a link another bandwidth from the next :meth:`settle` on."""
        compiled.set_capacity(self._core, self._index(link), bandwidth_bps)

    def set_cap(self, flow: Flow) -> None:
        """Apply the flow's new cap from the next :meth:`settle` on."""
        slot = next(slot for slot, other in self._flows.items() if other is flow)
        compiled.set_cap(self._core, slot, float(flow.cap))

    def settle(self, now: int) -> list[Flow]:
        """Remove and return the flows that end now, and share the links among the others."""
        if now >= compiled.NEVER:
            raise beyond_horizon()
        size, instant = compiled.settle_and_report(self._core, now, self._done, self._report)
        self.next_instant = None if instant == compiled.NONE else instant
        ended: list[Flow] = []
        report = iter(self._report[:size].tolist())
        for slot in report:
            flow = self._flows.pop(slot)
            capped = next(report)
            for link in flow.links:
                if held := next(report):
                    flow.hold(link, held)
            flow.hold(CAP, capped)
            ended.append(flow)
        return ended

    def rates(self) -> dict[Flow, float]:
        """Return the present rate of every flow in bit/s."""
        rates = self._core.flows["rate"]
        return {flow: float(rates[slot]) for slot, flow in self._flows.items()}
