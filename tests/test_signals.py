"""A signal at any moment ends a run: no traceback, the exit status that is documented, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, cast

import pytest

from netsim._util.interrupts import ended_politely
from netsim._util.user_code import blaming
from netsim.study_engine.pool import measured_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from netsim.study_engine.kinds import Outcome, Point

COMMANDS = {
    "simulate": "simulate --workers 4 --rounds 100000 --metrics m.csv --checkpoint c --checkpoint-every 1 --trace t",
    "run": "run --nproc 2 --rounds 100000 --out r.json",
    "study": "study scaling --jobs 2 --out .",
}
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
MOMENTS = [0.02, 0.7, 1.5, 3.0, 6.0]
"""Seconds after which a signal comes: while things are imported, made ready, and simulated or run."""
STARTED = """
import sys, netsim.cli.main as cli
real = cli._outcome
def _outcome(arguments):
    print("handled", file=sys.stderr, flush=True)
    return real(arguments)
cli._outcome = _outcome
sys.exit(cli.main())
"""
"""netsim, which says when it has taken signals over: what the interpreter does before is not netsim's."""


def started(folder: Path, arguments: str) -> subprocess.Popen[str]:
    """Start netsim in a group of its own, and return it when it heeds signals."""
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, *arguments.split()], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "handled\n"
    return process


def in_group(group: int) -> list[str]:
    """Return the command lines of processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, process_group = (path / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            if int(process_group) == group and state not in "ZX":
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            continue
    return found


def check_ended(folder: Path, arguments: str, after: float, number: signal.Signals, *, group: bool = False) -> None:
    """Start netsim, send a signal to it or to its group, and check all that is said and left."""
    process = started(folder, arguments)
    time.sleep(after)
    (os.killpg if group else os.kill)(process.pid, number)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert "Traceback" not in err + out
    assert "Error" not in err
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert f"netsim: interrupted{by}" in err
    assert process.returncode == STATUS[number]
    patience = time.monotonic() + 30
    while (left := in_group(process.pid)) and time.monotonic() < patience:
        time.sleep(0.05)
    assert left == []
    assert [path.name for path in folder.rglob(".*") if path.is_file()] == []
    assert [path.name for path in (folder / "tmp").iterdir() if path.name.startswith("netsim-")] == []


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.5])
@pytest.mark.slow
def test_while_things_are_imported(tmp_path: Path, after: float, number: signal.Signals) -> None:
    check_ended(tmp_path, COMMANDS["simulate"], after, number)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("after", MOMENTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_at_any_moment(tmp_path: Path, command: str, after: float) -> None:
    """Every other signal goes to the group, as a terminal sends it: children get it, too.

    All signals have one handler, and take turns.
    """
    turn = [*product(COMMANDS, MOMENTS)].index((command, after))
    number = [*STATUS][turn % len(STATUS)]
    check_ended(tmp_path, COMMANDS[command], after, number, group=bool(turn % 2))


CATCHES = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except BaseException:
    print("caught", flush=True)
for _ in range(600):
    time.sleep(0.1)
print("went on", flush=True)
"""
"""A module that takes an interrupt for a failed import, as libraries do that try what they may lack."""


def test_an_interrupt_that_a_library_catches_while_it_is_imported_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "catches.py").write_text(CATCHES)
    script = (
        "from netsim._util.interrupts import ended_politely\n"
        "try:\n    with ended_politely():\n        import catches\n"
        "except KeyboardInterrupt:\n    print('interrupted')"
    )
    environment = os.environ | {"PYTHONPATH": os.fspath(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "caught\ninterrupted\n", "")


@pytest.mark.parametrize(
    ("file", "name", "waits"),
    [
        ("/venv/lib/site-packages/torch/distributed/__init__.py", "torch.distributed", True),
        ("/usr/lib/python3/dist-packages/numpy/random/_pickle.py", "numpy.random._pickle", True),
        ("/venv/lib/site-packages/netsim/cli/simulate.py", "netsim.cli.simulate", False),
        ("/home/user/mine.py", "mine", False),
    ],
)
def test_an_interrupt_waits_until_a_library_is_imported(file: str, name: str, waits: bool) -> None:
    """At an exception, C++ code that torch's modules call aborts the process, and NumPy's goes on."""
    body = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); done.append(1)"
    done: list[int] = []
    module = FunctionType(compile(body, file, "exec"), {"__name__": name, "done": done})

    def import_and_go_on() -> None:
        with ended_politely():
            module()
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        import_and_go_on()
    assert done == ([1] if waits else [])


def disguised(*_: object) -> None:
    """Raise what numba's dispatcher makes of an interrupt while a compiled function returns."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise SystemError("CPUDispatcher(...) returned a result with an exception set") from error


def test_an_interrupt_that_numba_disguises_fails_no_point_and_blames_nobody() -> None:
    measure = cast("Callable[[Point], Outcome]", disguised)
    with pytest.raises(KeyboardInterrupt):
        next(measured_here(measure, [{"workers": 2}]))
    with pytest.raises(KeyboardInterrupt), blaming("algorithm 'mine'", "its exchange"):
        disguised()


def test_what_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As nohup does."""
    script = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from netsim.cli.main import main; sys.exit(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", script, "--version"], stdout=subprocess.PIPE, cwd=tmp_path)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    process.communicate()
    # Before the script has run its first line, a signal ends any Python.
    assert process.returncode in (0, -signal.SIGHUP)
