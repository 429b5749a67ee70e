"""All commands of the command line, with their options."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer

from netsim._util.errors import UsageError
from netsim.cli.calibrate import calibrate
from netsim.cli.doctor import doctor
from netsim.cli.fetch import fetch
from netsim.cli.flows import flows
from netsim.cli.new import new
from netsim.cli.options import Command, show_help
from netsim.cli.recommend import recommend
from netsim.cli.run import run
from netsim.cli.simulate import simulate
from netsim.cli.study import study
from netsim.cli.topology import app as topology
from netsim.cli.validate import validate

app = typer.Typer(
    name="netsim",
    help="How will a distributed-SGD communication algorithm behave on a network? Simulate it, or run it for real.\n\n"
    "Start with: netsim simulate --workers 64 --bandwidth 1Gbps",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (simulate, run, fetch, flows, study, recommend, calibrate, validate, doctor, new):
    app.command(cls=Command)(command)
app.add_typer(topology, name="topology", short_help=str(topology.info.help))


def _version(wanted: bool) -> None:
    if wanted:
        from netsim._util.system import version

        typer.echo(f"netsim {version()}")
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Read the options that come before a command."""
    show_help(ctx)


FILES = ("--out", "--metrics", "--checkpoint", "--trace", "--chakra", "--validation")
LISTS = ("--algorithm", "--exchange", "--link-event", "--local", "--lr-decay-at", "--sizes")
"""Options that take several values with commas."""
INSTEAD = {("netsim validate", "--workers"): "--local", ("netsim validate", "--nproc"): "--local"}
"""The option of a command that does what an option of another command does."""


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise UsageError for arguments that typer misreads: an empty file name, and a list option that is given twice.

    Typer reads an empty name as the current folder. Of an option that is given twice, it keeps only the last value.
    """
    for name, value in pairwise([*arguments, "end"]):
        if (name in FILES and not value) or (name.endswith("=") and name[:-1] in FILES):
            raise UsageError(f"{name.strip('-=')} '' names no file or folder; give a name, or leave it out")
    counts = Counter(argument.partition("=")[0] for argument in arguments)
    if twice := next((name for name in LISTS if counts[name] > 1), None):
        raise UsageError(f"{twice} was given {counts[twice]} times; give it once, with commas between its values")


def answer(arguments: list[str] | None) -> int:
    """Run the command that the arguments name, and return the exit status; raise UsageError for wrong arguments."""
    _check_arguments(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    # Typer's own usage errors derive from this; typer vendors click, so click's name is not ours to import.
    click_error: Any = typer.BadParameter.__mro__[2]
    try:
        code = int(command.main(arguments, "netsim", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as stop:  # typer's, when who reads its help goes away
        if isinstance(stop.__context__, BrokenPipeError):
            raise stop.__context__ from None
        raise
    except click_error as error:
        # Whatever ends a line in what was given, such as U+2028, would make two lines of it.
        known = _of_another_command(error, sys.argv[1:] if arguments is None else arguments)
        raise UsageError(known or " ".join(error.format_message().split())) from None


def _of_another_command(error: Any, arguments: Sequence[str]) -> str | None:
    """Return the error text for an option that ``netsim simulate`` has, or had under that name; None for any other."""
    if not hasattr(error, "possibilities"):
        return None
    from netsim._util.options import declared
    from netsim.experiment.given import PANELS, moved, present_option

    flag, command = error.option_name, error.ctx.command_path
    if (instead := INSTEAD.get((command, flag))) is not None:
        given = " ".join(arguments).replace("=", " ").partition(f"{flag} ")[2].partition(" ")[0]
        return f"{flag} was given, but {command} has none; use {instead} {given}".rstrip()
    name = flag.removeprefix("--").replace("-", "_")
    today = present_option(name)
    if today in {each.name for each in error.ctx.command.params}:
        return str(moved(name, "..."))
    known = {each.flag for group in PANELS.values() for each in declared(group).values()}
    if today is None and flag not in known:
        return None
    why = ": it measures a network that is there" if command == "netsim run" else ""
    return f"{flag} was given, but {command} cannot apply it{why}; leave it out, or use netsim simulate"
