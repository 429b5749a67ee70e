"""An algorithm whose training diverges does not lose the results of the others, simulated or real."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import netsim
from netsim.cli import main
from netsim.errors import DivergedError, NonFiniteGradientError

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
    assert said.err.startswith("netsim: dense: worker ")
    assert len(said.err.splitlines()) == 1
