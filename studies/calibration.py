"""Prediction of throughput at other numbers of workers: the network is simulated, the cost of hosts is fitted.

The seconds per sample at P workers are

    1 / x(1) + (network(P) + host) / b

with x(1) the throughput of one worker in samples/s, network(P) the simulated seconds of an exchange, and b the samples
of a worker's mini-batch. b is common to all algorithms of a model. `host`, in seconds, belongs to an algorithm
(selection, scatter, kernel launches) and does not depend on P. Both are fitted and at least 0.

The residuals of the fit are the noise behind the interval of a prediction (:mod:`studies.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from studies.intervals import Noise

Key = tuple[str, int]
"""An algorithm and a number of workers."""


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
    noise
        The residuals of the fit.
    """

    seconds_alone: float
    per_sample: float
    hosts: Mapping[str, float]
    noise: Noise

    @property
    def batch(self) -> float:
        """The fitted mini-batch b in samples; infinite if exchanges seem to cost nothing."""
        return 1 / self.per_sample if self.per_sample else math.inf

    @property
    def error(self) -> float:
        """The root mean square of the relative residuals."""
        return self.noise.deviation * math.sqrt(1 - self.noise.terms / self.noise.rows)

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
    matrix, target = np.array(rows), np.array(wanted)
    scale = np.linalg.norm(matrix, axis=0)
    fitted, _ = nnls(matrix / scale, target)
    misses = (matrix / scale) @ fitted - target
    per_sample, *hosts = (fitted / scale).tolist()
    return Calibration(
        1 / alone,
        per_sample,
        dict(zip(algorithms, hosts, strict=True)),
        Noise.of((1 + misses).tolist(), len(scale)),
    )
