"""Pictures from plain data, drawn by seaborn and matplotlib, as SVG text: the same data gives the same bytes.

Curves differ in colour, marker and dash. The caller labels the axes, with units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsim.report.canvas import Axis, blank, canvas, legend, plain, scale, to_svg
from netsim.report.palette import ACTIVITY_COLOURS, COLOURS, Look, looks_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

__all__ = [
    "Axis",
    "Heat",
    "Mark",
    "Series",
    "TimeSpan",
    "against",
    "gantt",
    "heat_map",
    "lines",
    "scatter",
    "stacked_bars",
]

MOST_MARKERS = 12
"""Markers of a curve; of a longer one only every n-th point has one."""


@dataclass(frozen=True, slots=True)
class Series:
    """A named sequence of points (x, y).

    Attributes
    ----------
    low, high
        Bounds of each `y`, drawn as a band, or as bars in :func:`against`.
    fit
        The values of a fitted curve at each `x`. It is drawn in place of the line that joins the points.
    algorithm
        The algorithm of the series, which gives its colour; None if the series is no algorithm's.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    fit: Sequence[float] | None = None
    algorithm: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at `x`, such as a crossover, with the interval from `low` to `high` that contains it."""

    name: str
    x: float
    low: float | None = None
    high: float | None = None


def lines(
    series: Sequence[Series], x: Axis, y: Axis, marks: Sequence[Mark] = (), levels: Mapping[str, float] | None = None
) -> str:
    """Draw curves as SVG.

    Parameters
    ----------
    series
        The curves.
    x, y
        The axes, such as ``Axis("workers P", 2)`` and ``Axis("communication", 10, unit="s")``.
    marks
        Vertical lines across the curves.
    levels
        Horizontal lines: their heights by name.

    Examples
    --------
    >>> gtopk = Series("gTop-k", [2, 4, 8], [1.0, 2.0, 3.0], algorithm="gtopk")
    >>> svg = lines([gtopk], Axis("workers P", 2), Axis("round (ms)"))
    >>> "workers P" in svg
    True
    """
    import seaborn as sns

    with canvas() as (drawing, axes):
        looks = looks_of({each.name: each.algorithm for each in series})
        curves = _frame((each.name, each.x, each.y if each.fit is None else each.fit) for each in series)
        points = _frame((each.name, each.x[:: _every(each)], each.y[:: _every(each)]) for each in series)
        palette = {name: look.colour for name, look in looks.items()}
        same = {"x": "x", "y": "y", "hue": "series", "style": "series", "palette": palette, "legend": False}
        dashes = {name: look.dash for name, look in looks.items()}
        sns.lineplot(curves, **same, dashes=dashes, estimator=None, sort=False, ax=axes)
        markers = {name: look.marker for name, look in looks.items()}
        sns.scatterplot(points, **same, markers=markers, linewidth=0, zorder=2, ax=axes)
        for each in series:
            if each.low is not None and each.high is not None:
                colour = looks[each.name].colour
                axes.fill_between(each.x, each.low, each.high, color=colour, alpha=0.18, linewidth=0)
        shown = [(_handle(looks[each.name]), each.name) for each in series]
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


def _frame(series: Iterable[tuple[str, Sequence[float], Sequence[float]]]) -> pd.DataFrame:
    """Return all points of some series in the long form that seaborn takes."""
    import pandas as pd

    rows = [(name, *point) for name, *values in series for point in zip(*values, strict=True)]
    return pd.DataFrame(rows, columns=["series", "x", "y"])


def _every(series: Series) -> int:
    """Return the distance of points with a marker."""
    return 1 if series.fit is not None else max(1, len(series.x) // MOST_MARKERS)


def _handle(look: Look, line: bool = True) -> Any:
    """Return the sample of a series in a legend, with line and marker, so that each series is there once."""
    from matplotlib.lines import Line2D

    dash: Any = (0, look.dash) if line and look.dash else "-" if line else ""
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=dash)


def stacked_bars(names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: Axis) -> str:
    """Draw one horizontal bar per name, stacked from parts such as compute and exposed communication.

    A part that is 0 everywhere is left out.
    """
    import pandas as pd
    import seaborn as sns

    shown = [plain(name) for name in names]
    colours = _activity_colours([part for part, values in parts.items() if any(values)] or parts)
    rows = [(name, part, value) for part in colours for name, value in zip(shown, parts[part], strict=True)]
    with canvas(height=1.15 + 0.36 * len(names)) as (drawing, axes):
        sns.histplot(
            pd.DataFrame(rows, columns=["name", "part", "value"]),
            y="name", weights="value", hue="part", hue_order=list(colours)[::-1], multiple="stack", shrink=0.62,
            palette=colours, alpha=1, linewidth=0, legend=False, ax=axes,
        )  # fmt: skip
        axes.set_ylabel("")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        scale(axes, unit, None)
        legend(drawing, _patches(colours))
        return to_svg(drawing)


def _activity_colours(activities: Iterable[str]) -> dict[str, str]:
    """Return the colour of each activity; one that has none of its own takes one of the palette."""
    named = {activity: ACTIVITY_COLOURS.get(activity) for activity in activities}
    return {name: colour or COLOURS[index % len(COLOURS)] for index, (name, colour) in enumerate(named.items())}


def _patches(colours: Mapping[str, str]) -> list[tuple[Any, str]]:
    from matplotlib.patches import Patch

    return [(Patch(color=colour, linewidth=0), name) for name, colour in colours.items()]


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """An activity in a lane from `start` to `end`, of a kind such as "compute"."""

    lane: str
    kind: str
    start: float
    end: float


def gantt(spans: Sequence[TimeSpan], unit: Axis) -> str:
    """Draw a Gantt chart as SVG: one lane below the other, in order of first appearance."""
    lanes = list(dict.fromkeys(span.lane for span in spans))
    kinds = list(dict.fromkeys([*ACTIVITY_COLOURS, *(span.kind for span in spans)]))
    colours = _activity_colours(kind for kind in kinds if any(span.kind == kind for span in spans))
    with canvas(height=1.2 + max(1.0, 0.24 * len(lanes))) as (drawing, axes):
        for kind, colour in colours.items():
            own = [span for span in spans if span.kind == kind]
            axes.barh(
                [lanes.index(span.lane) for span in own],
                [span.end - span.start for span in own],
                left=[span.start for span in own],
                height=0.7,
                color=colour,
                linewidth=0,
            )
        axes.set_yticks(range(len(lanes)), [plain(lane) for lane in lanes])
        axes.set_ylim(len(lanes) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        scale(axes, unit, None)
        legend(drawing, _patches(colours))
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
    import seaborn as sns

    with canvas(height=4.2) as (drawing, axes):
        looks = looks_of({each.name: each.algorithm for each in series})
        sns.scatterplot(
            _frame((each.name, each.x, each.y) for each in series),
            x="x", y="y", hue="series", style="series", linewidth=0, legend=False, ax=axes, zorder=2,
            palette={name: look.colour for name, look in looks.items()},
            markers={name: look.marker for name, look in looks.items()},
        )  # fmt: skip
        for each in series:
            if each.low is not None and each.high is not None:
                axes.vlines(each.x, each.low, each.high, color=looks[each.name].colour, linewidth=1)
        every = [value for each in series for value in (*each.x, *each.y) if value > 0 or not x.log]
        ends = [min(every), max(every)]
        (agreeing,) = axes.plot(ends, ends, color="black", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        scale(axes, x, y)
        legend(drawing, [*((_handle(looks[each.name], line=False), each.name) for each in series), (agreeing, same)])
        return to_svg(drawing)


def scatter(panels: Mapping[str, Sequence[Series]], x: Axis, y: Axis) -> str:
    """Draw points as SVG in panels one below the other, which share both axes.

    Named in the picture are the points that no other one of the panel beats, further left and at least as high.

    Parameters
    ----------
    panels
        The series of each panel by its title; a series has the same look in all panels.
    x, y
        The axes.
    """
    every = {each.name: each.algorithm for series in panels.values() for each in series}
    looks = looks_of(every)
    with blank(height=0.7 + 2.1 * len(panels)) as drawing:
        rows = drawing.subplots(len(panels), sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (title, series) in zip(rows, panels.items(), strict=True):
            for each in series:
                look = looks[each.name]
                axes.plot(each.x, each.y, color=look.colour, marker=look.marker, linestyle="")
            axes.set_title(plain(title), loc="left")
        for axes in rows:  # the limits are those of all points
            scale(axes, x, y)
            axes.label_outer()
        legend(drawing, [(_handle(look, line=False), name) for name, look in looks.items()])
        drawing.draw_without_rendering()  # which places the panels, so that names know where others are
        for axes, series in zip(rows, panels.values(), strict=True):
            _name_points(axes, _unbeaten(series))
        return to_svg(drawing)


def _name_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write names beside points; a name that would cover the one before it joins it."""
    before: Annotation | None = None
    for name, across, up in points:
        written = axes.annotate(plain(name), (across, up), fontsize=7, xytext=(4, 3), textcoords="offset points")
        if before is not None and before.get_window_extent().overlaps(written.get_window_extent()):
            before.set_text(f"{before.get_text()}, {written.get_text()}")
            written.remove()
        else:
            before = written


def _unbeaten(series: Sequence[Series]) -> list[tuple[str, float, float]]:
    """Return name, x and y of the points to whose left no point is as high."""
    points = sorted(
        ((each.name, across, up) for each in series for across, up in zip(each.x, each.y, strict=True)),
        key=lambda point: (point[1], -point[2]),
    )
    found: list[tuple[str, float, float]] = []
    for point in points:
        if not found or point[2] > found[-1][2]:
            found.append(point)
    return found
