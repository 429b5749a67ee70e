"""Lays the schedule of a collective out for all ranks at once, where sizes are all there is to know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from netsim._util.arrays import IntArray, repeats
from netsim.comm.payload import Payload
from netsim.comm.schedule import LazyRounds, Pairs, Repeated, Round, Schedule, schedule_at, size_of
from netsim.comm.worker import Collective, Compute, Worker, evaluate

T = TypeVar("T")
PerRole: TypeAlias = Sequence[T]
"""One T for each of a world's representatives, in their order."""


class NoScheduleError(Exception):
    """The ranks cannot be taken all at once; the text says why."""


class PostCompute(NamedTuple):
    """What follows the messages of a round: rank ``at[i]`` makes the layout's computations ``requests[pick[i]]``."""

    at: IntArray
    pick: IntArray


class SizedRound(NamedTuple):
    """A round of messages whose sizes alone are known.

    Message i has ``sizes[which[i]]`` bytes: of values, of indices and of flags (:func:`size_of`). A rank that
    receives several waits for them in this order, and may then compute.
    """

    pairs: Pairs
    sizes: IntArray
    which: IntArray
    then: PostCompute | None = None


class SizedRounds(Sequence[SizedRound]):
    """The rounds of a schedule, each sized when it is looked at; `kinds` holds the kind of size of each slot.

    A ring among P ranks has P-1 rounds of P messages: all at once, they would not fit into memory for large P.
    """

    def __init__(
        self, rounds: Sequence[Round], size: Callable[[int, Round], SizedRound], kinds: IntArray | None = None
    ) -> None:
        self._rounds, self._size, self._kinds = rounds, size, kinds

    def __len__(self) -> int:
        return len(self._rounds)

    def __getitem__(self, index: Any) -> Any:
        return self._size(index, self._rounds[index])

    @property
    def in_turn(self) -> bool:
        """Whether the messages of a round have one size, and every rank sends and receives one of them."""
        return isinstance(self._rounds, LazyRounds) and self._rounds.in_turn and self._kinds is not None

    def by_size(self) -> list[tuple[SizedRound, int]]:
        """Return a round of each size, and how many rounds have it; of rounds that are not in turn, each round."""
        if not self.in_turn:
            return [(round_, 1) for round_ in self]
        assert self._kinds is not None
        firsts, counts = np.unique(self._kinds[1:], return_index=True, return_counts=True)[1:]
        return [(self[first], count) for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)]

    @property
    def messages(self) -> int:
        """The number of messages of all rounds, for which no round is sized."""
        if isinstance(self._rounds, LazyRounds):
            return self._rounds.messages
        return sum(len(round_.pairs.src) for round_ in self._rounds)


class CollectiveLayout(NamedTuple):
    """The rounds of a collective for all ranks, and the `answers` that the representatives get.

    `requests` holds lists of computations, to which rounds refer; a rank makes the computations of a list in order.
    `uneven` is true if ranks of one role make different numbers of computations. `ahead` is that of the schedule.
    """

    rounds: SizedRounds
    answers: PerRole[Any]
    requests: Sequence[Sequence[Compute[Any]]] = ()
    uneven: bool = False
    ahead: int = 0


class RoleMap:
    """All ranks and their representatives: rank 0, the server, and the last worker, which represents all other ranks.

    `role` holds for each rank the index of its representative in `representatives`.
    """

    def __init__(self, workers: int, server: int = 0) -> None:
        self.workers, self.server = workers, server
        self.size = max(workers, server + 1)
        self.ranks: IntArray = np.arange(self.size)
        self.representatives = tuple(dict.fromkeys((0, workers - 1, server)))
        self.role: IntArray = np.full(self.size, self.representatives.index(workers - 1))
        for role, rank in enumerate(self.representatives):
            self.role[rank] = role

    def common_payload(self, payloads: PerRole[Payload | None]) -> Payload:
        """Return the first payload that is not None; raise NoScheduleError if the payloads differ in size."""
        present = [payload for payload in payloads if payload is not None]
        if len({(kind_of(payload), *size_of(payload)) for payload in present}) > 1:
            raise NoScheduleError("payloads of different sizes are combined")
        return present[0]


def kind_of(payload: Payload) -> tuple[Any, ...]:
    """Return the type and size of a payload, which distinguish payloads with the same number of bytes."""
    return type(payload).__name__, getattr(payload, "size", None)


def lay_out(world: RoleMap, calls: PerRole[Collective[Any]]) -> CollectiveLayout:
    """Return all that a collective does which every representative calls."""
    # A schedule may depend on the rank, which a representative does not tell. It is made for a plain worker instead.
    schedules = [
        schedule_at(Worker(rank, world.workers, world.server), call)
        for rank, call in zip(world.representatives, calls, strict=True)
    ]
    held = _held(world, schedules)
    sizes, which = _kinds(held)
    merges = _merges(schedules[0], held, which)
    # One array for each size, which is the same object in all rounds: PairRoutes.durations caches by identity.
    alone = [sizes[place : place + 1] for place in range(len(sizes))]

    def size(index: int, round_: Round) -> SizedRound:
        pairs = round_.pairs
        if round_.signal is not None:
            return SizedRound(pairs, np.array([size_of(round_.signal)]), np.zeros(len(pairs.src), np.int64))
        if len(sizes) == 1:
            kind = np.zeros(len(pairs.src), np.int64)
            of_a_round = sizes if round_.bundled is None else round_.bundled * sizes
        elif round_.bundled is None:
            kind, of_a_round = which[round_.slot(pairs.src, pairs.dst)], sizes
            if len(kind) and (kind == kind[0]).all() and merges is None:
                kind, of_a_round = np.zeros(len(kind), np.int64), alone[kind[0]]
        else:
            raise NoScheduleError("payloads of different sizes are bundled")
        then = None
        if merges is not None:
            then = PostCompute(pairs.dst, kind if merges.picks is None else np.full(len(kind), merges.picks[index]))
        return SizedRound(pairs, of_a_round, kind, then)

    rounds, ahead = SizedRounds(schedules[0].rounds, size, which), schedules[0].ahead
    if merges is None or merges.picks is None:
        answers = [schedule.answer(held) for schedule in schedules]
        return CollectiveLayout(rounds, answers, [] if merges is None else merges.requests, ahead=ahead)
    answers = [schedule.answer([merges.result if role == 0 else None]) for role, schedule in enumerate(schedules)]
    return CollectiveLayout(rounds, answers, merges.requests, uneven=True, ahead=ahead)


def _held(world: RoleMap, schedules: PerRole[Schedule[Any]]) -> Sequence[Any]:
    """Return for each slot the payload of its holder at the start."""
    first = schedules[0]
    if isinstance(first.holder, int):
        held = schedules[world.representatives.index(first.holder)].held
        if first.alike and len({repr(payload) for payload in _distinct(held)}) > 1:
            raise NoScheduleError("the server does not tell all workers the same")
        return held
    if first.alike:
        # Algorithms are not trusted to send equal sizes at all ranks: a difference is noticed here.
        kinds = [
            {(kind_of(payload), size_of(payload)) for payload in _distinct(schedule.held)} for schedule in schedules
        ]
        if any(other != kinds[0] for other in kinds):
            raise NoScheduleError("payloads of different sizes are combined")
        return first.held
    roles = np.repeat(world.role[: world.workers], len(first.held) // world.workers)
    return [schedules[role].held[slot] for slot, role in enumerate(roles.tolist())]


def _distinct(held: Sequence[Any]) -> list[Any]:
    """Return every payload object once."""
    return [held.payload] if isinstance(held, Repeated) else list({id(payload): payload for payload in held}.values())


def _kinds(held: Sequence[Any]) -> tuple[IntArray, IntArray]:
    """Return the different sizes of payloads, and for each slot the index of its payload's size."""
    if isinstance(held, Repeated):
        return np.array([size_of(held.payload)]), np.zeros(len(held), np.int64)
    kinds: dict[tuple[int, int, int], int] = {}
    # By identity, because 65,536 slots often hold one and the same object.
    of_object = {id(payload): kinds.setdefault(size_of(payload), len(kinds)) for payload in _distinct(held)}
    which = np.array([of_object[id(payload)] for payload in held])
    return np.array(list(kinds)), which


class _Merges(NamedTuple):
    """The computations after rounds: ``requests[picks[i]]`` after round i.

    Without `picks`, ``requests[j]`` are the computations after receiving a payload of size j.
    """

    requests: Sequence[Sequence[Compute[Any]]]
    picks: Sequence[int] | None
    result: Any


def _merges(schedule: Schedule[Any], held: Sequence[Any], which: IntArray) -> _Merges | None:
    """Return the computations by which a schedule combines payloads; None if it combines none.

    Rank 0 represents all ranks that combine, and combines as often as it receives.
    """
    combine = schedule.combine
    if combine is None or not len(schedule.rounds):
        return None
    result = payload = held[0]
    work: Any = combine(payload, payload)
    if isinstance(work, Compute):
        # Each rank merges payloads of one slot, so one merge of each size tells the charge of all merges of this size.
        different = [held[slot] for slot in np.unique(which, return_index=True)[1].tolist()]
        return _Merges([[combine(operand, operand)] for operand in different], None, payload)  # type: ignore[list-item]
    requests: list[Sequence[Compute[Any]]] = []
    picks = []
    for round_ in schedule.rounds:
        # Rank 0 is asked for one merge a round below. Of several, each would begin with the result of the one before.
        if repeats(round_.pairs.dst):
            raise NoScheduleError("a rank combines several payloads of a round")
        receives = 0 in round_.pairs.dst
        if receives or not requests:  # before its first merge, rank 0 tells what others are charged for theirs
            computations, merged = run_computations(combine(result, payload) if requests else work)
            # Messages are sized from the payloads at the start, which must therefore hold for later rounds as well.
            if receives and (kind_of(merged), size_of(merged)) != (kind_of(result), size_of(result)):
                raise NoScheduleError("what is combined over a tree changes its size")
            result = merged if receives else result
            requests.append(computations)
        picks.append(len(requests) - 1)
    return _Merges(requests, picks, result)


def run_computations(work: Awaitable[T]) -> tuple[list[Compute[Any]], T]:
    """Run a coroutine to its end; return the computations that it requests, and its result.

    Raises
    ------
    NoScheduleError
        If it requests anything else.
    """
    requests: list[Compute[Any]] = []
    steps = work.__await__()
    answer: Any = None
    try:
        while True:
            request = steps.send(answer)
            if not isinstance(request, Compute):
                raise NoScheduleError("messages are exchanged while payloads are combined")
            requests.append(request)
            answer = evaluate(request)
    except StopIteration as stop:
        return requests, stop.value
