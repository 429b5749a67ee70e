"""What is known about the error of predictions: comparisons with measurements that resemble a question.

The comparisons are those of ``known_errors.csv``, which ``python benchmarks/known_errors.py`` writes. The nearest one
has the same kind of exchange, and the least distance in ranks, bytes, bandwidth and latency, each counted in decades.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from algorithms import class_of, is_users, own_options
from netsim._util.units import format_bandwidth, format_duration, format_range
from netsim.comm.payload import INDEX_BYTES
from netsim.report.text import listed

if TYPE_CHECKING:
    from netsim.experiment.configuration import Experiment
    from netsim.network.graph import LinkRanges

FILE = Path(__file__).with_name("known_errors.csv")
REACH = 0.5
"""Decades from a nearest comparison within which others of its source count, too."""
TIED = 0.1
"""Decades by which the nearest comparison of another source or library may be farther away, and be named, too."""
LEAST_LATENCY_S = 1e-6
"""Shorter latencies count as this one: no exchange between hosts depends on them."""
UNKNOWN_DECADES = 0.5
"""Distance in latency, or in bytes, where the source does not state them."""
NOTABLE = 2.0
"""Factor beyond which the difference between a question and the comparisons is said."""
NOTHING_KNOWN = "unknown: there is no comparison of {} with a measurement (netsim validate makes one)"
LOCAL_LATENCY_S = 1e-3
"""Sources that state no latency measured inside one data centre, where one-way latencies are shorter than this."""
RING, TREE, GATHER, SPARSE_TREE, SERVER = (
    *("ring all-reduce", "tree all-reduce", "ring all-gather", "gTop-k tree", "parameter server"),
)
EXCHANGES = {
    "dense": RING,
    "randk": RING,
    "dense-tree": TREE,
    "topk": GATHER,
    "dgc": GATHER,
    "gtopk": SPARSE_TREE,
    "gtopk-naive": SPARSE_TREE,
}
"""Kinds of exchange by algorithm; all algorithms over a server have one kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownError:
    """A prediction that was compared with a measurement.

    Parameters
    ----------
    source, backend
        Who measured, and the communication library.
    exchange
        Kind of exchange.
    part
        ``exchange``, or ``round`` if the times are of whole rounds of training.
    workers, nbytes
        Number of ranks, and bytes of a rank's vector; None if they are not stated.
    bandwidth_bps, latency_s
        Of a rank's link, one way; a latency of None is not stated.
    error
        predicted / measured - 1.
    """

    source: str
    backend: str
    exchange: str
    part: str
    workers: int
    nbytes: int | None
    bandwidth_bps: float
    latency_s: float | None
    error: float


COLUMNS = tuple(KnownError.__dataclass_fields__)


class ErrorQuestion(NamedTuple):
    """An exchange whose predicted time is asked about."""

    exchange: str
    workers: int
    nbytes: float
    bandwidth_bps: float
    latency_s: float


class ErrorRange(NamedTuple):
    """The comparisons nearest to a question, in words; `worst` is the largest |error|, of whole rounds or not."""

    worst: float
    rounds: bool
    sentence: str


def exchange_kind(algorithm: str) -> str:
    """Return the kind of exchange of an algorithm; its title if no other algorithm exchanges in this way."""
    found = class_of(algorithm)
    if is_users(algorithm) or found.lossy:  # the comparisons are of whole vectors and of selected entries
        return found.title
    if found.uses_server:
        return SERVER
    if found.name == "topk" and own_options(algorithm).get("gather") not in (None, "ring"):
        return f"{str(own_options(algorithm)['gather']).capitalize()} all-gather"
    return RING if found.steps_locally else EXCHANGES.get(found.name, found.title)


def error_question(
    experiment: Experiment, links: LinkRanges | None, algorithm: str, result: Mapping[str, Any]
) -> ErrorQuestion | None:
    """Return the question about the exchange of an algorithm; None where no message uses a link.

    Parameters
    ----------
    experiment, links
        The configuration, and its links. The slowest link counts.
    algorithm
        The algorithm with its options.
    result
        Attributes of a :class:`~netsim.experiment.results.Result`: ``workers``, ``elements`` and ``k``.
    """
    if links is None or result["workers"] < 2:
        return None
    entries = result["k"]
    width = experiment.value_bytes
    nbytes = width * result["elements"] if entries is None else (width + INDEX_BYTES) * entries
    one_way_s = links.latency_s[1]
    if experiment.latency_s is not None:
        one_way_s = experiment.latency_s * experiment.latency_scale
    return ErrorQuestion(exchange_kind(algorithm), result["workers"], nbytes, links.bandwidth_bps[0], one_way_s)


@cache
def known_errors() -> tuple[KnownError, ...]:
    """Return the comparisons that netsim knows."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            KnownError(
                source=row["source"],
                backend=row["backend"],
                exchange=row["exchange"],
                part=row["part"],
                workers=int(row["workers"]),
                nbytes=int(row["nbytes"]) if row["nbytes"] else None,
                bandwidth_bps=float(row["bandwidth_bps"]),
                latency_s=float(row["latency_s"]) if row["latency_s"] else None,
                error=float(row["error"]),
            )
            for row in csv.DictReader(file)
        )


def nearest(question: ErrorQuestion, known: Iterable[KnownError]) -> ErrorRange | None:
    """Return the comparisons that are nearest to a question.

    None if none has its kind of exchange, or if the latency is long and those with this kind state none.
    """
    local = question.latency_s <= LOCAL_LATENCY_S
    alike = [each for each in known if each.exchange == question.exchange and (local or each.latency_s is not None)]
    if not alike:
        return None
    groups: dict[tuple[str, str, str], list[KnownError]] = {}
    for each in sorted(alike, key=lambda each: _decades(each, question)):
        groups.setdefault((each.part, each.source, each.backend), []).append(each)
    (nearest_row, *_), *_ = groups.values()
    named = [
        [each for each in group if _decades(each, group[0]) <= REACH]
        for group in groups.values()
        if group[0].part == nearest_row.part and _decades(group[0], question) <= _decades(nearest_row, question) + TIED
    ]
    return ErrorRange(
        max(abs(each.error) for group in named for each in group),
        nearest_row.part == "round",
        "; ".join(map(_in_words, named)) + _beyond(question, [each for group in named for each in group]),
    )


def known_sentences(questions: Mapping[str, ErrorQuestion], known: Sequence[KnownError]) -> list[str]:
    """Return sentences on the known errors of named questions; questions with the same answer share a sentence."""
    named: dict[str, list[str]] = {}
    for name, question in questions.items():
        found = nearest(question, known)
        said = _unknown(question, known) if found is None else found.sentence
        named.setdefault(said, []).append(name)
    return [f"{listed(names, last='')}: {said}." for said, names in named.items()]


def _unknown(question: ErrorQuestion, known: Sequence[KnownError]) -> str:
    if any(each.exchange == question.exchange for each in known):
        return (
            f"unknown at a latency of {format_duration(question.latency_s)}: latency not stated in the measurements of "
            f"a {question.exchange}"
        )
    return NOTHING_KNOWN.format(question.exchange)


def _decades(known: KnownError, other: KnownError | ErrorQuestion) -> float:
    """Return the distance of a comparison from another or from a question, in decades."""
    return math.hypot(
        _apart(known.workers, other.workers),
        _apart(known.nbytes, other.nbytes),
        _apart(known.bandwidth_bps, other.bandwidth_bps),
        _apart(_felt(known.latency_s), _felt(other.latency_s)),
    )


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one == other else UNKNOWN_DECADES
    return math.log10(one / other)


def _felt(latency_s: float | None) -> float | None:
    return None if latency_s is None else max(LEAST_LATENCY_S, latency_s)


def _in_words(rows: Sequence[KnownError]) -> str:
    """Return the worst error of comparisons of one source and library; hardware after a comma is left out."""
    first, count, worst = rows[0], len(rows), max(abs(each.error) for each in rows)
    return (
        f"within {worst:.1%} in {count} {first.part}{'s' if count > 1 else ''} of {first.backend} {first.exchange} at "
        f"{_range([each.bandwidth_bps for each in rows], format_bandwidth)}, "
        f"{_range([each.workers for each in rows], lambda ranks: f'{ranks:.0f} ranks')} "
        f"({first.source.partition(',')[0]})"
    )


def _range(values: Sequence[float], form: Callable[[float], str]) -> str:
    return format_range(min(values), max(values), form)


def _beyond(question: ErrorQuestion, rows: Sequence[KnownError]) -> str:
    """Return by what factors a question exceeds, or falls short of, all comparisons; empty if it is close to them."""
    values: dict[str, tuple[float | None, list[float | None]]] = {
        "ranks": (question.workers, [each.workers for each in rows]),
        "bytes": (question.nbytes, [each.nbytes for each in rows]),
        "bandwidth": (question.bandwidth_bps, [each.bandwidth_bps for each in rows]),
        "latency": (_felt(question.latency_s), [_felt(each.latency_s) for each in rows]),
    }
    parts = []
    for name, (asked, all_measured) in values.items():
        measured = [value for value in all_measured if value is not None]
        factor = max(asked / max(measured), min(measured) / asked) if asked and measured else 1.0
        if factor > NOTABLE:
            parts.append(f"{name} {factor:,.0f}×" if factor >= 10 else f"{name} {factor:.2g}×")
    return f"; beyond that: {', '.join(parts)}" if parts else ""
