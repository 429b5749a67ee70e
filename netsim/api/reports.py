"""The report of a run: made from its results, concluded, and complete or part of an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from netsim._util.errors import (
    AlgorithmsFailedError,
    DivergedError,
    NetsimError,
    NonFiniteGradientError,
    UnconcludedError,
    UnwrittenError,
    or_why_not,
)
from netsim._util.on_demand import OnDemand
from netsim._util.system import old_objects_set_aside
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import LossCurve, Result
from netsim.report.run_report import Report
from netsim.simulator.session import Session


def unconcluded(
    experiment: Experiment,
    results: list[Result],
    failed: Mapping[str, NetsimError],
    environment: Mapping[str, Any],
    session: Session | None,
    *,
    watched: bool = False,
    losses: Mapping[str, LossCurve] | None = None,
) -> Report | None:
    """Return the report of the algorithms that finished, without a conclusion; None if no algorithm finished.

    `losses` are the losses of each algorithm during the run; a real run has none.
    """
    from netsim.analysis.time_to_loss import not_lowered, times_to_loss
    from netsim.analysis.unused_options import idle_options

    if not results:
        return None
    ended = {result.algorithm for result in results}
    lost = [f"No result for {name}: {_why(failed.get(name))}." for name in experiment.algorithms if name not in ended]
    effects, links = ({}, None) if session is None else (experiment.shown(), experiment.links())
    curves = losses or {}
    notes = or_why_not(
        "notes",
        lambda: [*idle_options(experiment, results, watched=watched), *not_lowered(experiment, results, curves)],
    )
    config = experiment.config() | ({} if session is not None else dict.fromkeys(OF_SIMULATED_NETWORKS))
    read = [] if session is None else experiment.network_notes()
    return Report(
        config,
        results,
        lost,
        environment,
        effects,
        links,
        notes,
        network_notes=read,
        time_to_loss=times_to_loss(results, curves),
        experiment=experiment,
    )


def concluded(report: Report, session: Session | None, *, later: bool = False) -> Report:
    """Return the report with its conclusion and known errors; raise UnconcludedError for an interrupt.

    With `later` both are computed when they are first read: the rounds at other numbers of workers may take longer than
    the run. What could have changed by then, own code and files, is read now.
    """
    sizes = None if session is None else session.of_sizes()

    def conclusion() -> list[str]:
        with old_objects_set_aside():
            return [*or_why_not("conclusion", lambda: _conclusion(report, sizes)), *report.conclusion]

    def known_errors() -> list[str]:
        return or_why_not("known errors", lambda: _known_errors(report))

    if later and not (session is not None and session.experiment.reads_own()):
        return replace(report, conclusion=OnDemand(conclusion), known_errors=OnDemand(known_errors))
    try:
        return replace(report, conclusion=conclusion(), known_errors=known_errors())
    except KeyboardInterrupt:
        message = "interrupted; all results are there, and only the conclusion is missing"
        raise UnconcludedError(message, report) from None


def _conclusion(report: Report, session: Session | None) -> list[str]:
    from netsim.analysis.conclusion import conclude

    return conclude(report.results, session, report.time_to_loss)


def _known_errors(report: Report) -> list[str]:
    from netsim.analysis.known_errors import error_question, known_errors, known_sentences

    network = report.experiment, report.link_ranges
    questions = {each.title: error_question(*network, each.algorithm, each.to_dict()) for each in report.results}
    asked = {title: question for title, question in questions.items() if question is not None}
    return known_sentences(asked, known_errors())


OF_SIMULATED_NETWORKS = (
    "bandwidth_bps",
    "latency_s",
    "bandwidth_scale",
    "latency_scale",
    "host_ceiling_bps",
    "sharing",
    "engine",
)
"""Options without meaning in a real run, whose report has None for them."""


def _why(error: NetsimError | None) -> str:
    """Return briefly why an algorithm has no result; the error is reported in full elsewhere."""
    if error is None:
        return "it was not run"
    return "its training diverged" if isinstance(error, NonFiniteGradientError) else "it failed"


def complete(report: Report | None, failed: Mapping[str, NetsimError], unwritten: Sequence[str] = ()) -> Report:
    """Return the report if it is complete; otherwise raise an error that names what is missing and holds the report."""
    diverged = [name for name, error in failed.items() if isinstance(error, NonFiniteGradientError)]
    if report is None and not diverged:
        raise next(iter(failed.values()))  # usually all algorithms fail for one reason
    message = "; ".join([*(f"{name}: {error}" for name, error in failed.items()), *unwritten])
    if failed:
        raise (DivergedError if len(diverged) == len(failed) else AlgorithmsFailedError)(message, report, failed)
    if unwritten:
        raise UnwrittenError(message, report)
    assert report is not None
    return report
