"""Times of a great many workers by the formulas of the literature: an idle star of equal links, and ranks in step.

α is the latency of a message, β the time of a byte. The layout of a collective says who sends what; a formula takes
the representatives from where they are to where the last message leaves them, without playing the rounds:

==========================  ==================================================================
ring reduce-scatter         (P-1)(α + ⌈d/P⌉β), then as long again for the all-gather of chunks
ring all-gather             (P-1)(α + mβ)
pipelined ring              the slices that one rank sends, one after another: :meth:`Formulas.pipelined`
Bruck's all-gather          ⌈log₂P⌉ α + (P-1) m β
binomial tree               log₂P (α + mβ) up, and down
parameter server            α + n m β from n workers, and to them; n (2α + (1 + m)β) if serial
==========================  ==================================================================

(gTop-k paper, table of costs; Thakur, Rabenseifner and Gropp, 2005.) Where P is no power of two, a rank without a
partner on the way up a tree sends early, and shares its target's link: :meth:`Formulas.head` says what that gives.
Where a formula does not hold, NoScheduleError says why.
"""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray
from netsim._util.units import HORIZON_PS, beyond_horizon
from netsim.comm.collectives import (
    Pipeline,
    all_to_all,
    broadcast_from_server,
    bruck_all_gather,
    gather,
    ring_all_gather,
    ring_all_reduce,
    scatter,
    swap,
    tree_broadcast,
    tree_reduce,
)
from netsim.comm.collectives.pipeline import addition
from netsim.comm.payload import PRECISION_BYTES, SizeOnly, concatenate, nbytes, split
from netsim.comm.schedule import size_of
from netsim.comm.worker import COMPUTE, SELECT, Collective, Compute
from netsim.network.flow import time_alone
from netsim.simulator.layout import CollectiveLayout, NoScheduleError, PerRole, RoleMap, SizedRound, lay_out
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.simulator.vectorized_sharing import drain
from netsim.training.costs import Costs

WORKER_LINKS, SERVER_LINK = "worker links", "server link"
WORKS = (*COMPUTE, *SELECT)


class Star(NamedTuple):
    """An idle star: α in picoseconds, and what all links carry in bit/s."""

    latency_ps: int
    bandwidth_bps: int

    def drains(self, size: tuple[int, int, int], flows: int = 1) -> int:
        """Return the picoseconds that `flows` equal messages take to drain together over one link."""
        return time_alone(8 * sum(size) * flows, self.bandwidth_bps)


class EventChain(NamedTuple):
    """An instant in picoseconds, and the time spent on each kind of work, link and latency before it."""

    now: int
    spent: Counter[str]

    def then(self, spent: Counter[str]) -> EventChain:
        """Return the chain with the time `spent` added at its end."""
        now = self.now + spent.total()
        if now >= HORIZON_PS:
            raise beyond_horizon()
        return EventChain(now, self.spent + spent)


START = EventChain(0, Counter())


class Apart(NamedTuple):
    """Ranks that are apart: `last` (P,) are those surely at the end of their chain, which no other rank has passed.

    `earlier` (P,) are the picoseconds by which each rank is before the end of its chain; None where they are not known.
    """

    last: npt.NDArray[np.bool_]
    earlier: IntArray | None = None


class Front(NamedTuple):
    """Where all ranks are: the critical path of each representative, and how the ranks are `apart`; None in step.

    A representative is not `sure` if ranks that it represents may be earlier than its chain says.
    """

    chains: list[EventChain]
    sure: list[bool]
    apart: Apart | None = None


class Formulas(SymmetryRecorder):
    """Advances the representatives by formulas, and counts the bytes of all ranks.

    `front` says where the ranks are.
    """

    def __init__(self, world: RoleMap, costs: Costs, star: Star, *, concurrent: bool = False) -> None:
        super().__init__(world, costs, concurrent=concurrent)
        self.star = star
        self.front = Front([START for _ in world.representatives], [True for _ in world.representatives])
        self.sent: IntArray = np.zeros((world.size, 3), np.int64)
        self.received: IntArray = np.zeros((world.size, 3), np.int64)
        self.computed = [Counter[str]() for _ in world.representatives]
        """The time of each kind of work, by representative."""
        self.hidden: IntArray = np.zeros(world.size, np.int64)
        """The picoseconds in which each rank exchanged beside other work."""
        self._beside: dict[int, tuple[Front, Front]] = {}
        self._idle_from = 0
        self._server = world.representatives.index(world.server)
        self._others = [role for role in range(len(world.representatives)) if role != self._server]

    @property
    def chains(self) -> list[EventChain]:
        """The critical paths of the representatives."""
        return self.front.chains

    @property
    def last(self) -> EventChain:
        """The critical path to the last event of all ranks; its ``now`` is the instant of that event."""
        sure, apart = list(self.front.sure), self.front.apart
        if apart is not None:
            for role in np.unique(self.world.role[apart.last]).tolist():
                sure[role] = True
        chain, attained = max(zip(self.chains, sure, strict=True), key=lambda each: (each[0].now, each[1]))
        if not attained:
            raise NoScheduleError("who ends last is not known")
        return chain

    def hidden_ps(self) -> float:
        """Return the mean picoseconds in which the ranks that end last exchanged beside other work."""
        instants = self._instants(self.front)
        return float(self.hidden[instants == instants.max()].mean())

    def knows(self, call: Collective[Any]) -> bool:
        """Return whether there is a formula for a collective."""
        return call.function in FORMULAS or call.function is RING_ALL_REDUCE

    def step_ended(self) -> None:
        """Do nothing: steps follow each other."""

    def compute(self, charges: tuple[Counter[str], ...]) -> None:
        """Advance each representative by the time that it computes."""
        chains = [chain.then(charge) for chain, charge in zip(self.chains, charges, strict=True)]
        self.front = self.front._replace(chains=chains)
        for computed, charge in zip(self.computed, charges, strict=True):
            computed.update(charge)

    @contextmanager
    def beside(self, number: int) -> Iterator[None]:
        """Advance the representatives by what follows, from which their own chains then do not depend."""
        begun = self.front
        yield
        if any(
            +(chain.spent - before.spent) & Counter(dict.fromkeys(WORKS, HORIZON_PS))
            for before, chain in zip(begun.chains, self.chains, strict=True)
        ):
            raise NoScheduleError("an exchange computes beside other computations")
        self._beside[number] = begun, self.front
        self._idle_from = max(chain.now for chain in self.chains)
        self.front = begun

    def join(self, number: int) -> None:
        """Let every representative wait for the end of an exchange."""
        begun, ended = self._beside.pop(number)
        begins, ends, clocks = map(self._instants, (begun, ended, self.front))
        self.hidden += np.minimum(ends, clocks) - begins
        chains = [end if end.now > chain.now else chain for end, chain in zip(ended.chains, self.chains, strict=True)]
        earlier = np.array([chain.now for chain in chains])[self.world.role] - np.maximum(ends, clocks)
        in_step = not earlier.any()
        self.front = Front(chains, [in_step for _ in chains], None if in_step else Apart(earlier == 0, earlier))

    def _instants(self, front: Front) -> IntArray:
        """Return the instant at which each rank is, in picoseconds; raise NoScheduleError where it is not known."""
        instants = np.array([chain.now for chain in front.chains])[self.world.role]
        if front.apart is not None and front.apart.earlier is not None:
            return instants - front.apart.earlier
        if not all(front.sure):
            raise NoScheduleError("ranks are not in step")
        return instants

    def exchange(self, calls: PerRole[Collective[Any]]) -> PerRole[Any]:
        """Advance the representatives by a collective; return their answers."""
        if any(chain.now < self._idle_from for chain in self.chains):
            raise NoScheduleError("links carry several exchanges at a time")
        if calls[0].function is RING_ALL_REDUCE:
            pipeline: Pipeline | None = _arguments(calls[0])["pipeline"]
            return self._ring_all_reduce([call.args[0] for call in calls], pipeline)
        layout = lay_out(self.world, calls)
        self.uneven |= layout.uneven
        if layout.rounds:
            FORMULAS[calls[0].function](self, layout, _groups(calls[0]))
        return layout.answers

    def _ring_all_reduce(self, vector: PerRole[Any], pipeline: Pipeline | None) -> PerRole[Any]:
        """Advance all ranks by 2(P-1) hops of a chunk of ⌈d/P⌉ elements, which no smaller chunk overtakes.

        The ring may begin while ranks are apart, because its links carry messages of one sender. After 2(P-1) equal
        hops, every rank has waited for the last one.
        """
        workers, whole = self.world.workers, self.world.alike(vector)
        assert isinstance(whole, SizeOnly)
        if workers == 1:
            return vector
        chunks = np.full(workers, whole.size // workers)
        chunks[: whole.size % workers] += 1
        largest, even = whole.resized(int(chunks[0])), whole.size % workers == 0
        slices = split(largest, 1 if pipeline is None else pipeline.slices(nbytes(largest)))
        combine = addition(self.workers[0], len(slices))
        adding = [self.charge([combine(each, each)]) for each in slices]  # type: ignore[list-item]
        if pipeline is None or len(slices) == 1:
            least = whole.resized(int(chunks[-1]))
            hop, small = self._message(size_of(largest)), self._message(size_of(least))
            if self.front.apart is not None and self.charge([combine(least, least)]) != adding[0]:  # type: ignore[list-item]
                raise NoScheduleError("ranks are not in step")
            begin, spent = self._latest(), _times(workers - 1, hop + adding[0] + hop)
            unspent, apart = (0, None) if even else self._apart(whole.size % workers, hop.total() - small.total())
            spent[WORKER_LINKS] -= unspent
            self._everybody(spent, apart, begin)
        elif not even:
            raise NoScheduleError("chunks of different sizes are forwarded in slices")
        else:
            ring = [size_of(each) for each in slices], workers - 1, pipeline.ahead(len(slices))
            self._everybody(self.pipelined(*ring, adding) + self.pipelined(*ring))
        width, ranks = PRECISION_BYTES[whole.precision], np.arange(workers)
        self.sent[:workers, 0] += width * (2 * whole.size - chunks - chunks[(ranks + 1) % workers])
        self.received[:workers, 0] += width * (2 * whole.size - chunks - chunks[ranks - 1])
        self.compute(tuple(self.charge([Compute("merge", concatenate, (whole,))]) for _ in self.chains))
        return vector

    def all_gather(self, layout: CollectiveLayout, _: Groups) -> None:
        """Advance all ranks, of which each sends and receives one message a round; play one of equal rounds."""
        first, count = layout.rounds[0], len(layout.rounds)
        if layout.ahead:
            steps = self.world.workers - 1
            slices = [layout.rounds[index] for index in range(count // steps)]
            self._everybody(self.pipelined([_size(each) for each in slices], steps, layout.ahead))
            for each in slices:
                self._count(each, steps)
            return
        if len(first.sizes) > 1:
            raise NoScheduleError("vectors of different sizes are gathered")
        alike = layout.rounds[count - 1].pairs is first.pairs
        for round_, times in [(first, count)] if alike else [(each, 1) for each in layout.rounds]:
            self._everybody(_times(times, self._message(_size(round_))))
            self._count(round_, times)

    def all_to_all(self, layout: CollectiveLayout, _: Groups) -> None:
        """Advance all ranks by rounds in each of which a rank sends and receives one message of a size."""
        first, count = layout.rounds[0], len(layout.rounds)
        if len(first.sizes) > 1:
            raise NoScheduleError("parts of different sizes are exchanged")
        self._everybody(_times(count, self._message(_size(first))))
        self._count(first, count)

    def pipelined(
        self,
        sizes: Sequence[tuple[int, int, int]],
        steps: int,
        ahead: int,
        charges: Sequence[Counter[str]] | None = None,
    ) -> Counter[str]:
        """Return the time of a pipelined ring whose ranks all do the same at the same time.

        Slice i is posted at p(i), when slice i - 1 - `ahead` has been received and combined. It then drains from
        max(p(i) + α, e(i-1)) until e(i). A rank sends and receives alike, so this is all that it waits for.

        Parameters
        ----------
        sizes
            The bytes of each slice of a chunk: values, indices and flags.
        steps
            The number of chunks that a rank forwards.
        ahead
            The number of slices that are posted ahead.
        charges
            The time of combining each slice, if slices are combined.
        """
        latency = self.star.latency_ps
        drains = [self.star.drains(size) for size in sizes]
        combining = [0] * len(sizes) if charges is None else [charge["merge"] for charge in charges]
        # Critical paths, which sum to an instant: picoseconds of latency, of draining and of combining.
        rank = message = (0, 0, 0)
        under_way: deque[tuple[tuple[int, int, int], int]] = deque()

        def finish() -> tuple[int, int, int]:
            received, merge = under_way.popleft()
            alpha, drained, merged = max(rank, received, key=sum)
            return alpha, drained, merged + merge

        skipped, before, state = (0, 0, 0), rank, None
        for step in range(steps):
            for draining, merge in zip(drains, combining, strict=True):
                if len(under_way) > ahead:
                    rank = finish()
                if sum(message) <= sum(rank) + latency:
                    message = rank[0] + latency, *rank[1:]
                message = message[0], message[1] + draining, message[2]
                under_way.append((message, merge))
            earlier, state = state, [_minus(each, rank) for each in (message, *(message for message, _ in under_way))]
            passed, before = _minus(rank, before), rank
            if state == earlier:  # so will be those after all other steps
                skipped = passed[0] * (left := steps - 1 - step), passed[1] * left, passed[2] * left
                break
        while under_way:
            rank = finish()
        spent = zip(("latency", WORKER_LINKS, "merge"), rank, skipped, strict=True)
        return +Counter({what: picoseconds + more for what, picoseconds, more in spent})

    def up(self, layout: CollectiveLayout, groups: Groups) -> None:
        """Put rank 0 at the end of a reduction over a tree; the others are earlier."""
        size, charges = _size(layout.rounds[0]), [self.charge(request) for request in layout.requests]
        if groups is None:
            head = self.head(self.world.workers, size, charges)
        else:
            _check_in_step(groups)
            head = START.then(_times(len(layout.rounds), self._message(size)) + sum(charges, Counter()))
        start = self._level()
        self.front = Front(
            [start.then(head.spent) for _ in self.chains], [rank == 0 for rank in self.world.representatives]
        )
        self._count_all(layout)

    def down(self, layout: CollectiveLayout, groups: Groups) -> None:
        """Put all ranks at the end of a broadcast over a tree, where the last ones are."""
        if groups is not None:
            _check_in_step(groups)
        end = self._ahead(0).then(_times(len(layout.rounds), self._message(_size(layout.rounds[0]))))
        workers = self.world.workers
        level = groups is not None or workers & (workers - 1) == 0
        # The first 2^(L-1) of P < 2^L ranks send or receive in every round after they got the vector.
        first = Apart(self.world.ranks < 1 << ((workers - 1).bit_length() - 1))
        sure = [level or rank == 0 for rank in self.world.representatives]
        self.front = Front([end for _ in self.chains], sure, None if level else first)
        self._count_all(layout)

    def head(self, ranks: int, size: tuple[int, int, int], charges: Sequence[Counter[str]]) -> EventChain:
        """Return the chain to the instant at which the first of `ranks` ranks has absorbed all others, from 0 on.

        The first rank absorbs whole trees of 1, 2, 4 … ranks, each ready one round after the one before. The last tree
        may be smaller than its 2^b ranks. It is then ready early, and shares the first rank's link with other trees.
        """
        rounds = (ranks - 1).bit_length()
        if ranks & (ranks - 1) == 0:
            return START.then(_times(rounds, self._message(size)) + sum(charges[:rounds], Counter()))
        whole = 1 << (rounds - 1)
        heads = [self.head(1 << place, size, charges) for place in range(rounds - 1)]
        heads.append(self.head(ranks - whole, size, charges))
        # Flow i uses a link of its own and the last one.
        flows, enter = np.arange(rounds), np.array([head.now for head in heads]) + self.star.latency_ps
        links = np.stack([flows, np.full(rounds, rounds)], 1).ravel()
        bandwidth = np.full(rounds + 1, self.star.bandwidth_bps)
        leave = drain(np.repeat(flows, 2), links, enter, np.full(rounds, 8 * sum(size)), bandwidth).leave
        root = START
        for head, start, end, charge in zip(heads, enter.tolist(), leave.tolist(), charges, strict=False):
            if end > root.now:
                root = head.then(Counter({"latency": self.star.latency_ps, WORKER_LINKS: end - start}))
            root = root.then(charge)
        return root

    def to_server(self, layout: CollectiveLayout, _: Groups) -> None:
        """All workers send to the server: at once, so that they share its link, or each in its turn."""
        first, upload = layout.rounds[0], layout.rounds[len(layout.rounds) - 1]
        serial = len(layout.rounds) > 1
        if _size(layout.rounds[1] if serial else first) != _size(upload) or len(np.unique(upload.which)) > 1:
            raise NoScheduleError("workers upload different sizes")
        if not serial:
            others = len(upload.which)
            end = self._level(self._others).then(
                self._message(_size(upload), others, SERVER_LINK if others > 1 else WORKER_LINKS)
            )
            mine = self.chains[self._server]
            chains = [end for _ in self.chains]
            if mine.now >= end.now:
                chains[self._server] = mine
            self.front = self.front._replace(chains=chains)
            self._count(upload)
            return
        # Every worker gets its turn, and uploads then or as soon as it is there.
        turn, sent = self._message(_size(first), link=SERVER_LINK), self._message(_size(upload))
        worker, server = self._level(self._others), self.chains[self._server].then(turn)
        others = len(layout.rounds) // 2
        end = (server if server.now >= worker.now else worker).then(sent + _times(others - 1, turn + sent))
        self.front = Front([end for _ in self.chains], [role == self._server for role in range(len(self.chains))])
        clients = self.world.ranks[: self.world.workers][self.world.ranks[: self.world.workers] != self.world.server]
        served = np.full(others, self.world.server)
        self._count_messages(served, clients, np.broadcast_to(_size(first), (others, 3)))
        self._count_messages(clients, served, np.broadcast_to(_size(upload), (others, 3)))

    def from_server(self, layout: CollectiveLayout, _: Groups) -> None:
        """The server sends to all workers at once, through its one link."""
        (round_,) = layout.rounds
        end = self._ahead(self._server).then(self._message(_size(round_), len(round_.which), SERVER_LINK))
        self.front = Front([end for _ in self.chains], [True for _ in self.chains])
        self._count(round_)

    # What all of them need.

    def _message(self, size: tuple[int, int, int], shared_by: int = 1, link: str = WORKER_LINKS) -> Counter[str]:
        """Return the time that a message spends on latency and on a link, which `shared_by` equal messages share."""
        return Counter({"latency": self.star.latency_ps, link: self.star.drains(size, shared_by)})

    def _level(self, roles: Sequence[int] | None = None) -> EventChain:
        """Return the chain of ranks in some roles; raise NoScheduleError if they are not in step."""
        roles = [role for role in range(len(self.chains)) if self._trains(role)] if roles is None else roles
        if len({self.chains[role].now for role in roles}) > 1 or not all(self.front.sure[role] for role in roles):
            raise NoScheduleError("ranks are not in step")
        return self.chains[roles[0]]

    def _latest(self) -> EventChain:
        """Return the chain at whose end some workers are, and beyond which none is; raise NoScheduleError without."""
        chains = [chain for role, chain in enumerate(self.chains) if self._trains(role)]
        if self.front.apart is None or len({chain.now for chain in chains}) > 1:
            return self._level()
        return chains[0]

    def _apart(self, large: int, difference_ps: int) -> tuple[int, Apart | None]:
        """Return how ranks are apart after a ring all-reduce whose first `large` chunks take the longest.

        The hop of another chunk is shorter by a `difference_ps`. The last rank may end before 2(P-1) of the longest
        hops, because links carried less on its path: how many picoseconds before is returned, too.
        """
        everyone = np.ones(self.world.workers, np.bool_)
        last, begin = self.front.apart or Apart(everyone, 0 * self.world.ranks[: self.world.workers])
        if begin is not None:
            earlier = after_ring(begin, large, difference_ps)
            if (unspent := int(earlier.min())) and self._concurrent:
                raise NoScheduleError("ranks are not in step")  # a path may lead through computations instead
            earlier -= unspent
            return unspent, Apart(earlier == 0, earlier) if earlier.any() else None
        # Others begin no later than a picosecond before the last ones. They may be last in the end, too.
        last = after_ring(1 - last.astype(np.int64), large, difference_ps) == 0
        if not last.any():
            raise NoScheduleError("ranks are not in step")
        return 0, Apart(last)

    def _ahead(self, role: int) -> EventChain:
        """Return the chain of a representative; raise NoScheduleError if another rank is ahead of it."""
        chain = self.chains[role]
        if not self.front.sure[role] or any(other.now > chain.now for other in self.chains):
            raise NoScheduleError("ranks are not in step")
        return chain

    def _trains(self, role: int) -> bool:
        return self.world.representatives[role] < self.world.workers

    def _everybody(self, spent: Counter[str], apart: Apart | None = None, begin: EventChain | None = None) -> None:
        """Advance all workers by `spent` from a `begin`, where they are in step, and put them `apart`."""
        end = (self._level() if begin is None else begin).then(spent)
        trains = [self._trains(role) for role in range(len(self.chains))]
        chains = [end if trained else chain for trained, chain in zip(trains, self.chains, strict=True)]
        sure = [apart is None if trained else before for trained, before in zip(trains, self.front.sure, strict=True)]
        self.front = Front(chains, sure, apart)
        self.uneven |= apart is not None

    def _count_all(self, layout: CollectiveLayout) -> None:
        for round_ in layout.rounds:
            self._count(round_)

    def _count(self, round_: SizedRound, times: int = 1) -> None:
        """Count the bytes of `times` rounds like this one."""
        self._count_messages(round_.pairs.src, round_.pairs.dst, times * round_.sizes[round_.which])

    def _count_messages(self, src: IntArray, dst: IntArray, sizes: IntArray) -> None:
        for column in np.flatnonzero(sizes.any(0)).tolist():
            np.add.at(self.sent[:, column], src, sizes[:, column])
            np.add.at(self.received[:, column], dst, sizes[:, column])


def after_ring(earlier: IntArray, large: int, difference_ps: int) -> IntArray:
    """Return by how much each rank ends a ring all-reduce before 2(P-1) of the longest hops after the last begin.

    Let a path lead back from rank r through the ring. At each hop it stays at a rank, whose own message delayed it, or
    moves to the rank before. It begins with chunk v = r + 1 by moves, and each time that it stays at a rank, it leads
    through chunk v + 1, and goes on with that. After x of 2(P-1) hops at which it stayed, it is at rank v + 1 + x. It
    has as many long hops as possible if it moves through a long chunk only, if it can. The latest path counts.

    Parameters
    ----------
    earlier
        The picoseconds by which each rank begins before the last one (P,).
    large
        The number of chunks that take the longest, which are the first ones of P chunks; between 1 and P - 1.
    difference_ps
        The picoseconds by which a hop of any other chunk is shorter.
    """
    workers = len(earlier)
    chunk = np.arange(workers)
    small = np.cumsum(np.arange(2 * workers) % workers >= large) * difference_ps
    begin = -np.roll(earlier, -1)  # of ranks 1 to P
    both = np.concatenate([begin, begin]) - small  # through each chunk from 0 to v + x once; all moves are long
    here, around = both[:workers], both[workers:]
    until_p = np.maximum.accumulate(here[::-1])[::-1]
    from_p = np.maximum.accumulate(np.concatenate([until_p[-1:], around[:-1]]))
    all_short = np.maximum.accumulate(begin[::-1])[::-1] - (2 * workers - 2) * difference_ps
    through_large = np.maximum(until_p, from_p)
    through_small = np.maximum(all_short, small[:workers] + around.max())
    late = np.where(chunk < large, through_large, through_small)
    return -np.roll(late, -1)  # chunk v arrives at rank v - 1


def _minus(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] - right[0], left[1] - right[1], left[2] - right[2]


Groups: TypeAlias = Sequence[Sequence[Sequence[int]]] | None
"""The levels of a tree that has several groups."""


def _arguments(call: Collective[Any]) -> dict[str, Any]:
    """Return the arguments of a collective by name."""
    bound = inspect.signature(call.function).bind(call.worker, *call.args, **call.kwargs)
    bound.apply_defaults()
    return bound.arguments


def _groups(call: Collective[Any]) -> Groups:
    levels: Groups = _arguments(call).get("levels")
    return levels if levels is not None and len(levels[0]) > 1 else None


def _check_in_step(levels: Sequence[Sequence[Sequence[int]]]) -> None:
    """Raise NoScheduleError where some groups of a level are done before others."""
    for level in levels:
        sizes = {len(group) for group in level}
        if len(sizes) > 1:
            raise NoScheduleError(f"groups have different sizes, such as {min(sizes)} and {max(sizes)}")
        if (size := sizes.pop()) & (size - 1):
            raise NoScheduleError(f"a group of {size} workers is no power of two")


def _size(round_: SizedRound) -> tuple[int, int, int]:
    """Return the size of the messages of a round in which all have the same."""
    values, indices, flags = round_.sizes[round_.which[0]].tolist()
    return values, indices, flags


def _times(count: int, spent: Counter[str]) -> Counter[str]:
    return Counter({what: count * picoseconds for what, picoseconds in spent.items()})


RING_ALL_REDUCE = getattr(ring_all_reduce, "__wrapped__", None)
FORMULAS: dict[Any, Callable[[Formulas, CollectiveLayout, Groups], None]] = {
    getattr(collective, "__wrapped__", None): formula
    for collective, formula in (
        (ring_all_gather, Formulas.all_gather),
        (bruck_all_gather, Formulas.all_gather),
        (all_to_all, Formulas.all_to_all),
        (swap, Formulas.all_to_all),
        (tree_reduce, Formulas.up),
        (tree_broadcast, Formulas.down),
        (gather, Formulas.to_server),
        (scatter, Formulas.from_server),
        (broadcast_from_server, Formulas.from_server),
    )
}
