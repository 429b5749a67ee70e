"""The commands from Python: the same words and the same results as on the command line."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netsim
from netsim._util.options import (
    Bandwidth,
    FilePath,
    Kind,
    Several,
    Share,
    Size,
    Whole,
    as_written,
    declared,
    from_options,
)
from netsim.api.validation import AskedValidation
from netsim.cli.main import main
from netsim.experiment.command_options import StudyOptions, ValidationOptions
from netsim.experiment.given import PANELS
from netsim.experiment.option_docs import spelled_in_python
from netsim.experiment.profile import save_profile
from netsim.study_engine import Ran, RanShard
from netsim.testbed.campaign import Setting
from netsim.testbed.p2p_measurements import REQUIRED_KEYS
from studies import STUDIES, load_study
from tests.test_calibration import profile


def on_the_command_line(capsys: pytest.CaptureFixture[str], command: str) -> dict[str, object]:
    assert main(shlex.split(command)) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("function", [netsim.simulate, netsim.sweep])
def test_help_lists_every_option_with_type_and_default(function: object) -> None:
    lines = (inspect.getdoc(function) or "").splitlines()
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    for group in PANELS.values():
        for option in declared(group).values():
            line = next(line for line in lines if line.startswith(f"{option.name} : "))
            assert option.kind.in_python in line
            assert (spelled_in_python(option.usual) or "optional") in line
            assert parameters[option.name].default == option.default
    headings = [line for line, below in pairwise(lines) if below and set(below) == {"-"}]
    assert headings == ["Parameters", "Other Parameters", "Returns", "Raises", "Examples"]


def test_only_the_options_of_a_command_are_listed() -> None:
    names = set(inspect.signature(netsim.flows).parameters)
    assert {"flows", "topology", "workers", "bandwidth", "sharing"} <= names
    assert names.isdisjoint({"algorithm", "rounds", "lr", "options"})
    assert "ready" not in inspect.signature(netsim.run).parameters


def test_a_recommendation_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    written = on_the_command_line(
        capsys,
        "recommend --workers 4 --compute-time 5ms --elements 10000 --algorithm dense,gtopk "
        "--density 0.01,0.1 --jobs 1 --json",
    )
    options = {"workers": 4, "compute_time": "5ms", "elements": 10_000, "jobs": 1}
    as_text = netsim.recommend(algorithm="dense,gtopk", density="0.01,0.1", **options)
    as_lists = netsim.recommend(algorithm=["dense", "gtopk"], density=[0.01, 0.1], **options)
    for found in (as_text, as_lists):
        assert found.to_dict()["ranking"] == written["ranking"]
        assert found.to_dict()["conclusion"] == written["conclusion"]
    table = as_lists.to_pandas()
    assert table["round_time_s"].is_monotonic_increasing
    assert len(table) == len(as_lists.ranking)
    assert str(as_lists).startswith("The shortest round has gTop-k 0.01: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither --model nor --elements was given"),
        ({"elements": 10, "model": "resnet50"}, "both --model and --elements were given"),
        ({"elements": 10, "density": "much"}, "density"),
        ({"elements": 10, "density": []}, "density"),
        ({"elements": 10, "bandwith": "1Gbps"}, "bandwidth"),
    ],
)
def test_a_recommendation_refuses_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(netsim.UsageError, match=message) as caught:
        netsim.recommend(workers=2, compute_time="1ms", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_flows_are_those_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two flows share the link to worker2: 1 MB each at 500 Mbit/s take 16 ms, and the latency 50 µs."""
    file = tmp_path / "flows.csv"
    file.write_text("src,dst,bytes,start_s\nworker0,worker2,1000000,0\nworker1,worker2,1000000,0\n")
    written = on_the_command_line(capsys, f"flows --flows {file} --topology star --workers 4 --json")
    done = netsim.flows(file, topology="star", workers=4)
    table = done.to_pandas()
    assert table["duration_s"].tolist() == pytest.approx([0.01605] * 2)
    assert table["finish_s"].tolist() == [flow["finish_s"] for flow in written["flows"]]  # type: ignore[attr-defined]
    assert list(table.columns[:4]) == ["src", "dst", "bytes", "start_s"]
    with pytest.raises(netsim.UsageError, match="cannot be read"):
        netsim.flows(tmp_path / "none.csv", topology="star")


VARIED = {"vary": {"workers": [2, 3], "algorithm": ["dense"]}, "fixed": {"elements": 100, "timing_only": True}}


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """Return a TOML file of the same settings."""
    file = tmp_path / "study.toml"
    file.write_text('study = "sweep"\n[settings.vary]\nworkers = [2, 3]\nalgorithm = ["dense"]\n'
                    "[settings.fixed]\nelements = 100\ntiming_only = true\n")  # fmt: skip
    return file


def test_a_study_writes_the_files_of_the_command(tmp_path: Path, toml: Path) -> None:
    """Beside the command line itself, which the report quotes."""
    told: list[tuple[int, int]] = []
    ran = netsim.study(
        "sweep", tmp_path / "python", jobs=1, on_point=lambda known, of: told.append((known, of)), **VARIED
    )
    assert told[-1] == (2, 2)
    assert isinstance(ran, Ran)
    assert str(ran).splitlines()[1:] == [*ran.conclusion.sentences, f"Report: {tmp_path / 'python' / 'report.html'}"]
    assert main(["study", str(toml), "--jobs", "1", "--out", str(tmp_path / "command")]) == 0
    netsim.study(toml, tmp_path / "file", jobs=1)
    for name in ("points.csv", "points.jsonl", "conclusion.json"):
        written = (tmp_path / "command" / name).read_bytes()
        assert written == (tmp_path / "python" / name).read_bytes() == (tmp_path / "file" / name).read_bytes()


def test_shards_and_plans_of_a_study_are_those_of_the_command(
    tmp_path: Path, toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = netsim.study(toml, dry_run=True)
    assert plan.to_dict() == on_the_command_line(capsys, f"study {toml} --dry-run --json")
    netsim.study(toml, tmp_path / "parts", shard="1/2", jobs=1)
    last = netsim.study("sweep", tmp_path / "parts", shard="2/2", jobs=1, **VARIED)
    assert isinstance(last, RanShard)
    assert (last.points, last.measured, last.stored, last.total) == (1, 1, 2, 2)
    again = on_the_command_line(capsys, f"study {toml} --out {tmp_path / 'parts'} --shard 2/2 --jobs 1 --json")
    assert again == last.to_dict() | {"measured": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "x", "vray": {}}, "vray"),
        ({}, "out is missing"),
        ({"out": "x", "quick": 1}, "quick 1 must be True or False"),
        ({"out": "x", "shard": "3"}, "such as 3/100"),
        ({"out": "x", "shard": "1/2", "nccl_tests": "t"}, "nccl-tests 't' is for a report"),
        ({"out": "x", "validation": 5}, "validation 5 must be the path of a folder"),
        ({"out": "x", "on_point": 5}, "on_point 5 must be a function of two numbers"),
    ],
    ids=str,
)
def test_a_study_refuses_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(netsim.UsageError, match=message) as caught:
        netsim.study("sweep", **options)
    assert "\n" not in str(caught.value)


def test_no_setting_of_a_study_has_the_name_of_an_option() -> None:
    """Python takes both as keyword arguments."""
    names = {each.name for each in declared(StudyOptions).values()} | set(inspect.signature(netsim.study).parameters)
    for name in STUDIES:
        assert names.isdisjoint(load_study(name).settings.model_fields)


CELL = {"times": [0.010, 0.020], "by_rank": [[0.01], [0.02]], "points": {}}
TERMS = dict.fromkeys(sorted(REQUIRED_KEYS), 1e-4) | {"large_bytes": 10**5, "large_s": 0.02, "ranks": 2}


def test_a_validation_is_that_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Predictions of a ring of two at two bandwidths, beside measurements of 15 ms that are made up here."""
    measured: list[Setting] = []

    def measure(setting: Setting, on_repeat: object) -> dict[str, Any]:
        measured.append(setting)
        where = {"network": setting.network, "cores": 2, "processors_busy": 0.1}
        return where | {"points": TERMS, "cells": [CELL] * len(setting.cells)}

    monkeypatch.setattr("netsim.testbed.campaign._measure", measure)
    options = "--local 2 --bandwidth 50Mbps,1Gbps --exchange ring-all-reduce --algorithm none --sizes 100KB"
    code = main(shlex.split(f"validate {options} --out {tmp_path / 'command'} --json"))
    written = json.loads(capsys.readouterr().out)
    told: list[str] = []
    found = netsim.validate(
        local=2,
        bandwidth=["50Mbps", 1e9],
        exchange="ring-all-reduce",
        algorithm="none",
        sizes=[100_000],
        out=tmp_path / "python",
        on_progress=lambda what, done_s, total_s: told.append(what),
    )
    assert json.loads(json.dumps(found.to_dict())) == written
    assert code == (0 if found.agrees else 4)
    assert told == ["P = 2, fair 50 Mbit/s", "P = 2, fair 1 Gbit/s"]
    assert found.to_pandas()["measured_s"].tolist() == [0.015, 0.015]
    assert [row.error for row in found.comparison] == pytest.approx(
        [row.predicted_s / 0.015 - 1 for row in found.comparison]
    )
    assert all(sentence in " ".join(str(found).split()) for sentence in found.conclusion)
    assert "ring all-reduce" in found._repr_html_()
    for name in ("validation.csv", "validation.svg", "validation.json"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    measured.clear()
    again = netsim.validate(**found.config, out=tmp_path / "python")
    assert (again.comparison, measured) == (found.comparison, [])


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ({"bandwidth": "1Gbps"}, []),
        ({}, ["The bandwidth is the default, 100 Mbit/s."]),
        ({"bandwidth": "1Gbps", "algorithm": "dense", "density": 0.5},
         ["--density 0.5 changed nothing: no algorithm selects entries."]),
        ({"bandwidth": "1Gbps", "algorithm": "none", "density": 0.5, "rounds": 2},
         ["--rounds 2 and --density 0.5 changed nothing: no round of training is compared."]),
        ({"bandwidth": "1Gbps", "exchange": "none", "sizes": "1MB"},
         ["--sizes 1MB changed nothing: no exchange is compared."]),
        ({"bandwidth": "1Gbps", "backend": "mpi"},
         ["--backend mpi changed nothing: a cluster of --local uses gloo; torchrun's jobs take other backends."]),
    ],
    ids=str,
)  # fmt: skip
def test_a_validation_says_what_was_assumed_or_unused(options: dict[str, Any], notes: list[str]) -> None:
    assert AskedValidation.of({"local": 2, **options}, None).notes() == notes


def test_flows_say_what_was_assumed_or_unused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flows.csv"
    file.write_text("src,dst,bytes,start_s\nworker0,worker2,1000000,0\n")
    assert main(shlex.split(f"flows --topology star --flows {file} --workers 4 --fan-out 3")) == 0
    header, note, *_ = capsys.readouterr().out.splitlines()
    assert header == "network  star   4 hosts   1 Gbit/s (default)   50 µs one way (default)"
    assert note == "note     --fan-out 3 changed nothing: only a tree without the key fan-out uses it."
    written = on_the_command_line(capsys, f"flows --topology star --flows {file} --workers 4 --fan-out 3 --json")
    assert written["notes"] == [note.removeprefix("note     ")]
    with pytest.warns(UserWarning, match="--fan-out 3 changed nothing"):
        netsim.flows(file, topology="star", workers=4, fan_out=3)


def test_values_beside_a_profile_are_named(tmp_path: Path) -> None:
    """Those that replace the profile's: a header that names the profile alone would be wrong."""
    save_profile(profile(), tmp_path / "p.toml")
    options: dict[str, Any] = {"timing_only": True, "elements": 1000, "workers": 2, "profile": tmp_path / "p.toml"}
    alone = str(netsim.simulate(**options))
    assert "as given beside it" not in alone
    beside = netsim.simulate(**options, bandwidth="3Mbps", compute_time="1ms")
    assert "; bandwidth, compute time as given beside it)" in str(beside)
    assert netsim.simulate(**beside.config).to_json() == beside.to_json()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "local is missing"),
        ({"local": 1}, "local 1 must be a whole number of at least 2"),
        ({"local": "two"}, "local 'two' is not a whole number"),
        ({"local": 2, "locl": 2}, "did you mean 'local'?"),
        ({"local": 2, "exchange": "ring"}, "unknown exchange 'ring'"),
        ({"local": 2, "tolerance": 0}, "tolerance 0 must be more than zero"),
        ({"local": 2, "repeats": 0}, "repeats 0 must be a whole number of at least 1"),
        ({"local": 2, "profile": 5}, "profile 5 must be the path of a file"),
        ({"local": 2, "on_progress": 5}, "on_progress 5 must be a function"),
        ({"local": 2, "exchange": "none", "algorithm": "none"}, "nothing would be compared"),
    ],
    ids=str,
)
def test_a_validation_refuses_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(netsim.UsageError, match=re.escape(message)) as caught:
        netsim.validate(**options)
    assert "\n" not in str(caught.value)


KINDS: list[tuple[Kind, st.SearchStrategy[Any]]] = [
    (Bandwidth(), st.integers(1, 9 * 10**15)),
    (Size(), st.integers(1, 10**17)),
    (FilePath(), st.text(min_size=1)),
    (Several(Bandwidth()), st.lists(st.integers(1, 10**12)).map(tuple)),
    (Several(Whole()), st.lists(st.integers(0, 10**17)).map(tuple)),
]


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind[0]), kind[1])))
def test_what_a_kind_writes_it_reads_again(drawn: tuple[Kind, Any]) -> None:
    kind, value = drawn
    assert kind.read("x", kind.parse(kind.write(value))) == value == kind.read("x", value)


@pytest.mark.parametrize(("given", "read"), [("10%", 0.1), ("0.1", 0.1), (" 250 %", 2.5), (0.3, 0.3), (2, 2.0)])
def test_a_share_is_a_number_or_percent(given: Any, read: float) -> None:
    assert Share().read("x", given) == pytest.approx(read)


@pytest.mark.parametrize(
    "options", [StudyOptions(quick=True, shard="1/2"), ValidationOptions(local=(2, 4), latency_s=0.5)]
)
def test_options_as_written_are_read_again(options: Any) -> None:
    assert from_options(type(options), json.loads(json.dumps(as_written(options)))) == options
