"""The result of a validation: predictions beside measurements, as text, JSON, a table of pandas, and files."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim._util.errors import NetsimError, reason_of
from netsim._util.storage import write_atomically
from netsim._util.system import environment, surroundings
from netsim._util.units import format_bytes, format_duration
from netsim.report.document import Table
from netsim.report.drawing import Axis, Series, against
from netsim.report.files import as_csv
from netsim.report.notebook import as_text, html_of, html_table, paragraphs, with_packages
from netsim.report.text import Column, print_lines, print_table
from netsim.testbed.comparison import Comparison, summary

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

SCHEMA = "netsim.validation/1"
CROWDED = 0.85
"""Busy share of core time from which on cores limit the measured times as much as links do."""
KEYS = 5
"""Columns of the table that say what a row compares; the first two always stand in the table."""


@dataclass(frozen=True, slots=True, repr=False)
class Validation:
    """Predictions beside measurements: ``print(validation)`` shows the table and the conclusion.

    Attributes
    ----------
    comparison
        One row per exchange or round of training at one setting; empty on ranks other than 0 of torchrun's job.
    settings
        Each setting's point-to-point measurements and load of the machine.
    config
        The options of ``netsim validate``, as they are written.
    conclusion
        The conclusion in sentences.
    """

    comparison: Sequence[Comparison]
    settings: Sequence[dict[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    conclusion: Sequence[str] = ()
    notes: Sequence[str] = ()
    """Sentences on options that were given and had no effect, and on what was assumed."""

    @property
    def agrees(self) -> bool:
        """Whether every prediction is within the tolerance."""
        return all(row.verdict == "agrees" for row in self.comparison)

    def __repr__(self) -> str:
        off = sum(row.verdict == "off" for row in self.comparison)
        return f"Validation({len(self.comparison)} comparisons, {off} off; print it for the table)"

    def __str__(self) -> str:
        return as_text(self.render)

    def _repr_html_(self) -> str:
        """Return the table and the conclusion for a notebook."""
        return html_of(paragraphs(self.notes), html_table(self._columns()), paragraphs(self.conclusion))

    def render(self, console: Console) -> None:
        """Print the comparison as a table, and the conclusion; columns of equal cells stand in one line above."""
        print_lines(console, [f"note  {note}" for note in self.notes])
        columns = self._columns()
        same = [column for column in columns[2:KEYS] if len(set(column.cells)) == 1]
        if same:
            print_lines(console, ["; ".join(f"{column.name}: {column.cells[0]}" for column in same)])
        print_table(console, [column for column in columns if column not in same], keys=KEYS - len(same))
        print_lines(console, self.conclusion)

    def _columns(self) -> list[Column]:
        rows = self.comparison
        return [
            Column("what", [row.title for row in rows], "label"),
            Column("size", [format_bytes(row.bytes) for row in rows]),
            Column("P", [str(row.workers) for row in rows]),
            Column("network", [row.network for row in rows], "label"),
            Column("sends", [row.sends for row in rows], "label"),
            Column("predicted", [format_duration(row.predicted_s) for row in rows]),
            Column("measured", [format_duration(row.measured_s) for row in rows]),
            Column("95 % interval", [" to ".join(map(format_duration, row.measured_ci_s)) for row in rows]),
            Column("error", [f"{row.error:+.1%}" for row in rows]),
            Column("", [row.verdict for row in rows], "label"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the document ``netsim.validation/1``, in SI units."""
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "environment": environment("cpu") | surroundings() | {"kernel": platform.release()},
            "conclusion": list(self.conclusion),
            "notes": list(self.notes),
            "settings": list(self.settings),
            "comparison": [row.as_json() for row in self.comparison],
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return the comparison as a table with one row per prediction and the JSON keys as columns."""
        with with_packages("validation.to_pandas()"):
            import pandas as pd

        return pd.DataFrame([row.as_json() for row in self.comparison])

    def write(self, folder: Path) -> None:
        """Write the document, the comparison as CSV, and the scatter plot into a folder; raise NetsimError if not."""
        rows = [row.as_json() for row in self.comparison]
        columns = [name for name in rows[0] if name != "measured_ci_s"]
        cells = [[*(row[name] for name in columns), *row["measured_ci_s"]] for row in rows]
        table = Table("validation", [*columns, "measured_ci_low_s", "measured_ci_high_s"], cells)
        texts = {"json": f"{self.to_json()}\n", "csv": as_csv(table), "svg": self._drawing()}
        for ending, text in texts.items():
            file = folder / f"validation.{ending}"
            try:
                write_atomically(file, text)
            except OSError as error:
                raise NetsimError(f"out {str(file)!r} could not be written: {reason_of(error)}") from error

    def _drawing(self) -> str:
        series = []
        for title in dict.fromkeys(row.title for row in self.comparison):
            of_title = [row for row in self.comparison if row.title == title]
            measured, predicted = ([getattr(row, name) for row in of_title] for name in ("measured_s", "predicted_s"))
            series.append(Series(title, measured, predicted, algorithm=of_title[0].algorithm))
        return against(series, Axis("measured", 10, unit="s"), Axis("predicted", 10, unit="s"))


def conclude(rows: Sequence[Comparison], tolerance: float) -> list[str]:
    """Return the conclusion in sentences: errors by message size, load of the cores, and verdicts."""
    exchanges = [row for row in rows if row.kind == "exchange"]
    groups = {
        "messages of 400 kB and more": [row for row in exchanges if row.bytes >= 400_000],
        "messages of 100 to 400 kB": [row for row in exchanges if 100_000 <= row.bytes < 400_000],
        "messages below 100 kB": [row for row in exchanges if row.bytes < 100_000],
        "rounds of training": [row for row in rows if row.kind == "round"],
    }
    sentences = []
    for name, group in groups.items():
        if group:
            median, most = summary([row.error for row in group])
            sentences.append(f"Of {name}, {len(group)}: |error| {median:.1%} in the median, {most:.1%} at the worst.")
    if crowded := [row for row in rows if (row.processors_busy or 0.0) >= CROWDED]:
        most_busy = max(crowded, key=lambda row: row.processors_busy or 0.0)
        sentences.append(
            f"In {len(crowded)} of {len(rows)} the processors were {CROWDED:.0%} busy or more, up to "
            f"{most_busy.processors_busy:.0%} busy during {most_busy.title}, P = {most_busy.workers}, "
            f"{most_busy.network}: there this machine limits what is measured, not the links alone. "
            "Take fewer ranks, less bandwidth or more processors."
        )
    if trained := [row for row in rows if row.same_parameters is not None]:
        same = sum(bool(row.same_parameters) for row in trained)
        sentences.append(f"Parameters after the real run equal the simulated ones in {same} of {len(trained)} runs.")
    off = [row for row in rows if row.verdict == "off"]
    worst = max(rows, key=lambda row: abs(row.error))
    sentences.append(
        f"{f'All {len(rows)} predictions are' if len(rows) > 1 else 'The prediction is'} within {tolerance:.0%}."
        if not off
        else f"{len(off)} of {len(rows)} predictions are off by more than {tolerance:.0%}, the worst by "
        f"{worst.error:+.1%}: {worst.title}, P = {worst.workers}, {worst.network}."
    )
    return sentences
