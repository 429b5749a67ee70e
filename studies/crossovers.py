"""Crossovers: the numbers of workers P at which the faster of two algorithms changes.

A crossover between simulated P is exact once both neighbours are simulated. Beyond the simulated P, fitted curves give
an estimate with an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from studies.fits import CONFIDENCE, Columns, Fit

BEYOND = 16
"""Fitted curves are extrapolated up to this multiple of the largest simulated P."""


@dataclass(frozen=True, slots=True)
class Crossover:
    """A change of the faster of two algorithms as P grows.

    Attributes
    ----------
    before, after
        The faster algorithm before and after the change.
    bracket
        The largest simulated P before and the smallest after the change; neighbours if the change is exact. None if the
        change lies beyond the simulated P.
    fitted
        The real-valued P at which the fitted curves cross; None if they do not cross.
    interval
        The 95 % bootstrap interval of `fitted`, which covers only the misfit of the forms. None if more than 2.5 % of
        the resampled curves do not cross.
    """

    before: str
    after: str
    bracket: tuple[int, int] | None
    fitted: float | None
    interval: tuple[float, float] | None

    @property
    def workers(self) -> int | None:
        """The least simulated P at which `after` is faster; None if the change lies beyond the simulated P."""
        return None if self.bracket is None else self.bracket[1]


def brackets(one: Mapping[int, float], other: Mapping[int, float]) -> list[tuple[int, int, bool]]:
    """Return (P before, P after, whether `one` is faster before) for each change over the common P.

    `one` and `other` map P to seconds. A P with equal times is skipped.
    """
    common = sorted(one.keys() & other.keys())
    differing = [(workers, one[workers] < other[workers]) for workers in common if one[workers] != other[workers]]
    return [(low, high, first) for (low, first), (high, then) in pairwise(differing) if first != then]


def unsettled(one: Mapping[int, float], other: Mapping[int, float], most: int) -> list[int]:
    """Return the P, up to `most`, to simulate next in order to locate every change exactly.

    The next P is the middle of a bracket. Once a change is exact, its whole octave follows: from the power of two below
    to the power of two above, and one P more. Trees change their depth there, so the order may alternate.
    """
    known = one.keys() & other.keys()
    wanted: set[int] = set()
    for low, high, _ in brackets(one, other):
        if high > most:
            continue
        middle = (low + high) // 2
        octave = range(1 << (low.bit_length() - 1), min(most, 1 + (1 << (high - 1).bit_length())) + 1)
        wanted |= {middle} - known if high - low > 1 and middle not in known else set(octave) - known - {1}
    return sorted(wanted)


def crossovers(
    names: tuple[str, str],
    seconds: tuple[Mapping[int, float], Mapping[int, float]],
    fits: tuple[Fit, Fit],
) -> list[Crossover]:
    """Return all changes of the faster of two algorithms.

    Parameters
    ----------
    names
        The two algorithms.
    seconds
        Their simulated times, by P.
    fits
        The curves fitted to these times.
    """
    crossed = []
    changes = brackets(*seconds)
    for low, high, first in changes:
        before, after = names if first else names[::-1]
        near, interval = None, None
        if len(changes) == 1:  # of several changes, smooth curves could match any
            near, interval = _fitted_crossing(fits, low / 2, high * 2, falling=not first)
        crossed.append(Crossover(before, after, (low, high), near, interval))
    if crossed:
        return crossed
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
    """Return the P between `low` and `high` where the first curve crosses the second, and its bootstrap interval."""
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
    """Return the P at which each row first changes sign in the given direction; NaN if it never does."""
    signed = -differences if falling else differences
    changes = (signed[:, :-1] < 0) & (signed[:, 1:] >= 0)
    first = changes.argmax(axis=1)
    rows = np.arange(len(signed))
    left, right = signed[rows, first], signed[rows, first + 1]
    share = np.divide(-left, right - left, out=np.zeros_like(left), where=right != left)
    interpolated = workers[first] + share * (workers[first + 1] - workers[first])
    crossings: Columns = np.where(changes.any(axis=1), interpolated, np.nan)
    return crossings
