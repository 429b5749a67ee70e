"""Times along P under one condition after another: their fits, the crossovers between them, and the laws they obey."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

from algorithms import ALGORITHMS
from netsim._util.units import format_bandwidth, format_range
from netsim.experiment.configuration import Experiment
from netsim.experiment.options import OWN
from netsim.study.kinds import Finding, Outcome, Point
from studies.crossovers import Crossover, crossovers, unsettled
from studies.fits import Fit, PerEntry, fit, per_entry

COMMUNICATION, ROUND = "comm_time_s", "round_time_s"
BREAKS = 1.5
"""Times as long as on the reference topology, at the largest P, from which a topology is worth a word."""

GROWTH = {"1": "", "log2(P)": "log P", "(P-1)/P": "", "P": "P", "sqrt(P)": "√P"}
"""What a form is in O-notation; (P-1)/P is bounded."""


class Condition(NamedTuple):
    """What a curve along P holds for. `density` is None for algorithms that send everything."""

    topology: str
    bandwidth: str
    density: float | None

    def dense(self) -> Condition:
        """Return the same network, for an algorithm that sends everything."""
        return self._replace(density=None)

    def in_words(self) -> str:
        """Return the condition for people."""
        density = "" if self.density is None else f", density {self.density:g}"
        return f"{self.topology}, {self.bandwidth}{density}"


class Crossed(NamedTuple):
    """A crossover, and the condition that it holds for."""

    condition: Condition
    crossover: Crossover


class Broken(NamedTuple):
    """An algorithm that is slower at the largest P than on the reference topology; `reference` is its form there."""

    condition: Condition
    algorithm: str
    form: str
    reference: str
    times_as_long: float


@dataclass(frozen=True, slots=True)
class Law:
    """What one algorithm's communication grows as, on one topology at one bandwidth: a fit a density.

    Where the fits of all densities have one form, that is the law; where they differ, there is none.
    """

    topology: str
    bandwidth: str
    algorithm: str
    fits: Mapping[float | None, Fit]
    entry: PerEntry | None

    @property
    def form(self) -> str | None:
        """Return the form that all densities have, None if they differ, in their form or in whether times rise."""
        kinds = {(each.form, each.slope < 0) for each in self.fits.values()}
        return next(iter(kinds))[0] if len(kinds) == 1 else None

    @property
    def order(self) -> str | None:
        """Return the law in O-notation; k is named only where times were seen to grow in proportion to it."""
        if self.form is None:
            return None
        return order_of(next(iter(self.fits.values())), bool(self.entry and self.entry.proportional))


def order_of(found: Fit, with_k: bool = False) -> str:
    """Return how one fit grows, in O-notation: times that fall as P grows are bounded."""
    parts = ("k" if with_k else "", GROWTH[found.form] if found.slope > 0 else "")
    return f"O({' '.join(part for part in parts if part).replace('k P', 'kP') or '1'})"


def condition_of(point: Point) -> Condition:
    """Return what a point's network and density are."""
    bandwidth = own_bandwidth(point["topology"]) if point["bandwidth"] == OWN else point["bandwidth"]
    return Condition(point["topology"], bandwidth, point.get("density"))


@functools.cache
def own_bandwidth(topology: str) -> str:
    """Return in words what links have where no bandwidth is given: the topology's own, or the default."""
    network = Experiment(topology=topology, timing_only=True, elements=1, k=1)
    ranges = network.links() if network.bandwidth_bps is None else None
    least, most = (network.bandwidth_bps or 0,) * 2 if ranges is None else ranges.bandwidth_bps
    return format_range(least, most, format_bandwidth)


def variant_of(point: Point) -> str:
    """Return the algorithm, with how it gathers where the point says so: ``topk:doubling``."""
    return ":".join(point[name] for name in ("algorithm", "gather") if name in point)


def title_of(variant: str) -> str:
    """Return the algorithm's title, with how it gathers."""
    name, _, gather = variant.partition(":")
    return ALGORITHMS[name].title + (f" ({gather})" if gather else "")


class Growth:
    """Everything that was found, by condition and algorithm; `grid` are the P's that are fitted."""

    def __init__(self, findings: Sequence[Finding], grid: Sequence[int], seed: int) -> None:
        self.grid = sorted(set(grid))
        self.seed = seed
        self.curves: dict[tuple[Condition, str], dict[int, Outcome]] = {}
        for point, outcome in findings:
            self.curves.setdefault((condition_of(point), variant_of(point)), {})[point["workers"]] = outcome
        self.titles = {name: title_of(name) for _, name in self.curves}

    @cached_property
    def conditions(self) -> list[Condition]:
        """Return the conditions with a density, or those without where nothing is sparse."""
        every = list(dict.fromkeys(condition for condition, _ in self.curves))
        return [each for each in every if each.density is not None] or every

    def algorithms(self) -> list[str]:
        """Return the algorithms, in the order in which they were asked for."""
        return list(self.titles)

    def outcomes(self, condition: Condition, algorithm: str) -> Mapping[int, Outcome]:
        """Return what was found along P, for dense algorithms whatever the density."""
        return self.curves.get((condition, algorithm)) or self.curves[condition.dense(), algorithm]

    def seconds(self, condition: Condition, algorithm: str, what: str) -> dict[int, float]:
        """Return one kind of time along P."""
        return {workers: found[what] for workers, found in sorted(self.outcomes(condition, algorithm).items())}

    @cached_property
    def fits(self) -> dict[tuple[Condition, str], Fit]:
        """Return the fit of every curve's communication time."""
        return {key: self._fit(*key, COMMUNICATION) for key in self.curves}

    def _fit(self, condition: Condition, algorithm: str, what: str) -> Fit:
        seconds = self.seconds(condition, algorithm, what)
        # Not those that the search for a crossover asked for: where they lie would decide how a curve is fitted.
        return fit(self.grid, [seconds[workers] for workers in self.grid], self.seed)

    @cached_property
    def crossovers(self) -> list[Crossed]:
        """Return where the order of every two algorithms changes in the time of a whole round."""
        rounds = {key: self._fit(*key, ROUND) for key in self.curves}
        found = []
        for condition, pair in self.pairs():
            keys = [self._key(condition, algorithm) for algorithm in pair]
            seconds = tuple(self.seconds(condition, algorithm, ROUND) for algorithm in pair)
            fits = (rounds[keys[0]], rounds[keys[1]])
            found += [Crossed(condition, each) for each in crossovers(pair, (seconds[0], seconds[1]), fits)]
        return found

    def changes(self) -> dict[tuple[Condition, frozenset[str]], list[Crossover]]:
        """Return the crossovers by condition and pair; those of an order that goes to and fro stand together."""
        found: dict[tuple[Condition, frozenset[str]], list[Crossover]] = {}
        for condition, each in self.crossovers:
            found.setdefault((condition, frozenset((each.before, each.after))), []).append(each)
        return found

    def never_cross(self) -> list[tuple[Condition, str, str]]:
        """Return (condition, faster, slower) of the pairs whose order never changes, where it is ever another."""
        found = []
        for condition, pair in self._uncrossed():
            ahead, behind = self.ahead(condition, pair), self.ahead(condition, pair[::-1])
            if ahead or behind:
                found.append((condition, *(pair if ahead else pair[::-1])))
        return found

    def always_equal(self) -> list[tuple[Condition, str, str]]:
        """Return the pairs that take the same time at every P that was simulated."""
        return [
            (condition, *pair)
            for condition, pair in self._uncrossed()
            if not self.ahead(condition, pair) and not self.ahead(condition, pair[::-1])
        ]

    def _uncrossed(self) -> list[tuple[Condition, tuple[str, str]]]:
        crossing = self.changes()
        return [(condition, pair) for condition, pair in self.pairs() if (condition, frozenset(pair)) not in crossing]

    def ahead(self, condition: Condition, pair: tuple[str, str]) -> list[int]:
        """Return the P's, of those that both were simulated at, at which the first of a pair is the faster."""
        one, other = (self.seconds(condition, each, ROUND) for each in pair)
        return [workers for workers in self.together(condition, pair) if one[workers] < other[workers]]

    def together(self, condition: Condition, pair: tuple[str, str]) -> list[int]:
        """Return the P's at which both of a pair were simulated."""
        one, other = (self.outcomes(condition, each) for each in pair)
        return sorted(one.keys() & other.keys())

    def fastest(self, condition: Condition, workers: int) -> list[str]:
        """Return who has the shortest round, of those that were simulated at so many workers; equals, all of them."""
        known = {name: self.outcomes(condition, name).get(workers) for name in self.algorithms()}
        rounds = {name: float(found[ROUND]) for name, found in known.items() if found is not None}
        return [name for name, seconds in rounds.items() if seconds == min(rounds.values())]

    def pairs(self) -> Iterator[tuple[Condition, tuple[str, str]]]:
        """Yield every two algorithms under every condition; two that no density touches only once a network."""
        seen = set()
        for condition in self.conditions:
            for pair in combinations(self.algorithms(), 2):
                keys = tuple(self._key(condition, algorithm) for algorithm in pair)
                if keys not in seen:
                    seen.add(keys)
                    yield (condition if any(key[0].density for key in keys) else condition.dense()), pair

    def open_brackets(self, most: int) -> list[tuple[Condition, str, int]]:
        """Return what to simulate next so that every crossover at up to `most` workers is exact."""
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
        """Return what every algorithm grows as, for every topology and bandwidth."""
        found: list[Law] = []
        for topology, bandwidth, algorithm in dict.fromkeys((c.topology, c.bandwidth, name) for c, name in self.curves):
            keys = [
                key
                for key in self.curves
                if (key[0].topology, key[0].bandwidth, key[1]) == (topology, bandwidth, algorithm)
            ]
            fits = {key[0].density: self.fits[key] for key in keys}
            selected = [int(self.curves[key][self.grid[0]]["k"] or 0) for key in keys]
            found.append(Law(topology, bandwidth, algorithm, fits, per_entry(selected, list(fits.values()))))
        return found

    def broken(self) -> list[Broken]:
        """Return where a topology breaks the law that an algorithm has on the first topology, or slows it down."""
        reference, last = self.conditions[0].topology, self.grid[-1]
        found = []
        for (condition, algorithm), here in self.fits.items():
            there = condition._replace(topology=reference)
            times = [self.seconds(each, algorithm, COMMUNICATION)[last] for each in (condition, there)]
            if condition.topology != reference and times[0] >= BREAKS * times[1]:
                form = self.fits[there, algorithm].form
                found.append(Broken(condition, algorithm, here.form, form, times[0] / times[1]))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return fits, laws, crossovers and broken laws as JSON takes them."""
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
        found, outcome = self.fits[condition, algorithm], self.curves[condition, algorithm][self.grid[0]]
        return (
            {"algorithm": algorithm, "title": self.titles[algorithm]}
            | condition._asdict()
            | {
                "k": outcome["k"],
                "elements": outcome["elements"],
                "of": COMMUNICATION,
                "form": found.form,
                "coefficients": {"intercept_s": found.intercept, "slope_s": found.slope},
                "intervals": {"intercept_s": found.intercept_interval, "slope_s": found.slope_interval},
                "confidence": 0.95,
                "support": found.support,
                "worst_relative_error": found.worst,
                "aic": found.aic,
                "workers": list(found.workers),
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
        "forms": [{"density": density, "form": found.form} for density, found in law.fits.items()],
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
