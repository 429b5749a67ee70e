"""Plays rounds message by message in compiled code, where rounds share links with each other.

One table holds the rounds of all ranks: which messages each rank posts and then waits for (a *visit*), and what it
computes afterwards. Where a schedule posts rounds ahead, a rank posts the messages of one round in a visit, and waits
for those of an earlier round. A loop compiled by numba then does what
:class:`netsim.simulator.scheduler.RankScheduler` does with coroutines, over the flow engine of
:mod:`netsim.network.compiled`. Import this module lazily, and only if numba is installed.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray
from netsim._util.units import beyond_horizon
from netsim.network.compiled import NEVER, NONE, Core, add, jit, new_core, next_instant, settle, take
from netsim.simulator.layout import NoScheduleError, SizedRound
from netsim.simulator.symmetry import RecordedPhase
from netsim.simulator.vectorized import (
    BY_RECEIVER,
    BY_SENDER,
    PairRoutes,
    PlayedRound,
    RankClocks,
    SharingNotes,
)

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
    src: Ints
    src_visit: Ints
    """For each message: the visit in which its sender waits until it has been sent."""
    dst: Ints
    dst_visit: Ints
    """For each message: the visit in which its receiver waits until it has arrived."""
    route: Ints
    """For each message: the index of its route in `route_links`, `latency` and `weight`."""
    before: Ints
    """For each message: the previous one between the same ranks, or NONE. Empty if no rounds are posted ahead."""
    behind: Ints
    """For each message: the next one between the same ranks, or NONE. Empty if no rounds are posted ahead."""
    rank_visits: Lists
    """For each rank: its visits."""
    posts: Lists
    """For each visit: the messages that its rank begins to send in it."""
    sends: Lists
    """For each visit: the messages for which its rank waits in it until they have been sent."""
    awaits: Lists
    """For each visit: the messages for which its rank waits in it until they have arrived."""
    charge: IntArray
    """For each visit: the picoseconds for which its rank computes after the messages."""
    route_links: Lists
    latency: IntArray
    weight: npt.NDArray[np.float64]


def play_compiled(clocks: RankClocks, parts: list[RecordedPhase]) -> list[PlayedRound]:
    """Advance all ranks through phases, from equal clocks; return the rounds for the backtracker."""
    count = sum(part.messages for part in parts)
    if count > MOST_MESSAGES:
        raise NoScheduleError(f"{count:,} messages that share links are more than are laid out at a time")
    builder = _Builder(clocks, parts)
    table = builder.table()
    # The loop counts from instant 0 with idle links. Only where all clocks are equal is the network surely idle.
    now = int(clocks.clock[0])
    assert (clocks.clock == now).all(), "ranks are apart"
    held_first = np.concatenate([[0], np.cumsum(builder.links_of_messages)])
    waited, held = np.zeros(count, np.uint8), np.zeros(held_first[-1], np.int64)
    arrived = np.full(count, -1, np.int64)
    queued = np.full(len(table.before), -1, np.int64)
    ranks = len(clocks.clock)
    state = RankState(
        np.zeros(ranks, np.int64),
        table.rank_visits.first[:-1].copy(),
        np.zeros(ranks, np.int64),
        np.zeros(ranks, np.int32),
    )
    core = new_core(clocks.fabric.bandwidth_bps, *_room(table, 1 + max((part.ahead for part in parts), default=0)))
    _play(core, table, state, held_first, held, waited, arrived, queued)
    if core.head["scheduled"][0]:  # for what is due at the horizon, nobody waits any longer
        raise beyond_horizon()
    clocks.clock += state.clock
    clocks.check_horizon()
    # A message that was ready at the very instant at which the one before it had drained did not wait for it.
    return builder.history(waited, held_first, held, np.where(queued > 0, table.before, NONE))


def _room(table: RoundTable, window: int) -> tuple[int, int]:
    """Return the largest number of simultaneous flows, of `window` rounds, and the number of links on their routes."""
    visits, posts = np.diff(table.rank_visits.first), np.diff(table.posts.first)
    owners = np.repeat(np.arange(len(visits)), visits)
    most = np.zeros(len(visits), np.int64)
    np.maximum.at(most, owners, posts[table.rank_visits.items])
    # The loop cannot make room later, because arrays grow in Python only. So this bound must never be too low: a rank
    # has messages of at most `window` visits under way, and one computation, which is a flow as well.
    flows = window * int(most.sum())
    return flows + len(visits), flows * int(np.diff(table.route_links.first).max(initial=0)) + 1


class _Builder:
    """Builds the table of rounds."""

    def __init__(self, clocks: RankClocks, parts: list[RecordedPhase]) -> None:
        self._clocks, self._parts = clocks, parts
        self._routes: dict[int, int] = {}
        self._columns: dict[str, list[Any]] = {name: [] for name in ("bits", "src", "dst", "route", "pair")}
        self._visits: dict[str, list[Any]] = {name: [] for name in ("rank", "charge", "post", "src", "dst")}
        self._pair_routes: list[PairRoutes] = []
        self._count = self._routes_count = 0
        self._ahead = any(part.ahead for part in parts)
        for part in parts:
            charges, under_way = part.charged_ps, deque[SizedRound]()
            for round_ in chain(part.rounds, repeat(None, part.ahead)):
                if round_ is not None:
                    under_way.append(round_)
                    self._post(round_)
                over = round_ is None or len(under_way) > part.ahead
                self._visit(round_, under_way.popleft() if over and under_way else None, charges)
        self.links_of_messages = (
            np.diff(self._route_first())[self._joined("route")] if self._pair_routes else np.zeros(0, int)
        )

    def _post(self, round_: SizedRound) -> None:
        """Add the messages of a round."""
        pairs = round_.pairs
        if not len(pairs.src):
            return
        routes = self._clocks.routes(pairs)
        if id(pairs) not in self._routes:
            self._routes[id(pairs)] = self._routes_count
            self._routes_count += len(pairs.src)
            self._pair_routes.append(routes)
        self._columns["bits"].append(8 * round_.sizes.sum(1)[round_.which])
        self._columns["src"].append(pairs.src)
        self._columns["dst"].append(pairs.dst)
        self._columns["route"].append(self._routes[id(pairs)] + np.arange(len(pairs.src)))
        if self._ahead:
            self._columns["pair"].append(routes.names)
        self._clocks.count(round_, routes)

    def _visit(self, posted: SizedRound | None, finished: SizedRound | None, charges: IntArray) -> None:
        """Let ranks post their messages of one round, then wait for those of another, or the same, and compute."""
        then = None if finished is None else finished.then
        taking_part = [
            self._clocks.routes(round_.pairs).ranks
            for round_ in (posted, finished)
            if round_ is not None and len(round_.pairs.src)
        ]
        if then is not None:
            taking_part.append(then.at)
        ranks = taking_part[0] if taking_part else np.zeros(0, np.int64)
        for others in taking_part[1:]:
            # union1d sorts. Nearly always the same ranks take part, and a comparison shows that faster.
            if len(others) != len(ranks) or (others != ranks).any():
                ranks = np.union1d(ranks, others)
        charge = np.zeros(len(ranks), np.int64)
        if then is not None:
            np.add.at(charge, np.searchsorted(ranks, then.at), charges[then.pick])
        self._visits["rank"].append(ranks)
        self._visits["charge"].append(charge)
        if posted is not None:
            self._visits["post"].append(self._count + np.searchsorted(ranks, posted.pairs.src))
        if finished is not None:
            self._visits["src"].append(self._count + np.searchsorted(ranks, finished.pairs.src))
            self._visits["dst"].append(self._count + np.searchsorted(ranks, finished.pairs.dst))
        self._count += len(ranks)

    def _joined(self, name: str) -> IntArray:
        return np.concatenate([np.zeros(0, np.int64), *self._columns[name]])

    def _neighbours(self) -> tuple[Ints, Ints]:
        """Return for each message the one before it between the same ranks, and the one after it; or NONE."""
        pair = self._joined("pair")
        before, behind = np.full((2, len(pair)), NONE, np.int32)
        order = np.argsort(pair, kind="stable")  # messages of a pair drain in the order of their posting
        following = pair[order[1:]] == pair[order[:-1]]
        earlier, later = order[:-1][following], order[1:][following]
        before[later], behind[earlier] = earlier, later
        return before, behind

    def _route_first(self) -> IntArray:
        counts = [np.bincount(routes.owners, minlength=len(routes.latency)) for routes in self._pair_routes]
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))

    def table(self) -> RoundTable:
        post_visit, src_visit, dst_visit, rank, charge = (
            np.concatenate([np.zeros(0, np.int64), *self._visits[name]])
            for name in ("post", "src", "dst", "rank", "charge")
        )
        none = np.zeros(0, np.int64)
        latency = np.concatenate([none, *(routes.latency for routes in self._pair_routes)])
        links = np.concatenate([none, *(routes.links for routes in self._pair_routes)])
        first = self._route_first()
        before, behind = self._neighbours()
        sends = _lists(src_visit, self._count)
        return RoundTable(
            bits=self._joined("bits"),
            src=_short(self._joined("src")),
            src_visit=_short(src_visit),
            dst=_short(self._joined("dst")),
            dst_visit=_short(dst_visit),
            route=_short(self._joined("route")),
            before=before,
            behind=behind,
            rank_visits=_lists(rank, len(self._clocks.clock)),
            posts=_lists(post_visit, self._count) if self._ahead else sends,
            sends=sends,
            awaits=_lists(dst_visit, self._count),
            charge=charge,
            route_links=Lists(_short(first), _short(links)),
            latency=latency,
            weight=self._clocks.weights(latency),
        )

    def history(
        self, waited: npt.NDArray[np.uint8], held_first: IntArray, held: IntArray, behind: IntArray
    ) -> list[PlayedRound]:
        """Return the rounds in their order, for the backtracker."""
        some = np.flatnonzero(held)
        message = np.searchsorted(held_first, some, side="right") - 1
        route_first = self._route_first()
        place = route_first[self._joined("route")[message]] + some - held_first[message]
        link = np.concatenate([np.zeros(0, np.int64), *(routes.links for routes in self._pair_routes)])[place]
        durations, history, first = held[some], [], 0
        rounds = np.zeros(len(waited), np.int32)
        for part in self._parts:
            for number, round_ in enumerate(part.rounds):
                last = first + len(round_.pairs.src)
                notes = slice(*np.searchsorted(message, [first, last]))
                rounds[first:last] = number
                before, back = behind[first:last], None
                if part.ahead:
                    back = np.where(before == NONE, 0, number - rounds[before]).astype(np.min_scalar_type(part.ahead))
                history.append(
                    PlayedRound(
                        part,
                        number,
                        waited[first:last],
                        SharingNotes(message[notes] - first, link[notes], durations[notes]),
                        back,
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
    """Where every rank is in its visits."""

    clock: IntArray
    """For each rank: the instant at which it ended its last visit."""
    visit: Ints
    """For each rank: the position of its present visit in ``rank_visits.items``."""
    since: IntArray
    """For each rank: the instant at which it began its present visit."""
    pending: Ints
    """For each rank: the number of messages for which it still waits; NONE while it computes, and at its end."""


@jit
def _play(
    core: Core, table: RoundTable, state: RankState, held_first: Any, held: Any, waited: Any, arrived: Any, queued: Any
) -> None:
    """Run all ranks from where they are to their end.

    All code of a rank's visit is in this function: to pass the table to another function takes longer than a visit.
    While a message waits for the one before it, `queued` holds the instant at which it could have begun to drain; then,
    the picoseconds for which it waited.
    """
    messages, ranks, in_order = len(table.bits), len(state.clock), len(queued) > 0
    done, ready = np.zeros(len(core.flows), np.int32), np.arange(len(core.flows) + ranks)
    count, now = ranks, state.clock[0]
    state.pending[:] = NONE
    while True:
        for rank in ready[:count]:
            place, charge = state.visit[rank], 0
            if state.pending[rank] == 0:  # its messages are all there
                visit = table.rank_visits.items[place]
                if now > state.since[rank]:
                    _note(table.awaits, table.sends, visit, now, arrived, waited)
                charge = table.charge[visit]
                place += 0 if charge else 1
            while place < table.rank_visits.first[rank + 1] and not charge:
                visit, pending = table.rank_visits.items[place], 0
                state.since[rank] = now
                for message in table.posts.items[table.posts.first[visit] : table.posts.first[visit + 1]]:
                    route = table.route[message]
                    at = now + table.latency[route]
                    if in_order and table.before[message] != NONE and arrived[table.before[message]] < 0:
                        queued[message] = at
                        continue
                    links = table.route_links.items[table.route_links.first[route] : table.route_links.first[route + 1]]
                    add(core, message, links, table.bits[message], table.weight[route], np.inf, at)
                # Messages may have arrived in earlier visits, so they are counted now and not when they are posted.
                for message in table.sends.items[table.sends.first[visit] : table.sends.first[visit + 1]]:
                    pending += arrived[message] < 0
                for message in table.awaits.items[table.awaits.first[visit] : table.awaits.first[visit + 1]]:
                    pending += arrived[message] < 0
                state.pending[rank] = pending
                if pending:
                    break
                charge = table.charge[visit]
                place += 0 if charge else 1
            state.visit[rank] = place
            if charge:
                # A computation is a flow without links. Its tag is beyond those of messages. So the engine's heap of
                # instants holds all events, and no second queue has to be merged with it.
                state.pending[rank] = NONE
                state.visit[rank] += 1
                add(core, messages + rank, table.route_links.items[:0], 0, 1.0, np.inf, now + charge)
            elif place == table.rank_visits.first[rank + 1]:
                state.clock[rank], state.pending[rank] = now, NONE
        now = next_instant(core)
        if now == NEVER:
            return
        count = 0
        # All that arrives at an instant has arrived before any rank goes on. So neither the time nor the message that a
        # rank waited for depends on the order in which simultaneous events are handled.
        for number in done[: settle(core, now, done)]:
            message = core.flows[number].tag
            if message >= messages:
                take(core, number, held[:0])
                ready[count] = message - messages
                count += 1
                continue
            take(core, number, held[held_first[message] : held_first[message + 1]])
            arrived[message] = now
            behind = table.behind[message] if in_order else NONE
            if behind != NONE and queued[behind] >= 0:
                route = table.route[behind]
                links = table.route_links.items[table.route_links.first[route] : table.route_links.first[route + 1]]
                at = max(now, queued[behind])  # its latency passes while it waits
                add(core, behind, links, table.bits[behind], table.weight[route], np.inf, at)
                queued[behind] = at - queued[behind]
            src, dst = table.src[message], table.dst[message]
            # A rank that is not yet in the visit that waits for this message counts it when it comes there.
            place = state.visit[src]
            if state.pending[src] > 0 and table.rank_visits.items[place] == table.src_visit[message]:
                state.pending[src] -= 1
                if state.pending[src] == 0:
                    ready[count] = src
                    count += 1
            place = state.visit[dst]
            if state.pending[dst] > 0 and table.rank_visits.items[place] == table.dst_visit[message]:
                state.pending[dst] -= 1
                if state.pending[dst] == 0:
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
