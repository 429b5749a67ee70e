"""Flows on links that are shaped by token buckets and also carry the acknowledgements of what goes the other way.

A fluid model like :mod:`netsim.network.flows`, with four things that matter to TCP on a shaped link:

- Acknowledgements go first. A flow of rate x loads the links of its way back with s x, and what is left of
  a link is shared by the flows that send data over it: max-min over bandwidths that depend on the rates, which
  is solved by iteration (it contracts by s, about 2 %).
- A link that has been idle lets `credit` bytes through at once, and earns them back at its own bandwidth less
  what it carries: a token bucket. It sends when it owes nothing, and then a whole group of frames, as the kernel
  does: the last group of a message is gone before it is earned, and what comes next waits for that.
- Where data goes both ways links lose more than acknowledgements at the beginning of each message: `lost`.
- Two hosts are sure of a part of a link, and have a credit of their own for it: so they begin at once even where the
  link owes, which then carries no more than its streams are sure of until it has earned what went.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping

import simpy

from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.network.fabric import Link, Route

NEVER = sys.maxsize
NOTHING = 1e-3
"""Bits: less is what numbers are rounded by."""
SOLVED = 4
"""Iterations: what is left of an error is s⁴, 2e-7 of acknowledgements, 2e-3 of the most that links lose."""


class PacketStream:
    """A message that drains, but for the bits that are `owed` when it has gone.

    `held_by` is what held it back, and for how many picoseconds. One that is `free` is let through at once, all of it.
    It is at its beginning for so many bits of `early`.
    """

    __slots__ = (
        *("back", "bits", "bottleneck", "done", "due", "early", "free", "held_by", "links", "owed", "rate", "since"),
    )

    def __init__(
        self,
        links: tuple[Link, ...],
        back: tuple[Link, ...],
        bits: int,
        done: Callable[[PacketStream], None],
        owed: int = 0,
    ) -> None:
        self.links, self.back, self.done = links, back, done
        self.bits, self.owed = float(bits - owed), float(owed)
        self.rate = self.early = 0.0
        self.bottleneck: Link | None = None
        self.since = self.due = 0
        self.free = False
        self.held_by: list[tuple[Link, int]] = []

    def progress(self, now: int) -> None:
        """Account for what drained at the present rate since the last change."""
        if now > self.since and self.bottleneck is not None:
            drained = self.rate * (now - self.since) / PICOSECONDS
            self.bits, self.early = max(0.0, self.bits - drained), max(0.0, self.early - drained)
            self.held_by.append((self.bottleneck, now - self.since))
        self.since = now


class TokenBucket:
    """The credit of a link, or of a pair of hosts on it, in bits: negative where it owes; and how fast it changes."""

    __slots__ = ("bits", "full", "rate", "since")

    def __init__(self, full: float, rate: float, now: int) -> None:
        self.bits = self.full = full
        self.rate = rate
        self.since = now

    def at(self, now: int) -> float:
        """Return the credit now."""
        self.bits = min(self.full, self.bits + self.rate * (now - self.since) / PICOSECONDS)
        self.since = now
        return self.bits

    @property
    def owes(self) -> bool:
        return self.bits < -NOTHING


class ShapedNetwork:
    """Carries streams, as a part of a SimPy simulation; all rates are solved anew whenever one comes or goes.

    A stream takes a part of its links back besides acknowledgements while it is at its beginning: `lost` are this part,
    and of how many bytes.
    """

    def __init__(self, environment: simpy.Environment, wire: Wire, lost: tuple[float, int] = (0.0, 0)) -> None:
        self._environment = environment
        self._wire = wire
        self._lost_share, self._early = lost[0], 8.0 * lost[1]
        self._streams: dict[PacketStream, None] = {}
        self._buckets: dict[Link, TokenBucket] = {}
        self._pairs: dict[tuple[Link, tuple[Link, ...]], TokenBucket] = {}
        self._entering: list[PacketStream] = []
        self._alarm = 0

    def start(self, route: Route, back: Route, nbytes: int, done: Callable[[PacketStream], None]) -> None:
        """Send `nbytes`, headers included, along `route`, acknowledged `back`; call ``done(stream)`` at the end."""
        stream = PacketStream(route.links, back.links, 8 * nbytes, done, owed=8 * self._wire.owed_of(nbytes))
        timeout = self._environment.timeout(route.latency_ps)
        timeout.callbacks.append(lambda _: self._enter(stream))

    @property
    def _now(self) -> int:
        return int(self._environment.now)

    def _enter(self, stream: PacketStream) -> None:
        if not self._entering:  # all that enters at this instant is applied at once
            self._environment.timeout(0).callbacks.append(lambda _: self._change())
        self._entering.append(stream)

    def _change(self) -> None:
        now = self._now
        for stream in self._streams:
            stream.progress(now)
        leaving = []
        for stream in list(self._streams):
            if stream.due <= now:
                del self._streams[stream]
                leaving.append(stream)
                self._owe(stream, now)
        entering, self._entering = self._entering, []
        for stream in entering:
            stream.since = now
            self._streams[stream] = None
            self._take_credit(stream, now)
            stream.early = self._early
            self._charge(stream.back, self._wire.ready_bytes, now)
            self._charge(stream.links, self._wire.ack_bytes if self._wire.ready_bytes else 0, now)
        self._solve(now)
        for stream in leaving:
            stream.done(stream)

    def _take_credit(self, stream: PacketStream, now: int) -> None:
        """Let through at once what links on the way have credit for, be it the pair's own.

        Where a pair has none of its own, what a link owes is drained first.
        """
        own = [self._pair(link, stream) for link in stream.links]
        links = [self._bucket(link) for link in stream.links]
        credit = [
            max(pair.bits, link.at(now)) if pair.at(now) > 0 else link.at(now)
            for pair, link in zip(own, links, strict=True)
        ]
        taken = min([stream.bits, *credit])
        for bucket in links:
            bucket.bits -= taken
        for bucket in own:
            bucket.bits -= max(0.0, min(taken, bucket.bits))
        stream.bits -= taken
        stream.free = stream.bits <= NOTHING and all(bucket.bits > 0 for bucket in own)

    def _charge(self, links: tuple[Link, ...], nbytes: int, now: int) -> None:
        """Have links carry a frame besides: what a receiver says when it is ready, or its acknowledgement."""
        for link in links if nbytes else ():
            bucket = self._bucket(link)
            bucket.at(now)
            bucket.bits -= 8 * nbytes

    def _owe(self, stream: PacketStream, now: int) -> None:
        """Have every link on the way owe what left with the last of a message before it was earned.

        Others that the link holds back wait for that: of messages that would end together one ends after the other.
        But not one that is a single group, for which its two hosts have a credit.
        """
        for link in stream.links if stream.owed else ():
            self._pair(link, stream).bits = -stream.owed
            bucket = self._bucket(link)
            bucket.at(now)
            waiting = [other for other in self._streams if other.bottleneck is link and not other.free]
            held = [] if bucket.owes else waiting
            for other in held:
                other.bits += stream.owed / len(held)
                other.due = NEVER
            if not held:
                bucket.bits -= stream.owed

    def _bucket(self, link: Link) -> TokenBucket:
        if (bucket := self._buckets.get(link)) is None:
            bucket = self._buckets[link] = TokenBucket(8.0 * self._wire.credit_bytes, 0.0, self._now)
        return bucket

    def _pair(self, link: Link, stream: PacketStream) -> TokenBucket:
        """Return what the two hosts of a stream have for themselves on a link, earned at what they are sure of."""
        if (bucket := self._pairs.get((link, stream.links))) is None:
            sure = self._wire.sure_share
            full = 8.0 * self._wire.credit_bytes if sure else 0.0
            bucket = self._pairs[link, stream.links] = TokenBucket(full, sure * link.bandwidth_bps, self._now)
        bucket.at(self._now)
        return bucket

    def _solve(self, now: int) -> None:
        for bucket in self._buckets.values():
            bucket.at(now)
        rates: dict[PacketStream, tuple[float, Link]] = {}
        acks: dict[Link, float] = {}
        for _ in range(SOLVED):
            rates = max_min(self._streams, acks, self._capacity)
            acks = self._acks(rates)
        used = dict(acks)
        for stream, (rate, bottleneck) in rates.items():
            stream.rate, stream.bottleneck = rate, bottleneck
            stream.due = now + math.ceil(stream.bits * PICOSECONDS / rate) if rate > 0 else NEVER
            for link in stream.links:
                used[link] = used.get(link, 0.0) + rate
        for link, bucket in self._buckets.items():
            bucket.rate = link.bandwidth_bps - used.get(link, 0.0)
        self._wake()

    def _capacity(self, link: Link, streams: int) -> float:
        """Return what a link has for so many streams: while it owes, no more than they are sure of."""
        if self._bucket(link).owes:
            return min(1.0, streams * self._wire.sure_share) * link.bandwidth_bps
        return link.bandwidth_bps

    def _acks(self, rates: Mapping[PacketStream, tuple[float, Link]]) -> dict[Link, float]:
        """Return the rate of acknowledgements on every link, and of what is lost besides."""
        acks: dict[Link, float] = {}
        for stream, (rate, _) in rates.items():
            share = self._wire.ack_share + (self._lost_share if stream.early > NOTHING else 0.0)
            for link in stream.back:
                acks[link] = acks.get(link, 0.0) + share * rate
        return acks

    def _wake(self) -> None:
        """Have SimPy call when a stream is due or a link owes no more; an alarm set before is then ignored."""
        self._alarm += 1
        if self._streams:
            number = self._alarm
            due = min(stream.due for stream in self._streams)
            for stream in self._streams:
                if stream.early > NOTHING and stream.rate > 0:
                    due = min(due, self._now + math.ceil(stream.early * PICOSECONDS / stream.rate))
            for link in {link for stream in self._streams for link in stream.links}:
                bucket = self._buckets[link]
                if bucket.owes and bucket.rate > 0:
                    due = min(due, self._now + math.ceil(-bucket.bits * PICOSECONDS / bucket.rate))
            timeout = self._environment.timeout(due - self._now)
            timeout.callbacks.append(lambda _: self._change() if number == self._alarm else None)


def max_min(
    streams: Iterable[PacketStream],
    taken: Mapping[Link, float],
    capacity: Callable[[Link, int], float] = lambda link, _: link.bandwidth_bps,
) -> dict[PacketStream, tuple[float, Link]]:
    """Return each stream's max-min fair rate in bit/s, and the link that limits it.

    ``capacity(link, streams)`` is what a link has for so many, `taken` what it loses before.

    Progressive filling (Bertsekas and Gallager, Data Networks, section 6.5).
    """
    waiting: dict[Link, dict[PacketStream, None]] = {}
    for stream in streams:
        for link in stream.links:
            waiting.setdefault(link, {})[stream] = None
    spare = {link: max(0.0, capacity(link, len(on)) - taken.get(link, 0.0)) for link, on in waiting.items()}
    rates: dict[PacketStream, tuple[float, Link]] = {}
    while waiting:
        tightest = min(waiting, key=lambda link: (spare[link] / len(waiting[link]), link.index))
        rate = spare[tightest] / len(waiting[tightest])
        for stream in list(waiting[tightest]):
            rates[stream] = rate, tightest
            for link in stream.links:
                spare[link] = max(0.0, spare[link] - rate)
                del waiting[link][stream]
                if not waiting[link]:
                    del waiting[link]
    return rates
