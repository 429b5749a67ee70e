"""A recommendation for people: the table of the terminal, the picture of the ranking, and the page with both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from netsim._util.errors import NetsimError, reason_of
from netsim._util.storage import write_atomically
from netsim._util.system import version
from netsim._util.units import format_duration
from netsim.report.canvas import Axis, canvas, scale, to_svg
from netsim.report.document import Document, Figure, Section, Table
from netsim.report.notebook import with_packages
from netsim.report.page import write_report
from netsim.report.terminal import known_lines
from netsim.report.text import Column, print_lines, print_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

    from netsim.analysis.recommend import Ranked, Recommendation

LOG_FROM = 5
"""Ratio of the longest to the shortest round from which the picture has a logarithmic axis."""
PAGE = "recommendation.html"


def render(recommendation: Recommendation, console: Console, *, commands: bool = False) -> None:
    """Print a recommendation; `commands` adds the command that reproduces each row, not only the first one."""
    ranking = recommendation.ranking
    table = columns(ranking)
    print_lines(console, recommendation.sentences)
    print_table(console, table, keys=sum(column.kind == "label" for column in table[:3]))
    print_lines(console, recommendation.limits)
    print_lines(console, known_lines(recommendation.known_errors), indent="    ")
    if commands:
        for row in ranking:
            _print_command(console, f"{row.rank} {_title(row, ranking)}:", row.command)
    else:
        _print_command(console, "The first row again (--commands: every row):", ranking[0].command)


def _print_command(console: Console, heading: str, command: str) -> None:
    """Print a command so that it can be copied: lines end with a backslash, before an option."""
    first, *options = command.split(" --")
    lines, room = [f"  {first}"], console.width - 2
    for each in (f"--{option}" for option in options):
        if len(lines[-1]) + 1 + len(each) > room:
            lines[-1] += " \\"
            lines.append(f"      {each}")
        else:
            lines[-1] += f" {each}"
    print_lines(console, [heading])
    for line in lines:
        console.out(line, highlight=False)


def columns(ranking: Sequence[Ranked]) -> list[Column]:
    """Return the columns of the table, one row per candidate; not those of a part that is alike for all candidates."""

    def durations(name: str, seconds: Callable[[Ranked], float]) -> Column:
        return Column(name, [format_duration(seconds(row)) for row in ranking])

    def varying(column: Column) -> list[Column]:
        return [column] if len(set(column.cells)) > 1 or len(ranking) == 1 else []

    return [
        Column("", [str(row.rank) for row in ranking], "label"),
        Column("candidate", [row.candidate.title for row in ranking], "label"),
        *([Column("topology", [row.candidate.topology for row in ranking], "label")] if _several(ranking) else []),
        durations("round", lambda row: row.round_time_s),
        *varying(Column("kind of step", [row.candidate.convergence for row in ranking], "label")),
        Column("with inputs\n±20%", [_range(row) for row in ranking]),
        *varying(durations("compute", lambda row: row.compute_time_s)),
        *varying(durations("select", lambda row: row.select_time_s)),
        durations("exposed\ncomm", lambda row: row.comm_time_s),
        Column(
            "scaling\nefficiency",
            ["–" if (share := row.scaling_efficiency) is None else f"{share:.1%}" for row in ranking],
        ),
        Column(
            "faster than next\nwith inputs ±20%",
            _beats_next(ranking),
            "label",
        ),
        Column("bottleneck", [row.bound_by.partition(",")[0] for row in ranking], "text"),
    ]


def _beats_next(ranking: Sequence[Ranked]) -> list[str]:
    """Return in how many variations each row beats the next one that has some; nothing for a tie of the two."""
    varied = [row for row in ranking if row.variations]
    wins = {
        id(row): f"in {row.beats_next} of {row.variations}" for row, later in pairwise(varied) if row.rank < later.rank
    }
    return [wins.get(id(row), "") for row in ranking]


def _range(row: Ranked) -> str:
    if row.low_s is None or row.high_s is None:
        return "–"
    return f"{format_duration(row.low_s)} to {format_duration(row.high_s)}"


def _several(ranking: Sequence[Ranked]) -> bool:
    """Return whether the candidates are on several topologies."""
    return len({row.candidate.topology for row in ranking}) > 1


def _title(row: Ranked, ranking: Sequence[Ranked]) -> str:
    where = f", {row.candidate.topology}" if _several(ranking) else ""
    return f"{row.candidate.title}{where}"


def height(ranking: Sequence[Ranked]) -> float:
    """Return the height of the picture in inches."""
    return 1.3 + 0.22 * len(ranking)


def plot(ranking: Sequence[Ranked], axes: Axes) -> Axes:
    """Draw a point for each candidate, with its range over the variations, in the colour of its algorithm."""
    with with_packages("a picture"):
        import seaborn as sns
    from netsim.report.palette import looks_of

    titles = [_title(row, ranking) for row in ranking]
    names = [row.candidate.algorithm for row in ranking]
    colours = {name: look.colour for name, look in looks_of({name: name for name in names}).items()}
    for marker, what, overlaps in (("o", "exchange after backward", False), ("D", "overlap", True)):
        rows = [index for index, row in enumerate(ranking) if (row.candidate.overlap is not None) is overlaps]
        if not rows:
            continue
        sns.scatterplot(
            x=[ranking[index].round_time_s for index in rows],
            y=rows,
            hue=[names[index] for index in rows],
            palette=colours,
            marker=marker,
            s=30,
            legend=False,
            ax=axes,
            zorder=3,
        )
        axes.plot([], [], marker, color="black", label=what)
    for index, row in enumerate(ranking):
        if row.low_s is not None and row.high_s is not None:
            axes.hlines(index, row.low_s, row.high_s, color=colours[names[index]])
    axes.plot([], [], color="black", label="with inputs ±20%")
    if any(computing := [row.compute_time_s for row in ranking]):
        axes.axvline(max(computing), color="black", linewidth=1, linestyle=(0, (2, 2)), label="computation alone")
    seconds = [row.round_time_s for row in ranking]
    scale(axes, Axis("round time, SIMULATED", *_logarithmic(seconds), unit="s"), None)
    axes.set_yticks(range(len(ranking)), titles)
    axes.set_ylabel("")
    axes.set_ylim(len(ranking) - 0.5, -0.5)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, columnspacing=1.2)
    return axes


def _logarithmic(seconds: Sequence[float]) -> tuple[int | None, float | None]:
    """Return the base of the axis, and its least value."""
    return (10, None) if max(seconds) > LOG_FROM * min(seconds) > 0 else (None, 0.0)


def write_page(recommendation: Recommendation, folder: Path) -> list[Path]:
    """Write the page with picture and table to a folder, and beside it the picture, the table and the JSON document.

    Raises
    ------
    NetsimError
        If a file cannot be written.
    """
    files = write_report(_document(recommendation), folder / PAGE)
    path = folder / "recommendation.json"
    try:
        write_atomically(path, recommendation.to_json() + "\n")
    except OSError as error:
        raise NetsimError(f"out {str(path)!r} could not be written: {reason_of(error)}") from error
    return [*files, path]


def _document(recommendation: Recommendation) -> Document:
    ranking = recommendation.ranking
    with canvas(height(ranking)) as (drawing, axes):
        plot(ranking, axes)
        svg = to_svg(drawing)
    provenance = "SIMULATED, compute ASSUMED"
    caption = (
        "Round time of each candidate, the fastest at the top. A point is the time with the given inputs; its line "
        "spans the times with one input 20 % lower or higher."
    )
    names = [
        *("rank", "candidate", "topology", "steps", "round (s)", "least (s)", "most (s)", "compute (s)", "select (s)"),
        *("exposed communication (s)", "scaling efficiency", "bottleneck", "command"),
    ]
    rows = [
        [
            *(row.rank, row.candidate.title, row.candidate.topology, row.candidate.convergence.value),
            *(row.round_time_s, row.low_s, row.high_s),
            *(row.compute_time_s, row.select_time_s, row.comm_time_s, row.scaling_efficiency, row.bound_by),
            row.command,
        ]
        for row in ranking
    ]
    return Document(
        "Recommendation",
        recommendation.sentences,
        [
            Section("Ranking", figures=[Figure("Ranking", caption, svg, provenance)]),
            Section("Candidates", tables=[Table("Candidates", names, rows, provenance)]),
        ],
        [*recommendation.limits, *known_lines(recommendation.known_errors)],
        {"command of the first row": ranking[0].command, "version": version()},
    )
