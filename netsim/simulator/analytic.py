"""Times by the formulas of the literature: an idle star whose links are all alike, and ranks in step.

α is the latency of a message, β the time of a byte. A collective takes its representatives from where they stand
to where the formula says, without looking at any message:

==========================  ==================================================================
ring reduce-scatter         (P-1)(α + ⌈d/P⌉β), then as long again for the all-gather of chunks
ring all-gather             (P-1)(α + mβ)
Bruck's all-gather          ⌈log₂P⌉ α + (P-1) m β
binomial tree               log₂P (α + mβ) up, and down
parameter server            α + n m β from n workers, and to them; n (2α + (1 + m)β) if serial
==========================  ==================================================================

(gTop-k paper, table of costs; Thakur, Rabenseifner and Gropp, 2005.) Where P is no power of two, a rank without a
partner on the way up a tree sends early, and shares its target's link: :meth:`Formulas.head` says what that gives.
Where a formula does not hold, NoScheduleError says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.units import HORIZON_PS, beyond_horizon
from netsim.comm.collectives import (
    broadcast_from_server,
    bruck_all_gather,
    gather,
    ring_all_gather,
    ring_all_reduce,
    scatter,
    tree_broadcast,
    tree_reduce,
)
from netsim.comm.payload import Bundle, Flag, Payload, SizeOnly, add, concatenate
from netsim.comm.schedule import Combine, size_of, written
from netsim.comm.worker import Collective, Compute
from netsim.network.flow import time_alone
from netsim.simulator.layout import NoScheduleError, PerRole, RoleMap, asked, called, kind_of
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.simulator.vectorized_sharing import drain
from netsim.training.costs import Costs

WORKER_LINKS, SERVER_LINK = "worker links", "server link"


class Star(NamedTuple):
    """An idle star: α in picoseconds, and what all links carry in bit/s."""

    latency_ps: int
    bandwidth_bps: int

    def drains(self, size: tuple[int, int, int], flows: int = 1) -> int:
        """Return how long a message drains that shares a link with others like it."""
        return time_alone(8 * sum(size) * flows, self.bandwidth_bps)


class EventChain(NamedTuple):
    """An instant, and the time spent on each thing on the way to it."""

    now: int
    spent: Counter[str]

    def then(self, spent: Counter[str]) -> EventChain:
        """Return the chain, longer by what is spent."""
        now = self.now + spent.total()
        if now >= HORIZON_PS:
            raise beyond_horizon()
        return EventChain(now, self.spent + spent)


START = EventChain(0, Counter())


class Formulas(SymmetryRecorder):
    """Takes the representatives through a run, and keeps account of their instants and of everybody's bytes.

    `chains` are those of the representatives. Where the ranks that one stands for may be earlier than its chain says,
    it is not `sure`; `somebody` says that there is one at the end of every chain all the same.
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
        """The last instant of all, and the way to it."""
        chain, sure = max(zip(self.chains, self.sure, strict=True), key=lambda each: (each[0].now, each[1]))
        if not (sure or self.somebody):
            raise NoScheduleError("who ends last is not known")
        return chain

    def knows(self, call: Collective[Any]) -> bool:
        return written(call) in FORMULAS

    def step_ended(self) -> None:
        """Steps follow each other; nothing is to be done."""

    def compute(self, charges: tuple[Counter[str], ...]) -> None:
        self.chains = [chain.then(charge) for chain, charge in zip(self.chains, charges, strict=True)]

    def exchange(self, calls: PerRole[Collective[Any]]) -> PerRole[Any]:
        answers: PerRole[Any] = called(FORMULAS[written(calls[0])], calls, self)
        return answers

    # Around a ring.

    def ring_all_reduce(self, vector: PerRole[Any]) -> PerRole[Any]:
        """A chunk of ⌈d/P⌉ elements goes around twice, and nothing overtakes it."""
        workers, whole = self.world.workers, self.world.alike(vector)
        assert isinstance(whole, SizeOnly)
        if workers == 1:
            return vector
        chunks = np.full(workers, whole.size // workers)
        chunks[: whole.size % workers] += 1
        largest = SizeOnly(int(chunks[0]))
        hop = self._message(size_of(largest))
        adding = self.charge([Compute("merge", add, (largest, largest))])
        self._everybody(_times(workers - 1, hop + adding + hop), level=whole.size % workers == 0)
        values = 4 * (2 * whole.size - chunks)
        ranks = np.arange(workers)
        self.sent[:workers, 0] += values - 4 * chunks[(ranks + 1) % workers]
        self.received[:workers, 0] += values - 4 * chunks[ranks - 1]
        self.compute(tuple(self.charge([Compute("merge", concatenate, (whole,))]) for _ in self.chains))
        return vector

    def ring_all_gather(self, own: PerRole[Payload], templates: PerRole[Any] | None = None) -> PerRole[Any]:
        workers, payload = self.world.workers, self.world.alike(own)
        if templates is not None and templates[0] is not None:
            raise NoScheduleError("vectors of different sizes are gathered")
        self._everybody(_times(workers - 1, self._message(size_of(payload))))
        self._count(self.sent, workers - 1, payload)
        self._count(self.received, workers - 1, payload)
        return self.world.everywhere([payload] * workers)

    def bruck_all_gather(self, own: PerRole[Any]) -> PerRole[Any]:
        workers, payload = self.world.workers, self.world.alike(own)
        held = 1
        while held < workers:
            sent = min(held, workers - held)
            self._everybody(self._message(size_of(Bundle((payload,) * sent))))  # type: ignore[arg-type]
            held += sent
        self._count(self.sent, workers - 1, payload)
        self._count(self.received, workers - 1, payload)
        return self.world.everywhere([payload] * workers)

    # Over a tree.

    def tree_reduce(
        self, own: PerRole[Payload], combine: PerRole[Combine[Payload]], levels: PerRole[Any] | None = None
    ) -> PerRole[Any]:
        workers = self.world.workers
        if levels is not None and levels[0] is not None and len(levels[0][0]) > 1:
            rounds = self._rounds_of(levels[0])
            charges, result = self._absorbing(sum(rounds), own, combine)
            self._up(START.then(_times(sum(rounds), self._message(size_of(own[0]))) + sum(charges, Counter())))
            self._count_levels(levels[0], own[0], up=True)
            return self.world.only_at(0, result)
        charges, result = self._absorbing((workers - 1).bit_length(), own, combine)
        self._up(self.head(workers, size_of(own[0]), charges))
        self._count_tree(workers, own[0], up=True)
        return self.world.only_at(0, result)

    def tree_broadcast(
        self, own: PerRole[Payload | None], template: PerRole[Payload], levels: PerRole[Any] | None = None
    ) -> PerRole[Any]:
        workers, payload = self.world.workers, self.world.alike(own)
        if levels is not None and levels[0] is not None and len(levels[0][0]) > 1:
            self._down(sum(self._rounds_of(levels[0])), size_of(payload), level=True)
            self._count_levels(levels[0], payload, up=False)
            return self.world.everywhere(payload)
        self._down((workers - 1).bit_length(), size_of(payload), level=workers & (workers - 1) == 0)
        self._count_tree(workers, payload, up=False)
        return self.world.everywhere(payload)

    def head(self, ranks: int, size: tuple[int, int, int], charges: Sequence[Counter[str]]) -> EventChain:
        """Return when the first of so many ranks has absorbed all others, if they begin at 0.

        It absorbs whole trees of 1, 2, 4 … ranks, each ready one round after the one before. If a smaller one is left,
        with fewer than its 2^b ranks, that is ready early, and shares the first rank's link with those that come then.
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

    def _absorbing(
        self, times: int, own: PerRole[Payload], combine: PerRole[Combine[Payload]]
    ) -> tuple[list[Counter[str]], Payload]:
        """Return what rank 0 is charged for each combination, and the result."""
        payload = result = self.world.alike(own)
        charges = []
        for _ in range(times):
            requests, result = asked(combine[0](result, payload))
            charges.append(self.charge(requests))
            if (kind_of(result), size_of(result)) != (kind_of(payload), size_of(payload)):
                raise NoScheduleError("what is combined over a tree changes its size")
        self.uneven = True
        return charges, result

    def _up(self, head: EventChain) -> None:
        """Put rank 0 at the end of a reduction; the others are earlier."""
        start = self._level()
        if self.world.workers > 1:
            self.chains = [start.then(head.spent) for _ in self.chains]
            self.sure = [rank == 0 for rank in self.world.representatives]

    def _down(self, rounds: int, size: tuple[int, int, int], level: bool) -> None:
        start = self._ahead(0)
        end = start.then(_times(rounds, self._message(size)))
        self.chains = [end for _ in self.chains]
        self.sure = [level or rank == 0 for rank in self.world.representatives]

    def _rounds_of(self, levels: Sequence[Sequence[Sequence[int]]]) -> list[int]:
        """Return the rounds of each level of trees."""
        found = []
        for level in levels:
            sizes = {len(group) for group in level}
            if len(sizes) > 1:
                raise NoScheduleError(f"groups have different sizes, such as {min(sizes)} and {max(sizes)}")
            found.append((self._power_of_two(sizes.pop(), "a group of ") - 1).bit_length())
        return found

    # To and from a server.

    def gather(
        self, own: PerRole[Any], template: PerRole[Payload], serial: PerRole[bool] | None = None
    ) -> PerRole[Any]:
        world = self.world
        others = world.workers - (world.server < world.workers)
        everyones = [own[role] for role in world.role[: world.workers].tolist()]
        answers = world.only_at(world.server, everyones)
        if not others:
            return answers
        payload = own[world.representatives.index(world.workers - 1)]
        if any(size_of(own[role]) != size_of(payload) for role in self._others):
            raise NoScheduleError("workers upload different sizes")
        if serial is not None and serial[0]:
            self._serially(others, size_of(payload))
        else:
            self._to_server(others, size_of(payload))
        turn = size_of(Flag(True)) if serial is not None and serial[0] else (0, 0, 0)
        self._count_server(payload, turn, up=True)
        return answers

    def scatter(self, payloads: PerRole[Any], template: PerRole[Payload]) -> PerRole[Any]:
        everyones = payloads[self._server]
        if len({(repr(payload), size_of(payload)) for payload in everyones}) > 1:
            raise NoScheduleError("the server does not tell all workers the same")
        self._from_server(everyones[0])
        return [everyones[rank] if rank < self.world.workers else None for rank in self.world.representatives]

    def broadcast_from_server(self, own: PerRole[Any], template: PerRole[Payload]) -> PerRole[Any]:
        self._from_server(own[self._server])
        return self.world.everywhere(own[self._server])

    def _to_server(self, others: int, size: tuple[int, int, int]) -> None:
        start = self._level(self._others)
        end = start.then(self._message(size, others, SERVER_LINK if others > 1 else WORKER_LINKS))
        mine = self.chains[self._server]
        self.chains = [end for _ in self.chains]
        if mine.now >= end.now:
            self.chains[self._server] = mine

    def _serially(self, others: int, size: tuple[int, int, int]) -> None:
        """Every worker gets its turn, and uploads then or as soon as it is there."""
        turn, upload = self._message(size_of(Flag(True)), link=SERVER_LINK), self._message(size)
        worker, server = self._level(self._others), self.chains[self._server].then(turn)
        first = server if server.now >= worker.now else worker
        end = first.then(upload + _times(others - 1, turn + upload))
        self.chains = [end for _ in self.chains]
        self.sure = [role == self._server for role in range(len(self.chains))]

    def _from_server(self, payload: Payload) -> None:
        world = self.world
        others = world.workers - (world.server < world.workers)
        if not others:
            return
        start = self._ahead(self._server)
        end = start.then(self._message(size_of(payload), others, SERVER_LINK))
        self.chains, self.sure = [end for _ in self.chains], [True for _ in self.chains]
        self._count_server(payload, (0, 0, 0), up=False)

    # What all of them need.

    def _message(self, size: tuple[int, int, int], shared_by: int = 1, link: str = WORKER_LINKS) -> Counter[str]:
        """Return what a message spends, one of so many on a link."""
        return Counter({"latency": self.star.latency_ps, link: self.star.drains(size, shared_by)})

    def _level(self, roles: Sequence[int] | None = None) -> EventChain:
        """Return where all ranks of some roles are; raise NoScheduleError where they are apart."""
        roles = [role for role in range(len(self.chains)) if self._trains(role)] if roles is None else roles
        if len({self.chains[role].now for role in roles}) > 1 or not all(self.sure[role] for role in roles):
            raise NoScheduleError("ranks are not in step")
        return self.chains[roles[0]]

    def _ahead(self, role: int) -> EventChain:
        """Return where a representative is whom no other rank is ahead of."""
        chain = self.chains[role]
        if not self.sure[role] or any(other.now > chain.now for other in self.chains):
            raise NoScheduleError("ranks are not in step")
        return chain

    def _trains(self, role: int) -> bool:
        return self.world.representatives[role] < self.world.workers

    def _everybody(self, spent: Counter[str], level: bool = True) -> None:
        """Let all workers, in step, spend the same, or at most that."""
        end = self._level().then(spent)
        self.chains = [end if self._trains(role) else chain for role, chain in enumerate(self.chains)]
        if not level:
            self.sure, self.somebody, self.uneven = [False for _ in self.chains], True, True

    def _power_of_two(self, number: int, what: str = "") -> int:
        if number & (number - 1):
            raise NoScheduleError(f"{what}{number} workers are no power of two")
        return number

    def _count(self, column: IntArray, times: int | IntArray, payload: Payload) -> None:
        column[: self.world.workers] += np.multiply.outer(np.broadcast_to(times, self.world.workers), size_of(payload))

    def _count_tree(self, workers: int, payload: Payload, up: bool) -> None:
        absorbed, distance = np.zeros(workers, np.int64), 1
        while distance < workers:
            absorbed[: workers - distance : 2 * distance] += 1
            distance *= 2
        self._count(self.received if up else self.sent, absorbed, payload)
        self._count(self.sent if up else self.received, (np.arange(workers) > 0).astype(np.int64), payload)

    def _count_levels(self, levels: Sequence[Sequence[Sequence[int]]], payload: Payload, up: bool) -> None:
        absorbed, absorbs = np.zeros(self.world.workers, np.int64), np.zeros(self.world.workers, np.int64)
        for group in (np.asarray(group) for level in levels for group in level):
            absorbed[group[1:]] += 1
            distance = 1
            while distance < len(group):
                absorbs[group[: len(group) - distance : 2 * distance]] += 1
                distance *= 2
        self._count(self.received if up else self.sent, absorbs, payload)
        self._count(self.sent if up else self.received, absorbed, payload)

    def _count_server(self, payload: Payload, turn: tuple[int, int, int], up: bool) -> None:
        server = self.world.server
        others = slice(0 if server else 1, self.world.workers)  # it is rank 0, or the one after the last worker
        count = self.world.workers - int(server < self.world.workers)
        sending, taking = (self.sent, self.received) if up else (self.received, self.sent)
        sending[others] += size_of(payload)
        taking[server] += count * np.array(size_of(payload))
        taking[others] += turn
        sending[server] += count * np.array(turn)


def _times(count: int, spent: Counter[str]) -> Counter[str]:
    return Counter({what: count * picoseconds for what, picoseconds in spent.items()})


FORMULAS: dict[Any, Callable[..., PerRole[Any]]] = {
    getattr(collective, "__wrapped__", None): formula
    for collective, formula in (
        (ring_all_reduce, Formulas.ring_all_reduce),
        (ring_all_gather, Formulas.ring_all_gather),
        (bruck_all_gather, Formulas.bruck_all_gather),
        (tree_reduce, Formulas.tree_reduce),
        (tree_broadcast, Formulas.tree_broadcast),
        (gather, Formulas.gather),
        (scatter, Formulas.scatter),
        (broadcast_from_server, Formulas.broadcast_from_server),
    )
}
