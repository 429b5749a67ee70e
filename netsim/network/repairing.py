"""Flows that share links, in the compiled engine of :mod:`netsim.network.compiled`. Needs numba."""

from __future__ import annotations

import numpy as np

from netsim.network import compiled
from netsim.network.fabric import Link
from netsim.network.flow import CAP, Flow


class Repairing:
    """Shares links out by local repair. Links and flows get numbers here when they first come."""

    def __init__(self) -> None:
        self._core = compiled.new_core(np.zeros(64))
        self._links: dict[Link, int] = {}
        self._flows: dict[Flow, int] = {}
        self._by_number: dict[int, Flow] = {}
        self._routes: dict[tuple[Link, ...], np.ndarray] = {}
        self._done = np.zeros(len(self._core.flows), np.int32)
        self._held = np.zeros(64, np.int64)

    @property
    def shared_out(self) -> int:
        return int(self._core.head["shared_out"][0])

    @property
    def next_instant(self) -> int | None:
        instant = compiled.next_instant(self._core)
        return instant if instant < compiled.NEVER else None

    def add(self, flow: Flow) -> None:
        links = self._numbers(flow.route.links)
        arguments = (flow.number, links, flow.bits, flow.weight, float(flow.cap), 0)
        while (slot := compiled.add(self._core, *arguments)) == compiled.NONE:
            self._core = compiled.grow(self._core, flows=len(self._core.flows), knots=len(self._core.knots))
            self._done = np.zeros(len(self._core.flows), np.int32)
        if flow.remaining != flow.bits:
            self._core.flows["remaining"][slot] = flow.remaining
        self._flows[flow] = slot
        self._by_number[slot] = flow

    def _numbers(self, links: tuple[Link, ...]) -> np.ndarray:
        known = self._routes.get(links)
        if known is None:
            known = self._routes[links] = np.array([self._number(link) for link in links], np.int64)
            if len(links) > len(self._held):
                self._held = np.zeros(2 * len(links), np.int64)
        return known

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
        compiled.set_cap(self._core, self._flows[flow], float(flow.cap))

    def settle(self, now: int) -> list[Flow]:
        count = compiled.settle(self._core, now, self._done)
        return [self._take_off(number) for number in self._done[:count].tolist()] if count else []

    def _take_off(self, number: int) -> Flow:
        """Return a flow with all that is known of it, and give its place up."""
        flow, held = self._by_number.pop(number), self._held
        del self._flows[flow]
        capped = compiled.take(self._core, number, held)
        for link, duration in zip(flow.route.links, held.tolist(), strict=False):
            flow.hold(link, duration)
        flow.hold(CAP, capped)
        return flow

    def rates(self) -> dict[Flow, float]:
        rates = self._core.flows["rate"]
        return {flow: float(rates[number]) for flow, number in self._flows.items()}
