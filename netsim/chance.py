"""Random factors that depend on nothing but the seed and on what they are for.

A factor is drawn from a generator of its own, keyed by (seed, stream, where, when): whoever asks first, in
whatever order events happen, gets the same. numpy is imported when the first factor is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netsim.errors import UsageError, shown, suggestion
from netsim.units import read_number, read_whole

if TYPE_CHECKING:
    import numpy as np

WIDEST = 10
"""The largest σ of a lognormal factor. Beyond, its mean is decided by draws that nobody ever makes."""
SMALLEST_SLOWDOWN, LARGEST_SLOWDOWN = 1e-6, 1e6

COMPUTE, STRAGGLE, LATENCY, CROSS_TRAFFIC = range(101, 105)
"""Streams: what a factor is for. Data, batches and initial values have streams of their own."""


def generator(seed: int, stream: int, *key: int) -> np.random.Generator:
    """Return the generator of one key of a stream."""
    import numpy as np

    return np.random.default_rng((seed, stream, *key))


@dataclass(frozen=True, slots=True)
class Jitter:
    """A random factor of mean 1, so that it disturbs times without changing their mean.

    ``lognormal:σ`` is exp(σZ - σ²/2) with Z standard normal; ``exponential:c`` is 1 - c + cE with E of rate 1 (for
    c < 1 the shifted exponential of the literature on stragglers); ``uniform:c`` is uniform on [1 - c, 1 + c].
    """

    shape: str
    spread: float

    @classmethod
    def of(cls, text: str, what: str) -> Jitter:
        """Read ``shape:spread``; raise UsageError naming `what` if it is not one."""
        shape, _, spread = text.partition(":")
        if shape not in SHAPES:
            raise UsageError(
                f"{what} {text!r} has an unknown shape {shape!r}{suggestion(shape, SHAPES)}; "
                "write it like lognormal:0.2, exponential:0.5 or uniform:0.1"
            )
        most = WIDEST if shape == "lognormal" else 1
        value = read_number(spread)
        if value is None or not 0 < value <= most:
            raise UsageError(
                f"{what} {shown(text)} must have a spread of more than 0 and at most {most}; write it like "
                f"{shape}:0.2, 0.2 being {SHAPES[shape]}"
            )
        return cls(shape, value)

    def draw(self, random: np.random.Generator) -> float:
        """Return one factor."""
        match self.shape:
            case "lognormal":
                return math.exp(self.spread * random.standard_normal() - self.spread**2 / 2)
            case "exponential":
                return 1 - self.spread + self.spread * float(random.standard_exponential())
        return 1 + self.spread * (2 * float(random.random()) - 1)


SHAPES = {
    "lognormal": "the σ of the logarithm",
    "exponential": "the part that is exponential",
    "uniform": "half the width",
}


@dataclass(frozen=True, slots=True)
class Straggler:
    """Workers that compute `slowdown` times slower: one by its `rank`, or each step each with a `probability`."""

    slowdown: float
    rank: int | None = None
    probability: float = 0.0

    @classmethod
    def several(cls, text: str) -> tuple[Straggler, ...]:
        """Read ``3:2.5`` (worker 3 is 2.5 times slower), ``5%:4`` (each step, with probability 0.05), or more."""
        return tuple(cls._of(part.strip()) for part in text.split(","))

    @classmethod
    def _of(cls, text: str) -> Straggler:
        who, _, times = text.partition(":")
        slowdown = read_number(times)
        if slowdown is None or not SMALLEST_SLOWDOWN <= slowdown <= LARGEST_SLOWDOWN:
            raise UsageError(
                f"straggler {shown(text)} must say how many times slower, from {SMALLEST_SLOWDOWN:g} to "
                f"{LARGEST_SLOWDOWN:g}; write it like 3:2.5 for worker 3, or 5%:4 for one step in twenty"
            )
        if who.endswith("%"):
            percent = read_number(who[:-1])
            probability = 0.0 if percent is None else percent / 100
            if not 0 < probability <= 1:
                raise UsageError(f"straggler {shown(text)} must have a probability of more than 0% and at most 100%")
            return cls(slowdown, probability=probability)
        rank = read_whole(who)
        if rank is None or rank < 0:
            raise UsageError(
                f"straggler {shown(text)} must name a worker by its number, or a probability; like 3:2.5, 5%:4"
            )
        return cls(slowdown, rank)


@dataclass(frozen=True, slots=True)
class Speeds:
    """How much slower than charged each worker computes at each step."""

    seed: int
    jitter: Jitter | None
    stragglers: tuple[Straggler, ...]

    def factor(self, rank: int, step: int) -> float:
        """Return what the times of a worker's computations of one step are multiplied by."""
        factor = 1.0 if self.jitter is None else self.jitter.draw(generator(self.seed, COMPUTE, rank, step))
        for number, straggler in enumerate(self.stragglers):
            if straggler.rank == rank or (
                straggler.probability
                and generator(self.seed, STRAGGLE, number, rank, step).random() < straggler.probability
            ):
                factor *= straggler.slowdown
        return factor
