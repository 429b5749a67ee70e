"""The 95 % intervals of predictions: Student's law by hand, and coverage of measurements that no fit has seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.intervals import Noise, doublings, interval, reach


def test_an_interval_is_students() -> None:
    """By hand: logarithms -1, 0, 1 after a fit of one term have s = 1; t(2, 97.5 %) is 4.303, times sqrt(1 + 1/3)."""
    noise = Noise.of([math.exp(-1), 1.0, math.e], terms=1)
    assert math.log(noise.factor()) == pytest.approx(4.3027 * math.sqrt(4 / 3), rel=1e-4)
    low, high = interval([2.0], noise.factor())
    assert low * high == pytest.approx(4.0)
    assert interval([3.0, 2.0, 5.0], 2.0) == (1.0, 10.0)


@given(st.floats(0.001, 0.5), st.integers(2, 40), st.floats(0, 6))
def test_three_doublings_beyond_other_rows_double_an_interval(deviation: float, rows: int, further: float) -> None:
    noise = Noise(deviation, rows, 0)
    assert math.log(noise.factor(3)) == pytest.approx(2 * math.log(noise.factor()))
    assert noise.factor(further) >= noise.factor()


@given(st.floats(1, 100), st.lists(st.floats(1, 100), min_size=1))
def test_doublings_are_counted_from_the_nearest_calibrated_value(value: float, calibrated: list[float]) -> None:
    count = doublings(value, calibrated)
    inside = min(calibrated) <= value <= max(calibrated)
    assert (count == 0) == inside or min(abs(value / each - 1) for each in calibrated) < 1e-12
    beyond = max(value, *calibrated)
    assert doublings(2 * beyond, calibrated) == pytest.approx(doublings(beyond, calibrated) + 1)


@pytest.mark.parametrize(("rows", "further"), [(3, 0), (6, 0), (6, 2)])
def test_95_of_100_further_measurements_lie_inside(rows: int, further: int) -> None:
    """A term is fitted to a few disturbed rows; the error of a further row grows by one such step per doubling.

    20,000 trials: the standard error of a share of 95 % is 0.15 %.
    """
    random = np.random.default_rng(5)
    trials, inside = 20_000, 0
    for _ in range(trials):
        measured = np.exp(0.1 * random.normal(size=rows))
        fitted = math.exp(np.log(measured).mean())
        low, high = interval([fitted], Noise.of(measured / fitted, 1).factor(further))
        inside += low <= math.exp(0.1 * random.normal(size=1 + further).sum()) <= high
    assert inside / trials == pytest.approx(0.95, abs=0.006)


def test_errors_elsewhere_are_counted_not_fitted() -> None:
    """Of 39 errors 0.01 to 0.39, 95 % are at most the 38th; a doubling divides an error by the root of two."""
    errors = [(math.exp((-1) ** number * number / 100), 0.0) for number in range(1, 40)]
    assert reach(errors) == pytest.approx(0.38)
    assert reach([(ratio, 1.0) for ratio, _ in errors]) == pytest.approx(0.38 / math.sqrt(2))
    assert reach(errors[:3]) == pytest.approx(0.03)


@pytest.mark.parametrize("rows", [19, 100])
def test_95_of_100_further_rows_lie_within_the_reach_of_any_distribution(rows: int) -> None:
    """Errors of a distribution without variance: of n, the ⌈0.95 n⌉-th holds ⌈0.95 n⌉ / (n + 1) of further rows.

    4,000 trials: the standard error of a share of 95 % is 0.35 %.
    """
    random = np.random.default_rng(7)
    inside = 0
    for _ in range(4000):
        *seen, further = np.exp(random.standard_t(2, size=rows + 1) / 10)
        inside += abs(math.log(further)) <= reach((ratio, 0.0) for ratio in seen)
    assert inside / 4000 == pytest.approx(math.ceil(0.95 * rows) / (rows + 1), abs=0.012)
