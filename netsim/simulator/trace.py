"""The trace of a run: every computation, every message, and the utilisation of every link over time.

Times are integer picoseconds. :class:`TraceObserver` fills a trace while a simulation runs,
:mod:`netsim.simulator.perfetto` writes it to a file, and :mod:`netsim.report.activity` draws it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from netsim.simulator.observer import Computation, RunObserver, TracedMessage

if TYPE_CHECKING:
    from netsim.simulator.event_engine import SimulatedTransport
    from netsim.simulator.scheduler import Transport

MOST_RECORDS = 2_000_000
"""The most computations and messages of a trace; viewers do not open larger files."""

SEND, RECEIVE, BOTH, WAIT = "send", "receive", "send and receive", "wait"


class Activity(NamedTuple):
    """An activity of a rank between two instants: a kind of work, or a kind of waiting."""

    kind: str
    step: int
    start: int
    end: int


@dataclass(slots=True)
class Trace:
    """The records of one algorithm's run.

    Parameters
    ----------
    hosts
        The host of every rank, by name.
    levels
        For every link by name: (instant, share of the bandwidth in use from then on), in order of time.
    left_out
        The number of records beyond :data:`MOST_RECORDS`, which are not kept.
    """

    algorithm: str
    hosts: Sequence[str] = ()
    computations: list[Computation] = field(default_factory=list)
    messages: list[TracedMessage] = field(default_factory=list)
    levels: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    left_out: int = 0

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Trace:
        """Return a trace from the result of :func:`dataclasses.asdict`, also after conversion to JSON and back."""
        return cls(
            fields["algorithm"],
            list(fields["hosts"]),
            [Computation(*record) for record in fields["computations"]],
            [TracedMessage(*record) for record in fields["messages"]],
            {link: [(instant, level) for instant, level in history] for link, history in fields["levels"].items()},
            fields["left_out"],
        )

    def add(self, record: Computation | TracedMessage) -> None:
        """Add a record, unless there are too many."""
        if len(self.computations) + len(self.messages) >= MOST_RECORDS:
            self.left_out += 1
        elif isinstance(record, Computation):
            self.computations.append(record)
        else:
            self.messages.append(record)

    def set_levels(self, now: int, used: dict[str, float]) -> None:
        """Record the fraction of each link's bandwidth in use from `now` on; links that are not in `used` are idle."""
        if self.left_out:
            return
        for link in self.levels.keys() | used.keys():
            history, level = self.levels.setdefault(link, []), used.get(link, 0.0)
            if history and history[-1][0] == now:
                history.pop()  # of several levels at one instant, only the last counts
            if level != (history[-1][1] if history else 0.0):
                history.append((now, level))

    @property
    def end(self) -> int:
        """The instant at which the last record ends."""
        return max((record.end for records in (self.computations, self.messages) for record in records), default=0)

    @property
    def start(self) -> int:
        """The instant at which the first record begins."""
        return min((record.start for records in (self.computations, self.messages) for record in records), default=0)

    def activities(self) -> list[list[Activity]]:
        """Return the activities of each rank, one after another, from the start to the rank's last record.

        A rank that does not compute sends, receives, does both, or waits; it waits if no message of it is on its way.
        """
        changes: list[list[tuple[int, int, str, Computation | None]]] = [[] for _ in self.hosts]
        for work in self.computations:
            changes[work.rank] += [(work.start, 1, work.work, work), (work.end, -1, work.work, work)]
        for message in self.messages:
            for rank, way, end in ((message.src, SEND, message.sent), (message.dst, RECEIVE, message.end)):
                changes[rank] += [(message.start, 1, way, None), (end, -1, way, None)]
        start = self.start
        return [_activities(start, sorted(of_rank, key=lambda change: change[0])) for of_rank in changes]

    def utilisation(self, link: str, edges: Sequence[float]) -> list[float]:
        """Return the mean share of a link's bandwidth in use between consecutive instants of `edges`."""
        history = [*self.levels.get(link, []), (self.end, 0.0)]
        means = [0.0] * (len(edges) - 1)
        for (since, level), (until, _) in pairwise(history):
            for column, (left, right) in enumerate(pairwise(edges)):
                overlap = min(until, right) - max(since, left)
                if overlap > 0:
                    means[column] += level * overlap / (right - left)
        return means

    def busiest(self, most: int) -> list[str]:
        """Return the names of the links with the highest mean utilisation, at most `most`, the busiest first."""
        whole = [self.start, max(self.end, self.start + 1)]
        used = {link: self.utilisation(link, whole)[0] for link in self.levels}
        return sorted(used, key=lambda link: (-round(used[link], 9), _by_number(link)))[:most]


class TraceObserver(RunObserver):
    """Adds every computation and message to `trace`, and the utilisation of every link."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def began(self, transport: Transport) -> None:
        """Read link utilisation from `transport`, which must simulate a network."""
        self._transport = cast("SimulatedTransport", transport)

    def computed(self, computation: Computation) -> None:
        """Add the computation to the trace."""
        self._trace.add(computation)

    def delivered(self, message: TracedMessage) -> None:
        """Add the message to the trace."""
        self._trace.add(message)

    def advanced(self) -> None:
        """Record the utilisation of all links if it changed."""
        self._trace.set_levels(self._transport.now, self._transport.utilisation())


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts worker10 after worker9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _activities(start: int, changes: Sequence[tuple[int, int, str, Computation | None]]) -> list[Activity]:
    """Return one rank's activities from its changes: (instant, +1 or -1, kind, computation if it is one)."""
    computing: dict[Computation, None] = {}
    under_way: Counter[str] = Counter()
    activities: list[Activity] = []
    now, step = start, 0
    for instant, change, what, work in changes:
        if instant > now:
            current = next(iter(computing), None)
            step = step if current is None else current.step
            kind = current.work if current is not None else _waiting(under_way)
            last = activities[-1] if activities else None
            if last is not None and last.kind == kind and current is None:
                activities[-1] = last._replace(end=instant)
            else:
                activities.append(Activity(kind, step, now, instant))
            now = instant
        if work is None:
            under_way[what] += change
        elif change > 0:
            computing[work] = None
        else:
            computing.pop(work, None)
    return activities


def _waiting(under_way: Counter[str]) -> str:
    """Return the kind of activity of a rank that does not compute, from its messages on their way."""
    if under_way[SEND] and under_way[RECEIVE]:
        return BOTH
    return SEND if under_way[SEND] else RECEIVE if under_way[RECEIVE] else WAIT
