"""A collective as a schedule: the messages of each round, and what a receiver does with each message.

Every rank holds payloads in numbered *slots*: chunks of a vector, or one vector of each rank. A round copies slots
between pairs of ranks. A rank posts all its sends and receives of a round together, and continues when all are done. An
arriving payload replaces the payload in the receiver's slot of the same number, or is combined with it. A pipeline
continues earlier: it posts a number of rounds *ahead* of the round that must be done.

A collective is a function, marked :func:`scheduled`, that returns the :class:`Schedule` of one rank. :func:`play`
executes the schedule on that rank, with real payloads, on every backend. The vectorised engine reads the same rounds
for all ranks at once. A round therefore gives its slots as a function of sender and receiver, which also takes arrays.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, Literal, NamedTuple, NoReturn, ParamSpec, TypeAlias, TypeVar, cast

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.payload import Bundle, Payload, PayloadT
from netsim.comm.worker import Collective, Handle, Recv, Send, SendRecv, Start, Worker, collective

R = TypeVar("R")
P = ParamSpec("P")
Combine: TypeAlias = Callable[[PayloadT, PayloadT], Awaitable[PayloadT]]
"""Combine the payload in this rank's slot (left) with a received payload (right)."""
SlotOf: TypeAlias = Callable[[Any, Any], Any]
"""Return the slot of a message from its sender and receiver: a number, or an array for arrays of ranks.

A negative number counts from the last slot, as an index of a list does.
"""
Holder: TypeAlias = int | Literal["all", "each"]
"""The ranks that hold slots at the start: one rank or "all" ranks hold all slots; with "each", every rank holds as many
slots as any other, rank 0 the first of them.
"""


class Pairs:
    """The messages of a round: rank ``src[i]`` sends to rank ``dst[i]``. Rounds with equal pairs share one object."""

    def __init__(self, src: IntArray, dst: IntArray) -> None:
        self.src, self.dst = src, dst

    def of(self, rank: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return the ranks to which a rank sends, and the ranks from which it receives."""
        return self.by_rank.get(rank, ((), ()))

    @functools.cached_property
    def reversed(self) -> Pairs:
        """The messages from every receiver to its sender."""
        return Pairs(self.dst, self.src)

    @functools.cached_property
    def by_rank(self) -> dict[int, tuple[list[int], list[int]]]:
        """For each rank that takes part: the ranks to which it sends, and the ranks from which it receives."""
        peers: defaultdict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for src, dst in zip(self.src.tolist(), self.dst.tolist(), strict=True):
            peers[src][0].append(dst)
            peers[dst][1].append(src)
        return dict(peers)


RankPart: TypeAlias = "tuple[Round, list[int], list[int]]"
"""A rank's part of a round: the round, the ranks to which it sends, and the ranks from which it receives."""


def first_slot(src: Any, dst: Any) -> Any:
    """Return slot 0 for every message."""
    return 0 * src


class Round(NamedTuple):
    """Messages that are exchanged at once.

    A message carries the slot ``slot(src, dst)``. With `bundled`, a message carries that number of consecutive slots,
    from ``slot(src, dst)`` on and modulo the number of slots, as one bundle. A `signal` is a payload that fills no slot
    and only lets the receiver continue.
    """

    pairs: Pairs
    slot: SlotOf = first_slot
    bundled: int | None = None
    signal: Payload | None = None

    def message(self, held: Sequence[Any], src: int, dst: int) -> Payload:
        """Return the payload of a message from the slots `held`: the payload itself at `src`, a template at `dst`."""
        if self.signal is not None:
            return self.signal
        if self.bundled is None:
            return cast(Payload, held[self.slot(src, dst)])
        return Bundle(tuple(held[slot] for slot in self.slots(src, dst, len(held))))

    def slots(self, src: int, dst: int, count: int) -> Sequence[int]:
        """Return the slots that a message carries, out of `count` slots."""
        first = self.slot(src, dst)
        return (first,) if self.bundled is None else [(first + place) % count for place in range(self.bundled)]


class RoundsByRank(tuple[Round, ...]):
    """Rounds in which few ranks take part, such as those of a tree, indexed by rank."""

    @functools.cached_property
    def by_rank(self) -> dict[int, list[RankPart]]:
        """The part of each rank that takes part."""
        parts: defaultdict[int, list[RankPart]] = defaultdict(list)
        for round_ in self:
            for rank, peers in round_.pairs.by_rank.items():
                parts[rank].append((round_, *peers))
        return dict(parts)


class LazyRounds(Sequence[Round]):
    """`count` rounds; ``make(index)`` makes a round when it is first used.

    ``of(rank)`` returns the indices of the rounds in which a rank takes part, in ascending order; without it, every
    rank takes part in all. `pairs` are those of every round, if all have the same. With `in_turn`, all messages of
    round s carry slot s + 1.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int], Round],
        of: Callable[[int], Iterable[int]] | None = None,
        pairs: Pairs | None = None,
        in_turn: bool = False,
    ) -> None:
        self._count, self._make, self._of, self._pairs = count, functools.cache(make), of, pairs
        self.in_turn = in_turn

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._make(range(self._count)[index])

    def __iter__(self) -> Iterator[Round]:
        return map(self._make, range(self._count))

    def of(self, rank: int) -> Iterable[int]:
        """Return the indices of the rounds that a rank takes part in."""
        return range(self._count) if self._of is None else self._of(rank)

    @property
    def messages(self) -> int:
        """The number of messages of all rounds, which need not be made for it if all have the same pairs."""
        if self._pairs is not None:
            return self._count * len(self._pairs.src)
        return sum(len(round_.pairs.src) for round_ in self)

    def made(self, rank: int) -> Iterator[Round]:
        """Yield the rounds that a rank takes part in."""
        return map(self._make, self.of(rank))


class Repeated(MutableSequence[PayloadT]):
    """`count` slots that hold the same payload until a slot is replaced; only replaced slots take memory."""

    def __init__(self, payload: PayloadT, count: int) -> None:
        self.payload, self._count = payload, count
        self._replaced: dict[int, PayloadT] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._replaced.get(index % self._count, self.payload)

    def __setitem__(self, index: Any, payload: Any) -> None:
        self._replaced[index % self._count] = payload

    def __iter__(self) -> Iterator[PayloadT]:
        if not self._replaced:
            return itertools.repeat(self.payload, self._count)
        return map(self.__getitem__, range(self._count))

    def __delitem__(self, index: Any) -> NoReturn:
        raise TypeError("slots are not deleted")

    def insert(self, index: int, value: PayloadT) -> NoReturn:
        """Raise TypeError: the number of slots does not change."""
        raise TypeError("slots are not inserted")


@dataclass(slots=True)
class Schedule(Generic[R]):
    """A collective as one rank sees it.

    Parameters
    ----------
    rounds
        The rounds, the same at every rank.
    held
        For each slot, the payload that this rank holds at the start, or a template of the payload that it will receive.
    answer
        ``answer(held)`` returns the rank's result from its slots after the last round.
    holder
        The ranks that hold slots at the start.
    combine
        ``combine(held, received)`` returns the new payload of a slot; None if a received payload replaces the old one.
        With `combine`, a slot is None after it was sent. A `combine` that returns a single computation must do the same
        for all payloads of one size; a coroutine may keep state.
    alike
        Whether the vectorised engine needs equal payloads to derive all ranks' results from the representatives'
        results. The payloads of one holder must then be the same, and those of several holders of the same sizes.
    ahead
        Before a rank posts its messages of round i, its messages of all rounds up to i - 1 - `ahead` are done and
        combined. With 0, a round begins when the one before is done. A round may not send what a round that it does
        not wait for brings.
    """

    rounds: Sequence[Round]
    held: Sequence[Any]
    answer: Callable[[Sequence[Any]], R]
    holder: Holder = "all"
    combine: Combine[Any] | None = None
    alike: bool = True
    ahead: int = 0


async def play(worker: Worker, schedule: Schedule[R]) -> R:
    """Execute one rank's part of a schedule, and return its answer."""
    rank, rounds, combine = worker.rank, schedule.rounds, schedule.combine
    if schedule.ahead:
        return await _play_ahead(worker, schedule)
    held: Any = schedule.held if isinstance(schedule.held, list | Repeated) else list(schedule.held)
    for round_, targets, sources in _parts(rounds, rank):
        _, slot_of, bundled, signal = round_
        if len(targets) > 1 or len(sources) > 1 or bundled is not None or signal is not None:
            await _several(worker, round_, held, combine)
            continue
        # One message, or one each way, of one slot: nearly all rounds. Each is made once, without another coroutine.
        if not sources:
            sent = slot_of(rank, targets[0])
            await worker.send(targets[0], held[sent])
            if combine is not None:
                held[sent] = None
            continue
        slot = slot_of(sources[0], rank)
        if targets:
            sent = slot_of(rank, targets[0])
            payload = await worker.sendrecv(targets[0], held[sent], sources[0], held[slot])
            if combine is not None:
                held[sent] = None
        else:
            payload = await worker.recv(sources[0], held[slot])
        held[slot] = payload if combine is None else await combine(held[slot], payload)
    return schedule.answer(held)


def _parts(rounds: Sequence[Round], rank: int) -> Iterable[RankPart]:
    """Return a rank's part of each round in which it takes part."""
    if isinstance(rounds, RoundsByRank):
        return rounds.by_rank.get(rank, ())
    made = rounds.made(rank) if isinstance(rounds, LazyRounds) else rounds
    return ((round_, *peers) for round_ in made if (peers := round_.pairs.by_rank.get(rank)) is not None)


async def _several(worker: Worker, round_: Round, held: Any, combine: Combine[Any] | None) -> None:
    """Execute a round in which the rank has several messages, a bundle or a signal."""
    received = await _at_once(*_messages(worker, round_, held))
    _forget_sent(worker, round_, held, combine)
    await _keep(worker, round_, received, held, combine)


def _messages(worker: Worker, round_: Round, held: Sequence[Any]) -> tuple[list[Send], list[Recv[Any]]]:
    """Return the requests of a rank in a round."""
    rank = worker.rank
    targets, sources = round_.pairs.of(rank)
    sends = [worker.send(dst, round_.message(held, rank, dst)) for dst in targets]
    return sends, [worker.recv(src, round_.message(held, src, rank)) for src in sources]


def _forget_sent(worker: Worker, round_: Round, held: Any, combine: Combine[Any] | None) -> None:
    """Empty the slots that a rank has sent, where payloads are combined; nobody needs them any longer."""
    if combine is not None and round_.signal is None:
        for dst in round_.pairs.of(worker.rank)[0]:
            for slot in round_.slots(worker.rank, dst, len(held)):
                held[slot] = None


async def _keep(
    worker: Worker, round_: Round, received: Sequence[Any], held: Any, combine: Combine[Any] | None
) -> None:
    """Put the received payloads into their slots, in the order of their senders."""
    if round_.signal is not None:
        return
    for src, payload in zip(round_.pairs.of(worker.rank)[1], received, strict=True):
        parts = (payload,) if round_.bundled is None else payload.parts
        for slot, part in zip(round_.slots(src, worker.rank, len(held)), parts, strict=True):
            held[slot] = part if combine is None else await combine(held[slot], part)


async def _at_once(sends: list[Send], receives: list[Recv[Any]]) -> list[Any]:
    """Post all messages of a round together; return the received payloads in the order of `receives`."""
    match sends, receives:
        case [send], []:
            await send
            return []
        case [], [receive]:
            return [await receive]
        case [send], [receive]:
            return [await SendRecv(send, receive)]
    sending: list[Handle[None]] = [await Start(send) for send in sends]
    receiving: list[Handle[Any]] = [await Start(receive) for receive in receives]
    for handle in sending:
        await handle
    return [await handle for handle in receiving]


class _Posted(NamedTuple):
    """The messages of a rank in a round that it has posted."""

    number: int
    round_: Round
    receiving: list[Handle[Any]]
    sending: list[Handle[None]]


async def _play_ahead(worker: Worker, schedule: Schedule[R]) -> R:
    """Execute one rank's part of a schedule whose rounds are posted before earlier ones are done."""
    rounds, combine, ahead = schedule.rounds, schedule.combine, schedule.ahead
    held: Any = schedule.held if isinstance(schedule.held, Repeated) else list(schedule.held)
    posted: deque[_Posted] = deque()

    async def finish() -> None:
        done = posted.popleft()
        received = [await handle for handle in done.receiving]
        for handle in done.sending:
            await handle
        await _keep(worker, done.round_, received, held, combine)

    for number in rounds.of(worker.rank) if isinstance(rounds, LazyRounds) else range(len(rounds)):
        while posted and posted[0].number < number - ahead:
            await finish()
        round_ = rounds[number]
        sends, receives = _messages(worker, round_, held)
        _forget_sent(worker, round_, held, combine)
        if len(sends) == len(receives) == 1:  # one request, for the backends that need it
            posted.append(_Posted(number, round_, [await Start(SendRecv(sends[0], receives[0]))], []))
        elif sends or receives:
            receiving: list[Handle[Any]] = [await Start(receive) for receive in receives]
            posted.append(_Posted(number, round_, receiving, [await Start(send) for send in sends]))
    while posted:
        await finish()
    return schedule.answer(held)


def scheduled(
    definition: Callable[Concatenate[Worker, P], Schedule[R]],
) -> Callable[Concatenate[Worker, P], Collective[R]]:
    """Make a function that returns one rank's schedule a collective, which expands by :func:`play`."""

    @functools.wraps(definition)
    def expand(worker: Worker, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return play(worker, definition(worker, *args, **kwargs))

    expand.schedule = definition  # type: ignore[attr-defined]
    return collective(expand)


def has_schedule(call: Collective[Any]) -> bool:
    """Return whether a collective is defined by a schedule."""
    return hasattr(call.function, "schedule")


def schedule_at(worker: Worker, call: Collective[R]) -> Schedule[R]:
    """Return the schedule of a collective as `worker` sees it."""
    schedule: Schedule[R] = call.function.schedule(worker, *call.args, **call.kwargs)  # type: ignore[attr-defined]
    return schedule


def size_of(payload: Payload) -> tuple[int, int, int]:
    """Return the bytes of values, of indices and of flags."""
    return payload.value_bytes, payload.index_bytes, payload.control_bytes


@functools.lru_cache(maxsize=32)
def shift(workers: int, distance: int) -> Pairs:
    """Return the pairs in which every rank sends to the rank `distance` further, counted modulo the workers."""
    ranks = np.arange(workers)
    return Pairs(ranks, (ranks + distance) % workers)
