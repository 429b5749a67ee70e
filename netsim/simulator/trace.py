"""What went on in a run, instant by instant: who computed, which messages were under way, how full the links were.

Times are integer picoseconds. :mod:`netsim.simulator.trace_observer` fills a trace;
:mod:`netsim.simulator.perfetto` writes it to a file, and :mod:`netsim.report.activity` draws it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from netsim.simulator.observer import Computation, TracedMessage

MOST_RECORDS = 2_000_000
"""Computations and messages that are kept; a file of more would not open."""

SEND, RECEIVE, BOTH, WAIT = "send", "receive", "send and receive", "wait"


class Activity(NamedTuple):
    """What a rank was at: a kind of work, or else what it waited for."""

    kind: str
    step: int
    start: int
    end: int


@dataclass(slots=True)
class Trace:
    """The records of one algorithm's run; `hosts` names where each rank lives.

    ``levels[link]`` are (instant, share of the bandwidth in use from then on), in order of time.
    `left_out` counts the records beyond :data:`MOST_RECORDS`, which were not kept.
    """

    algorithm: str
    hosts: Sequence[str] = ()
    computations: list[Computation] = field(default_factory=list)
    messages: list[TracedMessage] = field(default_factory=list)
    levels: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    left_out: int = 0

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Trace:
        """Return the trace that :func:`dataclasses.asdict` made, also after a trip through JSON."""
        return cls(
            found["algorithm"],
            list(found["hosts"]),
            [Computation(*each) for each in found["computations"]],
            [TracedMessage(*each) for each in found["messages"]],
            {link: [(instant, level) for instant, level in history] for link, history in found["levels"].items()},
            found["left_out"],
        )

    def add(self, record: Computation | TracedMessage) -> None:
        """Keep a record, unless there are too many."""
        if len(self.computations) + len(self.messages) >= MOST_RECORDS:
            self.left_out += 1
        elif isinstance(record, Computation):
            self.computations.append(record)
        else:
            self.messages.append(record)

    def set_levels(self, now: int, used: dict[str, float]) -> None:
        """Note that from `now` on, links are `used` so much; those that are not named are idle."""
        if self.left_out:
            return
        for link in self.levels.keys() | used.keys():
            history, level = self.levels.setdefault(link, []), used.get(link, 0.0)
            if history and history[-1][0] == now:
                history.pop()  # of one instant, only how it ends counts
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
        """Return what each rank was at, one after the other, from the start to its last record.

        While nothing is computed, a rank sends, receives, does both, or waits: no message of its own is under way.
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
        """Return the mean share of a link's bandwidth in use between every two instants of `edges`."""
        history = [*self.levels.get(link, []), (self.end, 0.0)]
        means = [0.0] * (len(edges) - 1)
        for (since, level), (until, _) in pairwise(history):
            for column, (left, right) in enumerate(pairwise(edges)):
                overlap = min(until, right) - max(since, left)
                if overlap > 0:
                    means[column] += level * overlap / (right - left)
        return means

    def busiest(self, most: int) -> list[str]:
        """Return the names of the links that carried most for their bandwidth, at most so many, the busiest first."""
        whole = [self.start, max(self.end, self.start + 1)]
        used = {link: self.utilisation(link, whole)[0] for link in self.levels}
        return sorted(used, key=lambda link: (-round(used[link], 9), _by_number(link)))[:most]


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return what puts worker10 after worker9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _activities(start: int, changes: Sequence[tuple[int, int, str, Computation | None]]) -> list[Activity]:
    computing: dict[Computation, None] = {}
    under_way: Counter[str] = Counter()
    found: list[Activity] = []
    now, step = start, 0
    for instant, change, what, work in changes:
        if instant > now:
            current = next(iter(computing), None)
            step = step if current is None else current.step
            kind = current.work if current is not None else _waiting(under_way)
            last = found[-1] if found else None
            if last is not None and last.kind == kind and current is None:
                found[-1] = last._replace(end=instant)
            else:
                found.append(Activity(kind, step, now, instant))
            now = instant
        if work is None:
            under_way[what] += change
        elif change > 0:
            computing[work] = None
        else:
            computing.pop(work, None)
    return found


def _waiting(under_way: Counter[str]) -> str:
    if under_way[SEND] and under_way[RECEIVE]:
        return BOTH
    return SEND if under_way[SEND] else RECEIVE if under_way[RECEIVE] else WAIT
