"""Answers questions by simulation: the measurement of the study."""

from __future__ import annotations

from netsim._util.errors import NetsimError, in_one_line
from netsim.study_engine.kinds import Outcome, Point
from netsim.study_engine.simulated import simulate_point
from studies.published.calibration import calibrate_cluster
from studies.published.exchanges import simulate_exchange
from studies.published.plans import Question, RowPlan, Terms
from studies.published.rows import PublishedRow
from studies.published.sources import source_of


def answer(point: Point) -> Outcome:
    """Calibrate a cluster, simulate an exchange, or simulate a round of training, as `point` asks."""
    if "calibrate" in point:
        return _calibrated([PublishedRow.from_json(row) for row in point["rows"]])
    try:
        if "exchange" in point:
            return simulate_exchange(point)
        return {"seconds": simulate_point(point)["round_time_s"]}
    except NetsimError as error:
        return {"failed": in_one_line(error)}  # the rows that ask this are skipped, and say why


def calibration_question(name: str, rows: list[PublishedRow]) -> Question:
    """Return the point that calibrates a cluster on rows."""
    return {"calibrate": name, "rows": [row.as_json() for row in rows]}


def _calibrated(rows: list[PublishedRow]) -> Outcome:
    known: dict[str, float] = {}

    def seconds(question: Question) -> float:
        key = repr(sorted(question.items()))
        if key not in known:
            known[key] = answer(question)["seconds"]
        return known[key]

    def plan(row: PublishedRow, terms: Terms) -> RowPlan:
        return source_of(row).plans(row, terms)[0]

    return calibrate_cluster(source_of(rows[0]).cluster(rows[0]), rows, plan, seconds)
