"""A document as one HTML file: without scripts, without external resources, and with all text escaped.

The page shows the first sentence of the conclusion and the first picture. Everything else is folded, and opens on
paper.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from netsim._util.errors import NetsimError, reason_of
from netsim._util.storage import write_atomically
from netsim.report.document import Document, Figure, Section, TableCell
from netsim.report.files import as_csv, as_json_lines, file_name
from netsim.report.svg import on_white, renamed, standalone


def write_report(document: Document, path: Path) -> list[Path]:
    """Write `document` to the HTML file `path`, and its tables and pictures to files beside the page.

    File names join the name of the page and the title: ``report-fits.csv``, ``report-fits.jsonl``,
    ``report-speed-up.svg``. Each file is written whole or not at all.

    Returns
    -------
    list of Path
        All files written, the page first.

    Raises
    ------
    NetsimError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from netsim.report import Section, Table
    >>> table = Table("Rounds", ["P", "round (ms)"], [[2, 1.0], [4, 2.0]], "SIMULATED")
    >>> document = Document("Ours", ["A round grows with P."], [Section("Scaling", tables=[table])])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in write_report(document, Path(folder) / "report.html")]
    ['report.html', 'report-rounds.csv', 'report-rounds.jsonl']
    """
    names = _table_names(document, path.stem)
    contents = {path: to_html(document, path.stem)}
    for section, of_section in zip(document.sections, names, strict=True):
        for table, name in zip(section.tables, of_section, strict=True):
            contents[path.with_name(f"{name}.csv")] = as_csv(table)
            contents[path.with_name(f"{name}.jsonl")] = as_json_lines(table)
    taken: set[str] = set()
    for figure in (figure for section in document.sections for figure in section.figures):
        contents[path.with_name(f"{file_name(path.stem, figure.title, taken)}.svg")] = on_white(figure.svg)
    try:
        for file, text in contents.items():
            write_atomically(file, text)
    except OSError as error:
        raise NetsimError(f"report {str(path)!r} could not be written: {reason_of(error)}") from error
    return list(contents)


def to_html(document: Document, stem: str = "report") -> str:
    """Return the page as HTML; `stem` begins the names of the table files that the page mentions."""
    import jinja2
    from markupsafe import Markup

    numbers = iter(range(1, 1 + sum(len(section.figures) for section in document.sections)))

    def ready(section: Section) -> Section:
        """Return a copy of `section` whose pictures share no element names with other pictures of the page."""
        drawn = [
            replace(figure, svg=Markup(renamed(standalone(figure.svg), f"f{next(numbers)}-")))
            for figure in section.figures
        ]
        return replace(section, figures=drawn)

    sections = [ready(section) for section in document.sections]
    picture = next((figure for section in sections for figure in section.figures), None)
    style = files("netsim.report").joinpath("style.css").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": shown, "numeric": _is_number, "numeric_column": _holds_numbers}
    template = environment.from_string(files("netsim.report").joinpath("page.html").read_text("utf-8"))
    return template.render(
        document=document,
        picture=picture,
        sections=[_without(section, picture) for section in sections],
        names=_table_names(document, stem),
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def _without(section: Section, picture: Figure | None) -> Section:
    return replace(section, figures=[figure for figure in section.figures if figure is not picture])


def _table_names(document: Document, stem: str) -> list[list[str]]:
    taken: set[str] = set()
    return [[file_name(stem, table.title, taken) for table in section.tables] for section in document.sections]


def _holds_numbers(place: tuple[Sequence[Sequence[TableCell]], int]) -> bool:
    """Return whether a column, given as (rows, index), holds numbers only; empty cells do not count."""
    rows, column = place
    cells = [row[column] for row in rows if row[column] is not None]
    return bool(cells) and all(map(_is_number, cells))


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def shown(cell: TableCell) -> str:
    """Return a cell as text: four or five digits, commas between thousands, and a dash for an empty cell."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if 1e4 <= abs(cell) < 1e7 else f"{cell:.5g}" if abs(cell) >= 100 else f"{cell:.4g}"
    return cell
