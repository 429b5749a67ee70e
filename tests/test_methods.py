"""The study of all methods: which of them train, bytes and seconds in closed form, and a conclusion worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from algorithms import ALGORITHMS, BUILT_IN
from netsim._util.errors import UsageError
from netsim.comm.payload import Dense
from netsim.experiment.configuration import Experiment
from netsim.report.drawing import Axis, Series, scatter
from netsim.simulator.opening import open_session
from netsim.study_engine import Conclusion, Finding
from netsim.study_engine.settings import settings_of
from studies.method_rows import rows_of
from studies.method_trainings import (
    MethodsSettings,
    measure,
    plan_of,
    points,
    registered,
    stands_for,
)
from studies.methods import STUDY, conclude

COMPUTE_S, LATENCY_S = 5e-3, 50e-6


def small(*methods: str, **changed: Any) -> MethodsSettings:
    values: dict[str, Any] = {
        "trainings": ("fc-mnist:8:1:5ms:0.2",),
        "data": "digits",
        "splits": ("iid",),
        "exchanges": 4,
    }
    return MethodsSettings(methods=methods, **(values | changed))


def test_every_algorithm_trains_or_has_the_parameters_of_one_that_trains() -> None:
    every = registered()
    assert set(every) - {"dense@fp16", "dense@bf16"} == {name for name in ALGORITHMS if name in BUILT_IN}
    assert (
        {stands_for(stands_for(method)) for method in every} == {stands_for(method) for method in every} <= set(every)
    )
    assert [stands_for(name) for name in ("ps", "dense-tree", "dense@bf16", "ps-signsgd", "lag", "local-sgd")] == [
        "dense", "dense", "dense@bf16", "signsgd", "lag", "local-sgd",
    ]  # fmt: skip


def trained(name: str) -> np.ndarray[Any, Any]:
    """Return the parameters after six rounds of four workers on digits."""
    experiment = Experiment.of(
        algorithm=name, workload="fc-mnist", data="digits", workers=4, rounds=6, density=0.05, lr=0.01,
        device="cpu", compute_time=0.0, select_time=0.0, merge_time=0.0,
    )  # fmt: skip
    with open_session(experiment) as session:
        algorithm = experiment.algorithm(name, session.tensors, None, session.task.shapes)
        parameters = session.record(algorithm).trained[0].parameters
    assert isinstance(parameters, Dense)
    return parameters.values.numpy()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *((name, kind.same_parameters_as) for name, kind in ALGORITHMS.items() if kind.same_parameters_as),
        *((name, "dense") for name in ("dense-tree", "dense-hier", "ps")),
    ],
)
def test_a_method_that_does_not_train_has_the_parameters_of_the_other_up_to_rounding(name: str, other: str) -> None:
    """Sums in another order differ by roundings of 2^-24, so parameters do by far less than a step of 0.01."""
    np.testing.assert_allclose(trained(name), trained(other), rtol=0, atol=1e-6)


def test_a_training_is_measured_once_for_all_networks() -> None:
    """Two workers: a ring sends d/2 values twice; the server's worker sends d at 32 bits up and receives d."""
    settings = small(
        "dense", "ps", "local-sgd", workers=2, bandwidths=("10Mbps", "1Gbps"), select_time="0s", merge_time="0s"
    )  # fmt: skip
    dense, server, local = (measure(point) for point in points(settings))
    elements = 64 * 512 + 512 + 512 * 10 + 10
    for bandwidth, bps in (("10Mbps", 1e7), ("1Gbps", 1e9)):
        message_s = 32 * elements / 2 / bps + LATENCY_S
        assert local["seconds"][bandwidth] == pytest.approx(8 * COMPUTE_S + 8 * message_s, rel=1e-3)
        upload_s = 32 * elements / bps + LATENCY_S
        assert server["seconds"][bandwidth] == pytest.approx(8 * (COMPUTE_S + 2 * upload_s), rel=1e-3)
    assert dense["sent"] == dense["received"] == server["sent"] == 2 * local["sent"] == 8 * 4 * elements
    assert "accuracy" not in server
    assert dense["accuracy"] > 0.3  # ten classes: of a guess 0.1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lasg-wk2", "oktopk", "powersgd", "streaming-diloco", "dense@bf16"])
def test_the_seconds_on_each_network_are_those_of_a_simulation_there(method: str) -> None:
    _, point = points(small("dense", method))
    found = measure(point)
    for bandwidth in ("100Mbps", "10Gbps"):
        options = {name: value for name, value in point.items() if name != "bandwidths"} | {"bandwidth": bandwidth}
        experiment = Experiment.of(**options)
        with open_session(experiment) as session:
            result = session.simulate(point["algorithm"])
        assert found["seconds"][bandwidth] == pytest.approx(8 * result.round_time_s, rel=1e-9)
        assert found["accuracy"] == result.final_accuracy
        assert found["sent"] == pytest.approx(8 * (result.value_bytes_up + result.index_bytes_up))


def test_a_training_that_diverges_has_no_results() -> None:
    settings = small("dense", trainings=("fc-mnist:8:1:5ms:1e30",))
    (point,) = points(settings)
    outcome = measure(point)
    assert outcome.keys() == {"title", "diverged"}
    (row,) = rows_of(settings, [Finding(point, outcome)])
    assert (row.accuracies, row.sent, row.seconds) == ((), None, {})
    assert "dense diverged" in " ".join(conclude(settings, [Finding(point, outcome)]).sentences)


def made_up(accuracies: dict[tuple[str, str], list[float]], sent: dict[str, float]) -> Conclusion:
    """Return the conclusion from accuracies of two seeds by method and split, and megabytes by method.

    A run takes a second, and at 100 Mbit/s a second more for each megabyte.
    """
    settings = small(
        *sent, trainings=("fc-mnist:8:2:5ms:0.2",), splits=("iid", "by-class"), bandwidths=("100Mbps", "1Gbps")
    )
    findings = []
    for point in points(settings):
        name = point["algorithm"].partition(":")[0]
        outcome: dict[str, Any] = {
            "title": name, "sent": 1e6 * sent[name], "received": 1e6 * sent[name], "uploads": 48,
            "seconds": {"100Mbps": 1 + sent[name], "1Gbps": 1.0},
        }  # fmt: skip
        if not point.get("timing_only"):
            outcome["accuracy"] = accuracies[name, point["split"]][point["seed"]]
        findings.append(Finding(point, outcome))
    return conclude(settings, findings)


def test_the_conclusion_names_who_keeps_the_accuracy_and_which_claims_do_not_hold() -> None:
    accuracies = {
        ("dense", "iid"): [0.80, 0.82],
        ("gtopk", "iid"): [0.79, 0.80],  # 1.5 points below: within the margin of 2
        ("diloco", "iid"): [0.70, 0.72],  # 10 points below
        ("dense", "by-class"): [0.75, 0.75],
        ("gtopk", "by-class"): [0.76, 0.74],
        ("diloco", "by-class"): [0.50, 0.60],  # 20 points below
    }
    conclusion = made_up(accuracies, {"dense": 64, "ps": 128, "gtopk": 2, "gtopk-hier": 3, "diloco": 1})
    rows = {(row["split"], row["method"]): row for row in conclusion.data["rows"]}
    assert len(rows) == 10
    assert rows["iid", "ps"]["accuracies"] == rows["iid", "dense"]["accuracies"] == [0.80, 0.82]
    assert rows["by-class", "gtopk-hier"]["accuracy"] == pytest.approx(0.75)
    assert rows["iid", "gtopk-hier"]["skipped"] == pytest.approx(0.25)  # 48 of 64 uploads
    headline, iid, by_class, change, *claims = conclusion.sentences
    assert headline.startswith(
        "1 of 2 trained methods other than dense end within 2 points of dense in all 2 trainings "
        "(digits; fc-mnist for 8 rounds)."
    )
    assert "a worker of gtopk sends and receives least, 4 MB in fc-mnist, iid where one of dense has 128 MB" in headline
    assert headline.endswith("gtopk ends first at 100Mbps, after 3 s instead of 65 s.")
    assert iid.endswith("Furthest below: diloco (10.0 points).")
    assert by_class.startswith("fc-mnist, by-class: dense ends at 75.0%, and 1 of 2 trained methods within 2 points.")
    assert "dense -6.0 points; lowest are diloco -16.0, dense -6.0, gtopk -4.5" in change
    assert "1 of 3 tests agree, within 2 points; 0 are undecided." in claims[0]
    assert [sentence.partition(":")[0] for sentence in claims[1:]] == [
        "Disagrees with DiLoCo (Douillard et al. 2023)"
    ] * 2
    assert "71.0% on fc-mnist, iid (2 seeds), -10.0 points from dense" in claims[1]
    assert "55.0% on fc-mnist, by-class (2 seeds), -20.0 points from dense" in claims[2]
    assert [claim["holds"] for claim in conclusion.data["claims"]] == [True, False, False]


@pytest.mark.parametrize(
    ("gtopk", "holds"),
    [
        ([0.71, 0.86], True),  # 1.5 points below
        ([0.75, 0.79], None),  # 3 points below, and half ranges of 2 and 0 points
        ([0.76, 0.77], False),  # 3.5 points below, and a half range of half a point
    ],
)
def test_a_claim_is_undecided_within_the_half_ranges_over_seeds(gtopk: list[float], holds: bool | None) -> None:
    same = {("dense", split): [0.8, 0.8] for split in ("iid", "by-class")}
    accuracies = same | {("gtopk", "iid"): gtopk, ("gtopk", "by-class"): gtopk}
    conclusion = made_up(accuracies, {"dense": 2, "gtopk": 1})
    assert [claim["holds"] for claim in conclusion.data["claims"]] == [holds]
    assert any(sentence.startswith("Disagrees") for sentence in conclusion.sentences) == (holds is False)


def test_a_quick_run_tests_no_claims() -> None:
    settings = small("dense", "signsgd", trainings=("fc-mnist:2:1:5ms:0.2",), claims=STUDY.quick["claims"])
    outcomes: list[dict[str, Any]] = [
        {"title": name, "sent": 1.0, "received": 1.0, "uploads": 16, "accuracy": accuracy}
        | {"seconds": dict.fromkeys(settings.bandwidths, 1.0)}
        for name, accuracy in (("dense", 0.9), ("signsgd", 0.1))
    ]
    conclusion = conclude(settings, [Finding(*each) for each in zip(points(settings), outcomes, strict=True)])
    assert conclusion.data["claims"] == []
    assert conclusion.sentences[-1].endswith("a quick run is too short to test them.")
    assert conclusion.sentences[0].startswith("0 of 1 trained methods other than dense end within 2 points of dense")


def test_a_claim_of_skipped_uploads_needs_them_skipped() -> None:
    """Of 64 uploads, 48 are made: a quarter is skipped, and not nine tenths."""
    same = {(name, split): [0.8, 0.8] for name in ("dense", "lasg-wk2") for split in ("iid", "by-class")}
    conclusion = made_up(same, {"dense": 2, "lasg-wk2": 1})
    assert [claim["holds"] for claim in conclusion.data["claims"]] == [True, False]
    assert conclusion.sentences[-1].endswith("+0.0 points from dense and skips 25% of uploads.")
    assert any("lasg-wk2 25 to 25 %" in sentence for sentence in conclusion.sentences)


def test_the_picture_names_the_points_that_no_other_beats() -> None:
    """b is slower than a and no better; c is slower and better."""
    series = [Series(name, [x], [y]) for name, x, y in (("a", 1, 0.5), ("b", 2, 0.5), ("c", 4, 0.9))]
    svg = scatter({"one panel": series, "another": series[:1]}, Axis("time", 10, unit="s"), Axis("accuracy"))
    assert "one panel" in svg
    assert [svg.count(f">{name}<") for name in "abc"] == [3, 1, 2]  # once in the legend, once for each panel's best


@pytest.mark.parametrize("text", ["fc-mnist", "fc-mnist:x:1:5ms", "fc-mnist:10:0:5ms:0.2", "fc-mnist:10:1"])
def test_a_training_that_cannot_be_read_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="must be WORKLOAD:ROUNDS:SEEDS:TIME"):
        plan_of(text)


def test_values_of_a_type_that_messages_cannot_have_are_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="dtype 'fp8'"):
        points(small("dense", "topk@fp8"))


def test_dense_is_needed_for_comparison() -> None:
    with pytest.raises(UsageError, match=r"must contain dense, .*; write methods=dense,topk$"):
        points(small("topk"))


def test_methods_with_local_steps_exchange_equally_often_and_end_with_an_exchange() -> None:
    settings = settings_of(STUDY)
    for point in points(settings):
        if "h=" in point["algorithm"]:
            h = int(point["algorithm"].partition("h=")[2].partition(",")[0])
            start = int(point["algorithm"].partition("start=")[2].partition(",")[0] or 0)
            assert (point["rounds"] - start) % h == 0
            assert point["rounds"] // h == settings.exchanges
