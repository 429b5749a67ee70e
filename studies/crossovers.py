"""From how many workers another algorithm is faster: by simulation where it was simulated, and by fitted curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from studies.fits import CONFIDENCE, Columns, Fit

BEYOND = 16
"""Fitted curves are followed to so many times the largest P that was simulated."""


@dataclass(frozen=True, slots=True)
class Crossover:
    """Where the faster of two algorithms changes, as P grows.

    `bracket` holds the largest simulated P before and the smallest after; if they are neighbours the change is exact.
    `fitted` is where the fitted curves cross, real-valued, and `interval` its 95 % bootstrap interval. It holds how far
    that depends on what the forms miss, and nothing else. One of the two may be missing: simulated times may cross
    where the curves do not, and curves beyond what was simulated. No interval is there if more than 2.5 % of the
    resampled curves do not cross at all: then none of 95 % is known.
    """

    before: str
    after: str
    bracket: tuple[int, int] | None
    fitted: float | None
    interval: tuple[float, float] | None

    @property
    def workers(self) -> int | None:
        """Return the least P from which the later one is known to be faster, None if that was not simulated."""
        return None if self.bracket is None else self.bracket[1]


def brackets(one: Mapping[int, float], other: Mapping[int, float]) -> list[tuple[int, int, bool]]:
    """Return (P before, P after, whether `one` is faster before) of each change along the P's that both have.

    Equals are not faster: such P are passed over.
    """
    common = sorted(one.keys() & other.keys())
    differing = [(workers, one[workers] < other[workers]) for workers in common if one[workers] != other[workers]]
    return [(low, high, first) for (low, first), (high, then) in pairwise(differing) if first != then]


def unsettled(one: Mapping[int, float], other: Mapping[int, float], most: int) -> list[int]:
    """Return the P's, up to `most`, to simulate next to know exactly where the faster of two changes.

    First the middle of a bracket; then, where a change is exact, the rest of its octave, from the power of two below to
    the one above and the P after it: there trees change their depth, and an order may go to and fro.
    """
    known = one.keys() & other.keys()
    found: set[int] = set()
    for low, high, _ in brackets(one, other):
        if high > most:
            continue
        middle = (low + high) // 2
        octave = range(1 << (low.bit_length() - 1), min(most, 1 + (1 << (high - 1).bit_length())) + 1)
        found |= {middle} - known if high - low > 1 and middle not in known else set(octave) - known - {1}
    return sorted(found)


def crossovers(
    names: tuple[str, str],
    seconds: tuple[Mapping[int, float], Mapping[int, float]],
    fits: tuple[Fit, Fit],
) -> list[Crossover]:
    """Return every change of the faster of two algorithms, from their simulated seconds and their fits."""
    found = []
    changes = brackets(*seconds)
    for low, high, first in changes:
        before, after = names if first else names[::-1]
        near, interval = None, None
        if len(changes) == 1:  # smooth curves do not go to and fro: which of the changes theirs would be, nothing says
            near, interval = _fitted_crossing(fits, low / 2, high * 2, falling=not first)
        found.append(Crossover(before, after, (low, high), near, interval))
    if found:
        return found
    largest = max(fits[0].workers)
    differing = [workers for workers in fits[0].workers if seconds[0][workers] != seconds[1][workers]]
    if not differing:
        return []
    ahead = seconds[0][max(differing)] < seconds[1][max(differing)]
    far, interval = _fitted_crossing(fits, largest, BEYOND * largest, falling=not ahead)
    if far is None:
        return []
    before, after = names if ahead else names[::-1]
    return [Crossover(before, after, None, far, interval)]


def _fitted_crossing(
    fits: tuple[Fit, Fit], low: float, high: float, *, falling: bool
) -> tuple[float | None, tuple[float, float] | None]:
    """Return where the first curve crosses the second between two P, and the interval of the resamples that do so."""
    workers = np.geomspace(max(2.0, low), high, 200)
    (crossing,) = _crossings((fits[0].at(workers) - fits[1].at(workers))[None], workers, falling)
    sampled = _crossings(fits[0].sampled(workers) - fits[1].sampled(workers), workers, falling)
    if not np.isfinite(crossing):
        return None, None
    tail = (1 - CONFIDENCE) / 2
    known = sampled[np.isfinite(sampled)]
    if len(known) < (1 - tail) * len(sampled):
        return float(crossing), None
    low, high = np.percentile(known, [100 * tail, 100 * (1 - tail)])
    return float(crossing), (float(low), float(high))


def _crossings(differences: Columns, workers: Columns, falling: bool) -> Columns:
    """Return where each row first changes its sign in the wanted direction, NaN where it never does."""
    signed = -differences if falling else differences
    changes = (signed[:, :-1] < 0) & (signed[:, 1:] >= 0)
    at = changes.argmax(axis=1)
    rows = np.arange(len(signed))
    left, right = signed[rows, at], signed[rows, at + 1]
    share = np.divide(-left, right - left, out=np.zeros_like(left), where=right != left)
    found: Columns = np.where(changes.any(axis=1), workers[at] + share * (workers[at + 1] - workers[at]), np.nan)
    return found
