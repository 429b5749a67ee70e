"""Any options of ``netsim simulate`` crossed with each other: what each combination takes, and which is fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from pydantic import Field

from netsim.errors import UsageError
from netsim.experiment import Experiment
from netsim.report import Section, Table
from netsim.study import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study.simulated import simulate_point
from netsim.units import format_duration
from netsim.workloads import is_own

Value: TypeAlias = bool | int | float | str
SHOWN = {
    "round_time_s": "round (s)",
    "compute_time_s": "compute (s)",
    "select_time_s": "selection (s)",
    "comm_time_s": "exposed communication (s)",
    "value_bytes_up": "values up a worker (B)",
    "index_bytes_up": "indices up a worker (B)",
}
CHARGES = ("compute_time", "select_time", "merge_time")


class SweepSettings(Settings):
    """Options that are the same everywhere, and lists of those that vary; names as in Python, ``compute_time``."""

    fixed: dict[str, Value] = Field(default={"timing_only": True, "model": "resnet50"})
    vary: dict[str, tuple[Value, ...]] = Field(
        default={
            "algorithm": ("dense", "topk", "gtopk"),
            "workers": (4, 8, 16, 32, 64),
            "bandwidth": ("1Gbps", "10Gbps"),
        }
    )


def points(settings: SweepSettings) -> list[Point]:
    """Return every combination; raises UsageError for options that there are not, or that would run code."""
    if twice := sorted(settings.fixed.keys() & settings.vary.keys()):
        raise UsageError(f"option {twice[0]!r} is both fixed and varied; say it once")
    found: list[Point] = []
    for values in product(*settings.vary.values()):
        point = settings.fixed | dict(zip(settings.vary, values, strict=True))
        if is_own(str(point.get("workload", ""))):
            raise UsageError(f"workload {point['workload']!r} is code of your own, which a study does not run")
        _check(Experiment.of(**point), point)
        found.append(point)
    return found


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
    """Say which combination is fastest, and how often each value of what varies is in the fastest."""
    best = min(findings, key=lambda finding: finding.outcome["round_time_s"])
    worst = max(findings, key=lambda finding: finding.outcome["round_time_s"])
    round_s: dict[str, float] = {
        name: each.outcome["round_time_s"] for name, each in (("best", best), ("worst", worst))
    }
    sentences = [
        f"Fastest of {len(findings)} combinations: {_words(best.point, settings.vary)} with "
        f"{format_duration(round_s['best'])} a round; slowest: {_words(worst.point, settings.vary)} with "
        f"{format_duration(round_s['worst'])}."
    ]
    wins = _wins(settings.vary, findings) if "algorithm" in settings.vary else {}
    if wins:
        cases = len(findings) // len(settings.vary["algorithm"])
        sentences.append(
            f"Of {cases} cases that differ in anything but the algorithm, "
            + ", ".join(f"{algorithm} is fastest in {count}" for algorithm, count in wins.items())
            + "."
        )
    rows = [
        [*(each.point[name] for name in settings.vary), *(each.outcome[name] for name in SHOWN)] for each in findings
    ]
    assumed = sorted(
        {f"{name} {settings.fixed.get(name, 'not charged')}" for name in CHARGES if name not in settings.vary}
    )
    return Conclusion(
        sentences,
        {"fastest": _row(best), "wins": wins},
        [
            Section(
                "All combinations", tables=[Table("combinations", [*settings.vary, *SHOWN.values()], rows, "SIMULATED")]
            )
        ],
        [f"ASSUMED, not measured: {', '.join(assumed)}."] if assumed else [],
    )


def _wins(vary: Mapping[str, Sequence[Value]], findings: Sequence[Finding]) -> dict[str, int]:
    """Return in how many cases each algorithm is fastest; the first named of equals."""
    cases: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        cases.setdefault(tuple(finding.point[name] for name in vary if name != "algorithm"), []).append(finding)
    wins = dict.fromkeys(map(str, vary["algorithm"]), 0)
    for case in cases.values():
        wins[min(case, key=lambda finding: finding.outcome["round_time_s"]).point["algorithm"]] += 1
    return wins


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
