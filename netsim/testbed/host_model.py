"""The host model: a simulated transport with the costs of gloo over the kernel's TCP, on hosts that may share cores.

The steps of :mod:`netsim.distributed.transfers` are simulated one by one. docs/host-model.md explains every term. A
message is

1. expected by its receiver: a third of `cpu_per_message_s`. gloo's notice of that wakes a thread of the sender;
2. packed by its sender: a third of `cpu_per_message_s`. If only the sender knows the size, a header goes first. It
   wakes two threads of the receiver, takes `header_cpu_s` there, and its answer wakes one thread of the sender;
3. carried by the links (:mod:`netsim.testbed.shaped_links`). Its last byte is late by `delivery_lag_s_per_byte` for
   each byte;
4. taken in by its receiver: two threads wake, gloo's and the rank's own, then a third of `cpu_per_message_s`.

An eager send is done when the kernel holds the body, which is at once because send buffers are larger than messages.
So the next message shares the link with it. A rendezvous send is done when the receiver's receipt has woken two
threads of the sender.

CPU time of a rank is spent on one core at most, one piece of work after another; ranks of one machine share its cores.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import simpy

from netsim._util.units import PICOSECONDS, picoseconds
from netsim.cluster.framing import Wire
from netsim.comm.payload import has_known_size, nbytes
from netsim.comm.worker import Compute, Recv, Send, Sends, Worker, stages
from netsim.network.fabric import Fabric
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.event_engine import Connections
from netsim.simulator.scheduler import Done
from netsim.testbed.cpu_model import Processors
from netsim.testbed.shaped_links import PacketStream, ShapedNetwork
from netsim.training.costs import Costs

START_DELAY_S = 0.02
"""Seconds for which all ranks are idle before a measurement starts."""
COOLING_S = 0.006
"""Time constant in seconds with which threads fall asleep while cores have no message to work on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTerms:
    """Costs of a message besides its bytes on the links; :func:`netsim.testbed.p2p_fits.host_terms` measures them.

    Parameters
    ----------
    wake_warm_s, wake_cold_s
        Seconds until a thread runs after its event: if it has just run, and if it has been idle for long. No core is
        used meanwhile. In between, ``wake_cold_s + (wake_warm_s - wake_cold_s) exp(-idle / COOLING_S)``.
    cpu_per_message_s
        Core seconds for a message: a third each to expect it, to pack it and to take it in.
    header_cpu_s
        Core seconds more at the receiver for a message that a header announces.
    delivery_lag_s_per_byte
        Seconds by which a message is later than its links alone would have it, per byte of payload.
    call_s
        Core seconds of a computation besides those for its bytes.
    cores
        Cores that all ranks share; None if each rank has one of its own.
    """

    wake_warm_s: float = 0.0
    wake_cold_s: float = 0.0
    cpu_per_message_s: float = 0.0
    header_cpu_s: float = 0.0
    delivery_lag_s_per_byte: float = 0.0
    call_s: float = 0.0
    cores: int | None = None


RANK_THREAD, GLOO_THREAD = "own thread", "gloo's thread"
"""The threads of a rank that wake: the one that runs its program, and the one that serves its connections."""


@dataclass(slots=True, eq=False)
class PackedMessage:
    """A message that its sender has packed, with the sender's critical path until then."""

    worker: Worker
    request: Send
    path: CriticalPath
    packed_at: int
    sent: Done
    arrived: Done


class HostTransport:
    """A simulated cluster of real hosts; rank r lives on ``fabric.hosts[r]``.

    Parameters
    ----------
    fabric
        The links.
    wire
        Framing and token buckets of the links.
    terms
        Costs of the hosts.
    costs
        Cost model of computations.
    sends
        When a send is done: ``eager`` or ``rendezvous``.
    now
        Start of the simulation in picoseconds.
    """

    def __init__(
        self, fabric: Fabric, wire: Wire, terms: HostTerms, costs: Costs, sends: Sends = "eager", now: int = 0
    ) -> None:
        self._environment = simpy.Environment(initial_time=now)
        self._network = ShapedNetwork(self._environment, wire)
        self._connections = Connections()
        self._processors = Processors(self._environment, len(fabric.hosts), terms.cores)
        self._fabric, self._wire, self._costs = fabric, wire, costs
        self._acknowledged = sends == "rendezvous"
        self._wake_warm, self._wake_cold = picoseconds(terms.wake_warm_s), picoseconds(terms.wake_cold_s)
        self._message_step, self._header = picoseconds(terms.cpu_per_message_s) // 3, picoseconds(terms.header_cpu_s)
        self._call = picoseconds(terms.call_s)
        self._lag_per_byte = terms.delivery_lag_s_per_byte * PICOSECONDS
        self._packed: defaultdict[tuple[int, int, int], deque[PackedMessage]] = defaultdict(deque)
        self._expected: defaultdict[tuple[int, int, int], deque[int]] = defaultdict(deque)
        self._work_queues: dict[int, deque[Callable[[], None]]] = {}
        self._last_active: dict[tuple[int, str], float] = {}
        self._idle_at_start = float(-picoseconds(START_DELAY_S))

    @property
    def now(self) -> int:
        """Simulated time in picoseconds."""
        return int(self._environment.now)

    # Messages.

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Send a message: ``sent`` when its sender may go on, ``arrived`` when its receiver has it."""

        def packed(path: CriticalPath) -> None:
            channel = (worker.rank, request.dst, request.tag)
            self._packed[channel].append(PackedMessage(worker, request, path, self.now, sent, arrived))
            self._match(channel)

        self._waking(worker.rank, RANK_THREAD)  # it runs already, since it sends
        self._occupy(worker.rank, "packing", self._message_step, path, packed)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Make a rank ready for a message; the sender knows this when the sender's gloo thread has woken."""

        def expected(_: CriticalPath) -> None:
            channel = (request.src, worker.rank, request.tag)
            self._expected[channel].append(self.now + self._waking(request.src, GLOO_THREAD))
            self._match(channel)

        self._waking(worker.rank, RANK_THREAD)  # it runs already, since it asks for the message
        self._occupy(worker.rank, "expecting", self._message_step, CriticalPath.start(self.now), expected)

    def _match(self, channel: tuple[int, int, int]) -> None:
        while self._packed[channel] and self._expected[channel]:
            self._rendezvous(self._packed[channel].popleft(), self._expected[channel].popleft())

    def _rendezvous(self, message: PackedMessage, heard_at: int) -> None:
        """Send a packed message as soon as its sender knows, at `heard_at`, that the receiver is ready."""
        src, dst = message.worker.rank, message.request.dst

        def heard() -> None:
            path = message.path.then("rendezvous", self.now - message.packed_at)
            (depart if has_known_size(message.request.payload) else announce)(path)

        def announce(path: CriticalPath) -> None:
            waking = self._waking_both(dst)
            path = path.then("waking", waking)
            self._after(waking, lambda: self._occupy(dst, "taking in", self._header, path, announced))

        def announced(path: CriticalPath) -> None:
            waking = self._waking(src, GLOO_THREAD)
            self._after(waking, lambda: depart(path.then("waking", waking)))

        def depart(path: CriticalPath) -> None:
            self._depart(message, path)

        self._after(max(0, heard_at - self.now), heard)

    def _depart(self, message: PackedMessage, path: CriticalPath) -> None:
        """Send a message, or its body, to a receiver that is ready for it."""
        src, dst = message.worker.rank, message.request.dst
        source, target = self._fabric.hosts[src], self._fabric.hosts[dst]
        route, back = self._fabric.route(source, target), self._fabric.route(target, source)
        if not self._acknowledged:
            message.sent(None, path)
        ready_at = self.now + route.latency_ps
        on_way = path.then("latency", route.latency_ps)

        def begin(earlier: CriticalPath | None) -> None:
            nonlocal on_way
            wait = ready_at - self.now
            if wait < 0 and earlier is not None:  # it was ready before its connection was
                on_way = earlier
            size = self._wire.bytes_of(nbytes(message.request.payload))
            self._network.start(route, back, size, drained, max(0, wait))

        def drained(stream: PacketStream) -> None:
            arriving = on_way
            for link, duration in stream.bottlenecks:
                arriving = arriving.then(link, duration)
            self._connections.drained((src, dst), arriving)
            lag = round(self._lag_per_byte * nbytes(message.request.payload))
            waking = self._waking_both(dst)
            arriving = arriving.then("waking", waking + lag)
            self._after(waking + lag, lambda: self._occupy(dst, "taking in", self._message_step, arriving, taken_in))

        def taken_in(path: CriticalPath) -> None:
            message.arrived(None, path)
            if self._acknowledged:
                receipt = self._waking_both(src) + back.latency_ps
                self._after(receipt, lambda: message.sent(None, path.then("receipt", receipt)))

        self._connections.post((src, dst), begin)

    def _waking(self, rank: int, thread: str) -> int:
        """Return the picoseconds until a thread runs, and note that it has run now."""
        idle_ps = self._processors.idle_ps(rank)
        idle_s = (idle_ps - self._last_active.get((rank, thread), self._idle_at_start)) / PICOSECONDS
        self._last_active[rank, thread] = idle_ps
        return round(self._wake_cold + (self._wake_warm - self._wake_cold) * math.exp(-idle_s / COOLING_S))

    def _waking_both(self, rank: int) -> int:
        """Return the picoseconds until a message has woken gloo's thread, and gloo's thread the rank's own thread."""
        return self._waking(rank, GLOO_THREAD) + self._waking(rank, RANK_THREAD)

    # Computing.

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Charge each stage of a computation to its rank's cores, then hand on the result of ``call()``."""
        charges = [(stage.work, self._costs.picoseconds(stage, lambda: None)) for stage in stages(request)]

        def next_stage(path: CriticalPath) -> None:
            if not charges:
                done(call(), path)
                return
            work, charge = charges.pop(0)
            self._occupy(worker.rank, work, charge + self._call, path, next_stage, on_message=False)

        next_stage(path)

    def _occupy(
        self,
        rank: int,
        what: str,
        charge: int,
        path: CriticalPath,
        then: Callable[[CriticalPath], None],
        *,
        on_message: bool = True,
    ) -> None:
        """Occupy one core of a rank for `charge` picoseconds, after the rank's earlier work."""
        if not charge:
            then(path)
            return
        queue = self._work_queues.setdefault(rank, deque())
        asked_at = self.now

        def begin() -> None:
            self._processors.run(rank, charge, ended, on_message=on_message)

        def ended() -> None:
            queue.popleft()
            if queue:
                queue[0]()
            then(path.then(what, self.now - asked_at))

        queue.append(begin)
        if len(queue) == 1:
            begin()

    # Simulation.

    def _after(self, delay: int, call: Callable[[], Any]) -> None:
        self._environment.timeout(delay).callbacks.append(lambda _: call())

    def advance(self) -> bool:
        """Simulate the next event; return False if there is none."""
        try:
            self._environment.step()
        except simpy.core.EmptySchedule:
            return False
        return True
