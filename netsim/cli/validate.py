"""``netsim validate``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netsim._util.standard_streams import reader_may_go
from netsim.cli.common import all_done, is_watched, say_json
from netsim.cli.options import COMMON, Json, option, takes

if TYPE_CHECKING:
    from netsim.api.validation import AskedValidation
    from netsim.testbed.campaign import OnProgress
    from netsim.testbed.validation import Validation

VALIDATION_FAILED = 4


@takes("Validation")
def validate(
    out: Annotated[
        Path | None,
        option(
            "Folder for scatter plot, CSV, JSON and measurements; stored settings are not measured again.",
            panel=COMMON,
            metavar="FOLDER",
        ),
    ] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Run exchanges and training over a real network, and compare their times with netsim's predictions.

    The network is a shaped cluster that --local builds on this machine or, under torchrun, the network of its job.
    """
    from netsim.api.validation import AskedValidation

    asked = AskedValidation.of(options, out)
    with _progress(asked) if asked.settings else nullcontext(_nowhere) as on_progress:
        validation = asked.carry_out(on_progress)
    if not validation.comparison:
        return  # rank 0 reports
    show = partial(say_json, validation.to_json()) if as_json else partial(_print, validation)
    all_done([show, *([] if asked.out is None else [partial(validation.write, asked.out)])])
    if not validation.agrees:
        raise typer.Exit(VALIDATION_FAILED)


def _nowhere(what: str, done_s: float, total_s: float) -> None:
    """Show no progress: torchrun's job measures all in one step."""


@contextmanager
def _progress(asked: AskedValidation) -> Iterator[OnProgress]:
    """Print how long measuring takes. On a terminal, also show the current measurement and the time left.

    Settings with stored measurements take no time.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from netsim._util.units import format_duration

    console = Console(stderr=True)
    new = asked.unmeasured()
    seconds = sum(
        guess * (cell.repeats + 1)
        for setting in new
        for guess, cell in zip(setting.seconds(), setting.cells, strict=True)
    )
    told = f"measuring takes about {format_duration(seconds + 5 * len(new))}"
    console.print(told if new else f"measured before: {asked.records}", highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not is_watched(console)) as shown:
        bar = shown.add_task("starting", total=seconds)
        yield lambda what, done, total: shown.update(bar, completed=done, total=total, description=what)


def _print(validation: Validation) -> None:
    from netsim.report.text import stdout_console

    with reader_may_go():
        validation.render(stdout_console())
