"""What commands print in terminals of 60, 80, 120 and 200 columns: nothing is cut, and no number is left out."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import netsim
from netsim._util.units import format_bandwidth, format_bytes, format_duration
from netsim.api.real_run import real_report
from netsim.cli.app import app
from netsim.cli.calibrate import _summary
from netsim.experiment.configuration import Experiment
from netsim.report.terminal import render
from netsim.report.text import Column, print_lines, print_table, stdout_console, wrapped
from netsim.testbed.comparison import Comparison
from netsim.testbed.doctor import Check
from netsim.testbed.validation import Validation
from tests.command import run
from tests.test_benchmark_tables import of_nccl_tests, ring_s
from tests.test_calibration import profile
from tests.test_topology_files import dumbbell

WIDTHS = (60, 80, 120, 200)
CHECKS = [
    Check("netem", "missing", "this kernel has none, so links of a cluster have no latency", "modprobe sch_netem"),
    Check("torch", "ok", "2.13.0+cpu, 0 CUDA devices", ""),
]
WORD = st.text("abcxyz-→µ", min_size=1, max_size=30)
NUMBER = st.sampled_from(["0", "–", "1.58 s", "12.6 MB", "999 Gbit/s", "3.7%", "109 ms to 157 ms"])


def printed(width: int, show: Callable[[Console], None]) -> list[str]:
    file = io.StringIO()
    show(Console(file=file, width=width))
    return file.getvalue().splitlines()


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(40, 250), st.integers(1, 3), st.integers(0, 12), st.integers(1, 4))
def test_a_table_of_any_width_has_every_cell_whole(data: Any, width: int, keys: int, numbers: int, rows: int) -> None:
    """No line is too long, the cells of numbers are whole, and all columns stand there in their order."""
    headers = [f"h{index}" for index in range(numbers)]
    columns = [Column("key", data.draw(st.lists(WORD, min_size=rows, max_size=rows)), "label") for _ in range(keys)]
    columns += [Column(each, data.draw(st.lists(NUMBER, min_size=rows, max_size=rows))) for each in headers]
    columns.append(Column("text", [" ".join(data.draw(st.lists(WORD, max_size=6))) for _ in range(rows)], "text"))
    lines = printed(width, lambda console: print_table(console, columns, keys=keys))
    assert max(map(cell_len, lines)) <= width
    blocks = [[]] if not lines else [block.splitlines() for block in "\n".join(lines).split("\n\n")]
    together = "\n".join(lines)
    assert re.findall(r"h\d+", together) == headers
    assert all(block[0].startswith("key") for block in blocks)
    for column in columns[keys:-1]:
        (block,) = (block for block in blocks if re.search(rf"\b{column.name}\b", block[0]))
        end = block[0].index(column.name) + len(column.name)
        found = [line[:end] for line in block[1:] if line[:end].rstrip().endswith(tuple(column.cells))]
        assert len(found) >= rows
    letters = "".join(column.cells[-1] for column in columns if column.kind != "number").replace(" ", "")
    assert sorted(set(letters)) == sorted(set(letters) & set(together))


@settings(max_examples=40, deadline=None)
@given(st.lists(WORD | NUMBER, min_size=1, max_size=40), st.integers(40, 200))
def test_sentences_break_between_words_only(words: list[str], width: int) -> None:
    text = " ".join(words)
    lines = wrapped(text, width)
    assert " ".join(line.strip() for line in lines) == text
    assert all(len(line) <= width or " " not in line.strip() for line in lines)
    unit = re.compile(r" *(?:s|ms|MB|Gbit/s)\b")
    assert not any(re.search(r"\d$", line) and unit.match(after) for line, after in pairwise(lines))


def test_a_file_or_pipe_breaks_no_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = run(capsys, "simulate --timing-only --elements 1000 --workers 4").out.splitlines()
    assert any("round" in line and "bottleneck" in line for line in lines)
    assert any(line.startswith("With 4 workers") and line.endswith(".") for line in lines)


def texts(document: Any, kinds: Sequence[tuple[str, Callable[[Any], str]]]) -> set[str]:
    """Return how numbers of a JSON document are written: those whose key ends as one of `kinds` says."""
    if isinstance(document, dict):
        own = {
            form(value)
            for key, value in document.items()
            for ending, form in kinds
            if key.endswith(ending) and isinstance(value, int | float)
        }
        return own.union(*(texts(value, kinds) for value in document.values()))
    return set().union(*(texts(value, kinds) for value in document)) if isinstance(document, list) else set()


def assert_whole(out: str, width: int, numbers: set[str]) -> None:
    """No line is longer than `width` unless it is one word, and every number stands in one line."""
    assert [line for line in out.splitlines() if cell_len(line) > width and " " in line.strip()] == []
    assert not re.search(r"\d…|…\d", out)
    missing = {text for text in numbers if not re.search(rf"(?<![\d.]){re.escape(text)}(?!\d)", out)}
    assert missing == set()


ROUND = [("_time_s", format_duration), ("bytes_down", format_bytes)]
TIMED = "simulate --bandwidth 100Mbps --compute-time 5ms --select-time 1ms --merge-time 0s --timing-only"
Run = Callable[[str], tuple[Any, dict[int, str]]]


@pytest.fixture
def at_every_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command, and returns its JSON document and what it prints at each width."""

    def printed_by(command: str) -> tuple[Any, dict[int, str]]:
        said = {}
        for width in WIDTHS:
            monkeypatch.setenv("COLUMNS", str(width))
            ran = run(capsys, command)
            assert ran.code == 0, ran.err
            said[width] = ran.out
        return json.loads(run(capsys, f"{command} --json").out), said

    return printed_by


def together(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "options",
    [
        "--workers 9 --elements 123456 --algorithm dense,dense-hier:group-size=3,topk:gather=bruck,ps",
        "--workers 4 --elements 20000 --overlap 40kB --algorithm dense",
        "--workers 2 --elements 1000 --topology FOLDER/net.json",
    ],
)
def test_simulate(at_every_width: Run, tmp_path: Path, options: str) -> None:
    folder = tmp_path / "a-folder-of-a-long-name-that-is-wider-than-some-terminals-and-has-no-space"
    folder.mkdir()
    (folder / "net.json").write_text(json.dumps(dumbbell()))
    timed = TIMED.replace("--bandwidth 100Mbps ", "") if "FOLDER" in options else TIMED
    report, said = at_every_width(f"{timed} {options.replace('FOLDER', str(folder))}")
    results = report["results"]
    shown = [each if "--overlap" in options else each | {"hidden_comm_time_s": 0} for each in results]
    numbers = texts(shown, ROUND) | {f"{each['scaling_efficiency']:.1%}" for each in results}
    numbers |= {format_bytes(each["value_bytes_up"] + each["index_bytes_up"]) for each in results}
    for width, out in said.items():
        assert_whole(out, width, numbers)
        assert [each for each in report["conclusion"] if each not in together(out)] == []
        assert all(each["title"] in together(out) and each["bound_by"].split()[0] in out for each in results)


def test_paper_accounting(at_every_width: Run) -> None:
    command = f"{TIMED} --workers 9 --elements 100000 --algorithm ps,ps-topk --accounting paper"
    report, said = at_every_width(command)
    papers = [each["paper_accounting"] for each in report["results"]]
    numbers = {f"{paper['bits']:.2E}" for paper in papers} | {f"{paper['rounds']:,}" for paper in papers}
    for width, out in said.items():
        assert_whole(out, width, numbers)


def test_recommend(at_every_width: Run) -> None:
    asked = "--workers 4 --elements 100000 --compute-time 1ms --topology star,ring --density 0.01 --jobs 1"
    report, said = at_every_width(f"recommend {asked} --algorithm dense,gtopk")
    spreads = {f"{format_duration(row['low_s'])} to {format_duration(row['high_s'])}" for row in report["ranking"]}
    # The compute time is alike for all, and has no column.
    varying = texts(report["ranking"], ROUND) - {format_duration(1e-3)}
    for width, out in said.items():
        assert_whole(out, width, varying | spreads)
        assert "compute time 1ms" in together(out)
        assert [each for each in report["conclusion"] if each not in together(out)] == []


def test_flows(at_every_width: Run, tmp_path: Path) -> None:
    file = tmp_path / "flows.csv"
    file.write_text("src,dst,bytes,start_s\nworker0,worker1,123456789,0.001\nworker2,worker1,999999,0\n")
    report, said = at_every_width(f"flows --topology star --flows {file}")
    kinds: list[tuple[str, Callable[[Any], str]]] = [("bytes", format_bytes), ("rate_bps", format_bandwidth)]
    kinds += [(each, format_duration) for each in ("start_s", "finish_s", "duration_s")]
    for width, out in said.items():
        assert_whole(out, width, texts(report["flows"], kinds))


def test_topologies(at_every_width: Run) -> None:
    report, said = at_every_width("topology show racks --workers 8")
    for width, out in said.items():
        numbers = {format_bandwidth(report["bisection_bps"]), format_duration(report["diameter_s"])}
        assert_whole(out, width, numbers)
    report, said = at_every_width("topology placement racks --workers 4 --elements 1000000 --algorithm dense,gtopk")
    times = {format_duration(time) for gain in report["placements"] for time in gain["round_time_s"].values()}
    for width, out in said.items():
        assert_whole(out, width, times)


@pytest.mark.parametrize("width", WIDTHS)
def test_validate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [
        Comparison.of(0.0123 * workers, [0.015 * workers, 0.016 * workers], 0.1, kind="exchange", algorithm="any",
                      title="ring all-reduce", bytes=400_000, workers=workers, network="fair 100 Mbit/s",
                      sends="eager", processors_busy=0.5)
        for workers in (4, 16)
    ]  # fmt: skip
    note = "--density 0.5 changed nothing: no algorithm selects entries."
    Validation(rows, conclusion=["Of 2 predictions, 0 are within 10%."], notes=[note]).render(stdout_console())
    numbers = {format_duration(each) for row in rows for each in (row.predicted_s, row.measured_s)}
    numbers |= {" to ".join(map(format_duration, row.measured_ci_s)) for row in rows}
    out = capsys.readouterr().out
    assert_whole(out, width, numbers | {f"{row.error:+.1%}" for row in rows})
    assert note in together(out)


@pytest.mark.parametrize(
    "command",
    [
        "doctor",
        "calibrate --from table.txt",
        "study scaling --quick --dry-run",
        "new algorithm mine.py",
        "fetch mnist --data-dir a-folder-of-a-long-name-that-is-wider-than-some-terminals-and-has-no-space",
    ],
)
def test_the_other_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """What they print on a wide page they print on a narrow one, word by word."""
    monkeypatch.chdir(tmp_path)
    sizes = [3 * 64 * 4**power for power in range(0, 7, 2)]
    Path("table.txt").write_text(of_nccl_tests(3, lambda size: ring_s(3, size, 50e-6, 1e-9), sizes))
    monkeypatch.setattr("netsim.testbed.doctor.examine", lambda: CHECKS)
    monkeypatch.setattr("netsim.training.workloads.data.fetch.fetch", lambda data, folder: None)
    words = []
    for width in (10_000, *WIDTHS):
        monkeypatch.setenv("COLUMNS", str(width))
        for file in tmp_path.glob("*.py"):
            file.unlink()
        ran = run(capsys, command)
        assert ran.code == 0, ran.err
        words.append(ran.out.split())
        assert_whole(ran.out, width, set())
    assert all(sorted(each) == sorted(words[0]) for each in words)


@pytest.mark.parametrize("form", ["json", "graphml", "simgrid"])
def test_an_exported_network_is_the_same_file_at_every_width(at_every_width: Run, form: str) -> None:
    document, said = at_every_width(f"topology export racks --workers 8 --format {form}")
    assert {text.removesuffix("\n") for text in said.values()} == {document["text"].removesuffix("\n")}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_measured_profile(width: int) -> None:
    lines = _summary(profile(), Path("a-folder/profile.toml"))
    out = "\n".join(printed(width, lambda console: print_lines(console, lines, indent=" " * 9)))
    assert_whole(out, width, {format_bandwidth(profile().link.bandwidth_bps)})
    assert together(" ".join(lines)) == together(out)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_real_run(width: int) -> None:
    """Its report, from results of a simulation: real ranks would measure other times, and print them alike."""
    options = {"workers": 2, "rounds": 1, "algorithm": "dense,gtopk", "density_warmup": 1, "density": 0.5}
    simulated = netsim.simulate(**options, compute_time="5ms", select_time="1ms", merge_time="1ms")
    results = [replace(result, mode="real", way=None) for result in simulated.results]
    report = real_report(Experiment.of(**options), results, {}, "gloo")
    out = "\n".join(printed(width, lambda console: render(report, report.experiment, console)))
    times = texts([result.to_dict() for result in results], ROUND) - {format_duration(0)}
    assert_whole(out, width, times | {f"{result.final_loss:.4f}" for result in results})
    assert "MEASURED" in out
    assert len(report.notes) == 1
    assert all(each in together(out) for each in (*report.conclusion, *report.notes))


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command below a group, by what one types."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name}{word} ")
        else:
            yield f"{name}{word}", command


def test_every_command_prints_json() -> None:
    for name, command in commands(typer.main.get_command(app)):
        assert any("--json" in each.opts for each in command.params), name


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", ["", "simulate", "recommend", "study", "topology"])
def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = run(capsys, f"{command} --help")
    assert_whole(ran.out, width, set())
    assert "..." not in ran.out.replace("[ARGS]...", "").replace(",...", "")  # lists are "NAME,..."


def test_lines_of_a_header_keep_parts_together() -> None:
    parts = ["model    sizes only, no data", "25,000,000 parameters", "k 25,000 (density 0.001)"]
    lines = printed(60, lambda console: print_lines(console, ["   ".join(parts)], indent=" " * 9))
    assert lines == ["   ".join(parts[:2]), " " * 9 + parts[2]]
