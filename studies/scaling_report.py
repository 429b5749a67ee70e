"""The sections of the scaling study's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from algorithms import title_of
from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Mark, Series, lines, stacked_bars
from netsim.simulator.trace import Trace
from netsim.study_engine import Finding
from netsim.study_engine.traced import gantt_of, links_of
from studies.fits import LARGEST_MISFIT
from studies.growth import COMMUNICATION, ROUND, Condition, Growth, condition_of
from studies.words import BASIS

PROVENANCE = "SIMULATED; compute times ASSUMED"


def curves(growth: Growth, conditions: Sequence[Condition]) -> Section:
    """Return the section of scaling pictures, one per condition."""
    figures = [_scaling_figure(growth, condition) for condition in conditions]
    text = (
        "Points are simulated. A line is the form that AIC chose among 1, log₂P, (P−1)/P, P and √P, fitted by relative "
        f"error; the legend names it. Where no form is within {LARGEST_MISFIT:.0%} of every point, the points are "
        "joined. Vertical lines are crossovers of whole rounds; the bootstrap interval of the fitted curves is shaded."
    )
    return Section("Communication against P", text, figures)


def _scaling_figure(growth: Growth, condition: Condition) -> Figure:
    series = []
    for algorithm in growth.algorithms():
        seconds = growth.seconds(condition, algorithm, COMMUNICATION)
        title = growth.titles[algorithm]
        key = condition if (condition, algorithm) in growth.fits else condition.dense()
        fitted = growth.fits[key, algorithm]
        curve = [float(value) for value in fitted.at(growth.grid)] if fitted.describes else None
        name = title if curve is None else f"{title}: {BASIS[fitted.form] or 'constant'}"
        values = [seconds[workers] for workers in growth.grid]
        series.append(Series(name, growth.grid, values, fit=curve, algorithm=algorithm))
    marks = [
        Mark(f"→ {growth.titles[change.after]}", float(change.workers), *(change.interval or (None, None)))
        for (where, _), (change, *others) in growth.changes().items()
        if where in (condition, condition.dense()) and change.workers is not None and not others
    ]
    x, y = (
        Axis("workers P", 2, growth.grid[0] / 1.15, growth.grid[-1] * 1.15),
        Axis("exposed communication", 10, unit="s"),
    )
    title = f"Communication time: {condition.in_words()}"
    caption = f"Communication time of a round from P = {growth.grid[0]} to {growth.grid[-1]:,}."
    caption += " “→” is where the whole round of the named algorithm becomes the shorter one." if marks else ""
    return Figure(title, caption, lines(series, x, y, marks), PROVENANCE)


def crossings(growth: Growth) -> Section:
    """Return the section of crossovers, one table row per condition and pair of algorithms."""
    columns = [
        "topology",
        "bandwidth",
        "density",
        "faster at first",
        "faster at last",
        "changes",
        "from P",
        "last P before",
        "fitted P",
        "95% from",
        "to",
    ]
    rows = []
    for (condition, _), changes in growth.changes().items():
        last = changes[-1]
        before, after = last.bracket or (None, None)
        low, high = last.interval or (None, None)
        rows.append(
            [
                *condition,
                growth.titles[changes[0].before],
                growth.titles[last.after],
                len(changes),
                after,
                before,
                last.fitted,
                low,
                high,
            ]
        )
    text = (
        "The P at which the faster of two algorithms changes, in the time of a whole round. “from P” is simulated; it "
        "is exact if “last P before” is its predecessor. “fitted P” is where the fitted curves cross, with its "
        "bootstrap interval. If an order alternates, the table shows the last change, and conclusion.json all of them. "
        "In a row without “from P” the curves cross beyond the largest simulated P. Pairs without a row keep their "
        "order."
    )
    return Section("Crossovers", text, tables=[Table("crossovers", columns, rows, PROVENANCE)])


def efficiencies(growth: Growth) -> list[dict[str, Any]]:
    """Return round time, efficiency and speed-up for every curve and P, with a mini-batch per worker (weak scaling)."""
    return [
        condition._asdict()
        | {"algorithm": algorithm, "workers": workers, "round_time_s": outcomes[workers][ROUND]}
        | _efficiency(outcomes[workers], workers)
        for (condition, algorithm), outcomes in growth.curves.items()
        for workers in growth.grid
    ]


def _efficiency(outcome: Mapping[str, Any], workers: int) -> dict[str, float]:
    efficiency = outcome["compute_time_s"] / outcome[ROUND]
    return {"scaling_efficiency": efficiency, "speed_up": workers * efficiency}


def rounds(growth: Growth) -> Section:
    """Return the section of whole rounds at the largest P: times, their parts, and speed-up."""
    columns = [
        "topology",
        "bandwidth",
        "density",
        "algorithm",
        "workers",
        "round (s)",
        "scaling efficiency",
        "speed-up",
    ]
    condition, last = growth.conditions[0], growth.grid[-1]
    rows = [
        list((row | {"algorithm": growth.titles[row["algorithm"]]}).values())
        for row in efficiencies(growth)
        if row["workers"] == last
    ]
    outcomes = {growth.titles[name]: growth.outcomes(condition, name)[last] for name in growth.algorithms()}
    parts = {
        part: [outcome[key] for outcome in outcomes.values()]
        for part, key in (
            ("compute", "compute_time_s"),
            ("selection and merging", "select_time_s"),
            ("exposed communication", COMMUNICATION),
        )
    }
    speed_up = [
        Series(
            growth.titles[name],
            growth.grid,
            [_efficiency(growth.outcomes(condition, name)[workers], workers)["speed_up"] for workers in growth.grid],
            algorithm=name,
        )
        for name in growth.algorithms()
    ]
    ideal = Series("ideal", growth.grid, [float(workers) for workers in growth.grid])
    figures = [
        Figure(
            f"One round with {last} workers: {condition.in_words()}",
            "Compute, selection and exposed communication of a round, stacked; they sum to the round.",
            stacked_bars(list(outcomes), parts, Axis("round", least=0, unit="s")),
            PROVENANCE,
        ),
        Figure(
            f"Speed-up: {condition.in_words()}",
            "Speed-up over one worker, with a mini-batch per worker; the line is the ideal.",
            lines([*speed_up, ideal], Axis("workers P", 2), Axis("speed-up (P × efficiency)", 2)),
            PROVENANCE,
        ),
    ]
    text = "Other numbers of workers are in conclusion.json, under “scaling”."
    return Section("Whole rounds", text, figures, [Table(f"rounds with {last} workers", columns, rows, PROVENANCE)])


def traced_rounds(growth: Growth, drawn: Sequence[Finding]) -> Section:
    """Return the section of traced rounds: Gantt charts and link heat maps on the first topology.

    A topology that makes an algorithm slower adds a heat map of its links.
    """
    slower = {(each.condition.topology, each.algorithm) for each in growth.broken()}
    first = growth.conditions[0].topology
    figures = []
    for point, outcome in drawn:
        trace = Trace.from_dict(outcome["trace"])
        title = title_of(point["algorithm"]) + f" on {point['topology']}"
        network = f"{point['workers']} workers, {condition_of(point).in_words()}"
        if point["topology"] == first:
            figures.append(gantt_of(trace, title, network))
        if point["topology"] == first or (point["topology"], point["algorithm"]) in slower:
            figures.append(links_of(trace, title, network))
    text = (
        "Rounds at the first bandwidth and density. The links of another topology are shown if it makes an algorithm "
        "much slower."
    )
    return Section("One round over time", text, figures)


def fits(growth: Growth) -> Section:
    """Return the section of fits, one table row per curve."""
    columns = [
        "algorithm",
        "topology",
        "bandwidth",
        "density",
        "k",
        "form",
        "intercept (s)",
        "slope (s)",
        "slope from",
        "slope to",
        "chosen again",
        "worst error",
    ]
    rows = []
    for (condition, algorithm), fitted in growth.fits.items():
        selected = growth.curves[condition, algorithm][growth.grid[0]]["k"]
        rows.append(
            [
                growth.titles[algorithm],
                *condition,
                selected,
                fitted.form,
                fitted.offset,
                fitted.slope,
                *fitted.slope_interval,
                fitted.support,
                fitted.worst,
            ]
        )
    text = (
        "time = intercept + slope · form(P). “chosen again” is the fraction of bootstrap resamples that choose the "
        "same form. “worst error” is the largest relative distance from a simulated point. Simulated points contain no "
        "noise, so intervals reflect the misfit of the form; a form that fits exactly has an interval of width 0. No "
        "interval covers the difference between the network model and a real network."
    )
    return Section("Fits", text, tables=[Table("fits", columns, rows, PROVENANCE)])
