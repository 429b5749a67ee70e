"""The measurement of studies that draw a round: the trace of one algorithm, simulated with sizes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from netsim.experiment.configuration import Experiment
from netsim.report import Figure, Section
from netsim.report.activity import draw_links, draw_round
from netsim.simulator.opening import open_session
from netsim.simulator.trace import Trace
from netsim.study_engine.kinds import Finding, Outcome, Point

RANKS, LINKS = 16, 16
"""Greatest numbers of ranks and links in a picture."""


def trace_point(point: Point) -> Outcome:
    """Return the trace of the one algorithm that `point` names (:class:`netsim.simulator.trace.Trace`)."""
    experiment = Experiment.of(**point)
    (name,) = experiment.algorithms
    trace = Trace(name)
    with open_session(experiment) as session:
        result = session.simulate(name, trace=trace)
    return {"title": result.title, "trace": asdict(trace)}


def one_round(findings: Sequence[Finding], network: str) -> Section:
    """Return a section with a Gantt chart and a heat map of each trace in `findings`."""
    drawn = ((Trace.from_dict(found["trace"]), found["title"]) for _, found in findings)
    figures = [figure(trace, title, network) for trace, title in drawn for figure in (gantt_of, links_of)]
    return Section("One round over time", figures=figures)


def gantt_of(trace: Trace, title: str, network: str) -> Figure:
    """Return a Gantt chart of the activities of the workers in a round."""
    shown = "" if len(trace.hosts) <= RANKS else f"; the first {RANKS} of {len(trace.hosts)} ranks"
    return Figure(
        f"A round of {title}",
        f"The activity of each worker over time on {network}{shown}.",
        draw_round(trace, 0, RANKS),
        "SIMULATED, compute costs ASSUMED",
    )


def links_of(trace: Trace, title: str, network: str) -> Figure:
    """Return a heat map of the utilisation of the links in a round."""
    count = len(trace.levels)
    shown = f"all {count} links with traffic" if count <= LINKS else f"the {LINKS} busiest of {count} links"
    return Figure(
        f"Links in a round of {title}",
        f"Utilisation over time on {network}: {shown}.",
        draw_links(trace, LINKS),
        "SIMULATED",
    )
