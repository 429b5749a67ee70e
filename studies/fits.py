"""How a time t grows with the number of workers P: one of five forms, chosen by AIC, with bootstrap intervals.

Fits minimise relative errors, so that P = 2 counts as much as P = 4,096. Simulated times contain no noise: a repeated
simulation gives the same time. A residual is therefore the misfit of the form, such as a missing second term, or the
idle ranks of a tree whose P is no power of two. A bootstrap interval shows how far the coefficients would move if the
misfit were distributed differently over the P. A form that fits exactly has an interval of width 0. No interval covers
the difference between the network model and a real network.
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
"""One value per P, or one row of them per resample."""

FORMS: dict[str, Callable[[Columns], Columns]] = {
    "1": np.zeros_like,
    "log2(P)": np.log2,
    "(P-1)/P": lambda workers: (workers - 1) / workers,
    "P": lambda workers: workers,
    "sqrt(P)": np.sqrt,
}
"""t(P) = intercept + slope · form(P); the form 1 has no slope."""

LARGEST_MISFIT = 0.1
"""Relative error up to which a form describes a curve."""
EXACT = 1e-6
"""Relative misfit below which a form counts as exact; the rest is rounding to picoseconds."""
FEWEST = 5
"""Least number of different P at which the five forms can be distinguished."""
CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted curve t(P) = intercept + slope · form(P), in seconds.

    Attributes
    ----------
    form
        One of :data:`FORMS`.
    intercept, slope
        The coefficients in seconds.
    intercept_interval, slope_interval
        Their 95 % bootstrap intervals.
    aic
        Akaike's information criterion of every form; the least one wins.
    support
        The fraction of resamples for which AIC chooses the same form.
    worst
        The largest relative error at any of `workers`.
    workers
        The fitted P.
    samples
        The coefficients of the resamples, shape (n, 2).
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

    @property
    def describes(self) -> bool:
        """Whether the form is close to every point: within 10 %."""
        return self.worst <= LARGEST_MISFIT

    @property
    def offset(self) -> float:
        """The intercept in seconds; 0 if it is so small beside the curve that it is rounding."""
        return self.intercept if abs(self.intercept) > EXACT * min(self.at(self.workers)) else 0.0

    def at(self, workers: Sequence[float] | Columns) -> Columns:
        """Return the fitted seconds at each P, shape (P,)."""
        return self.intercept + self.slope * FORMS[self.form](np.asarray(workers, float))

    def sampled(self, workers: Sequence[float] | Columns) -> Columns:
        """Return the seconds of each resample at each P, shape (n, P)."""
        basis = FORMS[self.form](np.asarray(workers, float))
        curves: Columns = self.samples[:, :1] + self.samples[:, 1:] * basis
        return curves


def fit(workers: Sequence[int], seconds: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Fit:
    """Fit the form that AIC chooses.

    Parameters
    ----------
    workers
        At least five different P.
    seconds
        The positive time at each P.
    seed
        Seed of the bootstrap.
    resamples
        Number n of bootstrap resamples.

    Raises
    ------
    UsageError
        For fewer than five different P, or times that are not positive.

    Examples
    --------
    >>> fitted = fit([2, 4, 8, 16, 32], [0.1, 0.2, 0.3, 0.4, 0.5])
    >>> fitted.form, round(fitted.slope, 6)
    ('log2(P)', 0.1)
    """
    if len(set(workers)) < FEWEST:
        raise UsageError(f"workers {list(workers)} are too few to fit a form; give at least {FEWEST} different P")
    counts, times = np.asarray(workers, float), np.asarray(seconds, float)
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise UsageError(f"times {list(seconds)} cannot be fitted; they must be finite and above 0")
    ones = np.ones((1, len(times)))
    aic = {form: float(_aic(ones, _design(form, counts, times))[0]) for form in FORMS}
    form = min(aic, key=lambda name: aic[name])
    design = _design(form, counts, times)
    coefficients = _solve(ones, design)[0]
    predicted = coefficients @ (design * times)
    samples, support = _bootstrap(form, counts, times, predicted, len(design), seed, resamples)
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


def _design(form: str, workers: Columns, times: Columns) -> Columns:
    """Return the terms of the form at each P divided by the times, shape (terms, P)."""
    terms = np.ones((1, len(workers))) if form == "1" else np.stack([np.ones_like(workers), FORMS[form](workers)])
    design: Columns = terms / times
    return design


def _solve(targets: Columns, design: Columns) -> Columns:
    """Return the least-squares coefficients of each row of `targets`, shape (rows, terms)."""
    # Scaled, because one term can be a million times as large as the other.
    size = np.linalg.norm(design, axis=1)
    solved: Columns = targets @ np.linalg.pinv(design / size[:, None]) / size
    return solved


def _aic(targets: Columns, design: Columns) -> Columns:
    """Return AIC with the correction for few points, n ln(RSS / n) + 2qn / (n - q - 1), of each row; q = terms + 1.

    Without the correction a form with a slope would often beat a constant by chance. A misfit below rounding counts as
    rounding.
    """
    residuals = targets - _solve(targets, design) @ design
    mean_square = np.maximum((residuals**2).mean(axis=1), EXACT**2)
    count, parameters = targets.shape[1], len(design) + 1
    scores: Columns = count * np.log(mean_square) + 2 * parameters * count / (count - parameters - 1)
    return scores


def _bootstrap(
    form: str, workers: Columns, times: Columns, predicted: Columns, terms: int, seed: int, resamples: int
) -> tuple[Columns, float]:
    """Return coefficients of fits to resampled relative residuals, (n, 2), and how often AIC chooses the form."""
    if np.abs(predicted / times - 1).max() < EXACT:
        exact = _pair(_solve(np.ones((1, len(times))), _design(form, workers, times))[0])
        return np.tile(np.array(exact), (resamples, 1)), 1.0
    errors = times / predicted - 1
    count = len(times)
    # Each fitted term makes the residuals smaller than the errors by one degree of freedom.
    errors = (errors - errors.mean()) * np.sqrt(count / (count - terms))
    drawn = 1 + generator(seed, Stream.RESAMPLED_FIT).choice(errors, (resamples, count))
    coefficients = _solve(drawn, _design(form, workers, predicted))
    scores = np.stack([_aic(drawn, _design(candidate, workers, predicted)) for candidate in FORMS])
    support = float((scores.argmin(axis=0) == list(FORMS).index(form)).mean())
    if coefficients.shape[1] == 1:
        coefficients = np.hstack([coefficients, np.zeros_like(coefficients)])
    return coefficients, support


def _pair(coefficients: Columns) -> tuple[float, float]:
    return float(coefficients[0]), float(coefficients[1]) if len(coefficients) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class PerEntry:
    """The growth of a slope with k: seconds per selected entry, with the 95 % interval.

    `proportional` tells whether the slopes lie on a rising line to within 5 %.
    """

    seconds: float
    interval: tuple[float, float]
    proportional: bool


def per_entry(selected: Sequence[int], fits: Sequence[Fit]) -> PerEntry | None:
    """Return how the slopes of `fits` grow with k, one `selected` per fit; None for one k, or for different forms."""
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
