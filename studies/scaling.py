"""How communication grows with P: the law of each algorithm, crossovers, and topologies on which a law fails.

The study varies the number of workers P, bandwidth, density, topology and algorithm, and simulates sizes only. It
concludes with a fitted form for every curve, the crossovers of every two algorithms, round times, scaling efficiency
and speed-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from pydantic import Field

from algorithms import class_of, own_options
from netsim._util.errors import UsageError
from netsim._util.units import parse_bandwidth
from netsim.experiment.options import OWN
from netsim.study_engine import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study_engine.checks import checked
from netsim.study_engine.simulated import simulate_point
from netsim.study_engine.traced import RANKS, trace_point
from studies import scaling_report as report
from studies.fits import FEWEST
from studies.growth import Condition, Growth, own_bandwidth
from studies.words import in_words
from topologies import taken

SELECTION = ("select_time", "merge_time")
DRAWN = "drawn"
"""Key of the points whose round the report draws."""


class ScalingSettings(Settings):
    """The settings of the study; lists vary, and other topologies are compared with the first one.

    An algorithm may name its options: ``topk:gather=bruck`` has another all-gather. With ``segment=none``, rings
    forward whole chunks, as in the papers' forms. `engine` is the option ``--engine`` of ``netsim simulate``. If the
    file or the keys of a topology set every link, `bandwidths` and `latency` must be ``own``.
    """

    workers: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096)
    algorithms: tuple[str, ...] = (
        "dense:segment=none",
        "dense-tree",
        "topk:segment=none",
        "topk:gather=bruck",
        "gtopk",
    )
    topologies: tuple[str, ...] = ("star", "racks:size=8,oversubscription=8", "ring")
    bandwidths: tuple[str, ...] = ("1Gbps", "10Gbps", "100Gbps")
    densities: tuple[float, ...] = (0.001, 0.003, 0.01)
    latency: str = "50us"
    fan_out: int = 8
    model: str = "resnet50"
    compute_time: str = "120ms"
    select_time: str = "0s"
    merge_time: str = "0s"
    exact_up_to: int = Field(default=256, ge=0)
    engine: str = "auto"
    seed: int = 0


def points(settings: ScalingSettings) -> list[Point]:
    """Return a point for every P of every curve, and the rounds to draw."""
    if len(set(settings.workers)) < FEWEST or min(settings.workers) < 2:
        raise UsageError(
            f"workers {list(settings.workers)} must be at least {FEWEST} different numbers, each at least 2"
        )
    for name in settings.algorithms:
        own_options(name)
    _check_links(settings)
    networks = product(settings.topologies, range(len(settings.bandwidths)), settings.algorithms)
    along_p = [
        _point(settings, _condition(settings, topology, index, density), algorithm, workers)
        for topology, index, algorithm in networks
        for density in (settings.densities if _sparse(algorithm) else (None,))
        for workers in sorted(set(settings.workers))
    ]
    return checked(along_p) + _rounds_to_draw(settings)


def _check_links(settings: ScalingSettings) -> None:
    """Raise UsageError for settings that would repeat a point, such as a bandwidth that the topology ignores."""
    if OWN in settings.bandwidths and len(settings.bandwidths) > 1:
        raise UsageError(f"bandwidths {list(settings.bandwidths)} contain {OWN!r} and others; give {OWN!r} alone")
    bandwidths = [text if text == OWN else parse_bandwidth(text) for text in settings.bandwidths]
    lists = {"topologies": settings.topologies, "bandwidths": bandwidths, "densities": settings.densities}
    for name, values in lists.items():
        if len(set(values)) < len(values):
            raise UsageError(f"{name} {list(getattr(settings, name))} contain a value twice; give each value once")
    for topology in settings.topologies:
        takes = taken(topology)
        unused = {
            "bandwidths": not takes.bandwidth and settings.bandwidths != (OWN,),
            "latency": not takes.latency and settings.latency != OWN,
        }
        if wrong := [name for name, given in unused.items() if given]:
            fix = " and ".join(f"--set {name}={OWN}" for name in wrong)
            raise UsageError(
                f"topology {topology!r} sets the {' and '.join(wrong)} of every link itself, so points would repeat; "
                f"give {fix}"
            )


def _condition(settings: ScalingSettings, topology: str, index: int, density: float | None) -> Condition:
    """Return the condition of a topology at the bandwidth of an index."""
    bandwidth = settings.bandwidths[index]
    return Condition(topology, own_bandwidth(topology) if bandwidth == OWN else bandwidth, density)


def _rounds_to_draw(settings: ScalingSettings) -> list[Point]:
    """Return the rounds to draw: every algorithm on every topology, at the first bandwidth and density."""
    at_most = [workers for workers in settings.workers if workers <= RANKS] or [min(settings.workers)]
    return [
        {**_point(settings, _condition(settings, topology, 0, density), algorithm, max(at_most)), DRAWN: True}
        for topology in settings.topologies
        for algorithm in settings.algorithms
        for density in (settings.densities[0] if _sparse(algorithm) else None,)
    ]


def _sparse(algorithm: str) -> bool:
    return class_of(algorithm).sparse


def measure(point: Point) -> Outcome:
    """Simulate one algorithm; for a round to draw, return its trace."""
    if DRAWN not in point:
        return simulate_point(point)
    return trace_point({name: value for name, value in point.items() if name not in (DRAWN, "engine")})


def _point(settings: ScalingSettings, condition: Condition, algorithm: str, workers: int) -> Point:
    same = ("latency", "fan_out", "model", "compute_time", *SELECTION, "seed")
    point = {"workers": workers, "algorithm": algorithm} | condition._asdict()
    point |= {name: getattr(settings, name) for name in same} | {"timing_only": True}
    point |= {} if settings.engine == "auto" else {"engine": settings.engine}
    point |= {"bandwidth": OWN} if settings.bandwidths == (OWN,) else {}
    return {name: value for name, value in point.items() if value is not None}


def refine(settings: ScalingSettings, findings: Sequence[Finding]) -> list[Point]:
    """Return the points that locate the crossovers more closely."""
    growth = Growth(_fitted(findings), settings.workers, settings.seed)
    return [_point(settings, *wanted) for wanted in growth.open_brackets(settings.exact_up_to)]


def conclude(settings: ScalingSettings, findings: Sequence[Finding]) -> Conclusion:
    """Fit the curves, find the crossovers, and conclude."""
    growth = Growth(_fitted(findings), settings.workers, settings.seed)
    drawn = [finding for finding in findings if DRAWN in finding.point]
    sections = [
        report.curves(growth, _pictured(settings)),
        report.crossings(growth),
        report.rounds(growth),
        report.traced_rounds(growth, drawn),
        report.fits(growth),
    ]
    data = {"fits": [], "crossovers": []} | growth.as_json() | {"scaling": report.efficiencies(growth)}
    return Conclusion(in_words(growth), data, sections, _limits(settings))


def _pictured(settings: ScalingSettings) -> list[Condition]:
    """Return the conditions of the scaling pictures: all topologies, and all bandwidths on the first topology."""
    first, density = settings.topologies[0], settings.densities[0]
    pictured = [_condition(settings, topology, 0, density) for topology in settings.topologies]
    return pictured + [_condition(settings, first, index, density) for index in range(1, len(settings.bandwidths))]


def _links(settings: ScalingSettings) -> str:
    """Return bandwidth and latency of the links as text."""
    bandwidth = f"links of {'their own' if settings.bandwidths == (OWN,) else 'one'} bandwidth"
    if settings.latency == OWN:
        return f"{bandwidth} and {'' if OWN in settings.bandwidths else 'their own '}latency"
    return f"{bandwidth}, {settings.latency} one way from host to host"


def _fitted(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if DRAWN not in finding.point]


def _limits(settings: ScalingSettings) -> list[str]:
    return [
        f"Compute times are ASSUMED, not measured: {settings.compute_time} per step, {settings.select_time} per "
        f"selection, {settings.merge_time} per merge; change them with --set.",
        f"The network is a model: {_links(settings)}, no protocol headers, no other traffic.",
        "Computation and communication do not overlap.",
        "Only sizes are simulated; the number of rounds that a density needs to reach an accuracy is not.",
        f"Crossovers up to P = {settings.exact_up_to} are exact: every P from the power of two below to the one above "
        "is simulated. Crossovers at larger P lie between two simulated P. An order that changes and changes back "
        "between two P of the grid, far from any crossover, is not found.",
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
        "workers": (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512),
        "algorithms": ("dense:segment=none", "topk:segment=none", "topk:gather=bruck", "gtopk"),
        "bandwidths": ("1Gbps", "10Gbps"),
        "exact_up_to": 32,
    },
    needs="some minutes, and no data",
)
