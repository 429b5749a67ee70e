"""Predictions from simulated answers: the questions of rows, the reasons for skipped rows, errors and intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from netsim.study_engine.kinds import Finding, Outcome, Point
from studies.intervals import doublings, interval, reach, student
from studies.published.calibration import measured_of
from studies.published.plans import CalibratedCluster, NotPredictedError, Question, RowPlan, questions_of, stated
from studies.published.questions import calibration_question
from studies.published.rows import PublishedRow
from studies.published.sources import source_of


def _key(question: Question) -> str:
    return json.dumps(question, sort_keys=True)


class Answers:
    """The answers so far: seconds by question, and calibrations by cluster."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.calibrations: dict[str, Outcome] = {}
        self._outcomes: dict[str, Outcome] = {}
        for point, outcome in findings:
            if "calibrate" in point:
                self.calibrations[point["calibrate"]] = outcome
            else:
                self._outcomes[_key(point)] = outcome

    def seconds(self, question: Question) -> float:
        """Return the simulated seconds of a question; raise NotPredictedError if its simulation failed."""
        outcome = self._outcomes[_key(question)]
        if "failed" in outcome:
            raise NotPredictedError(outcome["failed"])
        return float(outcome["seconds"])


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """The plans of a row: its own, its alternatives, and one per uncertain term, raised by its standard deviation.

    `alternatives` are plans for collectives or switches that the source leaves open. `noise` bounds the relative
    deviation that all other terms cause. If all terms change by a factor, a predicted time changes by at most that
    factor. The elasticities of a time therefore add up to at most 1, so the largest deviation of a term is a bound.
    """

    plan: RowPlan
    alternatives: Sequence[RowPlan]
    disturbed: Sequence[RowPlan]
    noise: float

    @property
    def all(self) -> list[RowPlan]:
        """All plans, its own first."""
        return [self.plan, *self.alternatives, *self.disturbed]


class Campaign:
    """The rows that are predicted.

    Parameters
    ----------
    rows
        The rows to predict.
    known
        Rows whose errors set the intervals of other sources; without any, there are no intervals.
    own
        All rows of netsim's own file; some of them calibrate clusters.
    """

    def __init__(
        self, rows: Sequence[PublishedRow], known: Sequence[PublishedRow], own: Sequence[PublishedRow]
    ) -> None:
        self.rows, self.known = rows, known
        self._calibrating: dict[str, list[PublishedRow]] = {}
        for candidates in (own, rows):
            missing = {cluster.name for row in candidates if (cluster := cluster_of(row)).terms} - set(
                self._calibrating
            )
            for row in candidates:
                cluster = cluster_of(row)
                if cluster.name in missing and cluster.calibrates(row) and _can_calibrate(row, cluster):
                    self._calibrating.setdefault(cluster.name, []).append(row)

    def calibrating(self, cluster: CalibratedCluster) -> list[PublishedRow]:
        """Return the rows that calibrate a cluster; raise NotPredictedError if they are fewer than its terms."""
        rows = self._calibrating.get(cluster.name, []) if cluster.terms else []
        if len(rows) < len(cluster.terms):
            raise NotPredictedError(f"too few rows calibrate {cluster.name}: {cluster.part}")
        return rows

    def calibrates(self, row: PublishedRow) -> bool:
        """Return whether a row serves the calibration of its cluster."""
        rows = self._calibrating.get(cluster_of(row).name, ())
        return any((row.source, row.id) == (each.source, each.id) for each in rows)

    def compared_rows(self, most: int = 0) -> list[PublishedRow]:
        """Return the rows of clusters with a row that can be compared, and at most `most` calibrating rows unless 0."""
        compared = {cluster_of(row).name for row in self.rows if not self.calibrates(row)}
        counts = {name: len(rows) for name, rows in self._calibrating.items()}
        chosen = {name for name in compared if not most or counts.get(name, 0) <= most}
        return [row for row in self.rows if cluster_of(row).name in chosen]

    def planned(self, row: PublishedRow, answers: Answers) -> PlannedRow | None:
        """Return the plans of a row; None while its cluster is not calibrated.

        Raises
        ------
        NotPredictedError
            If the row cannot be simulated.
        """
        stated(row, "measured_s")
        source, cluster = source_of(row), cluster_of(row)
        self.calibrating(cluster)
        fitted: Outcome = {"terms": {}, "sd": {}}
        if cluster.terms:
            source.plans(row, cluster.starts())  # so that a row that cannot be simulated says so
            if (known := answers.calibrations.get(cluster.name)) is None:
                return None
            fitted = known
        plan, *alternatives = source.plans(row, fitted["terms"])
        if not self.known:
            return PlannedRow(plan, [], [], 0.0)
        terms, deviations = fitted["terms"], fitted["sd"]
        disturbed = [
            source.plans(row, terms | {name: terms[name] * math.exp(deviation)})[0]
            for name, deviation in deviations.items()
            if deviation > SMALL
        ]
        small = max((deviation for deviation in deviations.values() if deviation <= SMALL), default=0.0)
        return PlannedRow(plan, alternatives, disturbed, small)

    def questions(self, answers: Answers) -> list[Point]:
        """Return the calibrations that are still missing, and the questions of rows whose clusters are calibrated."""
        asked: dict[str, Point] = {}
        for row in [*self.rows, *self.known]:
            try:
                planned = self.planned(row, answers)
            except NotPredictedError:
                continue
            if planned is None:
                cluster = cluster_of(row)
                asked[cluster.name] = calibration_question(cluster.name, self.calibrating(cluster))
                continue
            for question in questions_of(planned.all):
                asked[_key(question)] = question
        return list(asked.values())


def cluster_of(row: PublishedRow) -> CalibratedCluster:
    """Return the cluster of a row."""
    return source_of(row).cluster(row)


def _can_calibrate(row: PublishedRow, cluster: CalibratedCluster) -> bool:
    try:
        stated(row, "measured_s")
        source_of(row).plans(row, cluster.starts())
    except NotPredictedError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class PredictedRow:
    """A row and its prediction in seconds; for a row that is not predicted, None and the reason in `skipped`.

    A row is `compared` if it was predicted and did not calibrate its cluster.
    """

    row: PublishedRow
    source: str
    predicted_s: float | None
    low_s: float | None
    high_s: float | None
    calibrated: bool
    skipped: str | None

    @property
    def compared(self) -> bool:
        """Whether predicted and measured time are compared."""
        return self.predicted_s is not None and not self.calibrated

    @property
    def error(self) -> float | None:
        """Predicted / measured - 1."""
        return None if self.predicted_s is None else self.predicted_s / measured_of(self.row) - 1

    @property
    def inside(self) -> bool:
        """Whether the measured time lies in the interval."""
        return self.low_s is not None and self.high_s is not None and self.low_s <= measured_of(self.row) <= self.high_s

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width, relative to the prediction."""
        if self.predicted_s is None or self.low_s is None or self.high_s is None:
            return None
        return (self.high_s - self.low_s) / (2 * self.predicted_s)

    def as_json(self) -> dict[str, Any]:
        """Return the prediction as a JSON object."""
        return {
            "id": self.row.id,
            "source": self.row.source,
            "name": self.source,
            "quality": self.row.quality,
            "backend": self.row.backend,
            "algorithm": self.row.algorithm,
            "workers": self.row.workers,
            "bandwidth_bps": self.row.bandwidth_bps,
            "latency_s": self.row.latency_s,
            "bytes_per_rank": self.row.bytes_per_rank,
            "predicted_s": self.predicted_s,
            "measured_s": self.row.measured_s,
            "error": self.error,
            "low_s": self.low_s,
            "high_s": self.high_s,
            "calibrated": self.calibrated,
            "skipped": self.skipped,
        }


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """The answers to a row's questions, before its interval is known.

    `freedom` is the number of rows that calibrate its cluster, less the terms; None if no row calibrates it.
    `beyond` counts the doublings of P and of the size beyond the calibrating rows.
    """

    row: PublishedRow
    source: str
    predicted: float
    alternatives: list[float]
    noise: Sequence[float]
    freedom: int | None
    beyond: float
    calibrated: bool

    @property
    def ratio(self) -> float:
        """Measured / predicted."""
        return measured_of(self.row) / self.predicted

    @property
    def extrapolated(self) -> float:
        """Number of doublings; one more for a fit without a degree of freedom, whose terms may be as wrong as a row."""
        return self.beyond + (self.freedom == 0)

    def bounds(self, error: float) -> tuple[float, float]:
        """Return the 95 % interval; `error` is the reach of the errors at other sources."""
        quantile = student(self.freedom) if self.freedom else NORMAL
        noise = (quantile * deviation for deviation in self.noise)
        factor = math.exp(math.hypot(error * math.sqrt(1 + self.extrapolated), *noise))
        return interval([self.predicted, *self.alternatives], factor)


SMALL = 0.05
"""Relative deviation of a term up to which its effect is bounded rather than simulated."""
NORMAL = 1.96
"""Standard deviations that hold 95 % of a normal distribution: that of rounding, where a fit has no residual."""
FEWEST = 8
"""Compared rows of a quality at other sources below which the rows of all qualities count."""


def predict_rows(campaign: Campaign, answers: Answers) -> list[PredictedRow]:
    """Return the prediction of every row of a campaign, in order."""
    answered = {row: _answered(campaign, row, answers) for row in {*campaign.rows, *campaign.known}}
    known = [each for row in campaign.known if isinstance(each := answered[row], AnsweredRow) and not each.calibrated]

    @cache
    def elsewhere(source: str, quality: str, calibrated: bool) -> float | None:
        """Return the reach of the errors at all other sources, from rows of this quality if there are enough.

        They count as they are for a row whose cluster no row calibrates.
        """
        others = [each for each in known if each.source != source]
        alike = [each for each in others if each.row.quality == quality]
        chosen = alike if len(alike) >= FEWEST else others
        return reach((each.ratio, each.extrapolated if calibrated else 0.0) for each in chosen) if chosen else None

    predicted = []
    for row in campaign.rows:
        each = answered[row]
        if isinstance(each, str):
            skipped = PredictedRow(row, source_of(row).name, None, None, None, campaign.calibrates(row), each)
            predicted.append(skipped)
            continue
        error = elsewhere(each.source, row.quality, each.freedom is not None)
        low, high = (None, None) if error is None else each.bounds(error)
        predicted.append(PredictedRow(row, each.source, each.predicted, low, high, each.calibrated, None))
    return predicted


def _answered(campaign: Campaign, row: PublishedRow, answers: Answers) -> AnsweredRow | str:
    """Return the answers to a row's questions, or the reason why the row is skipped."""
    try:
        planned = campaign.planned(row, answers)
        assert planned is not None
        predicted, *others = (plan.seconds(answers.seconds) for plan in planned.all)
        calibrating = campaign.calibrating(cluster_of(row))
    except NotPredictedError as reason:
        return str(reason)
    beyond = sum(_beyond(row, calibrating, name) for name in ("workers", "bytes_per_rank"))
    alternatives, disturbed = others[: len(planned.alternatives)], others[len(planned.alternatives) :]
    noise = [planned.noise, *(math.log(seconds / predicted) for seconds in disturbed)]
    freedom = len(calibrating) - len(cluster_of(row).terms) if calibrating else None
    return AnsweredRow(
        row, source_of(row).name, predicted, alternatives, noise, freedom, beyond, campaign.calibrates(row)
    )


def _beyond(row: PublishedRow, calibrating: Sequence[PublishedRow], name: str) -> float:
    """Return the doublings by which a row's attribute exceeds the calibrating rows' range; 0 if no value is known."""
    known = [value for each in calibrating if (value := getattr(each, name))]
    value = getattr(row, name)
    return doublings(value, known) if value and known else 0.0
