"""How communication grows with P: which law each algorithm obeys, where the order changes, where a topology breaks it.

Varies the number of workers, bandwidth, density, topology and algorithm, with sizes only. Concludes with a form and its
intervals for every curve, the crossover of every two algorithms, iteration time, scaling efficiency and speed-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from algorithms import ALGORITHMS
from netsim.errors import UsageError, check_choice
from netsim.experiment import Experiment
from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Mark, Series, lines, stacked_bars
from netsim.study import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study.fits import FEWEST
from netsim.study.growth import COMMUNICATION, ROUND, Condition, Growth, condition_of, title_of, variant_of
from netsim.study.simulated import simulate_point
from netsim.study.traced import RANKS, gantt_of, links_of, trace_point
from netsim.study.words import in_words
from netsim.trace import Trace

PROVENANCE = "SIMULATED; charges for computing ASSUMED"
SELECTION = ("select_time", "merge_time")
DRAWN = "drawn"
"""Marks the points of which the report shows a round."""


class ScalingSettings(Settings):
    """What varies (lists) and what does not; the first topology is the one that the others are compared with.

    An algorithm may say how it gathers: ``topk:doubling``.
    """

    workers: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
    algorithms: tuple[str, ...] = ("dense", "dense-tree", "topk", "topk:doubling", "gtopk", "ps")
    topologies: tuple[str, ...] = ("star", "racks:size=8,oversubscription=8", "ring")
    bandwidths: tuple[str, ...] = ("1Gbps", "10Gbps", "100Gbps")
    densities: tuple[float, ...] = (0.001, 0.003, 0.01)
    latency: str = "50us"
    fan_out: int = 8
    model: str = "resnet50"
    compute_time: str = "120ms"
    select_time: str = "0s"
    merge_time: str = "0s"
    exact_up_to: int = 256
    seed: int = 0


def points(settings: ScalingSettings) -> list[Point]:
    """Return a point for every P of every curve."""
    if len(set(settings.workers)) < FEWEST or min(settings.workers) < 2:
        raise UsageError(f"workers {list(settings.workers)} must be at least {FEWEST} different numbers from 2 on")
    for name in settings.algorithms:
        check_choice("algorithm", name.partition(":")[0], ALGORITHMS)
    networks = product(settings.topologies, settings.bandwidths, settings.algorithms)
    found = [
        _point(settings, Condition(topology, bandwidth, density), algorithm, workers)
        for topology, bandwidth, algorithm in networks
        for density in (settings.densities if _sparse(algorithm) else (None,))
        for workers in sorted(set(settings.workers))
    ]
    for point in found:
        Experiment.of(**point)
    return found + _rounds_to_draw(settings)


def _rounds_to_draw(settings: ScalingSettings) -> list[Point]:
    """Return a round of every algorithm to draw, on every topology at the first bandwidth and density."""
    at_most = [workers for workers in settings.workers if workers <= RANKS] or [min(settings.workers)]
    return [
        {**_point(settings, Condition(topology, settings.bandwidths[0], density), algorithm, max(at_most)), DRAWN: True}
        for topology in settings.topologies
        for algorithm in settings.algorithms
        for density in (settings.densities[0] if _sparse(algorithm) else None,)
    ]


def _sparse(algorithm: str) -> bool:
    return ALGORITHMS[algorithm.partition(":")[0]].sparse


def measure(point: Point) -> Outcome:
    """Return what one algorithm took, or, where it is to be drawn, all that went on."""
    options = {name: value for name, value in point.items() if name != DRAWN}
    return trace_point(options) if DRAWN in point else simulate_point(options)


def _point(settings: ScalingSettings, condition: Condition, algorithm: str, workers: int) -> Point:
    same = ("latency", "fan_out", "model", "compute_time", *SELECTION, "seed")
    name, _, gather = algorithm.partition(":")
    point = {"workers": workers, "algorithm": name, "gather": gather or None} | condition._asdict()
    point |= {name: getattr(settings, name) for name in same} | {"timing_only": True}
    return {name: value for name, value in point.items() if value is not None}


def refine(settings: ScalingSettings, findings: Sequence[Finding]) -> list[Point]:
    """Ask for the middle of every bracket in which the faster of two algorithms changes."""
    growth = Growth(_fitted(findings), settings.workers, settings.seed)
    return [_point(settings, *wanted) for wanted in growth.open_brackets(settings.exact_up_to)]


def conclude(settings: ScalingSettings, findings: Sequence[Finding]) -> Conclusion:
    """Fit, compare, and say it."""
    growth = Growth(_fitted(findings), settings.workers, settings.seed)
    drawn = [each for each in findings if DRAWN in each.point]
    sections = [_curves(growth, settings), _crossings(growth), _rounds(growth, settings), _as_it_goes(drawn, settings),
                _fits(growth)]  # fmt: skip
    data = {"fits": [], "crossovers": []} | growth.as_json() | {"scaling": _efficiencies(growth, settings)}
    return Conclusion(in_words(growth), data, sections, _limits(settings))


def _fitted(findings: Sequence[Finding]) -> list[Finding]:
    return [each for each in findings if DRAWN not in each.point]


def _curves(growth: Growth, settings: ScalingSettings) -> Section:
    """Return the scaling pictures: one for every network at the first density."""
    density, bandwidth = settings.densities[0], settings.bandwidths[0]
    conditions = [Condition(topology, bandwidth, density) for topology in settings.topologies]
    conditions += [Condition(settings.topologies[0], other, density) for other in settings.bandwidths[1:]]
    figures = [_scaling_figure(growth, condition) for condition in conditions]
    text = (
        "Points are simulated; lines are the form that AIC chose of 1, log₂P, (P−1)/P, P and √P, fitted by relative "
        "error. Vertical lines are crossovers of whole rounds, with the bootstrap interval of the fitted curves shaded."
    )
    return Section("Communication along P", text, figures)


def _scaling_figure(growth: Growth, condition: Condition) -> Figure:
    series = []
    for algorithm in growth.algorithms():
        seconds = growth.seconds(condition, algorithm, COMMUNICATION)
        title = growth.titles[algorithm]
        key = condition if (condition, algorithm) in growth.fits else condition.dense()
        fitted = growth.fits[key, algorithm]
        series.append(Series(title, growth.grid, [seconds[workers] for workers in growth.grid], line=False))
        curve = fitted.at(growth.grid)
        if (curve > 0).all():
            name = f"{title}: {fitted.form}"
            series.append(Series(name, growth.grid, [float(each) for each in curve], like=title, points=False))
    marks = [
        Mark(f"→ {growth.titles[only.after]}", float(only.workers), *(only.interval or (None, None)))
        for (where, _), (only, *others) in growth.changes().items()
        if where in (condition, condition.dense()) and only.workers is not None and not others
    ]
    x, y = Axis("workers P", 2), Axis("exposed communication (s)", 10)
    title = f"Communication time: {condition.in_words()}"
    caption = f"Communication time of a round from P = {growth.grid[0]} to {growth.grid[-1]}, both axes logarithmic."
    return Figure(title, caption, lines(series, x, y, marks), PROVENANCE)


def _crossings(growth: Growth) -> Section:
    columns = ["topology", "bandwidth", "density", "faster at first", "faster at last", "changes", "from P",
               "last P before", "fitted P", "95% from", "to"]  # fmt: skip
    rows = []
    for (condition, _), changes in growth.changes().items():
        last = changes[-1]
        before, after = last.bracket or (None, None)
        low, high = last.interval or (None, None)
        rows.append([*condition, growth.titles[changes[0].before], growth.titles[last.after], len(changes), after,
                     before, last.fitted, low, high])  # fmt: skip
    text = (
        "Where the faster of two algorithms changes, in the time of a whole round. “from P” is simulated, and exact "
        "where “last P before” is the number before it; “fitted P” is where the fitted curves cross, with its "
        "bootstrap interval. Of an order that goes to and fro the last change stands here, and all of them in "
        "conclusion.json. A row without “from P” was not simulated: the curves cross beyond the largest P. Pairs "
        "that are not here keep their order."
    )
    return Section("Crossovers", text, tables=[Table("crossovers", columns, rows, PROVENANCE)])


def _efficiencies(growth: Growth, settings: ScalingSettings) -> list[dict[str, Any]]:
    """Return round time, efficiency and speed-up for every curve and P, each worker having its own batch."""
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


def _rounds(growth: Growth, settings: ScalingSettings) -> Section:
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
    rows = [list(each.values()) for each in _efficiencies(growth, settings) if each["workers"] == last]
    outcomes = {growth.titles[name]: growth.outcomes(condition, name)[last] for name in growth.algorithms()}
    parts = {
        part: [outcome[key] for outcome in outcomes.values()]
        for part, key in (
            ("compute", "compute_time_s"),
            ("selection", "select_time_s"),
            ("exposed communication", COMMUNICATION),
        )
    }
    speed_up = [
        Series(
            growth.titles[name],
            growth.grid,
            [_efficiency(growth.outcomes(condition, name)[workers], workers)["speed_up"] for workers in growth.grid],
        )
        for name in growth.algorithms()
    ]
    ideal = Series("ideal", growth.grid, [float(workers) for workers in growth.grid], points=False)
    figures = [
        Figure(
            f"One round with {last} workers: {condition.in_words()}",
            "Compute, selection and exposed communication of a round, stacked; they sum to the round.",
            stacked_bars(list(outcomes), parts, Axis("seconds a round (s)")),
            PROVENANCE,
        ),
        Figure(
            f"Speed-up: {condition.in_words()}",
            "Speed-up over one worker, each worker having its own mini-batch; the line is the ideal.",
            lines([*speed_up, ideal], Axis("workers P", 2), Axis("speed-up (workers' worth)", 2)),
            PROVENANCE,
        ),
    ]
    text = "Other numbers of workers are in conclusion.json, under “scaling”."
    return Section("Whole rounds", text, figures, [Table(f"rounds with {last} workers", columns, rows, PROVENANCE)])


def _as_it_goes(drawn: Sequence[Finding], settings: ScalingSettings) -> Section:
    """Return a Gantt chart of every algorithm on the first topology, and heat maps of the links of the others, too."""
    figures = []
    for point, found in drawn:
        trace = Trace.from_dict(found["trace"])
        title = title_of(variant_of(point)) + f" on {point['topology']}"
        network = f"{point['workers']} workers, {condition_of(point).in_words()}"
        if point["topology"] == settings.topologies[0]:
            figures.append(gantt_of(trace, title, network))
        figures.append(links_of(trace, title, network))
    return Section("One round, as it goes", figures=figures)


def _fits(growth: Growth) -> Section:
    columns = ["algorithm", "topology", "bandwidth", "density", "k", "form", "intercept (s)", "slope (s)", "slope from",
               "slope to", "chosen again", "worst error"]  # fmt: skip
    rows = []
    for (condition, algorithm), each in growth.fits.items():
        selected = growth.curves[condition, algorithm][growth.grid[0]]["k"]
        rows.append([algorithm, *condition, selected, each.form, each.intercept, each.slope, *each.slope_interval,
                     each.support, each.worst])  # fmt: skip
    text = (
        "time = intercept + slope · form(P). “chosen again” is the share of bootstrap resamples that choose the same "
        "form; “worst error” the largest relative distance from a simulated point. Simulated points are exact, so the "
        "intervals come from what the form misses, not from noise: an exact form has an interval of no width, and no "
        "interval says how far the model of the network is from a real one."
    )
    return Section("Fits", text, tables=[Table("fits", columns, rows, PROVENANCE)])


def _limits(settings: ScalingSettings) -> list[str]:
    return [
        f"Computing is ASSUMED, not measured: {settings.compute_time} a step, {settings.select_time} a selection, "
        f"{settings.merge_time} a merge; change them with --set.",
        f"The network is a model: links of one bandwidth, {settings.latency} one way from host to host, no protocol "
        "headers, no other traffic.",
        "Computing and communication do not overlap.",
        "Only sizes are simulated: how many rounds a density needs to reach an accuracy is another question.",
        f"Crossovers up to P = {settings.exact_up_to} are exact: every P from the power of two below to the one above "
        "is simulated; those above lie between two simulated P. An order that changes and changes back between two P "
        "of the grid, far from any crossover, is not seen.",
    ]


STUDY = Study(
    name="scaling",
    title="How communication grows with the number of workers",
    settings=ScalingSettings,
    points=points,
    measure=measure,
    refine=refine,
    conclude=conclude,
    quick={
        "workers": (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96),
        "algorithms": ("dense", "topk", "topk:doubling", "gtopk"),
        "bandwidths": ("1Gbps", "10Gbps"),
        "exact_up_to": 32,
    },
)
