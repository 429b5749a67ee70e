"""Lines through medians: a fixed time and one a byte or element, by robust least squares of relative errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from netsim._util.errors import NetsimError
from netsim.experiment.profile import Line, LinkLine, ProfilePoint, Sample, WorkLine

TOLERATED = 0.02
"""An error of more than this part, or than the quartiles lie apart, counts by its size, no longer by its square
(Huber): an outlier pulls no line."""
FREE_BYTES = tuple(256 * 2**power for power in range(10))
"""What an idle link may let through at once, to begin looking at: 256 B to 128 KiB."""
NOTHING = 1e-9
"""The part of the longest time that a term does not even come to which is nothing."""
NEGLIGIBLE = 1e-6
"""An error, in squares of what is tolerated, that nothing need be done about."""


def terms(
    columns: Sequence[Sequence[float]], seconds: Sequence[float], spreads: Sequence[float] | None = None
) -> tuple[list[float], float]:
    """Return what each column costs, none less than nothing, such that their sum is nearest to `seconds`; and how near.

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
    costs = np.zeros(len(columns))
    if not used.any():
        return costs.tolist(), 0.0
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
    costs[used] = found.x / scale
    largest = np.array([max(map(abs, column)) for column in columns])
    costs[costs * largest < NOTHING * wanted.max()] = 0.0  # the bound is approached, not reached
    return costs.tolist(), float(found.cost)


def line(sizes: Sequence[int], samples: Sequence[Sequence[float]]) -> Line:
    """Return the line through the medians of `samples`, seconds that were measured at each of `sizes`."""
    return _line([ProfilePoint.of(size, values) for size, values in zip(sizes, samples, strict=True)], 0.0)[0]


def link(sizes: Sequence[int], samples: Sequence[Sequence[float]], nominal_bps: float | None = None) -> LinkLine:
    """Return the link that messages were measured on: a line, but that its first bytes may cost nothing.

    A link that was idle lets a burst through at once if a token bucket shapes it. How much is chosen by how well
    the line then fits, and is nothing unless it fits twice as well. Raises NetsimError where no line fits at all.
    """
    from scipy.optimize import minimize_scalar

    points = [ProfilePoint.of(size, values) for size, values in zip(sizes, samples, strict=True)]
    plain, error = _line(points, 0.0)
    best = min(FREE_BYTES, key=lambda free: _line(points, free)[1])
    finer = minimize_scalar(lambda free: _line(points, free)[1], bounds=(best / 2, best * 2), method="bounded")
    free, fitted = 0.0, plain
    if finer.fun < error / 2 and error > NEGLIGIBLE:
        free, fitted = float(finer.x), _line(points, float(finer.x))[0]
    if not (fitted.fixed_s > 0 and fitted.each_s > 0):
        raise NetsimError(
            f"messages of {sizes[0]} to {sizes[-1]} bytes make no line: longer ones took no more time, or short ones "
            "none; is the machine busy with something else? Measure again when it is idle"
        )
    efficiency = None if nominal_bps is None else 8 / fitted.each_s / nominal_bps
    return LinkLine(**dict(fitted), free_bytes=free, nominal_bps=nominal_bps, efficiency=efficiency)


def _line(points: Sequence[ProfilePoint], free: float) -> tuple[Line, float]:
    """Return the line through points whose first `free` bytes cost nothing, and the error that it leaves."""
    paid = [max(0.0, point.size - free) for point in points]
    spreads = [point.high_s - point.low_s for point in points]
    (fixed, each), error = terms([[1.0] * len(points), paid], [point.seconds for point in points], spreads)
    found = tuple(point.against(fixed + each * beyond) for point, beyond in zip(points, paid, strict=True))
    residuals = _residuals([point.residual for point in found])
    return Line(fixed_s=fixed, each_s=each, points=found, **residuals), error


def work(samples: Mapping[tuple[int, int], float]) -> WorkLine:
    """Return what a function costs, from its median seconds by entries and elements."""
    entries, elements = zip(*samples, strict=True)
    (fixed, entry, element), _ = terms([[1.0] * len(samples), entries, elements], list(samples.values()))
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
    return WorkLine(fixed_s=fixed, entry_s=entry, element_s=element, samples=found, **residuals)


def _residuals(residuals: Sequence[float]) -> dict[str, float]:
    absolute = list(map(abs, residuals))
    return {"residual_median": median(absolute), "residual_worst": max(absolute)}
