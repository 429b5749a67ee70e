"""A sweep over options of ``netsim simulate``: the time of every combination, and the fastest one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any, ClassVar, TypeAlias

from pydantic import Field

from netsim._util.errors import UsageError
from netsim._util.units import format_duration, is_tie
from netsim.experiment.configuration import Experiment
from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, stacked_bars
from netsim.study_engine import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study_engine.checks import experiments_of
from netsim.study_engine.simulated import simulate_point

Value: TypeAlias = bool | int | float | str
SHOWN = {
    "round_time_s": "round (s)",
    "compute_time_s": "compute (s)",
    "select_time_s": "selection (s)",
    "comm_time_s": "exposed communication (s)",
    "value_bytes_up": "values sent/worker (B)",
    "index_bytes_up": "indices sent/worker (B)",
}
PARTS = {
    "compute_time_s": "compute",
    "select_time_s": "selection and merging",
    "comm_time_s": "exposed communication",
}
MOST_DRAWN = 24
CHARGES = ("compute_time", "select_time", "merge_time")


class SweepSettings(Settings):
    """Options with one value, and options with a list of values; names as in Python, such as ``compute_time``."""

    replaces: ClassVar[Mapping[str, Collection[str]]] = {"elements": ("model",), "workload": ("model",)}
    fixed: dict[str, Value] = Field(default={"timing_only": True, "model": "resnet50"})
    vary: dict[str, tuple[Value, ...]] = Field(
        default={
            "algorithm": ("dense", "topk", "gtopk"),
            "workers": (4, 8, 16, 32, 64),
            "bandwidth": ("1Gbps", "10Gbps"),
        }
    )


def points(settings: SweepSettings) -> list[Point]:
    """Return every combination; raise UsageError for unknown options, and for options that would run user code."""
    if twice := sorted(settings.fixed.keys() & settings.vary.keys()):
        raise UsageError(f"option {twice[0]!r} is both fixed and varied; give it once")
    combinations: list[Point] = [
        settings.fixed | dict(zip(settings.vary, values, strict=True)) for values in product(*settings.vary.values())
    ]
    for point, experiment in zip(combinations, experiments_of(combinations), strict=True):
        _check(experiment, point)
    return combinations


def _check(experiment: Experiment, point: Point) -> None:
    if len(experiment.algorithms) != 1:
        raise UsageError(
            f"algorithm {point.get('algorithm')!r} must be one name in each combination; vary it in a list"
        )
    if not experiment.timing_only and len(experiment.assumed_costs()) < 1 + len(CHARGES):
        raise UsageError(
            f"timing_only is off, and not all of {', '.join(CHARGES)} are given: measured times would differ from run "
            "to run; give all three, or timing_only = true"
        )


def conclude(settings: SweepSettings, findings: Sequence[Finding]) -> Conclusion:
    """Conclude on the fastest and slowest combination, and on how often each algorithm is fastest."""
    best = min(findings, key=_round_s)
    sentences = [_extremes(settings, findings)]
    wins: dict[str, int] = {}
    if "algorithm" in settings.vary:
        cases = _cases(settings.vary, findings)
        wins, ties = _wins(settings.vary, cases)
        told = ", ".join(f"{algorithm} is fastest in {count}" for algorithm, count in wins.items())
        tied = f"; in {ties} of them together with others, within 1%" if ties else ""
        sentences.append(f"Among {len(cases)} combinations of the other options, {told}{tied}.")
    rows = [[*(row.point[name] for name in settings.vary), *(row.outcome[name] for name in SHOWN)] for row in findings]
    assumed = sorted(
        {f"{name} {settings.fixed.get(name, 'not given')}" for name in CHARGES if name not in settings.vary}
    )
    return Conclusion(
        sentences,
        {"fastest": _row(best), "wins": wins},
        [
            Section(
                "All combinations",
                figures=[_drawn(settings, findings)],
                tables=[Table("combinations", [*settings.vary, *SHOWN.values()], rows, "SIMULATED")],
            )
        ],
        [*([f"ASSUMED, not measured: {', '.join(assumed)}."] if assumed else []), *_not_trained(findings)],
    )


def _not_trained(findings: Sequence[Finding]) -> list[str]:
    """Return a sentence if a workload gave only its sizes."""
    named = sorted({str(row.point["workload"]) for row in findings if "workload" in row.point})
    if not named or not all(row.point.get("timing_only") for row in findings):
        return []
    charges = ", ".join(CHARGES)
    return [
        f"Nothing was trained: messages have the sizes of {', '.join(named)}. To train, set timing_only = false and "
        f"{charges}."
    ]


def _drawn(settings: SweepSettings, findings: Sequence[Finding]) -> Figure:
    """Return a picture of the parts of a round of the fastest combinations."""
    fastest = sorted(findings, key=_round_s)[:MOST_DRAWN]
    names = [", ".join(str(finding.point[name]) for name in settings.vary) for finding in fastest]
    parts = {name: [float(finding.outcome[key]) for finding in fastest] for key, name in PARTS.items()}
    shown = "All combinations" if len(fastest) == len(findings) else f"The {MOST_DRAWN} fastest combinations"
    caption = f"{shown}, the fastest first, by {', '.join(settings.vary)}. The parts of a bar sum to the round."
    svg = stacked_bars(names, parts, Axis("round", least=0, unit="s"))
    return Figure("Time of a round", caption, svg, "SIMULATED")


def _round_s(finding: Finding) -> float:
    return float(finding.outcome["round_time_s"])


def _extremes(settings: SweepSettings, findings: Sequence[Finding]) -> str:
    """Return a sentence on the fastest and the slowest combination; of equals the first one, with their number."""
    ordered = sorted(findings, key=_round_s)
    ends = {"Fastest": ordered[0], "slowest": max(findings, key=_round_s)}
    counts = {name: sum(_round_s(each) == _round_s(end) for each in findings) for name, end in ends.items()}
    if counts["Fastest"] == len(findings):
        return f"All {len(findings)} combinations take {format_duration(_round_s(ordered[0]))} a round."
    told = [
        f"{_words(end.point, settings.vary)}"
        + (f" and {counts[name] - 1} more" if counts[name] > 1 else "")
        + f" with {format_duration(_round_s(end))}"
        for name, end in ends.items()
    ]
    return f"Fastest of {len(findings)} combinations: {told[0]} a round; slowest: {told[1]}."


def _cases(vary: Mapping[str, Sequence[Value]], findings: Sequence[Finding]) -> list[list[Finding]]:
    """Group the findings that differ in the algorithm only."""
    cases: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        cases.setdefault(tuple(finding.point[name] for name in vary if name != "algorithm"), []).append(finding)
    return list(cases.values())


def _wins(vary: Mapping[str, Sequence[Value]], cases: Sequence[Sequence[Finding]]) -> tuple[dict[str, int], int]:
    """Return in how many cases each algorithm is fastest, alone or tied, and how many cases are ties."""
    wins, ties = dict.fromkeys(map(str, vary["algorithm"]), 0), 0
    for case in cases:
        least = min(map(_round_s, case))
        fastest = [each.point["algorithm"] for each in case if is_tie(_round_s(each), least)]
        ties += len(fastest) > 1
        for algorithm in fastest:
            wins[algorithm] += 1
    return wins, ties


def _words(point: Point, vary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {point[name]}" for name in vary)


def _row(finding: Finding) -> Outcome:
    return dict(finding.point) | {name: finding.outcome[name] for name in SHOWN}


STUDY = Study(
    name="sweep",
    title="Every combination of some options",
    settings=SweepSettings,
    points=points,
    measure=simulate_point,
    conclude=conclude,
    quick={"vary": {"algorithm": ("dense", "topk", "gtopk"), "workers": (4, 8)}},
)
