"""The gTop-k authors' cluster: its α–β costs simulated, and its throughput predicted from P ≤ 8 for more workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Series, against, lines
from netsim.study import Finding, Point
from netsim.study.calibration import Key, calibrate, intervals
from studies.published import ALPHA_S, BETA_S, THROUGHPUT

ALGORITHMS = {"dense": "S-SGD", "topk": "Top-k", "gtopk": "gTop-k"}
MODELS: dict[str, dict[str, Any]] = {
    "VGG-16": {"workload": "vgg16"},
    "ResNet-20": {"workload": "resnet20"},
    "AlexNet": {"model": "alexnet"},
    "ResNet-50": {"model": "resnet50"},
    "LSTM-PTB": {"model": "lstm-ptb"},
}
POOR = 0.05
"""An error of the fit that is said in words."""
CALIBRATED, PREDICTED = (4, 8), (16, 32)
FORMS = {
    "dense": "2(P-1)α + 2((P-1)/P) d β",
    "topk": "α log₂P + 2(P-1) k β",
    "gtopk": "2α log₂P + 4k log₂P β",
}


def network_points() -> list[Point]:
    """Return an exchange of every model by every algorithm, on a star with the authors' α and β."""
    return [
        model | {
            "algorithm": name, "workers": workers, "timing_only": True, "density": 1e-3, "gather": "doubling",
            "bandwidth": round(32 / BETA_S), "latency": ALPHA_S,
        }
        for model in MODELS.values()
        for name in ALGORITHMS
        for workers in (*CALIBRATED, *PREDICTED)
    ]  # fmt: skip


def closed_form(name: str, workers: int, elements: int, k: int) -> float:
    """Return the seconds of :data:`FORMS`."""
    rounds = math.log2(workers)
    return {
        "dense": 2 * (workers - 1) * ALPHA_S + 2 * (workers - 1) / workers * elements * BETA_S,
        "topk": ALPHA_S * rounds + 2 * (workers - 1) * k * BETA_S,
        "gtopk": 2 * ALPHA_S * rounds + 4 * k * rounds * BETA_S,
    }[name]


def costs(findings: Sequence[Finding]) -> tuple[Table, float]:
    """Return the α–β table, simulated beside the closed forms, and their greatest relative difference."""
    rows: list[list[Any]] = []
    for point, found in findings:
        name, k = point["algorithm"], max(1, math.floor(point["density"] * found["elements"]))
        form = closed_form(name, point["workers"], found["elements"], k)
        rows.append([_model_of(point), ALGORITHMS[name], point["workers"], found["comm_time_s"], form,
                     found["comm_time_s"] / form - 1, FORMS[name]])  # fmt: skip
    columns = ["model", "algorithm", "P", "simulated (s)", "closed form (s)", "difference (fraction)", "form"]
    provenance = "SIMULATED and COMPUTED; α and β PUBLISHED"
    return Table("Costs of an exchange", columns, rows, provenance), max(abs(row[5]) for row in rows)


def prediction(findings: Sequence[Finding]) -> tuple[Section, dict[str, Any], list[str]]:
    """Return the section with the predicted throughputs, the same as data, and sentences; the second is a limit."""
    network = {
        (_model_of(point), point["algorithm"], point["workers"]): found["comm_time_s"] for point, found in findings
    }
    rows: list[list[Any]] = []
    hosts: list[list[Any]] = []
    data: dict[str, Any] = {}
    fitted: dict[str, Series] = {}
    for model, throughputs in THROUGHPUT.items():
        (alone,) = throughputs[1]
        measured: dict[Key, float] = {
            (name, workers): value
            for workers in CALIBRATED
            for name, value in zip(ALGORITHMS, throughputs[workers], strict=True)
        }
        seconds: dict[Key, float] = {key[1:]: value for key, value in network.items() if key[0] == model}
        fit = calibrate(alone, measured, seconds)
        asked: list[Key] = [(name, workers) for workers in PREDICTED for name in ALGORITHMS]
        bounds = intervals(alone, measured, seconds, [*measured, *asked])
        hosts.append([model, fit.batch, *(fit.hosts[name] / fit.per_sample for name in ALGORITHMS), fit.error])
        for name, workers in (*measured, *asked):
            value = fit.throughput(name, seconds[name, workers])
            low, high = bounds[name, workers]
            rows.append([model, ALGORITHMS[name], workers, measured.get((name, workers)), value, low, high])
            if workers in PREDICTED:
                data.setdefault(model, {}).setdefault(name, {})[str(workers)] = [value, low, high]
        fitted[model] = Series(
            model, list(measured.values()), [fit.throughput(name, seconds[name, at]) for name, at in measured]
        )
    return _section(rows, hosts, list(fitted.values())), data, [_sentence(data), _doubt(hosts)]


def _doubt(hosts: list[list[Any]]) -> str:
    poor = [f"{row[0]} ({row[-1]:.1%})" for row in hosts if row[-1] > POOR]
    return (
        "The host term does not depend on P in this model; work that grows with P, such as adding P sparse vectors, "
        "would lower predictions."
        + (f" The fit leaves most over for {', '.join(poor)}: trust those least." if poor else "")
    )


def _sentence(data: dict[str, Any]) -> str:
    told = "; ".join(
        f"{model} " + " / ".join(f"{of[name]['16'][0]:.3g}" for name in ALGORITHMS) for model, of in data.items()
    )
    return (
        f"PREDICTED for 16 workers of the authors' cluster, from their P ≤ 8, in samples/s a worker "
        f"({' / '.join(ALGORITHMS.values())}): {told}. No published figure for more than 8 workers was used, or "
        "compared with."
    )


def _section(rows: list[list[Any]], hosts: list[list[Any]], fitted: list[Series]) -> Section:
    columns = ["model", "algorithm", "P", "PUBLISHED (samples/s)", "model (samples/s)", "95 % from", "95 % to"]
    throughput = Table("Throughput of a worker", columns, rows, "PREDICTED where nothing is published; else FITTED")
    calibrated = Table(
        "Calibration from P ≤ 8", ["model", "mini-batch that fits (samples)",
        *(f"host term of {name} (s)" for name in ALGORITHMS.values()), "error (fraction, rms)"], hosts, "FITTED",
    )  # fmt: skip
    workers = sorted({row[2] for row in rows})
    figures = [
        Figure(
            f"{model}: throughput of a worker", "Points at P = 4 and 8 are published; lines are the model with its "
            "95 % interval; at P = 16 and 32 they are predictions.",
            lines(
                [
                    Series(name, workers, [row[4] for row in own], [row[5] for row in own],
                           [row[6] for row in own], points=False)
                    for name in ALGORITHMS.values()
                    if (own := [row for row in rows if row[:2] == [model, name]])
                ] + [
                    Series(f"{name}, published", [row[2] for row in own], [row[3] for row in own], like=name,
                           line=False)
                    for name in ALGORITHMS.values()
                    if (own := [row for row in rows if row[:2] == [model, name] and row[3]])
                ],
                Axis("workers P", 2), Axis("samples/s a worker", least=0),
            ),
            "PUBLISHED points, PREDICTED lines",
        )
        for model in THROUGHPUT
    ]  # fmt: skip
    figures.append(
        Figure(
            "What the fit leaves over", "At P = 4 and 8, which it was made from: how well one network term and one "
            "host term explain three algorithms.",
            against(fitted, Axis("published (samples/s)", 10), Axis("fitted (samples/s)", 10), "fitted = published"),
            "PUBLISHED, FITTED",
        )
    )  # fmt: skip
    text = (
        "Seconds of a sample at P workers = seconds alone + (simulated exchange + host term) / mini-batch. The "
        "mini-batch, common to the three algorithms, and a host term of each are fitted to the published P = 4 and 8; "
        "the exchange at 16 and 32 is then simulated. These predictions stand here before anything is compared with "
        "them."
    )
    return Section("Throughput of the authors' cluster", text, figures, [throughput, calibrated])


def _model_of(point: Point) -> str:
    return next(name for name, options in MODELS.items() if options.items() <= point.items())
