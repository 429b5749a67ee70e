"""The study of bandwidths for a compute utilisation, against closed forms of an exchange between two workers."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim._util.errors import UsageError
from netsim.study_engine import Finding
from studies.utilisation import LEAST_BPS, STUDY, UtilisationSettings, conclude, least, measure, points, shape_of
from studies.utilisation_published import GBPS, NEXT, PAPER
from tests.command import run

LATENCY_S = 50e-6


@given(
    st.floats(0.01, 0.99),
    st.integers(10**7, 10**11),
    st.lists(st.integers(10**6, 10**12), max_size=6),
)
def test_the_least_bandwidth_is_found_within_a_thousandth(target: float, half: int, known: list[int]) -> None:
    """Of B / (B + half), which is 1/2 at B = half: target half / (1 - target), or the least bandwidth of all."""
    found = least(lambda bandwidth: bandwidth / (bandwidth + half), target, known)
    assert found == pytest.approx(max(LEAST_BPS, target * half / (1 - target)), rel=1.1e-3)


def test_where_no_bandwidth_suffices_none_is_returned() -> None:
    assert least(lambda _: 0.8, 0.9, [10**9]) is None


def settings(*methods: str, targets: tuple[float, ...] = (0.5, 0.9)) -> UtilisationSettings:
    return UtilisationSettings(
        methods=methods, models=("small:1e6:20ms:6",), workers=(2,), targets=targets, dtype="fp32"
    )


def test_bandwidths_are_those_of_the_closed_forms() -> None:
    """Two workers exchange d values of 32 bits, or d/2 a message: H c / (H c + exchange) = target."""
    small = settings("local-sgd:h=10,segment=none", "streaming-diloco:h=10,tau=1,segment=none")
    local, streaming = (measure(point)["needed_bps"] for point in points(small))
    bits, compute_s = 32e6, 0.02
    for place, target in enumerate(small.targets):
        exposed_s = 10 * compute_s * (1 / target - 1)
        assert local[place] == pytest.approx(bits / (exposed_s - 2 * LATENCY_S), rel=2e-3)
        # Two fragments of three layers each, of whose time a step's computation hides so much.
        assert streaming[place] == pytest.approx(bits / 2 / (exposed_s / 2 + compute_s - 2 * LATENCY_S), rel=2e-3)


@pytest.mark.slow
def test_dense_gradients_are_exchanged_a_layer_at_a_time() -> None:
    """All but the first sixth of the backward pass, 2/3 of the step, may hide communication (P = 2: d values)."""
    (point,) = points(settings("dense:segment=none", targets=(0.5,)))
    (needed,) = measure(point)["needed_bps"]
    begin_s = 0.02 * (1 / 3 + 2 / 3 / 6)
    assert needed == pytest.approx(32e6 / (2 * 0.02 - begin_s - 6 * 2 * LATENCY_S), rel=2e-3)


@pytest.mark.slow
def test_a_model_beyond_int32_takes_the_time_of_its_size() -> None:
    huge = UtilisationSettings(
        methods=("diloco:h=10,segment=none",), models=("huge:8e9:1s:8",), workers=(2,), targets=(0.8,)
    )
    (point,) = points(huge)
    assert point["scale"] == 4
    (needed,) = measure(point)["needed_bps"]
    assert needed == pytest.approx(16 * 8e9 / (10 * (1 / 0.8 - 1) - 2 * LATENCY_S), rel=2e-3)


def test_the_paper_is_compared_where_the_settings_are_its_own() -> None:
    wanted = points(UtilisationSettings(**STUDY.quick))
    assert [len(point["bandwidths"]) > 0 for point in wanted] == [True] * 5
    others = points(UtilisationSettings(**{**STUDY.quick, "dtype": "fp32"}))
    assert [point["bandwidths"] for point in others] == [[]] * 5
    assert len(PAPER.rows) == 75 + 6
    # 10^(2/24.5) is the factor between neighbours of the paper's bandwidths, as far as they are printed.
    steps = sorted({gbps for table in GBPS.values() for row in table for gbps in row if gbps > 20})
    for low, high in pairwise(steps):
        steps_apart = math.log(high / low) / math.log(NEXT)
        assert abs(steps_apart - round(steps_apart)) < 0.03


def test_the_conclusion_counts_what_agrees() -> None:
    quick = UtilisationSettings(**STUDY.quick)
    findings = []
    for point in points(quick):  # a simulation that always says 75 %
        at = [[bandwidth, 0.75] for bandwidth in point["bandwidths"]]
        findings.append(Finding(point, {"needed_bps": [10**9] * 4 + [None], "at": at, "curve": [[10**6, 0.1]]}))
    conclusion = conclude(quick, findings)
    assert conclusion.data["agreement"] == {
        "compared": 25,
        "within_2_points": 0,
        "within_2_points_of_a_grid_step": 0,
    }
    assert any("at 0 of 25 published bandwidths" in sentence for sentence in conclusion.sentences)
    assert len({sentence.partition(" needs ")[0] for sentence in conclusion.sentences}) == len(conclusion.sentences)
    rows = [tuple(row[:3]) for row in conclusion.sections[-1].tables[0].rows if str(row[0]).startswith("table 1")]
    assert len(set(rows)) == len(rows) == 6  # two methods, three trainings


@pytest.mark.parametrize("text", ["1B", "1B:x:1s:3", "1B:1e9:1s:0", "1B:1e9:1s"])
def test_a_model_that_cannot_be_read_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="must be NAME:ELEMENTS:STEP:LAYERS"):
        shape_of(text)


def test_targets_lie_between_0_and_1() -> None:
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        points(UtilisationSettings(targets=(50.0,)))


@pytest.mark.slow
def test_a_small_study_from_the_command_line_and_again_from_its_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        f"study utilisation --out {tmp_path / 'out'} --jobs 1 --json --set models=small:1e6:20ms:6 --set workers=2 "
        "--set methods=local-sgd:h=4 --set targets=0.5,0.9"
    )
    first = json.loads(run(capsys, command).out)
    again = json.loads(run(capsys, f"{command} --resume").out)
    assert first["needed_bps"] == again["needed_bps"]
    assert (first["targets"], len(first["needed_bps"][0]["bps"])) == ([0.5, 0.9], 2)
