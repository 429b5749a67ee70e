"""Text, tables and pictures for notebooks: escaped and self-contained HTML, legible on light and on dark pages."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import escape

from netsim._util.errors import InfeasibleError
from netsim.report.canvas import HEIGHT, canvas, to_svg
from netsim.report.svg import renamed, standalone

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

    from netsim.report.text import Column

USUAL_WIDTH = 120
"""Columns of text where there is no terminal, as in a notebook."""


@contextmanager
def with_packages(what: str) -> Iterator[None]:
    """Turn a failed import within this block into an InfeasibleError of one line, which says what needs the package."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        raise InfeasibleError(f"{what} needs {package}: install it with pip install {package}") from error


def as_text(show: Callable[[Console], object]) -> str:
    """Return what `show` prints on a console, without colours, as wide as the terminal."""
    from rich.console import Console

    text = io.StringIO()
    show(Console(file=text, width=shutil.get_terminal_size((USUAL_WIDTH, 24)).columns))
    return text.getvalue().rstrip("\n")


def new_axes() -> Axes:
    """Return the axes of a new figure, which a notebook shows at the end of its cell."""
    with with_packages("a picture"):
        import matplotlib.pyplot as plt

    _, axes = plt.subplots(layout="constrained")
    return axes


def drawn(plot: Callable[[Axes], object], height: float = HEIGHT) -> str:
    """Return what `plot` draws, as SVG for a page of any colour: black takes the colour of the page's text."""
    with with_packages("a picture"), canvas(height) as (drawing, axes):
        plot(axes)
        svg = standalone(to_svg(drawing))
    # The names of a picture's elements must differ from those of other pictures in the notebook.
    picture = renamed(svg, f"n{hashlib.sha256(svg.encode()).hexdigest()[:8]}-")
    return f'<div style="max-width: 40em">{picture}</div>'


ALIGNED = {"number": "right", "label": "left", "text": "left"}
"""The side of a cell at which its text is, by the kind of its column."""


def html_table(columns: Sequence[Column]) -> str:
    """Return columns as an HTML table."""
    head = [_cell(column, column.name, "th") for column in columns]
    rows = zip(*([_cell(column, cell, "td") for cell in column.cells] for column in columns), strict=True)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{''.join(head)}</tr></thead><tbody>{body}</tbody></table>"


def _cell(column: Column, text: str, tag: str) -> str:
    """Return a cell, whose text is broken only in headers, at the ends of their lines, and in columns of text."""
    breaks = "pre-line" if tag == "th" else "normal" if column.kind == "text" else "nowrap"
    return f'<{tag} style="text-align: {ALIGNED[column.kind]}; white-space: {breaks}">{escape(text)}</{tag}>'


def verbatim(lines: Sequence[str]) -> str:
    """Return lines of text whose words stand below each other; long ones are broken."""
    text = escape("\n".join(lines))
    return f'<pre style="white-space: pre-wrap">{text}</pre>'


def paragraphs(sentences: Sequence[str]) -> str:
    """Return one HTML paragraph per sentence."""
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def html_of(*parts: Any) -> str:
    """Return parts of HTML below each other; a part that is wider than the page is scrolled."""
    return f'<div style="overflow-x: auto">{"".join(parts)}</div>'
