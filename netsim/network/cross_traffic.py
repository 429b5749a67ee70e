"""Traffic of others, as a load on every link that a message uses.

At a load ρ every link has cross traffic of its own: flows that enter and leave at that link, Poisson arrivals at
ρ B / (8 E[size]) a second. Alone on its link this is an M/G/1 queue under processor sharing, which is stationary from
the first instant: P(n flows) = (1 - ρ) ρⁿ, their remainders drawn from the equilibrium of the size. A message of b
bits that comes by then takes b / (B (1 - ρ)) in the mean, whatever the sizes (Kleinrock 1976, *Queueing Systems* II,
section 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from netsim._util.errors import UsageError, shown, suggestion
from netsim._util.random_streams import LARGEST_SIGMA, Stream, generator
from netsim._util.units import MOST_BYTES, PICOSECONDS, parse_size, picoseconds, read_number
from netsim.network.fabric import Link, Route
from netsim.network.sharing import Sharing, weight_by_latency

if TYPE_CHECKING:
    import numpy as np
    import simpy

    from netsim.network.flows import Flow, Network

WINDOW = 32
"""Arrivals in the mean that are drawn at a time, from a generator of their own."""

SIZES = ("exponential", "fixed", "lognormal")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large flows are: ``exponential:1MB``, ``fixed:1MB`` or ``lognormal:1MB:σ``, with the mean in bytes."""

    shape: str
    mean: int
    sigma: float = 0.0

    @classmethod
    def of(cls, text: str) -> Sizes:
        """Read a distribution; raise UsageError if it is none."""
        shape, _, rest = text.partition(":")
        mean, _, sigma = rest.partition(":")
        if shape not in SIZES or not mean or bool(sigma) != (shape == "lognormal"):
            close = suggestion(shape, SIZES) if shape not in SIZES else ""
            raise UsageError(
                f"background-size {text!r} is not a distribution{close}; "
                "write it like exponential:1MB, fixed:100kB or lognormal:1MB:1.5"
            )
        spread = read_number(sigma or "0")
        if spread is None or not 0 <= spread <= LARGEST_SIGMA:
            raise UsageError(
                f"background-size {shown(text)} must have a σ of 0 to {LARGEST_SIGMA}; write it like lognormal:1MB:1.5"
            )
        return cls(shape, parse_size(mean, "background-size"), spread)

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Return `count` sizes in bytes."""
        match self.shape:
            case "exponential":
                return random.exponential(self.mean, count)
            case "lognormal":
                return self.mean * random.lognormal(-(self.sigma**2) / 2, self.sigma, count)
        return random.random(count) * 0 + self.mean

    def remainders(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Return what is left of `count` flows found under way: a uniform part of a size drawn in proportion to it."""
        match self.shape:
            case "exponential":
                found = random.gamma(2, self.mean, count)
            case "lognormal":
                found = self.mean * random.lognormal(self.sigma**2 / 2, self.sigma, count)
            case _:
                found = self.draw(random, count)
        return found * random.random(count)


class CrossTraffic:
    """Keeps every link that was ever used at `load`, relative to what bandwidth it has at the moment."""

    def __init__(
        self, environment: simpy.Environment, network: Network, sharing: Sharing, load: float, sizes: Sizes, seed: int
    ) -> None:
        self._environment, self._network, self._sharing = environment, network, sharing
        self._load, self._sizes, self._seed = load, sizes, seed
        self._links: dict[Link, Route] = {}

    def use(self, links: Iterable[Link]) -> None:
        """Have cross traffic on `links`, as if it had been there for ever."""
        for link in links:
            if link not in self._links:
                self._links[link] = Route((link,), 0)
                self._find_under_way(link)
                rate = self._load * link.bandwidth_bps / (8 * self._sizes.mean)
                window = max(1, round(WINDOW / rate * PICOSECONDS))
                self._arrive(link, window, self._now // window)

    @property
    def _now(self) -> int:
        return int(self._environment.now)

    def _find_under_way(self, link: Link) -> None:
        random = generator(self._seed, Stream.CROSS_TRAFFIC_UNDER_WAY, link.index, self._now)
        for nbytes in self._sizes.remainders(random, int(random.geometric(1 - self._load)) - 1):
            self._start(link, float(nbytes))

    def _arrive(self, link: Link, window: int, number: int) -> None:
        """Have the flows of one window of time arrive, and go on with the next at its end."""
        random = generator(self._seed, Stream.CROSS_TRAFFIC, link.index, number)
        count = int(random.poisson(WINDOW))
        instants = sorted(number * window + int(part * window) for part in random.random(count))
        sizes, thinned = self._sizes.draw(random, count), random.random(count)
        for instant, nbytes, chance in zip(instants, sizes, thinned, strict=True):
            if instant >= self._now:
                self._at(instant, partial(self._start_if_room, link, float(nbytes), float(chance)))
        self._at((number + 1) * window, partial(self._arrive, link, window, number + 1))

    def _at(self, instant: int, call: Callable[[], None]) -> None:
        timeout = self._environment.timeout(instant - self._now)
        timeout.callbacks.append(lambda _: call())

    def _start_if_room(self, link: Link, nbytes: float, chance: float) -> None:
        if chance * link.bandwidth_bps < self._network.bandwidth(link):
            self._start(link, nbytes)

    def _start(self, link: Link, nbytes: float) -> None:
        weight = 1.0
        if self._sharing == "rtt":
            weight = weight_by_latency(Route((link,), picoseconds(link.latency_s)))
        self._network.start(self._links[link], max(1, min(round(nbytes), MOST_BYTES)), _ignore, weight=weight)


def _ignore(flow: Flow) -> None:
    pass
