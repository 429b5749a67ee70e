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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.units import HORIZON_PS, beyond_horizon
from netsim.comm.collectives import (
    Pipeline,
    broadcast_from_server,
    bruck_all_gather,
    gather,
    ring_all_gather,
    ring_all_reduce,
    scatter,
    tree_broadcast,
    tree_reduce,
)
from netsim.comm.collectives.pipeline import addition
from netsim.comm.payload import SizeOnly, concatenate, nbytes, split
from netsim.comm.schedule import size_of, written
from netsim.comm.worker import Collective, Compute
from netsim.network.flow import time_alone
from netsim.simulator.layout import CollectiveLayout, NoScheduleError, PerRole, RoleMap, SizedRound, lay_out
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.simulator.vectorized_sharing import drain
from netsim.training.costs import Costs

WORKER_LINKS, SERVER_LINK = "worker links", "server link"


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


class Formulas(SymmetryRecorder):
    """Advances the representatives by formulas, and counts the bytes of all ranks.

    `chains` are the critical paths of the representatives. A representative is not `sure` if ranks that it
    represents may be earlier than its chain says; `somebody` says that at least one rank is at the end of every chain.
    """

    def __init__(self, world: RoleMap, costs: Costs, star: Star) -> None:
        super().__init__(world, costs)
        self.star = star
        self.chains = [START for _ in world.representatives]
        self.sure = [True] * len(self.chains)
        self.somebody = False
        self.sent: IntArray = np.zeros((world.size, 3), np.int64)
        self.received: IntArray = np.zeros((world.size, 3), np.int64)
        self._server = world.representatives.index(world.server)
        self._others = [role for role in range(len(self.chains)) if role != self._server]

    @property
    def last(self) -> EventChain:
        """The critical path to the last event of all ranks; its ``now`` is the instant of that event."""
        chain, sure = max(zip(self.chains, self.sure, strict=True), key=lambda each: (each[0].now, each[1]))
        if not (sure or self.somebody):
            raise NoScheduleError("who ends last is not known")
        return chain

    def knows(self, call: Collective[Any]) -> bool:
        """Return whether there is a formula for a collective."""
        return written(call) in FORMULAS or written(call) is RING_ALL_REDUCE

    def step_ended(self) -> None:
        """Do nothing: steps follow each other."""

    def compute(self, charges: tuple[Counter[str], ...]) -> None:
        """Advance each representative by the time that it computes."""
        self.chains = [chain.then(charge) for chain, charge in zip(self.chains, charges, strict=True)]

    def exchange(self, calls: PerRole[Collective[Any]]) -> PerRole[Any]:
        """Advance the representatives by a collective; return their answers."""
        if written(calls[0]) is RING_ALL_REDUCE:
            pipeline: Pipeline | None = _arguments(calls[0])["pipeline"]
            return self._ring_all_reduce([call.args[0] for call in calls], pipeline)
        layout = lay_out(self.world, calls)
        self.uneven |= layout.uneven
        if layout.rounds:
            FORMULAS[written(calls[0])](self, layout, _groups(calls[0]))
        return layout.answers

    def _ring_all_reduce(self, vector: PerRole[Any], pipeline: Pipeline | None) -> PerRole[Any]:
        """Advance all ranks by 2(P-1) hops of a chunk of ⌈d/P⌉ elements, which no smaller chunk overtakes."""
        workers, whole = self.world.workers, self.world.alike(vector)
        assert isinstance(whole, SizeOnly)
        if workers == 1:
            return vector
        chunks = np.full(workers, whole.size // workers)
        chunks[: whole.size % workers] += 1
        largest, even = SizeOnly(int(chunks[0])), whole.size % workers == 0
        slices = split(largest, 1 if pipeline is None else pipeline.slices(nbytes(largest)))
        combine = addition(self.workers[0], len(slices))
        adding = [self.charge([combine(each, each)]) for each in slices]  # type: ignore[list-item]
        if pipeline is None or len(slices) == 1:
            hop = self._message(size_of(largest))
            self._everybody(_times(workers - 1, hop + adding[0] + hop), level=even)
        elif not even:
            raise NoScheduleError("chunks of different sizes are forwarded in slices")
        else:
            ring = [size_of(each) for each in slices], workers - 1, pipeline.ahead(len(slices))
            self._everybody(self.pipelined(*ring, adding) + self.pipelined(*ring))
        values = 4 * (2 * whole.size - chunks)
        ranks = np.arange(workers)
        self.sent[:workers, 0] += values - 4 * chunks[(ranks + 1) % workers]
        self.received[:workers, 0] += values - 4 * chunks[ranks - 1]
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

        for draining, merge in [*zip(drains, combining, strict=True)] * steps:
            if len(under_way) > ahead:
                rank = finish()
            if sum(message) <= sum(rank) + latency:
                message = rank[0] + latency, *rank[1:]
            message = message[0], message[1] + draining, message[2]
            under_way.append((message, merge))
        while under_way:
            rank = finish()
        return +Counter({"latency": rank[0], WORKER_LINKS: rank[1], "merge": rank[2]})

    def up(self, layout: CollectiveLayout, groups: Groups) -> None:
        """Put rank 0 at the end of a reduction over a tree; the others are earlier."""
        size, charges = _size(layout.rounds[0]), [self.charge(request) for request in layout.requests]
        if groups is None:
            head = self.head(self.world.workers, size, charges)
        else:
            _check_in_step(groups)
            head = START.then(_times(len(layout.rounds), self._message(size)) + sum(charges, Counter()))
        start = self._level()
        self.chains = [start.then(head.spent) for _ in self.chains]
        self.sure = [rank == 0 for rank in self.world.representatives]
        self._count_all(layout)

    def down(self, layout: CollectiveLayout, groups: Groups) -> None:
        """Put all ranks at the end of a broadcast over a tree, where the last ones are."""
        if groups is not None:
            _check_in_step(groups)
        end = self._ahead(0).then(_times(len(layout.rounds), self._message(_size(layout.rounds[0]))))
        workers = self.world.workers
        level = groups is not None or workers & (workers - 1) == 0
        self.chains = [end for _ in self.chains]
        self.sure = [level or rank == 0 for rank in self.world.representatives]
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
            self.chains = [end for _ in self.chains]
            if mine.now >= end.now:
                self.chains[self._server] = mine
            self._count(upload)
            return
        # Every worker gets its turn, and uploads then or as soon as it is there.
        turn, sent = self._message(_size(first), link=SERVER_LINK), self._message(_size(upload))
        worker, server = self._level(self._others), self.chains[self._server].then(turn)
        others = len(layout.rounds) // 2
        end = (server if server.now >= worker.now else worker).then(sent + _times(others - 1, turn + sent))
        self.chains = [end for _ in self.chains]
        self.sure = [role == self._server for role in range(len(self.chains))]
        clients = self.world.ranks[: self.world.workers][self.world.ranks[: self.world.workers] != self.world.server]
        served = np.full(others, self.world.server)
        self._count_messages(served, clients, np.broadcast_to(_size(first), (others, 3)))
        self._count_messages(clients, served, np.broadcast_to(_size(upload), (others, 3)))

    def from_server(self, layout: CollectiveLayout, _: Groups) -> None:
        """The server sends to all workers at once, through its one link."""
        (round_,) = layout.rounds
        end = self._ahead(self._server).then(self._message(_size(round_), len(round_.which), SERVER_LINK))
        self.chains, self.sure = [end for _ in self.chains], [True for _ in self.chains]
        self._count(round_)

    # What all of them need.

    def _message(self, size: tuple[int, int, int], shared_by: int = 1, link: str = WORKER_LINKS) -> Counter[str]:
        """Return the time that a message spends on latency and on a link, which `shared_by` equal messages share."""
        return Counter({"latency": self.star.latency_ps, link: self.star.drains(size, shared_by)})

    def _level(self, roles: Sequence[int] | None = None) -> EventChain:
        """Return the chain of ranks in some roles; raise NoScheduleError if they are not in step."""
        roles = [role for role in range(len(self.chains)) if self._trains(role)] if roles is None else roles
        if len({self.chains[role].now for role in roles}) > 1 or not all(self.sure[role] for role in roles):
            raise NoScheduleError("ranks are not in step")
        return self.chains[roles[0]]

    def _ahead(self, role: int) -> EventChain:
        """Return the chain of a representative; raise NoScheduleError if another rank is ahead of it."""
        chain = self.chains[role]
        if not self.sure[role] or any(other.now > chain.now for other in self.chains):
            raise NoScheduleError("ranks are not in step")
        return chain

    def _trains(self, role: int) -> bool:
        return self.world.representatives[role] < self.world.workers

    def _everybody(self, spent: Counter[str], level: bool = True) -> None:
        """Advance all workers, which are in step, by `spent`; if not `level`, by `spent` at most, and out of step."""
        end = self._level().then(spent)
        self.chains = [end if self._trains(role) else chain for role, chain in enumerate(self.chains)]
        if not level:
            self.sure, self.somebody, self.uneven = [False for _ in self.chains], True, True

    def _count_all(self, layout: CollectiveLayout) -> None:
        for round_ in layout.rounds:
            self._count(round_)

    def _count(self, round_: SizedRound, times: int = 1) -> None:
        """Count the bytes of `times` rounds like this one."""
        self._count_messages(round_.pairs.src, round_.pairs.dst, times * round_.sizes[round_.which])

    def _count_messages(self, src: IntArray, dst: IntArray, sizes: IntArray) -> None:
        np.add.at(self.sent, src, sizes)
        np.add.at(self.received, dst, sizes)


Groups: TypeAlias = Sequence[Sequence[Sequence[int]]] | None
"""The levels of a tree that has several groups."""


def _arguments(call: Collective[Any]) -> dict[str, Any]:
    """Return the arguments of a collective by name."""
    bound = inspect.signature(written(call)).bind(call.worker, *call.args, **getattr(call.function, "keywords", {}))
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
        (tree_reduce, Formulas.up),
        (tree_broadcast, Formulas.down),
        (gather, Formulas.to_server),
        (scatter, Formulas.from_server),
        (broadcast_from_server, Formulas.from_server),
    )
}
