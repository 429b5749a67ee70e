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
from netsim.study import Conclusion, Finding, Point, Settings, Study
from netsim.study.fits import FEWEST
from netsim.study.growth import COMMUNICATION, ROUND, Condition, Growth
from netsim.study.simulated import simulate_point
from netsim.study.words import in_words

PROVENANCE = "SIMULATED; charges for computing ASSUMED"
SELECTION = ("select_time", "merge_time")


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
        for density in (settings.densities if ALGORITHMS[algorithm.partition(":")[0]].sparse else (None,))
        for workers in sorted(set(settings.workers))
    ]
    for point in found:
        Experiment.of(**point)
    return found


def _point(settings: ScalingSettings, condition: Condition, algorithm: str, workers: int) -> Point:
    same = ("latency", "fan_out", "model", "compute_time", *SELECTION, "seed")
    name, _, gather = algorithm.partition(":")
    point = {"workers": workers, "algorithm": name, "gather": gather or None} | condition._asdict()
    point |= {name: getattr(settings, name) for name in same} | {"timing_only": True}
    return {name: value for name, value in point.items() if value is not None}


def refine(settings: ScalingSettings, findings: Sequence[Finding]) -> list[Point]:
    """Ask for the middle of every bracket in which the faster of two algorithms changes."""
    growth = Growth(findings, settings.workers, settings.seed)
    return [_point(settings, *wanted) for wanted in growth.open_brackets(settings.exact_up_to)]


def conclude(settings: ScalingSettings, findings: Sequence[Finding]) -> Conclusion:
    """Fit, compare, and say it."""
    growth = Growth(findings, settings.workers, settings.seed)
    sections = [_curves(growth, settings), _crossings(growth), _rounds(growth, settings), _fits(growth)]
    data = {"fits": [], "crossovers": []} | growth.as_json() | {"scaling": _efficiencies(growth, settings)}
    return Conclusion(in_words(growth), data, sections, _limits(settings))


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
        Mark(
            _mark(growth, each.crossover.after),
            float(each.crossover.workers),
            *(each.crossover.interval or (None, None)),
        )
        for each in growth.crossovers
        if each.condition in (condition, condition.dense()) and each.crossover.workers is not None
    ]
    x, y = Axis("workers P", 2), Axis("exposed communication (s)", 10)
    title = f"Communication time: {condition.in_words()}"
    caption = f"Communication time of a round from P = {growth.grid[0]} to {growth.grid[-1]}, both axes logarithmic."
    return Figure(title, caption, lines(series, x, y, marks), PROVENANCE)


def _mark(growth: Growth, algorithm: str) -> str:
    return f"→ {growth.titles[algorithm]}"


def _crossings(growth: Growth) -> Section:
    columns = ["topology", "bandwidth", "density", "faster before", "faster after", "from P", "last P before",
               "fitted P", "95% from", "to"]  # fmt: skip
    rows = []
    for condition, each in growth.crossovers:
        before, after = each.bracket or (None, None)
        low, high = each.interval or (None, None)
        rows.append(
            [*condition, growth.titles[each.before], growth.titles[each.after], after, before, each.fitted, low, high]
        )
    text = (
        "Where the faster of two algorithms changes, in the time of a whole round. “from P” is simulated, and exact "
        "where “last P before” is the number before it; “fitted P” is where the fitted curves cross, with its "
        "bootstrap interval. A row without “from P” was not simulated: the curves cross beyond the largest P. Pairs "
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
        f"Crossovers up to P = {settings.exact_up_to} are simulated at every P that decides them; those above lie "
        "between two simulated P.",
    ]


STUDY = Study(
    name="scaling",
    title="How communication grows with the number of workers",
    settings=ScalingSettings,
    points=points,
    measure=simulate_point,
    refine=refine,
    conclude=conclude,
    quick={
        "workers": (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96),
        "algorithms": ("dense", "topk", "gtopk"),
        "bandwidths": ("1Gbps", "10Gbps"),
        "exact_up_to": 96,
    },
)
