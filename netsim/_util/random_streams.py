"""Random numbers: named streams derived from the seed, and random factors on times.

Every generator depends only on the seed, the stream and a key, such as a rank and a step. The order of events therefore
never changes a random number. NumPy is imported when the first generator is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from netsim._util.errors import UsageError, shown, suggestion
from netsim._util.units import read_number, read_whole

if TYPE_CHECKING:
    import numpy as np

LARGEST_SIGMA = 10
"""The largest σ of a lognormal factor; with a larger one, the mean depends on draws too rare to ever happen."""
SMALLEST_SLOWDOWN, LARGEST_SLOWDOWN = 1e-6, 1e6

WORD = 2**32
"""NumPy splits larger numbers of a key into several words, so that two keys could coincide."""


class Stream(Enum):
    """The uses of random numbers: each has a number, and the names of the parts of its generators' keys.

    Every generator of netsim comes from :func:`generator`, and no two have the same key.
    """

    INITIAL_VALUES = (0,)
    SPLIT = (1,)
    BATCHES = (2, "rank", "step or epoch")
    DIGITS = (3,)
    JUDGED_SAMPLES = (4,)
    SYNTHETIC_DATA = (5,)
    RANDOM_K = (6, "bucket", "step")
    PLACEMENT = (7,)
    RESAMPLED_FIT = (8,)
    POWER_SGD = (9, "bucket", "step")
    CALIBRATION_VECTORS = (10, "rank")
    REHEARSAL = (11, "rank", "step")
    ROUNDING = (12, "bucket", "rank", "step")
    SELF_CHECK = (13, "elements")
    COMPUTE = (101, "rank", "step")
    STRAGGLE = (102, "number", "rank", "step")
    LATENCY = (103, "source", "target", "tag", "step", "message")
    CROSS_TRAFFIC = (104, "link", "window")
    CROSS_TRAFFIC_UNDER_WAY = (105, "link", "picosecond")

    def __init__(self, number: int, *parts: str) -> None:
        self.number = number
        self.parts = parts


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Return the generator of one key of a stream: ``numpy.random.default_rng((seed, stream.number, *key))``.

    Parameters
    ----------
    key
        A number for each of ``stream.parts``. All but the last must be less than 2³².

    Raises
    ------
    UsageError
        If the seed is 2³² or more.

    Examples
    --------
    >>> [int(generator(seed, Stream.PLACEMENT).integers(1000)) for seed in (1, 2, 1)]
    [777, 661, 777]
    """
    import numpy as np

    if seed >= WORD:
        raise UsageError(f"seed {shown(seed)} must be less than 2³²")
    words = (seed, stream.number, *key)
    if len(key) != len(stream.parts) or max(words[:-1]) >= WORD:
        raise ValueError(f"{key} must be {stream.parts} of {stream.name}, all but the last less than 2³²")
    return np.random.Generator(np.random.PCG64(words))  # as default_rng, in half the time


@dataclass(frozen=True, slots=True)
class Jitter:
    """A random factor of mean 1 on times.

    ``lognormal:σ`` is exp(σZ - σ²/2) with Z standard normal. ``exponential:c`` is 1 - c + cE with E exponential of rate
    1; for c < 1 this is the shifted exponential of the literature on stragglers. ``uniform:c`` is uniform on
    [1 - c, 1 + c].
    """

    shape: str
    spread: float

    @classmethod
    def of(cls, text: str, what: str) -> Jitter:
        """Read ``shape:spread``; a UsageError for another text names the option `what`."""
        shape, _, spread = text.partition(":")
        if shape not in SHAPES:
            raise UsageError(
                f"{what} {text!r} has an unknown shape {shape!r}{suggestion(shape, SHAPES)}; "
                "write it like lognormal:0.2, exponential:0.5 or uniform:0.1"
            )
        most = LARGEST_SIGMA if shape == "lognormal" else 1
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
    """Workers that compute `slowdown` times slower: `rank` at every step, or each at each step with a `probability`."""

    slowdown: float
    rank: int | None = None
    probability: float = 0.0

    @classmethod
    def several(cls, text: str) -> tuple[Straggler, ...]:
        """Read one straggler or several with commas.

        ``3:2.5`` makes worker 3 compute 2.5 times slower; ``5%:4`` makes every worker compute 4 times slower with a
        probability of 0.05 at each step.

        >>> Straggler.several("3:2.5")
        (Straggler(slowdown=2.5, rank=3, probability=0.0),)
        """
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
    """The factors on the computing times of every worker at every step."""

    seed: int
    jitter: Jitter | None
    stragglers: tuple[Straggler, ...]

    def factor(self, rank: int, step: int) -> float:
        """Return the factor on the times of all computations of one worker in one step."""
        factor = 1.0 if self.jitter is None else self.jitter.draw(generator(self.seed, Stream.COMPUTE, rank, step))
        for number, straggler in enumerate(self.stragglers):
            if straggler.rank == rank or (
                straggler.probability
                and generator(self.seed, Stream.STRAGGLE, number, rank, step).random() < straggler.probability
            ):
                factor *= straggler.slowdown
        return factor
