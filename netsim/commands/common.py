"""What commands share: progress, files that can be written, and the delivery of a result."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from netsim.errors import NetsimError, UsageError

if TYPE_CHECKING:
    from netsim.experiment import Experiment
    from netsim.render import Accounting
    from netsim.results import Report
    from netsim.simulation import OnRound


@contextmanager
def progress(experiment: Experiment) -> Iterator[OnRound]:
    """Show rounds as they end, on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        total = experiment.round_count * len(experiment.algorithms)
        bar = shown.add_task("preparing", total=total)

        def on_round(algorithm: str, step: int) -> None:
            done = experiment.algorithms.index(algorithm) * experiment.round_count + step + 1
            shown.update(bar, completed=done, description=f"{algorithm}, round {step + 1}")

        yield on_round


def check_file(name: str, path: Path | None) -> None:
    """Find out before a long run, not after it, that its result could not be written."""
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"{name} {str(path)!r} is in a folder that is not there; make {str(path.parent)!r} first")
    if path is not None and path.is_dir():
        raise UsageError(f"{name} {str(path)!r} is a folder; name a file in it, such as {str(path / name)!r}")


def deliver(
    report: Report, experiment: Experiment, as_json: bool, out: Path | None, accounting: Accounting = "full"
) -> None:
    """Print the report, as a table or as JSON, and write it to the file `out`."""
    from netsim.render import render

    if out is not None:
        write_out(out, report.to_json())
    with reader_may_go():
        if as_json:
            print(report.to_json())  # noqa: T201
        else:
            render(report, experiment, accounting=accounting)


def write_out(out: Path, text: str) -> None:
    """Write a result to the file `out`, whole or not at all."""
    from netsim.storage import write_atomically

    try:
        write_atomically(out, text + "\n")
    except OSError as error:
        raise NetsimError(f"out {str(out)!r} could not be written: {error.strerror}") from error


def say(text: str) -> None:
    """Print a result."""
    with reader_may_go():
        print(text)  # noqa: T201


@contextmanager
def reader_may_go() -> Iterator[None]:
    """Print within this: whoever reads our output may go away; that is theirs to decide."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def points_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many points are known, and the time left, on stderr if that is a terminal."""
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("points"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        bar = shown.add_task(name, total=None)

        def on_point(known: int, total: int) -> None:
            shown.update(bar, completed=known, total=total)

        yield on_point
