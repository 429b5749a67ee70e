"""Plans: the simulations that predict a published row, the terms that its cluster leaves open, and its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from studies.published.rows import PublishedRow

Question: TypeAlias = Mapping[str, Any]
"""What is simulated, as a point of the study: an exchange, or options of ``netsim simulate``."""
Terms: TypeAlias = Mapping[str, float]
"""The calibrated terms of a cluster by name, in SI units."""


class NotPredictedError(Exception):
    """A row cannot be simulated; the message says why."""


@dataclass(frozen=True, slots=True)
class RowPlan:
    """The plan of a prediction: ``constant_s + compose(seconds of all parts)``.

    A part is a count and a question; its seconds are the count times the simulated seconds of the question. The default
    of `compose` is their sum, for parts that run one after another.
    """

    parts: Sequence[tuple[float, Question]]
    constant_s: float = 0.0
    compose: Callable[[Sequence[float]], float] = sum

    @classmethod
    def of(cls, *questions: Question, constant_s: float = 0.0) -> RowPlan:
        """Return the plan that adds up the simulated seconds of questions and `constant_s`."""
        return cls([(1, question) for question in questions], constant_s)

    def seconds(self, answer: Callable[[Question], float]) -> float:
        """Return the predicted seconds; ``answer(question)`` returns the simulated seconds of a question."""
        return self.constant_s + self.compose([count * answer(question) for count, question in self.parts])


@dataclass(frozen=True, slots=True)
class Term:
    """A quantity of a cluster that no row states: its unit, a first guess, and the range that the fit searches."""

    unit: str
    start: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class CalibratedCluster:
    """Hosts with their software and network, and at most two terms that rows do not state.

    Attributes
    ----------
    name
        The cluster in words.
    terms
        The terms by name.
    calibrates
        Whether a row serves the calibration; such a row is never compared.
    part
        The calibrating rows in words.
    """

    name: str
    terms: Mapping[str, Term] = field(default_factory=dict)
    calibrates: Callable[[PublishedRow], bool] = lambda row: False
    part: str = "none"

    def __post_init__(self) -> None:
        if len(self.terms) > MOST_TERMS:
            raise ValueError(f"cluster {self.name!r} has {len(self.terms)} terms; at most {MOST_TERMS} are allowed")

    def starts(self) -> dict[str, float]:
        """Return the first guess of every term."""
        return {name: term.start for name, term in self.terms.items()}


MOST_TERMS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source of measurements, and the meaning of its rows.

    Attributes
    ----------
    name
        Name in tables.
    begins
        Prefixes of `row.source` that belong to this source.
    cluster
        Returns the cluster of a row.
    plans
        ``plans(row, terms)`` returns the plan of a row, followed by plans for the alternatives that the source leaves
        open (another collective or switch). It raises NotPredictedError, with the reason, for a row that cannot be
        simulated.
    leaves_out
        What the model leaves out, in a sentence for the report.
    contender
        Returns the task of a row, and the algorithm or scheduler that performs the task. None for a source that
        compares no algorithms or schedulers.
    """

    name: str
    begins: tuple[str, ...]
    cluster: Callable[[PublishedRow], CalibratedCluster]
    plans: Callable[[PublishedRow, Terms], Sequence[RowPlan]]
    leaves_out: str
    contender: Callable[[PublishedRow], tuple[str, str]] | None = None

    def knows(self, row: PublishedRow) -> bool:
        """Return whether a row comes from this source."""
        return row.source.startswith(self.begins)


def stated(row: PublishedRow, *names: str) -> list[Any]:
    """Return the attributes `names` of a row.

    Raises
    ------
    NotPredictedError
        If the row leaves one of them out, or has more than 4,096 ranks.
    """
    missing = [name for name in names if getattr(row, name) is None]
    if missing:
        raise NotPredictedError(f"the row does not state {' and '.join(map(STATED.__getitem__, missing))}")
    ranks = max(row.workers or 0, (row.nodes or 0) * (row.gpus_per_node or 1))
    if ranks > MOST_RANKS:
        raise NotPredictedError(f"{ranks:,} ranks are more than this study simulates; at most {MOST_RANKS:,}")
    return [getattr(row, name) for name in names]


MOST_RANKS = 4096
"""Ranks of a row that is predicted, most of which are simulated message by message."""
STATED = {
    "workers": "P",
    "bandwidth_bps": "the bandwidth",
    "latency_s": "the latency",
    "bytes_per_rank": "the bytes of a rank",
    "elements": "the number of elements",
    "compute_s": "the time of computing",
    "measured_s": "a time in seconds",
    "gpus_per_node": "the GPUs of a machine",
    "nodes": "the number of machines",
}
"""Attributes of a row in words."""


def questions_of(plans: Iterable[RowPlan]) -> list[Question]:
    """Return the questions of plans, in order."""
    return [question for plan in plans for _, question in plan.parts]
