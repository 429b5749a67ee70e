"""The gTop-k authors' cluster: its α–β costs simulated, and its throughput at P = 16 and 32 predicted from P ≤ 8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Series, against, lines
from netsim.study_engine import Finding, Point
from studies.calibration import Calibration, Key, calibrate
from studies.intervals import doublings, interval
from studies.paper_figures import ALPHA_S, BETA_S, THROUGHPUT, THROUGHPUT_OF_MORE

ALGORITHMS = {"dense": "S-SGD", "topk": "Top-k", "gtopk": "gTop-k"}
MODELS: dict[str, dict[str, Any]] = {
    "VGG-16": {"workload": "vgg16"},
    "ResNet-20": {"workload": "resnet20"},
    "AlexNet": {"model": "alexnet"},
    "ResNet-50": {"model": "resnet50"},
    "LSTM-PTB": {"model": "lstm-ptb"},
}
BANDWIDTH_BPS = round(32 / BETA_S)
"""The authors' β as bit/s: an element has 32 bits."""
DENSITY = 1e-3
POOR = 0.05
"""Error of a fit (fraction) above which the limits name the model."""
CALIBRATED, PREDICTED = (4, 8), (16, 32)
ALTERNATIVES: dict[str, tuple[str, ...]] = {
    "dense": ("dense:segment=none", "dense-tree"),
    "topk": ("topk:gather=bruck", "topk:gather=ring"),
    "gtopk": ("gtopk",),
}
"""The collectives by which the authors may have exchanged; the first of each is that of the paper's formula.

A pipelined ring is not among them: at these sizes it takes at most 3 % less than a ring of whole chunks.
"""
PLACEMENTS = ("rank-order", "cyclic")
"""How ranks may lie on two switches: one half on each, or in turn."""
UNKNOWN = (
    "The authors name neither the collective of their MPI nor their switches. The 95 % intervals cover two switches of "
    "half the workers each, joined by one link of the workers' rate, with ranks in order or in turn, and other "
    "collectives. All of these were simulated. At P ≤ 8 one switch is assumed, as the fit there does not need a second."
)
FORMS = {
    "dense": "2(P-1)α + 2((P-1)/P) d β",
    "topk": "α log₂P + 2(P-1) k β",
    "gtopk": "2α log₂P + 4k log₂P β",
}


def network_points() -> list[Point]:
    """Return one exchange of every model with every algorithm, on a star with the authors' α and β.

    At the predicted P, further points have two switches, or another collective.
    """
    return [
        model
        | {
            "algorithm": algorithm,
            "workers": workers,
            "timing_only": True,
            "density": DENSITY,
            "bandwidth": BANDWIDTH_BPS,
            "latency": ALPHA_S,
        }
        | network
        for model in MODELS.values()
        for algorithms in ALTERNATIVES.values()
        for workers in (*CALIBRATED, *PREDICTED)
        for algorithm in algorithms[: None if workers in PREDICTED else 1]
        for network in ({}, *(two_switches(workers) if workers in PREDICTED else ()))
    ]


def two_switches(workers: int) -> list[dict[str, Any]]:
    """Return the options of two switches with half of the workers each and one link between them, by placement."""
    topology = f"racks:size={workers // 2},uplink={BANDWIDTH_BPS}bps"
    return [{"topology": topology, "placement": placement} for placement in PLACEMENTS]


def _is_nominal(point: Point) -> bool:
    """Return whether a point has one switch and the paper's collective."""
    return "topology" not in point and point["algorithm"] == ALTERNATIVES[_name_of(point)][0]


def _name_of(point: Point) -> str:
    return next(name for name, algorithms in ALTERNATIVES.items() if point["algorithm"] in algorithms)


def closed_form(name: str, workers: int, elements: int, k: int) -> float:
    """Return the seconds of an exchange by the formulas of :data:`FORMS`."""
    rounds = math.log2(workers)
    return {
        "dense": 2 * (workers - 1) * ALPHA_S + 2 * (workers - 1) / workers * elements * BETA_S,
        "topk": ALPHA_S * rounds + 2 * (workers - 1) * k * BETA_S,
        "gtopk": 2 * ALPHA_S * rounds + 4 * k * rounds * BETA_S,
    }[name]


def costs(findings: Sequence[Finding]) -> tuple[Table, float]:
    """Return a table of simulated times beside closed forms, and the greatest relative difference."""
    rows: list[list[Any]] = []
    for point, outcome in filter(lambda finding: _is_nominal(finding.point), findings):
        name, k = _name_of(point), max(1, math.floor(point["density"] * outcome["elements"]))
        form = closed_form(name, point["workers"], outcome["elements"], k)
        rows.append(
            [
                _model_of(point),
                ALGORITHMS[name],
                point["workers"],
                outcome["comm_time_s"],
                form,
                outcome["comm_time_s"] / form - 1,
                FORMS[name],
            ]
        )
    columns = ["model", "algorithm", "P", "simulated (s)", "closed form (s)", "difference (fraction)", "form"]
    provenance = "SIMULATED and COMPUTED; α and β PUBLISHED"
    return Table("Costs of an exchange", columns, rows, provenance), max(abs(row[5]) for row in rows)


@dataclass(frozen=True, slots=True)
class Predicted:
    """A predicted throughput of a worker in samples/s.

    `nominal` is the 95 % interval for one switch and the paper's collectives; `interval` also covers the alternatives.
    """

    model: str
    algorithm: str
    workers: int
    value: float
    nominal: tuple[float, float]
    interval: tuple[float, float]
    published: float

    def as_json(self) -> dict[str, Any]:
        """Return the prediction as a JSON object."""
        return {
            "samples_per_s": self.value,
            "interval_95_of_one_switch": self.nominal,
            "interval_95": self.interval,
            "published": self.published,
        }


def prediction(findings: Sequence[Finding]) -> tuple[Section, dict[str, Any], list[str], list[str]]:
    """Return the predicted throughputs as a section, as JSON and as sentences, and sentences on their limits."""
    network: dict[str, dict[Key, list[float]]] = {model: {} for model in MODELS}
    for point, outcome in sorted(findings, key=lambda finding: not _is_nominal(finding.point)):
        seconds = network[_model_of(point)].setdefault((_name_of(point), point["workers"]), [])
        seconds.append(outcome["comm_time_s"])
    fits = {model: _Fitted.of(model, seconds) for model, seconds in network.items()}
    predictions = _predicted(fits)
    data: dict[str, Any] = {}
    for predicted in predictions:
        by_workers = data.setdefault(predicted.model, {}).setdefault(predicted.algorithm, {})
        by_workers[str(predicted.workers)] = predicted.as_json()
    hosts: list[list[Any]] = [
        [
            model,
            fitted.fit.batch,
            *(fitted.fit.hosts[name] / fitted.fit.per_sample for name in ALGORITHMS),
            fitted.fit.error,
        ]
        for model, fitted in fits.items()
    ]
    section, sentences = _section(fits, predictions, hosts), [_sentence(predictions), _coverage(predictions)]
    return section, data, sentences, [_doubt(hosts), UNKNOWN]


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The fit to the published throughputs of one model at P ≤ 8, and the simulated seconds of its exchanges.

    `seconds` holds all alternatives of an exchange, the nominal one first.
    """

    measured: dict[Key, float]
    seconds: dict[Key, list[float]]
    fit: Calibration

    @classmethod
    def of(cls, model: str, seconds: dict[Key, list[float]]) -> _Fitted:
        (alone,) = THROUGHPUT[model][1]
        measured = _by_key({workers: THROUGHPUT[model][workers] for workers in CALIBRATED})
        return cls(measured, seconds, calibrate(alone, measured, {key: seconds[key][0] for key in measured}))

    def at(self, key: Key) -> float:
        return self.fit.throughput(key[0], self.seconds[key][0])

    def interval(self, key: Key, alternatives: int | None = None) -> tuple[float, float]:
        """Return the 95 % interval in samples/s, over a number of alternatives or over all of them."""
        throughputs = [self.fit.throughput(key[0], seconds) for seconds in self.seconds[key][:alternatives]]
        low, high = interval(throughputs, self.fit.noise.factor(doublings(key[1], CALIBRATED)))
        return low, min(high, 1 / self.fit.seconds_alone)  # an exchange cannot make a worker faster


def _by_key(rows: Mapping[int, Sequence[float]]) -> dict[Key, float]:
    return {
        (name, workers): value
        for workers, values in rows.items()
        for name, value in zip(ALGORITHMS, values, strict=True)
    }


def _predicted(fits: Mapping[str, _Fitted]) -> list[Predicted]:
    """Return all predictions."""
    return [
        Predicted(model, *key, fits[model].at(key), fits[model].interval(key, 1), fits[model].interval(key), published)
        for model, rows in THROUGHPUT_OF_MORE.items()
        for key, published in _by_key(rows).items()
    ]


def _doubt(hosts: list[list[Any]]) -> str:
    poor = [f"{row[0]} ({row[-1]:.1%})" for row in hosts if row[-1] > POOR]
    return (
        "The host cost does not depend on P in this model. Work that grows with P, such as adding P sparse vectors, "
        "would lower the predictions." + (f" The fit is worst for {', '.join(poor)} (rms error)." if poor else "")
    )


def _sentence(predictions: Sequence[Predicted]) -> str:
    of_16 = {
        model: [f"{each.value:.3g}" for each in predictions if (each.model, each.workers) == (model, 16)]
        for model in MODELS
    }
    told = "; ".join(f"{model} {' / '.join(values)}" for model, values in of_16.items())
    return (
        f"PREDICTED for 16 workers of the authors' cluster, from their P ≤ 8, in samples/s per worker "
        f"({' / '.join(ALGORITHMS.values())}): {told}."
    )


def _coverage(predictions: Sequence[Predicted]) -> str:
    """Return a sentence on how many published figures lie inside both kinds of interval."""
    nominal, wide = (
        sum(low <= each.published <= high for each, (low, high) in zip(predictions, bounds, strict=True))
        for bounds in ([each.nominal for each in predictions], [each.interval for each in predictions])
    )
    width = median(math.sqrt(each.interval[1] / each.interval[0]) - 1 for each in predictions)
    off = min(predictions, key=lambda each: each.published / each.value)
    return (
        f"Of the {len(predictions)} figures PUBLISHED for {' and '.join(map(str, PREDICTED))} workers, {nominal} lie "
        f"within the 95 % intervals of one switch, and {wide} within those that cover two switches and other "
        f"collectives (median half-width {width:.0%}). The largest error: {off.model}, {ALGORITHMS[off.algorithm]}, "
        f"{off.workers} workers, published {off.published:.3g}, predicted {off.value:.3g}."
    )


def _section(fits: Mapping[str, _Fitted], predictions: Sequence[Predicted], hosts: list[list[Any]]) -> Section:
    columns = [
        "model",
        "algorithm",
        "P",
        "PUBLISHED (samples/s)",
        "model (samples/s)",
        "95 % of one switch: from",
        "one switch: to",
        "95 % from",
        "95 % to",
    ]
    rows: list[list[Any]] = [
        [model, ALGORITHMS[key[0]], key[1], value, of.at(key), *of.interval(key), *of.interval(key)]
        for model, of in fits.items()
        for key, value in of.measured.items()
    ] + [
        [
            each.model,
            ALGORITHMS[each.algorithm],
            each.workers,
            each.published,
            each.value,
            *each.nominal,
            *each.interval,
        ]
        for each in predictions
    ]
    throughput = Table("Throughput of a worker", columns, rows, "FITTED at P = 4 and 8, PREDICTED at 16 and 32")
    calibrated = Table(
        "Calibration from P ≤ 8",
        [
            "model",
            "mini-batch that fits (samples)",
            *(f"host cost of {name} (s)" for name in ALGORITHMS.values()),
            "error (fraction, rms)",
        ],
        hosts,
        "FITTED",
    )
    figures = [_throughput_figure(model, [row for row in rows if row[0] == model]) for model in fits]
    fitted = [
        Series(model, list(of.measured.values()), [of.at(key) for key in of.measured]) for model, of in fits.items()
    ]
    figures.append(
        Figure(
            "Fitted against published",
            "At P = 4 and 8, to which the model was fitted: one mini-batch and one host cost per algorithm explain "
            "three algorithms.",
            against(fitted, Axis("published (samples/s)", 10), Axis("fitted (samples/s)", 10), "fitted = published"),
            "PUBLISHED, FITTED",
        )
    )
    text = (
        "Seconds per sample at P workers = seconds alone + (simulated exchange + host cost) / mini-batch. The "
        "mini-batch, common to the three algorithms, and one host cost per algorithm are fitted to the published "
        "figures at P = 4 and 8. The exchange at 16 and 32 is simulated. The 95 % interval of one switch covers the "
        "residuals of the fit, which grow with every doubling of P beyond 8. The other 95 % interval also covers two "
        "switches with a shared link between them, ranks placed in turn, and other collectives, all simulated."
    )
    return Section("Throughput of the authors' cluster", text, figures, [throughput, calibrated])


def _throughput_figure(model: str, rows: list[list[Any]]) -> Figure:
    by_name = {
        name: sorted((row for row in rows if row[1] == name), key=lambda row: row[2]) for name in ALGORITHMS.values()
    }
    lows, highs = ({name: [row[column] for row in rows] for name, rows in by_name.items()} for column in (7, 8))
    series = [
        Series(
            name,
            [row[2] for row in rows],
            [row[3] for row in rows],
            lows[name],
            highs[name],
            fit=[row[4] for row in rows],
            algorithm=algorithm,
        )
        for (name, rows), algorithm in zip(by_name.items(), ALGORITHMS, strict=True)
    ]
    caption = (
        "Points are published. Lines are the model, fitted at P = 4 and 8 and predicted at 16 and 32. Bands are 95 % "
        "intervals; at 16 and 32 they cover two switches and other collectives."
    )
    return Figure(
        f"{model}: throughput of a worker",
        caption,
        lines(series, Axis("workers P", 2), Axis("samples/s per worker", least=0)),
        "PUBLISHED points, FITTED and PREDICTED lines",
    )


def _model_of(point: Point) -> str:
    return next(name for name, options in MODELS.items() if options.items() <= point.items())
