"""Published training steps: laws of a communicator that takes one exchange at a time, and of orders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netsim
from netsim.training.catalogue import tensors_of
from studies.published.orders import Contender, Order, orders_of, sentence_on
from studies.published.plans import NotPredictedError, questions_of
from studies.published.predictions import PredictedRow
from studies.published.questions import answer
from studies.published.rows import PUBLISHED, PublishedRow, read_rows
from studies.published.sources import source_of
from studies.published.training_steps import Scheduler, by_elements, step_plan, step_s

tensors = st.lists(st.integers(1, 10**6), min_size=1, max_size=30)
seconds = st.floats(1e-6, 1)


def line(startup_s: float, element_s: float) -> Callable[[int], float]:
    return lambda elements: startup_s + element_s * elements


def test_a_step_by_hand() -> None:
    """Tensors of 1, 1 and 2 elements, 6 s of computing: forward takes 2 s, and gradients are ready at 4, 5 and 6 s.

    An exchange takes 1.5 s and 0.25 s per element. BSP: 6 + 2.5. WFBP: 4 to 6, 6 to 7.75, 7.75 to 9.5 s. MG-WFBP waits
    for less than 1.75 s, the time of one element: for the second tensor until 5 s, and for the third until 6 s.
    """
    exchange_s = line(1.5, 0.25)
    assert step_s(6, [1, 1, 2], "BSP", exchange_s) == pytest.approx(8.5)
    assert step_s(6, [1, 1, 2], "WFBP", exchange_s) == pytest.approx(9.5)
    assert step_s(6, [1, 1, 2], "MG-WFBP", exchange_s) == pytest.approx(8.5)
    assert step_s(60, [1, 1, 2], "WFBP", exchange_s) == pytest.approx(61.75)  # only the last exchange is exposed
    assert step_s(60, [1, 1, 2], "MG-WFBP", exchange_s) == pytest.approx(61.75)


@given(tensors, seconds, seconds, st.floats(1e-9, 1e-4))
def test_bounds_of_a_step(sizes: list[int], compute_s: float, startup_s: float, element_s: float) -> None:
    """All exchanges follow the first gradient; the last follows the last gradient; overlap never adds to their sum."""
    exchange_s = line(startup_s, element_s)
    whole = step_s(compute_s, sizes, "BSP", exchange_s)
    apart = step_s(compute_s, sizes, "WFBP", exchange_s)
    merged = step_s(compute_s, sizes, "MG-WFBP", exchange_s)
    first_ready = compute_s * (1 + 2 * sizes[-1] / sum(sizes)) / 3
    each = [exchange_s(size) for size in sizes]
    slack = 1 + 1e-9
    assert whole == pytest.approx(compute_s + exchange_s(sum(sizes)))
    assert max(first_ready + sum(each), compute_s + each[0]) <= apart * slack
    assert apart <= (compute_s + sum(each)) * slack
    assert compute_s + each[0] <= merged * slack
    assert merged <= apart * slack  # waiting for a tensor takes no longer than the start-up that it saves
    if len(sizes) == 1:
        assert whole == pytest.approx(apart) == pytest.approx(merged)


@given(st.lists(st.integers(1, 10**8), min_size=2, max_size=8, unique=True), seconds, st.floats(0, 1e-6), st.data())
def test_a_line_is_interpolated_exactly(
    known: list[int], startup_s: float, element_s: float, data: st.DataObject
) -> None:
    known.sort()
    exchange_s = line(startup_s, element_s)
    elements = data.draw(st.integers(known[0], 4 * known[-1]))
    between = by_elements(known, [exchange_s(size) for size in known])
    assert between(elements) == pytest.approx(exchange_s(elements))
    assert between(1) == exchange_s(known[0])


@given(tensors, seconds, st.sampled_from(["BSP", "WFBP", "MG-WFBP"]), st.integers(1, 3))
def test_a_plan_is_the_step_of_its_fastest_answers(
    sizes: list[int], compute_s: float, scheduler: Scheduler, ways: int
) -> None:
    plan = step_plan(
        compute_s, sizes, scheduler, lambda elements: [{"elements": elements, "times": way + 1} for way in range(ways)]
    )
    answered = plan.seconds(lambda question: question["times"] * line(1e-3, 1e-8)(question["elements"]))
    # Exchanges of less than 256 elements count as 256.
    expected = step_s(compute_s, sizes, scheduler, line(1e-3, 1e-8))
    assert answered == pytest.approx(expected, abs=2 * len(sizes) * 256e-8)


def test_a_composed_step_is_the_simulated_one() -> None:
    """ResNet-50 tensor by tensor over a serial communicator, by the event engine, and composed of bare exchanges."""
    options: dict[str, Any] = {"workers": 4, "timing_only": True, "algorithm": "dense", "latency": "20us"}
    sizes = [tensor.size for tensor in tensors_of("resnet50")]
    exchange_s = {size: netsim.simulate(**options, elements=size).results[0].round_time_s for size in set(sizes)}
    for compute_s in (0.0, 0.5, 3.0):
        (simulated,) = netsim.simulate(
            **options, model="resnet50", compute_time=compute_s, overlap="tensor", communicator="serial"
        ).results
        assert simulated.round_time_s == pytest.approx(
            step_s(compute_s, sizes, "WFBP", exchange_s.__getitem__), rel=1e-9
        )


@pytest.mark.parametrize("what", ["", "WFBP-A2A", "iteration, , WFBP-A2A", "iteration, GPT-9 bs 1/GPU, MG-WFBP", "BSP"])
@pytest.mark.parametrize("changes", [{}, {"nodes": 10**6}, {"gpus_per_node": 0}, {"elements": 10**17}, {"workers": 1}])
def test_any_row_of_training_is_planned_or_says_why_not(what: str, changes: dict[str, int]) -> None:
    rows = [row for row in read_rows(PUBLISHED) if row.workers == 8 and source_of(row).contender is not None]
    for row in {row.source: row for row in rows}.values():
        changed = replace(row, what=what, **changes)
        source = source_of(changed)
        terms = source.cluster(changed).starts()
        try:
            plans = source.plans(changed, terms)
        except NotPredictedError:
            continue
        for question in questions_of(plans):
            assert answer(question).keys() & {"seconds", "failed"}


def order(*times: tuple[str, float, float]) -> Order:
    contenders = [Contender(*each) for each in times]
    return Order("source", "task", "network", 4, sorted(contenders, key=lambda each: each.measured_s))


def test_pairs_count_if_5_percent_apart_and_ties_order_none() -> None:
    assert order(("a", 1.0, 1.0), ("b", 1.04, 2.0)).pairs == []
    assert order(("a", 1.0, 1.0), ("a", 2.0, 1.0)).pairs == []  # the same exchange twice
    three = order(("a", 1.0, 1.0), ("b", 2.0, 3.0), ("c", 3.0, 2.0))
    assert (len(three.pairs), three.right, three.agrees) == (3, 2, False)
    assert three.as_json()["measured_order"] == ["a", "b", "c"]
    assert three.as_json()["predicted_order"] == ["a", "c", "b"]
    assert order(("a", 1.0, 2.0), ("b", 2.0, 2.0)).right == 0


def predicted(row: PublishedRow, predicted_s: float, *, calibrated: bool = False) -> PredictedRow:
    return PredictedRow(row, source_of(row).name, predicted_s, None, None, calibrated, None)


def test_orders_are_of_one_setting_and_leave_calibrating_rows_out() -> None:
    rows = [row for row in read_rows(PUBLISHED) if "gtopkssgd" in row.source and "ResNet-20" in row.what]
    assert {row.workers for row in rows} == {4, 8}
    exact = [predicted(row, row.measured_s or math.inf) for row in rows]
    orders = orders_of(exact)
    assert [(each.workers, len(each.contenders)) for each in orders] == [(4, 3), (8, 3)]
    assert all(each.agrees for each in orders)
    assert "(100%)" in sentence_on(orders)
    inverse = [replace(each, predicted_s=1 / (each.predicted_s or 1)) for each in exact]
    assert all(each.right == 0 for each in orders_of(inverse))
    assert orders_of([replace(each, calibrated=True) for each in exact]) == []
    assert "No source compares" in sentence_on([])
