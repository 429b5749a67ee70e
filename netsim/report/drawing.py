"""Pictures from plain data, as SVG text: the same data gives the same bytes.

Colours are told apart by people who see few of them, and markers and dashes differ, too. Nothing in here
simulates. Axes are labelled by the caller, with units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netsim.report.canvas import Axis, canvas, legend, plain, scale, to_svg

__all__ = ["Axis", "Heat", "Mark", "Series", "TimeSpan", "against", "gantt", "heat_map", "lines", "stacked_bars"]

COLOURS = ("#0173b2", "#d55e00", "#029e73", "#c765ad", "#8d7a5b", "#3fa0d8", "#7f7f7f", "#6a40f0")
"""Of seaborn's colour-blind palette, made to be seen on white and on black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (8, 2)),
                           (0, (1, 2)), (0, (4, 1, 1, 1, 1, 1)))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """A named row of points; `low` and `high`, if given, bound each `y`.

    `like` is the name of a series whose colour and marker this one takes, as a fit takes its data's; `line` and
    `points` say what is drawn.
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
    """A vertical line at `x`, such as a crossover, with the interval that it lies in."""

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
    """Draw curves, with marks across them, and levels: named horizontal lines.

    `order` names series, so that they have the same colours in several pictures.

    Scaling is ``lines(points + fits, Axis("workers P", 2), Axis("communication (s)", 10), crossovers)``.
    """
    with canvas() as (drawing, axes):
        styles = _styles(series, order)
        shown: list[tuple[Any, str]] = []
        for each in series:
            colour, marker, dash = styles[each.name]
            (drawn,) = axes.plot(
                each.x, each.y, color=colour, marker=marker if each.points else "", linestyle=dash if each.line else "",
                markevery=max(1, len(each.x) // 12),
            )  # fmt: skip
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
        for number, mark in enumerate(marks):
            axes.annotate(plain(mark.name), (mark.x, 1), xycoords=("data", "axes fraction"), fontsize=8, ha="left",
                          va="bottom", xytext=(-3, 2 + 11 * number), textcoords="offset points")  # fmt: skip
        legend(drawing, shown)
        return to_svg(drawing)


def stacked_bars(names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: Axis) -> str:
    """Draw a bar a name, made of parts on each other, such as compute, selection, exposed communication."""
    with canvas(height=1.15 + 0.36 * len(names)) as (drawing, axes):
        left = [0.0] * len(names)
        shown: list[tuple[Any, str]] = []
        for number, (part, values) in enumerate(parts.items()):
            bars = axes.barh(
                range(len(names)), values, left=left, height=0.62, color=COLOURS[number % len(COLOURS)], linewidth=0,
            )  # fmt: skip
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
    """Something that went on in a lane from `start` to `end`, of a kind such as "compute"."""

    lane: str
    kind: str
    start: float
    end: float


def gantt(spans: Sequence[TimeSpan], unit: Axis, kinds: Sequence[str] = ()) -> str:
    """Draw lanes, one under the other in order of appearance, with what went on in them along time.

    `kinds` gives the order of the legend, and so of the colours; kinds that do not occur are left out.
    """
    lanes = list(dict.fromkeys(span.lane for span in spans))
    found = dict.fromkeys([*kinds, *(span.kind for span in spans)])
    with canvas(height=1.2 + max(1.0, 0.24 * len(lanes))) as (drawing, axes):
        shown: list[tuple[Any, str]] = []
        for number, kind in enumerate(found):
            own = [span for span in spans if span.kind == kind]
            if own:
                bars = axes.barh(
                    [lanes.index(span.lane) for span in own], [span.end - span.start for span in own],
                    left=[span.start for span in own], height=0.7, color=COLOURS[number % len(COLOURS)], linewidth=0,
                )  # fmt: skip
                shown.append((bars, kind))
        axes.set_yticks(range(len(lanes)), [plain(lane) for lane in lanes])
        axes.set_ylim(len(lanes) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        scale(axes, unit, None)
        legend(drawing, shown)
        return to_svg(drawing)


LEVELS = 20
"""Shades of a heat map."""


@dataclass(frozen=True, slots=True)
class Heat:
    """Values from 0 to 1: a row a name, a column between every two `edges`."""

    names: Sequence[str]
    edges: Sequence[float]
    values: Sequence[Sequence[float]]
    label: str = "utilisation (fraction of bandwidth)"
    most: float = 1.0


def _by_level(heat: Heat) -> dict[int, list[list[tuple[float, float]]]]:
    """Return the corners of the cells of each shade; neighbours of one shade are one cell."""
    found: dict[int, list[list[tuple[float, float]]]] = {}
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
                found.setdefault(levels[start], []).append(corners)
                start = column
    return dict(sorted(found.items()))


def heat_map(heat: Heat, unit: Axis) -> str:
    """Draw how much each of many things, such as links, was used along time."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as MplPath

    with canvas(height=1.1 + max(0.8, 0.2 * len(heat.names))) as (drawing, axes):
        rows = [float(row) for row in range(len(heat.names) + 1)]
        colours = mpl.colormaps["cividis"].resampled(LEVELS)
        for level, cells in _by_level(heat).items():
            # One path for all cells of a colour: a path each would be ten times the bytes.
            patch = PathPatch(MplPath.make_compound_path(*map(MplPath, cells)), linewidth=0.3)
            patch.set_color(colours(level))  # the edge, too, or the page shines through between two cells
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
    """Draw predicted (y) against measured (x) in one unit, with the line on which they agree, called `same`."""
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
    """Return each series' colour, marker and dash: those of the series that it is like, if any."""
    names = dict.fromkeys([*order, *(each.name for each in series if not each.like)])
    own = {name: number for number, name in enumerate(names)}
    look = {
        name: (COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)], DASHES[at % len(DASHES)])
        for name, at in own.items()
    }
    for each in series:
        if each.like:
            colour, marker, _ = look.get(each.like, ("black", ".", "-"))
            look[each.name] = (colour, marker, "-" if not each.points else (0, (1, 1)))
    return look
