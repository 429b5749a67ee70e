"""The measurement of studies that show a round as it goes: one algorithm with sizes only, and its trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from netsim.experiment import Experiment
from netsim.report import Figure, Section
from netsim.report.rounds import draw_links, draw_round
from netsim.simulation import laboratory
from netsim.study.kinds import Finding, Outcome, Point
from netsim.trace import Trace

RANKS, LINKS = 10, 12
"""That are drawn at most."""


def trace_point(point: Point) -> Outcome:
    """Return what went on while the one algorithm that `point` names ran, as a :class:`netsim.trace.Trace`."""
    experiment = Experiment.of(**point)
    (name,) = experiment.algorithms
    trace = Trace(name)
    with laboratory(experiment) as lab:
        result = lab.simulate(name, trace=trace)
    return {"title": result.title, "trace": asdict(trace)}


def one_round(findings: Sequence[Finding], network: str) -> Section:
    """Return a section with a Gantt chart and a heat map of every trace in `findings`."""
    figures = []
    for _, found in findings:
        trace = Trace.from_dict(found["trace"])
        figures += [
            Figure(
                f"A round of {found['title']}",
                f"What each worker is at, on {network}; at most {RANKS} ranks are shown.",
                draw_round(trace, 0, RANKS),
                "SIMULATED, charges ASSUMED",
            ),
            Figure(
                f"Links in a round of {found['title']}",
                f"How full the busiest links are, at most {LINKS} of {len(trace.levels)} that carried anything.",
                draw_links(trace, LINKS),
                "SIMULATED",
            ),
        ]
    return Section("One round, as it goes", figures=figures)
