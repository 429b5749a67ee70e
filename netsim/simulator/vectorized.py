"""Advances all ranks round by round: a few array operations per round instead of P coroutines.

A rank depends on other ranks only by the messages that it waits for. The clocks after a round therefore follow from the
clocks before the round: a message starts at its sender's clock, and its receiver continues at the later of its own
clock and the arrival. The result is exact as long as no link carries flows of different rounds at the same time. Every
round checks this condition, and raises NoScheduleError if it is violated.

A schedule may post rounds ahead: a rank then finishes a round after it has posted the next `ahead` rounds. Messages
from one rank to another drain one after the other, so those of consecutive rounds never share a link.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray, repeats
from netsim._util.errors import InfeasibleError
from netsim._util.units import HORIZON_PS, PICOSECONDS, beyond_horizon
from netsim.comm.schedule import Pairs
from netsim.network.fabric import Fabric
from netsim.network.flow import Sharing, time_alone, weight_by_latency
from netsim.simulator.layout import NoScheduleError, RoleMap, SizedRound
from netsim.simulator.symmetry import RecordedPhase
from netsim.simulator.vectorized_sharing import drain

BY_RECEIVER, BY_SENDER = 1, 2
"""Flags of a message: the receiver continued when the message arrived; the sender continued when it had been sent."""


class SharingNotes(NamedTuple):
    """Notes on a round: link ``links[i]`` limited message ``messages[i]`` for ``durations[i]`` picoseconds."""

    messages: IntArray
    links: IntArray
    durations: IntArray


class ClockState(NamedTuple):
    """Picoseconds by which each rank's clock is ahead of the earliest one, and until which each link is then busy."""

    ahead: IntArray
    busy: IntArray


class PlayedRound(NamedTuple):
    """A round that was played, as :class:`CriticalPathBacktracker` needs it.

    `waited` has a byte per message: whether its receiver, or its sender, continued when it arrived. `notes` say which
    links limited messages, where flows shared links. A message that queued did so behind one that was posted `behind`
    rounds earlier; 0 if it did not queue, and None if no rounds are posted ahead.
    """

    part: RecordedPhase
    number: int
    waited: npt.NDArray[np.uint8]
    notes: SharingNotes | None = None
    behind: npt.NDArray[Any] | None = None


class PlayedBeside(NamedTuple):
    """An exchange that began beside what follows: its number, and its rounds."""

    number: int
    rounds: list[PlayedRound]


class Joined(NamedTuple):
    """The ranks (P,) that waited for the end of an exchange of a number; the others went on at once."""

    number: int
    waited: npt.NDArray[np.bool_]


PlayedPart: TypeAlias = PlayedRound | PlayedBeside | Joined


class PostedRound(NamedTuple):
    """A round on its way: when its messages arrive, in picoseconds; `notes` and `behind` as in a played round."""

    round_: SizedRound
    leave: IntArray
    notes: SharingNotes | None = None
    behind: IntArray | None = None


class PairRoutes:
    """The routes of a round's pairs, with their latencies and narrowest links."""

    def __init__(self, fabric: Fabric, pairs: Pairs) -> None:
        self.pairs = pairs
        first, self.links, self.latency = fabric.links_of(pairs.src, pairs.dst)
        self.first = first[:-1]
        self.names = (pairs.src << 32) + pairs.dst
        """A number of each pair, which is the same in all rounds."""
        counts = np.diff(first)
        self.owners = np.repeat(np.arange(len(counts)), counts)
        self.distinct = not repeats(self.links)
        bandwidth = fabric.bandwidth_bps[self.links]
        # Sorted by owner, then bandwidth, then place on the route: the first of an owner's is its narrowest. Of equal
        # ones it must be the first on the route, as Route.narrowest is, or engines would name different bottlenecks.
        order = np.lexsort((np.arange(len(bandwidth)), bandwidth, self.owners))
        self.narrowest = self.links[order[self.first]]
        self.bandwidths, self.kind = np.unique(fabric.bandwidth_bps[self.narrowest], return_inverse=True)
        self.ranks, places = np.unique(np.concatenate([pairs.src, pairs.dst]), return_inverse=True)
        self.src, self.dst = places[: len(pairs.src)], places[len(pairs.src) :]
        self.single = not (repeats(pairs.src) or repeats(pairs.dst))
        self._alone: tuple[IntArray, IntArray] | None = None

    def durations(self, sizes: IntArray, which: IntArray) -> IntArray:
        """Return the picoseconds that each message takes if no other uses its links."""
        # By identity is enough, because a layout returns the same array for all rounds with the same sizes.
        if self._alone is None or self._alone[0] is not sizes:
            table = [[time_alone(8 * sum(size), rate) for size in sizes.tolist()] for rate in self.bandwidths.tolist()]
            self._alone = sizes, np.array(table)
        durations: IntArray = self._alone[1][self.kind, which]
        return durations


class PairQueues:
    """The queues of a phase whose rounds are posted ahead: messages from one rank to another drain in their order."""

    def __init__(self, links: int) -> None:
        self._last = np.full((3, links), -1)
        """For each link: the name of the pair whose message it carried last, the round, and the instant of its end."""
        self._only: tuple[PairRoutes, IntArray] | None = None
        """The routes and ends of the last round, while all rounds have the same pairs and none of them share a link.

        Rings do. `_last` is then not up to date, which saves gathering and scattering by link in every round.
        """

    def begin(self, number: int, routes: PairRoutes, enter: IntArray) -> tuple[IntArray, IntArray]:
        """Return when messages begin to drain that could from `enter` on, and `behind` as in a played round."""
        if self._only is not None and self._only[0] is routes:
            before, drained = number - 1, self._only[1]
        else:
            if self._only is not None:
                self._write(number - 1, *self._only)
                self._only = None
            # A message of another pair is not waited for here. If it still drains, `_post` refuses the round.
            last = self._last[:, routes.links]
            last = np.where(last[0] == routes.names[routes.owners], last, -1)
            _, before, drained = np.maximum.reduceat(last, routes.first, axis=1)
        return np.maximum(enter, drained), np.where(drained > enter, number - before, 0)

    def end(self, number: int, routes: PairRoutes, leave: IntArray) -> None:
        """Take note of when the messages of a round end."""
        if routes.distinct and (number == 0 or self._only is not None):
            self._only = routes, leave
        else:
            self._write(number, routes, leave)

    def _write(self, number: int, routes: PairRoutes, leave: IntArray) -> None:
        self._last[0, routes.links], self._last[1, routes.links] = routes.names[routes.owners], number
        self._last[2, routes.links] = leave[routes.owners]


class RankClocks:
    """The clocks of all ranks, until when links are busy, and the bytes that ranks sent and received.

    Parameters
    ----------
    fabric
        The network, with a host for every rank.
    world
        The ranks.
    sharing
        How flows share a link.
    """

    def __init__(self, fabric: Fabric, world: RoleMap, sharing: Sharing = "maxmin") -> None:
        self.fabric, self.sharing = fabric, sharing
        self.clock: IntArray = np.zeros(world.size, np.int64)
        self.busy: IntArray = np.zeros(len(fabric.bandwidth_bps), np.int64)
        """Until when each link carries something."""
        self.sent: IntArray = np.zeros((world.size, 3), np.int64)
        self.received: IntArray = np.zeros((world.size, 3), np.int64)
        self.messages: IntArray = np.zeros(world.size, np.int64)
        self.hidden: IntArray = np.zeros(world.size, np.int64)
        """Picoseconds in which each rank exchanged beside other work."""
        self._beside: dict[int, tuple[IntArray, IntArray]] = {}
        """When each rank began and ended an exchange beside others that it has not waited for yet, by number."""
        self._routes: dict[int, PairRoutes] = {}

    def routes(self, pairs: Pairs) -> PairRoutes:
        """Return the routes of pairs; the routes of recent pairs are cached."""
        # PairRoutes keeps its pairs alive, so no other object gets their id while it is in the cache.
        if (routes := self._routes.get(id(pairs))) is None:
            if len(self._routes) > 256:
                self._routes.clear()
            routes = self._routes[id(pairs)] = PairRoutes(self.fabric, pairs)
            if self.sharing == "rtt":
                self._check_latencies(routes)
        return routes

    def _check_latencies(self, routes: PairRoutes) -> None:
        """Raise UsageError, as the event engine does, for a route without a latency to weigh flows by."""
        for pair in np.flatnonzero(routes.latency == 0)[:1].tolist():
            source, target = (self.fabric.hosts[ranks.item(pair)] for ranks in (routes.pairs.src, routes.pairs.dst))
            weight_by_latency(self.fabric.route(source, target))

    def advance(self, part: RecordedPhase) -> list[PlayedPart]:
        """Advance all ranks through a phase; return what :class:`CriticalPathBacktracker` needs of it."""
        if part.beside is not None:
            begun = self.clock.copy()
            rounds = [played for phase in part.beside for played in self._rounds(phase)]
            self._beside[part.exchange] = begun, self.clock.copy()
            self.clock[:] = begun
            return [PlayedBeside(part.exchange, rounds)]
        if part.exchange:
            begun, ended = self._beside.pop(part.exchange)
            self.hidden += np.minimum(ended, self.clock) - begun
            waited = ended > self.clock
            np.maximum(self.clock, ended, out=self.clock)
            return [Joined(part.exchange, waited)]
        return list(self._rounds(part))

    def _rounds(self, part: RecordedPhase) -> list[PlayedRound]:
        """Advance all ranks through the rounds of a phase, and return them."""
        charges = part.charged_ps
        queues = PairQueues(len(self.busy)) if part.ahead else None
        under_way: deque[PostedRound] = deque()
        history: list[PlayedRound] = []

        def finish() -> None:
            posted = under_way.popleft()
            waited, behind = self._go_on(posted), posted.behind
            if behind is not None:
                behind = behind.astype(np.min_scalar_type(part.ahead))
            history.append(PlayedRound(part, len(history), waited, posted.notes, behind))
            if (then := posted.round_.then) is not None:
                np.add.at(self.clock, then.at, charges[then.pick])  # a rank may combine several payloads
            self.check_horizon()

        for number, round_ in enumerate(part.rounds):
            if len(under_way) > part.ahead:
                finish()
            under_way.append(self._post(number, round_, queues))
        while under_way:
            finish()
        return history

    def check_horizon(self) -> None:
        """Raise InfeasibleError if the clock of a rank is beyond the horizon."""
        if self.clock.max() >= HORIZON_PS:
            raise beyond_horizon()

    def weights(self, latency: IntArray) -> npt.NDArray[np.float64]:
        """Return the weights by which flows share a link, from the latencies of their routes."""
        return np.ones(len(latency)) if self.sharing == "maxmin" else PICOSECONDS / latency

    @property
    def level(self) -> bool:
        """Whether all clocks are equal. The network is idle then, because every sender and receiver has waited."""
        return bool((self.clock == self.clock[0]).all())

    def snapshot(self) -> list[IntArray]:
        """Return a copy of all clocks and counts."""
        return [column.copy() for column in self._columns]

    def restore(self, saved: list[IntArray]) -> None:
        """Set all clocks and counts back to a :meth:`snapshot`."""
        for column, before in zip(self._columns, saved, strict=True):
            column[:] = before

    @property
    def _columns(self) -> tuple[IntArray, ...]:
        return self.clock, self.busy, self.sent, self.received, self.messages

    def state(self) -> ClockState:
        """Return the clocks and busy links relative to the first rank's clock."""
        now = int(self.clock.min())
        return ClockState(self.clock - now, np.maximum(self.busy - now, 0))

    def is_in_state(self, found: ClockState) -> bool:
        """Return whether clocks and links are in a :meth:`state`, at whatever time."""
        ahead, busy = self.state()
        return bool((ahead == found.ahead).all() and (busy == found.busy).all())

    def repeat(self, saved: list[IntArray], times: int) -> None:
        """Repeat everything since a :meth:`snapshot` so many times."""
        later = times * int(self.clock.min() - saved[0].min())
        if int(self.clock.max()) + later >= HORIZON_PS:
            raise beyond_horizon()
        self.clock += later
        self.busy += later
        for counts, before in zip(self._columns[2:], saved[2:], strict=True):
            # NumPy's integers wrap around silently, so the product is computed in Python's before it is added.
            if int(counts.max()) + times * int((counts - before).max()) >= 2**63:
                raise InfeasibleError("a rank sends or receives more than 2⁶³ bytes in all; take fewer rounds")
            counts += times * (counts - before)

    def _post(self, number: int, round_: SizedRound, queues: PairQueues | None) -> PostedRound:
        """Let the messages of a round begin."""
        if not len(round_.pairs.src):
            return PostedRound(round_, round_.pairs.src)
        routes = self.routes(round_.pairs)
        enter, behind = self.clock[round_.pairs.src] + routes.latency, None
        if enter.max() >= HORIZON_PS:
            raise beyond_horizon()
        if queues is not None:
            enter, behind = queues.begin(number, routes, enter)
        # The whole engine rests on this condition: rates of a round depend on no other round. Equality is allowed,
        # because a flow that ends when another one enters shares nothing with it.
        if not (self.busy[routes.links] <= enter[routes.owners]).all():
            raise NoScheduleError("links carry flows of different rounds at a time")
        leave, notes = enter + routes.durations(round_.sizes, round_.which), None
        if routes.distinct:
            self.busy[routes.links] = leave[routes.owners]
        else:
            # Flows that use a link one after another have it to themselves. Only if two overlap are rates solved, from
            # instant to instant, which takes longer.
            if _overlap(routes, enter, leave):
                if self.sharing != "maxmin":
                    raise NoScheduleError("links are shared by weight")
                bits = 8 * round_.sizes.sum(1)[round_.which]
                leave, *columns = drain(routes.owners, routes.links, enter, bits, self.fabric.bandwidth_bps)
                notes = SharingNotes(*columns)
            np.maximum.at(self.busy, routes.links, leave[routes.owners])
        if queues is not None:
            queues.end(number, routes, leave)
        self.count(round_, routes)
        return PostedRound(round_, leave, notes, behind)

    def count(self, round_: SizedRound, routes: PairRoutes) -> None:
        """Count the messages of a round, and their bytes."""
        if routes.single and len(round_.sizes) == 1 and len(routes.src) == len(self.messages):
            self.sent += round_.sizes
            self.received += round_.sizes
            self.messages += 1
            return
        for column in np.flatnonzero(round_.sizes.any(0)).tolist():  # nearly all messages hold values alone
            sizes = round_.sizes[:, column][round_.which]
            _add(self.sent[:, column], round_.pairs.src, sizes, routes.single)
            _add(self.received[:, column], round_.pairs.dst, sizes, routes.single)
        _add(self.messages, round_.pairs.src, 1, routes.single)

    def _go_on(self, posted: PostedRound) -> npt.NDArray[np.uint8]:
        """Advance the ranks of a round to when their messages are done; return which messages they waited for.

        Of several messages at the same instant, a received one counts first, and of those the one waited for first. The
        critical path then depends on instants alone, and is the same in all engines (docs/decisions/0005).
        """
        leave = posted.leave
        if not len(leave):
            return np.zeros(0, np.uint8)
        routes = self.routes(posted.round_.pairs)
        before = self.clock[routes.ranks]
        received, sent = before.copy(), before.copy()
        if routes.single:
            received[routes.dst] = np.maximum(leave, before[routes.dst])
            sent[routes.src] = leave
        else:
            np.maximum.at(received, routes.dst, leave)
            np.maximum.at(sent, routes.src, leave)
        by_receiver = (received > before) & (received >= sent)
        by_sender = (sent > before) & ~by_receiver
        after_received = by_receiver[routes.dst] & (leave == received[routes.dst])
        after_sent = by_sender[routes.src] & (leave == sent[routes.src])
        if not routes.single:
            after_received, after_sent = _first(after_received, routes.dst), _first(after_sent, routes.src)
        self.clock[routes.ranks] = np.maximum(received, sent)
        waited: npt.NDArray[np.uint8] = after_received * np.uint8(BY_RECEIVER) + after_sent * np.uint8(BY_SENDER)
        return waited


def _add(counts: IntArray, at: IntArray, numbers: IntArray | int, distinct: bool) -> None:
    """Add numbers to counts at some places, which are `distinct` or repeat."""
    if distinct:
        counts[at] += numbers
    else:
        np.add.at(counts, at, numbers)


def _first(chosen: npt.NDArray[np.bool_], places: IntArray) -> npt.NDArray[np.bool_]:
    """Keep only the first chosen message of each rank."""
    which = np.flatnonzero(chosen)
    only = np.zeros(len(chosen), np.bool_)
    only[which[np.unique(places[which], return_index=True)[1]]] = True
    return only


def _overlap(routes: PairRoutes, enter: IntArray, leave: IntArray) -> bool:
    """Return whether any link would carry two messages at a time if each message had the whole link."""
    begin, end = enter[routes.owners], leave[routes.owners]
    used = begin < end
    link, begin, end = routes.links[used], begin[used], end[used]
    order = np.lexsort((begin, link))
    link, begin, end = link[order], begin[order], end[order]
    return bool(((link[1:] == link[:-1]) & (begin[1:] < end[:-1])).any())


class CriticalPathBacktracker:
    """Follows the critical path of every last rank back to the start.

    As many walkers are at a rank as critical paths lead through it. `totals` are the picoseconds of each kind of work,
    and of latency, summed over all walkers; `on_links` are those of each link.
    """

    def __init__(self, clocks: RankClocks, walkers: IntArray, links: int) -> None:
        self._clocks = clocks
        self.walkers = walkers
        self._waiting: dict[int, IntArray] = {}
        """The walkers that follow an exchange beside others back to its begin, by its number."""
        self._under_way: dict[int, tuple[PlayedRound, SizedRound, IntArray]] = {}
        """By round: how many walkers follow each of its messages back to the instant at which it was posted."""
        self.totals: Counter[Hashable] = Counter()
        self.on_links = np.zeros(links)

    def backtrack(self, history: Sequence[PlayedPart], times: int = 1) -> None:
        """Follow the critical paths back through rounds that were repeated."""
        rounds: list[PlayedRound] = []
        for played in reversed(history):
            if isinstance(played, PlayedRound):
                rounds.append(played)
                continue
            self._backtrack_rounds(rounds[::-1])
            rounds = []
            if isinstance(played, Joined):
                self._waiting[played.number] = np.where(played.waited, self.walkers, 0)
                self.walkers = np.where(played.waited, 0, self.walkers)
            else:
                elsewhere, self.walkers = self.walkers, self._waiting.pop(played.number, np.zeros_like(self.walkers))
                self._backtrack_rounds(played.rounds)
                self.walkers = self.walkers + elsewhere
        self._backtrack_rounds(rounds[::-1], times)

    def _backtrack_rounds(self, history: list[PlayedRound], times: int = 1) -> None:
        if times > 1:
            # Totals are linear in the walkers. So the rounds are walked once, by the sum of the walkers that are at the
            # end of each repetition.
            origins, walkers, walkers_of_all = self._origins(history), self.walkers, np.zeros_like(self.walkers)
            for _ in range(times):
                walkers_of_all += walkers
                walkers = np.bincount(origins, walkers, len(walkers)).astype(np.int64)
            self.walkers = walkers_of_all
            self._backtrack_rounds(history)
            self.walkers = walkers
            return
        part = None
        for played in reversed(history):
            # A rank finishes round n after it has posted round n + ahead. Back before the end of round n, walkers along
            # messages of later rounds are therefore at the senders. A phase begins when the one before it is over.
            self._arrive(played.number + part.ahead if part is played.part else -1)
            part = played.part
            round_ = part.rounds[played.number]
            if round_.then is not None:
                passed = np.bincount(round_.then.pick, self.walkers[round_.then.at], len(part.charges))
                for charge, times in zip(part.charges, passed.astype(np.int64).tolist(), strict=True):
                    for work, picoseconds in charge.items():
                        self.totals[work] += times * picoseconds
            if len(played.waited):
                self._depart(played, round_)
        self._arrive(-1)

    def _origins(self, history: list[PlayedRound]) -> IntArray:
        """Return for every rank the rank at which its critical path was before these rounds."""
        origins, part = np.arange(len(self.walkers)), None
        skipped = np.zeros(len(origins), np.int64)
        for played, posted in zip(reversed(history), reversed(self._roots(history)), strict=True):
            if part is not played.part:
                part, skipped = played.part, np.full(len(origins), len(played.part.rounds))
            if not len(played.waited):
                continue
            pairs, came = part.rounds[played.number].pairs, np.flatnonzero(played.waited & BY_RECEIVER)
            before = np.arange(len(origins))
            before[pairs.dst[came]] = pairs.src[came]
            if posted is None:
                origins = before[origins]
                continue
            # A path that follows a message back skips the rounds that its sender finished after it had posted that one.
            went = np.flatnonzero(played.waited & BY_SENDER)
            until = np.full(len(origins), played.number)
            until[pairs.dst[came]], until[pairs.src[went]] = posted[came] - part.ahead, posted[went] - part.ahead
            takes_part = np.flatnonzero(played.number < skipped)
            skipped[takes_part] = until[origins[takes_part]]
            origins[takes_part] = before[origins[takes_part]]
        return origins

    def _roots(self, history: list[PlayedRound]) -> list[npt.NDArray[np.int32] | None]:
        """Return the round in which each message, or the first one of its queue, was posted; None without `ahead`."""
        roots: list[npt.NDArray[np.int32] | None] = []
        for played in history:
            posted = None
            if played.behind is not None:
                posted = np.full(len(played.behind), played.number, np.int32)
                rounds = played.part.rounds
                for back, which in _queued(played.behind):
                    places = self._places(which, *(rounds[played.number - by].pairs for by in (0, back)))
                    earlier = roots[-back]
                    assert earlier is not None
                    posted[which] = earlier[places]
            roots.append(posted)
        return roots

    def _places(self, which: IntArray, pairs: Pairs, earlier: Pairs) -> IntArray:
        """Return the places in an earlier round of messages between the same ranks."""
        if pairs is earlier:
            return which
        wanted, names = (self._clocks.routes(either).names for either in (pairs, earlier))
        order = np.argsort(names)
        places: IntArray = order[np.searchsorted(names, wanted[which], sorter=order)]
        return places

    def _depart(self, played: PlayedRound, round_: SizedRound) -> None:
        """Let the walkers of ranks that waited for a message of a round follow it back."""
        pairs, waited = round_.pairs, played.waited
        weight = np.zeros(len(waited), np.int64)
        others_left = not self._under_way or self.walkers.any()
        self._under_way[played.number] = played, round_, weight
        if not others_left:
            return
        came, went = np.flatnonzero(waited & BY_RECEIVER), np.flatnonzero(waited & BY_SENDER)
        # A rank waited for one message at most, so that no walker follows two messages.
        weight[came] = self.walkers[pairs.dst[came]]
        weight[went] += self.walkers[pairs.src[went]]
        self.walkers[pairs.dst[came]] = 0
        self.walkers[pairs.src[went]] = 0

    def _arrive(self, posted: int) -> None:
        """Let the walkers that follow messages of rounds after `posted` arrive at the senders.

        A message that queued has the path of the message before it, then its own time on links.
        """
        for number in [number for number in self._under_way if number > posted]:
            played, round_, weight = self._under_way.pop(number)
            if played.behind is not None and not weight.any():
                continue
            routes, notes = self._clocks.routes(round_.pairs), played.notes
            if notes is None:
                durations = routes.durations(round_.sizes, round_.which).astype(float)
                np.add.at(self.on_links, routes.narrowest, weight * durations)
            else:
                np.add.at(self.on_links, notes.links, weight[notes.messages] * notes.durations.astype(float))
            if played.behind is not None:
                for back, which in _queued(played.behind):
                    _, before, followed = self._under_way[number - back]
                    followed[self._places(which, round_.pairs, before.pairs)] += weight[which]
                weight = np.where(played.behind, 0, weight)
                if not weight.any():
                    continue
            self.totals["latency"] += _dot(weight, routes.latency)
            np.add.at(self.walkers, round_.pairs.src, weight)


def _queued(behind: npt.NDArray[Any]) -> Iterator[tuple[int, IntArray]]:
    """Yield (n, messages): the messages of a round that queued behind messages n rounds earlier."""
    for back in range(max(1, int(behind.min())), int(behind.max()) + 1):
        if len(which := np.flatnonzero(behind == back)):
            yield back, which


def _dot(times: IntArray, durations: IntArray) -> int:
    """Return the sum of products; in Python's integers if 64 bits could overflow."""
    if int(times.sum()) * int(durations.max(initial=0)) < 2**62:
        return int(times @ durations)
    return sum(count * duration for count, duration in zip(times.tolist(), durations.tolist(), strict=True))
