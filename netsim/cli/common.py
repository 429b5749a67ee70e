"""The common part of commands: progress on stderr, and the delivery of results to stdout and files."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from netsim._util.errors import IncompleteError, InfeasibleError, InterruptedRunError, NetsimError, reason_of
from netsim._util.interrupts import is_interrupt
from netsim._util.standard_streams import escaped, in_utf_8, reader_may_go
from netsim._util.units import format_wait

A_YEAR_S = 365 * 86400.0
"""Seconds of a year."""
PATIENCE_S = 10.0
"""Seconds after which a command without a terminal says what it is doing."""

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from netsim.experiment.configuration import Experiment
    from netsim.report.run_report import Report
    from netsim.report.terminal import Accounting

LEAST_WIDTH = 60
"""Terminal columns that progress needs."""


def is_watched(console: Console) -> bool:
    """Return whether progress is shown: only on a terminal that is wide enough."""
    return console.is_terminal and console.width >= LEAST_WIDTH


class Forecast:
    """Forecasts the remaining time of a run, and refuses a run of years.

    The forecast leaves out the first round, because that round includes loading and compiling.
    """

    AFTER_S, LONGEST_S = 10.0, 2 * A_YEAR_S
    """Seconds until a forecast may refuse the run, and most remaining seconds that are not refused."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._began: tuple[int, float] | None = None
        self._checked = False
        self.left_s: float | None = None

    def note(self, done: int) -> None:
        """Record that `done` rounds are finished; raise InfeasibleError if the others would take years."""
        now = time.monotonic()
        self._began = self._began or (done, now)
        before, began = self._began
        if done > before:
            self.left_s = (now - began) / (done - before) * (self._rounds - done)
        if self._checked or now - began < self.AFTER_S or self.left_s is None:
            return
        self._checked = True
        if self.left_s > self.LONGEST_S:
            raise InfeasibleError(
                f"{self._rounds:,} rounds in all would take about {format_wait(self.left_s)} here; take fewer"
            )

    def in_words(self) -> str:
        """Return the remaining time as the end of a sentence; empty if it is not known yet."""
        return "" if self.left_s is None else f", about {format_wait(self.left_s)} to go"


def told_after(seconds: float) -> Callable[[str], None]:
    """Return a function that prints a text on stderr, at most once per `seconds`."""
    last = time.monotonic()

    def tell(what: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            _tell(what)

    return tell


@contextmanager
def patience(doing: Callable[[], str]) -> Iterator[None]:
    """Print `doing()`, unless it is empty, on stderr after PATIENCE_S, and whenever twice the time has passed."""
    ended = threading.Event()

    def tell() -> None:
        began, wait = time.monotonic(), PATIENCE_S
        while not ended.wait(wait):
            if text := doing():
                _tell(text)
            wait = max(time.monotonic() - began, 1.0)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _tell(what: str) -> None:
    with suppress(OSError, ValueError):  # a closed stderr
        print(f"netsim: {what}", file=sys.stderr, flush=True)  # noqa: T201


class RunProgress:
    """Shows the finished rounds of a run: as a bar on a terminal, or else as a line on stderr now and then.

    Call it with an algorithm and a step after every round.
    """

    def __init__(self, experiment: Experiment, bar: Progress, doing: str) -> None:
        self._experiment, self._bar, self._doing = experiment, bar, doing
        self._total, self._done = experiment.round_count * len(experiment.algorithms), 0
        self._task = bar.add_task("preparing", total=self._total)
        self._forecast = Forecast(self._total)
        self._concluding = False

    def __call__(self, algorithm: str, step: int) -> None:
        rounds = self._experiment.round_count
        self._done = self._experiment.algorithms.index(algorithm) * rounds + step + 1
        self._forecast.note(self._done)
        self._bar.update(self._task, completed=self._done, description=f"{algorithm}, round {step + 1}")

    def conclude(self) -> None:
        """Take the bar away: all rounds are done, and the results are about to be printed."""
        self._bar.stop()
        self._concluding = True

    def in_words(self) -> str:
        """Return what the run is doing, and how long it will take; empty while the bar shows it."""
        if self._concluding:
            return "all rounds are done; simulating one of each for other numbers of workers"
        if not self._bar.disable:
            return ""
        return f"{self._doing}; {self._done:,} of {self._total:,} rounds are done so far{self._forecast.in_words()}"


@contextmanager
def progress(experiment: Experiment, doing: str = "simulating") -> Iterator[RunProgress]:
    """Show finished rounds on stderr while the block runs; `doing` names what runs."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not is_watched(console)) as bar:
        shown = RunProgress(experiment, bar, doing)
        with patience(shown.in_words):
            yield shown


def with_links(experiment: Experiment, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options, with the bandwidth and latency of links; None if the topology sets them."""
    taken = {"bandwidth": experiment.bandwidth_bps, "latency": experiment.latency_s}
    return taken | {name: value for name, value in options.items() if value is not None}


def deliver(
    report: Report,
    experiment: Experiment,
    as_json: bool,
    out: Path | None,
    accounting: Accounting = "full",
    shown: bool = False,
) -> None:
    """Print the report, as a table unless that was `shown`, or as JSON, and write it to the file `out`."""
    from netsim.report.terminal import render, render_sentences
    from netsim.report.text import stdout_console

    def show() -> None:
        with reader_may_go():
            if shown:
                render_sentences(report, stdout_console(), accounting)
            else:
                render(report, experiment, accounting=accounting)

    show_and_write(report.to_json(), out, None if as_json else show)


def show_and_write(document: str, out: Path | None, show: Callable[[], None] | None = None) -> None:
    """Print a result with `show`, or else as its JSON `document`, and write the document to the file `out`.

    If one of the two fails, the other is still done.
    """
    writes = [] if out is None else [partial(write_out, out, document)]
    all_done([partial(say_json, document) if show is None else show, *writes])


def all_done(steps: Iterable[Callable[[], object]]) -> None:
    """Call every step, even if an earlier step failed; then raise one NetsimError for all failures."""
    raise_together([error for step in steps if (error := failure_of(step)) is not None])


def failure_of(step: Callable[[], object]) -> NetsimError | None:
    """Call a step, and return its NetsimError, if it raises one."""
    try:
        step()
    except NetsimError as error:
        return error
    return None


def raise_together(failed: Sequence[NetsimError]) -> None:
    """Raise one NetsimError for several; none if there are none."""
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise NetsimError("; ".join(map(str, failed)))


@contextmanager
def stdout_is_for_results() -> Iterator[TextIO]:
    """Redirect the output of user code to stderr inside the block, which gets the real stdout."""
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        yield stdout


@contextmanager
def resumable(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Turn an interrupt into an error that says how to go on."""
    try:
        yield
    except IncompleteError:
        raise  # says what is missing, also after an interrupt
    except BaseException as error:
        if not is_interrupt(error):
            raise
        raise InterruptedRunError(f"interrupted; {how_to_go_on()}") from None


@contextmanager
def rest_delivered(deliver: Callable[[Any], None]) -> Iterator[None]:
    """Deliver an incomplete result before raising its error."""
    try:
        yield
    except IncompleteError as error:
        missing = error

        def tell() -> None:
            raise missing

        all_done([tell] if error.report is None else [partial(deliver, error.report), tell])


def write_out(out: Path, text: str, option: str = "out") -> None:
    """Write a result to the file `out` of an option, whole or not at all."""
    from netsim._util.storage import write_atomically

    try:
        write_atomically(out, text + "\n")
    except OSError as error:
        raise NetsimError(f"{option} {str(out)!r} could not be written: {reason_of(error)}") from error


def say(text: str) -> None:
    """Print a result."""
    with reader_may_go():
        print(text)  # noqa: T201


def say_lines(lines: Iterable[str], indent: str = "  ") -> None:
    """Print the lines of a result, broken between words where the terminal is too narrow."""
    from netsim.report.text import print_lines, stdout_console

    with reader_may_go():
        print_lines(stdout_console(), lines, indent)


def say_json(document: str) -> None:
    """Print a JSON document, with characters beyond ASCII escaped if stdout is not UTF-8."""
    say(document if in_utf_8(sys.stdout) else escaped(document))


@contextmanager
def points_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show the number of known points and the remaining time on stderr, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("points"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    watched = is_watched(console)
    with Progress(*columns, console=console, transient=True, disable=not watched) as shown:
        bar = shown.add_task(name, total=None)
        points, first = (0, 0), (0, time.monotonic())

        def on_point(known: int, total: int) -> None:
            nonlocal points, first
            if points == (0, 0):
                first = known, time.monotonic()
            points = known, total
            shown.update(bar, completed=known, total=total)

        def waiting() -> str:
            known, total = points
            if not total:
                return f"{name}: preparing; no point is finished so far"
            before, began = first
            pace = (time.monotonic() - began) / (known - before) if known > before else None
            left = "" if pace is None else f", about {format_wait(pace * (total - known))} to go"
            return f"{name}: {known:,} of {total:,} points are finished so far{left}"

        with nullcontext() if watched else patience(waiting):
            yield on_point
