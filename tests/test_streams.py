"""Standard streams that are closed, full, gone or not in UTF-8: the result is not lost, and an error is one line."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from netsim._util.standard_streams import escaped, plain
from tests.command import without_announcements

TIMED = "simulate --timing-only --elements 1000 --algorithm gtopk,dense"
COMMANDS = {
    "simulate": TIMED,
    "topology": "topology show star",
    "flows": "flows --topology star --flows flows.csv",
    "recommend": "recommend --workers 4 --elements 1000 --compute-time 1ms --algorithm dense,gtopk --jobs 1",
    "help": "simulate --help",
    "version": "--version",
}
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="no /dev/full here")


def netsim(folder: Path, arguments: str, redirected: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run netsim in a shell, with its streams redirected."""
    (folder / "flows.csv").write_text("src,dst,bytes,start_s\nworker0,worker1,1000,0\n")
    command = f'exec "{sys.executable}" -m netsim {arguments} {redirected}'
    environment = {name: value for name, value in os.environ.items() if name not in ("LC_ALL", "PYTHONUTF8")}
    ran = subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, capture_output=True, check=False, env=environment | variables
    )
    ran.stderr = without_announcements(ran.stderr.decode()).encode()
    return ran


def one_line(ran: subprocess.CompletedProcess[bytes], code: int, said: str) -> None:
    assert re.fullmatch(rf"netsim: [^\n]*{said}[^\n]*\n", ran.stderr.decode())
    assert (ran.returncode, ran.stdout) == (code, b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_stdout_is_said_before_the_run(tmp_path: Path, command: str) -> None:
    one_line(netsim(tmp_path, COMMANDS[command], ">&-"), 1, "stdout is closed")


@needs_full
@pytest.mark.parametrize("command", [*COMMANDS, "json"])
@pytest.mark.slow
def test_a_full_stdout_is_one_line(tmp_path: Path, command: str) -> None:
    arguments = COMMANDS.get(command, f"{TIMED} --json")
    one_line(netsim(tmp_path, arguments, ">/dev/full"), 1, "No space left on device")


@needs_full
def test_a_full_stdout_leaves_the_file(tmp_path: Path) -> None:
    ran = netsim(tmp_path, f"{TIMED} --out r.json", ">/dev/full")
    assert ran.returncode == 1
    assert len(json.loads((tmp_path / "r.json").read_text())["results"]) == 2


@needs_full
@pytest.mark.parametrize("command", ["simulate", "flows"])
def test_a_full_stdout_and_a_full_file_are_both_named(tmp_path: Path, command: str) -> None:
    said = "stdout: No space left on device; out '/dev/full' could not be written: No space left on device"
    one_line(netsim(tmp_path, f"{COMMANDS[command]} --out /dev/full", ">/dev/full"), 1, said)


@pytest.mark.parametrize("redirected", ["2>&-", "<&-", "2>/dev/full", "<&- 2>&-"])
def test_a_result_needs_neither_stdin_nor_stderr(tmp_path: Path, redirected: str) -> None:
    ran = netsim(tmp_path, f"{TIMED} --json", redirected)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert len(json.loads(ran.stdout)["results"]) == 2


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_an_error_that_cannot_be_said_has_its_exit_status(tmp_path: Path, redirected: str) -> None:
    ran = netsim(tmp_path, f"{TIMED} --algorithm nonsense", redirected)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, b"", b"")


def test_all_closed(tmp_path: Path) -> None:
    ran = netsim(tmp_path, TIMED, "<&- >&- 2>&-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, b"", b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, command: str) -> None:
    ran = netsim(tmp_path, COMMANDS[command], "| true")
    assert (ran.returncode, ran.stderr) == (0, b"")


ENCODINGS: list[dict[str, str]] = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "cp437:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize(
    ("command", "variables"),
    [*((command, ENCODINGS[0]) for command in COMMANDS), *(("simulate", each) for each in ENCODINGS[1:])],
    ids=str,
)
@pytest.mark.slow
def test_what_an_encoding_does_not_have_is_replaced(tmp_path: Path, command: str, variables: dict[str, str]) -> None:
    """Every number is there: it is what UTF-8 has but for such characters."""
    ran = netsim(tmp_path, COMMANDS[command], **variables)
    usual = netsim(tmp_path, COMMANDS[command], PYTHONIOENCODING="utf-8").stdout.decode()
    assert (ran.returncode, ran.stderr) == (0, b"")
    text = ran.stdout.decode(variables.get("PYTHONIOENCODING", "ascii").partition(":")[0])
    words = re.findall(r"[!-~]+", text)
    if text.isascii():
        assert words == re.findall(r"[!-~]+", "".join(map(plain, usual)))
    assert re.findall(r"\d[\d.,]*", text) == re.findall(r"\d[\d.,]*", usual)


@pytest.mark.parametrize("variables", ENCODINGS, ids=str)
@pytest.mark.slow
def test_json_is_the_same_document_in_any_encoding(tmp_path: Path, variables: dict[str, str]) -> None:
    ran = netsim(tmp_path, f"{TIMED} --json", **variables)
    usual = netsim(tmp_path, f"{TIMED} --json", PYTHONIOENCODING="utf-8")
    assert "µ" in usual.stdout.decode()
    assert ran.stdout.isascii()
    assert json.loads(ran.stdout) == json.loads(usual.stdout)


@pytest.mark.parametrize("text", ["50 µs · 2 → 3", "𝔽 \U0001f600", "half \ud800 of a pair", "é\n\t"])
def test_escaped_json_says_the_same(text: str) -> None:
    document = json.dumps({"text": text}, ensure_ascii=False)
    assert escaped(document).isascii()
    assert json.loads(escaped(document)) == {"text": text}


@pytest.mark.parametrize(
    ("character", "ascii_"),
    [("µ", "u"), ("μ", "u"), ("×", "x"), ("–", "-"), ("→", "->"), ("δ", "delta"), ("β", "beta"), ("é", "e"),
     ("²", "2"), ("₁", "1"), ("≤", "<="), ("中", "\\u4e2d"), ("\ud800", "\\ud800")],
)  # fmt: skip
def test_plain_characters(character: str, ascii_: str) -> None:
    assert plain(character) == ascii_


def in_terminal(folder: Path, arguments: str, columns: int, **variables: str) -> tuple[int, str]:
    """Run netsim on a terminal of so many columns; return the exit status and what stands there."""
    (folder / "flows.csv").write_text("src,dst,bytes,start_s\nworker0,worker1,1000,0\n")
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(columns)} | variables
    process = subprocess.Popen(
        [sys.executable, "-m", "netsim", *arguments.split()], cwd=folder, env=environment, stdin=theirs, stdout=theirs,
        stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux's word for the end
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "")


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d[\d.]*(?: [a-zA-Zµ%]+)?", text))


@pytest.mark.parametrize(("command", "columns"), [*((each, 40) for each in COMMANDS), ("simulate", 20)])
@pytest.mark.slow
def test_no_digit_is_cut_on_a_narrow_terminal(tmp_path: Path, command: str, columns: int) -> None:
    """Every number, with its unit, that a wide page has is on a narrow one."""
    code, shown = in_terminal(tmp_path, COMMANDS[command], columns)
    usual = netsim(tmp_path, COMMANDS[command], PYTHONIOENCODING="utf-8").stdout.decode()
    assert code == 0
    assert "Traceback" not in shown
    together = " ".join(shown.split())
    assert {number for number in numbers(usual) if number not in together} == set()
    assert "…" not in shown
