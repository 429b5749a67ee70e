"""What ``netsim validate`` found, for a study's report: predicted against measured, on a network that was there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsim._util.errors import UsageError
from netsim._util.storage import content_of
from netsim.report import Figure, Section, Table, TableCell
from netsim.report.drawing import Axis, Series, against

FILE = "validation.json"
LARGEST_FILE = 50_000_000
"""Bytes; a comparison takes about 500."""

Seconds = Annotated[float, Field(gt=0, le=1e9)]
"""No exchange lasts for decades; a picture of one that did could not be drawn."""


class _Read(BaseModel):
    """What is read of the file; what else stands in it is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Compared(_Read):
    """One exchange or round, of the slowest rank; `measured_s` is a median and lies in `measured_ci_s` by 95 %."""

    kind: Literal["exchange", "round"]
    title: str
    workers: int
    bytes: int
    network: str
    predicted_s: Seconds
    measured_s: Seconds
    measured_ci_s: tuple[float, float]
    error: float
    verdict: Literal["agrees", "off"]


class _Machine(_Read):
    hardware: str = "a machine that is not named"


class ValidationFile(_Read):
    """A validation, with where it was made and what it concluded itself."""

    schema_: Literal["netsim.validation/1"] = Field(alias="schema")
    environment: _Machine
    conclusion: tuple[str, ...]
    comparison: Annotated[tuple[Compared, ...], Field(min_length=1)]


class Presented(NamedTuple):
    """A sentence for the conclusion, a section of the report."""

    sentence: str
    section: Section


def read_validation(path: Path) -> ValidationFile:
    """Return what the folder that ``netsim validate --out`` wrote holds, or its file; raises UsageError for another."""
    file = path / FILE if os.path.isdir(path) else path  # noqa: PTH112  # false for any path, never an error
    what = f"validation {str(file)!r}"
    text = content_of(file, what, "give the folder that netsim validate --out wrote", most=LARGEST_FILE)
    try:
        return ValidationFile.model_validate_json(text)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = " ".join(str(part) for part in wrong["loc"])
        raise UsageError(
            f"validation {str(file)!r} is not one of netsim validate: {place or 'it'}: {wrong['msg']}"
        ) from None


def present(validation: ValidationFile) -> Presented:
    """Return what the validation says, in a sentence and in a section with a picture and a table."""
    rows = validation.comparison
    errors = [abs(each.error) for each in rows]
    sentence = (
        f"Predicted against MEASURED on {validation.environment.hardware}, in {len(rows)} comparisons: the error is "
        f"{median(errors):.1%} in the median and {max(errors):.1%} at the worst."
    )
    provenance = "PREDICTED against MEASURED"
    figure = Figure(
        "Predicted against measured",
        "Every exchange and round that was measured, in seconds of the slowest rank; on the line the two agree.",
        against(_series(rows), Axis("measured (s)", 10), Axis("predicted (s)", 10)),
        provenance,
    )
    columns = [
        "what",
        "P",
        "bytes a rank",
        "network",
        "predicted (s)",
        "measured (s)",
        "95% from",
        "to",
        "error (fraction)",
        "verdict",
    ]
    cells: list[list[TableCell]] = [
        [
            each.title,
            each.workers,
            each.bytes,
            each.network,
            each.predicted_s,
            each.measured_s,
            *each.measured_ci_s,
            each.error,
            each.verdict,
        ]
        for each in rows
    ]
    text = "What netsim validate measured, on its own network, not on that of this study. " + " ".join(
        validation.conclusion
    )
    tables = [Table("predicted against measured", columns, cells, provenance)]
    return Presented(sentence, Section("Predicted against measured", text, [figure], tables))


def _series(rows: Sequence[Compared]) -> list[Series]:
    by_title = {title: [each for each in rows if each.title == title] for title in dict.fromkeys(r.title for r in rows)}
    return [
        Series(title, [each.measured_s for each in own], [each.predicted_s for each in own])
        for title, own in by_title.items()
    ]
