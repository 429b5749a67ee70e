"""Pictures from plain data, as SVG text: the same data gives the same bytes.

Curves differ in colour, marker and dash, and the colours come from a palette for colour-blind readers. The caller
labels the axes, with units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netsim.report.canvas import Axis, canvas, legend, plain, scale, to_svg

__all__ = ["Axis", "Heat", "Mark", "Series", "TimeSpan", "against", "gantt", "heat_map", "lines", "stacked_bars"]

COLOURS = ("#0173b2", "#d55e00", "#029e73", "#c765ad", "#8d7a5b", "#3fa0d8", "#7f7f7f", "#6a40f0")
"""Seaborn's colour-blind palette, adjusted to be legible on white and on black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (8, 2)),
                           (0, (1, 2)), (0, (4, 1, 1, 1, 1, 1)))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """A named sequence of points (x, y).

    Attributes
    ----------
    low, high
        Bounds of each `y`, drawn as a shaded band.
    like
        The name of another series with the same colour and marker. A fitted curve names the series of its data.
    line, points
        Whether the points are joined by a line, and whether they have markers.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    like: str | None = None
    line: bool = True
    points: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at `x`, such as a crossover, with the interval from `low` to `high` that contains it."""

    name: str
    x: float
    low: float | None = None
    high: float | None = None


def lines(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    marks: Sequence[Mark] = (),
    levels: Mapping[str, float] | None = None,
    order: Sequence[str] = (),
) -> str:
    """Draw curves as SVG.

    Parameters
    ----------
    series
        The curves.
    x, y
        The axes, such as ``Axis("workers P", 2)`` and ``Axis("communication (s)", 10)``.
    marks
        Vertical lines across the curves.
    levels
        Horizontal lines: their heights by name.
    order
        Names in the order in which they take colours; pictures with the same `order` share their colours.

    Examples
    --------
    >>> svg = lines([Series("gTop-k", [2, 4, 8], [1.0, 2.0, 3.0])], Axis("workers P", 2), Axis("round (ms)"))
    >>> "workers P" in svg
    True
    """
    with canvas() as (drawing, axes):
        styles = _styles(series, order)
        shown: list[tuple[Any, str]] = []
        for each in series:
            colour, marker, dash = styles[each.name]
            (drawn,) = axes.plot(
                each.x,
                each.y,
                color=colour,
                marker=marker if each.points else "",
                linestyle=dash if each.line else "",
                markevery=max(1, len(each.x) // 12),
            )
            if each.low is not None and each.high is not None:
                axes.fill_between(each.x, each.low, each.high, color=colour, alpha=0.18, linewidth=0)
            shown.append((drawn, each.name))
        for name, level in (levels or {}).items():
            shown.append((axes.axhline(level, color="black", linewidth=1, linestyle=(0, (2, 2))), name))
        for mark in marks:
            axes.axvline(mark.x, color="black", linewidth=0.9, linestyle=(0, (1, 2)))
            if mark.low is not None and mark.high is not None:
                axes.axvspan(mark.low, mark.high, color="black", alpha=0.07, linewidth=0)
        scale(axes, x, y)
        for row, mark in enumerate(marks):
            axes.annotate(
                plain(mark.name),
                (mark.x, 1),
                xycoords=("data", "axes fraction"),
                fontsize=8,
                ha="left",
                va="bottom",
                xytext=(-3, 2 + 11 * row),
                textcoords="offset points",
            )
        legend(drawing, shown)
        return to_svg(drawing)


def stacked_bars(names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: Axis) -> str:
    """Draw one horizontal bar per name, stacked from parts such as compute, selection and exposed communication."""
    with canvas(height=1.15 + 0.36 * len(names)) as (drawing, axes):
        left = [0.0] * len(names)
        shown: list[tuple[Any, str]] = []
        for number, (part, values) in enumerate(parts.items()):
            bars = axes.barh(
                range(len(names)),
                values,
                left=left,
                height=0.62,
                color=COLOURS[number % len(COLOURS)],
                linewidth=0,
            )
            left = [a + b for a, b in zip(left, values, strict=True)]
            shown.append((bars, part))
        axes.set_yticks(range(len(names)), [plain(name) for name in names])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        scale(axes, unit, None)
        legend(drawing, shown)
        return to_svg(drawing)


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """An activity in a lane from `start` to `end`, of a kind such as "compute"."""

    lane: str
    kind: str
    start: float
    end: float


def gantt(spans: Sequence[TimeSpan], unit: Axis, kinds: Sequence[str] = ()) -> str:
    """Draw a Gantt chart as SVG: one lane below the other, in order of first appearance.

    `kinds` gives the order of the legend and thus of the colours; kinds that do not occur are left out.
    """
    lanes = list(dict.fromkeys(span.lane for span in spans))
    legend_order = dict.fromkeys([*kinds, *(span.kind for span in spans)])
    with canvas(height=1.2 + max(1.0, 0.24 * len(lanes))) as (drawing, axes):
        shown: list[tuple[Any, str]] = []
        for number, kind in enumerate(legend_order):
            own = [span for span in spans if span.kind == kind]
            if own:
                bars = axes.barh(
                    [lanes.index(span.lane) for span in own],
                    [span.end - span.start for span in own],
                    left=[span.start for span in own],
                    height=0.7,
                    color=COLOURS[number % len(COLOURS)],
                    linewidth=0,
                )
                shown.append((bars, kind))
        axes.set_yticks(range(len(lanes)), [plain(lane) for lane in lanes])
        axes.set_ylim(len(lanes) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        scale(axes, unit, None)
        legend(drawing, shown)
        return to_svg(drawing)


LEVELS = 20
"""Number of shades of a heat map."""


@dataclass(frozen=True, slots=True)
class Heat:
    """A heat map: `values[i][j]`, from 0 to `most`, belongs to `names[i]` from `edges[j]` to `edges[j + 1]`."""

    names: Sequence[str]
    edges: Sequence[float]
    values: Sequence[Sequence[float]]
    label: str = "utilisation (fraction of bandwidth)"
    most: float = 1.0


def _by_level(heat: Heat) -> dict[int, list[list[tuple[float, float]]]]:
    """Return the corners of the cells of each shade; adjacent cells of one shade are merged."""
    cells: dict[int, list[list[tuple[float, float]]]] = {}
    for row, values in enumerate(heat.values):
        levels = [min(LEVELS - 1, max(0, int(LEVELS * value / heat.most))) for value in values]
        start = 0
        for column in range(1, len(levels) + 1):
            if column == len(levels) or levels[column] != levels[start]:
                left, right = heat.edges[start], heat.edges[column]
                corners: list[tuple[float, float]] = [
                    (left, row),
                    (right, row),
                    (right, row + 1),
                    (left, row + 1),
                    (left, row),
                ]
                cells.setdefault(levels[start], []).append(corners)
                start = column
    return dict(sorted(cells.items()))


def heat_map(heat: Heat, unit: Axis) -> str:
    """Draw the utilisation of links over time as SVG: one row per link, one shade per value."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as MplPath

    with canvas(height=1.1 + max(0.8, 0.2 * len(heat.names))) as (drawing, axes):
        rows = [float(row) for row in range(len(heat.names) + 1)]
        colours = mpl.colormaps["cividis"].resampled(LEVELS)
        for level, cells in _by_level(heat).items():
            # One path for all cells of a colour: one path per cell would be ten times the bytes.
            patch = PathPatch(MplPath.make_compound_path(*map(MplPath, cells)), linewidth=0.3)
            patch.set_color(colours(level))  # also the edge, so that no gap shows between two cells
            axes.add_patch(patch)
        axes.set_xlim(heat.edges[0], heat.edges[-1])
        axes.set_ylim(0, len(heat.names))
        axes.set_yticks([row + 0.5 for row in rows[:-1]], [plain(name) for name in heat.names])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        scale(axes, unit, None)
        shades = ScalarMappable(Normalize(0, heat.most), colours)
        bar = drawing.colorbar(shades, ax=axes, fraction=0.04, pad=0.02)
        bar.ax.grid(visible=False)
        bar.ax.collections[0].set_rasterized(False)
        bar.set_label(plain(heat.label))
        return to_svg(drawing)


def against(series: Sequence[Series], x: Axis, y: Axis, same: str = "predicted = measured") -> str:
    """Draw predicted (y) against measured (x) as SVG, with the line y = x, which the legend calls `same`."""
    with canvas(height=4.2) as (drawing, axes):
        styles = _styles(series)
        shown: list[tuple[Any, str]] = []
        for each in series:
            colour, marker, _ = styles[each.name]
            if each.low is not None and each.high is not None:
                axes.vlines(each.x, each.low, each.high, color=colour, linewidth=1)
            (drawn,) = axes.plot(each.x, each.y, color=colour, marker=marker, linestyle="")
            shown.append((drawn, each.name))
        every = [value for each in series for value in (*each.x, *each.y) if value > 0 or not x.log]
        least, most = min(every), max(every)
        (agreeing,) = axes.plot([least, most], [least, most], color="black", linewidth=1, linestyle=(0, (2, 2)))
        scale(axes, x, y)
        legend(drawing, [*shown, (agreeing, same)])
        return to_svg(drawing)


def _styles(series: Sequence[Series], order: Sequence[str] = ()) -> dict[str, tuple[str, str, Any]]:
    """Return the colour, marker and dash of each series; a series with `like` takes those of the named series."""
    names = dict.fromkeys([*order, *(each.name for each in series if not each.like)])
    styles = {
        name: (
            COLOURS[index % len(COLOURS)],
            MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],  # a colour comes back with another marker
            DASHES[index % len(DASHES)],
        )
        for index, name in enumerate(names)
    }
    for each in series:
        if each.like:
            colour, marker, _ = styles.get(each.like, ("black", ".", "-"))
            styles[each.name] = (colour, marker, "-" if not each.points else (0, (1, 1)))
    return styles
