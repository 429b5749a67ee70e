"""How a time grows with P: one of five forms, chosen by AIC, with intervals by bootstrap.

Times are fitted by relative error, so that P = 2 counts as much as P = 4,096. Simulated times are exact: simulated
again they are the same. What is left beside a form is therefore no noise but what the form misses (the pass-overs of
a tree whose P is no power of two; a second term), and an interval says how far the coefficients would move if
that were spread differently over the P's. A form that is exact has an interval of no width. No interval here says how
far the model of the network is from a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from netsim._util.errors import UsageError
from netsim._util.random_streams import Stream, generator

Columns: TypeAlias = NDArray[np.float64]

FORMS: dict[str, Callable[[Columns], Columns]] = {
    "1": np.zeros_like,
    "log2(P)": np.log2,
    "(P-1)/P": lambda workers: (workers - 1) / workers,
    "P": lambda workers: workers,
    "sqrt(P)": np.sqrt,
}
"""t(P) = intercept + slope · form(P); the form 1 has no slope."""

EXACT = 1e-6
"""Relative misfit below which a form is exact: what remains is rounding to picoseconds."""
FEWEST = 5
"""Numbers of workers from which five forms can be told apart."""
CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Fit:
    """t(P) = `intercept` + `slope` · form(P), in seconds, with 95 % intervals.

    `aic` holds every form's; `support` is the share of the resamples that choose this form again, and
    `worst` the largest relative error at any of `workers`. `samples` are the resamples' coefficients, (n, 2).
    """

    form: str
    intercept: float
    slope: float
    intercept_interval: tuple[float, float]
    slope_interval: tuple[float, float]
    aic: dict[str, float]
    support: float
    worst: float
    workers: tuple[int, ...]
    samples: Columns

    def at(self, workers: Sequence[float] | Columns) -> Columns:
        """Return the fitted seconds at each P."""
        return self.intercept + self.slope * FORMS[self.form](np.asarray(workers, float))

    def sampled(self, workers: Sequence[float] | Columns) -> Columns:
        """Return the seconds that each resample gives at each P, (n, P)."""
        basis = FORMS[self.form](np.asarray(workers, float))
        curves: Columns = self.samples[:, :1] + self.samples[:, 1:] * basis
        return curves


def fit(workers: Sequence[int], seconds: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Fit:
    """Return the form that AIC chooses for the times at each P, with bootstrap intervals from `seed`.

    Raises UsageError for fewer than five different P, or times that are not positive.
    """
    if len(set(workers)) < FEWEST:
        raise UsageError(f"workers {list(workers)} are too few to tell forms apart; give at least {FEWEST} different P")
    at, times = np.asarray(workers, float), np.asarray(seconds, float)
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise UsageError(f"times {list(seconds)} cannot be fitted; they must be finite and more than zero")
    ones = np.ones((1, len(times)))
    aic = {form: float(_aic(ones, _design(form, at, times))[0]) for form in FORMS}
    form = min(aic, key=lambda each: aic[each])
    design = _design(form, at, times)
    coefficients = _solve(ones, design)[0]
    predicted = coefficients @ (design * times)
    samples, support = _bootstrap(form, at, times, predicted, len(design), seed, resamples)
    tail = 100 * (1 - CONFIDENCE) / 2
    bounds = np.percentile(samples, [tail, 100 - tail], axis=0)
    intercept, slope = _pair(coefficients)
    return Fit(
        form,
        intercept,
        slope,
        (float(bounds[0, 0]), float(bounds[1, 0])),
        (float(bounds[0, 1]), float(bounds[1, 1])),
        aic,
        support,
        float(np.abs(predicted / times - 1).max()),
        tuple(workers),
        samples,
    )


def _design(form: str, at: Columns, times: Columns) -> Columns:
    """Return the form's terms at each P relative to the times, (terms, P)."""
    terms = np.ones((1, len(at))) if form == "1" else np.stack([np.ones_like(at), FORMS[form](at)])
    design: Columns = terms / times
    return design


def _solve(targets: Columns, design: Columns) -> Columns:
    """Return the least-squares coefficients of each row of `targets`, (rows, terms)."""
    # Scaled, because one term can be a million times the other.
    size = np.linalg.norm(design, axis=1)
    solved: Columns = targets @ np.linalg.pinv(design / size[:, None]) / size
    return solved


def _aic(targets: Columns, design: Columns) -> Columns:
    """Return n ln(RSS / n) + 2 q n / (n - q - 1), with q = terms + 1, of each row: AIC corrected for few points.

    Without the correction four forms with a slope would often beat a constant by chance. A misfit below rounding
    counts as rounding.
    """
    residuals = targets - _solve(targets, design) @ design
    mean_square = np.maximum((residuals**2).mean(axis=1), EXACT**2)
    count, parameters = targets.shape[1], len(design) + 1
    scores: Columns = count * np.log(mean_square) + 2 * parameters * count / (count - parameters - 1)
    return scores


def _bootstrap(
    form: str, at: Columns, times: Columns, predicted: Columns, terms: int, seed: int, resamples: int
) -> tuple[Columns, float]:
    """Return the coefficients of refits to resampled relative residuals, (n, 2), and how often the form is chosen."""
    if np.abs(predicted / times - 1).max() < EXACT:
        exact = _pair(_solve(np.ones((1, len(times))), _design(form, at, times))[0])
        return np.tile(np.array(exact), (resamples, 1)), 1.0
    errors = times / predicted - 1
    count = len(times)
    # Least squares makes residuals smaller than errors, by as many as there are terms.
    errors = (errors - errors.mean()) * np.sqrt(count / (count - terms))
    drawn = 1 + generator(seed, Stream.RESAMPLED_FIT).choice(errors, (resamples, count))
    coefficients = _solve(drawn, _design(form, at, predicted))
    scores = np.stack([_aic(drawn, _design(each, at, predicted)) for each in FORMS])
    support = float((scores.argmin(axis=0) == list(FORMS).index(form)).mean())
    if coefficients.shape[1] == 1:
        coefficients = np.hstack([coefficients, np.zeros_like(coefficients)])
    return coefficients, support


def _pair(coefficients: Columns) -> tuple[float, float]:
    return float(coefficients[0]), float(coefficients[1]) if len(coefficients) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class PerEntry:
    """How the slope grows with k: seconds that each selected entry adds to it, with its interval.

    `proportional` says whether the slopes lie on one line (to 5 %) that rises.
    """

    seconds: float
    interval: tuple[float, float]
    proportional: bool


def per_entry(selected: Sequence[int], fits: Sequence[Fit]) -> PerEntry | None:
    """Return how the slopes of `fits` grow with the entries `selected`; None for fewer than two, or different forms."""
    if len(set(selected)) < 2 or len({each.form for each in fits}) != 1:
        return None
    terms = np.stack([np.ones(len(selected)), np.asarray(selected, float)])
    slopes = np.array([[each.slope if each.form != "1" else each.intercept for each in fits]])
    column = 1 if fits[0].form != "1" else 0
    sampled = np.stack([each.samples[:, column] for each in fits], axis=1)
    solved = _solve(slopes, terms)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(_solve(sampled, terms)[:, 1], [tail, 100 - tail])
    misfit = np.abs(solved @ terms / slopes - 1).max()
    return PerEntry(float(solved[0, 1]), (float(low), float(high)), bool(low > 0 and misfit < 0.05))
