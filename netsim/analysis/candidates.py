"""The candidates of a recommendation: algorithms with a density, a topology, and buckets that overlap with backward."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from algorithms import ALGORITHMS, BUILT_IN, class_of, title_of, variant_of, with_options
from netsim._util.errors import UsageError
from netsim._util.units import TIE
from netsim.analysis import DDP_BUCKET
from netsim.experiment.configuration import Experiment
from netsim.experiment.given import OPTIONS
from netsim.report.text import listed
from netsim.simulator.estimates import SLOW_S, estimate
from netsim.study_engine.kinds import Outcome
from netsim.training.algorithm import Convergence
from netsim.training.overlap import TENSOR, check_bucket
from topologies import STARS, build
from topologies.builder import Shape
from topologies.spec import name_of

MOST_MESSAGES = 1024
"""Messages up to which an algorithm is a default candidate, if they are simulated one by one.

The trees of `dense-double-tree` have 4 (P-1) messages for each 512 KiB of half a gradient, and at most 512 (P-1): 65
workers may have 4 MB, 8 workers 37 MB, and 3 workers any gradient."""
DENSITIES = (0.001, 0.01)
LARGER, SMALLER = "50MB", "10MB"
BUCKETS = (DDP_BUCKET, LARGER, SMALLER)
"""Sizes of buckets that are tried by default, in this order."""
MOST_OVERLAPPED = 170_000
"""Messages of a simulation up to which overlap is tried by default, because they are simulated one by one.

A ring has 2 P (P-1) messages a bucket, so that 128 workers may have 5 buckets."""
WITH_OVERLAP = ("communicator", "ready")
"""Options that only candidates with overlap take."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An algorithm on a topology.

    Attributes
    ----------
    density
        None for a dense algorithm.
    overlap
        The size of buckets that are exchanged during the backward pass; None for one exchange after it.
    dtype
        The type of the values in messages; None for the type that is given for all candidates.
    """

    algorithm: str
    topology: str
    density: float | None = None
    overlap: str | None = None
    dtype: str | None = None

    @property
    def title(self) -> str:
        """The name of the candidate in sentences and tables, such as "gTop-k 0.001 in 25MB buckets"."""
        density = "" if self.density is None else f" {self.density:g}"
        title, paren, options = title_of(self.algorithm).partition(" (")
        dtype = "" if self.dtype is None else f" {self.dtype}"
        buckets = {None: "", TENSOR: " in a bucket per tensor"}.get(self.overlap, f" in {self.overlap} buckets")
        return title + density + dtype + paren + options + buckets

    @property
    def convergence(self) -> Convergence:
        """How the steps differ from those of dense SGD in the type that is given for all candidates."""
        kind = class_of(self.algorithm).convergence
        return Convergence.ROUNDED if kind is Convergence.EXACT and self.dtype is not None else kind

    def options(self, given: Mapping[str, Any], unused: set[str]) -> dict[str, Any]:
        """Return the options of ``netsim simulate`` for the candidate: `given` ones, without `unused`, and its own."""
        if self.overlap is None:
            unused = {*unused, *WITH_OVERLAP}
        own = {
            "algorithm": self.algorithm,
            "topology": self.topology,
            "density": self.density,
            "overlap": self.overlap,
            "dtype": self.dtype or given.get("dtype"),
        }
        kept = {name: value for name, value in given.items() if name not in unused}
        return {name: value for name, value in (kept | own).items() if value is not None} | {"timing_only": True}


def command_of(options: Mapping[str, Any]) -> str:
    """Return the command line of ``netsim simulate`` with options, by name; uncommon ones only if they differ.

    >>> command_of({"workers": 8, "timing_only": True, "elements": 1000, "compute_time": 0.25, "fan_out": 8})
    'netsim simulate --workers 8 --compute-time 0.25s --timing-only --elements 1000'
    """
    words = ["netsim", "simulate"]
    for each in OPTIONS.values():
        value = options.get(each.name)
        if value is None or (value == each.default and not each.common):
            continue
        text = value if isinstance(value, str) else each.kind.write(value)
        words += [each.flag] if value is True else [each.flag, text]
    return shlex.join(words)


def candidates(
    algorithms: Sequence[str] | None,
    densities: Sequence[float],
    topologies: Sequence[str],
    options: Mapping[str, Any],
) -> list[Candidate]:
    """Return all combinations of algorithms, densities and topologies, without overlap.

    Densities apply to sparse algorithms only. An algorithm stands for all variants in its ``tried_as``. If `algorithms`
    is None, each topology has its default candidates; these depend on ``workers``, and on ``model`` or ``elements``,
    in `options`.

    Raises
    ------
    UsageError
        If an algorithm is unknown, or a name or density is given twice.
    """
    combinations: list[Candidate] = []
    for topology in topologies:
        for algorithm in _defaults(topology, options) if algorithms is None else algorithms:
            for density in densities if class_of(algorithm).sparse else (None,):
                combinations += [Candidate(each, topology, density) for each in _variants(algorithm)]
    seen = set()
    for each in combinations:
        if (same := (variant_of(each.algorithm), each.density, each.topology)) in seen:
            several = [
                f"{text} stands for {listed(_variants(text))}" for text in algorithms or () if _variants(text)[1:]
            ]
            stands = f" ({'; '.join(dict.fromkeys(several))})" if several else ""
            raise UsageError(f"{each.title} was named twice; name each algorithm, density and topology once{stands}")
        seen.add(same)
    return combinations


def _variants(algorithm: str) -> list[str]:
    """Return the texts of the candidates for which an algorithm stands: options that it was given are kept."""
    return list(dict.fromkeys(with_options(algorithm, **options) for options in class_of(algorithm).tried_as))


def not_tried(topologies: Sequence[str], options: Mapping[str, Any]) -> str:
    """Return a sentence on algorithms that are no candidates on any topology if none are named, and why."""
    first, *others = (_why_untried(topology, options) for topology in topologies)
    names: dict[str, list[str]] = {}
    for name, why in first.items():
        if why and all(each[name] for each in others):
            names.setdefault(why, []).append(name)
    reasons = "; ".join(f"{', '.join(each)} ({why})" for why, each in names.items())
    return f"Not tried, because --algorithm did not name them: {reasons}."


def _defaults(topology: str, options: Mapping[str, Any]) -> list[str]:
    """Return the algorithms that are candidates on a topology if none are named."""
    return [name for name, why in _why_untried(topology, options).items() if not why]


def _why_untried(topology: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return for each of netsim's algorithms why it is no candidate on a topology if none are named; empty if it is."""
    workers = options["workers"]
    groups = (0,) * workers
    if name_of(topology) not in STARS:
        groups = tuple(build(topology, Shape(workers)).groups[:workers].tolist())
    sizes = {name: options[name] for name in ("workers", "model", "elements") if options.get(name) is not None}

    half = options.get("dtype") not in (None, "fp32")

    def why_untried(name: str) -> str:
        kind = ALGORITHMS[name]
        if why := kind.why_untried(groups):
            return why
        if half and not kind.half_precision:
            return "no values of 16 bits"
        cost = estimate(Experiment.of(algorithm=name, timing_only=True, **sizes), name)
        if kind.steps_locally and cost.seconds > SLOW_S:
            return f"over {SLOW_S:g} s to simulate H rounds"
        return f"over {MOST_MESSAGES:,} messages" if cost.one_by_one and cost.messages > MOST_MESSAGES else ""

    return {name: why_untried(name) for name in ALGORITHMS if name in BUILT_IN}


def halved(known: Mapping[Candidate, Outcome], precision: str) -> list[Candidate]:
    """Return the fastest candidate with the steps of dense SGD on each topology, in another precision."""
    exact = [
        each for each in known if each.convergence is Convergence.EXACT and class_of(each.algorithm).half_precision
    ]
    exact.sort(key=lambda each: known[each]["round_time_s"])
    fastest = {each.topology: each for each in reversed(exact)}
    return [replace(each, dtype=precision) for each in fastest.values()]


def read_buckets(sizes: Sequence[str]) -> tuple[str, ...]:
    """Return the sizes of buckets of an option's value; none for the word "none".

    Raises
    ------
    UsageError
        For a text that is no size, and for a size that is given twice.
    """
    if list(sizes) == ["none"]:
        return ()
    for index, each in enumerate(sizes):
        try:
            check_bucket(each)
        except UsageError as error:
            raise UsageError(f"{error}; none: no overlap") from None
        if each in sizes[:index]:
            raise UsageError(f"overlap {each!r} was named twice; name each size once")
    return tuple(sizes)


class Overlaps:
    """Chooses the candidates with overlap.

    Parameters
    ----------
    buckets
        The sizes of buckets to try; None for default ones, and only where overlap pays.
    """

    def __init__(self, buckets: Sequence[str] | None) -> None:
        self.asked = buckets is not None
        self.buckets = BUCKETS if buckets is None else tuple(buckets)
        self.too_long: list[Candidate] = []
        """Candidates that are not tried by default, because their simulations take long."""
        self._seen: set[tuple[Candidate, tuple[int, ...]]] = set()

    def of(
        self,
        bucket: str,
        known: Mapping[Candidate, Outcome],
        experiment_of: Any,
    ) -> list[Candidate]:
        """Return the candidates to try with buckets of a size, given the `known` results.

        A candidate whose gradient fits into one bucket, or has the same buckets as with an earlier size, is left out.
        """
        chosen = []
        for each, outcome in known.items():
            if each.overlap is not None or not class_of(each.algorithm).overlaps:
                continue
            candidate = replace(each, overlap=bucket)
            experiment = experiment_of(candidate)
            pieces = experiment.pieces(experiment.known_tensors())
            same = (each, tuple(piece.first for piece in pieces))
            if len(pieces) < 2 or same in self._seen:
                continue
            self._seen.add(same)
            if not self.asked:
                if class_of(each.algorithm).lossy:  # simulated one by one, their messages take longest
                    continue
                hidden = min(outcome["comm_time_s"], (1 - pieces[0].ready) * outcome["compute_time_s"])
                could_win = _may_pay(each, bucket, known) and _could_win(each, outcome["round_time_s"] - hidden, known)
                if not (could_win or is_ddp(candidate)):
                    continue
                if estimate(experiment, candidate.algorithm).messages > MOST_OVERLAPPED:
                    self.too_long.append(candidate)
                    continue
            chosen.append(candidate)
        return chosen

    def in_words(self) -> list[str]:
        """Return which candidates were not tried with overlap."""
        if not self.buckets or self.asked:
            return []
        sentence = (
            "Overlap was tried for dense, and for every other dense or sparse candidate that it could make faster than "
            f"its rivals by more than {TIE:.0%}. Each was tried with {DDP_BUCKET} buckets, then with {LARGER} or "
            f"{SMALLER} as long as that helped. --overlap SIZE tries all candidates."
        )
        if not self.too_long:
            return [sentence]
        titles = listed(list(dict.fromkeys(each.title for each in self.too_long)))
        return [sentence, f"Not tried, because each takes over {MOST_OVERLAPPED:,} messages: {titles}."]


def is_ddp(candidate: Candidate) -> bool:
    """Return whether a candidate is what DDP does by default: one ring, in buckets of 25 MB."""
    return (candidate.algorithm, candidate.dtype, candidate.overlap) == ("dense", None, DDP_BUCKET)


def _may_pay(candidate: Candidate, bucket: str, known: Mapping[Candidate, Outcome]) -> bool:
    """Return whether buckets of a size may shorten the round of a candidate, as far as other sizes tell."""
    times = {
        size: known[alike]["round_time_s"]
        for size in (None, *BUCKETS)
        if (alike := replace(candidate, overlap=size)) in known
    }
    if DDP_BUCKET not in times:
        return True
    return times[DDP_BUCKET] < times[None] and (bucket == LARGER or times[DDP_BUCKET] < times.get(LARGER, math.inf))


def _could_win(candidate: Candidate, least_s: float, known: Mapping[Candidate, Outcome]) -> bool:
    """Return whether a round of `least_s` seconds would be the shortest one of the candidate's density and kind.

    It must also be shorter than each one with the steps of dense SGD, which need no extra rounds.
    """
    alike = (candidate.density, candidate.convergence)
    rivals: list[float] = [
        outcome["round_time_s"]
        for each, outcome in known.items()
        if each.topology == candidate.topology
        and (each.convergence is Convergence.EXACT or (each.density, each.convergence) == alike)
    ]
    return least_s < (1 - TIE) * min(rivals)
