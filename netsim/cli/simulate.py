"""``netsim simulate``."""

from __future__ import annotations

from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from netsim._util.errors import NetsimError, check_choice
from netsim._util.standard_streams import reader_may_go
from netsim.cli.common import (
    deliver,
    failure_of,
    progress,
    raise_together,
    rest_delivered,
    resumable,
    stdout_is_for_results,
    write_out,
)
from netsim.cli.options import OUTPUT, Json, NcclTests, Out, option, takes, whole

if TYPE_CHECKING:
    from netsim.experiment.configuration import Experiment
    from netsim.report.run_report import Report
    from netsim.report.terminal import Accounting
    from netsim.simulator.checkpoint import Checkpoint


@takes("Network", "Algorithms", "Training", "Costs", "Effects")
def simulate(
    accounting: Annotated[
        str,
        option(
            "Columns of the table: full, or paper (uploads and bits of uploaded values only, as in the SASG paper).",
            panel=OUTPUT,
            metavar="NAME",
        ),
    ] = "full",
    metrics: Annotated[
        Path | None,
        option(
            "Write per-step metrics (training loss, δ, residual norm, uploads, bytes, accuracy) to this file: .csv or "
            ".jsonl. With --resume the file is written anew, from the step after the checkpoint.",
            panel=OUTPUT,
            metavar="FILE",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        option("Save the state of the run to this file, for --resume.", panel=OUTPUT, metavar="FILE"),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        option(
            "Rounds between checkpoints; workers wait for each other at each of them. [default: rounds / 10]",
            panel=OUTPUT,
            parser=whole,
            metavar="N",
        ),
    ] = None,
    resume: Annotated[
        bool, option("Continue from --checkpoint, with the same options.", "--resume", panel=OUTPUT)
    ] = False,
    trace: Annotated[
        Path | None,
        option(
            "Write a timeline of the run to this file (.json or .json.gz) for ui.perfetto.dev.",
            panel=OUTPUT,
            metavar="FILE",
        ),
    ] = None,
    chakra: Annotated[
        Path | None,
        option(
            "Write Chakra execution traces, one file per algorithm and rank, to this folder, for ASTRA-sim and other "
            "simulators.",
            panel=OUTPUT,
            metavar="DIR",
        ),
    ] = None,
    nccl_tests: NcclTests = None,
    as_json: Json = False,
    out: Out = None,
    **options: Any,
) -> None:
    """Simulate algorithms on a network, with real gradients, and say which is fastest and why."""
    from netsim._util.storage import check_outputs
    from netsim.api.simulation import simulate_experiment
    from netsim.experiment.configuration import Experiment
    from netsim.experiment.given import input_files
    from netsim.report.nccl_tests import check_one_table
    from netsim.simulator.chakra import check_chakra
    from netsim.simulator.checkpoint import checkpoint_of

    check_choice("accounting", accounting, ("full", "paper"))
    experiment = Experiment.of(**options)
    outputs = {"out": out, "metrics": metrics, "checkpoint": checkpoint, "trace": trace}
    outputs |= {"nccl-tests": nccl_tests}
    check_outputs(outputs, input_files(options))
    if nccl_tests is not None:
        check_one_table(nccl_tests, experiment.algorithms)
    saved = checkpoint_of(experiment, checkpoint, checkpoint_every, resume)
    if chakra is not None:
        check_chakra(chakra, experiment.algorithms, saved)

    columns = cast("Accounting", accounting)
    tables: list[NetsimError | None] = []
    """The failure to print the table, or None, once it is printed."""

    def show(report: Report) -> None:
        writes = [] if nccl_tests is None else [partial(_write_nccl_tests, report, experiment, nccl_tests)]
        rest = partial(deliver, report, experiment, as_json, out, columns, shown=bool(tables))
        raise_together([error for error in (*tables, *map(failure_of, [rest, *writes])) if error is not None])

    may_resume = nullcontext() if saved is None else resumable(partial(_how_to_go_on, saved))
    with may_resume, rest_delivered(show), stdout_is_for_results() as stdout, progress(experiment) as on_round:

        def show_table(report: Report) -> None:
            """Print the table before anything is concluded, so that nothing later can lose it."""
            on_round.conclude()
            if not as_json:
                with redirect_stdout(stdout):
                    tables.append(failure_of(partial(_print_table, report, experiment, columns)))

        report = simulate_experiment(experiment, on_round, metrics, saved, trace, chakra, show_table)
    show(report)


def _print_table(report: Report, experiment: Experiment, accounting: Accounting) -> None:
    from netsim.report.terminal import render_results
    from netsim.report.text import stdout_console

    with reader_may_go():
        render_results(report, experiment, stdout_console(), accounting)


def _write_nccl_tests(report: Report, experiment: Experiment, file: Path) -> None:
    from netsim.report.nccl_tests import collective_runs, nccl_tests_text

    results = ((f"{each.title} on {experiment.topology}", each.to_dict()) for each in report.results)
    for run in collective_runs(results):  # one, or none of an interrupted run
        write_out(file, nccl_tests_text(run), "nccl-tests")


def _how_to_go_on(checkpoint: Checkpoint) -> str:
    if checkpoint.failure is not None:
        return f"{checkpoint.failure}; it holds {checkpoint.progress or 'nothing'}"
    if not checkpoint.progress:
        return f"checkpoint {str(checkpoint.path)!r} was not written yet: start again"
    return (
        f"checkpoint {str(checkpoint.path)!r} holds {checkpoint.progress}: "
        "give the same options and --resume to go on from there"
    )
