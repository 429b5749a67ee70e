"""The bandwidth that a compute utilisation needs, by method, model and number of workers.

Compute utilisation is the share of time in which workers compute: c / t, with c the compute time of a step and t the
mean time of a step in a long run. The study finds the least bandwidth of all links for each utilisation by bisection.

For the models of the Streaming DiLoCo paper, it compares with the paper's own simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pydantic import Field

from algorithms import class_of, own_options, title_of, with_options
from netsim._util.errors import UsageError
from netsim._util.units import format_bandwidth, parse_duration, read_number
from netsim.experiment.configuration import Experiment
from netsim.experiment.options import MOST_ELEMENTS
from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Series, lines
from netsim.simulator.opening import open_session
from netsim.study_engine import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study_engine.checks import checked
from studies.utilisation_published import NEXT, PAPER, PaperUtilisation

PROVENANCE = "SIMULATED network; compute ASSUMED"
LEAST_BPS, MOST_BPS = 10**6, 10**13
"""The bandwidths between which the study searches."""
CLOSE = 1.001
"""The factor within which a bandwidth is found."""
CURVE = 12
"""Bandwidths of a curve."""


class StudiedModel(NamedTuple):
    """A model: its name, number of elements and layers, and the seconds of a step's computation."""

    name: str
    elements: int
    step_s: float
    layers: int


class UtilisationSettings(Settings):
    """The settings of the study.

    A model is a name, its elements, the time of a step and its layers. Methods that can exchange layers during the
    backward pass do so; methods with fragments have one for every `fragment_layers` layers.
    """

    methods: tuple[str, ...] = (
        "dense:segment=none",
        "diloco:h=100",
        "streaming-diloco:h=100,tau=0",
        "streaming-diloco:h=100",
        "streaming-diloco:h=100,fp4=true",
    )
    models: tuple[str, ...] = ("1B:1e9:100ms:24", "10B:1e10:800ms:48", "100B:1e11:4.9s:108")
    workers: tuple[int, ...] = (2, 8)
    targets: tuple[float, ...] = (0.5, 0.75, 0.9, 0.95, 0.99)
    fragment_layers: int = Field(default=3, ge=1)
    latency: str = "50us"
    dtype: str = "bf16"


def points(settings: UtilisationSettings) -> list[Point]:
    """Return a point for each method, model and number of workers."""
    if not all(0 < target < 1 for target in settings.targets):
        raise UsageError(f"targets {settings.targets} must lie between 0 and 1, such as 0.5,0.9")
    wanted: list[Point] = []
    for workers in settings.workers:
        for model in map(shape_of, settings.models):
            for method in settings.methods:
                options = options_of(settings, method, model, workers)
                published = [each.bandwidth_bps for each in _published(settings, model, method, workers)]
                wanted.append(
                    options
                    | {
                        "scale": -(-model.elements // MOST_ELEMENTS),
                        "targets": settings.targets,
                        "bandwidths": sorted({*published, *(round(each * NEXT) for each in published)}),
                    }
                )
    checked([_options(point, LEAST_BPS) for point in wanted])
    return wanted


def shape_of(text: str) -> StudiedModel:
    """Return a model from a text such as ``1B:1e9:100ms:24``."""
    parts = text.split(":")
    numbers = [read_number(part) for part in (*parts[1:2], *parts[3:])]
    if len(parts) != 4 or not all(number is not None and number >= 1 for number in numbers):
        raise UsageError(f"model {text!r} must be NAME:ELEMENTS:STEP:LAYERS, such as 1B:1e9:100ms:24")
    elements, layers = (int(number) for number in numbers if number is not None)
    return StudiedModel(parts[0], elements, parse_duration(parts[2], "step of a model"), layers)


def options_of(settings: UtilisationSettings, method: str, model: StudiedModel, workers: int) -> dict[str, Any]:
    """Return the options of ``netsim simulate`` for a method, without the bandwidth."""
    method = with_options(method, fragments=max(1, model.layers // settings.fragment_layers))
    dtype = "fp32" if own_options(method).get("fp4") else settings.dtype
    options = {
        "algorithm": method,
        "workers": workers,
        "elements": model.elements,
        "compute_time": model.step_s,
        "latency": settings.latency,
        "dtype": dtype,
        "timing_only": True,
    }
    if class_of(method).overlaps:
        options |= {"overlap": model.layers, "communicator": "serial"}
    return options


def _options(point: Point, bandwidth_bps: int) -> dict[str, Any]:
    """Return the options of a simulation; more elements than an int32 counts are divided, and bandwidths with them."""
    scale = point["scale"]
    options = {name: value for name, value in point.items() if name not in ("scale", "targets", "bandwidths")}
    options |= {"elements": point["elements"] // scale, "bandwidth": f"{max(1, bandwidth_bps // scale)}bps"}
    if "overlap" in options:
        value_bytes = Experiment.of(dtype=point["dtype"]).value_bytes
        options["overlap"] = f"{-(-options['elements'] * value_bytes // point['overlap'])}B"
    return options


def measure(point: Point) -> Outcome:
    """Return the least bandwidth for each target, the utilisation at the named bandwidths, and a curve.

    A step's time is the difference between runs of two periods and of one, so that neither begin nor end of a run
    counts.
    """

    @cache
    def utilisation(bandwidth_bps: int) -> float:
        options = _options(point, bandwidth_bps)
        period = Experiment.of(**options).round_count
        one, two = (_seconds(options | {"rounds": rounds}) for rounds in (period, 2 * period))
        return float(period * point["compute_time"] / (two - one))

    curve = [round(LEAST_BPS * (MOST_BPS / 10 / LEAST_BPS) ** (step / (CURVE - 1))) for step in range(CURVE)]
    return {
        "needed_bps": [least(utilisation, target, curve) for target in point["targets"]],
        "at": [[bandwidth, utilisation(bandwidth)] for bandwidth in point["bandwidths"]],
        "curve": [[bandwidth, utilisation(bandwidth)] for bandwidth in curve],
    }


def _seconds(options: Mapping[str, Any]) -> float:
    experiment = Experiment.of(**options)
    (name,) = experiment.algorithms
    with open_session(experiment) as session:
        return experiment.round_count * session.simulate(name).round_time_s


def least(utilisation: Callable[[int], float], target: float, known: Sequence[int]) -> int | None:
    """Return the least bandwidth in bit/s, within 0.1 %, at which the utilisation reaches a target; None if none does.

    Bandwidths that are `known` narrow the search.
    """
    if utilisation(MOST_BPS) < target:
        return None
    low = max((bandwidth for bandwidth in known if utilisation(bandwidth) < target), default=LEAST_BPS)
    high = min((bandwidth for bandwidth in known if utilisation(bandwidth) >= target), default=MOST_BPS)
    while high > low * CLOSE:
        middle = round((low * high) ** 0.5)
        if utilisation(middle) < target:
            low = middle
        else:
            high = middle
    return high


def _published(settings: UtilisationSettings, model: StudiedModel, method: str, workers: int) -> list[PaperUtilisation]:
    """Return what the paper says of a method, if the settings are the paper's."""
    if workers != PAPER.workers or settings.dtype != "bf16" or settings.fragment_layers != 3:
        return []
    if (model.elements, model.step_s, model.layers) != PAPER.models.get(model.name):
        return []
    return [each for each in PAPER.rows if (each.model, each.method) == (model.name, method)]


def conclude(settings: UtilisationSettings, findings: Sequence[Finding]) -> Conclusion:
    """Conclude which method needs the least bandwidth, and how far the paper's simulation agrees."""
    found = list(_named(settings, findings))
    compared = [row for workers, model, method, finding in found for row in _compared(settings, model, method, finding)]
    shapes = list(dict.fromkeys(each[:2] for each in found))
    sentences = [_sentence(settings, *shape, found) for shape in shapes]
    rows = [
        [
            workers,
            model.name,
            model.step_s,
            title_of(finding.point["algorithm"]),
            *_gigabits(finding.outcome["needed_bps"]),
        ]
        for workers, model, _, finding in found
    ]
    sections = [
        _curves(found),
        Section(
            "Bandwidth for a compute utilisation",
            tables=[
                Table(
                    "Least bandwidth of all links (Gbit/s)",
                    ["workers", "model", "step (s)", "method", *(f"{target:.0%}" for target in settings.targets)],
                    rows,
                    PROVENANCE,
                )
            ],
        ),
    ]
    data: dict[str, Any] = {
        "targets": list(settings.targets),
        "needed_bps": [
            {
                "workers": workers,
                "model": model.name,
                "method": finding.point["algorithm"],
                "bps": finding.outcome["needed_bps"],
            }
            for workers, model, _, finding in found
        ],
    }
    if compared:
        told, agreement = _agreement(compared)
        sentences += told
        data |= {"paper": compared, **agreement}
        sections.append(_comparison(compared))
    return Conclusion(sentences, data, sections, _limits(settings))


Named = tuple[int, StudiedModel, str, Finding]
"""A finding with its number of workers, its model and its method."""


def _named(settings: UtilisationSettings, findings: Sequence[Finding]) -> Iterator[Named]:
    named = [
        (workers, model, method)
        for workers in settings.workers
        for model in map(shape_of, settings.models)
        for method in settings.methods
    ]
    for (workers, model, method), finding in zip(named, findings, strict=True):
        yield workers, model, method, finding


def _gigabits(bandwidths_bps: Sequence[int | None]) -> list[float | None]:
    return [None if each is None else each / 1e9 for each in bandwidths_bps]


def _needed(
    settings: UtilisationSettings, workers: int, model: StudiedModel, found: Sequence[Named]
) -> tuple[str, list[str], list[str]]:
    """Return a target in words, the bandwidths that it needs, least first, and the methods that never reach it.

    The target is the highest one up to 90 %, or the highest one if all are above.
    """
    place = max(range(len(settings.targets)), key=lambda each: (settings.targets[each] <= 0.9, settings.targets[each]))
    needed = [
        (finding.outcome["needed_bps"][place], title_of(finding.point["algorithm"]))
        for *which, _, finding in found
        if which == [workers, model]
    ]
    reached = sorted((bps, title) for bps, title in needed if bps is not None)
    told = [f"{format_bandwidth(float(f'{bps:.3g}'))} with {title}" for bps, title in reached]
    what = f"{settings.targets[place]:.0%} compute utilisation of {model.name} and {workers} workers"
    return what, told, [title for bps, title in needed if bps is None]


def _sentence(settings: UtilisationSettings, workers: int, model: StudiedModel, found: Sequence[Named]) -> str:
    """Return the bandwidth that each method needs."""
    what, told, never = _needed(settings, workers, model, found)
    return f"{what} needs {'; '.join([*told, *(f'no bandwidth suffices with {title}' for title in never)])}."


def _curves(found: Sequence[Named]) -> Section:
    figures = []
    for workers, model in dict.fromkeys(each[:2] for each in found):
        series = [
            Series(
                title_of(finding.point["algorithm"]),
                *_columns(finding.outcome["curve"]),
                algorithm=finding.point["algorithm"],
            )
            for *which, _, finding in found
            if which == [workers, model]
        ]
        svg = lines(
            series, Axis("bandwidth of a link", 10, unit="bit/s"), Axis("compute utilisation (fraction)", least=0)
        )
        figures.append(
            Figure(
                f"{model.name}, {workers} workers",
                f"{model.elements:,} elements, a step of {model.step_s:g} s.",
                svg,
                PROVENANCE,
            )
        )
    return Section("Compute utilisation against bandwidth", figures=figures)


def _columns(curve: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [bandwidth for bandwidth, _ in curve], [utilisation for _, utilisation in curve]


def _compared(
    settings: UtilisationSettings, model: StudiedModel, method: str, finding: Finding
) -> list[dict[str, Any]]:
    """Return the paper's utilisations of a method beside the simulated ones."""
    simulated = dict(map(tuple, finding.outcome["at"]))
    return [
        {
            "model": model.name,
            "method": title_of(finding.point["algorithm"]),
            "source": each.source,
            "training": each.training,
            "bandwidth_bps": each.bandwidth_bps,
            "published": each.utilisation,
            "simulated": simulated[each.bandwidth_bps],
            "at_next": simulated[round(each.bandwidth_bps * NEXT)],
            "points": 100 * (simulated[each.bandwidth_bps] - each.utilisation),
        }
        for each in _published(settings, model, method, finding.point["workers"])
    ]


def _agreement(compared: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """Return how many published utilisations are reproduced, in sentences and as numbers."""
    stated = [row for row in compared if row["source"] == PAPER.stated]
    tabled = [row for row in compared if row["source"] == PAPER.table]
    close = [row for row in tabled if abs(row["points"]) <= 2]
    reached = [row for row in tabled if row["simulated"] - 0.02 <= row["published"] <= row["at_next"] + 0.02]
    sentences = []
    if stated:
        worst = max(stated, key=lambda row: abs(row["points"]))
        sentences.append(
            f"{PAPER.stated}: {len(stated)} utilisations at {format_bandwidth(stated[0]['bandwidth_bps'])} differ by "
            f"at most {abs(worst['points']):.1f} points ({worst['method']}: {worst['simulated']:.1%}, published "
            f"{worst['published']:.1%})."
        )
    if tabled:
        worst = max(tabled, key=lambda row: abs(row["points"]))
        sentences.append(
            f"{PAPER.table}: at {len(close)} of {len(tabled)} published bandwidths the simulated utilisation is within "
            f"2 points of the published one; the largest difference is {worst['points']:+.1f} points "
            f"({worst['method']}, {worst['model']}). The paper's bandwidths lie on a grid of factor {NEXT}. Between a "
            f"published bandwidth and the next one of the grid, {len(reached)} of {len(tabled)} published utilisations "
            "are reached within 2 points."
        )
    counts = {"compared": len(tabled), "within_2_points": len(close), "within_2_points_of_a_grid_step": len(reached)}
    return sentences, {"agreement": counts}


def _comparison(compared: Sequence[Mapping[str, Any]]) -> Section:
    cells = [
        [
            ", ".join(filter(None, (row["source"], row["training"]))),
            row["model"],
            row["method"],
            row["bandwidth_bps"] / 1e9,
            row["published"],
            row["simulated"],
            row["at_next"],
            row["points"],
        ]
        for row in compared
    ]
    columns = [
        *("source", "model", "method", "bandwidth (Gbit/s)", "published", "simulated", f"at {NEXT} × bandwidth"),
        "difference (points)",
    ]
    note = "Published values are their authors' simulation, not measurements."
    return Section("Beside the paper's simulation", tables=[Table(note, columns, cells, "PUBLISHED and SIMULATED")])


def _limits(settings: UtilisationSettings) -> list[str]:
    return [
        "Workers are hosts of a star whose links are all alike; a worker's own devices exchange nothing here.",
        f"ASSUMED: the time of a step, a third of it for the forward pass, links of {settings.latency}, and no time "
        "for optimisers and packing.",
        f"Values in messages are {settings.dtype}, except for methods with 4-bit values.",
        "Dense gradients are exchanged layer by layer during the backward pass, one layer after another.",
        "A local step of DiLoCo does not overlap the exchange that follows it, unless τ is above 0. The paper overlaps "
        "exchanges with one backward pass.",
        "Steps are compared, not training: methods need different numbers of steps to the same loss.",
    ]


STUDY = Study(
    name="utilisation",
    title="Bandwidth for a compute utilisation",
    settings=UtilisationSettings,
    points=points,
    measure=measure,
    conclude=conclude,
    quick={"models": ("1B:1e9:100ms:24",), "workers": (2,)},
    needs="about half an hour; no data and no GPU",
)
