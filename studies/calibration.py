"""Prediction of throughput at other numbers of workers: the network is simulated, the cost of hosts is fitted.

The seconds per sample at P workers are

    1 / x(1) + (network(P) + host) / b

with x(1) the throughput of one worker in samples/s, network(P) the simulated seconds of an exchange, and b the samples
of a worker's mini-batch. b is common to all algorithms of a model. `host`, in seconds, belongs to an algorithm
(selection, scatter, kernel launches) and does not depend on P. Both are fitted and at least 0.

A prediction has two sources of error. Measurements are rounded and the fit is imperfect: :func:`fit_intervals` covers
this error only. The model may also omit an effect at another P, such as a second switch, which no measurement at the
fitted P shows. :func:`factors` derives an interval for that error from the model's errors in other cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Key = tuple[str, int]
"""An algorithm and a number of workers."""
DRAWS = 400
"""Random disturbances of the measurements behind an interval."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fit to the throughputs of one model.

    Attributes
    ----------
    seconds_alone
        1 / x(1), seconds per sample of one worker.
    per_sample
        1 / b.
    hosts
        host / b in seconds per sample, by algorithm.
    error
        Root mean square of the relative residuals.
    """

    seconds_alone: float
    per_sample: float
    hosts: Mapping[str, float]
    error: float

    @property
    def batch(self) -> float:
        """The fitted mini-batch b in samples; infinite if exchanges seem to cost nothing."""
        return 1 / self.per_sample if self.per_sample else math.inf

    def throughput(self, algorithm: str, network_s: float) -> float:
        """Return the samples/s of a worker if an exchange takes `network_s` seconds on the network."""
        return 1 / (self.seconds_alone + self.per_sample * network_s + self.hosts[algorithm])


def calibrate(alone: float, measured: Mapping[Key, float], network_s: Mapping[Key, float]) -> Calibration:
    """Fit 1/b and the host costs by non-negative least squares of relative errors.

    Parameters
    ----------
    alone
        x(1), samples/s of one worker without exchange.
    measured
        Samples/s of a worker, by algorithm and P.
    network_s
        Simulated seconds of an exchange, by algorithm and P.
    """
    import numpy as np
    from scipy.optimize import nnls

    algorithms = list(dict.fromkeys(algorithm for algorithm, _ in measured))
    rows, wanted = [], []
    for key, throughput in measured.items():
        is_algorithm = [float(key[0] == algorithm) for algorithm in algorithms]
        rows.append([throughput * value for value in (network_s[key], *is_algorithm)])
        wanted.append(throughput * (1 / throughput - 1 / alone))
    # Columns differ by orders of magnitude, so they are scaled to norm 1.
    matrix = np.array(rows)
    scale = np.linalg.norm(matrix, axis=0)
    fitted, residual = nnls(matrix / scale, np.array(wanted))
    per_sample, *hosts = (fitted / scale).tolist()
    error = float(residual) / math.sqrt(len(rows))
    return Calibration(1 / alone, per_sample, dict(zip(algorithms, hosts, strict=True)), error)


def fit_intervals(
    alone: float,
    measured: Mapping[Key, float],
    network_s: Mapping[Key, float],
    asked: Sequence[Key],
    digits: int = 3,
    seed: int = 0,
) -> dict[Key, tuple[float, float]]:
    """Return 95 % intervals of predictions that cover rounding of the measurements and error of the fit.

    Parameters
    ----------
    alone, measured, network_s
        As for :func:`calibrate`.
    asked
        The algorithms and P to predict.
    digits
        Significant digits of the measurements.
    seed
        Seed of the random disturbances.

    Returns
    -------
    dict
        Lower and upper bound in samples/s, by algorithm and P.

    Notes
    -----
    The intervals assume that the model holds at the predicted P. The residuals of a fit are smaller than the errors of
    the measurements, so they are scaled by the remaining degrees of freedom.
    """
    import numpy as np

    from netsim._util.random_streams import Stream, generator

    random = generator(seed, Stream.DISTURBED_THROUGHPUTS)
    fit = calibrate(alone, measured, network_s)
    unknowns = 1 + len(fit.hosts)
    spread = fit.error * math.sqrt(len(measured) / max(1, len(measured) - unknowns))
    drawn: dict[Key, list[float]] = {key: [] for key in asked}
    for _ in range(DRAWS):
        disturbed = {
            key: (value + _half_a_digit(value, digits) * random.uniform(-1, 1)) * math.exp(spread * random.normal())
            for key, value in measured.items()
        }
        again = calibrate(alone, disturbed, network_s)
        for key in asked:
            drawn[key].append(again.throughput(key[0], network_s[key]))
    return {key: (float(np.quantile(x, 0.025)), float(np.quantile(x, 0.975))) for key, x in drawn.items()}


def factors(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of measured/predicted in a new case, from `ratios` in at least two other cases.

    The result is Student's prediction interval for one more logarithm of a ratio. With few ratios it is wide.
    """
    from scipy.special import stdtrit

    logarithms = [math.log(ratio) for ratio in ratios]
    count = len(logarithms)
    reach = stdtrit(count - 1, 0.975) * stdev(logarithms) * math.sqrt(1 + 1 / count)
    return math.exp(fmean(logarithms) - reach), math.exp(fmean(logarithms) + reach)


def _half_a_digit(value: float, digits: int) -> float:
    return 0.5 * 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
