"""A prediction beside what was measured, with the interval in which the median lies, and whether they agree."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any, Literal

Verdict = Literal["agrees", "off"]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One exchange, or one round of training, at one setting.

    Times are in seconds: an exchange's of the slowest rank, a round's the mean over ranks.
    `processors_busy`: what part of the processors' time was used while an exchange went on, all ranks of this
    machine together. `bytes` are those of the vector that each rank holds. `measured_s` is the median of `repeats`,
    `measured_ci_s` the interval in which it lies with `measured_ci_coverage`. `error` is predicted / measured - 1.
    """

    kind: Literal["exchange", "round"]
    algorithm: str
    title: str
    workers: int
    bytes: int
    sends: str
    network: str
    predicted_s: float
    measured_s: float
    measured_ci_s: tuple[float, float]
    measured_ci_coverage: float
    repeats: int
    error: float
    verdict: Verdict
    processors_busy: float | None = None
    same_parameters: bool | None = None

    @classmethod
    def of(cls, predicted_s: float, times: Sequence[float], tolerance: float, **others: Any) -> Comparison:
        """Compare a prediction with the times measured; it agrees if the error is within the tolerance."""
        measured = statistics.median(times)
        low, high, coverage = interval_of_median(times)
        error = predicted_s / measured - 1
        return cls(
            predicted_s=predicted_s,
            measured_s=measured,
            measured_ci_s=(low, high),
            measured_ci_coverage=coverage,
            repeats=len(times),
            error=error,
            verdict="agrees" if abs(error) <= tolerance else "off",
            **others,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def interval_of_median(values: Sequence[float]) -> tuple[float, float, float]:
    """Return two of the values between which the median lies, and with what probability, whatever the distribution.

    The narrowest pair of order statistics that reaches 95 %, else the extremes: the median is above the i-th
    least of n with probability 1 - Σ_{j<i} C(n, j) / 2ⁿ (David and Nagaraja, Order Statistics, section 7.1).
    """
    ordered, n = sorted(values), len(values)
    outside, cut = 1, 0  # of 2ⁿ equally likely cases, those in which the median is below the least
    while 2 * (outside + comb(n, cut + 1)) <= (1 - CONFIDENCE) * 2**n and cut + 1 < n // 2:
        cut += 1
        outside += comb(n, cut)
    return ordered[cut], ordered[n - 1 - cut], 1 - 2 * outside / 2**n


def summary(errors: Sequence[float]) -> tuple[float, float]:
    """Return the median and the worst of |error|."""
    sizes = [abs(error) for error in errors]
    return statistics.median(sizes), max(sizes)
