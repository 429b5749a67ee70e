"""The conclusion of the study: errors and coverage by source and quality, pictures, and what the model leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Series, against
from netsim.study_engine import Conclusion, Outcome
from studies.published.calibration import measured_of
from studies.published.orders import orders_of, section_on, sentence_on
from studies.published.predictions import PredictedRow, cluster_of
from studies.published.sources import source_of

PREDICTED = "SIMULATED; measured times PUBLISHED"
QUALITIES = {"A": "can be simulated as stated", "B": "with a stated assumption", "C": "a ratio or a shape"}


class Target(NamedTuple):
    """The largest errors that a quality is meant to have: the median error, and the error of nine rows in ten."""

    median: float
    nine_in_ten: float


INTERVALS = (
    "95 % intervals: the errors at all other sources of the same quality, the noise of the calibration, and simulated "
    "alternatives where a source does not name its collective."
)
TARGETS = {"A": Target(0.02, 0.06), "B": Target(0.10, 0.35)}


class ErrorSummary(NamedTuple):
    """The errors of some rows; None where nothing was compared.

    `rows` counts all rows, `skipped` the rows without a prediction, `calibrated` the calibrating rows, and `compared`
    the rows whose prediction is compared with the measurement.
    Errors and half-widths are relative; `coverage` is the fraction of measured times inside their 95 % intervals.
    """

    rows: int
    skipped: int
    calibrated: int
    compared: int
    median_error: float | None
    p90_error: float | None
    coverage: float | None
    median_half_width: float | None

    @classmethod
    def of(cls, rows: Sequence[PredictedRow]) -> ErrorSummary:
        """Return the summary of predictions."""
        compared = [row for row in rows if row.compared]
        errors = [abs(row.error) for row in compared if row.error is not None]
        widths = [row.half_width for row in compared if row.half_width is not None]
        return cls(
            len(rows),
            sum(row.skipped is not None for row in rows),
            sum(row.calibrated for row in rows),
            len(compared),
            median(errors) if errors else None,
            nine_in_ten(errors) if errors else None,
            sum(row.inside for row in compared) / len(compared) if widths else None,
            median(widths) if widths else None,
        )


def nine_in_ten(errors: Iterable[float]) -> float:
    """Return the 90th percentile: the smallest error that at least 90 % of the errors do not exceed."""
    ordered = sorted(errors)
    return ordered[-(-9 * len(ordered) // 10) - 1]


def conclude_on(rows: Sequence[PredictedRow], calibrations: Mapping[str, Outcome]) -> Conclusion:
    """Return the conclusion on predictions."""
    groups: dict[tuple[str, str], list[PredictedRow]] = {}
    for row in sorted(rows, key=lambda each: (each.row.quality, each.source)):
        groups.setdefault((row.source, row.row.quality), []).append(row)
    by_source = {key: ErrorSummary.of(group) for key, group in groups.items()}
    qualities = sorted({row.row.quality for row in rows})
    by_quality = {
        quality: ErrorSummary.of([row for row in rows if row.row.quality == quality]) for quality in qualities
    }
    used = {cluster_of(row.row).name: cluster_of(row.row) for row in rows}
    fitted = {name: calibrations[name] for name in used if name in calibrations}
    orders = orders_of(rows)
    data = {
        "rows": [row.as_json() for row in rows],
        "summary": [
            {"source": source, "quality": quality} | summary._asdict()
            for (source, quality), summary in by_source.items()
        ],
        "qualities": {quality: summary._asdict() for quality, summary in by_quality.items()},
        "clusters": {name: dict(outcome) | {"part": used[name].part} for name, outcome in fitted.items()},
        "orders": [order.as_json() for order in orders],
    }
    return Conclusion(
        [
            _headline(ErrorSummary.of(rows)),
            *(_sentence(quality, summary) for quality, summary in by_quality.items()),
            sentence_on(orders),
        ],
        data,
        [
            _comparison(rows, by_source),
            Section("What the model leaves out", "\n\n".join(_left_out(groups)), tables=[_beyond_target(rows)]),
            section_on(orders),
            _calibrations(fitted, {name: used[name].part for name in fitted}),
            Section("All rows", tables=[_table(rows)]),
        ],
        [
            "ASSUMED: a latency that a source does not state is 50 µs, and hosts add nothing that no term states.",
            "A row that calibrates a term of its cluster is never compared.",
            *([INTERVALS] if any(row.half_width is not None for row in rows) else []),
        ],
    )


def _headline(summary: ErrorSummary) -> str:
    if summary.median_error is None or summary.p90_error is None:
        return f"None of {summary.rows:,} PUBLISHED times is compared with a prediction."
    return (
        f"{summary.compared:,} of {summary.rows:,} PUBLISHED times are compared with a prediction: the error is "
        f"{summary.median_error:.1%} in the median, and at most {summary.p90_error:.1%} for nine in ten."
    )


def _named(quality: str) -> str:
    return f"Quality {quality} ({QUALITIES[quality]})" if quality in QUALITIES else f"Quality {quality}"


def _sentence(quality: str, summary: ErrorSummary) -> str:
    kind = _named(quality)
    predicted = f"{summary.rows - summary.skipped} of {summary.rows} rows predicted"
    if summary.median_error is None or summary.p90_error is None:
        return f"{kind}: {predicted}, {summary.calibrated} for calibration, none compared."
    text = (
        f"{kind}: {predicted}, {summary.calibrated} for calibration; the error of the other {summary.compared} is "
        f"{summary.median_error:.1%} in the median, and at most {summary.p90_error:.1%} for nine in ten"
    )
    if summary.coverage is None or summary.median_half_width is None:
        return text + "."
    return text + f"; {summary.coverage:.0%} lie in their 95 % intervals of ±{summary.median_half_width:.0%}."


def _left_out(groups: Mapping[tuple[str, str], Sequence[PredictedRow]]) -> list[str]:
    """Return a paragraph for each source and quality whose median error or any row exceeds the target."""
    told = []
    for (name, quality), group in groups.items():
        target, summary = TARGETS.get(quality), ErrorSummary.of(group)
        if target is None or summary.median_error is None:
            continue
        beyond = sum(map(_is_beyond, group))
        if not beyond and summary.median_error <= target.median:
            continue
        worst = max((row for row in group if row.compared), key=lambda row: abs(row.error or 0))
        told.append(
            f"{name}, quality {quality}: {source_of(worst.row).leaves_out} {beyond} of {summary.compared} rows are "
            f"beyond {target.nine_in_ten:.0%}; the largest error is {worst.error:+.0%} (row {worst.row.id}, "
            f"{worst.row.what})."
        )
    return told or ["All sources are within the errors aimed at."]


def _is_beyond(row: PredictedRow) -> bool:
    target = TARGETS.get(row.row.quality)
    return row.compared and target is not None and row.error is not None and abs(row.error) > target.nine_in_ten


def _beyond_target(rows: Sequence[PredictedRow]) -> Table:
    columns = ["id", "source", "quality", "what", "backend", "P", "measured (s)", "predicted (s)", "error (fraction)"]
    cells: list[list[Any]] = [
        [
            row.row.id,
            row.source,
            row.row.quality,
            row.row.what,
            row.row.backend,
            row.row.workers,
            row.row.measured_s,
            row.predicted_s,
            row.error,
        ]
        for row in rows
        if _is_beyond(row)
    ]
    return Table("Rows beyond the errors aimed at", columns, cells, PREDICTED)


def _comparison(rows: Sequence[PredictedRow], summaries: Mapping[tuple[str, str], ErrorSummary]) -> Section:
    figures = []
    for quality in sorted({row.row.quality for row in rows}):
        series, with_intervals = [], any(row.half_width is not None for row in rows)
        for name in dict.fromkeys(row.source for row in rows if row.row.quality == quality):
            own = [row for row in rows if row.source == name and row.row.quality == quality and row.compared]
            if own:
                measured, predicted, low, high = zip(*map(_drawn, own), strict=True)
                series.append(Series(name, measured, predicted, low, high))
        if series:
            figures.append(
                Figure(
                    f"Quality {quality}: predicted against measured",
                    f"{_named(quality)}{'; bars are 95 % intervals' if with_intervals else ''}.",
                    against(series, Axis("measured", 10, unit="s"), Axis("predicted", 10, unit="s")),
                    PREDICTED,
                )
            )
    columns = [
        "source",
        "quality",
        "rows",
        "skipped",
        "for calibration",
        "compared",
        "median error (fraction)",
        "nine in ten within (fraction)",
        "in the 95 % interval (fraction)",
        "median half-width (fraction)",
    ]
    table = Table("Errors by source", columns, [[*key, *summary] for key, summary in summaries.items()], PREDICTED)
    return Section("Predicted against measured", figures=figures, tables=[table])


def _drawn(row: PredictedRow) -> tuple[float, float, float, float]:
    assert row.predicted_s is not None
    low, high = (row.predicted_s if bound is None else bound for bound in (row.low_s, row.high_s))
    return measured_of(row.row), row.predicted_s, low, high


def _calibrations(fitted: Mapping[str, Outcome], parts: Mapping[str, str]) -> Section:
    rows: list[list[Any]] = [
        [name, term, value, outcome["sd"][term], outcome["residual"], parts[name], len(outcome["rows"])]
        for name, outcome in fitted.items()
        for term, value in outcome["terms"].items()
    ]
    columns = [
        "cluster",
        "term (SI unit)",
        "value",
        "standard deviation (fraction)",
        "residual (fraction, rms)",
        "calibrated on",
        "rows",
    ]
    return Section("Calibrated terms", tables=[Table("Calibrated terms", columns, rows, "FITTED to PUBLISHED times")])


def _table(rows: Sequence[PredictedRow]) -> Table:
    columns = [
        "id",
        "source",
        "quality",
        "what",
        "backend",
        "P",
        "measured (s)",
        "predicted (s)",
        "error (fraction)",
        "from (s)",
        "to (s)",
        "for calibration",
        "skipped because",
    ]
    return Table(
        "All rows",
        columns,
        [
            [
                row.row.id,
                row.source,
                row.row.quality,
                row.row.what,
                row.row.backend,
                row.row.workers,
                row.row.measured_s,
                row.predicted_s,
                row.error,
                row.low_s,
                row.high_s,
                row.calibrated,
                row.skipped,
            ]
            for row in rows
        ],
        PREDICTED,
    )
