"""95 % intervals of predictions: calibrated on some measurements, simulated for others.

Three things are unknown, and each widens an interval.

Calibration and measurement
    A calibrated model misses its own rows by a relative root mean square s. A further row differs as much, and the
    fitted terms are uncertain themselves: s √(1 + terms / rows).
Extrapolation
    A doubling of P, or of the size, beyond the calibrated rows adds one more error of the same deviation, independent
    of the others: s √(1 + terms / rows + doublings).
Alternatives
    A source may not name its collective, its switches or its placement. Every possibility is simulated, and the
    interval reaches from the least prediction to the greatest.

The interval is [least / f, greatest · f] with f = exp(t s √(1 + terms / rows + doublings)), where t is the 97.5 %
quantile of Student's distribution with rows - terms degrees of freedom.

For a cluster with too few rows of its own, the errors at many other clusters take the place of Student's law: 95 % of
them, each divided by √(1 + its doublings), do not exceed :func:`reach`, and ln f = reach √(1 + doublings). This needs
no form of their distribution. A fit with as many terms as rows shows no error of its own; the terms are then as
uncertain as a further row, which counts as one more doubling. Where no row calibrates, nothing tells how far a row is
extrapolated: the errors at other clusters count as they are, undivided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Noise:
    """How far a model misses measurements.

    Attributes
    ----------
    deviation
        Standard deviation s of the logarithm of measured / predicted.
    rows
        Number of measurements behind `deviation`.
    terms
        Number of terms that were fitted to these measurements; 0 for rows that served no fit.
    """

    deviation: float
    rows: int
    terms: int

    @classmethod
    def of(cls, ratios: Iterable[float], terms: int = 0) -> Noise:
        """Return the noise behind `ratios` of measured to predicted, at least one more of them than `terms`."""
        squares = [math.log(ratio) ** 2 for ratio in ratios]
        return cls(math.sqrt(sum(squares) / (len(squares) - terms)), len(squares), terms)

    def factor(self, doublings: float = 0.0) -> float:
        """Return f: a measurement lies within [predicted / f, predicted · f] with a probability of 95 %.

        Parameters
        ----------
        doublings
            Number of doublings of P or of the size beyond the rows behind the noise.
        """
        return math.exp(
            student(self.rows - self.terms) * self.deviation * math.sqrt(1 + self.terms / self.rows + doublings)
        )


def student(freedom: int) -> float:
    """Return how many standard deviations hold 95 % of Student's distribution; 12.7 for one degree of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def reach(errors: Iterable[tuple[float, float]]) -> float:
    """Return the logarithm of measured / predicted that 95 % of the errors elsewhere do not exceed in absolute value.

    Parameters
    ----------
    errors
        For each row elsewhere: measured / predicted, and its doublings beyond the rows that calibrated its cluster. The
        result holds for a row without doublings.

    Notes
    -----
    The result is the ⌈0.95 n⌉-th of n errors in order of size. A further row of the same distribution lies within it
    with a probability of ⌈0.95 n⌉ / (n + 1).
    """
    sizes = sorted(abs(math.log(ratio)) / math.sqrt(1 + doublings) for ratio, doublings in errors)
    return sizes[math.ceil(CONFIDENCE * len(sizes)) - 1]


def interval(predictions: Sequence[float], factor: float) -> tuple[float, float]:
    """Return the 95 % interval of a quantity from the `predictions` of all alternatives, and a factor f."""
    return min(predictions) / factor, max(predictions) * factor


def doublings(value: float, calibrated: Iterable[float]) -> float:
    """Return how often the nearest calibrated value doubles or halves until `value`; 0 inside the calibrated range.

    >>> doublings(32, (4, 8)), doublings(6, (4, 8)), doublings(1, (4, 8))
    (2.0, 0.0, 2.0)
    """
    known = list(calibrated)
    return max(0.0, math.log2(value / max(known)), math.log2(min(known) / value))
