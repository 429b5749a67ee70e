"""Plays rounds message by message in compiled code, where rounds share links with each other.

One table holds the rounds of all ranks: which messages each rank sends and awaits in each round that it takes part in
(a *visit*), and what it computes afterwards. A loop compiled by numba then does what
:class:`netsim.simulator.scheduler.RankScheduler` does with coroutines, over the flow engine of
:mod:`netsim.network.compiled`. Import this module lazily, and only if numba is installed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray
from netsim._util.units import beyond_horizon
from netsim.network.compiled import NEVER, NONE, Core, add, jit, new_core, next_instant, settle, take
from netsim.simulator.layout import NoScheduleError
from netsim.simulator.symmetry import RecordedPhase
from netsim.simulator.vectorized import BY_RECEIVER, BY_SENDER, PlayedRound, RankClocks, SharingNotes

MOST_MESSAGES = 16_000_000
"""A message takes about 60 bytes in the table."""
Ints = npt.NDArray[np.int32]


class Lists(NamedTuple):
    """Lists of numbers: list i is ``items[first[i]:first[i + 1]]``."""

    first: Ints
    items: Ints


class RoundTable(NamedTuple):
    """All messages and visits, in the order of their rounds; a rank makes its visits in that order."""

    bits: IntArray
    dst: Ints
    dst_visit: Ints
    src: Ints
    route: Ints
    rank_visits: Lists
    """By rank."""
    sends: Lists
    """By visit: the messages that its rank sends then,"""
    awaits: Lists
    """and those that it waits for."""
    charge: IntArray
    """By visit: the picoseconds that its rank computes afterwards."""
    route_links: Lists
    latency: IntArray
    weight: npt.NDArray[np.float64]


def play_compiled(clocks: RankClocks, parts: list[RecordedPhase]) -> list[PlayedRound]:
    """Advance all ranks through phases, from equal clocks; return the rounds for the backtracker."""
    count = sum(len(round_.pairs.src) for part in parts for round_ in part.rounds)
    if count > MOST_MESSAGES:
        raise NoScheduleError(f"{count:,} messages that share links are more than are laid out at a time")
    builder = _Builder(clocks, parts)
    table = builder.table()
    now = int(clocks.clock[0])
    assert (clocks.clock == now).all(), "ranks are apart"
    held_first = np.concatenate([[0], np.cumsum(builder.links_of_messages)])
    waited, held = np.zeros(count, np.uint8), np.zeros(held_first[-1], np.int64)
    arrived = np.full(count, -1, np.int64)
    ranks = len(clocks.clock)
    stand = RankState(
        np.zeros(ranks, np.int64),
        table.rank_visits.first[:-1].copy(),
        np.zeros(ranks, np.int64),
        np.zeros(ranks, np.int32),
    )
    core = new_core(clocks.fabric.bandwidth_bps, *_room(table))
    _play(core, table, stand, held_first, held, waited, arrived)
    if core.head["scheduled"][0]:  # for what is due at the horizon, nobody waits any longer
        raise beyond_horizon()
    clocks.clock += stand.clock
    clocks.check_horizon()
    return builder.history(waited, held_first, held)


def _room(table: RoundTable) -> tuple[int, int]:
    """Return the largest number of simultaneous flows, and the number of links on their routes."""
    visits, sends = np.diff(table.rank_visits.first), np.diff(table.sends.first)
    owners = np.repeat(np.arange(len(visits)), visits)
    most = np.zeros(len(visits), np.int64)
    np.maximum.at(most, owners, sends[table.rank_visits.items])
    flows = int(most.sum())
    return flows + len(visits), flows * int(np.diff(table.route_links.first).max(initial=0)) + 1


class _Builder:
    """Builds the table of rounds."""

    def __init__(self, clocks: RankClocks, parts: list[RecordedPhase]) -> None:
        self._clocks, self._parts = clocks, parts
        self._routes: dict[int, int] = {}
        self._columns: dict[str, list[Any]] = {name: [] for name in ("bits", "src", "dst", "route")}
        self._visits: dict[str, list[Any]] = {name: [] for name in ("rank", "charge", "src", "dst")}
        self._lines: list[Any] = []
        self._count = self._routes_count = 0
        for part in parts:
            charges = part.charged_ps
            for round_ in part.rounds:
                self._add(round_, charges)
        self.links_of_messages = (
            np.diff(self._route_first())[self._joined("route")] if self._lines else np.zeros(0, int)
        )

    def _add(self, round_: Any, charges: IntArray) -> None:
        pairs, then = round_.pairs, round_.then
        ranks = np.zeros(0, np.int64)
        if len(pairs.src):
            lines = self._clocks.lines(pairs)
            if id(pairs) not in self._routes:
                self._routes[id(pairs)] = self._routes_count
                self._routes_count += len(pairs.src)
                self._lines.append(lines)
            self._columns["bits"].append(8 * round_.sizes.sum(1)[round_.which])
            self._columns["src"].append(pairs.src)
            self._columns["dst"].append(pairs.dst)
            self._columns["route"].append(self._routes[id(pairs)] + np.arange(len(pairs.src)))
            self._clocks.count(round_, lines)
            ranks = lines.ranks
        if then is not None and (len(then.at) != len(ranks) or (then.at != ranks).any()):
            ranks = np.union1d(ranks, then.at)
        charge = np.zeros(len(ranks), np.int64)
        if then is not None:
            charge[np.searchsorted(ranks, then.at)] = charges[then.pick]
        self._visits["rank"].append(ranks)
        self._visits["charge"].append(charge)
        for end, of in (("src", pairs.src), ("dst", pairs.dst)):
            self._visits[end].append(self._count + np.searchsorted(ranks, of))
        self._count += len(ranks)

    def _joined(self, name: str) -> IntArray:
        return np.concatenate([np.zeros(0, np.int64), *self._columns[name]])

    def _route_first(self) -> IntArray:
        counts = [np.bincount(lines.owners, minlength=len(lines.latency)) for lines in self._lines]
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))

    def table(self) -> RoundTable:
        src_visit, dst_visit, rank, charge = (
            np.concatenate([np.zeros(0, np.int64), *self._visits[name]]) for name in ("src", "dst", "rank", "charge")
        )
        none = np.zeros(0, np.int64)
        latency = np.concatenate([none, *(lines.latency for lines in self._lines)])
        links = np.concatenate([none, *(lines.links for lines in self._lines)])
        first = self._route_first()
        return RoundTable(
            bits=self._joined("bits"),
            dst=_short(self._joined("dst")),
            dst_visit=_short(dst_visit),
            src=_short(self._joined("src")),
            route=_short(self._joined("route")),
            rank_visits=_lists(rank, len(self._clocks.clock)),
            sends=_lists(src_visit, self._count),
            awaits=_lists(dst_visit, self._count),
            charge=charge,
            route_links=Lists(_short(first), _short(links)),
            latency=latency,
            weight=self._clocks.weights(latency),
        )

    def history(self, waited: npt.NDArray[np.uint8], held_first: IntArray, held: IntArray) -> list[PlayedRound]:
        """Return the rounds in their order, for the backtracker."""
        some = np.flatnonzero(held)
        message = np.searchsorted(held_first, some, side="right") - 1
        route_first = self._route_first()
        place = route_first[self._joined("route")[message]] + some - held_first[message]
        link = np.concatenate([np.zeros(0, np.int64), *(lines.links for lines in self._lines)])[place]
        durations, history, first = held[some], [], 0
        for part in self._parts:
            for number, round_ in enumerate(part.rounds):
                last = first + len(round_.pairs.src)
                notes = slice(*np.searchsorted(message, [first, last]))
                history.append(
                    PlayedRound(
                        part,
                        number,
                        waited[first:last],
                        SharingNotes(message[notes] - first, link[notes], durations[notes]),
                    )
                )
                first = last
        return history


def _short(numbers: IntArray) -> Ints:
    return numbers.astype(np.int32)


def _lists(of: IntArray, count: int) -> Lists:
    """Return for every number below `count` the ascending positions in `of` that hold it."""
    first = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=count))])
    return Lists(_short(first), _short(np.argsort(of, kind="stable")))


class RankState(NamedTuple):
    """Where every rank is."""

    clock: IntArray
    visit: Ints
    """Its place in ``rank_visits.items``."""
    since: IntArray
    """When it came there."""
    pending: Ints
    """How many messages it waits for; NONE while it computes, and at its end."""


@jit
def _play(
    core: Core, table: RoundTable, stand: RankState, held_first: Any, held: Any, waited: Any, arrived: Any
) -> None:
    """Run all ranks from where they are to their end.

    All code of a rank's visit is in this function: to pass the table to another function takes longer than a visit.
    """
    messages, ranks = len(table.bits), len(stand.clock)
    done, ready = np.zeros(len(core.flows), np.int32), np.arange(len(core.flows) + ranks)
    count, now = ranks, stand.clock[0]
    stand.pending[:] = NONE
    while True:
        for rank in ready[:count]:
            place, charge = stand.visit[rank], 0
            if stand.pending[rank] == 0:  # its messages are all there
                visit = table.rank_visits.items[place]
                if now > stand.since[rank]:
                    _note(table.awaits, table.sends, visit, now, arrived, waited)
                charge = table.charge[visit]
                place += 0 if charge else 1
            while place < table.rank_visits.first[rank + 1] and not charge:
                visit, pending = table.rank_visits.items[place], 0
                stand.since[rank] = now
                for message in table.sends.items[table.sends.first[visit] : table.sends.first[visit + 1]]:
                    route = table.route[message]
                    links = table.route_links.items[table.route_links.first[route] : table.route_links.first[route + 1]]
                    at = now + table.latency[route]
                    add(core, message, links, table.bits[message], table.weight[route], np.inf, at)
                    pending += 1
                for message in table.awaits.items[table.awaits.first[visit] : table.awaits.first[visit + 1]]:
                    pending += arrived[message] < 0
                stand.pending[rank] = pending
                if pending:
                    break
                charge = table.charge[visit]
                place += 0 if charge else 1
            stand.visit[rank] = place
            if charge:
                stand.pending[rank] = NONE
                stand.visit[rank] += 1
                add(core, messages + rank, table.route_links.items[:0], 0, 1.0, np.inf, now + charge)
            elif place == table.rank_visits.first[rank + 1]:
                stand.clock[rank], stand.pending[rank] = now, NONE
        now = next_instant(core)
        if now == NEVER:
            return
        count = 0
        # All that arrives at an instant has arrived before anybody goes on.
        for number in done[: settle(core, now, done)]:
            message = core.flows[number].tag
            if message >= messages:
                take(core, number, held[:0])
                ready[count] = message - messages
                count += 1
                continue
            take(core, number, held[held_first[message] : held_first[message + 1]])
            arrived[message] = now
            src, dst = table.src[message], table.dst[message]
            stand.pending[src] -= 1
            if stand.pending[src] == 0:
                ready[count] = src
                count += 1
            place = stand.visit[dst]
            if stand.pending[dst] > 0 and table.rank_visits.items[place] == table.dst_visit[message]:
                stand.pending[dst] -= 1
                if stand.pending[dst] == 0:
                    ready[count] = dst
                    count += 1


@jit
def _note(awaits: Lists, sends: Lists, visit: int, now: int, arrived: Any, waited: Any) -> None:
    """Note which of its messages a rank waited for: the first received at this instant, or else sent."""
    for message in awaits.items[awaits.first[visit] : awaits.first[visit + 1]]:
        if arrived[message] == now:
            waited[message] |= BY_RECEIVER
            return
    for message in sends.items[sends.first[visit] : sends.first[visit + 1]]:
        if arrived[message] == now:
            waited[message] |= BY_SENDER
            return
