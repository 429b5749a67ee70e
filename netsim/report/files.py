"""A table as CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import re

from netsim.report.document import Table, TableCell

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet computes text that begins like this."""


def as_csv(table: Table) -> str:
    """Return the table as CSV; text that a spreadsheet would take for a formula begins with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_harmless(column) for column in table.columns])
    writer.writerows([_harmless(cell) for cell in row] for row in table.rows)
    return text.getvalue()


def as_json_lines(table: Table) -> str:
    """Return the table as JSON, an object a row; a number that is not finite is null."""
    rows = [dict(zip(table.columns, map(_finite, row), strict=True)) for row in table.rows]
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def file_name(stem: str, title: str, taken: set[str]) -> str:
    """Return a name for the files of a table or picture, without suffix, that is not among those `taken`; take it."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].rstrip("-") or "table"
    name, number = f"{stem}-{words}", 2
    while name in taken:
        name, number = f"{stem}-{words}-{number}", number + 1
    taken.add(name)
    return name


def _harmless(cell: TableCell) -> TableCell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _finite(cell: TableCell) -> TableCell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
