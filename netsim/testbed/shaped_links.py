"""Flows on links that are shaped by token buckets and carry TCP's acknowledgements: a fluid model.

:mod:`netsim.network.flows` shares links max-min. A shaped link under TCP differs from it in three ways:

- **Acknowledgements** go first. A flow of rate x loads the links of its way back with s x, where s is
  :attr:`netsim.cluster.framing.Wire.ack_share`, about 2 %. Data shares the rest of the link. The rates of flows
  therefore depend on each other; an iteration solves them, and each step reduces the error by the factor s.
- **Token buckets.** An idle link sends a full bucket of bytes at once. The bucket refills at the bandwidth less the
  load. The link sends whole groups of frames as long as the bucket is not negative. The last group of a message
  therefore leaves on credit, and the next message waits until the bucket's deficit is earned.
- **Guaranteed rates.** Every pair of hosts has a class with its own token bucket on a link. A message of the pair
  starts at once even while the link has a deficit. During a deficit the link carries guaranteed rates only.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping

import simpy

from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.network.fabric import Link, Route
from netsim.network.filling import max_min
from netsim.network.flow import Bottleneck
from netsim.network.token_bucket import NOTHING, TokenBucket

NEVER = sys.maxsize
ITERATIONS = 4
"""Iterations for rates: the error left is s⁴, 2e-7 for acknowledgements."""


class PacketStream:
    """A message that drains through the links of its route.

    Parameters
    ----------
    links, back
        Links of the message's route, and of its acknowledgements'.
    bits
        Size on a link, headers included.
    done
        Called with the stream when its last bit has left.
    deficit_bits
        The part of `bits` that leaves on credit at the end.

    Attributes
    ----------
    bits : float
        Bits that are still to drain.
    immediate : bool
        Whether the tokens suffice for the whole message.
    bottlenecks : list of (Link, int)
        Links that limited the stream's rate, each with its number of picoseconds.
    """

    __slots__ = (
        *("back", "bits", "bottleneck", "bottlenecks", "deficit_bits", "done", "due", "immediate", "links"),
        *("rate", "since"),
    )

    weight = 1.0
    cap = math.inf

    def __init__(
        self,
        links: tuple[Link, ...],
        back: tuple[Link, ...],
        bits: int,
        done: Callable[[PacketStream], None],
        deficit_bits: int = 0,
    ) -> None:
        self.links, self.back, self.done = links, back, done
        self.bits, self.deficit_bits = float(bits - deficit_bits), float(deficit_bits)
        self.rate = 0.0
        self.bottleneck: Bottleneck | None = None
        self.since = self.due = 0
        self.immediate = False
        self.bottlenecks: list[tuple[Bottleneck, int]] = []

    def progress(self, now: int) -> None:
        """Subtract the bits that drained at the present rate since the last change of rates."""
        if now > self.since and self.bottleneck is not None:
            drained = self.rate * (now - self.since) / PICOSECONDS
            self.bits = max(0.0, self.bits - drained)
            self.bottlenecks.append((self.bottleneck, now - self.since))
        self.since = now


class ShapedNetwork:
    """Carries streams in a SimPy simulation; all rates are solved again whenever a stream starts or ends.

    Parameters
    ----------
    environment
        SimPy's simulation, in picoseconds.
    wire
        Framing and token buckets of the links.
    """

    def __init__(self, environment: simpy.Environment, wire: Wire) -> None:
        self._environment = environment
        self._wire = wire
        self._streams: dict[PacketStream, None] = {}
        self._buckets: dict[Link, TokenBucket] = {}
        self._pair_buckets: dict[tuple[Link, tuple[Link, ...]], TokenBucket] = {}
        self._entering: list[PacketStream] = []
        self._alarm = 0

    def start(
        self,
        route: Route,
        back: Route,
        nbytes: int,
        done: Callable[[PacketStream], None],
        wait_ps: int | None = None,
    ) -> None:
        """Send a message.

        Parameters
        ----------
        route, back
            Way of the message, and of its acknowledgements.
        nbytes
            Size on a link, headers included.
        done
            Called with the stream when its last bit has left.
        wait_ps
            Picoseconds until the message begins to drain, if not the latency of the route.
        """
        deficit_bits = 8 * self._wire.deficit_of(nbytes)
        stream = PacketStream(route.links, back.links, 8 * nbytes, done, deficit_bits)
        timeout = self._environment.timeout(route.latency_ps if wait_ps is None else wait_ps)
        timeout.callbacks.append(lambda _: self._enter(stream))

    @property
    def _now(self) -> int:
        return int(self._environment.now)

    def _enter(self, stream: PacketStream) -> None:
        if not self._entering:  # rates are solved once for all streams that enter at this instant
            self._environment.timeout(0).callbacks.append(lambda _: self._change())
        self._entering.append(stream)

    def _change(self) -> None:
        """Remove the streams that have ended, add those that enter, and solve all rates."""
        now = self._now
        for stream in self._streams:
            stream.progress(now)
        leaving = []
        for stream in list(self._streams):
            if stream.due <= now:
                del self._streams[stream]
                leaving.append(stream)
                self._leave_deficit(stream, now)
        entering, self._entering = self._entering, []
        for stream in entering:
            stream.since = now
            self._streams[stream] = None
            self._spend_tokens(stream, now)
        self._solve(now)
        for stream in leaving:
            stream.done(stream)

    def _spend_tokens(self, stream: PacketStream, now: int) -> None:
        """Send at once as many bits as all links of the route have tokens for, their own or those of the pair of hosts.

        If the pair has no tokens, the stream waits until the link's deficit is earned.
        """
        pairs = [self._pair_bucket(link, stream) for link in stream.links]
        links = [self._bucket(link) for link in stream.links]
        tokens = [
            max(pair.bits, link.refill(now)) if pair.refill(now) > 0 else link.refill(now)
            for pair, link in zip(pairs, links, strict=True)
        ]
        spent = min([stream.bits, *tokens])
        for bucket in links:
            bucket.bits -= spent
        for bucket in pairs:
            bucket.bits -= max(0.0, min(spent, bucket.bits))
        stream.bits -= spent
        stream.immediate = stream.bits <= NOTHING and all(bucket.bits > 0 for bucket in pairs)

    def _leave_deficit(self, stream: PacketStream, now: int) -> None:
        """Charge every link of the route for the last group of a message, which left on credit.

        The deficit is added in equal parts to the streams that the link still limits, so messages that would end
        together end one after the other. A message of a single group uses the pair's tokens and does not wait.
        """
        for link in stream.links if stream.deficit_bits else ():
            self._pair_bucket(link, stream).bits = -stream.deficit_bits
            bucket = self._bucket(link)
            bucket.refill(now)
            limited = [other for other in self._streams if other.bottleneck is link and not other.immediate]
            delayed = [] if bucket.in_deficit else limited
            for other in delayed:
                other.bits += stream.deficit_bits / len(delayed)
                other.due = NEVER
            if not delayed:
                bucket.bits -= stream.deficit_bits

    def _bucket(self, link: Link) -> TokenBucket:
        if (bucket := self._buckets.get(link)) is None:
            bucket = self._buckets[link] = TokenBucket(8.0 * self._wire.burst_bytes, 0.0, self._now)
        return bucket

    def _pair_bucket(self, link: Link, stream: PacketStream) -> TokenBucket:
        """Return the token bucket of a stream's pair of hosts on a link, refilled until now."""
        if (bucket := self._pair_buckets.get((link, stream.links))) is None:
            guaranteed = self._wire.guaranteed_rate
            capacity = 8.0 * self._wire.burst_bytes if guaranteed else 0.0
            bucket = TokenBucket(capacity, guaranteed * link.bandwidth_bps, self._now)
            self._pair_buckets[link, stream.links] = bucket
        bucket.refill(self._now)
        return bucket

    def _solve(self, now: int) -> None:
        """Solve the rates of all streams, and set when each ends and how fast buckets refill."""
        for bucket in self._buckets.values():
            bucket.refill(now)
        users = Counter(link for stream in self._streams for link in stream.links)
        capacity = {link: self._capacity(link, streams) for link, streams in users.items()}
        left, reverse_load = capacity, dict[Link, float]()
        rates: dict[PacketStream, tuple[float, Bottleneck]] = {}
        for _ in range(ITERATIONS):
            rates = max_min(self._streams, left.__getitem__)
            reverse_load = self._reverse_load(rates)
            left = {link: max(0.0, bandwidth - reverse_load.get(link, 0.0)) for link, bandwidth in capacity.items()}
        used = dict(reverse_load)
        for stream, (rate, bottleneck) in rates.items():
            stream.rate, stream.bottleneck = rate, bottleneck
            stream.due = now + math.ceil(stream.bits * PICOSECONDS / rate) if rate > 0 else NEVER
            for link in stream.links:
                used[link] = used.get(link, 0.0) + rate
        for link, bucket in self._buckets.items():
            bucket.rate = link.bandwidth_bps - used.get(link, 0.0)
        self._set_alarm()

    def _capacity(self, link: Link, streams: int) -> float:
        """Return the bit/s that `streams` streams can use of a link; in deficit, the sum of their guaranteed rates."""
        if self._bucket(link).in_deficit:
            return min(1.0, streams * self._wire.guaranteed_rate) * link.bandwidth_bps
        return link.bandwidth_bps

    def _reverse_load(self, rates: Mapping[PacketStream, tuple[float, Bottleneck]]) -> dict[Link, float]:
        """Return the load of acknowledgements on every link, in bit/s."""
        load: dict[Link, float] = {}
        for stream, (rate, _) in rates.items():
            for link in stream.back:
                load[link] = load.get(link, 0.0) + self._wire.ack_share * rate
        return load

    def _set_alarm(self) -> None:
        """Set SimPy's alarm for the next change: a stream ends, or a bucket in deficit refills to zero.

        The new alarm replaces earlier ones.
        """
        self._alarm += 1
        if self._streams:
            alarm = self._alarm
            due = min(stream.due for stream in self._streams)
            for link in {link for stream in self._streams for link in stream.links}:
                bucket = self._buckets[link]
                if bucket.in_deficit and bucket.rate > 0:
                    due = min(due, self._now + math.ceil(-bucket.bits * PICOSECONDS / bucket.rate))
            timeout = self._environment.timeout(due - self._now)
            timeout.callbacks.append(lambda _: self._change() if alarm == self._alarm else None)
