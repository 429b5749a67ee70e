"""``netsim simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from netsim._util.errors import InterruptedRunError, check_choice
from netsim.cli.common import deliver, progress, rest_delivered, stdout_is_for_results
from netsim.cli.options import algorithms, charges, effects, links, long_runs, network, option, output, takes, training

if TYPE_CHECKING:
    from netsim.experiment.results import Report
    from netsim.report.terminal import Accounting
    from netsim.simulator.checkpoint import Checkpoint


@takes(links, network, effects, algorithms, training, charges, long_runs, output)
def simulate(
    workers: Annotated[int, option("How many workers train.")] = 8,
    way: Annotated[
        str,
        option(
            "To simulated times: auto (the fastest exact one), messages (one by one), compiled (the same, in compiled "
            "code), batched (rounds of all ranks at once) or closed-form (idle star, any number of workers)."
        ),
    ] = "auto",
    accounting: Annotated[
        str, option("Of the table: full, or paper (uploads and bits of values alone, as the SASG paper counts).")
    ] = "full",
    metrics: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    trace: Path | None = None,
    as_json: bool = False,
    out: Path | None = None,
    **options: Any,
) -> None:
    """Simulate algorithms on a network, with real gradients, and say which is fastest and why."""
    from netsim._util.storage import check_outputs
    from netsim.api import simulate_experiment
    from netsim.experiment.configuration import Experiment, input_files
    from netsim.simulator.checkpoint import checkpoint_of

    check_choice("accounting", accounting, ("full", "paper"))
    experiment = Experiment.of(workers=workers, way=way, **options)
    outputs = {"out": out, "metrics": metrics, "checkpoint": checkpoint, "trace": trace}
    check_outputs(outputs, input_files(options))
    saved = checkpoint_of(experiment, checkpoint, checkpoint_every, resume)

    def show(report: Report) -> None:
        deliver(report, experiment, as_json, out, cast("Accounting", accounting))

    try:
        with rest_delivered(show), stdout_is_for_results(), progress(experiment) as on_round:
            report = simulate_experiment(experiment, on_round, metrics, saved, trace)
    except KeyboardInterrupt:
        if saved is None:
            raise
        raise InterruptedRunError(f"interrupted; {_how_to_go_on(saved)}") from None
    show(report)


def _how_to_go_on(checkpoint: Checkpoint) -> str:
    if checkpoint.failure is not None:
        return f"{checkpoint.failure}; it holds {checkpoint.progress or 'nothing'}"
    if not checkpoint.progress:
        return f"checkpoint {str(checkpoint.path)!r} was not written yet: start again"
    return (
        f"checkpoint {str(checkpoint.path)!r} holds {checkpoint.progress}: "
        "give the same options and --resume to go on from there"
    )
