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

from netsim.errors import NetsimError, UsageError

if TYPE_CHECKING:
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


Bandwidth = Annotated[str, typer.Option(help="Of every link, each way: 1Gbps, 100Mbit/s, 25GiB/s.")]
Latency = Annotated[str, typer.Option(help="One way, host to host across one switch: 50us, 1ms.")]
Topology = Annotated[str, typer.Option(help="star, ps (the server has a host of its own), ring or tree.")]
FanOut = Annotated[int, typer.Option("--fan-out", help="Children of a switch in a tree.")]
AlgorithmNames = Annotated[
    str, typer.Option("--algorithm", help="dense, dense-tree, ps, topk, gtopk; several with commas.")
]
Density = Annotated[
    float | None, typer.Option(help="Fraction of entries that sparse algorithms select. [default: 0.001]")
]
K = Annotated[int | None, typer.Option("--k", help="Number of entries that sparse algorithms select.")]
Residual = Annotated[str, typer.Option(help="gtopk: keep-at-merge or index-intersection.")]
Gather = Annotated[str, typer.Option(help="topk: ring or doubling (recursive doubling).")]
WorkloadName = Annotated[str, typer.Option("--workload", help="What is trained: digits-mlp.")]
BatchSize = Annotated[int, typer.Option(help="Samples of a worker's mini-batch.")]
Rounds = Annotated[int | None, typer.Option(help="Steps of training. [default: 5, or 1 with --timing-only]")]
LearningRate = Annotated[float, typer.Option("--lr", help="Learning rate.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Device = Annotated[str, typer.Option(help="Where gradients are computed: auto, cpu, cuda or cuda:0.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")]
Out = Annotated[Path | None, typer.Option(help="Also write the JSON document to this file.")]


@app.command()
def simulate(
    workers: Annotated[int, typer.Option(help="How many workers train.")] = 8,
    bandwidth: Bandwidth = "1Gbps",
    latency: Latency = "50us",
    topology: Topology = "star",
    fan_out: FanOut = 8,
    algorithm: AlgorithmNames = "dense,topk,gtopk,ps",
    density: Density = None,
    k: K = None,
    residual: Residual = "keep-at-merge",
    gather: Gather = "ring",
    workload: WorkloadName = "digits-mlp",
    batch_size: BatchSize = 16,
    rounds: Rounds = None,
    lr: LearningRate = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    compute_time: Annotated[str | None, typer.Option(help="Charge this a step, ASSUMED, not measured: 60ms.")] = None,
    select_time: Annotated[str | None, typer.Option(help="Charge this a selection, ASSUMED, not measured.")] = None,
    merge_time: Annotated[str | None, typer.Option(help="Charge this a merge or sum, ASSUMED, not measured.")] = None,
    timing_only: Annotated[
        bool, typer.Option("--timing-only", help="No data, no gradients: only times and bytes.")
    ] = False,
    elements: Annotated[int | None, typer.Option(help="With --timing-only: elements of the gradient.")] = None,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """Simulate algorithms on a network, with real gradients, and say which is fastest and why."""
    from netsim.api import simulate_experiment
    from netsim.experiment import Experiment

    experiment = Experiment.of(
        workers=workers, bandwidth=bandwidth, latency=latency, topology=topology, fan_out=fan_out,
        algorithm=algorithm, density=density, k=k, residual=residual, gather=gather, workload=workload,
        batch_size=batch_size, rounds=rounds, lr=lr, seed=seed, device=device, compute_time=compute_time,
        select_time=select_time, merge_time=merge_time, timing_only=timing_only, elements=elements,
    )  # fmt: skip
    _check_out(out)
    with _progress(experiment) as on_round:
        report = simulate_experiment(experiment, on_round)
    _deliver(report, experiment, as_json, out)


@app.command()
def run(
    nproc: Annotated[
        int | None, typer.Option("--nproc", "--workers", help="How many ranks train; under torchrun it decides.")
    ] = None,
    topology: Topology = "star",
    algorithm: AlgorithmNames = "dense,topk,gtopk,ps",
    density: Density = None,
    k: K = None,
    residual: Residual = "keep-at-merge",
    gather: Gather = "ring",
    workload: WorkloadName = "digits-mlp",
    batch_size: BatchSize = 16,
    rounds: Rounds = None,
    lr: LearningRate = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    backend: Annotated[
        str, typer.Option(help="gloo, nccl (needs GPUs) or mpi (needs a torch built with it).")
    ] = "gloo",
    timeout: Annotated[str, typer.Option(help="An operation that waits longer fails.")] = "30s",
    bandwidth: Annotated[
        str | None, typer.Option(help="Accepted and not applied: the network is the real one.")
    ] = None,
    latency: Annotated[str | None, typer.Option(help="Accepted and not applied: the network is the real one.")] = None,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """Run the same algorithms on real ranks with torch.distributed, and measure.

    Starts the ranks on this machine, over loopback; under torchrun, takes part as one of its ranks.
    """
    from netsim.api import check_real, real_report
    from netsim.experiment import Experiment
    from netsim.launch import join, launch, under_launcher
    from netsim.real import check_backend
    from netsim.units import parse_duration

    def options(workers: int) -> Experiment:
        if nproc is not None and nproc != workers:
            raise UsageError(f"nproc {nproc} was given, but torchrun started ranks for {workers} workers; leave it out")
        return experiment_of(workers)

    def experiment_of(workers: int) -> Experiment:
        return Experiment.of(
            workers=workers, topology=topology, algorithm=algorithm, density=density, k=k, residual=residual,
            gather=gather, workload=workload, batch_size=batch_size, rounds=rounds, lr=lr, seed=seed,
            device=device, bandwidth=bandwidth, latency=latency,
        )  # fmt: skip

    timeout_s = parse_duration(timeout, "timeout")
    _check_out(out)
    experiment = experiment_of(1 if under_launcher() or nproc is None else nproc)
    check_real(experiment)
    check_backend(backend, device)
    if under_launcher():
        experiment, results = join(options, topology, backend, timeout_s)
        if not results:
            return
    else:
        if nproc is None:
            raise UsageError("nproc is missing: say how many ranks to start, such as --nproc 4, or use torchrun")
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
            progress.update(bar, advance=1, description=f"{algorithm}, round {step + 1}")

        yield on_round


def _check_out(out: Path | None) -> None:
    """Find out before a long run, not after it, that its result could not be written."""
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"out {str(out)!r} is in a folder that is not there; make {str(out.parent)!r} first")
    if out is not None and out.is_dir():
        raise UsageError(f"out {str(out)!r} is a folder; name a file in it, such as {str(out / 'report.json')!r}")


def _deliver(report: Report, experiment: Experiment, as_json: bool, out: Path | None) -> None:
    from netsim.render import render

    if out is not None:
        from netsim.storage import write_atomically

        write_atomically(out, report.to_json() + "\n")
    if as_json:
        print(report.to_json())  # noqa: T201
    else:
        render(report, experiment)


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
        return int(command.main(arguments, "netsim", standalone_mode=False) or 0)
    except NetsimError as error:
        print(f"netsim: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("netsim: interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; that is theirs to decide.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click_error as error:
        print(f"netsim: {error.format_message()}", file=sys.stderr)  # noqa: T201
        return 2
