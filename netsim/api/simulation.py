"""``netsim.simulate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from algorithms import is_users
from algorithms.fused_rows import selection_facts
from netsim._util.device import gpus_beside
from netsim._util.errors import InterruptedRunError, NetsimError, UsageError
from netsim._util.progress import OnRound, ignore
from netsim._util.storage import check_outputs
from netsim._util.system import environment
from netsim._util.user_code import blaming
from netsim.api.calls import check_call, shown_rounds
from netsim.api.reports import complete, concluded, unconcluded
from netsim.experiment.configuration import Experiment
from netsim.experiment.given import input_files
from netsim.experiment.option_docs import takes_options
from netsim.experiment.results import LossCurve, Result
from netsim.report.run_report import Report
from netsim.simulator.chakra import check_chakra, write_chakra
from netsim.simulator.checkpoint import Checkpoint, checkpoint_of
from netsim.simulator.estimates import check_experiment
from netsim.simulator.execution_graph import ExecutionGraph
from netsim.simulator.opening import open_session
from netsim.simulator.perfetto import write_chrome_trace
from netsim.simulator.trace import Trace


@takes_options("Network", "Algorithms", "Training", "Costs", "Effects")
def simulate(
    *,
    on_round: OnRound = ignore,
    progress: bool | None = None,
    metrics: str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    trace: str | Path | None = None,
    chakra: str | Path | None = None,
    **options: Any,
) -> Report:
    """Simulate algorithms on a network, with real gradients unless ``timing_only``.

    Parameters
    ----------
    on_round
        Called after each round with the name of the algorithm and the step.
    progress
        Whether to show a progress bar; None for a bar in notebooks only.
    metrics
        File for one row of metrics per step (:mod:`netsim.training.metrics`), .csv or .jsonl.
    checkpoint, checkpoint_every, resume
        File that saves the run every `checkpoint_every` rounds; with `resume` the run continues from the file. The
        results are the same as without an interruption (:mod:`netsim.simulator.checkpoint`).
    trace
        File for a timeline in Chrome's trace format (:mod:`netsim.simulator.perfetto`).
    chakra
        Folder for execution traces, one file per algorithm and rank (:mod:`netsim.simulator.chakra`), which ASTRA-sim
        and other simulators replay; not together with `checkpoint`.
    **options
        The options of ``netsim simulate``, with underscores: ``workers=64``, ``bandwidth="1Gbps"``,
        ``algorithm="gtopk,topk"``, ``density=1e-3``. Quantities are text with a unit, or numbers in SI units.

    Returns
    -------
    Report
        One result per algorithm, and the conclusion, which is computed when it is first read.

    Raises
    ------
    UsageError
        For a value that cannot be used.
    InfeasibleError
        If the machine or the data are not sufficient.
    UnwrittenError, DivergedError, AlgorithmsFailedError
        If a file could not be written, training diverged, or an algorithm failed for another reason, such as a link
        that stays down. The attribute ``report`` of the error holds the other results.

    Examples
    --------
    >>> import netsim
    >>> report = netsim.simulate(workers=64, algorithm="gtopk,topk", timing_only=True, elements=25_000_000)
    >>> [(result.title, result.round_time_s) for result in report.results]
    [('gTop-k', 0.0198), ('Top-k', 0.10395)]
    """
    check_call("netsim.simulate", on_round)
    experiment = Experiment.of(**options)
    check_outputs({"metrics": metrics, "checkpoint": checkpoint, "trace": trace}, input_files(options))
    saved = checkpoint_of(experiment, checkpoint, checkpoint_every, resume)
    if chakra is not None:
        check_chakra(chakra, experiment.algorithms, saved)
    rows, events, folder = (None if path is None else Path(path) for path in (metrics, trace, chakra))
    with shown_rounds(experiment, on_round, progress) as told:
        return simulate_experiment(experiment, told, rows, saved, events, folder)


def simulate_experiment(
    experiment: Experiment,
    on_round: OnRound = ignore,
    metrics: Path | None = None,
    checkpoint: Checkpoint | None = None,
    trace: Path | None = None,
    chakra: Path | None = None,
    on_results: Callable[[Report], None] | None = None,
) -> Report:
    """Simulate every algorithm of `experiment`, and conclude.

    `on_results` is called with the report as soon as there are results, before its conclusion is computed. Without it,
    the conclusion is computed when it is first read.

    Parameters and errors are those of :func:`simulate`. If a file cannot be written, or an algorithm fails, the rest of
    the run continues; the error at the end holds the report.
    """
    from netsim.training.metrics import metrics_file

    unwritten: list[str] = []
    if experiment.timing_only or experiment.effects.load is not None:
        watched = any(path is not None for path in (metrics, checkpoint, trace, chakra))
        check_experiment(experiment, watched=watched)
    with ExitStack() as stack:
        session = stack.enter_context(open_session(experiment))
        emit = None if metrics is None else stack.enter_context(metrics_file(metrics, unwritten))
        surroundings = environment(session.device) | {"data": experiment.data_name()}
        if session.device_choice is not None:
            surroundings["device_choice"] = session.device_choice
        if beside := gpus_beside(session.device or "cpu", experiment.device):
            surroundings["gradient_devices"] = [session.device, *beside]
        if checkpoint is not None:
            stack.enter_context(checkpoint.going_on())
            surroundings |= checkpoint.begin(session.costs, surroundings)
        traces = {name: Trace(name) for name in experiment.algorithms} if trace is not None else {}
        graphs = {name: ExecutionGraph(name) for name in experiment.algorithms} if chakra is not None else {}

        losses: dict[str, LossCurve] = {} if checkpoint is None else checkpoint.losses

        def simulated(name: str) -> Result:
            watching = (emit, checkpoint, traces.get(name), graphs.get(name))
            curve = losses.setdefault(name, LossCurve())
            return session.simulate(name, on_round, *watching, train_loss=True, losses=curve)

        results, failed = _of_each(experiment.algorithms, simulated)
        surroundings |= selection_facts(session.device)
        report = unconcluded(
            experiment, results, failed, surroundings, session, watched=emit is not None, losses=losses
        )
        if report is not None and on_results is not None:
            on_results(report)
        if trace is not None:
            finished = [traces[result.algorithm] for result in results]
            about = surroundings | {"config": experiment.config()}
            unwritten += _why_unwritten(lambda: write_chrome_trace(finished, trace, about))
        if chakra is not None:
            unwritten += _why_unwritten(lambda: _write_graphs(results, graphs, chakra))
        report = report and concluded(report, session, later=on_results is None)
    if checkpoint is not None and checkpoint.failure is not None:
        unwritten.append(checkpoint.failure)
    return complete(report, failed, unwritten)


def _of_each(
    algorithms: Sequence[str], simulated: Callable[[str], Result]
) -> tuple[list[Result], dict[str, NetsimError]]:
    """Return the result of each algorithm, and the error of each that failed; an interrupt ends the run."""
    results: list[Result] = []
    failed: dict[str, NetsimError] = {}
    for name in algorithms:
        try:
            with blaming(f"algorithm {name!r}", "its exchange") if is_users(name) else nullcontext():
                results.append(simulated(name))
        except InterruptedRunError:
            raise
        except NetsimError as error:
            failed[name] = error
            if isinstance(error, UsageError):
                break  # the user must correct the value first
    return results, failed


def _write_graphs(results: Sequence[Result], graphs: Mapping[str, ExecutionGraph], folder: Path) -> None:
    for result in results:
        write_chakra(graphs[result.algorithm], folder, result)


def _why_unwritten(write: Callable[[], None]) -> list[str]:
    """Write, and return why that failed; nothing if it did not."""
    try:
        write()
    except NetsimError as error:
        return [str(error)]
    return []
