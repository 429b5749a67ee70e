"""From throughputs at a few numbers of workers to others: the network is simulated, what hosts cost is calibrated.

The seconds of a sample at P workers are ``1/x(1) + (network(P) + host) / b``: what computing takes alone, plus what an
exchange takes over the b samples of a worker's mini-batch. b is common to all algorithms of a model, `host` is each
algorithm's own (selection, scatter, launches) and does not depend on P. Both are at least 0.

Two things make a prediction wrong. What is measured and fitted is known to some digits only: :func:`fit_intervals`
holds that, and nothing else. And the model may leave out what decides at another P, such as a second switch: no
measurement at the P's it was fitted to shows that. How far it was off elsewhere, :func:`factors` makes an interval of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Key = tuple[str, int]
"""An algorithm and a number of workers."""
DRAWS = 400


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one model's throughputs say; `error` is the root mean square of the relative residuals."""

    seconds_alone: float
    per_sample: float
    hosts: Mapping[str, float]
    error: float

    @property
    def batch(self) -> float:
        """The samples of a mini-batch that fit best; infinite where exchanges seem to cost nothing."""
        return 1 / self.per_sample if self.per_sample else math.inf

    def throughput(self, algorithm: str, network_s: float) -> float:
        """Return samples a second and worker where an exchange takes `network_s` on the network."""
        return 1 / (self.seconds_alone + self.per_sample * network_s + self.hosts[algorithm])


def calibrate(alone: float, measured: Mapping[Key, float], network_s: Mapping[Key, float]) -> Calibration:
    """Fit by non-negative least squares of relative errors; `alone` is the throughput of one worker.

    ``hosts`` are in seconds a sample, like `per_sample` times seconds of network.
    """
    import numpy as np
    from scipy.optimize import nnls

    algorithms = list(dict.fromkeys(algorithm for algorithm, _ in measured))
    rows, wanted = [], []
    for key, throughput in measured.items():
        own = [float(key[0] == algorithm) for algorithm in algorithms]
        rows.append([throughput * value for value in (network_s[key], *own)])
        wanted.append(throughput * (1 / throughput - 1 / alone))
    # Columns differ by orders of magnitude: brought to one scale first.
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
    """Return the middle 95 % of predictions from measurements disturbed by their rounding and by the fit's error.

    That the model holds at the P that is asked for is taken for granted: a truth may lie far outside. With fewer
    measurements than twice the unknowns the residuals look smaller than errors are; they are scaled up by the degrees
    of freedom that are left.
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
    return {key: (float(np.quantile(of, 0.025)), float(np.quantile(of, 0.975))) for key, of in drawn.items()}


def factors(ratios: Sequence[float]) -> tuple[float, float]:
    """Return between which factors of a prediction the truth lies with 95 %, from measured/predicted of other cases.

    Student's interval for one more logarithm of a ratio: those that are there, two at least, are taken for a sample of
    what the model leaves out. With few it is wide, and should be.
    """
    from scipy.special import stdtrit

    logarithms = [math.log(ratio) for ratio in ratios]
    count = len(logarithms)
    reach = stdtrit(count - 1, 0.975) * stdev(logarithms) * math.sqrt(1 + 1 / count)
    return math.exp(fmean(logarithms) - reach), math.exp(fmean(logarithms) + reach)


def _half_a_digit(value: float, digits: int) -> float:
    return 0.5 * 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
