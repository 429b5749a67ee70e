"""The simulated network with effects: a message passes one stage after another, and each effect is one stage.

The stages of a message, each of which may be absent:

1. Work at the sender's host: time per message and per byte.
2. The wait for the receiver's notice that it is ready.
3. Delays before the first byte drains: latency with its jitter, the handshake of a new connection, and switches.
4. The windows of slow start, which drain through the links of the route one after another. A message waits until those
   before it on its connection have drained. A connection's own window and rate limit how fast they drain.
5. Work at the receiver's host.

Computations have a stage of their own: the factor of jitter and stragglers on their time. Acknowledgements, link events
and background flows act on the network itself. Each stage appears under its name in the critical path.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from netsim._util.errors import LinkDownError
from netsim._util.random_streams import Jitter, Speeds, Stream, generator
from netsim._util.units import HORIZON_PS, PICOSECONDS, format_bytes, format_duration, picoseconds
from netsim.comm.payload import nbytes
from netsim.comm.worker import Compute, Recv, Send, Worker
from netsim.network.changes import Change, changes_of
from netsim.network.cross_traffic import CrossTraffic, Sizes
from netsim.network.effects import Effects
from netsim.network.fabric import Fabric, Link, Route
from netsim.network.flow import weight_by_latency
from netsim.network.flowfile import read_flows
from netsim.network.flows import CAP, Flow, Network
from netsim.network.switching import extra_ps
from netsim.network.tcp import CongestionWindow, Tcp
from netsim.network.token_bucket import NOTHING, TokenBucket
from netsim.simulator.clear_to_send import Clearances
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.scheduler import Done

PACKET = 1500
"""Bytes of a packet if the protocol has no headers."""


@dataclass(slots=True, eq=False)
class DisturbedTransfer:
    """A message on its way through the stages: its route, its path of events so far, and what is still to come.

    `windows` are the bytes of the windows that have not started, `window_began` the instant at which the last one did,
    and `window_bytes` its size; `congestion` is the connection's window of slow start. `held_since` is when the message
    began to wait for its receiver, `latency_ps` the latency that it met. A message is `clocked` once the window of its
    connection is used up: the rest leaves as acknowledgements come back. `limit` names what caps its rate.
    """

    worker: Worker
    request: Send
    route: Route
    path: CriticalPath
    sent: Done
    arrived: Done
    weight: float
    windows: list[int] = field(default_factory=list)
    congestion: CongestionWindow | None = None
    held_since: int = 0
    latency_ps: int = 0
    window_began: int = 0
    window_bytes: int = 0
    clocked: bool = False
    limit: str = "stream rate"

    @property
    def channel(self) -> tuple[int, int, int]:
        """Sender, receiver and tag."""
        return self.worker.rank, self.request.dst, self.request.tag

    @property
    def nbytes(self) -> int:
        """The size of the message in bytes, without headers."""
        return nbytes(self.request.payload)


class DelayStage(Protocol):
    """An effect that delays the first byte of a message."""

    name: str
    """The name in the critical path."""

    def delay(self, transfer: DisturbedTransfer) -> int:
        """Return by how many picoseconds a message is delayed; called once for each message."""


class LatencyStage:
    """The latency of the route, times a random factor if there is `jitter`."""

    name = "latency"

    def __init__(self, jitter: Jitter | None, seed: int) -> None:
        self._jitter, self._seed = jitter, seed
        self._sent: dict[int, tuple[int, Counter[tuple[int, int]]]] = {}

    def delay(self, transfer: DisturbedTransfer) -> int:
        """Return the latency, and keep it as that of the message."""
        transfer.latency_ps = transfer.route.latency_ps
        if self._jitter is not None:
            random = generator(self._seed, Stream.LATENCY, *self._key(transfer.worker, transfer.request))
            transfer.latency_ps = _product(transfer.latency_ps, self._jitter.draw(random))
        return transfer.latency_ps

    def _key(self, worker: Worker, request: Send) -> tuple[int, ...]:
        """Return what identifies a message: ranks, tag, step, and its number among those with the same."""
        step, counts = self._sent.get(worker.rank, (-1, Counter()))
        if step != worker.step:
            counts = Counter()
            self._sent[worker.rank] = (worker.step, counts)
        channel = (request.dst, request.tag)
        counts[channel] += 1
        return (worker.rank, *channel, worker.step, counts[channel])


class HandshakeStage:
    """The round trip that opens a TCP connection, for every message or for the first one between two hosts."""

    name = "handshake"

    def __init__(self, connections: str) -> None:
        self._per_message = connections == "per-message"
        self._opened: set[frozenset[int]] = set()

    def delay(self, transfer: DisturbedTransfer) -> int:
        """Return two latencies of the message if it must wait for a connection, else 0."""
        pair = frozenset((transfer.worker.rank, transfer.request.dst))
        is_open = pair in self._opened and not self._per_message
        self._opened.add(pair)
        return 0 if is_open else 2 * transfer.latency_ps


class SwitchingStage:
    """The time that switches need to read a header or a whole packet."""

    name = "switching"

    def __init__(self, switching: str, tcp: Tcp | None) -> None:
        self._switching = switching
        self._wire_bytes: Callable[[int], int] = (lambda size: size) if tcp is None else tcp.on_wire
        self._packet = PACKET if tcp is None else tcp.segment

    def delay(self, transfer: DisturbedTransfer) -> int:
        """Return the time of all switches of the route."""
        return extra_ps(self._switching, transfer.route, self._wire_bytes(transfer.nbytes), self._packet)


class HostWork:
    """The time that a host needs for a message: a constant and a time per byte, the same at both ends."""

    def __init__(self, effects: Effects) -> None:
        self._a_message = picoseconds(effects.message_overhead_s)
        self._a_byte = min(effects.byte_cost_s, HORIZON_PS / PICOSECONDS) * PICOSECONDS

    def picoseconds(self, size: int) -> int:
        """Return the time for a message of `size` bytes."""
        return self._a_message + round(self._a_byte * size)


class ComputeFactors:
    """The factor of jitter and stragglers on the time of computations, drawn once a worker and step."""

    def __init__(self, speeds: Speeds) -> None:
        self._speeds = speeds
        self._factors: dict[int, tuple[int, float]] = {}

    def slowed(self, charge: int, worker: Worker) -> int:
        """Return the picoseconds that a computation of `charge` picoseconds takes this worker."""
        step, factor = self._factors.get(worker.rank, (-1, 1.0))
        if step != worker.step:
            factor = self._speeds.factor(worker.rank, worker.step)
            self._factors[worker.rank] = (worker.step, factor)
        return _product(charge, factor)


class LinkChanges:
    """The events of links: new bandwidths, failures and repairs."""

    def __init__(self, network: Network, changes: list[Change]) -> None:
        self._network = network
        self._changes = changes
        self._down_since: dict[Link, int] = {}

    def apply(self, change: Change) -> None:
        """Give a link its new bandwidth, at the instant of the change."""
        self._network.set_bandwidth(change.link, change.bandwidth_bps)
        self._changes.remove(change)
        if change.bandwidth_bps:
            self._down_since.pop(change.link, None)
        else:
            self._down_since.setdefault(change.link, change.at_ps)

    def block(self, transfers: Collection[DisturbedTransfer]) -> bool:
        """Return whether every message waits for a link that is down for good."""
        return bool(self._down_since) and all(map(self._blocks, transfers))

    def _blocks(self, transfer: DisturbedTransfer) -> bool:
        return any(link in self._down_since and not self._comes_back(link) for link in transfer.route.links)

    def _comes_back(self, link: Link) -> bool:
        return any(change.link is link and change.bandwidth_bps for change in self._changes)

    def error(self, transfers: Iterable[DisturbedTransfer]) -> LinkDownError:
        """Return the error that names the links that are down, and the messages that wait for them."""
        waiting = list(transfers)
        links = {link: None for transfer in waiting for link in transfer.route.links if link in self._down_since}
        down = " and ".join(
            f"link {link.name} has been down since {format_duration(self._down_since[link] / PICOSECONDS)}"
            for link in links
            if not self._comes_back(link)
        )
        shown = ", ".join(
            f"rank {transfer.worker.rank} to rank {transfer.request.dst} ({format_bytes(transfer.nbytes)}, "
            f"{transfer.worker.operation}, step {transfer.worker.step})"
            for transfer in waiting[:4]
        ) + (f" and {len(waiting) - 4} more" if len(waiting) > 4 else "")
        back = next(iter(links)).name.replace("→", "->")
        return LinkDownError(
            f"the run can never finish: {down} and stays down, and messages wait for it: {shown}; "
            f"bring it back with --link-event '...,{back}@TIME=up', or leave its event out"
        )


class EffectsTransport(SimulatedTransport):
    """A simulated network with `effects`.

    Parameters
    ----------
    network, options
        The parameters of :class:`~netsim.simulator.event_engine.SimulatedTransport`.
    effects
        The effects.
    seed
        Random numbers are drawn from it.
    """

    def __init__(self, *network: Any, effects: Effects, seed: int, **options: Any) -> None:
        super().__init__(*network, **options)
        fabric, now = self._fabric, self.now
        self._tcp = effects.tcp()
        self._congestion: dict[tuple[int, int], CongestionWindow] = {}
        self._streams = effects.connected()
        self._send_windows: defaultdict[tuple[int, int], TokenBucket] | None = None
        if (window := self._streams.window_bytes) is not None:
            window *= self._streams.count
            bits = 8.0 * (window if self._tcp is None else self._tcp.on_wire(window))
            self._send_windows = defaultdict(lambda: TokenBucket(bits, 0.0, now))
        self._clearances = Clearances(self._after, self._clear) if effects.clear_to_send else None
        self._host_work = HostWork(effects)
        self._delays = _delays(effects, self._tcp, seed)
        speeds = effects.speeds(seed)
        self._factors = None if speeds is None else ComputeFactors(speeds)
        self._transfers: dict[DisturbedTransfer, None] = {}
        self._computing = 0
        changes = changes_of(effects.events(), fabric.links) if effects.link_event else []
        self._link_changes = LinkChanges(self._network, changes)
        for change in changes:
            self._at(max(now, change.at_ps), partial(self._link_changes.apply, change))
        self._cross_traffic: CrossTraffic | None = None
        if effects.load is not None:
            sizes = Sizes.of(effects.background_size)
            self._cross_traffic = CrossTraffic(
                self._environment, self._network, self._sharing, effects.load, sizes, seed
            )
        if effects.flows_file is not None:
            self._start_background(fabric, effects)

    def _at(self, instant: int, call: Callable[[], Any]) -> None:
        self._after(instant - self.now, call)

    def _after(self, delay: int, call: Callable[[], Any]) -> None:
        timeout = self._environment.timeout(delay)
        timeout.callbacks.append(lambda _: call())

    def _start_background(self, fabric: Fabric, effects: Effects) -> None:
        assert effects.flows_file is not None
        for flow in read_flows(effects.flows_file, fabric.nodes_of_hosts):
            route, start = fabric.route(flow.source, flow.target), picoseconds(flow.start_s)
            if start >= self.now:
                self._at(start, partial(self._network.start, route, flow.nbytes, lambda _: None))

    # Computations.

    def _charge(self, worker: Worker, stage: Compute[Any]) -> int:
        charge = super()._charge(worker, stage)
        return self._factors.slowed(charge, worker) if self._factors is not None and charge else charge

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Charge a computation as without effects, times the worker's factor."""

        def computed(answer: Any, path: CriticalPath) -> None:
            self._computing -= 1
            done(answer, path)

        self._computing += 1
        super().compute(worker, request, call, path, computed)

    # Messages.

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Send a message through all stages."""
        route = self._fabric.route(self._hosts[worker.rank], self._hosts[request.dst])
        weight = 1.0 if self._sharing == "maxmin" or not route.links else weight_by_latency(route)
        transfer = DisturbedTransfer(worker, request, route, path, sent, arrived, self._streams.count * weight)
        self._transfers[transfer] = None
        self._work_on_host(worker.rank, transfer, self._depart if self._clearances is None else self._hold)

    def _work_on_host(self, rank: int, transfer: DisturbedTransfer, then: Callable[[DisturbedTransfer], None]) -> None:
        """Occupy a host with a message, and call ``then(transfer)`` when it is done."""
        duration = self._host_work.picoseconds(transfer.nbytes)
        if not duration:
            then(transfer)
            return
        host = self._computers[rank]
        transfer.path = host.occupy(self.now, transfer.path, "host overhead", duration)
        self._at(host.free_at, partial(then, transfer))

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Send the notice that a receiver is ready, if senders wait for it."""
        if self._clearances is not None:
            back = self._fabric.route(self._hosts[worker.rank], self._hosts[request.src])
            self._clearances.expect((request.src, worker.rank, request.tag), back.latency_ps)

    def _hold(self, transfer: DisturbedTransfer) -> None:
        """Have a message wait until its receiver is ready."""
        assert self._clearances is not None
        transfer.held_since = self.now
        self._clearances.hold(transfer.channel, transfer)

    def _clear(self, transfer: DisturbedTransfer) -> None:
        """Let a message depart whose receiver is ready."""
        transfer.path = transfer.path.then("clear to send", self.now - transfer.held_since)
        self._depart(transfer)

    def _depart(self, transfer: DisturbedTransfer) -> None:
        """Start the first window after all delays, and after earlier messages of the connection."""
        if self.eager:
            transfer.sent(None, transfer.path)
        wait = 0
        for stage in self._delays:
            delay = stage.delay(transfer)
            transfer.path = transfer.path.then(stage.name, delay)
            wait += delay
        if self._cross_traffic is not None:
            self._cross_traffic.use(transfer.route.links)
        ready_at = self.now + wait

        def begin(earlier: CriticalPath | None) -> None:
            wait = ready_at - self.now
            if wait < 0 and earlier is not None:  # it was ready before its connection was
                transfer.path = earlier
            self._begin(transfer, max(0, wait), follows=earlier is not None)

        self._connections.post(self._connection(transfer), begin)

    def _begin(self, transfer: DisturbedTransfer, wait: int, *, follows: bool) -> None:
        """Start the first window in `wait` picoseconds; `follows`: right behind another message of the connection."""
        transfer.windows = [transfer.nbytes]
        if self._tcp is not None:
            pair = transfer.worker.rank, transfer.request.dst
            if not follows:
                first = self._streams.count * self._tcp.initial_window
                self._congestion[pair] = CongestionWindow(self._tcp, first)
            window = transfer.congestion = self._congestion[pair]
            if window.used_up:
                wait += self._pause(transfer, window, wait)
            if window.used_up or not follows:
                window.began = self.now + wait
            transfer.windows = window.take(transfer.nbytes)
        self._start_window(transfer, wait)

    def _pause(self, transfer: DisturbedTransfer, window: CongestionWindow, wait: int) -> int:
        """Return for how long, after `wait` picoseconds, the next window of slow start waits for an acknowledgement."""
        pause = max(0, window.began + self._round_trip(transfer) - self.now - wait)
        transfer.path = transfer.path.then("slow start", pause)
        return pause

    def _connection(self, transfer: DisturbedTransfer) -> Hashable:
        """Return what identifies the connection of a message: its pair of ranks, or the message itself."""
        if self._tcp is not None and self._tcp.connections == "per-message":
            return transfer
        return transfer.worker.rank, transfer.request.dst

    def _start_window(self, transfer: DisturbedTransfer, wait: int) -> None:
        transfer.window_began = self.now + wait
        transfer.window_bytes = transfer.windows.pop(0)
        cap_bps = min(self._streams.cap_bps, self._pace(transfer))
        self._network.start(
            Route(transfer.route.links, wait),
            transfer.window_bytes,
            partial(self._drained, transfer),
            weight=transfer.weight,
            cap_bps=cap_bps,
        )
        if self._tcp is not None and (nbytes := self._tcp.acknowledgements(transfer.window_bytes)):
            self._acknowledge(transfer, wait, nbytes, cap_bps)

    def _pace(self, transfer: DisturbedTransfer) -> float:
        """Return the rate in bit/s at which acknowledgements let a window leave; infinite for what may leave at once.

        A window of slow start that is larger than what its connection may send is cut there. The rest leaves as
        acknowledgements come back, and so do all later windows.
        """
        if self._send_windows is None or not transfer.latency_ps or not transfer.route.links:
            return math.inf
        tokens = self._send_windows[transfer.worker.rank, transfer.request.dst]
        tokens.rate = tokens.capacity * PICOSECONDS / self._round_trip(transfer)
        free = int((tokens.refill(transfer.window_began) + NOTHING) // 8)
        pace = math.inf
        if not transfer.clocked and transfer.window_bytes > free > 0:
            transfer.windows = [transfer.window_bytes - free + sum(transfer.windows)]
            transfer.window_bytes, transfer.clocked = free, True
        elif transfer.clocked or transfer.window_bytes > free:
            if transfer.congestion is not None:
                transfer.congestion.open()
            transfer.window_bytes += sum(transfer.windows)
            transfer.windows, transfer.clocked, pace = [], True, tokens.rate
            transfer.limit = "window" if pace < self._streams.cap_bps else "stream rate"
        tokens.bits -= 8 * transfer.window_bytes
        return pace

    def _round_trip(self, transfer: DisturbedTransfer) -> int:
        """Return the picoseconds until the first byte of a message that leaves now is acknowledged."""
        if self._tcp is None:
            return 2 * transfer.latency_ps
        return self._tcp.acknowledged(transfer.route, transfer.latency_ps)

    def _acknowledge(self, transfer: DisturbedTransfer, wait: int, nbytes: int, cap_bps: float) -> None:
        """Let the acknowledgements of a window go back, spread over the time that the window takes alone."""
        narrowest = transfer.route.narrowest
        if narrowest is None:
            return
        back = self._fabric.route(self._hosts[transfer.request.dst], self._hosts[transfer.worker.rank])
        pace = min(cap_bps, narrowest.bandwidth_bps) * nbytes / transfer.window_bytes
        self._network.start(Route(back.links, wait), nbytes, _ignore, weight=transfer.weight, cap_bps=pace)

    def _drained(self, transfer: DisturbedTransfer, flow: Flow) -> None:
        """Start the next window once this one is acknowledged; after the last window, go to the receiver's host."""
        for bottleneck, duration in flow.bottlenecks:
            transfer.path = transfer.path.then(transfer.limit if bottleneck is CAP else bottleneck, duration)
        if not transfer.windows:
            self._connections.drained(self._connection(transfer), transfer.path)
            if self._clearances is not None:
                self._clearances.drained(transfer.worker.rank, transfer)
            if not self.eager:
                transfer.sent(None, transfer.path)
            self._work_on_host(transfer.request.dst, transfer, self._arrived)
            return
        wait, window = 0, transfer.congestion
        if window is not None and not transfer.clocked:
            wait = self._pause(transfer, window, 0)
            window.began = self.now + wait
        if not wait:  # from now on the sender never waits
            transfer.windows = [sum(transfer.windows)]
            if window is not None:
                window.open()
        self._start_window(transfer, wait)

    def _arrived(self, transfer: DisturbedTransfer) -> None:
        del self._transfers[transfer]
        transfer.arrived(None, transfer.path)

    def advance(self) -> bool:
        """Let the next event happen; return False when no rank computes and no message is on its way.

        Raises
        ------
        LinkDownError
            If every message on its way waits for a link that is down for good.
        """
        if not self._computing:
            arriving = 0 if self._clearances is None else self._clearances.arriving
            moving = self._moving()
            if not arriving and not moving:
                return False  # background flows and link events no longer matter
            if not arriving and self._link_changes.block(moving):
                raise self._link_changes.error(moving)
        return super().advance()

    def _moving(self) -> Collection[DisturbedTransfer]:
        """Return the messages on their way that do not wait for their receivers."""
        if self._clearances is None or not self._clearances.held:
            return self._transfers
        return [transfer for transfer in self._transfers if transfer not in self._clearances.held]


def _delays(effects: Effects, tcp: Tcp | None, seed: int) -> list[DelayStage]:
    """Return the stages that delay a message. Latency comes first, since a handshake takes two of it."""
    stages: list[DelayStage] = [LatencyStage(effects.jitter(), seed)]
    if tcp is not None and tcp.connections != "established":
        stages.append(HandshakeStage(tcp.connections))
    if effects.switching != "ideal":
        stages.append(SwitchingStage(effects.switching, tcp))
    return stages


def _ignore(flow: Flow) -> None:
    """Do nothing when the acknowledgements of a window are back."""


def _product(duration: int, factor: float) -> int:
    """Return a duration in picoseconds times a factor, at most the horizon."""
    return round(min(duration * factor, HORIZON_PS))
