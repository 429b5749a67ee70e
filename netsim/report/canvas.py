"""The canvas of every picture: one style, axes with units, a legend, and the same SVG bytes for the same data."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

WIDTH, HEIGHT = 4.9, 3.4
"""Size of a picture in inches; narrow, so that its letters stay legible on the screen of a telephone."""
LEGEND_ROWS, ROW_HEIGHT = 4, 0.2
"""Rows of a legend for which a picture has room, and the inches that every further row adds to its height."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "netsim",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "black",
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes
    ----------
    label
        The quantity, with its unit if `unit` is empty.
    log
        The base of a logarithmic scale, 2 or 10; None for a linear scale.
    least, most
        The limits; None for those of the data.
    unit
        The unit of the values, "s" or "B", which every tick then shows with a prefix: 20 ms.
    """

    label: str
    log: int | None = None
    least: float | None = None
    most: float | None = None
    unit: str = ""


def plain(text: str) -> str:
    """Return `text` without characters that XML forbids, and with a space before a leading "_".

    A matplotlib legend leaves out names that begin with "_".
    """
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return f" {shown}" if shown.startswith("_") else shown


def scale(axes: Axes, x: Axis, y: Axis | None) -> None:
    """Set labels, scales, ticks and limits of both axes; a `y` of None leaves the vertical axis as it is."""
    from matplotlib import ticker

    for axis, which, to_scale, limits in (
        (x, axes.xaxis, axes.set_xscale, axes.set_xlim),
        (y, axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        if axis is None:
            continue
        which.set_label_text(plain(axis.label))
        if axis.log is not None:
            to_scale("log", base=axis.log)
            least, most = which.get_view_interval()
            if axis.log == 10 and most < 1e3 * least:  # decades alone would label at most three ticks
                which.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5) if most < 50 * least else (1, 3)))
            which.set_minor_formatter(ticker.NullFormatter())
        else:
            which.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        which.set_major_formatter(
            ticker.EngFormatter(axis.unit) if axis.unit else ticker.StrMethodFormatter("{x:,.10g}")
        )
        limits(axis.least, axis.most)


def legend(drawing: Drawing, shown: Sequence[tuple[Any, str]]) -> None:
    """Put the legend above the axes, where it hides no data; the picture grows with a legend of many rows."""
    if not shown:
        return
    longest = max(len(name) for _, name in shown)
    columns = max(1, min(len(shown), 56 // (longest + 8)))
    further = max(0, -(-len(shown) // columns) - LEGEND_ROWS)
    drawing.set_figheight(drawing.get_figheight() + ROW_HEIGHT * further)
    drawing.legend(
        [handle for handle, _ in shown],
        [plain(name) for _, name in shown],
        loc="outside upper left",
        ncols=columns,
        handlelength=2.2,
        columnspacing=1.2,
        borderaxespad=0,
    )


@contextmanager
def blank(height: float = HEIGHT) -> Iterator[Drawing]:
    """Open a drawing without axes in the style of all pictures, `height` inches high."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a browser picks a font that has the glyph
        drawing = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(drawing)
        yield drawing


@contextmanager
def canvas(height: float = HEIGHT) -> Iterator[tuple[Drawing, Axes]]:
    """Open an empty drawing with axes, `height` inches high."""
    with blank(height) as drawing:
        yield drawing, drawing.subplots()


def to_svg(drawing: Drawing) -> str:
    """Return the drawing as SVG, without a date: the same drawing gives the same bytes."""
    text = io.StringIO()
    drawing.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
