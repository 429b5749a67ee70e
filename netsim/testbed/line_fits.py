"""Lines through medians: a fixed time and a time per byte or element, by robust least squares of relative errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from netsim._util.errors import NetsimError
from netsim.experiment.profile import Line, LinkLine, ProfilePoint, Sample, WorkLine

TOLERATED = 0.02
"""Relative error beyond which, unless the quartiles lie further apart, the loss is linear instead of quadratic (Huber).

So an outlier does not pull a line."""
FREE_BYTES = tuple(256 * 2**power for power in range(10))
"""Candidates for the bytes that an idle link sends at once: 256 B to 128 KiB."""
NOTHING = 1e-9
"""A term that comes to less than this fraction of the longest time is zero."""
NEGLIGIBLE = 1e-6
"""A loss, in squares of the tolerated error, below which a fit needs no improvement."""


def terms(
    columns: Sequence[Sequence[float]], seconds: Sequence[float], spreads: Sequence[float] | None = None
) -> tuple[list[float], float]:
    """Fit non-negative costs: seconds ≈ Σ cost · column.

    Errors are relative, since a sum that is right for megabytes may miss α by as much as α. Where the spread of a
    measurement is larger than the tolerated error, errors are relative to the spread.

    Parameters
    ----------
    columns
        For each cost, what it is multiplied by in each measurement.
    seconds
        The measurements.
    spreads
        Distance of the quartiles of each measurement, in seconds.

    Returns
    -------
    tuple
        The costs, and the loss.
    """
    from scipy.optimize import least_squares, nnls

    measured = np.array(seconds)
    relevant = measured > 0
    allowed = np.maximum(TOLERATED * measured, 0.0 if spreads is None else np.array(spreads))[relevant]
    matrix = np.column_stack(list(map(np.array, columns)))[relevant] / allowed[:, None]
    scale = np.linalg.norm(matrix, axis=0)
    used = scale > 0
    costs = np.zeros(len(columns))
    if not used.any():
        return costs.tolist(), 0.0
    matrix, scale, target = matrix[:, used] / scale[used], scale[used], measured[relevant] / allowed
    start, _ = nnls(matrix, target)
    exact = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    fit = least_squares(
        lambda parts: matrix @ parts - target,
        np.maximum(start, 1e-9),
        bounds=(0, np.inf),
        loss="huber",
        **exact,
    )
    costs[used] = fit.x / scale
    largest = np.array([max(map(abs, column)) for column in columns])
    costs[costs * largest < NOTHING * measured.max()] = 0.0  # the solver approaches a bound, but does not reach it
    return costs.tolist(), float(fit.cost)


def line(sizes: Sequence[int], samples: Sequence[Sequence[float]]) -> Line:
    """Return the line through the medians of `samples`, the measured seconds at each of `sizes`."""
    return _line([ProfilePoint.of(size, values) for size, values in zip(sizes, samples, strict=True)], 0.0)[0]


def link(sizes: Sequence[int], samples: Sequence[Sequence[float]], nominal_bps: float | None = None) -> LinkLine:
    """Return the line of a link, whose first bytes may cost nothing.

    A link that a token bucket shapes sends a burst at once when it was idle. The burst is the one with the best fit,
    and zero unless that fit is twice as good.

    Parameters
    ----------
    sizes, samples
        Payloads in bytes, and the measured seconds of each.
    nominal_bps
        Nominal bandwidth in bit/s; None if it is not given.

    Raises
    ------
    NetsimError
        If no line fits.
    """
    from scipy.optimize import minimize_scalar

    points = [ProfilePoint.of(size, values) for size, values in zip(sizes, samples, strict=True)]
    plain, error = _line(points, 0.0)
    best = min(FREE_BYTES, key=lambda free: _line(points, free)[1])
    refined = minimize_scalar(lambda free: _line(points, free)[1], bounds=(best / 2, best * 2), method="bounded")
    free, fitted = 0.0, plain
    if refined.fun < error / 2 and error > NEGLIGIBLE:
        free, fitted = float(refined.x), _line(points, float(refined.x))[0]
    if not (fitted.fixed_s > 0 and fitted.each_s > 0):
        raise NetsimError(
            f"messages of {sizes[0]} to {sizes[-1]} bytes make no line: longer ones took no more time, or short ones "
            "none; is the machine busy with something else? Measure again when it is idle"
        )
    efficiency = None if nominal_bps is None else 8 / fitted.each_s / nominal_bps
    return LinkLine(**dict(fitted), free_bytes=free, nominal_bps=nominal_bps, efficiency=efficiency)


def exchange_line(
    points: Sequence[ProfilePoint], latencies: Sequence[float], nbytes: Sequence[float], other_s: Sequence[float]
) -> Line:
    """Return α and β from times of exchanges, each of which takes latencies · α + nbytes · β + other_s.

    Parameters
    ----------
    points
        The measured exchanges.
    latencies, nbytes, other_s
        For each exchange, the number of latencies, the number of bytes on a link, and the seconds that are known.
    """
    return _fit(points, latencies, nbytes, other_s)[0]


def _line(points: Sequence[ProfilePoint], free: float) -> tuple[Line, float]:
    """Return the line through points whose first `free` bytes cost nothing, and its loss."""
    paid = [max(0.0, point.size - free) for point in points]
    return _fit(points, [1.0] * len(points), paid, [0.0] * len(points))


def _fit(
    points: Sequence[ProfilePoint], counts: Sequence[float], nbytes: Sequence[float], other_s: Sequence[float]
) -> tuple[Line, float]:
    """Return the line fixed · counts + each · nbytes + other_s through points, and its loss."""
    spreads = [max(TOLERATED * point.seconds, point.high_s - point.low_s) for point in points]
    rest = [point.seconds - other for point, other in zip(points, other_s, strict=True)]
    (fixed, per_byte), loss = terms([counts, nbytes], rest, spreads)
    fitted = tuple(
        point.against(fixed * count + per_byte * size + other)
        for point, count, size, other in zip(points, counts, nbytes, other_s, strict=True)
    )
    residuals = _residuals([point.residual for point in fitted])
    return Line(fixed_s=fixed, each_s=per_byte, points=fitted, **residuals), loss


def work(samples: Mapping[tuple[int, int], float]) -> WorkLine:
    """Return the costs of a function from its median seconds by (entries, elements)."""
    entries, elements = zip(*samples, strict=True)
    (fixed, entry, element), _ = terms([[1.0] * len(samples), entries, elements], list(samples.values()))
    fitted = tuple(
        Sample(
            entries=entry_count,
            elements=element_count,
            seconds=seconds,
            residual=(fixed + entry * entry_count + element * element_count) / seconds - 1 if seconds > 0 else 0.0,
        )
        for (entry_count, element_count), seconds in samples.items()
    )
    residuals = _residuals([sample.residual for sample in fitted])
    return WorkLine(fixed_s=fixed, entry_s=entry, element_s=element, samples=fitted, **residuals)


def _residuals(residuals: Sequence[float]) -> dict[str, float]:
    absolute = list(map(abs, residuals))
    return {"residual_median": median(absolute), "residual_worst": max(absolute)}
