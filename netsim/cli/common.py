"""The common part of commands: progress on stderr, and the delivery of results to stdout and files."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from netsim._util.errors import IncompleteError, InfeasibleError, NetsimError, reason_of
from netsim._util.progress import OnRound
from netsim._util.standard_streams import escaped, in_utf_8, reader_may_go
from netsim._util.units import format_wait

A_YEAR_S = 365 * 86400.0
"""Seconds of a year."""
PATIENCE_S = 10.0
"""Seconds after which a command without a terminal says what it is doing."""

if TYPE_CHECKING:
    from rich.console import Console

    from netsim.experiment.configuration import Experiment
    from netsim.experiment.results import Report
    from netsim.report.terminal import Accounting

LEAST_WIDTH = 60
"""Terminal columns that progress needs."""


def is_watched(console: Console) -> bool:
    """Return whether progress is shown: only on a terminal that is wide enough."""
    return console.is_terminal and console.width >= LEAST_WIDTH


class Forecast:
    """Forecasts the remaining time of a run once: prints a long time on stderr, and refuses a run of years.

    The forecast leaves out the first round, because that round includes loading and compiling.
    """

    AFTER_S, LONG_S, LONGEST_S = 10.0, 60.0, 2 * A_YEAR_S
    """Seconds until the forecast, least remaining seconds that are printed, and most that are not refused."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._began: tuple[int, float] | None = None
        self._said = False

    def note(self, done: int) -> None:
        """Record that `done` rounds are finished. Print a long forecast, or raise InfeasibleError for one of years."""
        now = time.monotonic()
        self._began = self._began or (done, now)
        before, began = self._began
        if self._said or now - began < self.AFTER_S:
            return
        self._said = True
        left = (now - began) / (done - before) * (self._rounds - done)
        if left > self.LONGEST_S:
            raise InfeasibleError(
                f"{self._rounds:,} rounds in all would take about {format_wait(left)} here; take fewer"
            )
        if left > self.LONG_S:
            _tell(f"{self._rounds:,} rounds in all; about {format_wait(left)} to go")


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
    """Print `doing()` once on stderr if the block takes longer than PATIENCE_S."""
    timer = threading.Timer(PATIENCE_S, lambda: _tell(doing()))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(what: str) -> None:
    with suppress(OSError, ValueError):  # a closed stderr
        print(f"netsim: {what}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def progress(experiment: Experiment) -> Iterator[OnRound]:
    """Show finished rounds on stderr, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not is_watched(console)) as shown:
        total = experiment.round_count * len(experiment.algorithms)
        bar = shown.add_task("preparing", total=total)
        forecast, done = Forecast(total), 0

        def on_round(algorithm: str, step: int) -> None:
            nonlocal done
            done = experiment.algorithms.index(algorithm) * experiment.round_count + step + 1
            forecast.note(done)
            shown.update(bar, completed=done, description=f"{algorithm}, round {step + 1}")

        with patience(lambda: f"simulating; {done:,} of {total:,} rounds are done so far"):
            yield on_round


def with_links(experiment: Experiment, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options, with the bandwidth and latency of links; None if the topology sets them."""
    taken = {"bandwidth": experiment.bandwidth_bps, "latency": experiment.latency_s}
    return taken | {name: value for name, value in options.items() if value is not None}


def deliver(
    report: Report, experiment: Experiment, as_json: bool, out: Path | None, accounting: Accounting = "full"
) -> None:
    """Print the report, as a table or as JSON, and write it to the file `out`."""
    from netsim.report.terminal import render

    def show() -> None:
        with reader_may_go():
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
    failed: list[NetsimError] = []
    for step in steps:
        try:
            step()
        except NetsimError as error:
            failed.append(error)
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
    with Progress(*columns, console=console, transient=True, disable=not is_watched(console)) as shown:
        bar = shown.add_task(name, total=None)
        points = 0, 0

        def on_point(known: int, total: int) -> None:
            nonlocal points
            points = known, total
            shown.update(bar, completed=known, total=total)

        def waiting() -> str:
            known, total = points
            return (
                f"{name}; {known:,} of {total:,} points are finished so far" if total else f"{name}; preparing so far"
            )

        with patience(waiting):
            yield on_point
