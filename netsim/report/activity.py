"""Pictures of a traced run: the activities of each rank and the utilisation of each link over time.

Time counts from the first message. The end of the computation before it is shown, the rest is not: computation often
takes ten times as long as all messages.
"""

from __future__ import annotations

from netsim._util.units import PICOSECONDS
from netsim.report.drawing import Axis, Heat, TimeSpan, gantt, heat_map
from netsim.simulator.trace import WAIT, Trace

KINDS = {"gradient": "compute", "update": "compute", "select": "select", "merge": "merge"}
COLUMNS = 60
"""Time intervals over which a heat map averages the utilisation of a link."""
TIME = "time since the first message"


def draw_round(trace: Trace, step: int = 0, ranks: int = 16) -> str:
    """Draw the activities of one training step as a Gantt chart with one lane per rank.

    Parameters
    ----------
    trace
        The recorded run.
    step
        The step to draw, counted from 0.
    ranks
        How many ranks are drawn, from rank 0 on.

    Returns
    -------
    str
        The picture as SVG.
    """
    shown = list(enumerate(trace.activities()))[:ranks]
    of_step = [(rank, activity) for rank, activities in shown for activity in activities if activity.step == step]
    start = min((each.start for _, each in of_step), default=0)
    end = max((each.end for _, each in of_step), default=0)
    messages = [each.start for _, each in of_step if each.kind not in KINDS and each.kind != WAIT]
    first = min(messages, default=start)
    since = _since(start, first, end)
    spans = [
        TimeSpan(
            f"rank {rank}",
            KINDS.get(each.kind, each.kind),
            (max(each.start, since) - first) / PICOSECONDS,
            (each.end - first) / PICOSECONDS,
        )
        for rank, each in of_step
        if each.end > since
    ]
    return gantt(spans, Axis(TIME, least=(since - first) / PICOSECONDS, unit="s"))


def draw_links(trace: Trace, most: int = 16) -> str:
    """Draw the utilisation of the `most` busiest links over the whole run as a heat map, as SVG."""
    end = max(trace.end, trace.start + 1)
    first = min((message.start for message in trace.messages), default=trace.start)
    since = _since(trace.start, first, end)
    edges = [since + (end - since) * column / COLUMNS for column in range(COLUMNS + 1)]
    links = trace.busiest(most)
    utilisation = [trace.utilisation(link, edges) for link in links]
    return heat_map(Heat(links, [(edge - first) / PICOSECONDS for edge in edges], utilisation), Axis(TIME, unit="s"))


def _since(start: int, first: int, end: int) -> int:
    """Return where the time axis begins, in picoseconds: an eighth of the exchange before the first message."""
    return max(start, first - (end - first) // 8)
