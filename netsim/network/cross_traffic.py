"""Cross traffic: background flows that load every link that a message uses.

At a load ρ every link has cross traffic of its own: flows that enter and leave at that link. They arrive as a Poisson
process at ρ B / (8 E[size]) flows a second on a link of B bit/s. Without messages each link is an M/G/1 queue under
processor sharing, and it is stationary from the first instant: P(n flows) = (1 - ρ) ρⁿ, with remainders drawn from the
equilibrium distribution of the size. A message of b bits then takes b / (B (1 - ρ)) seconds in the mean, for any
distribution of sizes.

References
----------
Kleinrock 1976, *Queueing Systems* II, section 4.4.
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
from netsim.network.flow import Sharing, weight_by_latency

if TYPE_CHECKING:
    import numpy as np
    import simpy

    from netsim.network.flows import Flow, Network

WINDOW = 32
"""Mean number of arrivals in a window of time; each window has a random generator of its own."""

SIZES = ("exponential", "fixed", "lognormal")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The distribution of flow sizes: ``exponential:1MB``, ``fixed:1MB`` or ``lognormal:1MB:σ``.

    `mean` is in bytes; `sigma` is the standard deviation of the logarithm.
    """

    shape: str
    mean: int
    sigma: float = 0.0

    @classmethod
    def of(cls, text: str) -> Sizes:
        """Read a distribution; raise UsageError if the text is not one.

        >>> Sizes.of("lognormal:1MB:1.5")
        Sizes(shape='lognormal', mean=1000000, sigma=1.5)
        """
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
        """Return the remaining bytes of `count` flows at a random instant: a uniform part of a length-biased size."""
        match self.shape:
            case "exponential":
                sizes = random.gamma(2, self.mean, count)
            case "lognormal":
                sizes = self.mean * random.lognormal(self.sigma**2 / 2, self.sigma, count)
            case _:
                sizes = self.draw(random, count)
        return sizes * random.random(count)


class CrossTraffic:
    """Loads every link that a message has used: cross traffic takes the share `load` of its present bandwidth."""

    def __init__(
        self, environment: simpy.Environment, network: Network, sharing: Sharing, load: float, sizes: Sizes, seed: int
    ) -> None:
        self._environment, self._network, self._sharing = environment, network, sharing
        self._load, self._sizes, self._seed = load, sizes, seed
        self._links: dict[Link, Route] = {}

    def __repr__(self) -> str:
        return f"CrossTraffic(load {self._load:g} on {len(self._links)} links)"

    def use(self, links: Iterable[Link]) -> None:
        """Start cross traffic on those `links` that have none yet, in its stationary state."""
        for link in links:
            if link.cabled and link not in self._links:
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
        """Start the flows of window `number` at their instants, and the next window at the end of this one."""
        random = generator(self._seed, Stream.CROSS_TRAFFIC, link.index, number)
        count = int(random.poisson(WINDOW))
        instants = sorted(number * window + int(part * window) for part in random.random(count))
        sizes, thinned = self._sizes.draw(random, count), random.random(count)
        # A window may have begun before the link was first used: its earlier flows are among those under way.
        for instant, nbytes, chance in zip(instants, sizes, thinned, strict=True):
            if instant >= self._now:
                self._at(instant, partial(self._start_if_room, link, float(nbytes), float(chance)))
        self._at((number + 1) * window, partial(self._arrive, link, window, number + 1))

    def _at(self, instant: int, call: Callable[[], None]) -> None:
        timeout = self._environment.timeout(instant - self._now)
        timeout.callbacks.append(lambda _: call())

    def _start_if_room(self, link: Link, nbytes: float, chance: float) -> None:
        """Start a flow; on a link that lost bandwidth, only with the probability that keeps the load."""
        if chance * link.bandwidth_bps < self._network.bandwidth(link):
            self._start(link, nbytes)

    def _start(self, link: Link, nbytes: float) -> None:
        weight = 1.0
        if self._sharing == "rtt":
            weight = weight_by_latency(Route((link,), picoseconds(link.latency_s)))
        self._network.start(self._links[link], max(1, min(round(nbytes), MOST_BYTES)), _ignore, weight=weight)


def _ignore(flow: Flow) -> None:
    """Do nothing when a flow ends."""
