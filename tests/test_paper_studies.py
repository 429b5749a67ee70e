"""The studies of the papers: what they compute is arithmetic of the papers, and each runs from end to end."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from netsim._util.errors import UsageError
from netsim.study_engine import Finding, Study, run_study
from netsim.study_engine.trained import curve, train_point
from studies import STUDIES, cluster, gtopk_paper, load_study, sasg_figures, sasg_paper, time_to_accuracy
from studies.calibration import calibrate
from studies.intervals import interval
from studies.paper_figures import ALPHA_S, BETA_S, THROUGHPUT, THROUGHPUT_OF_MORE
from tests.command import run

TINY: dict[str, dict[str, Any]] = {
    "gtopk-paper": {
        "tasks": ("fc-mnist:digits",), "rounds": (10,), "evaluations": 2, "ratios": (100,), "workers": 2,
        "residual_task": "fc-mnist:digits", "residual_rounds": 2, "residual_workers": (3,), "residual_splits": ("iid",),
        "seeds": (0,),
    },
    "sasg-paper": {
        "data": "digits", "rounds": 24, "evaluations": 2, "seeds": (0,), "densities": (0.1,), "mix": "digits",
        "mix_workload": "fc-mnist", "mix_split": "by-class", "target": 0.1,
    },
    "time-to-accuracy": {
        "data": "digits", "rounds": 4, "evaluations": 2, "target": 0.05, "algorithms": ("topk", "ps"),
        "bandwidths": ("10Mbps", "1Gbps"), "workers": 3, "seeds": (0,),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def sizes() -> list[Finding]:
    """What the SASG study finds with sizes only."""
    points = sasg_paper.points(sasg_paper.SasgSettings(seeds=(0,), mix="none"))
    return [Finding(point, sasg_paper.measure(point)) for point in points if point.get("timing_only")]


def test_table_2_is_rounds_times_entries_times_32(sizes: list[Finding]) -> None:
    table, worst = sasg_paper._table_2(sizes)
    assert worst < 0.0015  # half of the last of three digits of 3.25
    entries = {
        ("FC MNIST", False): 407_050, ("FC MNIST", True): 4_071,
        ("ResNet18 CIFAR-10", False): 11_173_962, ("ResNet18 CIFAR-10", True): 111_723,
        ("ResNet18 CIFAR-100", False): 11_220_132, ("ResNet18 CIFAR-100", True): 112_184,
    }  # fmt: skip
    assert len(table.rows) == 12
    for task, method, _, value, index, *_ in table.rows:
        sparse = method in ("Sparse", "SASG")
        assert value == 32 * entries[str(task), sparse]
        assert index == (value if sparse else 0)


def test_table_3_is_nine_serial_uploads_a_round_and_ten_stored_messages(sizes: list[Finding]) -> None:
    table, memory = sasg_paper._table_3(sizes)
    assert {name: round(mib, 2) for name, mib in memory.items()} == {
        "ps": 0, "ps-topk": 0, "lasg-wk2": 426.25, "sasg": 4.26,
    }  # fmt: skip
    dense = 100 * 9 * 32 * 11_173_962 / 1e9
    sparse = 100 * 9 * 2 * 32 * 111_723 / 1e9  # values and indices
    for row, seconds in zip(table.rows, (dense, sparse, dense, sparse), strict=True):
        assert row[2] == pytest.approx(seconds, rel=1e-3)
        assert row[3] == pytest.approx(seconds, rel=1e-3)  # into one NIC it takes the same


def test_a_calibration_finds_what_made_the_throughputs() -> None:
    """b = 64, host terms 20, 300 and 250 ms, a network of P seconds: exact figures give exact predictions."""
    hosts = {"dense": 0.02, "topk": 0.3, "gtopk": 0.25}
    network = {("dense", p): 0.1 * p for p in (4, 8, 16)}
    network |= {("topk", p): 0.01 * p for p in (4, 8, 16)} | {("gtopk", p): 0.01 * math.log2(p) for p in (4, 8, 16)}
    true = {key: 1 / (1 / 1000 + (seconds + hosts[key[0]]) / 64) for key, seconds in network.items()}
    measured = {key: value for key, value in true.items() if key[1] <= 8}
    fit = calibrate(1000, measured, network)
    assert fit.batch == pytest.approx(64)
    assert fit.error < 1e-9
    for name, host in hosts.items():
        assert fit.hosts[name] * 64 == pytest.approx(host)
        assert fit.throughput(name, network[name, 16]) == pytest.approx(true[name, 16])
    rounded = {key: float(f"{value:.3g}") for key, value in measured.items()}
    fit = calibrate(1000, rounded, network)
    for name in hosts:
        low, high = interval([fit.throughput(name, network[name, 16])], fit.noise.factor(1))
        assert low <= true[name, 16] <= high
        assert high / low < 1.1


def test_a_prediction_knows_nothing_beyond_8_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {workers for rows in THROUGHPUT.values() for workers in rows} == {1, 4, 8}
    points = cluster.network_points()
    findings = [
        Finding(point, {"comm_time_s": cluster.closed_form(cluster._name_of(point), point["workers"], 10**7, 10**4)})
        for point in points
    ]
    section, data, (told, _), _ = cluster.prediction(findings)
    assert {workers for of in data.values() for name in of.values() for workers in name} == {"16", "32"}
    monkeypatch.setattr(cluster, "THROUGHPUT_OF_MORE", {
        model: {workers: tuple(2 * value for value in values) for workers, values in of.items()}
        for model, of in THROUGHPUT_OF_MORE.items()
    })  # fmt: skip
    _, others, (told_of_others, _), _ = cluster.prediction(findings)
    assert told_of_others == told
    for model, of in data.items():
        for name, workers in [(each, workers) for each in of for workers in of[each]]:
            one, other = of[name][workers], others[model][name][workers]
            low, high = one["interval_95_of_one_switch"]
            assert low <= one["samples_per_s"] <= high
            assert (low, high) == pytest.approx(one["interval_95"])  # the alternatives took the same time
            assert other == one | {"published": 2 * one["published"]}
    assert all(model in told for model in THROUGHPUT)
    assert len(section.figures) == len(THROUGHPUT) + 1


@pytest.mark.slow
def test_intervals_hold_published_throughputs_that_no_fit_has_seen() -> None:
    """Of the 30 figures of 16 and 32 workers, counted by hand; 95 % of 30 are 28.5."""
    findings = [Finding(point, gtopk_paper.measure(point)) for point in cluster.network_points()]
    _, data, (_, told), _ = cluster.prediction(findings)
    each = [one for of in data.values() for by_workers in of.values() for one in by_workers.values()]
    held = sum(one["interval_95"][0] <= one["published"] <= one["interval_95"][1] for one in each)
    assert len(each) == 30
    assert held >= 28
    assert f"and {held} within those" in told
    for one in each:
        (inner_low, inner_high), (low, high) = one["interval_95_of_one_switch"], one["interval_95"]
        assert low <= inner_low <= inner_high <= high


def test_closed_forms_are_those_of_the_table() -> None:
    """P = 4, d = 1000, k = 10, by hand, in units of α and β."""
    assert cluster.closed_form("dense", 4, 1000, 10) == pytest.approx(6 * ALPHA_S + 1500 * BETA_S)
    assert cluster.closed_form("topk", 4, 1000, 10) == pytest.approx(2 * ALPHA_S + 60 * BETA_S)
    assert cluster.closed_form("gtopk", 4, 1000, 10) == pytest.approx(4 * ALPHA_S + 80 * BETA_S)


def test_simulated_exchanges_cost_what_the_forms_say() -> None:
    points = [
        point
        for point in cluster.network_points()
        if point.get("model") == "resnet50" and point["workers"] < 32 and "topology" not in point
    ]
    _, worst = cluster.costs([Finding(point, gtopk_paper.measure(point)) for point in points])
    assert worst < 1e-4


def test_curves_count_until_an_evaluation() -> None:
    names = ("uploads", "value_bits_up", "index_bits_up", "bits_down")
    rows = [
        dict.fromkeys(names, step + 1) | {"step": step, "time_s": 2.0 * step, "test_loss": accuracy,
                                          "test_accuracy": accuracy}
        for step, accuracy in enumerate((None, 0.5, None, 0.9))
    ]  # fmt: skip
    found = curve(rows)
    assert found["uploads"] == [3, 10]
    assert found["step"] == [1, 3]
    assert found["time_s"] == [2.0, 6.0]
    assert [time_to_accuracy.reached(found, target) for target in (0.5, 0.6, 0.95)] == [0, 1, None]


def test_who_is_first_is_told_with_how_many_seeds() -> None:
    """Of three seeds A is ahead of both others with two; means are 2, 2.5 and 9 seconds. C missed the target once."""

    def row(name: str, times: list[float] | None) -> dict[str, Any]:
        mean = None if times is None else sum(times) / len(times)
        return {"bandwidth": "1Gbps", "algorithm": name, "time_s": mean, "times": times, "bytes": mean,
                "uploads": mean, "accuracy": 0.9}  # fmt: skip

    settings = time_to_accuracy.TimeSettings(bandwidths=("1Gbps",), seeds=(0, 1, 2))
    rows = [row("A", [1.0, 1.5, 3.5]), row("B", [2.0, 2.5, 3.0]), row("C", None), row("D", [9.0, 9.0, 9.0])]
    (said, least, lead, never), winners = time_to_accuracy._winners(settings, rows)
    assert said.endswith("A at 1Gbps after 2 s.")
    assert lead.endswith("1Gbps: B takes 1.25× as long, A is first with 2 of 3 seeds.")
    assert winners["time"] == {"1Gbps": "A"}
    assert "Fewest bytes sent: A" in least
    assert never == "Not every seed reached the target with C."


def test_communication_time_is_bits_at_a_gigabit_a_second() -> None:
    curve = {"value_bits_up": [10**9, 3 * 10**9], "index_bits_up": [0, 10**9], "test_accuracy": [0.1, 0.2]}
    assert sasg_figures._timed(curve)["up_s"] == [1.0, 4.0]
    assert sasg_figures._upload_s({"value_bits_up": 10**9, "index_bits_up": 10**9, "uploads": 4}) == 0.5


def test_a_study_does_not_measure_its_machine() -> None:
    with pytest.raises(UsageError, match="must all be given"):
        train_point({"algorithm": "dense", "workload": "fc-mnist", "data": "digits", "rounds": 1})


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.slow
def test_a_study_ends_in_a_report(name: str, tmp_path: Path) -> None:
    study: Study[Any] = load_study(name)
    settings = study.settings(**TINY[name])
    ran = run_study(study, settings, tmp_path, command=f"netsim study {name}", jobs=1)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<figure") == sum(len(section.figures) for section in ran.conclusion.sections) > 3
    assert json.loads((tmp_path / "conclusion.json").read_text("utf-8"))["conclusion"]
    assert not re.search(r"\bnan\b", page)
    for section in ran.conclusion.sections:
        assert all(figure.caption and figure.provenance for figure in section.figures)
        assert all(table.provenance for table in section.tables)


def test_every_picture_and_table_says_which_setting_it_is(tmp_path: Path) -> None:
    study = load_study("time-to-accuracy")
    settings = study.settings(**(dict(study.quick) | TINY["time-to-accuracy"]))
    run_study(study, settings, tmp_path, jobs=1)
    page = (tmp_path / "report.html").read_text("utf-8")
    said = study.setting(settings)
    assert said.startswith("quick setting, but algorithms, bandwidths, ")
    assert page.count(f'<span class="provenance">{said}</span>') == page.count("<figure") + page.count("<table")
    assert study.setting(study.settings()) == "full setting"
    assert study.setting(study.settings(**study.quick)) == "quick setting"
    assert study.setting(study.settings(latency="1ms")) == "full setting, but latency"
    assert "the full setting needs MNIST" in page


def test_a_full_setting_without_its_data_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, f"study sasg-paper --data-dir {tmp_path} --out {tmp_path / 'out'}")
    assert (ran.code, ran.out) == (3, "")
    assert "netsim fetch cifar10" in ran.err
    assert ran.err.count("\n") == 1


def test_data_is_found_where_it_is_said_to_be_and_that_is_no_part_of_a_point(tmp_path: Path) -> None:
    """MNIST's format, made up: 40 + 20 images; a study that trains on them keeps nothing of the place."""
    from tests.test_data import write_mnist

    write_mnist(tmp_path / "data" / "mnist")
    study = load_study("time-to-accuracy")
    tiny = TINY["time-to-accuracy"] | {"data": "mnist", "rounds": 1, "bandwidths": ("1Gbps",), "algorithms": ("ps",),
                                       "seeds": (0,), "batch_size": 2, "target": 0.01}  # fmt: skip
    run_study(study, study.settings(**tiny), tmp_path / "out", jobs=1, data_dir=str(tmp_path / "data"))
    kept = "".join(path.read_text() for path in (tmp_path / "out" / "points").iterdir())
    assert str(tmp_path) not in kept


def test_quick_settings_are_settings() -> None:
    for name in STUDIES:
        study = load_study(name)
        assert study.points(study.settings(**study.quick))
