"""``netsim simulate``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from netsim._util.errors import InterruptedRunError, check_choice
from netsim.cli.common import all_done, deliver, progress, rest_delivered, stdout_is_for_results, write_out
from netsim.cli.options import OUTPUT, Json, NcclTests, Out, option, takes, whole

if TYPE_CHECKING:
    from netsim.experiment.configuration import Experiment
    from netsim.experiment.results import Report
    from netsim.report.terminal import Accounting
    from netsim.simulator.checkpoint import Checkpoint


@takes("Network", "Algorithms", "Training", "Costs", "Effects")
def simulate(
    accounting: Annotated[
        str,
        option(
            "Columns of the table: full, or paper (uploads and bits of uploaded values only, as in the SASG paper).",
            panel=OUTPUT,
        ),
    ] = "full",
    metrics: Annotated[
        Path | None,
        option(
            "Write per-step metrics (δ, residual norm, uploads, accuracy) to this file: .csv or .jsonl. With --resume "
            "the file is written anew, from the step after the checkpoint.",
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
    nccl_tests: NcclTests = None,
    as_json: Json = False,
    out: Out = None,
    **options: Any,
) -> None:
    """Simulate algorithms on a network, with real gradients, and say which is fastest and why."""
    from netsim._util.storage import check_outputs
    from netsim.api import simulate_experiment
    from netsim.experiment.configuration import Experiment
    from netsim.experiment.given import input_files
    from netsim.simulator.checkpoint import checkpoint_of

    check_choice("accounting", accounting, ("full", "paper"))
    experiment = Experiment.of(**options)
    outputs = {"out": out, "metrics": metrics, "checkpoint": checkpoint, "trace": trace}
    outputs |= {"nccl-tests": nccl_tests}
    check_outputs(outputs, input_files(options))
    saved = checkpoint_of(experiment, checkpoint, checkpoint_every, resume)

    def show(report: Report) -> None:
        writes = [] if nccl_tests is None else [partial(_write_nccl_tests, report, experiment, nccl_tests)]
        all_done([partial(deliver, report, experiment, as_json, out, cast("Accounting", accounting)), *writes])

    try:
        with rest_delivered(show), stdout_is_for_results(), progress(experiment) as on_round:
            report = simulate_experiment(experiment, on_round, metrics, saved, trace)
    except KeyboardInterrupt:
        if saved is None:
            raise
        raise InterruptedRunError(f"interrupted; {_how_to_go_on(saved)}") from None
    show(report)


def _write_nccl_tests(report: Report, experiment: Experiment, file: Path) -> None:
    from netsim.report.nccl_tests import all_reduce_runs, nccl_tests_text

    runs = all_reduce_runs((f"{each.title} on {experiment.topology}", each.to_dict()) for each in report.results)
    write_out(file, nccl_tests_text(runs), "nccl-tests")


def _how_to_go_on(checkpoint: Checkpoint) -> str:
    if checkpoint.failure is not None:
        return f"{checkpoint.failure}; it holds {checkpoint.progress or 'nothing'}"
    if not checkpoint.progress:
        return f"checkpoint {str(checkpoint.path)!r} was not written yet: start again"
    return (
        f"checkpoint {str(checkpoint.path)!r} holds {checkpoint.progress}: "
        "give the same options and --resume to go on from there"
    )
