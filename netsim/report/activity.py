"""Pictures of a traced run: the activities of each rank and the utilisation of each link over time."""

from __future__ import annotations

from netsim._util.units import PICOSECONDS
from netsim.report.drawing import Axis, Heat, TimeSpan, gantt, heat_map
from netsim.simulator.trace import BOTH, RECEIVE, SEND, WAIT, Trace

KINDS = {"gradient": "compute", "update": "compute", "select": "select", "merge": "merge"}
ORDER = ("compute", "select", "merge", BOTH, SEND, RECEIVE, WAIT)
UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
COLUMNS = 60
"""Time intervals over which a heat map averages the utilisation of a link."""


def draw_round(trace: Trace, step: int = 0, ranks: int = 16, since: int = 0) -> str:
    """Draw the activities of one training step as a Gantt chart with one lane per rank.

    Parameters
    ----------
    trace
        The recorded run.
    step
        The step to draw, counted from 0.
    ranks
        How many ranks are drawn, from rank 0 on.
    since
        The instant, in picoseconds, at which the time axis begins; earlier activities are left out.

    Returns
    -------
    str
        The picture as SVG.
    """
    shown = list(enumerate(trace.activities()))[:ranks]
    of_step = [(rank, activity) for rank, activities in shown for activity in activities if activity.step == step]
    start = min((activity.start for _, activity in of_step), default=0)
    end = max((activity.end for _, activity in of_step), default=0)
    scale, unit = _unit(end - start)
    spans = [
        TimeSpan(
            f"rank {rank}",
            KINDS.get(each.kind, each.kind),
            (max(each.start, since) - start) / scale,
            (each.end - start) / scale,
        )
        for rank, each in of_step
        if each.end > since
    ]
    least = max(0, since - start) / scale
    return gantt(spans, Axis(f"time in round {step + 1} ({unit})", least=least), ORDER)


def draw_links(trace: Trace, most: int = 16, since: int = 0) -> str:
    """Draw the utilisation of the `most` busiest links over the whole run as a heat map, as SVG.

    The time axis begins at the instant `since`, in picoseconds.
    """
    start, end = trace.start, max(trace.end, trace.start + 1)
    scale, unit = _unit(end - start)
    first = max(start, since)
    edges = [first + (end - first) * column / COLUMNS for column in range(COLUMNS + 1)]
    links = trace.busiest(most)
    heat = Heat(links, [(edge - start) / scale for edge in edges], [trace.utilisation(link, edges) for link in links])
    return heat_map(heat, Axis(f"time ({unit})"))


def _unit(picoseconds: int) -> tuple[float, str]:
    """Return the largest unit in which the duration is at least 1: its length in picoseconds and its name."""
    seconds, name = next((unit for unit in UNITS if picoseconds >= unit[0] * PICOSECONDS), UNITS[-1])
    return seconds * PICOSECONDS, name
