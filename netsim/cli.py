"""The command line. stdout is the result, stderr the rest; see :func:`main` for exit codes."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from netsim.commands.calibrate import calibrate
from netsim.commands.doctor import doctor
from netsim.commands.fetch import fetch
from netsim.commands.flows import flows
from netsim.commands.recommend import recommend
from netsim.commands.run import run
from netsim.commands.simulate import simulate
from netsim.commands.study import study
from netsim.commands.topology import app as topology
from netsim.commands.validate import validate
from netsim.errors import NetsimError

INTERRUPTED = 130

app = typer.Typer(
    name="netsim",
    help="How will a distributed-SGD communication algorithm behave on a network? Simulate it, or run it for real.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (simulate, run, fetch, flows, study, recommend, calibrate, validate, doctor):
    app.command()(command)
app.add_typer(topology, name="topology")


def _version(wanted: bool) -> None:
    if wanted:
        from netsim.system import version

        typer.echo(f"netsim {version()}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _check_packages() -> None:
    """Notice when another distribution owns a package of ours: all four must lie side by side."""
    home = Path(__file__).parent.parent
    for package in ("algorithms", "topologies", "studies"):
        spec = find_spec(package)
        where = Path(spec.origin).parent.parent if spec is not None and spec.origin else None
        if where != home:
            raise NetsimError(
                f"package {package!r} comes from {where}, not from netsim's own {home}: another distribution or folder "
                "of that name hides it; use a fresh virtual environment"
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 ok, 1 runtime, 2 usage, 3 infeasible, 4 validation failed, 130 interrupted."""
    command = typer.main.get_command(app)
    # Typer's own usage errors derive from this; typer vendors click, so click's name is not ours to import.
    click_error: type[Any] = typer.BadParameter.__mro__[2]
    try:
        _check_packages()
        code = int(command.main(arguments, "netsim", standalone_mode=False) or 0)
        if code == INTERRUPTED:  # typer swallows the exception
            print("netsim: interrupted", file=sys.stderr)  # noqa: T201
        return code
    except NetsimError as error:
        print(f"netsim: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("netsim: interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except click_error as error:
        print(f"netsim: {error.format_message()}", file=sys.stderr)  # noqa: T201
        return 2
