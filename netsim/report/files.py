"""Export of a table as CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import re

from netsim.report.document import Table, TableCell

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which a spreadsheet recognises a formula."""


def as_csv(table: Table) -> str:
    """Return the table as CSV, with an apostrophe before text that a spreadsheet would evaluate as a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_harmless(column) for column in table.columns])
    writer.writerows([_harmless(cell) for cell in row] for row in table.rows)
    return text.getvalue()


def as_json_lines(table: Table) -> str:
    """Return the table as JSON lines, one object per row; a number that is not finite becomes null."""
    rows = [dict(zip(table.columns, map(_finite, row), strict=True)) for row in table.rows]
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def file_name(stem: str, title: str, taken: set[str]) -> str:
    """Return an unused file name, without suffix, for a table or picture, and add it to `taken`.

    The name is `stem` and the title in lower case, such as ``report-round-times``; a second table of the same title
    ends with ``-2``.
    """
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
