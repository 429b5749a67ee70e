"""A prediction beside a measurement: the interval of the median, the error, and whether they agree."""

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

    Parameters
    ----------
    kind, algorithm, title
        ``exchange`` or ``round``, the name of the exchange or algorithm, and its name in words.
    workers
        Number of ranks.
    bytes
        Size of the vector of each rank, in bytes of values and indices.
    sends
        When a send is done: ``eager`` or ``rendezvous``.
    network
        Name of the network in words.
    predicted_s
        Predicted seconds: of the slowest rank for an exchange, the mean over ranks for a round.
    measured_s
        Median of the measured seconds.
    measured_ci_s, measured_ci_coverage
        Interval in which the median lies, and the probability of that.
    repeats
        Number of measurements.
    error
        Relative error, predicted_s / measured_s - 1.
    verdict
        ``agrees`` if the error is within the tolerance, else ``off``.
    processors_busy
        Busy fraction of this machine's core time during an exchange; None where it is unknown.
    same_parameters
        Whether trained parameters equal the simulated ones, for a round.
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
        """Compare a prediction with measured seconds.

        Parameters
        ----------
        predicted_s, times
            Predicted seconds, and the measured ones of each repeat.
        tolerance
            Largest relative error at which they agree.
        others
            All other fields.
        """
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
        """Return the comparison as a JSON object."""
        return asdict(self)


def interval_of_median(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the distribution-free confidence interval of the median, and its probability.

    It is the narrowest symmetric pair of order statistics that reaches 95 %, else the extremes. The median is above the
    i-th least of n values with probability 1 - Σ_{j<i} C(n, j) / 2ⁿ (David and Nagaraja, Order Statistics, sec. 7.1).
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
