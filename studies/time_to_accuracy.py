"""Accuracy against simulated seconds, bytes and uploads, on networks of several bandwidths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from pydantic import Field

from algorithms import with_options
from netsim._util.units import format_bytes, format_duration, format_factor, parse_bandwidth
from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Series, lines, stacked_bars
from netsim.study_engine import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study_engine.checks import checked
from netsim.study_engine.traced import one_round, trace_point
from netsim.study_engine.trained import train_point

PROVENANCE = "SIMULATED network, real gradients; compute ASSUMED"


class TimeSettings(Settings):
    """The settings of the study; `target` is a test accuracy.

    Vectors are summed over workers, not averaged, so `lr` is 1/P of the rate for a mean.
    """

    algorithms: tuple[str, ...] = ("dense", "topk", "gtopk", "ps", "ps-topk", "lasg-wk2", "sasg")
    bandwidths: tuple[str, ...] = ("10Mbps", "100Mbps", "1Gbps", "10Gbps")
    latency: str = "50us"
    workload: str = "fc-mnist"
    data: str = "mnist"
    workers: int = Field(default=10, ge=1)
    batch_size: int = 10
    rounds: int = Field(default=3000, ge=1)
    evaluations: int = Field(default=60, ge=1)
    lr: float = 0.005
    density: float = 0.01
    alpha: float = 0.5
    compute_time: str = "5ms"
    select_time: str = "1ms"
    merge_time: str = "0.1ms"
    target: float = Field(default=0.95, gt=0, le=1)
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)


def points(settings: TimeSettings) -> list[Point]:
    """Return every algorithm on every network; the training is the same on each, only the times differ."""
    same = settings.model_dump(exclude={"algorithms", "alpha", "bandwidths", "evaluations", "target", "seeds"})
    same |= {"aggregate": "sum", "per_tensor": True, "sampling": "epochs"}
    same["eval_every"] = max(1, settings.rounds // settings.evaluations)
    trained: list[Point] = [
        same | {"algorithm": algorithm, "bandwidth": bandwidth, "seed": seed}
        for bandwidth in settings.bandwidths
        for algorithm in _algorithms(settings)
        for seed in settings.seeds
    ]
    shown = {"bandwidth": _middle(settings), "timing_only": True, "rounds": 1, "eval_every": 0}
    return checked(trained + [same | shown | {"algorithm": algorithm} for algorithm in _algorithms(settings)])


def _algorithms(settings: TimeSettings) -> list[str]:
    return [with_options(name, alpha=settings.alpha) for name in settings.algorithms]


def _middle(settings: TimeSettings) -> str:
    return settings.bandwidths[len(settings.bandwidths) // 2]


def measure(point: Point) -> Outcome:
    """Train; or, with sizes only, return the trace of a round."""
    return trace_point(point) if point.get("timing_only") else train_point(point)


def reached(curve: Mapping[str, Sequence[Any]], target: float) -> int | None:
    """Return the index of the first evaluation at or above the target; None without one."""
    return next((index for index, accuracy in enumerate(curve["test_accuracy"]) if accuracy >= target), None)


def bytes_up(curve: Mapping[str, Sequence[Any]], evaluation: int) -> float:
    """Return the bytes of values and indices that all workers sent until the evaluation of an index."""
    return float(curve["value_bits_up"][evaluation] + curve["index_bits_up"][evaluation]) / 8


def conclude(settings: TimeSettings, findings: Sequence[Finding]) -> Conclusion:
    """Conclude which algorithm reaches the target first on each network, with fewest bytes, and with fewest uploads."""
    traced = [finding for finding in findings if finding.point.get("timing_only")]
    findings = [finding for finding in findings if not finding.point.get("timing_only")]
    rows = [
        _row(settings, bandwidth, [finding for finding in findings if _is(finding, bandwidth, algorithm)])
        for bandwidth in settings.bandwidths
        for algorithm in _algorithms(settings)
    ]
    sentences, winners = _winners(settings, rows)
    shown = [finding for finding in findings if finding.point["seed"] == settings.seeds[0]]
    return Conclusion(
        sentences,
        {"target": settings.target, "winners": winners},
        [
            *_by_time(settings, shown),
            _by_bytes(settings, shown),
            _parts(settings, shown),
            one_round(traced, f"links of {_middle(settings)}"),
            Section("All results", tables=[_table(settings, rows)]),
        ],
        [
            f"Trained: {settings.workload} on {settings.data}, {settings.rounds:,} rounds, {settings.workers} workers, "
            f"seeds {', '.join(map(str, settings.seeds))}. Curves show the first seed. Another task may order the "
            "algorithms differently.",
            f"ASSUMED times, so that results do not depend on the machine: {settings.compute_time} per gradient, "
            f"{settings.select_time} per selection, {settings.merge_time} per merge. Rules that compare two gradients "
            "take two.",
            f"Accuracy is evaluated every {max(1, settings.rounds // settings.evaluations)} rounds, which limits the "
            "resolution of times.",
            "Without a parameter server every worker uploads once per round. With a server, a skipped upload does not "
            "count.",
            "A parameter server runs on worker 0's host and shares the host's link.",
        ],
    )


def _is(finding: Finding, bandwidth: str, algorithm: str) -> bool:
    return (finding.point["bandwidth"], finding.point["algorithm"]) == (bandwidth, algorithm)


def _row(settings: TimeSettings, bandwidth: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the results of one algorithm on one network, averaged over seeds.

    Results at the target are None if a seed did not reach it. ``times`` holds the seconds of each seed.
    """
    outcomes = [finding.outcome for finding in findings]
    ends = [(outcome["curve"], reached(outcome["curve"], settings.target)) for outcome in outcomes]
    at_target = [(curve, index) for curve, index in ends if index is not None]
    times = [curve["time_s"][index] for curve, index in at_target]
    everywhere = len(at_target) == len(ends)
    return {
        "bandwidth": bandwidth,
        "algorithm": outcomes[0]["title"],
        "time_s": fmean(times) if everywhere else None,
        "times": times if everywhere else None,
        "bytes": fmean(bytes_up(curve, index) for curve, index in at_target) if everywhere else None,
        "uploads": fmean(curve["uploads"][index] for curve, index in at_target) if everywhere else None,
        "accuracy": fmean(outcome["final_accuracy"] for outcome in outcomes),
        "round_s": fmean(outcome["round_time_s"] for outcome in outcomes),
        "comm_s": fmean(outcome["comm_time_s"] for outcome in outcomes),
    }


def _table(settings: TimeSettings, rows: Sequence[dict[str, Any]]) -> Table:
    columns = [
        "bandwidth",
        "algorithm",
        "time to target (s)",
        "least (s)",
        "greatest (s)",
        "bytes sent to target (B)",
        "uploads to target",
        "final accuracy",
        "round (s)",
        "exposed communication (s)",
    ]
    cells = [
        [
            row["bandwidth"],
            row["algorithm"],
            row["time_s"],
            *((min(row["times"]), max(row["times"])) if row["times"] else (None, None)),
            row["bytes"],
            row["uploads"],
            row["accuracy"],
            row["round_s"],
            row["comm_s"],
        ]
        for row in rows
    ]
    title = f"To {settings.target:.0%} test accuracy, means of {_count(settings)}"
    return Table(title, columns, cells, PROVENANCE)


def _count(settings: TimeSettings) -> str:
    return f"{len(settings.seeds)} seed{'' if len(settings.seeds) == 1 else 's'}"


def _winners(settings: TimeSettings, rows: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    winners: dict[str, Any] = {"time": {}}
    told, leads = [], []
    for bandwidth in settings.bandwidths:
        there = [row for row in rows if row["bandwidth"] == bandwidth and row["times"]]
        if not there:
            continue
        first, *others = sorted(there, key=lambda row: row["time_s"])
        winners["time"][bandwidth] = first["algorithm"]
        told.append(f"{_equals(there, first, 'time_s')} at {bandwidth} after {format_duration(first['time_s'])}")
        if others := [row for row in others if row["time_s"] > first["time_s"]]:
            leads.append(f"{bandwidth}: {_lead(first, others)}")
    if not told:
        best = max(rows, key=lambda row: row["accuracy"])
        return [
            f"No algorithm reached {settings.target:.0%} with every seed; the best was {best['algorithm']} with "
            f"{best['accuracy']:.1%}. Give more rounds, or a lower target."
        ], winners
    means = f" (means of {_count(settings)})" if len(settings.seeds) > 1 else ""
    sentences = [f"First to {settings.target:.0%} test accuracy{means}: " + "; ".join(told) + "."]
    least, fewest = (
        min((row for row in rows if row[key] is not None), key=lambda row: row[key]) for key in ("bytes", "uploads")
    )
    winners |= {"bytes": least["algorithm"], "uploads": fewest["algorithm"]}
    same = all(
        len({row[key] for row in rows if row["algorithm"] == best["algorithm"]}) == 1
        for key, best in (("bytes", least), ("uploads", fewest))
    )
    sentences.append(
        f"Fewest bytes sent: {_equals(rows, least, 'bytes')} ({format_bytes(least['bytes'])}); fewest uploads: "
        f"{_equals(rows, fewest, 'uploads')} ({fewest['uploads']:,.0f})"
        + ("; neither depends on the bandwidth." if same else f", at {least['bandwidth']} and {fewest['bandwidth']}.")
    )
    if leads:
        sentences.append(f"Lead over the second: {'; '.join(leads)}.")
    never = sorted({row["algorithm"] for row in rows if row["times"] is None})
    return sentences + ([f"Not every seed reached the target with {', '.join(never)}."] if never else []), winners


def _equals(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any], key: str) -> str:
    """Return the algorithms of all rows with the value of the best row."""
    return " and ".join(dict.fromkeys([best["algorithm"]] + [r["algorithm"] for r in rows if r[key] == best[key]]))


def _lead(first: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Return the second with its time as a multiple of the first's, and the seeds with which the first leads."""
    ahead = sum(all(time < other["times"][seed] for other in others) for seed, time in enumerate(first["times"]))
    count = len(first["times"])
    seeds = f", {first['algorithm']} is first with {ahead} of {count} seeds" if count > 1 else ""
    return f"{others[0]['algorithm']} takes {format_factor(others[0]['time_s'] / first['time_s'])} as long{seeds}"


def _by_time(settings: TimeSettings, findings: Sequence[Finding]) -> list[Section]:
    figures = []
    for bandwidth in settings.bandwidths:
        there = [finding.outcome for finding in findings if finding.point["bandwidth"] == bandwidth]
        series = [_series(run, run["curve"]["time_s"]) for run in there]
        svg = lines(
            series, Axis("simulated time", 10, unit="s"), Axis("test accuracy (fraction)"), levels=_target(settings)
        )
        figures.append(
            Figure(
                f"Accuracy against seconds at {bandwidth}",
                f"A curve further left is faster. {settings.workload} on {settings.data}, {settings.workers} workers, "
                f"links of {bandwidth} ({parse_bandwidth(bandwidth):,} bit/s).",
                svg,
                PROVENANCE,
            )
        )
    return [Section("Time to accuracy", figures=figures)]


def _parts(settings: TimeSettings, findings: Sequence[Finding]) -> Section:
    """Return the parts of an average round on every network."""
    figures = []
    for bandwidth in settings.bandwidths:
        there = [finding.outcome for finding in findings if finding.point["bandwidth"] == bandwidth]
        names = [run["title"] for run in there]
        parts = {
            name: [run[key] for run in there]
            for name, key in (
                ("compute", "compute_time_s"),
                ("selection and merging", "select_time_s"),
                ("exposed communication", "comm_time_s"),
            )
        }
        svg = stacked_bars(names, parts, Axis("average round", least=0, unit="s"))
        figures.append(
            Figure(f"A round at {bandwidth}", "Exposed communication is not hidden by computation.", svg, PROVENANCE)
        )
    return Section("Parts of a round", figures=figures)


def _by_bytes(settings: TimeSettings, findings: Sequence[Finding]) -> Section:
    there = [finding.outcome for finding in findings if finding.point["bandwidth"] == settings.bandwidths[0]]
    quantities: dict[str, tuple[str, str, Callable[[Any], Sequence[float]]]] = {
        "bytes": (
            "bytes sent by all workers",
            "B",
            lambda curve: [bytes_up(curve, index) for index in range(len(curve["step"]))],
        ),
        "uploads": ("uploads of single workers", "", lambda curve: curve["uploads"]),
    }
    figures = [
        Figure(
            f"Accuracy against {name}",
            "The same at every bandwidth, because the bandwidth changes times only.",
            lines(
                [_series(run, quantity(run["curve"])) for run in there],
                Axis(label, 10, unit=unit),
                Axis("test accuracy (fraction)"),
                levels=_target(settings),
            ),
            PROVENANCE,
        )
        for name, (label, unit, quantity) in quantities.items()
    ]
    return Section("Bytes and uploads to accuracy", figures=figures)


def _series(run: Outcome, x: Sequence[float]) -> Series:
    """Return the accuracy of a run against a quantity at each evaluation."""
    return Series(run["title"], x, run["curve"]["test_accuracy"], algorithm=run["algorithm"])


def _target(settings: TimeSettings) -> dict[str, float]:
    return {f"target {settings.target:.0%}": settings.target}


STUDY = Study(
    name="time-to-accuracy",
    title="Time to accuracy on networks of several bandwidths",
    settings=TimeSettings,
    points=points,
    measure=measure,
    conclude=conclude,
    quick={
        "data": "digits",
        "rounds": 120,
        "evaluations": 30,
        "target": 0.8,
        "seeds": (0, 1),
        "algorithms": ("dense", "topk", "gtopk", "ps-topk", "sasg"),
        "bandwidths": ("10Mbps", "100Mbps", "1Gbps"),
    },
    needs="MNIST (netsim fetch mnist --data-dir DATA) and --data-dir DATA; no GPU",
)
