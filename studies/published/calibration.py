"""Calibration: the terms of a cluster that fit a stated part of its rows, and how uncertain they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from netsim.study_engine.kinds import Outcome
from studies.published.plans import CalibratedCluster, Question, RowPlan, Terms
from studies.published.rows import PublishedRow

STEP = 0.01
"""Relative step of a term in numerical derivatives."""
USUAL = 0.1
"""Error above which a row counts by the error itself rather than its square, so that an outlier does not decide."""


def calibrate_cluster(
    cluster: CalibratedCluster,
    rows: Sequence[PublishedRow],
    plan: Callable[[PublishedRow, Terms], RowPlan],
    answer: Callable[[Question], float],
) -> Outcome:
    """Fit the terms of a cluster by least squares of ln(predicted / measured), with less weight on outliers.

    Parameters
    ----------
    cluster
        The cluster.
    rows
        The rows that calibrate it; at least as many as terms.
    plan
        ``plan(row, terms)`` returns the plan of a row.
    answer
        Simulates a question, in seconds.

    Returns
    -------
    dict
        ``terms`` by name; ``sd``, the standard deviation of each term's logarithm; ``residual``, the root mean square
        of the logarithms of predicted / measured.

    Notes
    -----
    The noise of a measurement is the residual of the fit, scaled by its degrees of freedom, or the rounding of the
    published figure if that is greater.
    """
    import numpy as np
    from scipy.optimize import least_squares

    names = list(cluster.terms)
    low, high = ([math.log(getattr(term, end)) for term in cluster.terms.values()] for end in ("least", "most"))

    def residuals(logarithms: Any) -> Any:
        terms = dict(zip(names, np.exp(logarithms).tolist(), strict=True))
        return np.array([math.log(plan(row, terms).seconds(answer) / measured_of(row)) for row in rows])

    start = [math.log(value) for value in cluster.starts().values()]
    fit = least_squares(
        residuals, start, bounds=(low, high), diff_step=STEP, xtol=1e-5, ftol=1e-7, loss="soft_l1", f_scale=USUAL
    )
    freedom = len(rows) - len(names)
    rounding = float(np.mean([rounding_of(measured_of(row)) ** 2 for row in rows]))
    square = float(np.sum(fit.fun**2))
    variance = max(rounding, square / freedom if freedom > 0 else 0.0)
    covariance = variance * np.linalg.pinv(fit.jac.T @ fit.jac)
    return {
        "terms": dict(zip(names, np.exp(fit.x).tolist(), strict=True)),
        "sd": dict(zip(names, np.sqrt(np.diag(covariance)).tolist(), strict=True)),
        "residual": math.sqrt(square / len(rows)),
        "rows": [row.id for row in rows],
    }


def measured_of(row: PublishedRow) -> float:
    """Return the measured seconds of a row; rows without a time are neither calibrated nor compared."""
    assert row.measured_s is not None
    return row.measured_s


def rounding_of(value: float) -> float:
    """Return the relative standard deviation of a published figure that was rounded to its last digit."""
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return 10.0 ** int(exponent) / (value * math.sqrt(12))
