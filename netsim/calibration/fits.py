"""Lines through medians: a fixed time and one a byte or element, by robust least squares of relative errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from netsim.profile import Line, Link, Point, Sample, Work

TOLERATED = 0.02
"""An error of more than this part, or than the quartiles lie apart, counts by its size, no longer by its square
(Huber): an outlier pulls no line."""


def terms(
    columns: Sequence[Sequence[float]], seconds: Sequence[float], spreads: Sequence[float] | None = None
) -> list[float]:
    """Return what each column costs, none less than nothing, such that their sum is nearest to `seconds`.

    Errors are relative, since a sum that is right for megabytes may miss an α by itself; and relative to the
    spread of what was measured, where that is wider than what is tolerated.
    """
    from scipy.optimize import least_squares, nnls

    wanted = np.array(seconds)
    relevant = wanted > 0
    allowed = np.maximum(TOLERATED * wanted, 0.0 if spreads is None else np.array(spreads))[relevant]
    matrix = np.column_stack(list(map(np.array, columns)))[relevant] / allowed[:, None]
    scale = np.linalg.norm(matrix, axis=0)
    used = scale > 0
    if not used.any():
        return [0.0] * len(columns)
    matrix, scale, target = matrix[:, used] / scale[used], scale[used], wanted[relevant] / allowed
    start, _ = nnls(matrix, target)
    exact = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    found = least_squares(
        lambda parts: matrix @ parts - target,
        np.maximum(start, 1e-9),
        bounds=(0, np.inf),
        loss="huber",
        **exact,
    )
    costs = np.zeros(len(columns))
    costs[used] = found.x / scale
    return [float(cost) for cost in costs]


def line(sizes: Sequence[int], samples: Sequence[Sequence[float]]) -> Line:
    """Return the line through the medians of `samples`, seconds that were measured at each of `sizes`."""
    measured = [Point.of(size, values) for size, values in zip(sizes, samples, strict=True)]
    fixed, each = terms(
        [[1.0] * len(sizes), sizes],
        [point.seconds for point in measured],
        [point.high_s - point.low_s for point in measured],
    )
    points = tuple(point.against(fixed + each * point.size) for point in measured)
    return Line(fixed_s=fixed, each_s=each, points=points, **_residuals([point.residual for point in points]))


def work(samples: Mapping[tuple[int, int], float]) -> Work:
    """Return what a function costs, from its median seconds by entries and elements."""
    entries, elements = zip(*samples, strict=True)
    fixed, entry, element = terms([[1.0] * len(samples), entries, elements], list(samples.values()))
    found = tuple(
        Sample(
            entries=own,
            elements=of,
            seconds=seconds,
            residual=(fixed + entry * own + element * of) / seconds - 1 if seconds > 0 else 0.0,
        )
        for (own, of), seconds in samples.items()
    )
    residuals = _residuals([sample.residual for sample in found])
    return Work(fixed_s=fixed, entry_s=entry, element_s=element, samples=found, **residuals)


def _residuals(residuals: Sequence[float]) -> dict[str, float]:
    absolute = list(map(abs, residuals))
    return {"residual_median": median(absolute), "residual_worst": max(absolute)}


def link_of(fitted: Line, nominal_bps: float | None) -> Link:
    """Return a line through messages as a link, with the part of the nominal bandwidth that they get."""
    efficiency = None if nominal_bps is None else 8 / fitted.each_s / nominal_bps
    return Link(**dict(fitted), nominal_bps=nominal_bps, efficiency=efficiency)
