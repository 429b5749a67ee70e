"""An algorithm whose training diverges, or that fails, does not lose the results of the others, simulated or real."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import netsim
from netsim._util.errors import AlgorithmsFailedError, DivergedError, LinkDownError, NonFiniteGradientError
from netsim.cli.main import main
from tests.command import without_announcements

CHARGES = {"compute_time": "1ms", "select_time": "0s", "merge_time": "0s"}
STEEP: dict[str, Any] = {"workload": "tests.own:steep", "rounds": 4, "lr": 0.1, "k": 1}
"""A dense step moves all elements of a vector that must not fall below 0; the largest entry is elsewhere."""
COMMAND = ["--workload", "tests.own:steep", "--rounds", "4", "--lr", "0.1", "--k", "1"]


def assert_report(report: netsim.Report | None, alone: str | None) -> None:
    assert report is not None
    assert [(result.algorithm, result.parameters_sha256) for result in report.results] == [("topk", alone)]
    assert report.conclusion[-1] == "No result for dense: its training diverged."


def test_what_ended_is_in_the_report_of_the_error() -> None:
    alone = netsim.simulate(workers=2, algorithm="topk", **STEEP, **CHARGES).results[0].parameters_sha256
    for order in ("dense,topk", "topk,dense"):
        with pytest.raises(NonFiniteGradientError, match=r"^dense: worker \d, step 1: .*; lower --lr") as raised:
            netsim.simulate(workers=2, algorithm=order, **STEEP, **CHARGES)
        assert isinstance(raised.value, DivergedError)
        assert_report(raised.value.report, alone)


def test_where_all_diverge_there_is_no_report() -> None:
    with pytest.raises(DivergedError, match=r"^dense: .*; dense-tree: worker \d, step 1: ") as raised:
        netsim.simulate(workers=2, algorithm="dense,dense-tree", **STEEP, **CHARGES)
    assert raised.value.report is None
    assert "\n" not in str(raised.value)


def test_the_command_line_prints_what_ended_and_then_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, metrics, trace = tmp_path / "out.json", tmp_path / "rows.csv", tmp_path / "trace.json"
    files = ["--json", "--out", str(out), "--metrics", str(metrics), "--trace", str(trace)]
    assert main(["simulate", "--workers", "2", "--algorithm", "dense,topk", *COMMAND, *files]) == 1
    said = capsys.readouterr()
    printed = json.loads(said.out)
    assert [result["algorithm"] for result in printed["results"]] == ["topk"]
    assert json.loads(out.read_text()) == printed
    assert said.err.startswith("netsim: dense: worker ")
    assert len(said.err.splitlines()) == 1
    assert {row["algorithm"] for row in csv.DictReader(metrics.read_text().splitlines())} == {"dense", "topk"}
    assert trace.exists()


def test_a_checkpoint_keeps_what_ended_and_what_runs(tmp_path: Path) -> None:
    saved = {"checkpoint": tmp_path / "saved", "checkpoint_every": 1}
    for resume in (False, True):
        with pytest.raises(DivergedError) as raised:
            netsim.simulate(workers=2, algorithm="dense,topk", resume=resume, **saved, **STEEP, **CHARGES)
        alone = netsim.simulate(workers=2, algorithm="topk", **STEEP, **CHARGES).results[0].parameters_sha256
        assert_report(raised.value.report, alone)


@pytest.mark.real
@pytest.mark.slow
def test_a_real_run_goes_on_with_the_next_algorithm() -> None:
    order = "gtopk,dense,topk"
    alone = netsim.simulate(workers=3, algorithm="gtopk,topk", **STEEP, **CHARGES).results
    with pytest.raises(DivergedError, match=r"^dense: worker \d, step 1: .*; lower --lr") as raised:
        netsim.run(workers=3, algorithm=order, **STEEP)
    report = raised.value.report
    assert report is not None
    assert [(each.algorithm, each.parameters_sha256) for each in report.results] == [
        (each.algorithm, each.parameters_sha256) for each in alone
    ]


@pytest.mark.real
@pytest.mark.slow
def test_the_command_line_prints_what_ended_of_a_real_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--nproc", "2", "--algorithm", "dense,topk", *COMMAND, "--json"]) == 1
    said = capfd.readouterr()
    assert [result["algorithm"] for result in json.loads(said.out)["results"]] == ["topk"]
    (error,) = without_announcements(said.err).splitlines()
    assert error.startswith("netsim: dense: worker ")


@pytest.mark.real
@pytest.mark.slow
def test_under_torchrun_what_ended_is_printed_too(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun += ["-m", "netsim", "run"]
    options = [*COMMAND, "--algorithm", "topk,dense,gtopk", "--json", "--out", str(out)]
    done = subprocess.run([*torchrun, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    printed = json.loads(done.stdout)
    alone = netsim.simulate(workers=2, algorithm="topk", **STEEP, **CHARGES).results[0].parameters_sha256
    assert [(each["algorithm"], each["parameters_sha256"]) for each in printed["results"]] == [("topk", alone)]
    assert printed["conclusion"][-1] == "No result for gtopk: it was not run."
    assert printed["conclusion"][-2].startswith("No result for dense: ")
    assert json.loads(out.read_text()) == printed
    assert "the gradient of edge is not finite" in done.stderr


DOWN: dict[str, Any] = {"workers": 4, "timing_only": True, "elements": 10**6, "link_event": "worker2->switch@10ms=down"}
"""Dense takes 2 · 3 · (50 µs + 8 · 10⁶ bit / 1 Gbit/s) = 48.3 ms, and so meets it; 1,000 entries do not."""


def test_a_link_that_stays_down_costs_one_algorithm() -> None:
    with pytest.raises(AlgorithmsFailedError, match=r"^dense: .*link worker2→switch has been down") as raised:
        netsim.simulate(algorithm="dense,topk,gtopk", **DOWN)
    report = raised.value.report
    assert [result.algorithm for result in report.results] == ["topk", "gtopk"]
    # log₂ P exchanges of 2 k numbers, and as many of the broadcast: 4 · (50 µs + 64,000 bit / 1 Gbit/s).
    assert report.results[1].round_time_s == pytest.approx(4 * (50e-6 + 64e-6), rel=1e-12)
    assert report.conclusion[-1] == "No result for dense: it failed."
    assert isinstance(raised.value.failed["dense"], LinkDownError)


def test_where_nothing_ends_the_error_is_the_first() -> None:
    with pytest.raises(LinkDownError, match=r"^the run can never finish"):
        netsim.simulate(algorithm="dense,dense-tree", **DOWN)


def test_a_time_beyond_what_is_simulated_costs_one_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    # 6 · 400,000 · 32 / 4 s = 222 days of dense; 2 exchanges, and 2 more, of 400 values and indices take 102,400 s.
    command = ["--timing-only", "--workers", "4", "--elements", "400000", "--bandwidth", "1bps", "--json"]
    assert main(["simulate", *command, "--algorithm", "dense,gtopk"]) == 3
    said = capsys.readouterr()
    assert [(each["algorithm"], round(each["round_time_s"])) for each in json.loads(said.out)["results"]] == [
        ("gtopk", 102400)
    ]
    assert said.err.startswith("netsim: dense: ")
    assert "53 days" in said.err


@pytest.mark.real
@pytest.mark.slow
def test_a_rank_that_fails_costs_no_result_of_before() -> None:
    done = netsim.simulate(workers=2, algorithm="topk", workload="tests.own:brittle", k=1, rounds=3, **CHARGES)
    with pytest.raises(AlgorithmsFailedError, match=r"^dense: .*ZeroDivisionError") as raised:
        netsim.run(workers=2, algorithm="topk,dense,gtopk", workload="tests.own:brittle", k=1, rounds=3)
    report = raised.value.report
    assert [each.parameters_sha256 for each in report.results] == [done.results[0].parameters_sha256]
    assert report.conclusion[-2:] == ["No result for dense: it failed.", "No result for gtopk: it was not run."]


def test_an_error_of_own_code_costs_no_result_of_before() -> None:
    with pytest.raises(AlgorithmsFailedError, match=r"^dense: .*ZeroDivisionError") as raised:
        netsim.simulate(workers=2, algorithm="topk,dense,gtopk", workload="tests.own:brittle", k=1, rounds=3, **CHARGES)
    assert [each.algorithm for each in raised.value.report.results] == ["topk"]
    assert raised.value.exit_code == 2
