"""The simulated network with sends as they are: gloo over the kernel's TCP, on hosts that may share cores.

What :mod:`netsim.backends.messages` does is modelled step by step. A message is

1. packed by its sender: a third of `work_s`, or of `hot_work_s` where it just did the same, and `byte_s` for each byte;
2. announced by a header, once its receiver is there (gloo's rendezvous): 2/3 of `wake_s`, and a third of
   `work_s` at the receiver;
3. drained through the links: :mod:`netsim.network.shaped`; meanwhile the kernel forwards its frames, on the same
   processors: `frame_s` for each byte;
4. taken in by its receiver: the rest of `wake_s` and of `work_s`.

An eager send is done when the kernel holds the body, which is at once, as its buffers are larger than the
messages: so the next message shares the link with the last. An acknowledged one is done when the receiver's
word is back, another third of `wake_s` later.

Work is done on processors: that of one rank in turn, on one core at most; ranks of one machine share its
`cores`. These terms come from point-to-point messages (:mod:`netsim.validation.points`), the rest from
what the kernel counts (:mod:`netsim.network.wire`).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import simpy

from netsim.backends.cooperative import Done
from netsim.backends.path import Path
from netsim.backends.processors import Processors
from netsim.backends.simulated import Costs
from netsim.network.fabric import Fabric, Route
from netsim.network.shaped import ShapedNetwork, Stream
from netsim.network.wire import Wire
from netsim.payload import nbytes
from netsim.units import PICOSECONDS, picoseconds
from netsim.worker import Compute, Recv, Send, Sends, Worker, stages

WARM_S, COLD_S = 0.004, 0.05
"""What a rank did just now it does again in `busy_s`: answering a header, taking in a body or a receipt. If processors
did nothing for messages for the first of these since, it takes `wake_s`: threads sleep. After the second its work takes
`cold_s` more: caches forget. Where messages leave processors no rest neither happens, however long ago it was."""
AHEAD_S = 0.02
"""For so long all ranks keep still before they begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTerms:
    """What a message costs besides its bytes on the links, in seconds.

    `wake_s`: waiting until threads are awake, which costs no processor; `busy_s` where they just did the same.
    `work_s`: processors' time for a message, `hot_work_s` where they just did the same and `cold_s` more where that was
    long ago; `byte_s` for each of its bytes, and `frame_s` for each while the kernel forwards its frames.
    `cores`: processors that all ranks share, None if each has its own.
    """

    busy_s: float = 0.0
    wake_s: float = 0.0
    cold_s: float = 0.0
    work_s: float = 0.0
    hot_work_s: float = 0.0
    byte_s: float = 0.0
    frame_s: float = 0.0
    cores: int | None = None


@dataclass(slots=True, eq=False)
class Posted:
    """A message that its sender has packed, and where it stands."""

    worker: Worker
    request: Send
    path: Path
    since: int
    sent: Done
    arrived: Done


class KernelMedium:
    """A simulated cluster of real hosts; rank r lives on ``fabric.hosts[r]``."""

    def __init__(
        self, fabric: Fabric, wire: Wire, terms: HostTerms, costs: Costs, sends: Sends = "eager", now: int = 0
    ) -> None:
        self._environment = simpy.Environment(initial_time=now)
        self._network = ShapedNetwork(self._environment, wire)
        self._processors = Processors(self._environment, len(fabric.hosts), terms.cores)
        self._fabric, self._wire, self._costs = fabric, wire, costs
        self._acknowledged = sends == "acknowledged"
        self._busy, self._wake, self._cold = (
            picoseconds(seconds) // 3 for seconds in (terms.busy_s, terms.wake_s, terms.cold_s)
        )
        self._hot, self._work = picoseconds(terms.hot_work_s) // 3, picoseconds(terms.work_s) // 3
        self._byte, self._frame = terms.byte_s * PICOSECONDS, terms.frame_s * PICOSECONDS
        self._posted: defaultdict[tuple[int, int, int], deque[Posted]] = defaultdict(deque)
        self._expected: Counter[tuple[int, int, int]] = Counter()
        self._free_at: dict[int, deque[Callable[[], None]]] = {}
        self._awake: dict[tuple[int, str], float] = {}
        self._began = float(-picoseconds(AHEAD_S))

    @property
    def now(self) -> int:
        return int(self._environment.now)

    # Messages.

    def carry(self, worker: Worker, request: Send, path: Path, sent: Done, arrived: Done) -> None:
        def packed(path: Path) -> None:
            channel = (worker.rank, request.dst, request.tag)
            self._posted[channel].append(Posted(worker, request, path, self.now, sent, arrived))
            self._match(channel)

        _, work = self._waking(worker.rank, "packing")
        charge = work + round(self._byte * nbytes(request.payload))
        self._occupy(worker.rank, "packing", charge, path, packed)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        channel = (request.src, worker.rank, request.tag)
        self._expected[channel] += 1
        self._match(channel)

    def _match(self, channel: tuple[int, int, int]) -> None:
        while self._posted[channel] and self._expected[channel]:
            self._expected[channel] -= 1
            self._depart(self._posted[channel].popleft())

    def _depart(self, message: Posted) -> None:
        """Send a message that is packed to a receiver that is there."""
        here, there = message.worker.rank, message.request.dst
        source, target = self._fabric.hosts[here], self._fabric.hosts[there]
        route, back = self._fabric.route(source, target), self._fabric.route(target, source)
        announcing, announced = self._waking(there, "header")
        announcing *= 2
        path = message.path.then("rendezvous", self.now - message.since).then("waking", announcing)

        def leave(path: Path) -> None:
            if not self._acknowledged:
                message.sent(None, path)
            left, forwarded = self.now, self._forwarded(message, route)

            def drained(stream: Stream) -> None:
                if forwarded.processed:
                    reached(stream, left, path)
                else:
                    forwarded.callbacks.append(lambda _: reached(stream, left, path))

            self._network.start(route, back, self._wire.bytes_of(nbytes(message.request.payload)), drained)

        def reached(stream: Stream, left: int, path: Path) -> None:
            path = path.then("latency", route.latency_ps)
            for link, duration in stream.held_by:
                path = path.then(link, duration)
            drained = left + route.latency_ps + sum(duration for _, duration in stream.held_by)
            path = path.then("forwarding", self.now - drained)
            waking, work = self._waking(there, "body")
            path = path.then("waking", waking)
            self._after(waking, lambda: self._occupy(there, "taking in", work, path, taken_in))

        def taken_in(path: Path) -> None:
            message.arrived(None, path)
            if self._acknowledged:
                word = self._waking(here, "receipt")[0] + back.latency_ps
                self._after(word, lambda: message.sent(None, path.then("receipt", word)))

        self._after(announcing, lambda: self._occupy(there, "taking in", announced, path, leave))

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

    def _waking(self, rank: int, what: str) -> tuple[int, int]:
        """Return a third of what waking a rank takes, and of its work then: both depend on when it last did this."""
        rested = self._processors.rested(rank)
        still = (rested - self._awake.get((rank, what), self._began)) / PICOSECONDS
        self._awake[rank, what] = rested
        warm, cold = still / WARM_S, (still - WARM_S) / (COLD_S - WARM_S)
        slower = (self._wake - self._busy) * min(1.0, warm)
        work = round(self._hot + (self._work - self._hot) * min(1.0, warm))
        return round(self._busy + slower), work + round(self._cold * min(1.0, max(0.0, cold)))

    # Computing.

    def compute(self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: Path, done: Done) -> None:
        parts = [(stage.work, self._costs.picoseconds(stage, lambda: None)) for stage in stages(request)]

        def go_on(path: Path) -> None:
            if not parts:
                done(call(), path)
                return
            work, charge = parts.pop(0)
            self._occupy(worker.rank, work, charge, path, go_on, on_message=False)

        go_on(path)

    def _occupy(
        self, rank: int, what: str, charge: int, path: Path, then: Callable[[Path], None], *, on_message: bool = True
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
