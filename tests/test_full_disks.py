"""A disk that is full or read-only costs a file, never the result; and who may do little can do all of it."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import without_announcements
from tests.test_streams import in_terminal
from tests.unprivileged import USER, run_unprivileged

TRAINED = (
    "simulate --workload tests.tiny:tiny --workers 3 --engine event --batch-size 4 --rounds 20 --k 5 --algorithm gtopk "
    "--compute-time 1ms --select-time 1ms --merge-time 1ms"
)
ROOT = Path(__file__).parent.parent


def in_little_room(folder: Path, arguments: str, most: int) -> subprocess.CompletedProcess[str]:
    """Run netsim where no file may have more than so many bytes, as on a full disk."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # noqa: E731
    ran = subprocess.run(
        [sys.executable, "-m", "netsim", *arguments.split()], cwd=folder, capture_output=True, text=True, check=False,
        preexec_fn=limit, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    ran.stderr = without_announcements(ran.stderr)
    return ran


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is printed where there is room."""
    ran = in_little_room(tmp_path_factory.mktemp("usual"), TRAINED, 10**9)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("option", ["--metrics m.csv", "--metrics m.jsonl", "--trace t.json", "--trace t.json.gz",
                                    "--out o.json", "--checkpoint c --checkpoint-every 2"])  # fmt: skip
@pytest.mark.slow
def test_a_full_disk_costs_the_file_not_the_result(tmp_path: Path, usual: str, option: str) -> None:
    most = 1000 if option.endswith(".gz") else 2500
    ran = in_little_room(tmp_path, f"{TRAINED} {option}", most)
    name, file = option.removeprefix("--").split()[:2]
    assert re.fullmatch(rf"netsim: {name} '{file}' could not be written: File too large\n", ran.stderr)
    assert ran.returncode == 1
    assert ran.stdout == usual
    left = [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"]
    assert left == (["m.csv"] if file == "m.csv" else ["m.jsonl"] if file == "m.jsonl" else [])
    if file == "m.jsonl":  # the rows that there was room for, each whole
        rows = [json.loads(line) for line in (tmp_path / file).read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(len(rows)))
        assert 0 < len(rows) < 20


@pytest.mark.slow
def test_several_files_that_are_full_are_one_line(tmp_path: Path) -> None:
    ran = in_little_room(tmp_path, f"{TRAINED} --metrics m.csv --trace t.json", 2500)
    assert re.fullmatch(r"netsim: trace 't.json' [^\n]*; metrics 'm.csv' [^\n]*\n", ran.stderr)
    assert "gTop-k" in ran.stdout


COMMANDS = {
    "simulate": "simulate --workers 2 --rounds 1 --algorithm dense,gtopk --compute-time 1ms --select-time 1ms",
    "topology": "topology show star",
    "flows": "flows --topology star --flows flows.csv",
    "recommend": "recommend --workers 4 --elements 1000 --compute-time 1ms --algorithm dense,gtopk --jobs 1",
    "export": "topology export ring",
    "placement": "topology placement racks:size=4 --elements 1000",
    "dry-run": "study scaling --quick --dry-run",
    "doctor": "doctor",
}  # fmt: skip
HELP = """
import sys
from netsim.cli.main import main
for name in ("simulate", "run", "fetch", "flows", "study", "recommend", "calibrate", "validate", "doctor", "topology",
             "topology show", "topology export", "topology placement"):
    sys.argv = ["netsim", *name.split(), "--help"]
    assert main() == 0
"""
LONG = {
    "run": "run --nproc 2 --rounds 1 --algorithm dense",
    "study": "study sweep.toml --jobs 1 --out {scratch}",
}

SWEEP = """
study = "sweep"
[settings.fixed]
algorithm = "gtopk"
timing_only = true
elements = 1000
workers = 4
[settings.vary]
k = [1, 2, 3]
"""


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that may be read and not written to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.toml").write_text(SWEEP)
        (folder / "flows.csv").write_text("src,dst,bytes,start_s\nworker0,worker1,1000,0\n")
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def check_works(folder: Path, *python: str) -> None:
    """Run Python as an unprivileged user, in ASCII and on 40 columns; ``{scratch}`` is a folder of that user."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chown(scratch, USER, -1)
        ran = run_unprivileged(
            [sys.executable, *(each.replace("{scratch}", f"{scratch}/out") for each in python)],
            cwd=folder, capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "40", "HOME": "/nowhere", "TMPDIR": scratch},
        )  # fmt: skip
    assert "Traceback" not in ran.stderr
    assert (ran.returncode, ran.stdout.isascii()) == (0, True)
    assert ran.stdout
    assert not re.search(r"\d ?\.\.\.", ran.stdout)
    assert sorted(path.name for path in folder.iterdir()) == ["flows.csv", "sweep.toml"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.slow
def test_who_may_do_little_can_do_all_from_a_folder_that_is_read_only(read_only: Path, command: str) -> None:
    check_works(read_only, "-m", "netsim", *COMMANDS[command].split())


@pytest.mark.slow
def test_who_may_do_little_is_helped(read_only: Path) -> None:
    check_works(read_only, "-c", HELP)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("command", LONG)
def test_so_he_can_what_takes_longer(read_only: Path, command: str) -> None:
    check_works(read_only, "-m", "netsim", *LONG[command].split())


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.slow
def test_a_report_that_cannot_be_written_costs_the_report_not_the_conclusion(tmp_path: Path, as_json: bool) -> None:
    """A byte less than the report has is enough for every point."""
    (tmp_path / "sweep.toml").write_text(SWEEP)
    study = f"study sweep.toml --jobs 1 {'--json' if as_json else ''} --out"
    usual = in_little_room(tmp_path, f"{study} usual", 10**9)
    report = (tmp_path / "usual" / "report.html").stat().st_size
    ran = in_little_room(tmp_path, f"{study} out", report - 1)
    assert usual.returncode == 0
    assert re.fullmatch(
        r"netsim: out 'out' could not be written to: File too large; all points are stored[^\n]*\n", ran.stderr
    )
    assert ran.returncode == 1
    assert ran.stdout == re.sub(r"Report: .*\n", "", usual.stdout)
    assert "Fastest" in ran.stdout


@pytest.mark.parametrize("option", ["--out", "--metrics", "--trace", "--chakra", "--checkpoint"])
def test_a_folder_that_is_read_only_is_said_before_the_run(read_only: Path, option: str) -> None:
    ran = run_unprivileged(
        [sys.executable, "-m", "netsim", *TRAINED.split(), option, "x"], cwd=read_only, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert re.fullmatch(rf"netsim: {option} 'x' cannot be written: [^\n]*\n", ran.stderr)
    assert ran.stderr.count("cannot be written") == 1
    assert (ran.returncode, ran.stdout) == (2, "")


def test_placements_on_a_narrow_terminal(tmp_path: Path) -> None:
    code, shown = in_terminal(tmp_path, COMMANDS["placement"], 40)
    assert code == 0
    assert "…" not in shown


@pytest.mark.slow
def test_too_few_open_files_is_one_line_that_names_the_limit(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        'study = "sweep"\n[settings.fixed]\nalgorithm = "gtopk"\ntiming_only = true\nelements = 1000\nworkers = 4\n'
        "[settings.vary]\nk = [1, 2]\n"
    )
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))  # noqa: E731
    ran = subprocess.run(
        [sys.executable, "-m", "netsim", "study", "s.toml", "--jobs", "2", "--out", "o"], cwd=tmp_path,
        capture_output=True, text=True, check=False, preexec_fn=few, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if ran.returncode:  # fewer may do elsewhere
        assert ran.returncode == 1
        assert re.fullmatch(r"netsim: [^\n]*; raise ulimit -n\n", ran.stderr)
