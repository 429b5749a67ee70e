"""Which exchange for this model on this network: the candidates simulated, ranked, and how sure the order is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from algorithms import ALGORITHMS
from netsim._util.errors import UsageError, check_choice
from netsim._util.progress import OnPoint
from netsim._util.units import format_duration, parse_duration
from netsim.experiment.configuration import Experiment
from netsim.network.graph import LinkRanges
from netsim.simulator.estimates import check_experiments
from netsim.study.kinds import Point
from netsim.study.pool import backend, check_jobs, measured
from netsim.study.simulated import simulate_point
from netsim.study.validated import ValidationFile, present
from topologies import taken

SCHEMA = "netsim.recommend/1"
ALL = ("dense", "dense-tree", "topk", "gtopk", "ps", "ps-topk")
"""Candidates, where none are named: those whose sparse members hold back what they do not send. Left out are `randk`
(the same bytes as a smaller model, and far slower to converge) and lazy ones, whose skips depend on the data."""
DENSITIES = (0.001, 0.01)
SHARE = 0.2
"""By how much of itself each input is wrong, one at a time, to see whether the order holds."""
INPUTS = ("bandwidth_scale", "latency_scale", "compute_time")
"""The scales are those of all links, also of those whose topology decides their bandwidth or latency."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to exchange gradients; `density` is None for what sends everything."""

    algorithm: str
    topology: str
    density: float | None = None
    gather: str | None = None

    @property
    def title(self) -> str:
        """Return the candidate for people."""
        density = "" if self.density is None else f" {self.density:g}"
        return ALGORITHMS[self.algorithm].title + density + (f" ({self.gather})" if self.gather == "doubling" else "")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its times in seconds, and `low` to `high`: its rounds with inputs wrong by a fifth.

    `beats_next` says in how many of the `variations` it stays ahead of the next in rank.
    """

    candidate: Candidate
    round_time_s: float
    compute_time_s: float
    select_time_s: float
    comm_time_s: float
    scaling_efficiency: float | None
    bound_by: str
    low_s: float
    high_s: float
    beats_next: int
    variations: int

    @property
    def holds(self) -> bool:
        """Return whether it stays ahead of the next whatever single input is wrong by a fifth."""
        return self.beats_next == self.variations


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The candidates from the fastest to the slowest, what that says, and what it rests on."""

    config: Mapping[str, Any]
    ranking: Sequence[Ranked]
    sentences: Sequence[str]
    limits: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it, in SI units."""
        ranking = [asdict(each) | {"title": each.candidate.title, "order_holds": each.holds} for each in self.ranking]
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "ranking": ranking,
            "conclusion": list(self.sentences),
            "limits": list(self.limits),
        }


def candidates(algorithms: Sequence[str], densities: Sequence[float], topologies: Sequence[str]) -> list[Candidate]:
    """Return every combination that differs: densities for sparse algorithms, and both ways to gather for Top-k."""
    for algorithm in algorithms:
        check_choice("algorithm", algorithm, ALGORITHMS)
    found = []
    for topology, algorithm in product(topologies, algorithms):
        for density in densities if ALGORITHMS[algorithm].sparse else (None,):
            gathers = ("ring", "doubling") if algorithm == "topk" else (None,)
            found += [Candidate(algorithm, topology, density, gather) for gather in gathers]
    if len(set(found)) < len(found):
        raise UsageError("an algorithm, density or topology was named twice; name each once")
    return found


def recommend(
    tried: Sequence[Candidate],
    options: Mapping[str, Any],
    *,
    validation: ValidationFile | None = None,
    jobs: int = 0,
    on_point: OnPoint = lambda known, of: None,
) -> Recommendation:
    """Simulate the candidates, also with inputs that are wrong by a fifth, and rank them.

    `options` are those of :func:`netsim.simulate` that all share: ``model`` or ``elements``, ``workers``,
    ``bandwidth``, ``latency``, ``compute_time`` and, if known, ``select_time``, ``merge_time`` and a ``profile``.
    `validation` says how far predictions were off where something was measured.
    """
    left_out = _left_out({each.topology for each in tried})
    first = Experiment.of(**_point(tried[0], options, left_out))
    base = dict(options) | {
        "bandwidth_scale": first.bandwidth_scale,
        "latency_scale": first.latency_scale,
        "compute_time": parse_duration(options["compute_time"], "compute time"),
    }
    shares = (1 - SHARE, 1 + SHARE)
    scenarios = [base, *(base | {name: base[name] * share} for name in INPUTS for share in shares)]
    asked = [_point(candidate, scenario, left_out) for candidate in tried for scenario in scenarios]
    experiments = [Experiment.of(**point) for point in asked]
    scaled = {(each.topology, each.bandwidth_scale, each.latency_scale): each for each in experiments}
    ranges = {network: each.links() for network, each in scaled.items()}  # refuses now what no link could be
    networks = {each.topology: each for each in experiments[:: len(scenarios)]}
    check_experiments(experiments, check_jobs(jobs))
    found: dict[int, Mapping[str, Any]] = {}
    numbers = {id(point): number for number, point in enumerate(asked)}
    with backend(None):
        for point, outcome in measured(simulate_point, asked, check_jobs(jobs)):
            found[numbers[id(point)]] = outcome
            on_point(len(found), len(asked))
    size = len(scenarios)
    rows = [[found[start + at] for at in range(size)] for start in range(0, len(asked), size)]
    ranking = _rank(tried, rows)
    words = _words(ranking) + ([] if validation is None else [_margin(ranking, validation)])
    links = {topology: ranges[topology, first.bandwidth_scale, first.latency_scale] for topology in networks}
    config = base | {
        "bandwidth": next((each.bandwidth_bps for each in networks.values() if each.bandwidth_bps is not None), None),
        "latency": next((each.latency_s for each in networks.values() if each.latency_s is not None), None),
        "link_ranges": {topology: each and each.as_json() for topology, each in links.items()},
    }
    return Recommendation(config, ranking, words, _limits(options, networks, links, validation is not None))


def _left_out(topologies: Collection[str]) -> dict[str, set[str]]:
    """Return for each topology which of bandwidth and latency it does not take, although another one does.

    What none of them takes is not left out, but refused.
    """
    takes = {topology: taken(topology)._asdict() for topology in topologies}
    used = {name for each in takes.values() for name, takes_it in each.items() if takes_it}
    return {topology: {name for name in used if not each[name]} for topology, each in takes.items()}


def _point(candidate: Candidate, scenario: Mapping[str, Any], left_out: Mapping[str, set[str]]) -> Point:
    chosen = {name: value for name, value in asdict(candidate).items() if value is not None}
    unused = left_out[candidate.topology]
    given = {name: value for name, value in scenario.items() if value is not None and name not in unused}
    return given | chosen | {"timing_only": True}


def _rank(tried: Sequence[Candidate], rows: Sequence[Sequence[Mapping[str, Any]]]) -> list[Ranked]:
    """Return the candidates by the time of a round; `rows` holds, for each, the base case and then the variations."""
    rounds = [[outcome["round_time_s"] for outcome in row] for row in rows]
    order = sorted(range(len(tried)), key=lambda number: rounds[number][0])
    ranking = []
    for place, number in enumerate(order):
        following = rounds[order[place + 1]] if place + 1 < len(order) else [float("inf")] * len(rounds[number])
        ahead = sum(own < next_ for own, next_ in zip(rounds[number][1:], following[1:], strict=True))
        base = rows[number][0]
        times: dict[str, Any] = {name: base[name] for name in Ranked.__slots__ if name in base}
        spread = {"low_s": min(rounds[number]), "high_s": max(rounds[number])}
        ranking.append(Ranked(tried[number], **times, **spread, beats_next=ahead, variations=len(rounds[number]) - 1))
    return ranking


def _words(ranking: Sequence[Ranked]) -> list[str]:
    best = ranking[0]
    where = f" on {best.candidate.topology}" if len({each.candidate.topology for each in ranking}) > 1 else ""
    efficiency = "" if best.scaling_efficiency is None else f", {best.scaling_efficiency:.1%} scaling efficiency"
    sentences = [
        f"Use {best.candidate.title}{where}: {format_duration(best.round_time_s)} a round{efficiency}, of which "
        f"{format_duration(best.comm_time_s)} is exposed communication; bound by {best.bound_by}."
    ]
    if len(ranking) > 1:
        sentences.append(_lead(best, ranking[1]))
    exact = next((each for each in ranking if each.candidate.density is None), None)
    if best.candidate.density is not None and exact is not None:
        slack = exact.round_time_s - best.round_time_s
        sentences.append(
            f"Without sparsification {exact.candidate.title} is the best: {format_duration(exact.round_time_s)}. "
            f"{best.candidate.title} is worth it while selecting and merging take under {format_duration(slack)} more "
            "a round than assumed here, and if training at that density needs no more rounds than that saves."
        )
    return sentences


def _lead(best: Ranked, second: Ranked) -> str:
    ratio = second.round_time_s / best.round_time_s
    if ratio < 1.001:
        return f"{second.candidate.title} is as fast, to within 0.1%."
    lead = f"{second.candidate.title} comes next and takes {ratio:.3g}× as long"
    if best.holds:
        return (
            f"{lead}; that order holds when the links' bandwidth, their latency or the compute time is {SHARE:.0%} "
            "more or less."
        )
    return (
        f"{lead}; that order is not safe: it holds in {best.beats_next} of {best.variations} cases where the links' "
        f"bandwidth, their latency or the compute time is {SHARE:.0%} more or less."
    )


def _margin(ranking: Sequence[Ranked], validation: ValidationFile) -> str:
    """Return how far predictions were off on a real network, and whether the first is further ahead than that."""
    worst = max(abs(each.error) for each in validation.comparison)
    told = present(validation).sentence.rstrip(".")
    if len(ranking) < 2:
        return f"{told}."
    lead = ranking[1].round_time_s / ranking[0].round_time_s - 1
    if lead > worst:
        return f"{told}; the next takes {lead:.1%} longer, which is more than that."
    return f"{told}; the next takes only {lead:.1%} longer, so that an error like the worst could turn the order."


def _limits(
    options: Mapping[str, Any],
    networks: Mapping[str, Experiment],
    links: Mapping[str, LinkRanges | None],
    validated: bool,
) -> list[str]:
    works = ("compute_time", "select_time", "merge_time")
    profile = options.get("profile")
    given = [work for work in works if options.get(work) is not None or profile is None]
    charges = ", ".join(f"{work.replace('_', ' ')} {options.get(work) or '0s'}" for work in given)
    by_profile = " or ".join(dict.fromkeys(network.profiled() for network in networks.values()))
    measured = f" Whatever else is said of {by_profile} comes from the profile {profile}." if profile else ""
    speeds = "; ".join(f"{topology}: {each.in_words() if each else 'none'}" for topology, each in links.items())
    return [
        f"SIMULATED, from sizes only. Links of {speeds}. ASSUMED, as given: {charges}.{measured}",
        (
            ""
            if validated
            else "The margin of error against a real cluster is unknown: nothing here was compared with "
            "measurements of one (netsim validate makes them; --validation DIR). "
        )
        + f"The range behind each round says only what inputs wrong by {SHARE:.0%} would change.",
        "How many rounds a density needs to reach an accuracy is not simulated; communication overlaps no computing.",
    ]
