"""The simulated network with sends as they are: gloo over the kernel's TCP, on hosts that may share cores.

What :mod:`netsim.distributed.transfers` does is modelled step by step. A message is

1. expected by its receiver: a third of `work_s`. Its sender hears of that (gloo's rendezvous) `wake_s` later;
2. packed by its sender: a third of `work_s`. If only the sender knows the size, a header goes first, which takes twice
   `wake_s`, and `header_s` at the receiver, and `wake_s` at the sender, that hears that the receiver is ready for it;
3. drained through the links: :mod:`netsim.testbed.shaped_links`; meanwhile the kernel forwards its frames, on the same
   processors: `frame_s` for each byte; its last byte is late by `byte_s` for each;
4. taken in by its receiver: twice `wake_s`, for gloo's thread hears of it first, and a third of `work_s`.

An eager send is done when the kernel holds the body, which is at once, as its buffers are larger than the
messages: so the next message shares the link with the last. An acknowledged one is done when the receiver's
word is back, twice `wake_s` later.

Work is done on processors: that of one rank in turn, on one core at most; ranks of one machine share its
`cores`. These terms come from point-to-point messages (:mod:`netsim.testbed.p2p_fits`), the rest from
what the kernel counts (:mod:`netsim.cluster.framing`).
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
from netsim.network.fabric import Fabric, Route
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.scheduler import Done
from netsim.testbed.cpu_model import Processors
from netsim.testbed.shaped_links import PacketStream, ShapedNetwork
from netsim.training.costs import Costs

AHEAD_S = 0.02
"""For so long all ranks keep still before they begin."""
FORGET_S = 0.006
"""A thread wakes in `busy_s` if it just had to do with a message, in `wake_s` if that was long ago, and of the
difference a part of 1/e is left to come when processors have done nothing for messages for so long. Where messages
leave processors no rest threads stay awake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTerms:
    """What a message costs besides its bytes on the links, in seconds.

    `wake_s`: waiting until a thread is awake for what came, which costs no processor; `busy_s` where it just was.
    `work_s`: processors' time for a message of known size; `header_s`: how much more for one that a header announces.
    `lost_share`: of the first `lost_bytes` of messages, what links lose besides acknowledgements to what goes the other
    way. `frame_s`: for each byte while the kernel forwards the frames. `byte_s`: for each byte, how much later than its
    link alone would have it a message is there, which costs no processor. `call_s`: what a computation takes
    besides what it does with bytes, `hot_call_s` where a rank just did one.
    `cores`: processors that all ranks share, None if each has its own.
    """

    busy_s: float = 0.0
    wake_s: float = 0.0
    work_s: float = 0.0
    header_s: float = 0.0
    byte_s: float = 0.0
    frame_s: float = 0.0
    lost_share: float = 0.0
    lost_bytes: int = 0
    call_s: float = 0.0
    hot_call_s: float = 0.0
    cores: int | None = None


OWN, LOOP = "own thread", "gloo's thread"
"""What wakes: who waits for something, and who hears what comes over connections."""


@dataclass(slots=True, eq=False)
class Posted:
    """A message that its sender has packed, and where it stands."""

    worker: Worker
    request: Send
    path: CriticalPath
    since: int
    sent: Done
    arrived: Done


class HostTransport:
    """A simulated cluster of real hosts; rank r lives on ``fabric.hosts[r]``."""

    def __init__(
        self, fabric: Fabric, wire: Wire, terms: HostTerms, costs: Costs, sends: Sends = "eager", now: int = 0
    ) -> None:
        self._environment = simpy.Environment(initial_time=now)
        self._network = ShapedNetwork(self._environment, wire, (terms.lost_share, terms.lost_bytes))
        self._processors = Processors(self._environment, len(fabric.hosts), terms.cores)
        self._fabric, self._wire, self._costs = fabric, wire, costs
        self._acknowledged = sends == "acknowledged"
        self._busy, self._wake = picoseconds(terms.busy_s), picoseconds(terms.wake_s)
        self._work, self._header = picoseconds(terms.work_s) // 3, picoseconds(terms.header_s)
        self._call, self._hot_call = picoseconds(terms.call_s), picoseconds(terms.hot_call_s)
        self._byte, self._frame = terms.byte_s * PICOSECONDS, terms.frame_s * PICOSECONDS
        self._posted: defaultdict[tuple[int, int, int], deque[Posted]] = defaultdict(deque)
        self._expected: defaultdict[tuple[int, int, int], deque[int]] = defaultdict(deque)
        self._free_at: dict[int, deque[Callable[[], None]]] = {}
        self._did: dict[tuple[int, str], float] = {}
        self._began = float(-picoseconds(AHEAD_S))

    @property
    def now(self) -> int:
        return int(self._environment.now)

    # Messages.

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        def packed(path: CriticalPath) -> None:
            channel = (worker.rank, request.dst, request.tag)
            self._posted[channel].append(Posted(worker, request, path, self.now, sent, arrived))
            self._match(channel)

        self._waking(worker.rank, OWN)  # it is awake: it sends
        self._occupy(worker.rank, "packing", self._work, path, packed)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        def expected(_: CriticalPath) -> None:
            channel = (request.src, worker.rank, request.tag)
            self._expected[channel].append(self.now + self._waking(request.src, LOOP))
            self._match(channel)

        self._waking(worker.rank, OWN)  # it is awake: it says so
        self._occupy(worker.rank, "expecting", self._work, CriticalPath.start(self.now), expected)

    def _match(self, channel: tuple[int, int, int]) -> None:
        while self._posted[channel] and self._expected[channel]:
            self._meet(self._posted[channel].popleft(), self._expected[channel].popleft())

    def _meet(self, message: Posted, heard_at: int) -> None:
        """Have a message that is packed leave for a receiver that is there, as soon as its sender knows."""
        here, there = message.worker.rank, message.request.dst

        def heard() -> None:
            path = message.path.then("rendezvous", self.now - message.since)
            (depart if has_known_size(message.request.payload) else announce)(path)

        def announce(path: CriticalPath) -> None:
            waking = self._waking_both(there)
            path = path.then("waking", waking)
            self._after(waking, lambda: self._occupy(there, "taking in", self._header, path, announced))

        def announced(path: CriticalPath) -> None:
            waking = self._waking(here, LOOP)
            self._after(waking, lambda: depart(path.then("waking", waking)))

        def depart(path: CriticalPath) -> None:
            self._depart(message, path)

        self._after(max(0, heard_at - self.now), heard)

    def _depart(self, message: Posted, path: CriticalPath) -> None:
        """Send a message, or its body, to a receiver that is ready for it."""
        here, there = message.worker.rank, message.request.dst
        source, target = self._fabric.hosts[here], self._fabric.hosts[there]
        route, back = self._fabric.route(source, target), self._fabric.route(target, source)
        if not self._acknowledged:
            message.sent(None, path)
        left, forwarded = self.now, self._forwarded(message, route)

        def drained(stream: PacketStream) -> None:
            if forwarded.processed:
                reached(stream)
            else:
                forwarded.callbacks.append(lambda _: reached(stream))

        def reached(stream: PacketStream) -> None:
            arriving = path.then("latency", route.latency_ps)
            for link, duration in stream.held_by:
                arriving = arriving.then(link, duration)
            drained = left + route.latency_ps + sum(duration for _, duration in stream.held_by)
            late = round(self._byte * nbytes(message.request.payload))
            waking = self._waking_both(there)
            arriving = arriving.then("forwarding", self.now - drained).then("waking", waking + late)
            self._after(waking + late, lambda: self._occupy(there, "taking in", self._work, arriving, taken_in))

        def taken_in(path: CriticalPath) -> None:
            message.arrived(None, path)
            if self._acknowledged:
                word = self._waking_both(here) + back.latency_ps
                self._after(word, lambda: message.sent(None, path.then("receipt", word)))

        self._network.start(route, back, self._wire.bytes_of(nbytes(message.request.payload)), drained)

    def _forwarded(self, message: Posted, route: Route) -> simpy.Event:
        """Have processors forward a message's frames, no faster than links alone would carry them."""
        forwarded = self._environment.event()
        size = nbytes(message.request.payload)
        if not (charge := round(self._frame * size)):
            return forwarded.succeed()
        earned = self._wire.earned_of(self._wire.bytes_of(size))
        drained = PICOSECONDS * 8 * earned / min(link.bandwidth_bps for link in route.links)
        most = min(1.0, charge / drained) if drained else 1.0
        self._processors.run(message.worker.rank, charge, forwarded.succeed, most=most)
        return forwarded

    def _waking(self, rank: int, thread: str) -> int:
        """Return what waking a thread takes, which does something now."""
        return self._growing(self._busy, self._wake, rank, thread)

    def _waking_both(self, rank: int) -> int:
        """Return what it takes until gloo's thread of a rank has heard of something, and has woken the rank's own."""
        return self._waking(rank, LOOP) + self._waking(rank, OWN)

    def _growing(self, at_once: int, at_last: int, rank: int, what: str) -> int:
        """Return what something takes that a rank does now; it depends on how long ago it did the same."""
        rested = self._processors.rested(rank)
        still = (rested - self._did.get((rank, what), self._began)) / PICOSECONDS
        self._did[rank, what] = rested
        return round(at_last + (at_once - at_last) * math.exp(-still / FORGET_S))

    # Computing.

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        parts = [(stage.work, self._costs.picoseconds(stage, lambda: None)) for stage in stages(request)]

        def go_on(path: CriticalPath) -> None:
            if not parts:
                done(call(), path)
                return
            work, charge = parts.pop(0)
            charge += self._growing(self._hot_call, self._call, worker.rank, work)
            self._occupy(worker.rank, work, charge, path, go_on, on_message=False)

        go_on(path)

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
        """Have a rank, which does one thing after another, work for `charge` picoseconds of one core."""
        if not charge:
            then(path)
            return
        waiting = self._free_at.setdefault(rank, deque())
        asked = self.now

        def begin() -> None:
            self._processors.run(rank, charge, ended, on_message=on_message)

        def ended() -> None:
            waiting.popleft()
            if waiting:
                waiting[0]()
            then(path.then(what, self.now - asked))

        waiting.append(begin)
        if len(waiting) == 1:
            begin()

    # Going on.

    def _after(self, wait: int, call: Callable[[], Any]) -> None:
        self._environment.timeout(wait).callbacks.append(lambda _: call())

    def advance(self) -> bool:
        try:
            self._environment.step()
        except simpy.core.EmptySchedule:
            return False
        return True
