"""Communication times that other people measured, predicted from what they state.

A file of measurements has one row per measurement (:mod:`studies.published.rows`). The module of a row's source
(:mod:`studies.published.sources`) turns the row into questions to the simulator. The rows of some clusters leave a term
open, such as the bandwidth that hosts reach. At most two such terms per cluster are calibrated
(:mod:`studies.published.calibration`) on a stated part of the cluster's rows, in netsim's own file if it has them.
Rows that calibrate are never compared. The study runs in two steps: calibrations first, then all predictions.

Three things widen the 95 % interval of a prediction (:mod:`studies.intervals`):

- the errors at all other sources of the same quality, which grow with each doubling of P or size beyond the
  calibrating rows;
- the noise of the calibration;
- the collectives that the source may have used, if it does not name its collective: all of them are simulated.

A source's own errors never enter its intervals. A sample of rows (``--quick``) has no intervals, for which all errors
are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from netsim.study_engine import Conclusion, Finding, Outcome, Point, Settings, Study
from studies.published.predictions import Answers, Campaign, PredictedRow, predict_rows
from studies.published.questions import answer
from studies.published.report import conclude_on
from studies.published.rows import PUBLISHED, read_rows, sample

__all__ = ["STUDY"]


class PublishedSettings(Settings):
    """The settings of the study.

    `data` is a CSV file of measurements with the columns of ``studies/published/measured.csv``, which is the default.
    `every` = n takes only every n-th row of each source and quality in netsim's own file, and without intervals.
    `calibrating` = n then leaves out clusters that more than n rows calibrate, which takes long; with 0 none is.
    """

    data: str = ""
    every: int = Field(default=1, ge=1)
    calibrating: int = Field(default=0, ge=0)


def _campaign(settings: PublishedSettings) -> Campaign:
    own = read_rows(PUBLISHED)
    known = own if settings.every == 1 else []
    if settings.data:
        return Campaign(read_rows(Path(settings.data)), known, own)
    rows = sample(own, settings.every)
    if settings.every > 1:
        rows = Campaign(rows, known, own).compared_rows(settings.calibrating)
    return Campaign(rows, known, own)


def _sampled(settings: PublishedSettings, rows: Sequence[PredictedRow]) -> list[str]:
    """Return a sentence that says how small a sample is; none if all rows are predicted."""
    if settings.every == 1:
        return []
    compared = sum(row.compared for row in rows)
    what = "All rows of the file" if settings.data else f"A sample: {len(rows)} of {len(read_rows(PUBLISHED))} rows"
    return [
        f"{what}, {compared} of them compared, without 95 % intervals, for which the errors of all rows are needed; "
        "--set every=1 takes all."
    ]


def points(settings: PublishedSettings) -> list[Point]:
    """Return the calibrations, and the questions of rows whose clusters need no calibration."""
    return list(_campaign(settings).questions(Answers([])))


def refine(settings: PublishedSettings, findings: Sequence[Finding]) -> Sequence[Point]:
    """Return all questions, with the calibrated terms."""
    return _campaign(settings).questions(Answers(findings))


def conclude(settings: PublishedSettings, findings: Sequence[Finding]) -> Conclusion:
    """Compare predictions with measurements."""
    answers = Answers(findings)
    rows = predict_rows(_campaign(settings), answers)
    conclusion = conclude_on(rows, answers.calibrations)
    headline, *others = conclusion.sentences
    return replace(conclusion, sentences=[headline, *_sampled(settings, rows), *others])


def measure(point: Point) -> Outcome:
    """Answer a question (:func:`studies.published.questions.answer`)."""
    return answer(point)


STUDY = Study(
    name="published",
    title="Communication times that other people measured",
    settings=PublishedSettings,
    points=points,
    measure=measure,
    conclude=conclude,
    refine=refine,
    quick={"every": 10, "calibrating": 6},
)
