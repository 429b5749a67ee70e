"""Recommendation of an algorithm for a model on a network.

Every candidate is simulated with the given inputs, and again with one input changed by 20 % at a time. The candidates
are ranked by round time, and the changed inputs show how robust the ranking is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from algorithms import class_of, own_options, title_of, variant_of, with_options
from algorithms.topk import GATHERS, TopK
from netsim._util.errors import UsageError
from netsim._util.progress import OnPoint
from netsim._util.units import format_duration, parse_duration
from netsim.analysis.known_errors import ErrorQuestion, error_question, known_errors, known_sentences, nearest
from netsim.experiment.configuration import Experiment
from netsim.network.graph import LinkRanges
from netsim.simulator.estimates import check_experiments
from netsim.study.kinds import Point
from netsim.study.pool import backend, check_jobs, measured
from netsim.study.simulated import simulate_point
from netsim.study.validated import ValidationFile, present
from topologies import STARS, build, taken
from topologies.builder import Shape
from topologies.spec import name_of

SCHEMA = "netsim.recommend/1"
ALL = ("dense", "dense-tree", "topk", "gtopk", "ps", "ps-topk")
"""Default candidates: dense algorithms, and sparse algorithms that keep unsent entries as a residual.

Three kinds are left out. `randk` sends the bytes of a smaller model and converges far more slowly. Lazy algorithms skip
uploads depending on the data, which a simulation of sizes does not have. `dense-double-tree` is simulated message by
message, which takes long for many workers."""
ALL_IN_GROUPS = (*ALL, "dense-hier")
"""Default candidates where workers are in several groups. `gtopk-hier` is left out: in rank order, the tree of `gtopk`
follows the groups already."""
DENSITIES = (0.001, 0.01)
SHARE = 0.2
"""Relative change of each input, one at a time, to test whether the ranking holds."""
INPUTS = ("bandwidth_scale", "latency_scale", "compute_time")
"""Inputs that are changed; the two scales apply to all links, whatever the topology sets."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An algorithm on a topology; `density` is None for a dense algorithm, `gather` is Top-k's kind of all-gather."""

    algorithm: str
    topology: str
    density: float | None = None
    gather: str | None = None

    @property
    def title(self) -> str:
        """The name of the candidate in sentences and tables, such as "gTop-k 0.001"."""
        density = "" if self.density is None else f" {self.density:g}"
        title = class_of(self.algorithm).title
        return title + density + title_of(self.variant).removeprefix(title)

    @property
    def variant(self) -> str:
        """The algorithm with its options."""
        return with_options(self.algorithm, gather=self.gather)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its simulated times.

    Attributes
    ----------
    round_time_s, compute_time_s, select_time_s, comm_time_s
        Seconds of one round and of its parts.
    scaling_efficiency
        Compute time divided by round time; None without compute time.
    bound_by
        The bottleneck.
    low_s, high_s
        Least and greatest round time, in seconds, over the given inputs and all variations.
    beats_next
        Number of variations in which the candidate stays faster than the next in rank.
    variations
        Number of variations: one input is 20 % lower or higher in each.
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
        """Whether the candidate stays faster than the next in rank in every variation."""
        return self.beats_next == self.variations


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The candidates from the fastest to the slowest, the conclusion in sentences, and the assumptions behind it.

    `known_errors` says how wrong predictions of the exchanges were that the conclusion names.
    """

    config: Mapping[str, Any]
    ranking: Sequence[Ranked]
    sentences: Sequence[str]
    limits: Sequence[str]
    known_errors: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the recommendation as a JSON object, in SI units."""
        ranking = [asdict(row) | {"title": row.candidate.title, "order_holds": row.holds} for row in self.ranking]
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "ranking": ranking,
            "conclusion": list(self.sentences),
            "limits": list(self.limits),
            "known_errors": list(self.known_errors),
        }


def candidates(
    algorithms: Sequence[str] | None, densities: Sequence[float], topologies: Sequence[str], workers: int
) -> list[Candidate]:
    """Return all combinations of algorithms, densities and topologies.

    Densities apply to sparse algorithms only. Top-k comes with both all-gathers, ring and Bruck's. If `algorithms` is
    None, each topology has its default candidates.

    Raises
    ------
    UsageError
        If an algorithm is unknown, or a name or density is given twice.
    """
    combinations: list[Candidate] = []
    chosen = [(each, _defaults(each, workers) if algorithms is None else algorithms) for each in topologies]
    for topology, algorithm in ((topology, algorithm) for topology, names in chosen for algorithm in names):
        own = own_options(algorithm).get("gather")
        gathers = (own,) if own is not None or class_of(algorithm) is not TopK else tuple(GATHERS)
        for density in densities if class_of(algorithm).sparse else (None,):
            combinations += [Candidate(algorithm, topology, density, gather) for gather in gathers]
    seen = set()
    for each in combinations:
        if (same := (variant_of(each.variant), each.density, each.topology)) in seen:
            raise UsageError(
                f"{each.title} was named twice; name each algorithm, density and topology once (topk stands for both "
                "of its gathers)"
            )
        seen.add(same)
    return combinations


def _defaults(topology: str, workers: int) -> tuple[str, ...]:
    """Return the candidates on a topology if none are named."""
    one_group = name_of(topology) in STARS or len(np.unique(build(topology, Shape(workers)).groups[:workers])) < 2
    return ALL if one_group else ALL_IN_GROUPS


def recommend(
    tried: Sequence[Candidate],
    options: Mapping[str, Any],
    *,
    validation: ValidationFile | None = None,
    jobs: int = 0,
    on_point: OnPoint = lambda known, of: None,
) -> Recommendation:
    """Simulate the candidates with the given inputs and with each input changed by 20 %, and rank them.

    Parameters
    ----------
    tried
        The candidates.
    options
        Options of :func:`netsim.simulate` that all candidates share: ``model`` or ``elements``, ``workers``,
        ``bandwidth``, ``latency``, ``compute_time``, and optionally ``select_time``, ``merge_time`` and ``profile``.
    validation
        Errors of predictions against measurements, to compare with the lead of the best candidate.
    jobs
        Processes to simulate with; 0 for one per core.
    on_point
        Called after each simulation with the number done and the number in all.

    Raises
    ------
    UsageError
        If an option or a candidate cannot be used.
    InfeasibleError
        If the simulations need more memory or time than is allowed.
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
    ranges = {
        network: each.links() for network, each in scaled.items()
    }  # raises early for an impossible bandwidth or latency
    networks = {each.topology: each for each in experiments[:: len(scenarios)]}
    check_experiments(experiments, check_jobs(jobs))
    outcomes: dict[int, Mapping[str, Any]] = {}
    index_of = {id(point): index for index, point in enumerate(asked)}
    with backend(None):
        for point, outcome in measured(simulate_point, asked, check_jobs(jobs)):
            outcomes[index_of[id(point)]] = outcome
            on_point(len(outcomes), len(asked))
    size = len(scenarios)
    rows = [[outcomes[start + offset] for offset in range(size)] for start in range(0, len(asked), size)]
    ranking = _rank(tried, rows)
    links = {topology: ranges[topology, first.bandwidth_scale, first.latency_scale] for topology in networks}
    questions = {
        candidate: error_question(networks[candidate.topology], links[candidate.topology], candidate.variant, of_inputs)
        for candidate, (of_inputs, *_) in zip(tried, rows, strict=True)
    }
    words = _words(ranking)
    words += _known_margin(ranking, questions) if validation is None else [_margin(ranking, validation)]
    config = base | {
        "bandwidth": next((each.bandwidth_bps for each in networks.values() if each.bandwidth_bps is not None), None),
        "latency": next((each.latency_s for each in networks.values() if each.latency_s is not None), None),
        "link_ranges": {topology: each and each.as_json() for topology, each in links.items()},
    }
    known = _known(ranking, questions)
    return Recommendation(config, ranking, words, _limits(options, networks, links), known)


def _left_out(topologies: Collection[str]) -> dict[str, set[str]]:
    """Return which of bandwidth and latency each topology ignores although another topology takes it.

    An input that no topology takes stays in the options, so that building the experiment raises UsageError.
    """
    takes = {topology: taken(topology)._asdict() for topology in topologies}
    used = {name for each in takes.values() for name, takes_it in each.items() if takes_it}
    return {topology: {name for name in used if not each[name]} for topology, each in takes.items()}


def _point(candidate: Candidate, scenario: Mapping[str, Any], left_out: Mapping[str, set[str]]) -> Point:
    chosen = {"algorithm": candidate.variant, "topology": candidate.topology, "density": candidate.density}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    unused = left_out[candidate.topology]
    given = {name: value for name, value in scenario.items() if value is not None and name not in unused}
    return given | chosen | {"timing_only": True}


def _rank(tried: Sequence[Candidate], rows: Sequence[Sequence[Mapping[str, Any]]]) -> list[Ranked]:
    """Return the candidates by round time; a row of `rows` holds the results of the given inputs and the variations."""
    rounds = [[outcome["round_time_s"] for outcome in row] for row in rows]
    order = sorted(range(len(tried)), key=lambda index: rounds[index][0])
    ranking = []
    for place, index in enumerate(order):
        following = rounds[order[place + 1]] if place + 1 < len(order) else [float("inf")] * len(rounds[index])
        ahead = sum(time < next_ for time, next_ in zip(rounds[index][1:], following[1:], strict=True))
        base = rows[index][0]
        times: dict[str, Any] = {name: base[name] for name in Ranked.__slots__ if name in base}
        spread = {"low_s": min(rounds[index]), "high_s": max(rounds[index])}
        ranking.append(Ranked(tried[index], **times, **spread, beats_next=ahead, variations=len(rounds[index]) - 1))
    return ranking


def _words(ranking: Sequence[Ranked]) -> list[str]:
    best = ranking[0]
    where = f" on {best.candidate.topology}" if len({each.candidate.topology for each in ranking}) > 1 else ""
    efficiency = "" if best.scaling_efficiency is None else f", {best.scaling_efficiency:.1%} scaling efficiency"
    sentences = [
        f"Use {best.candidate.title}{where}: {format_duration(best.round_time_s)} a round{efficiency}, of which "
        f"{format_duration(best.comm_time_s)} is exposed communication (bottleneck: {best.bound_by})."
    ]
    if len(ranking) > 1:
        sentences.append(_lead(best, ranking[1]))
    exact = next((each for each in ranking if each.candidate.density is None), None)
    if best.candidate.density is not None and exact is not None:
        slack = exact.round_time_s - best.round_time_s
        sentences.append(
            f"The fastest dense algorithm is {exact.candidate.title}: {format_duration(exact.round_time_s)} a round. "
            f"{best.candidate.title} stays faster while selecting and merging take under {format_duration(slack)} a "
            "round more than assumed here. Extra rounds to reach the same accuracy reduce the gain."
        )
    return sentences


def _lead(best: Ranked, second: Ranked) -> str:
    ratio = second.round_time_s / best.round_time_s
    if ratio < 1.001:
        return f"{second.candidate.title} has the same round time to within 0.1%."
    lead = f"{second.candidate.title} comes next and takes {ratio:.3g}× as long"
    if best.holds:
        return (
            f"{lead}; this order holds if the links' bandwidth, their latency or the compute time changes by "
            f"±{SHARE:.0%}."
        )
    return (
        f"{lead}; this order is uncertain: it holds in {best.beats_next} of {best.variations} cases in which the "
        f"links' bandwidth, their latency or the compute time changes by ±{SHARE:.0%}."
    )


def _margin(ranking: Sequence[Ranked], validation: ValidationFile) -> str:
    """Return the errors of predictions on a real network, and whether the lead of the best candidate exceeds them."""
    worst = max(abs(each.error) for each in validation.comparison)
    told = present(validation).sentence.rstrip(".")
    if len(ranking) < 2:
        return f"{told}."
    lead = ranking[1].round_time_s / ranking[0].round_time_s - 1
    if lead > worst:
        return f"{told}; the next candidate takes {lead:.1%} longer, which exceeds the worst error."
    return (
        f"{told}; the next candidate takes only {lead:.1%} longer, so an error like the worst could reverse the order."
    )


Questions = Mapping[Candidate, ErrorQuestion | None]
"""By candidate, the exchange whose error is asked about; None if it uses no links."""


def _known(ranking: Sequence[Ranked], questions: Questions) -> list[str]:
    """Return what is known of the errors of the exchanges that the conclusion names."""
    several = len({row.candidate.topology for row in ranking}) > 1
    fastest_dense = [row for row in ranking[2:] if row.candidate.density is None][:1]
    asked = {
        row.candidate.title + (f" on {row.candidate.topology}" if several else ""): question
        for row in (*ranking[:2], *fastest_dense)
        if (question := questions[row.candidate]) is not None
    }
    return known_sentences(asked, known_errors())


def _known_margin(ranking: Sequence[Ranked], questions: Questions) -> list[str]:
    """Return whether the lead of the best candidate exceeds the known errors of both exchanges, if both are known."""
    compared = ranking[:2]
    errors = [
        found
        for row in compared
        if (question := questions[row.candidate]) is not None
        and (found := nearest(question, known_errors())) is not None
    ]
    if len(errors) < 2:
        return []
    lead_s = compared[1].round_time_s - compared[0].round_time_s
    error_s = sum(
        found.worst * (row.round_time_s if found.rounds else row.comm_time_s)
        for row, found in zip(compared, errors, strict=True)
    )
    exceeds = "exceeds" if lead_s > error_s else "is within"
    return [
        f"The lead of {format_duration(lead_s)} a round {exceeds} {format_duration(error_s)}, the sum of the known "
        "errors of both."
    ]


def _limits(
    options: Mapping[str, Any],
    networks: Mapping[str, Experiment],
    links: Mapping[str, LinkRanges | None],
) -> list[str]:
    works = ("compute_time", "select_time", "merge_time")
    profile = options.get("profile")
    given = [work for work in works if options.get(work) is not None or profile is None]
    charges = ", ".join(f"{work.replace('_', ' ')} {options.get(work) or '0s'}" for work in given)
    by_profile = " or ".join(dict.fromkeys(network.profiled() for network in networks.values()))
    measured = f" All other values for {by_profile} come from the profile {profile}." if profile else ""
    speeds = "; ".join(f"{topology}: {each.in_words() if each else 'none'}" for topology, each in links.items())
    return [
        f"SIMULATED, from sizes only. Links of {speeds}. ASSUMED, as given: {charges}.{measured}",
        f"The range beside each round time covers input errors of ±{SHARE:.0%} only.",
        "Not simulated: the number of rounds that a density needs to reach an accuracy, and overlap of communication "
        "with computation.",
    ]
