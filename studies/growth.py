"""Times as functions of the number of workers P: fits, crossovers and growth laws.

A condition is a network and a density. Under each condition, each algorithm has a curve of times along P.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

from algorithms import title_of
from netsim._util.units import format_bandwidth, format_range
from netsim.experiment.configuration import Experiment
from netsim.experiment.options import OWN
from netsim.study_engine.kinds import Finding, Outcome, Point
from studies.crossovers import Crossover, crossovers, unsettled
from studies.fits import Fit, PerEntry, fit, per_entry

COMMUNICATION, ROUND = "comm_time_s", "round_time_s"
BREAKS = 1.5
"""Ratio of communication times at the largest P, topology to reference topology, above which a sentence reports it."""

GROWTH = {"1": "", "log2(P)": "log P", "(P-1)/P": "", "P": "P", "sqrt(P)": "√P"}
"""The O-notation of each form; (P-1)/P is bounded."""


class Condition(NamedTuple):
    """The condition of a curve along P; `density` is None for dense algorithms."""

    topology: str
    bandwidth: str
    density: float | None

    def dense(self) -> Condition:
        """Return the same network for a dense algorithm."""
        return self._replace(density=None)

    def in_words(self) -> str:
        """Return the condition as text."""
        density = "" if self.density is None else f", density {self.density:g}"
        return f"{self.topology}, {self.bandwidth}{density}"


class Crossed(NamedTuple):
    """A crossover and its condition."""

    condition: Condition
    crossover: Crossover


class Broken(NamedTuple):
    """An algorithm that is slower than on the reference topology at the largest P; `reference` is its form there."""

    condition: Condition
    algorithm: str
    form: str
    reference: str
    times_as_long: float


@dataclass(frozen=True, slots=True)
class Law:
    """The growth of one algorithm's communication time on one topology at one bandwidth, with one fit per density.

    If the fits of all densities have the same form, the form is the law; otherwise there is none.
    """

    topology: str
    bandwidth: str
    algorithm: str
    fits: Mapping[float | None, Fit]
    entry: PerEntry | None

    @property
    def form(self) -> str | None:
        """The form common to all densities; None if forms differ, or times rise at one density and fall at another."""
        kinds = {(fitted.form, fitted.slope < 0) for fitted in self.fits.values()}
        return next(iter(kinds))[0] if len(kinds) == 1 else None

    @property
    def order(self) -> str | None:
        """The law in O-notation; k appears only if times grow in proportion to k."""
        if self.form is None:
            return None
        return order_of(next(iter(self.fits.values())), bool(self.entry and self.entry.proportional))


def order_of(fitted: Fit, with_k: bool = False) -> str:
    """Return the order of a fit in O-notation; times that fall as P grows are bounded."""
    parts = ("k" if with_k else "", GROWTH[fitted.form] if fitted.slope > 0 else "")
    return f"O({' '.join(part for part in parts if part).replace('k P', 'kP') or '1'})"


def condition_of(point: Point) -> Condition:
    """Return the network and the density of a point."""
    bandwidth = own_bandwidth(point["topology"]) if point["bandwidth"] == OWN else point["bandwidth"]
    return Condition(point["topology"], bandwidth, point.get("density"))


@functools.cache
def own_bandwidth(topology: str) -> str:
    """Return the bandwidth of links, as text, if none is given: that of the topology, or the default."""
    network = Experiment(topology=topology, timing_only=True, elements=1, k=1)
    ranges = network.links() if network.bandwidth_bps is None else None
    least, most = (network.bandwidth_bps or 0,) * 2 if ranges is None else ranges.bandwidth_bps
    return format_range(least, most, format_bandwidth)


class Growth:
    """All findings of a study by condition and algorithm, with fits, crossovers and laws computed on first use.

    Parameters
    ----------
    findings
        The findings.
    grid
        The P to fit; findings at other P come from the search for crossovers.
    seed
        Seed of the bootstrap.
    """

    def __init__(self, findings: Sequence[Finding], grid: Sequence[int], seed: int) -> None:
        self.grid = sorted(set(grid))
        self.seed = seed
        self.curves: dict[tuple[Condition, str], dict[int, Outcome]] = {}
        for point, outcome in findings:
            self.curves.setdefault((condition_of(point), point["algorithm"]), {})[point["workers"]] = outcome
        self.titles = {name: title_of(name) for _, name in self.curves}

    def __repr__(self) -> str:
        return f"Growth({', '.join(self.titles.values())}, {len(self.curves)} curves)"

    @cached_property
    def conditions(self) -> list[Condition]:
        """The conditions with a density; if no algorithm is sparse, the conditions without."""
        conditions = list(dict.fromkeys(condition for condition, _ in self.curves))
        return [condition for condition in conditions if condition.density is not None] or conditions

    def algorithms(self) -> list[str]:
        """Return the algorithms in the order of the settings."""
        return list(self.titles)

    def outcomes(self, condition: Condition, algorithm: str) -> Mapping[int, Outcome]:
        """Return the outcomes by P; a dense algorithm has the same outcomes at every density."""
        return self.curves.get((condition, algorithm)) or self.curves[condition.dense(), algorithm]

    def seconds(self, condition: Condition, algorithm: str, kind: str) -> dict[int, float]:
        """Return one kind of time, COMMUNICATION or ROUND, in seconds by P."""
        return {workers: outcome[kind] for workers, outcome in sorted(self.outcomes(condition, algorithm).items())}

    @cached_property
    def fits(self) -> dict[tuple[Condition, str], Fit]:
        """The fit of the communication time of every curve."""
        return {key: self._fit(*key, COMMUNICATION) for key in self.curves}

    def _fit(self, condition: Condition, algorithm: str, kind: str) -> Fit:
        seconds = self.seconds(condition, algorithm, kind)
        # Only P of the grid: the P of the search for crossovers lie close together and would bias the fit.
        return fit(self.grid, [seconds[workers] for workers in self.grid], self.seed)

    @cached_property
    def crossovers(self) -> list[Crossed]:
        """The crossovers of every two algorithms in the time of a whole round."""
        rounds = {key: self._fit(*key, ROUND) for key in self.curves}
        crossed = []
        for condition, pair in self.pairs():
            keys = [self._key(condition, algorithm) for algorithm in pair]
            seconds = tuple(self.seconds(condition, algorithm, ROUND) for algorithm in pair)
            fits = (rounds[keys[0]], rounds[keys[1]])
            crossed += [Crossed(condition, change) for change in crossovers(pair, (seconds[0], seconds[1]), fits)]
        return crossed

    def changes(self) -> dict[tuple[Condition, frozenset[str]], list[Crossover]]:
        """Return the crossovers by condition and pair of algorithms; several if the order alternates."""
        by_pair: dict[tuple[Condition, frozenset[str]], list[Crossover]] = {}
        for condition, change in self.crossovers:
            by_pair.setdefault((condition, frozenset((change.before, change.after))), []).append(change)
        return by_pair

    def never_cross(self) -> list[tuple[Condition, str, str]]:
        """Return (condition, faster, slower) for each pair with different times whose order never changes."""
        ordered = []
        for condition, pair in self._uncrossed():
            ahead, behind = self.ahead(condition, pair), self.ahead(condition, pair[::-1])
            if ahead or behind:
                ordered.append((condition, *(pair if ahead else pair[::-1])))
        return ordered

    def always_equal(self) -> list[tuple[Condition, str, str]]:
        """Return the pairs with equal times at every simulated P."""
        return [
            (condition, *pair)
            for condition, pair in self._uncrossed()
            if not self.ahead(condition, pair) and not self.ahead(condition, pair[::-1])
        ]

    def _uncrossed(self) -> list[tuple[Condition, tuple[str, str]]]:
        crossing = self.changes()
        return [(condition, pair) for condition, pair in self.pairs() if (condition, frozenset(pair)) not in crossing]

    def ahead(self, condition: Condition, pair: tuple[str, str]) -> list[int]:
        """Return the P, among those simulated for both algorithms, at which the first of a pair is faster."""
        one, other = (self.seconds(condition, algorithm, ROUND) for algorithm in pair)
        return [workers for workers in self.together(condition, pair) if one[workers] < other[workers]]

    def together(self, condition: Condition, pair: tuple[str, str]) -> list[int]:
        """Return the P at which both algorithms of a pair were simulated."""
        one, other = (self.outcomes(condition, algorithm) for algorithm in pair)
        return sorted(one.keys() & other.keys())

    def fastest(self, condition: Condition, workers: int) -> list[str]:
        """Return the algorithms with the shortest round among those simulated at `workers`; all of them if equal."""
        outcomes = {name: self.outcomes(condition, name).get(workers) for name in self.algorithms()}
        rounds = {name: float(outcome[ROUND]) for name, outcome in outcomes.items() if outcome is not None}
        return [name for name, seconds in rounds.items() if seconds == min(rounds.values())]

    def pairs(self) -> Iterator[tuple[Condition, tuple[str, str]]]:
        """Yield every pair of algorithms under every condition; two dense algorithms only once per network."""
        seen = set()
        for condition in self.conditions:
            for pair in combinations(self.algorithms(), 2):
                keys = tuple(self._key(condition, algorithm) for algorithm in pair)
                if keys not in seen:
                    seen.add(keys)
                    yield (condition if any(key[0].density for key in keys) else condition.dense()), pair

    def open_brackets(self, most: int) -> list[tuple[Condition, str, int]]:
        """Return each (condition, algorithm, P) to simulate next, until every crossover up to P = `most` is exact."""
        wanted: dict[tuple[Condition, str, int], None] = {}
        for condition, pair in self.pairs():
            one, other = (self.seconds(condition, algorithm, ROUND) for algorithm in pair)
            for workers in unsettled(one, other, most):
                wanted |= {(*self._key(condition, algorithm), workers): None for algorithm in pair}
        return list(wanted)

    def _key(self, condition: Condition, algorithm: str) -> tuple[Condition, str]:
        return (condition if (condition, algorithm) in self.curves else condition.dense()), algorithm

    @cached_property
    def laws(self) -> list[Law]:
        """The growth law of every algorithm, for every topology and bandwidth."""
        laws: list[Law] = []
        for topology, bandwidth, algorithm in dict.fromkeys((c.topology, c.bandwidth, name) for c, name in self.curves):
            keys = [
                key
                for key in self.curves
                if (key[0].topology, key[0].bandwidth, key[1]) == (topology, bandwidth, algorithm)
            ]
            fits = {key[0].density: self.fits[key] for key in keys}
            selected = [int(self.curves[key][self.grid[0]]["k"] or 0) for key in keys]
            laws.append(Law(topology, bandwidth, algorithm, fits, per_entry(selected, list(fits.values()))))
        return laws

    def broken(self) -> list[Broken]:
        """Return conditions and algorithms with at least BREAKS times the communication time of the first topology."""
        reference, last = self.conditions[0].topology, self.grid[-1]
        slower = []
        for (condition, algorithm), fitted in self.fits.items():
            on_reference = condition._replace(topology=reference)
            here, there = (self.seconds(at, algorithm, COMMUNICATION)[last] for at in (condition, on_reference))
            if condition.topology != reference and here >= BREAKS * there:
                form = self.fits[on_reference, algorithm].form
                slower.append(Broken(condition, algorithm, fitted.form, form, here / there))
        return slower

    def as_json(self) -> dict[str, Any]:
        """Return fits, laws, crossovers and slower topologies as a JSON object."""
        return {
            "fits": [self._fit_json(condition, algorithm) for condition, algorithm in self.curves],
            "laws": [_law_json(law) for law in self.laws],
            "crossovers": [_crossover_json(condition, crossover) for condition, crossover in self.crossovers],
            "never_cross": [
                condition._asdict() | {"faster": faster, "slower": slower}
                for condition, faster, slower in self.never_cross()
            ],
            "slower_topologies": [
                each.condition._asdict()
                | {"algorithm": each.algorithm, "form": each.form, "reference_form": each.reference}
                | {"law_broken": each.form != each.reference}
                | {"times_as_long": each.times_as_long, "at_workers": self.grid[-1]}
                for each in self.broken()
            ],
        }

    def _fit_json(self, condition: Condition, algorithm: str) -> dict[str, Any]:
        fitted, outcome = self.fits[condition, algorithm], self.curves[condition, algorithm][self.grid[0]]
        return (
            {"algorithm": algorithm, "title": self.titles[algorithm]}
            | condition._asdict()
            | {
                "k": outcome["k"],
                "elements": outcome["elements"],
                "of": COMMUNICATION,
                "form": fitted.form,
                "coefficients": {"intercept_s": fitted.intercept, "slope_s": fitted.slope},
                "intervals": {"intercept_s": fitted.intercept_interval, "slope_s": fitted.slope_interval},
                "confidence": 0.95,
                "support": fitted.support,
                "worst_relative_error": fitted.worst,
                "aic": fitted.aic,
                "workers": list(fitted.workers),
            }
        )


def _law_json(law: Law) -> dict[str, Any]:
    entry = law.entry
    return {
        "algorithm": law.algorithm,
        "topology": law.topology,
        "bandwidth": law.bandwidth,
        "form": law.form,
        "order": law.order,
        "forms": [{"density": density, "form": fitted.form} for density, fitted in law.fits.items()],
        "seconds_per_entry": None if entry is None else entry.seconds,
        "interval": None if entry is None else entry.interval,
    }


def _crossover_json(condition: Condition, crossover: Crossover) -> dict[str, Any]:
    return condition._asdict() | {
        "between": [crossover.before, crossover.after],
        "faster_before": crossover.before,
        "faster_after": crossover.after,
        "workers": crossover.workers,
        "bracket": crossover.bracket,
        "fitted_workers": crossover.fitted,
        "interval": crossover.interval,
        "of": ROUND,
    }
