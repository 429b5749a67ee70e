"""What must hold of every input, and how it is found out."""

from __future__ import annotations

import faulthandler
import io
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from netsim._util.errors import NetsimError

LIMIT_S = 5.0
"""Processor time of an input; by the clock it has ten times as much, since other tests run beside it."""

DOCUMENTED = (0, 1, 2, 3, 4, 129, 130, 143)
SHOWN = 300


class Ran(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str


class Case(NamedTuple):
    """An input: what to type to see it again, what to call, and of what an error must hold at least one."""

    shown: str
    call: Callable[[], Ran | None]
    named: Sequence[str] = ()


class Fault(NamedTuple):
    """How an input broke the law; of equal faults, `where` is the same."""

    what: str
    where: str
    said: str = ""


class Hang(BaseException):
    """The time was up."""


class Started(BaseException):
    """The input was good enough to start ranks, which is where it ends here."""


def judged(case: Case) -> Fault | None:
    """Return how the input breaks the law, None if it keeps it."""
    try:
        with _limited():
            ran = case.call()
    except Started:
        return None
    except Hang as error:
        return Fault("hang", _place(error), f"not done after {LIMIT_S:g} s")
    except Outside as error:
        return Fault("write", str(error))
    except NetsimError as error:
        return _message(str(error), case.named)
    except BaseException as error:
        return Fault("traceback", f"{type(error).__name__} at {_place(error)}", f"{error!s:.{SHOWN}}")
    return None if ran is None else of_ending(ran, case.named)


def of_command(arguments: Sequence[str]) -> Ran:
    """Return how ``netsim arguments`` ended in this process."""
    _build_commands_once()
    from netsim.cli.main import main

    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors, newline="") for errors in ("strict", "backslashreplace")
    )
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
        out.flush()
        err.flush()
    return Ran(code, *(each.buffer.getvalue().decode() for each in (out, err)))  # type: ignore[attr-defined]


@cache
def warm_up() -> None:
    """Do what takes seconds once in a process, such as compiling, beside the time of any input."""
    simulate = "simulate --timing-only --elements 10 --workers 4 --json"
    more = ("", "--engine event", "--engine vectorized", "--topology tree:fan-out=2 --background 0.1", "--sharing rtt")
    for command in (
        *(f"{simulate} {each}" for each in more),
        "topology show star",
        "topology placement star --workers 4",
    ):
        of_command(command.split())


@cache
def _build_commands_once() -> None:
    """Have all calls share one tree of commands; to build it takes ten times what most inputs do."""
    import typer

    from netsim.cli.app import app

    built = typer.main.get_command(app)
    typer.main.get_command = lambda _: built


def of_ending(ran: Ran, named: Sequence[str]) -> Fault | None:
    if ran.code not in DOCUMENTED:
        return Fault("exit", f"status {ran.code}", ran.err[-SHOWN:])
    if "Traceback" in ran.err:
        return Fault("traceback", ran.err.strip().splitlines()[-1][:80], ran.err[-SHOWN:])
    if ran.code in (1, 2, 3):
        lines = [line for line in ran.err.splitlines() if not line.startswith(NOTES)]
        if len(lines) != 1 or not lines[0].startswith("netsim: "):
            return Fault("message", f"{len(lines)} lines", f"{ran.err!r:.{SHOWN}}")
        return _message(lines[0], named if ran.code == 2 else ())
    if ran.code == 0 and ran.out.lstrip().startswith("{"):
        return _result(ran.out)
    return None


NOTES = ("netsim: rank 0 listens at", "netsim: measuring ", "measuring takes about", "measured before: ")
"""How lines begin that say what is about to be done."""


def _message(message: str, named: Sequence[str]) -> Fault | None:
    """Return what is wrong with an error's message: it is one line, and names what it is about."""
    if len(message.splitlines()) != 1:
        return Fault("message", "not one line", f"{message!r:.{SHOWN}}")
    if named and not any(each in message for each in named):
        return Fault("message", "names none of what was given", f"{message:.{SHOWN}}")
    return None


def _result(text: str) -> Fault | None:
    """Return what is wrong with a JSON document: it is strict JSON, and its times are zero or more."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} in the output")

    try:
        document = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return Fault("json", f"{error!s:.80}", text[:SHOWN])
    for key, value in _numbers("", document):
        if (isinstance(value, float) and not math.isfinite(value)) or (key.endswith("_s") and value < 0):
            return Fault("json", f"{key} {value:.6g}")
    return None


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _numbers(name, each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(key, each)
    elif isinstance(value, int | float):
        yield key, value


ROOT = Path(__file__).parents[2]
PACKAGES = ("netsim", "algorithms", "topologies", "studies")


def _place(error: BaseException) -> str:
    """Return the innermost line of netsim's that an exception passed, and where it was raised, if that is another."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and
            Path(frame.filename).relative_to(ROOT).parts[0] in PACKAGES]  # fmt: skip
    inner = [ours[-1]] if ours else []
    return " < ".join(f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}" for frame in [*inner, frames[-1]])


_armed_at = 0.0
_watching = False


@contextmanager
def _limited() -> Iterator[None]:
    """Raise Hang in this when its time is up; where no Python runs to notice that, end the process."""
    global _armed_at, _watching
    if time.monotonic() - _armed_at > 1:
        _armed_at = time.monotonic()
        faulthandler.dump_traceback_later(20 * LIMIT_S, exit=True)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    signal.setitimer(signal.ITIMER_REAL, 10 * LIMIT_S)
    _watching = True
    try:
        yield
    finally:
        _watching = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hang(number: int, frame: Any) -> NoReturn:
    raise Hang


class Outside(BaseException):
    """Something was about to be written outside the folder that is there for it."""


WRITES = {"os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1,
"os.truncate": 0,
          "os.chmod": 0, "os.chown": 0}  # fmt: skip
"""Events of Python's that change a file, and which of their arguments says where."""
BY_OTHERS = {"__pycache__", ".cache", ".config"}
"""Parts of paths that interpreters and libraries write to by themselves."""


def guard(folder: Path) -> None:
    """From now on, watch the time of every case, and let it write below `folder` only, and start no ranks."""
    os.fsync = lambda _: None  # an input must not wait for a disk that is busy with others
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, _hang)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if not _watching:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                _check(path, folder)
        elif event in WRITES:
            path = arguments[WRITES[event]]
            if event == "os.truncate" or arguments[-1] == -1:  # else relative to a folder that was checked when opened
                _check(path, folder)
        elif event == "subprocess.Popen" and "netsim" in " ".join(map(str, arguments[1])):
            raise Started

    sys.addaudithook(audit)


def _check(path: Any, folder: Path) -> None:
    """Raise Outside unless the path is below the folder, a device, or what others write by themselves."""
    if not isinstance(path, str | bytes | os.PathLike):
        return
    whole = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
    inside = whole == str(folder) or whole.startswith((f"{folder}{os.sep}", "/dev/", "/proc/"))
    if not inside and not set(Path(whole).parts) & BY_OTHERS:
        raise Outside(whole)
