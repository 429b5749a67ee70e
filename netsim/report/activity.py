"""Pictures of a traced run: who did what when, and how full the links were."""

from __future__ import annotations

from netsim._util.units import PICOSECONDS
from netsim.report.drawing import Axis, Heat, TimeSpan, gantt, heat_map
from netsim.simulator.trace import BOTH, RECEIVE, SEND, WAIT, Trace

KINDS = {"gradient": "compute", "update": "compute", "select": "select", "merge": "merge"}
ORDER = ("compute", "select", "merge", BOTH, SEND, RECEIVE, WAIT)
UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
COLUMNS = 60


def draw_round(trace: Trace, step: int = 0, ranks: int = 16, since: int = 0) -> str:
    """Draw what the first `ranks` ranks did in a step, from the instant `since` on, as a Gantt chart."""
    shown = list(enumerate(trace.activities()))[:ranks]
    of_step = [(rank, each) for rank, activities in shown for each in activities if each.step == step]
    start = min((each.start for _, each in of_step), default=0)
    end = max((each.end for _, each in of_step), default=0)
    scale, unit = _unit(end - start)
    spans = [
        TimeSpan(f"rank {rank}", KINDS.get(each.kind, each.kind), (max(each.start, since) - start) / scale,
             (each.end - start) / scale)
        for rank, each in of_step if each.end > since
    ]  # fmt: skip
    least = max(0, since - start) / scale
    return gantt(spans, Axis(f"time in round {step + 1} ({unit})", least=least), ORDER)


def draw_links(trace: Trace, most: int = 16, since: int = 0) -> str:
    """Draw how full the busiest links were, `most` of them, along the whole run, or from the instant `since` on."""
    start, end = trace.start, max(trace.end, trace.start + 1)
    scale, unit = _unit(end - start)
    first = max(start, since)
    edges = [first + (end - first) * column / COLUMNS for column in range(COLUMNS + 1)]
    links = trace.busiest(most)
    heat = Heat(links, [(edge - start) / scale for edge in edges], [trace.utilisation(link, edges) for link in links])
    return heat_map(heat, Axis(f"time ({unit})"))


def _unit(picoseconds: int) -> tuple[float, str]:
    """Return the picoseconds in the unit that suits a length of time, and its name."""
    seconds, name = next((unit for unit in UNITS if picoseconds >= unit[0] * PICOSECONDS), UNITS[-1])
    return seconds * PICOSECONDS, name
