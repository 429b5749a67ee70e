"""Recommendation of an algorithm for a model on a network.

Every candidate is simulated with the given inputs, first without and then with overlap in buckets of several sizes. The
candidates are ranked by round time. Those without overlap, and the size of buckets of each that is fastest and shortens
the round, are simulated again with one input changed by 20 % at a time, which shows how robust the ranking is.

A short round is no progress by itself. The answer therefore says how the steps of each candidate differ from those of
dense SGD, and names the fastest one of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from algorithms import class_of, settings_of
from netsim._util.errors import or_why_not
from netsim._util.progress import OnPoint
from netsim._util.units import TIE, format_duration, format_factor, is_tie, parse_duration
from netsim.analysis.candidates import Candidate, Overlaps, command_of, halved, is_ddp
from netsim.analysis.known_errors import ErrorQuestion, error_question, known_errors, known_sentences, nearest
from netsim.analysis.unused_options import idle_of_links
from netsim.experiment.configuration import Experiment
from netsim.network.graph import LinkRanges
from netsim.report.notebook import as_text, drawn, html_of, html_table, new_axes, paragraphs, with_packages
from netsim.report.terminal import speed_in_words
from netsim.report.text import listed
from netsim.simulator.estimates import check_experiments
from netsim.study_engine.kinds import Outcome, Point
from netsim.study_engine.pool import backend, check_jobs, measured
from netsim.study_engine.simulated import simulate_point
from netsim.study_engine.validated import ValidationFile, present
from netsim.training.algorithm import Convergence
from topologies import taken

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SCHEMA = "netsim.recommend/1"
SHARE = 0.2
"""Relative change of each input, one at a time, to test whether the ranking holds."""
INPUTS = ("bandwidth_scale", "latency_scale", "compute_time")
"""Inputs that are changed; the two scales apply to all links, whatever the topology sets."""
OTHER_STEPS = (
    "Not simulated: the number of rounds to an accuracy, which is that of dense SGD only for steps of dense SGD."
)
MORE_ROUNDS = "Other algorithms may need more rounds, or end at a lower accuracy: see netsim study methods."
MOST_TIES = 3
"""The most ties that a sentence names."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its simulated times.

    Attributes
    ----------
    round_time_s, compute_time_s, select_time_s, comm_time_s
        Seconds of one round and of its parts; `comm_time_s` is exposed communication.
    scaling_efficiency
        Compute time divided by round time; None without compute time.
    bound_by
        The bottleneck.
    low_s, high_s
        Least and greatest round time, in seconds, over the given inputs and all variations; None without variations.
    beats_next
        Number of variations in which the candidate stays faster than the next in rank that has variations.
    variations
        Number of variations: one input is 20 % lower or higher in each. With overlap, only the fastest size of buckets
        has variations, and only if it shortens the round.
    rank
        The position of the first candidate whose round time is equal within 1 %: equal ranks are ties.
    command
        The command line of ``netsim simulate`` with this result.
    """

    candidate: Candidate
    round_time_s: float
    compute_time_s: float
    select_time_s: float
    comm_time_s: float
    scaling_efficiency: float | None
    bound_by: str
    low_s: float | None
    high_s: float | None
    beats_next: int
    variations: int
    rank: int
    command: str

    @property
    def holds(self) -> bool:
        """Whether the candidate stays faster than the next in rank in every variation."""
        return self.variations > 0 and self.beats_next == self.variations

    def as_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        names = {"title": self.candidate.title, "steps": self.candidate.convergence.value}
        return asdict(self) | names | {"order_holds": self.holds}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The candidates from the fastest to the slowest, the conclusion in sentences, and the assumptions behind it.

    If candidates tie with the fastest, one whose steps are those of dense SGD comes first.

    `known_errors` says how wrong predictions of the exchanges were that the conclusion names.
    """

    config: Mapping[str, Any]
    ranking: Sequence[Ranked]
    sentences: Sequence[str]
    limits: Sequence[str]
    known_errors: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the recommendation as a JSON object, in SI units."""
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "ranking": [row.as_json() for row in self.ranking],
            "conclusion": list(self.sentences),
            "limits": list(self.limits),
            "known_errors": list(self.known_errors),
        }

    def to_json(self) -> str:
        """Return the recommendation as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        from netsim.analysis.recommend_shown import render

        return as_text(lambda console: render(self, console))

    def _repr_html_(self) -> str:
        """Return sentences, picture and table for a notebook, as HTML without scripts or external resources."""
        from netsim.analysis.recommend_shown import columns, height

        picture = drawn(self.plot, height(self.ranking))
        return html_of(paragraphs(self.sentences), picture, html_table(columns(self.ranking)), paragraphs(self.limits))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the round time of each candidate, with its range over the variations.

        Parameters
        ----------
        ax
            Where to draw; a new figure if None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, for changes of one's own.
        """
        from netsim.analysis.recommend_shown import plot

        return plot(self.ranking, new_axes() if ax is None else ax)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per candidate, the fastest first; times are in seconds."""
        with with_packages("to_pandas()"):
            import pandas as pd

        rows = [row.as_json() for row in self.ranking]
        return pd.DataFrame([row.pop("candidate") | row for row in rows])


class Simulations:
    """Simulates candidates in several processes, and reports how many simulations are done.

    Parameters
    ----------
    jobs
        Processes.
    planned
        Simulations that are known to follow; more may be added.
    on_point
        Called after each simulation with the number done and the number in all.
    """

    def __init__(self, jobs: int, planned: int, on_point: OnPoint) -> None:
        self._jobs, self._planned, self._on_point = jobs, planned, on_point
        self._done = self._started = 0

    def of(self, points: Sequence[Point]) -> list[Outcome]:
        """Return the results of points."""
        self._started += len(points)
        outcomes: dict[int, Outcome] = {}
        index_of = {id(point): index for index, point in enumerate(points)}
        for point, outcome in measured(simulate_point, points, self._jobs, stored=False):
            outcomes[index_of[id(point)]] = outcome
            self._done += 1
            self._on_point(self._done, max(self._planned, self._started))
        return [outcomes[index] for index in range(len(points))]


def recommend(
    tried: Sequence[Candidate],
    options: Mapping[str, Any],
    *,
    buckets: Sequence[str] | None = None,
    half: str | None = None,
    validation: ValidationFile | None = None,
    untried: Sequence[str] = (),
    jobs: int = 0,
    on_point: OnPoint = lambda known, of: None,
) -> Recommendation:
    """Simulate the candidates with the given inputs and with each input changed by 20 %, and rank them.

    Parameters
    ----------
    tried
        The candidates without overlap.
    options
        Options of :func:`netsim.simulate` that all candidates share: ``model`` or ``elements``, ``workers``,
        ``bandwidth``, ``latency``, ``compute_time``, and optionally ``select_time``, ``merge_time``, ``dtype``,
        ``accumulate`` and ``profile``; with overlap also ``communicator`` and ``ready``.
    buckets
        Sizes of buckets with which candidates are also tried with overlap; None for default ones, where overlap may
        pay.
    half
        A type of 16 bits in which the fastest dense SGD is also tried; None for no such candidates.
    validation
        Errors of predictions against measurements, to compare with the lead of the best candidate.
    untried
        Sentences on algorithms that are no candidates, the last ones below the table.
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

    def options_of(candidate: Candidate, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return candidate.options(inputs, left_out[candidate.topology])

    def experiment_of(candidate: Candidate) -> Experiment:
        return Experiment.of(**options_of(candidate, base))

    first = Experiment.of(**options_of(tried[0], options))
    base = dict(options) | {
        "bandwidth_scale": first.bandwidth_scale,
        "latency_scale": first.latency_scale,
        "compute_time": parse_duration(options["compute_time"], "compute time"),
    }
    shares = (1 - SHARE, 1 + SHARE)
    variations = [base | {name: base[name] * share} for name in INPUTS for share in shares]
    networks: dict[str, Experiment] = {}
    experiments = []
    for candidate in tried:
        networks.setdefault(candidate.topology, experiment_of(candidate))
        experiments += [Experiment.of(**options_of(candidate, inputs)) for inputs in (base, *variations)]
    scaled = {(each.topology, each.bandwidth_scale, each.latency_scale): each for each in experiments}
    of_scaled = {key: each.links() for key, each in scaled.items()}  # raises early for impossible links
    ranges = {topology: of_scaled[topology, first.bandwidth_scale, first.latency_scale] for topology in networks}
    jobs = check_jobs(jobs)
    check_experiments(experiments, jobs)
    overlaps = Overlaps(buckets)
    simulations = Simulations(jobs, len(experiments), on_point)
    with backend(None):
        known = dict(zip(tried, simulations.of([options_of(each, base) for each in tried]), strict=True))
        if half is not None:
            chosen = halved(known, half)
            known |= zip(chosen, simulations.of([options_of(each, base) for each in chosen]), strict=True)
        for bucket in overlaps.buckets:
            chosen = overlaps.of(bucket, known, experiment_of)
            check_experiments(map(experiment_of, chosen), jobs)
            known |= zip(chosen, simulations.of([options_of(each, base) for each in chosen]), strict=True)
        to_vary = _to_vary(known)
        found = simulations.of([options_of(each, inputs) for each in to_vary for inputs in variations])
    size = len(variations)
    varied = {
        each: [outcome["round_time_s"] for outcome in found[size * index : size * (index + 1)]]
        for index, each in enumerate(to_vary)
    }
    commands = {each: command_of(options_of(each, options)) for each in known}
    ranking = _rank(known, varied, commands)
    questions = {
        each: error_question(networks[each.topology], ranges[each.topology], each.algorithm, outcome)
        for each, outcome in known.items()
    }

    def conclusion() -> list[str]:
        margin = _known_margin(ranking, questions) if validation is None else [_margin(ranking, validation)]
        return _words(ranking, varied) + margin

    words = or_why_not("conclusion", conclusion)
    config = base | {
        "bandwidth": next((each.bandwidth_bps for each in networks.values() if each.bandwidth_bps is not None), None),
        "latency": next((each.latency_s for each in networks.values() if each.latency_s is not None), None),
        "link_ranges": {topology: each and each.as_json() for topology, each in ranges.items()},
        "overlap": list(overlaps.buckets),
    }
    known_errors_of_them = or_why_not("known errors", lambda: _known(ranking, questions))
    limits = _limits(options, list(known), networks, ranges)
    if any(each.overlap for each in known):
        limits.append(_overlap_in_words(options))
    return Recommendation(config, ranking, words, [*limits, *overlaps.in_words(), *untried], known_errors_of_them)


def _to_vary(known: Mapping[Candidate, Outcome]) -> list[Candidate]:
    """Return the candidates with variations: those without overlap, and sizes of buckets that make the best of it."""
    fastest: dict[Candidate, Candidate] = {}
    for each, outcome in known.items():
        best = fastest.setdefault(replace(each, overlap=None), each)
        if outcome["round_time_s"] < known[best]["round_time_s"]:
            fastest[replace(each, overlap=None)] = each
    return [each for each in known if each.overlap is None or each in fastest.values()]


def _left_out(topologies: Collection[str]) -> dict[str, set[str]]:
    """Return which of bandwidth and latency each topology ignores although another topology takes it.

    An input that no topology takes stays in the options, so that building the experiment raises UsageError.
    """
    takes = {topology: taken(topology)._asdict() for topology in topologies}
    used = {name for each in takes.values() for name, takes_it in each.items() if takes_it}
    return {topology: {name for name in used if not each[name]} for topology, each in takes.items()}


def _rank(
    known: Mapping[Candidate, Outcome],
    varied: Mapping[Candidate, Sequence[float]],
    commands: Mapping[Candidate, str],
) -> list[Ranked]:
    """Return the candidates by round time, but first the fastest one like dense SGD if it ties with the fastest.

    `varied` has the round times of the variations.
    """
    rounds = {each: outcome["round_time_s"] for each, outcome in known.items()}
    order = sorted(known, key=rounds.__getitem__)
    ranks = dict(zip(order, ranks_of([rounds[each] for each in order]), strict=True))
    # Among equals, a step like that of dense SGD needs no extra rounds.
    exact = [each for each in order if _is_exact(each) and is_tie(rounds[each], rounds[order[0]])]
    order.sort(key=lambda each: each not in exact[:1])
    ranking = []
    for place, each in enumerate(order):
        following = next((later for later in order[place + 1 :] if later in varied), None)
        own = varied.get(each, ())
        times = {name: known[each][name] for name in Ranked.__slots__ if name in known[each]}
        ranking.append(
            Ranked(
                each,
                **times,
                low_s=min(rounds[each], *own) if own else None,
                high_s=max(rounds[each], *own) if own else None,
                beats_next=len(own) if following is None else _wins(own, varied[following]),
                variations=len(own),
                rank=ranks[each],
                command=commands[each],
            )
        )
    return ranking


def ranks_of(ascending: Sequence[float]) -> list[int]:
    """Return the ranks of times that ascend: that of the first time of a tie, for all times within 1 % of the first.

    >>> ranks_of([1.0, 1.0, 1.009, 1.011, 1.02, 2.0])
    [1, 1, 1, 4, 4, 6]
    """
    first, ranks = 0, []
    for place, seconds in enumerate(ascending):
        if not is_tie(seconds, ascending[first]):
            first = place
        ranks.append(first + 1)
    return ranks


def _is_exact(candidate: Candidate) -> bool:
    """Return whether each step is that of dense SGD, so that training takes as many rounds."""
    return candidate.convergence is Convergence.EXACT


def _wins(own: Sequence[float], other: Sequence[float]) -> int:
    """Return the number of variations in which a candidate is faster than another one; 0 without variations."""
    return sum(time < against for time, against in zip(own, other, strict=False))


def _words(ranking: Sequence[Ranked], varied: Mapping[Candidate, Sequence[float]]) -> list[str]:
    best = ranking[0]
    names = _names(ranking)
    efficiency = "" if best.scaling_efficiency is None else f", {best.scaling_efficiency:.1%} scaling efficiency"
    first = "Use" if _is_exact(best.candidate) else "The shortest round has"
    sentences = [
        f"{first} {names[best.candidate]}: {format_duration(best.round_time_s)}{efficiency}, of which "
        f"{format_duration(best.comm_time_s)} is exposed communication (bottleneck: {best.bound_by})."
    ]
    ties = [row for row in ranking[1:] if row.rank == 1]
    if ties:
        sentences.append(_tied(best, ties, names))
    if (second := next((row for row in ranking if row.rank > 1), None)) is not None:
        sentences.append(_lead(best, second, varied, names))
    exact = _fastest_dense(ranking)
    if exact not in (None, best):
        sentences.append(_exact(ranking, exact, names))
    sentences += _kinds(ranking, names)
    ddp = next((each for each in ranking if is_ddp(each.candidate)), None)
    if ddp is not None and ddp not in (best, exact):
        time, factor = format_duration(ddp.round_time_s), format_factor(ddp.round_time_s / best.round_time_s)
        sentences.append(f"DDP by default ({names[ddp.candidate]}) takes {time} a round, {factor} as long.")
    return sentences


Names = Mapping[Candidate, str]
"""The name of each candidate in sentences."""


def _names(ranking: Sequence[Ranked]) -> Names:
    """Return the titles of candidates, with the topology where there are several."""
    several = len({row.candidate.topology for row in ranking}) > 1
    return {row.candidate: row.candidate.title + f" on {row.candidate.topology}" * several for row in ranking}


def _fastest_dense(ranking: Sequence[Ranked]) -> Ranked | None:
    """Return the fastest candidate whose steps are those of dense SGD."""
    return next((row for row in ranking if _is_exact(row.candidate)), None)


def _tied(best: Ranked, ties: Sequence[Ranked], names: Names) -> str:
    named = [names[row.candidate] for row in ties[:MOST_TIES]]
    if len(ties) > MOST_TIES:
        named.append(f"{len(ties) - MOST_TIES} more")
    same = f"{listed(named)} {'has' if len(ties) == 1 else 'have'} the same round time, within {TIE:.0%}"
    if _is_exact(best.candidate) and not all(_is_exact(row.candidate) for row in ties):
        return f"{same}; dense SGD is named first because it needs no extra rounds."
    return f"{same}."


def _lead(best: Ranked, second: Ranked, varied: Mapping[Candidate, Sequence[float]], names: Names) -> str:
    ratio = second.round_time_s / best.round_time_s
    lead = f"{names[second.candidate]} comes next and takes {format_factor(ratio)} as long"
    own, other = varied.get(best.candidate, ()), varied.get(second.candidate, ())
    if not own or not other:
        return f"{lead}."
    wins = _wins(own, other)
    inputs = f"the links' bandwidth, their latency or the compute time changes by ±{SHARE:.0%}"
    if wins == len(own):
        return f"{lead}; this order holds if {inputs}."
    return f"{lead}; this order is uncertain: it holds in {wins} of {len(own)} cases in which {inputs}."


def _exact(ranking: Sequence[Ranked], exact: Ranked, names: Names) -> str:
    """Return what the fastest dense SGD takes, where another algorithm is faster."""
    best = ranking[0]
    fastest = f"The fastest dense SGD is {names[exact.candidate]}: {format_duration(exact.round_time_s)} a round"
    sentence = f"{fastest}, {format_factor(exact.round_time_s / best.round_time_s)} as long."
    faster = (row for row in ranking[: ranking.index(exact)] if row.round_time_s < exact.round_time_s)
    if selecting := next((row for row in faster if not class_of(row.candidate.algorithm).steps_locally), None):
        slack = format_duration(exact.round_time_s - selecting.round_time_s)
        sentence += (
            f" {names[selecting.candidate]} is faster as long as selecting and merging cost less than {slack} a round "
            f"more (assumed: {format_duration(selecting.select_time_s)})."
        )
    return f"{sentence} {MORE_ROUNDS}"


def _kinds(ranking: Sequence[Ranked], names: Names) -> list[str]:
    """Return the fastest candidate of each kind of step of which the sentences before name none."""
    named = {Convergence.EXACT, *(row.candidate.convergence for row in ranking if row.rank == 1)}
    fastest: dict[Convergence, Ranked] = {}
    for row in ranking:
        if row.candidate.convergence not in named:
            fastest.setdefault(row.candidate.convergence, row)
    rows = [f"{names[row.candidate]} ({kind}) {format_duration(row.round_time_s)}" for kind, row in fastest.items()]
    return [f"Fastest of the other kinds: {listed(rows, last='')}."] if rows else []


def _compared(ranking: Sequence[Ranked]) -> tuple[Ranked, Ranked | None]:
    """Return the first candidate, and the next one that is no tie; the next one if all are ties."""
    following = [row for row in ranking if row.rank > 1] or ranking[1:]
    return ranking[0], following[0] if following else None


def _margin(ranking: Sequence[Ranked], validation: ValidationFile) -> str:
    """Return the errors of predictions on a real network, and whether the lead of the best candidate exceeds them."""
    worst = max(abs(each.error) for each in validation.comparison)
    told = present(validation).sentence.rstrip(".")
    best, second = _compared(ranking)
    if second is None:
        return f"{told}."
    lead = second.round_time_s / best.round_time_s - 1
    if lead > worst:
        return f"{told}; the next candidate takes {lead:.1%} longer, which exceeds the worst error."
    told += f"; the next candidate differs by only {abs(lead):.1%}"
    return f"{told}, so an error like the worst could reverse the order."


Questions = Mapping[Candidate, ErrorQuestion | None]
"""By candidate, the exchange whose error is asked about; None if it uses no links."""


def _known(ranking: Sequence[Ranked], questions: Questions) -> list[str]:
    """Return what is known of the errors of the exchanges that the conclusion names."""
    names = _names(ranking)
    asked = {
        names[row.candidate]: question
        for row in (*_compared(ranking), _fastest_dense(ranking))
        if row is not None and (question := questions[row.candidate]) is not None
    }
    return known_sentences(asked, known_errors())


def _known_margin(ranking: Sequence[Ranked], questions: Questions) -> list[str]:
    """Return whether the lead of the best candidate exceeds the known errors of both exchanges, if both are known."""
    best, second = _compared(ranking)
    if second is None or second.round_time_s <= best.round_time_s:
        return []
    compared = (best, second)
    errors = [
        found
        for row in compared
        if (question := questions[row.candidate]) is not None
        and (found := nearest(question, known_errors())) is not None
    ]
    if len(errors) < 2:
        return []
    lead_s = second.round_time_s - best.round_time_s
    error_s = sum(
        found.worst * (row.round_time_s if found.rounds else row.comm_time_s)
        for row, found in zip(compared, errors, strict=True)
    )
    names = _names(ranking)
    lead = f"The lead of {names[best.candidate]} over {names[second.candidate]}, {format_duration(lead_s)} a round,"
    error = f"{format_duration(error_s)}, the sum of the known errors of both"
    if lead_s > error_s:
        return [f"{lead} exceeds {error}."]
    return [f"{lead} is within {error}, so netsim's error may reverse this order."]


def _limits(
    options: Mapping[str, Any],
    candidates: Sequence[Candidate],
    networks: Mapping[str, Experiment],
    links: Mapping[str, LinkRanges | None],
) -> list[str]:
    works = ("compute_time", "select_time", "merge_time")
    profile = options.get("profile")
    given = [f"{work.replace('_', ' ')} {options[work]}" for work in works if options.get(work) is not None]
    missing = [work.replace("_", " ") for work in works if options.get(work) is None and profile is None]
    charges = ", ".join(given) + (f"; as not given, 0: {', '.join(missing)}" if missing else "")
    by_profile = " or ".join(dict.fromkeys(network.profiled() for network in networks.values()))
    measured = f" All other values for {by_profile} come from the profile {profile}." if profile else ""
    speed = {topology: " ".join(speed_in_words(networks[topology], each).split()) for topology, each in links.items()}
    speeds = "; ".join(f"{topology}: {in_words}" for topology, in_words in speed.items())
    idle = dict.fromkeys(note for network in networks.values() for note in idle_of_links(network))
    files = {topology: "; ".join(each.network_notes()) for topology, each in networks.items()}
    return [
        f"SIMULATED, from sizes only. Links of {speeds}. ASSUMED, as given: {charges}.{measured}",
        *(idle if len(networks) == 1 else ()),
        *(f"{topology}: {notes}." for topology, notes in files.items() if notes),
        f"The range beside each round time covers input errors of ±{SHARE:.0%} only.",
        *([OTHER_STEPS] if not all(map(_is_exact, candidates)) else ()),
        *_local_rounds(candidates),
    ]


def _local_rounds(candidates: Sequence[Candidate]) -> list[str]:
    """Return what a round of an algorithm with local steps is."""
    local = dict.fromkeys(each.algorithm for each in candidates if class_of(each.algorithm).steps_locally)
    periods = [f"{class_of(each).title} {class_of(each).period(settings_of(each))}" for each in local]
    if not periods:
        return []
    return [
        f"With local steps, a round is a step. Times are means of H rounds with one exchange: {listed(periods)}. "
        "The compute time counts as that of a step with any optimiser."
    ]


def _overlap_in_words(options: Mapping[str, Any]) -> str:
    """Return what was assumed of overlap."""
    at = {
        "serial": "one bucket after another, as on one communicator of NCCL",
        "concurrent": "several buckets at the same time",
    }[options["communicator"]]
    if (ready := options.get("ready")) is None:
        return (
            f"Overlap: {at}. ASSUMED: buckets are ready in proportion to their elements, after a third of the compute "
            "time for the forward pass (--ready)."
        )
    return f"Overlap: {at}; buckets are ready as --ready {ready} says."
