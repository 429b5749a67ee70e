"""The command line: what it prints where, what it exits with, and what it does not import."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import netsim
from netsim._util.errors import InfeasibleError
from netsim.cli import common
from netsim.cli.common import Forecast
from netsim.cli.doc_tables import with_tables
from tests.command import run, without_announcements

TIMED = "simulate --timing-only --elements 1000"
FOUR = "--algorithm dense,topk,gtopk,ps"
TRAINED = f"simulate {FOUR} --workers 3 --rounds 2 --compute-time 5ms --select-time 0s --merge-time 0s --json"
RESULT_KEYS = {
    "algorithm",
    "workers",
    "elements",
    "k",
    "round_time_s",
    "compute_time_s",
    "select_time_s",
    "comm_time_s",
    "value_bytes_up",
    "index_bytes_up",
    "bytes_down",
    "final_loss",
    "parameters_sha256",
    "bound_by",
}


def document(text: str) -> Any:
    """Return the one JSON document that `text` is; Python's parser would let NaN and Infinity through."""
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def python(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained() -> str:
    """What a run with real gradients prints, in a process of its own."""
    ran = python("-m", "netsim", *TRAINED.split(), PYTHONHASHSEED="1", OMP_NUM_THREADS="1")
    assert (ran.returncode, without_announcements(ran.stderr)) == (0, "")
    return ran.stdout


def test_a_command_that_takes_long_says_what_it_is_doing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "PATIENCE_S", 0.0)
    ran = run(capsys, f"simulate {FOUR} --workers 3 --rounds 2 --compute-time 5ms")
    assert ran.code == 0
    assert re.search(r"^netsim: simulating; \d of 8 rounds are done so far", ran.err, re.MULTILINE)
    assert without_announcements(ran.err) == ""
    monkeypatch.setattr(common, "PATIENCE_S", 3600.0)
    assert "so far" not in run(capsys, f"{TIMED} --workers 3").err


def test_a_long_wait_is_told_again_and_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a time, and whenever twice the time has passed: at 1, 2, 4 and 8 of these clock's seconds."""
    told: list[float] = []
    now = 0.0

    class Ended:
        def wait(self, seconds: float) -> bool:
            nonlocal now
            now += seconds
            return now > 10

        def set(self) -> None:
            pass

    class Thread:
        def __init__(self, target: Callable[[], None], daemon: bool) -> None:
            self.start = target

    monkeypatch.setattr(common, "PATIENCE_S", 1.0)
    monkeypatch.setattr(common, "threading", SimpleNamespace(Event=Ended, Thread=Thread))
    monkeypatch.setattr(common, "time", SimpleNamespace(monotonic=lambda: now))
    with common.patience(lambda: told.append(now) or "still there"):
        pass
    assert told == [1.0, 2.0, 4.0, 8.0]
    assert capsys.readouterr().err == "netsim: still there\n" * 4


CONCLUDED = f"{TIMED} --workers 4 --algorithm dense,gtopk"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ZeroDivisionError("nothing to divide by"), "ZeroDivisionError: "), (InfeasibleError("too long"), "")],
)
def test_results_outlive_any_fault_of_the_conclusion(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, kind: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    whole = document(run(capsys, f"{CONCLUDED} --json").out)
    monkeypatch.setattr("netsim.analysis.conclusion.conclude", fail)
    monkeypatch.setattr("netsim.analysis.unused_options.idle_options", fail)
    monkeypatch.setattr("netsim.analysis.known_errors.known_errors", fail)
    ran = run(capsys, f"{CONCLUDED} --out {tmp_path / 'out.json'}")
    assert (ran.code, ran.err) == (0, "")
    said = f"could not be computed: {kind}{error}."
    assert f"The conclusion {said}" in ran.out
    assert ran.out.index("bottleneck") < ran.out.index("The conclusion")
    report = document((tmp_path / "out.json").read_text())
    assert report["results"] == whole["results"]
    assert (report["conclusion"], report["notes"]) == ([f"The conclusion {said}"], [f"The notes {said}"])
    assert document(run(capsys, f"{CONCLUDED} --json").out) == report


def test_the_table_is_printed_before_anything_is_concluded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An interrupt while the conclusion is computed leaves the table, the JSON document and the file."""
    printed: list[str] = []

    def interrupt(*_: object) -> None:
        printed.append(capsys.readouterr().out)
        raise KeyboardInterrupt

    whole = document(run(capsys, f"{CONCLUDED} --json").out)
    monkeypatch.setattr("netsim.analysis.conclusion.conclude", interrupt)
    ran = run(capsys, f"{CONCLUDED} --out {tmp_path / 'out.json'}")
    assert ran.code == 130
    assert ran.err == "netsim: interrupted; all results are there, and only the conclusion is missing\n"
    assert "bottleneck" in printed[0]
    assert "bottleneck" not in ran.out
    in_json = run(capsys, f"{CONCLUDED} --json")
    assert (in_json.code, printed[1]) == (130, "")
    for report in (document(in_json.out), document((tmp_path / "out.json").read_text())):
        assert (report["results"], report["conclusion"]) == (whole["results"], [])


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, f"{TIMED} --workers 4 --algorithm dense,topk --density 0.01 --json")
    report = document(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert report.keys() >= {"schema", "config", "results"}
    assert [result["algorithm"] for result in report["results"]] == ["dense", "topk"]
    assert report["config"]["workers"] == 4
    assert report["config"]["density"] == 0.01
    for result in report["results"]:
        assert result.keys() >= RESULT_KEYS


def test_json_holds_what_the_messages_of_a_ring_come_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Four workers, dense: 6 messages of 250 float32 each; Top-k: 3 messages of 10 values and 10 indices.

    At 8 Mbit/s a byte takes 1 µs, and every message 1 ms before it.
    """
    network = "--workers 4 --bandwidth 8Mbps --latency 1ms --algorithm dense,topk --k 10"
    dense, topk = document(run(capsys, f"{TIMED} {network} --json").out)["results"]
    assert (dense["k"], topk["k"]) == (None, 10)
    assert (dense["value_bytes_up"], dense["index_bytes_up"], dense["bytes_down"]) == (6000, 0, 6000)
    assert (topk["value_bytes_up"], topk["index_bytes_up"], topk["bytes_down"]) == (120, 120, 240)
    assert dense["round_time_s"] == pytest.approx(6 * (1e-3 + 1000e-6), rel=1e-9)
    assert topk["round_time_s"] == pytest.approx(3 * (1e-3 + 80e-6), rel=1e-9)
    assert dense["final_loss"] is dense["parameters_sha256"] is None


@pytest.mark.parametrize("topology", ["star", "ps", "ring", "tree"])
def test_the_parts_of_a_round_sum_to_it(capsys: pytest.CaptureFixture[str], topology: str) -> None:
    charged = "--compute-time 7ms --select-time 3ms --merge-time 1ms --rounds 3"
    ran = run(capsys, f"{TIMED} {FOUR} --workers 5 --topology {topology} --fan-out 2 {charged} --json")
    for result in document(ran.out)["results"]:
        parts = result["compute_time_s"] + result["select_time_s"] + result["comm_time_s"]
        assert result["round_time_s"] == pytest.approx(parts, rel=1e-12)
        assert result["compute_time_s"] == pytest.approx(7e-3, rel=1e-12)
        assert result["comm_time_s"] > 0


def test_training_reports_loss_and_one_hash(trained: str) -> None:
    """Untrained, ten classes have a loss of about ln 10 = 2.3; two small steps lower it a little."""
    report = document(trained)
    assert [result["algorithm"] for result in report["results"]] == ["dense", "topk", "gtopk", "ps"]
    for result in report["results"]:
        assert result.keys() >= RESULT_KEYS
        assert 1.8 < result["final_loss"] < 2.4
        assert re.fullmatch("[0-9a-f]{64}", result["parameters_sha256"])
        assert result["elements"] == 64 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 10 + 10
        assert result["compute_time_s"] == pytest.approx(5e-3, rel=1e-12)
        parts = result["compute_time_s"] + result["select_time_s"] + result["comm_time_s"]
        assert result["round_time_s"] == pytest.approx(parts, rel=1e-12)


def test_same_seed_same_bytes_out(capsys: pytest.CaptureFixture[str], trained: str) -> None:
    """Another process, with another hash seed and number of threads, printed the very same."""
    assert run(capsys, TRAINED).out == trained
    assert run(capsys, TRAINED).out == trained


def test_another_seed_other_parameters(capsys: pytest.CaptureFixture[str], trained: str) -> None:
    other = document(run(capsys, f"{TRAINED.replace(FOUR, '--algorithm dense')} --seed 1").out)["results"][0]
    assert other["parameters_sha256"] != document(trained)["results"][0]["parameters_sha256"]


@pytest.mark.slow
def test_the_hash_seed_of_python_changes_nothing() -> None:
    """A tree of switches has the most names to iterate over."""
    arguments = [*TIMED.split(), "--workers", "12", "--topology", "tree", "--fan-out", "3", "--json"]
    runs = [python("-m", "netsim", *arguments, PYTHONHASHSEED=seed) for seed in ("0", "1", "random")]
    assert [(each.returncode, each.stderr) for each in runs] == [(0, "")] * 3
    assert len({each.stdout for each in runs}) == 1
    assert document(runs[0].stdout)["config"]["topology"] == "tree"


def test_out_is_the_same_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    printed = run(capsys, f"{TIMED} --algorithm dense --json --out {path}")
    assert printed.code == 0
    assert path.read_text() == printed.out
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


def test_out_comes_with_the_table_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(capsys, f"{TIMED} --algorithm dense --out report.json")
    assert document((tmp_path / "report.json").read_text())["results"][0]["algorithm"] == "dense"
    assert "bottleneck" in ran.out


def test_an_out_that_fails_midway_keeps_the_old_file_and_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    ran = run(capsys, f"{TIMED} --algorithm dense --json --out {path}")
    assert ran.code == 1
    assert re.fullmatch(r"netsim: [^\n]*No space left on device[^\n]*\n", ran.err)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


def test_the_table_says_what_was_simulated_and_concludes(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, f"{TIMED} {FOUR} --workers 4 --k 10 --compute-time 60ms --seed 7")
    assert (ran.code, ran.err) == (0, "")
    for said in ("4 workers", "1 Gbit/s", "50 µs", "SIMULATED", "60 ms", "ASSUMED", "seed 7", "density 0.01"):
        assert said in ran.out
    assert [title for title in ("dense", "Top-k", "gTop-k", "parameter server") if title not in ran.out] == []
    assert re.search("the shortest round", ran.out)
    assert "–" in ran.out  # a loss that nobody computed
    assert "1 Gbit/s (default)   50 µs one way (default)" in ran.out
    assert "60 ms a round ASSUMED   selection ASSUMED (no --select-time, --merge-time: 0)" in ran.out
    given = run(capsys, f"{TIMED} --bandwidth 2Gbps --latency 1ms --select-time 1ms --merge-time 0s").out
    assert "2 Gbit/s   1 ms one way" in given
    assert "ASSUMED (no --compute-time: 0)   selection ASSUMED   1 round" in given
    assert max(map(len, ran.out.splitlines()[3:9])) <= 118


@pytest.mark.parametrize("command", ["--help", "simulate --help", "run --help", "--version"])
def test_help_and_version_are_results(capsys: pytest.CaptureFixture[str], command: str) -> None:
    ran = run(capsys, command)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.strip()


@pytest.mark.parametrize("command", ["", "simulate", "topology", "topology show"])
def test_h_is_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(capsys, f"{command} -h") == run(capsys, f"{command} --help")


@pytest.mark.parametrize("command", ["simulate", "run", "recommend", "flows"])
def test_help_begins_with_the_common_options(capsys: pytest.CaptureFixture[str], command: str) -> None:
    headings = re.findall(r"^(\w[^:\n]*):$", run(capsys, f"{command} --help").out, re.MULTILINE)
    assert (headings[0], headings[-1]) == ("Common options", "Options")
    assert headings.count("Common options") == 1


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    shared = "topology algorithm density k workload batch-size rounds lr seed device json out"
    own = {
        "simulate": "workers bandwidth latency fan-out compute-time select-time merge-time timing-only elements",
        "run": "nproc backend timeout",
    }
    for command, options in own.items():
        listed = set(re.findall(r"--[a-z-]+", run(capsys, f"{command} --help").out))
        assert listed >= {f"--{option}" for option in f"{shared} {options}".split()}


DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.skipif(not DOCS.exists(), reason="the tests run away from the sources, without docs")
@pytest.mark.parametrize(
    ("name", "row"), [("options", "| `--rounds` |"), ("algorithms", "| `gtopk` |"), ("ddp", "`powersgd`")]
)
def test_the_documentation_has_options_and_algorithms_as_they_are_declared(name: str, row: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    assert row in page
    assert with_tables(page) == page, f"run python -m netsim.cli.doc_tables docs/{name}.md"


@pytest.mark.parametrize("command", ["simulate", "study", "validate", "flows", "topology show"])
def test_help_breaks_no_name_and_has_types_in_capitals(capsys: pytest.CaptureFixture[str], command: str) -> None:
    said = run(capsys, f"{command} --help").out
    assert re.findall(r"<[a-z]+>", said) == []
    options = said.partition("\n\n")[2]
    assert re.findall(r"[a-z]-\n", options.partition(":\n")[2]) == []


def test_help_says_what_single_algorithms_take(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "simulate --help").out
    assert re.search(r"residual=NAME +gtopk: ", said)
    assert re.search(r"history=N +lag, lasg-wk1, lasg-wk2, lasg-ps, sasg: ", said)


def test_two_variants_of_an_algorithm_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    """With four workers each gathers three others' k values and indices; a ring takes 3 latencies, Bruck's 2."""
    names = "topk,topk:gather=bruck"
    ran = run(capsys, f"{TIMED} --workers 4 --k 1 --latency 1ms --bandwidth 8Tbps --algorithm {names} --json")
    report = document(ran.out)
    ring, bruck = report["results"]
    assert [ring["algorithm"], bruck["algorithm"]] == report["config"]["algorithms"] == names.split(",")
    assert [ring["title"], bruck["title"]] == ["Top-k", "Top-k (bruck)"]
    assert ring["round_time_s"] == pytest.approx(3e-3, rel=1e-6)
    assert bruck["round_time_s"] == pytest.approx(2e-3, rel=1e-6)


def test_python_dash_m() -> None:
    ran = python("-m", "netsim", "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"netsim {importlib.metadata.version('netsim-dsgd')}\n"
    assert netsim.__version__ in ran.stdout


@pytest.mark.parametrize("group", ["", "topology"])
def test_no_command_is_a_usage_error_that_shows_the_help(capsys: pytest.CaptureFixture[str], group: str) -> None:
    ran = run(capsys, group)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == run(capsys, f"{group} --help").out


@pytest.mark.parametrize("group", ["", "topology"])
def test_the_list_of_commands_cuts_no_sentence(capsys: pytest.CaptureFixture[str], group: str) -> None:
    listed = run(capsys, f"{group} --help").out.partition("Commands:")[2]
    commands = re.split(r"\n  (?=\w)", listed.strip())
    assert [each for each in commands if not each.endswith(".") or "..." in each] == []


PLOTS_AND_LEARNING = ["torch", "sklearn", "seaborn", "matplotlib", "pandas"]


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        ("--help", [*PLOTS_AND_LEARNING, "networkx", "simpy", "numpy"]),
        ("--version", [*PLOTS_AND_LEARNING, "networkx", "simpy", "numpy"]),
        ("simulate --help", PLOTS_AND_LEARNING),
        (TIMED, [*PLOTS_AND_LEARNING, "networkx", "scipy", "numba"]),
        (f"{TIMED} --topology tree --json", [*PLOTS_AND_LEARNING, "networkx", "scipy", "numba"]),
        ("simulate --workers 2 --rounds 1 --algorithm dense", ["sklearn", "scipy", "sympy", "numba", "networkx"]),
    ],
)
def test_nothing_is_imported_that_is_not_needed(command: str, forbidden: list[str]) -> None:
    script = (
        "import sys; from netsim.cli.main import main; code = main(); print(*sys.modules, file=sys.stderr); exit(code)"
    )
    ran = python("-c", script, *command.split())
    assert ran.returncode == 0
    imported = ran.stderr.split()
    assert "netsim.cli.main" in imported
    assert [module for module in forbidden if module in imported] == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    ran = python("-c", "import sys, netsim; dir(netsim); print(*sys.modules)")
    assert "netsim" in ran.stdout.split()
    assert not {*PLOTS_AND_LEARNING, "numpy", "typer"} & set(ran.stdout.split())


def test_the_simulation_is_imported_without_what_it_may_not_need() -> None:
    """Neither what learns, plots and reads files, nor compiled code, which is loaded where there is much to share."""
    ran = python("-c", "import sys, netsim.simulator.session, netsim.analysis.replay; print(*sys.modules)")
    imported = set(ran.stdout.split())
    assert {"netsim.network.flows", "netsim.simulator.event_engine", "simpy", "numpy"} <= imported
    assert not {*PLOTS_AND_LEARNING, "networkx", "scipy", "numba", "pydantic", "joblib", "rich"} & imported


@pytest.mark.parametrize("style", ["", "--json"])
def test_a_reader_that_goes_away_is_no_error(style: str) -> None:
    """As in ``netsim simulate | head``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "netsim", *TIMED.split(), "--algorithm", "dense", *style.split()]
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ran.returncode, without_announcements(ran.stderr)) == (0, "")


def test_an_interrupt_is_one_line_and_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("netsim.api.simulation.simulate_experiment", interrupt)
    assert run(capsys, TIMED) == (130, "", "netsim: interrupted\n")


def test_another_package_in_the_place_of_ours_is_noticed(tmp_path: Path) -> None:
    """The user may well have a folder of that name where PYTHONPATH leads."""
    (tmp_path / "algorithms").mkdir()
    (tmp_path / "algorithms" / "__init__.py").write_text("")
    ran = python("-m", "netsim", *TIMED.split(), cwd=tmp_path.parent, PYTHONPATH=str(tmp_path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(r"netsim: package 'algorithms' comes from [^\n]+\n", ran.stderr)
    assert str(tmp_path) in ran.stderr


def test_memory_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("netsim.cli.app.answer", greedy)
    ran = run(capsys, "simulate")
    assert (ran.code, ran.out) == (3, "")
    assert re.fullmatch(r"netsim: more memory was asked for than there is; [^\n]*\n", ran.err)


def test_rounds_that_take_years_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10⁹ rounds the second takes 11 s: all take 11 · 10⁹ s, which are 349 years."""
    now = iter([0.0, 11.0])
    monkeypatch.setattr("netsim.cli.common.time.monotonic", lambda: next(now))
    forecast = Forecast(10**9)
    forecast.note(1)
    with pytest.raises(InfeasibleError, match="1,000,000,000 rounds in all would take about 349 years"):
        forecast.note(2)
