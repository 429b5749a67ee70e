"""The command line. stdout is the result, stderr the rest; see :func:`main` for exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netsim.errors import InterruptedRunError, NetsimError, UsageError
from netsim.options import algorithms, charges, long_runs, network, option, output, takes, training

if TYPE_CHECKING:
    from netsim.checkpoint import Checkpoint
    from netsim.experiment import Experiment
    from netsim.results import Report
    from netsim.simulation import OnRound

INTERRUPTED = 130

app = typer.Typer(
    name="netsim",
    help="How will a distributed-SGD communication algorithm behave on a network? Simulate it, or run it for real.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
@takes(network, algorithms, training, charges, long_runs, output)
def simulate(
    workers: Annotated[int, option("How many workers train.")] = 8,
    metrics: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    as_json: bool = False,
    out: Path | None = None,
    **options: Any,
) -> None:
    """Simulate algorithms on a network, with real gradients, and say which is fastest and why."""
    from netsim.api import simulate_experiment
    from netsim.checkpoint import checkpoint_of
    from netsim.experiment import Experiment

    experiment = Experiment.of(workers=workers, **options)
    for name, path in (("out", out), ("metrics", metrics), ("checkpoint", checkpoint)):
        _check_file(name, path)
    saved = checkpoint_of(experiment, checkpoint, checkpoint_every, resume)
    try:
        with _progress(experiment) as on_round:
            report = simulate_experiment(experiment, on_round, metrics, saved)
    except KeyboardInterrupt:
        if saved is None:
            raise
        raise InterruptedRunError(f"interrupted; {_how_to_go_on(saved)}") from None
    _deliver(report, experiment, as_json, out)


@app.command()
@takes(algorithms, training, output)
def run(
    nproc: Annotated[
        int | None, option("How many ranks train; under torchrun it decides.", "--nproc", "--workers")
    ] = None,
    backend: Annotated[str, option("gloo, nccl (needs GPUs) or mpi (needs a torch built with it).")] = "gloo",
    timeout: Annotated[str, option("An operation that waits longer fails.")] = "30s",
    bandwidth: Annotated[str | None, option("Accepted and not applied: the network is the real one.")] = None,
    latency: Annotated[str | None, option("Accepted and not applied: the network is the real one.")] = None,
    as_json: bool = False,
    out: Path | None = None,
    **options: Any,
) -> None:
    """Run the same algorithms on real ranks with torch.distributed, and measure.

    Starts the ranks on this machine, over loopback; under torchrun, takes part as one of its ranks.
    """
    from netsim.api import check_real, real_report
    from netsim.experiment import Experiment
    from netsim.launch import join, launch, under_launcher
    from netsim.real import check_backend
    from netsim.units import parse_duration

    def experiment_of(workers: int) -> Experiment:
        if under_launcher() and nproc not in (None, workers):
            raise UsageError(f"nproc {nproc} was given, but torchrun started ranks for {workers} workers; leave it out")
        return Experiment.of(workers=workers, bandwidth=bandwidth, latency=latency, **options)

    timeout_s = parse_duration(timeout, "timeout")
    _check_file("out", out)
    if under_launcher():
        experiment, results = join(experiment_of, options["topology"], backend, timeout_s)
        if not results:
            return
    else:
        if nproc is None:
            raise UsageError("nproc is missing: say how many ranks to start, such as --nproc 4, or use torchrun")
        experiment = experiment_of(nproc)
        check_real(experiment)
        check_backend(backend, experiment.device)
        with _progress(experiment) as on_round:
            results = launch(experiment, backend, timeout_s, on_round)
    _deliver(real_report(experiment, results, backend), experiment, as_json, out)


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


def _how_to_go_on(checkpoint: Checkpoint) -> str:
    if not checkpoint.progress:
        return f"checkpoint {str(checkpoint.path)!r} was not written yet: start again"
    return (
        f"checkpoint {str(checkpoint.path)!r} holds {checkpoint.progress}: "
        "give the same options and --resume to go on from there"
    )


@contextmanager
def _progress(experiment: Experiment) -> Iterator[OnRound]:
    """Show rounds as they end, on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        total = experiment.round_count * len(experiment.algorithms)
        bar = progress.add_task("preparing", total=total)

        def on_round(algorithm: str, step: int) -> None:
            done = experiment.algorithms.index(algorithm) * experiment.round_count + step + 1
            progress.update(bar, completed=done, description=f"{algorithm}, round {step + 1}")

        yield on_round


def _check_file(name: str, path: Path | None) -> None:
    """Find out before a long run, not after it, that its result could not be written."""
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"{name} {str(path)!r} is in a folder that is not there; make {str(path.parent)!r} first")
    if path is not None and path.is_dir():
        raise UsageError(f"{name} {str(path)!r} is a folder; name a file in it, such as {str(path / name)!r}")


def _deliver(report: Report, experiment: Experiment, as_json: bool, out: Path | None) -> None:
    from netsim.render import render

    if out is not None:
        from netsim.storage import write_atomically

        try:
            write_atomically(out, report.to_json() + "\n")
        except OSError as error:
            raise NetsimError(f"out {str(out)!r} could not be written: {error.strerror}") from error
    try:
        if as_json:
            print(report.to_json())  # noqa: T201
        else:
            render(report, experiment)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; that is theirs to decide.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
