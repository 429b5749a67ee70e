"""Flows that share links, in the compiled engine of :mod:`netsim.network.compiled`. Needs numba."""

from __future__ import annotations

import numpy as np

from netsim._util.units import beyond_horizon
from netsim.network import compiled
from netsim.network.fabric import Link
from netsim.network.flow import CAP, Flow


class IncrementalFairShare:
    """Shares links out by local repair. Links and flows get numbers here when they first come."""

    def __init__(self) -> None:
        self._core = compiled.new_core(np.zeros(64))
        self._links: dict[Link, int] = {}
        self._flows: dict[int, Flow] = {}
        self._routes: dict[tuple[Link, ...], np.ndarray] = {}
        self.next_instant: int | None = None
        self._make_room()

    def _make_room(self, flows: int = 0, knots: int = 0) -> None:
        self._core = compiled.grow(self._core, flows, knots)
        self._done = np.zeros(len(self._core.flows), np.int32)
        self._report = np.zeros(2 * len(self._core.flows) + len(self._core.knots), np.int64)

    @property
    def shared_out(self) -> int:
        return int(self._core.head["shared_out"][0])

    def add(self, flow: Flow) -> None:
        links = self._routes.get(flow.route.links)
        if links is None:
            links = np.array([self._number(link) for link in flow.route.links], np.int64)
            self._routes[flow.route.links] = links
        arguments = (flow.number, links, flow.bits, flow.weight, float(flow.cap), 0)
        while (slot := compiled.add(self._core, *arguments)) == compiled.NONE:
            self._make_room(len(self._core.flows), len(self._core.knots))
        if flow.remaining != flow.bits:
            self._core.flows["remaining"][slot] = flow.remaining
        self._flows[slot] = flow

    def _number(self, link: Link) -> int:
        number = self._links.get(link)
        if number is None:
            number = self._links[link] = len(self._links)
            if number == len(self._core.links):
                self._core = compiled.grow(self._core, links=number)
            self._core.links["capacity"][number] = link.bandwidth_bps
        return number

    def set_bandwidth(self, link: Link, bandwidth_bps: float) -> None:
        compiled.set_capacity(self._core, self._number(link), bandwidth_bps)

    def set_cap(self, flow: Flow) -> None:
        slot = next(slot for slot, known in self._flows.items() if known is flow)
        compiled.set_cap(self._core, slot, float(flow.cap))

    def settle(self, now: int) -> list[Flow]:
        if now >= compiled.NEVER:
            raise beyond_horizon()
        size, instant = compiled.settle_and_report(self._core, now, self._done, self._report)
        self.next_instant = None if instant == compiled.NONE else instant
        over: list[Flow] = []
        report = iter(self._report[:size].tolist())
        for slot in report:
            flow = self._flows.pop(slot)
            capped = next(report)
            for link in flow.route.links:
                if held := next(report):
                    flow.hold(link, held)
            flow.hold(CAP, capped)
            over.append(flow)
        return over

    def rates(self) -> dict[Flow, float]:
        rates = self._core.flows["rate"]
        return {flow: float(rates[slot]) for slot, flow in self._flows.items()}
