"""A result of ``netsim validate`` in the report of a study: predicted against measured on a real network."""

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
"""Greatest size in bytes; a comparison takes about 500."""

Seconds = Annotated[float, Field(gt=0, le=1e9)]
"""A duration in seconds; the bound keeps values that a picture can show."""


class _Read(BaseModel):
    """A part of the file; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Compared(_Read):
    """One exchange or round on its slowest rank: the predicted time, and the measured median with its 95 % interval."""

    kind: Literal["exchange", "round"]
    title: str
    algorithm: str | None = None
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
    """A validation: the machine, the conclusion, and the comparisons."""

    schema_: Literal["netsim.validation/1"] = Field(alias="schema")
    environment: _Machine
    conclusion: tuple[str, ...]
    comparison: Annotated[tuple[Compared, ...], Field(min_length=1)]


class Presented(NamedTuple):
    """A validation in a report: a sentence for the conclusion, and a section."""

    sentence: str
    section: Section


def read_validation(path: Path) -> ValidationFile:
    """Read the folder that ``netsim validate --out`` wrote, or the file in it; raise UsageError for any other file."""
    file = path / FILE if os.path.isdir(path) else path  # noqa: PTH112  # False, without an error, for any path
    what = f"validation {str(file)!r}"
    text = content_of(file, what, "give the folder that netsim validate --out wrote", most=LARGEST_FILE)
    try:
        return ValidationFile.model_validate_json(text)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = " ".join(str(part) for part in wrong["loc"])
        raise UsageError(
            f"validation {str(file)!r} was not written by netsim validate: {place or 'the file'}: {wrong['msg']}"
        ) from None


def present(validation: ValidationFile) -> Presented:
    """Return the validation as a sentence, and as a section with a picture and a table."""
    rows = validation.comparison
    errors = [abs(row.error) for row in rows]
    sentence = (
        f"Predicted against MEASURED on {validation.environment.hardware}, in {len(rows)} comparisons: the error is "
        f"{median(errors):.1%} in the median and {max(errors):.1%} at the worst."
    )
    provenance = "PREDICTED against MEASURED"
    figure = Figure(
        "Predicted against measured",
        "Every measured exchange and round, in seconds of the slowest rank; on the line both times are equal.",
        against(_series(rows), Axis("measured", 10, unit="s"), Axis("predicted", 10, unit="s")),
        provenance,
    )
    columns = [
        "exchange or round",
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
    text = "Measured by netsim validate on its own network, not on the network of this study. " + " ".join(
        validation.conclusion
    )
    tables = [Table("predicted against measured", columns, cells, provenance)]
    return Presented(sentence, Section("Predicted against measured", text, [figure], tables))


def _series(rows: Sequence[Compared]) -> list[Series]:
    by_title = {title: [each for each in rows if each.title == title] for title in dict.fromkeys(r.title for r in rows)}
    return [
        Series(title, [each.measured_s for each in own], [each.predicted_s for each in own], algorithm=own[0].algorithm)
        for title, own in by_title.items()
    ]
