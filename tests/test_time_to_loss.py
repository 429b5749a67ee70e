"""The time to a loss that all algorithms reach: its law, and the loss that it is taken from."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netsim
from netsim.analysis.time_to_loss import rounds_to, times_to_loss
from netsim.experiment.results import LossCurve, Result
from netsim.report.terminal import render
from tests.test_terminal_widths import WIDTHS, assert_whole, printed, together

TRAINED: dict[str, Any] = {
    "workers": 2, "rounds": 6, "algorithm": "dense,gtopk", "density": 0.01, "latency": "1ms",
    "compute_time": "5ms", "select_time": "1ms", "merge_time": "0s",
}  # fmt: skip


@pytest.fixture(scope="module")
def alone() -> Result:
    return netsim.simulate(timing_only=True, elements=1000, workers=2, algorithm="dense").results[0]


@pytest.fixture(scope="module")
def report() -> netsim.Report:
    return netsim.simulate(**TRAINED)


@given(st.floats(0.01, 1.0), st.integers(1, 5), st.integers(2, 10), st.floats(0.0, 1.0))
def test_a_straight_loss_is_reached_where_the_line_says(fall: float, every: int, pairs: int, share: float) -> None:
    """The loss 10 - fall · round is first at most L after (10 - L) / fall rounds, and not before the first pair."""
    curve = [(every * index, 10 - fall * every * index) for index in range(1, pairs + 1)]
    target = curve[-1][1] + share * (curve[0][1] - curve[-1][1])
    reached = rounds_to(target, curve)
    assert every <= reached <= every * pairs
    assert abs(reached - (10 - target) / fall) < 1 + 1e-6 * reached / fall


@given(losses=st.lists(st.floats(0.1, 3.0), min_size=1, max_size=9), slower=st.floats(0.5, 4.0))
def test_with_equal_losses_the_times_are_as_those_of_a_round(alone: Result, losses: list[float], slower: float) -> None:
    one = replace(alone, rounds=len(losses))
    other = replace(one, algorithm="other", round_time_s=slower * one.round_time_s)
    curve = list(enumerate(losses, 1))
    ends = [[(number + 1) * each.round_time_s for number in range(len(losses))] for each in (one, other)]
    curves = {"dense": LossCurve(curve, ends[0]), "other": LossCurve(curve, ends[1])}
    found = times_to_loss([one, other], curves)
    assert found is not None
    assert found.loss == losses[-1]
    assert found.seconds["other"] == pytest.approx(slower * found.seconds["dense"])
    assert found.seconds["dense"] <= one.rounds * one.round_time_s * (1 + 1e-12)
    assert times_to_loss([one], curves) is None
    assert times_to_loss([one, other], curves | {"other": LossCurve(curve[:-1], ends[1])}) is None
    started = {name: LossCurve([(0, losses[-1]), *each.losses], each.ends_s) for name, each in curves.items()}
    assert times_to_loss([one, other], started) is None


def test_the_loss_is_the_highest_final_one_and_the_last_algorithm_reaches_it_at_its_end(report: netsim.Report) -> None:
    """The digits are few enough for the loss during the run to be that of all training samples."""
    document = report.to_dict()
    worst = max(report.results, key=lambda result: result.final_loss or 0.0)
    assert document["loss_to_reach"] == pytest.approx(worst.final_loss, rel=1e-5)
    seconds = {result["algorithm"]: result["time_to_loss_s"] for result in document["results"]}
    assert worst.algorithm == "gtopk"
    assert 0.8 * 6 * worst.round_time_s <= seconds["gtopk"] <= 6 * worst.round_time_s
    dense = report.results[0]
    assert seconds["dense"] < 6 * dense.round_time_s
    # As an independent run of fewer rounds ends: above the loss one round earlier, and at most the loss then.
    rounds = round(seconds["dense"] / dense.round_time_s)
    assert seconds["dense"] == pytest.approx(rounds * dense.round_time_s)
    for count, reached in ((rounds - 1, False), (rounds, True)):
        (ended,) = netsim.simulate(**TRAINED | {"rounds": count, "algorithm": "dense"}).results
        assert ended.final_loss is not None
        assert (ended.final_loss <= document["loss_to_reach"] * (1 + 1e-6)) == reached
    assert list(report.to_pandas()["time_to_loss_s"]) == list(seconds.values())


LOCAL: dict[str, Any] = TRAINED | {
    "algorithm": "dense,local-sgd:h=3", "bandwidth": "1Mbps", "workload": "tests.tiny:tiny",
    "rounds": 7,
}  # fmt: skip


@pytest.mark.parametrize("metrics", [False, True])  # rounds at once, and message by message
def test_the_time_is_that_of_a_run_which_ends_with_that_round(tmp_path: Path, metrics: bool) -> None:
    """Rounds of local SGD differ: one of three exchanges, and only that one changes the loss."""
    rows = tmp_path / "rows.csv"
    found = netsim.simulate(**LOCAL, **({"metrics": rows} if metrics else {})).time_to_loss
    assert found is not None
    for name, seconds in found.seconds.items():
        ended = [netsim.simulate(**LOCAL | {"rounds": count, "algorithm": name}).results[0] for count in range(1, 8)]
        first = next(each for each in ended if (each.final_loss or 0.0) <= found.loss * (1 + 1e-6))
        assert seconds == pytest.approx(first.rounds * first.round_time_s, rel=1e-9)
        if metrics:
            table = csv.DictReader(rows.read_text().splitlines())
            times = [float(row["time_s"]) for row in table if row["algorithm"] == name]
            assert seconds == pytest.approx(times[first.rounds - 1], rel=1e-12)


def test_a_loss_that_rises_is_said_and_no_target() -> None:
    """With learning rate 0.1 AdamW moves each parameter by about 0.1 a step."""
    report = netsim.simulate(**TRAINED | {"algorithm": "dense,diloco:h=2"})
    assert report.time_to_loss is None
    *_, rose, common = report.notes
    assert rose.startswith("The training loss of DiLoCo (h 2) rose from 2.")
    assert "learning rate 0.1 may be too high for it; AdamW" in rose
    assert common.endswith(" at the start: DiLoCo (h 2).")


@pytest.mark.slow
def test_engines_and_a_resumed_run_agree(report: netsim.Report, tmp_path: Path) -> None:
    def times(**options: Any) -> dict[str, Any]:
        found = netsim.simulate(**TRAINED, **options).time_to_loss
        assert found is not None
        return {"loss": found.loss, **found.seconds}

    assert report.time_to_loss is not None
    wanted = pytest.approx({"loss": report.time_to_loss.loss, **report.time_to_loss.seconds}, rel=1e-6)
    assert times(engine="event") == wanted
    file = tmp_path / "run.ckpt"
    asked: list[int] = []

    def stop(algorithm: str, step: int) -> None:
        asked.append(step)
        if algorithm == "gtopk" and step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        netsim.simulate(**TRAINED, checkpoint=file, checkpoint_every=2, on_round=stop)
    assert times(checkpoint=file, resume=True) == wanted


def test_one_algorithm_or_no_data_has_no_time_to_a_loss() -> None:
    for options in ({"algorithm": "dense", "rounds": 1}, {"timing_only": True, "elements": 1000}):
        report = netsim.simulate(workers=2, **options)
        assert report.time_to_loss is None
        assert report.to_dict()["loss_to_reach"] is None
        assert {result["time_to_loss_s"] for result in report.to_dict()["results"]} == {None}
        assert not any("Time to" in sentence for sentence in report.conclusion)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_trained_report_at_every_width(report: netsim.Report, width: int) -> None:
    out = "\n".join(printed(width, lambda console: render(report, report.experiment, console)))
    numbers = {f"{result.final_loss:.4f}" for result in report.results} | {f"{report.to_dict()['loss_to_reach']:.4f}"}
    assert_whole(out, width, numbers)
    assert [each for each in report.conclusion if each not in together(out)] == []
