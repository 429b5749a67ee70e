"""The simulated network with what slows real ones: hosts, protocols, switches, jitter, others' traffic, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from netsim._util.errors import LinkDownError
from netsim._util.random_streams import Stream, generator
from netsim._util.units import HORIZON_PS, PICOSECONDS, format_bytes, format_duration, picoseconds
from netsim.comm.payload import nbytes
from netsim.comm.worker import Compute, Send, Worker
from netsim.network.changes import Change, changes_of
from netsim.network.cross_traffic import CrossTraffic, Sizes
from netsim.network.effects import Effects
from netsim.network.fabric import Fabric, Link, Route
from netsim.network.flowfile import read_flows
from netsim.network.flows import Flow
from netsim.network.sharing import Sharing, weight_by_latency
from netsim.network.switching import extra_ps
from netsim.network.tcp import HEADERS, PAYLOAD, on_wire
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.observer import UNOBSERVED, Observers
from netsim.simulator.scheduler import Done
from netsim.training.costs import Costs

PACKET = 1500
"""Bytes of a packet where the protocol has no headers."""


@dataclass(slots=True, eq=False)
class DisturbedTransfer:
    """A message on its way: its route, the path of events so far, and what is to come."""

    worker: Worker
    request: Send
    route: Route
    path: CriticalPath
    sent: Done
    arrived: Done
    windows: list[int]
    weight: float
    latency_ps: int = 0
    window_began: int = 0


class EffectsTransport(SimulatedTransport):
    """A simulated network with `effects`; what is random is drawn from `seed`.

    A message's way: its sender's host, the connection, the route's latency and what switches add to it, its
    windows, its receiver's host. The path of events names each of them.
    """

    def __init__(
        self,
        fabric: Fabric,
        hosts: Sequence[str],
        costs: Costs,
        executor: Executor | None = None,
        now: int = 0,
        sharing: Sharing = "maxmin",
        observers: Observers = UNOBSERVED,
        *,
        effects: Effects,
        seed: int,
    ) -> None:
        super().__init__(fabric, hosts, costs, executor, now, sharing, observers)
        self._effects, self._seed, self._sharing = effects, seed, sharing
        self._tcp = effects.tcp()
        self._packet = PACKET if self._tcp is None else PAYLOAD + HEADERS
        self._speeds = effects.speeds(seed)
        self._factors: dict[int, tuple[int, float]] = {}
        self._jitter = effects.jitter()
        self._sent: dict[int, tuple[int, Counter[tuple[int, int]]]] = {}
        byte_cost_ps = min(effects.byte_cost_s, HORIZON_PS / PICOSECONDS) * PICOSECONDS
        self._overhead = (picoseconds(effects.message_overhead_s), byte_cost_ps)
        self._opened: set[frozenset[int]] = set()
        self._transfers: dict[DisturbedTransfer, None] = {}
        self._computing = 0
        self._down_since: dict[Link, int] = {}
        self._changes = changes_of(effects.events(), fabric.links) if effects.link_event else []
        for change in self._changes:
            self._at(max(now, change.at_ps), partial(self._change, change))
        self._cross_traffic: CrossTraffic | None = None
        if effects.load is not None:
            sizes = Sizes.of(effects.background_size)
            self._cross_traffic = CrossTraffic(self._environment, self._network, sharing, effects.load, sizes, seed)
        if effects.flows_file is not None:
            self._start_background(fabric, effects)

    def _at(self, instant: int, call: Callable[[], Any]) -> None:
        timeout = self._environment.timeout(instant - self.now)
        timeout.callbacks.append(lambda _: call())

    def _start_background(self, fabric: Fabric, effects: Effects) -> None:
        assert effects.flows_file is not None
        for flow in read_flows(effects.flows_file, fabric.nodes_of_hosts):
            route, at = fabric.route(flow.source, flow.target), picoseconds(flow.start_s)
            if at >= self.now:
                self._at(at, partial(self._network.start, route, flow.nbytes, lambda _: None))

    def _change(self, change: Change) -> None:
        self._network.set_bandwidth(change.link, change.bandwidth_bps)
        self._changes.remove(change)
        if change.bandwidth_bps:
            self._down_since.pop(change.link, None)
        else:
            self._down_since.setdefault(change.link, change.at_ps)

    # Computing.

    def _charge(self, worker: Worker, stage: Compute[Any]) -> int:
        charge = super()._charge(worker, stage)
        return _product(charge, self._factor(worker)) if self._speeds is not None and charge else charge

    def _factor(self, worker: Worker) -> float:
        assert self._speeds is not None
        step, factor = self._factors.get(worker.rank, (-1, 1.0))
        if step != worker.step:
            factor = self._speeds.factor(worker.rank, worker.step)
            self._factors[worker.rank] = (worker.step, factor)
        return factor

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        def computed(answer: Any, path: CriticalPath) -> None:
            self._computing -= 1
            done(answer, path)

        self._computing += 1
        super().compute(worker, request, call, path, computed)

    # Sending.

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        route = self._fabric.route(self._hosts[worker.rank], self._hosts[request.dst])
        size = nbytes(request.payload)
        windows = [size] if self._tcp is None else list(self._tcp.windows(size, self._tcp.initial_window)) or [0]
        weight = 1.0 if self._sharing == "maxmin" or not route.links else weight_by_latency(route)
        transfer = DisturbedTransfer(worker, request, route, path, sent, arrived, windows, weight)
        self._transfers[transfer] = None
        self._on_host(worker.rank, transfer, self._depart)

    def _on_host(self, rank: int, transfer: DisturbedTransfer, then: Callable[[DisturbedTransfer], None]) -> None:
        """Have a host take its time over a message, if it needs any."""
        a_message, a_byte = self._overhead
        duration = a_message + round(a_byte * nbytes(transfer.request.payload))
        if not duration:
            then(transfer)
            return
        host = self._computers[rank]
        transfer.path = host.occupy(self.now, transfer.path, "host overhead", duration)
        self._at(host.free_at, partial(then, transfer))

    def _depart(self, transfer: DisturbedTransfer) -> None:
        """Open the connection if need be, and start the first window after the latency."""
        if self.eager:
            transfer.sent(None, transfer.path)
        route, size = transfer.route, nbytes(transfer.request.payload)
        latency = self._latency(transfer)
        opening = 2 * latency if self._opens(transfer) else 0
        wire = size if self._tcp is None else on_wire(size)
        switching = extra_ps(self._effects.switching, route, wire, self._packet)
        transfer.latency_ps = latency
        transfer.path = transfer.path.then("handshake", opening).then("latency", latency).then("switching", switching)
        if self._cross_traffic is not None:
            self._cross_traffic.use(route.links)
        self._start_window(transfer, opening + latency + switching)

    def _latency(self, transfer: DisturbedTransfer) -> int:
        if self._jitter is None:
            return transfer.route.latency_ps
        worker, request = transfer.worker, transfer.request
        step, counts = self._sent.get(worker.rank, (-1, Counter()))
        if step != worker.step:
            counts = Counter()
            self._sent[worker.rank] = (worker.step, counts)
        channel = (request.dst, request.tag)
        counts[channel] += 1
        key = (worker.rank, *channel, worker.step, counts[channel])
        return _product(transfer.route.latency_ps, self._jitter.draw(generator(self._seed, Stream.LATENCY, *key)))

    def _opens(self, transfer: DisturbedTransfer) -> bool:
        """Return whether a message must wait for a connection."""
        if self._tcp is None or self._tcp.connections == "established":
            return False
        pair = frozenset((transfer.worker.rank, transfer.request.dst))
        known = pair in self._opened
        self._opened.add(pair)
        return not known or self._tcp.connections == "per-message"

    def _start_window(self, transfer: DisturbedTransfer, wait: int) -> None:
        transfer.window_began = self.now + wait
        self._network.start(
            Route(transfer.route.links, wait),
            transfer.windows.pop(0),
            partial(self._drained, transfer),
            weight=transfer.weight,
        )

    def _drained(self, transfer: DisturbedTransfer, flow: Flow) -> None:
        for link, duration in flow.bottlenecks:
            transfer.path = transfer.path.then(link, duration)
        if not transfer.windows:
            if not self.eager:
                transfer.sent(None, transfer.path)
            self._on_host(transfer.request.dst, transfer, self._arrived)
            return
        assert self._tcp is not None
        acknowledged = transfer.window_began + self._tcp.acknowledged(transfer.route, transfer.latency_ps)
        wait = max(0, acknowledged - self.now)
        transfer.path = transfer.path.then("slow start", wait)
        if not wait:
            transfer.windows = [sum(transfer.windows)]  # from now on it never waits
        self._start_window(transfer, wait)

    def _arrived(self, transfer: DisturbedTransfer) -> None:
        del self._transfers[transfer]
        transfer.arrived(None, transfer.path)

    # Going on.

    def advance(self) -> bool:
        if not self._computing and not self._transfers:
            return False  # what others send, and what becomes of links, does not matter any more
        if self._down_since and not self._computing and all(map(self._stands_still, self._transfers)):
            raise LinkDownError(self._why_it_stands_still())
        return super().advance()

    def _stands_still(self, transfer: DisturbedTransfer) -> bool:
        """Return whether a message waits for a link that never comes back."""
        return any(link in self._down_since and not self._comes_back(link) for link in transfer.route.links)

    def _comes_back(self, link: Link) -> bool:
        return any(change.link is link and change.bandwidth_bps for change in self._changes)

    def _why_it_stands_still(self) -> str:
        waiting = list(self._transfers)
        links = {link: None for each in waiting for link in each.route.links if link in self._down_since}
        down = " and ".join(
            f"link {link.name} has been down since {format_duration(self._down_since[link] / PICOSECONDS)}"
            for link in links
            if not self._comes_back(link)
        )
        shown = ", ".join(
            f"rank {each.worker.rank} to rank {each.request.dst} ({format_bytes(nbytes(each.request.payload))}, "
            f"{each.worker.operation}, step {each.worker.step})"
            for each in waiting[:4]
        ) + (f" and {len(waiting) - 4} more" if len(waiting) > 4 else "")
        back = next(iter(links)).name.replace("→", "->")
        return (
            f"the run can never finish: {down} and stays down, and messages wait for it: {shown}; "
            f"bring it back with --link-event '...,{back}@TIME=up', or leave its event out"
        )


def _product(picoseconds: int, factor: float) -> int:
    """Return so many times a duration, or the horizon where that is less."""
    return round(min(picoseconds * factor, HORIZON_PS))
