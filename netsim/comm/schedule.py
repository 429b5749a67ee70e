"""A collective as a schedule: in each round, who sends which slot to whom, and what becomes of it there.

Every rank holds payloads in numbered *slots*: chunks of a vector, or one vector of each rank. A round moves slots
between pairs of ranks; a rank posts all its sends and receives of a round together, and goes on when all are done. What
arrives replaces what the receiver holds in that slot, or is combined with it.

A collective is a function, marked :func:`scheduled`, that returns the :class:`Schedule` of one rank. :func:`play`
executes it there, with real payloads, on every backend. The vectorised engine reads the same rounds for all ranks at
once, as arrays: for that a round names its slots by a function of two ranks, which takes arrays of ranks as well.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
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
"""Combine what this rank holds (left) with what another rank sent (right)."""
SlotOf: TypeAlias = Callable[[Any, Any], Any]
"""Return the slot of a message from its sender and receiver: a number, or an array for arrays of ranks.

A negative number counts from the last slot, as an index of a list does.
"""
Holder: TypeAlias = int | Literal["all", "each"]
"""Who holds the slots at first: one rank all of them, all ranks all of them, or each rank that of its own number."""


class Pairs:
    """Who sends to whom in a round: rank ``src[i]`` to rank ``dst[i]``. LazyRounds alike share one object."""

    def __init__(self, src: IntArray, dst: IntArray) -> None:
        self.src, self.dst = src, dst

    def of(self, rank: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return to whom a rank sends, and from whom it receives."""
        return self._by_rank.get(rank, ((), ()))

    @functools.cached_property
    def _by_rank(self) -> dict[int, tuple[list[int], list[int]]]:
        peers: defaultdict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for src, dst in zip(self.src.tolist(), self.dst.tolist(), strict=True):
            peers[src][0].append(dst)
            peers[dst][1].append(src)
        return dict(peers)


def first_slot(src: Any, dst: Any) -> Any:
    """Return slot 0 for every message."""
    return 0 * src


class Round(NamedTuple):
    """Messages that are exchanged at once.

    A message carries the slot ``slot(src, dst)``. If `bundled`, it carries so many slots from there on, counted
    modulo the slots there are, as one bundle. A `signal` is a payload that only tells the receiver to go on.
    """

    pairs: Pairs
    slot: SlotOf = first_slot
    bundled: int | None = None
    signal: Payload | None = None

    def message(self, held: Sequence[Any], src: int, dst: int) -> Payload:
        """Return what one rank sends to another of what is held; at the receiver, an example of it."""
        if self.signal is not None:
            return self.signal
        if self.bundled is None:
            return cast(Payload, held[self.slot(src, dst)])
        return Bundle(tuple(held[slot] for slot in self.slots(src, dst, len(held))))

    def slots(self, src: int, dst: int, count: int) -> Sequence[int]:
        """Return the slots, of `count`, that the message from one rank to another carries."""
        first = self.slot(src, dst)
        return (first,) if self.bundled is None else [(first + place) % count for place in range(self.bundled)]


class LazyRounds(Sequence[Round]):
    """So many rounds, each made when it is first used. ``of(rank)`` are those that a rank takes part in, if not all."""

    def __init__(
        self, count: int, make: Callable[[int], Round], of: Callable[[int], Iterable[int]] | None = None
    ) -> None:
        self._count, self._make, self._of = count, functools.cache(make), of

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._make(range(self._count)[index])

    def __iter__(self) -> Iterator[Round]:
        return map(self._make, range(self._count))

    def of(self, rank: int) -> Iterator[Round]:
        """Yield the rounds that a rank takes part in."""
        return iter(self) if self._of is None else map(self._make, self._of(rank))


class Repeated(MutableSequence[PayloadT]):
    """One payload in so many slots, but for those that were replaced; it takes the memory of what differs."""

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
        """Refuse: a schedule has as many slots at its end as at its beginning."""
        raise TypeError("slots are not inserted")


@dataclass(slots=True)
class Schedule(Generic[R]):
    """A collective as one rank sees it.

    Parameters
    ----------
    rounds
        The same at every rank.
    held
        By slot, the payload that this rank holds at first, or one like that which it will receive.
    answer
        Makes the rank's result of what it holds in the end.
    holder
        Whose payloads the slots are at first.
    combine
        Combines what is held with what arrives; without it, what arrives replaces what is held. What was sent to be
        combined is given up: its slot is None from then on. A combination that is one computation must be the same
        for all payloads of one size; one that is a coroutine may remember.
    alike
        Whether it takes payloads alike to know all ranks' results from those of a few: a holder's payloads are then
        the same, and several holders' of the same sizes.
    """

    rounds: Sequence[Round]
    held: Sequence[Any]
    answer: Callable[[Sequence[Any]], R]
    holder: Holder = "all"
    combine: Combine[Any] | None = None
    alike: bool = True


async def play(worker: Worker, schedule: Schedule[R]) -> R:
    """Execute one rank's part of a schedule, and return its answer."""
    rank, rounds, combine = worker.rank, schedule.rounds, schedule.combine
    held: Any = schedule.held
    for round_ in rounds.of(rank) if isinstance(rounds, LazyRounds) else rounds:
        targets, sources = round_.pairs.of(rank)
        if not targets and not sources:
            continue
        if not isinstance(held, list | Repeated) and (sources or combine is not None):
            held = list(held)
        if len(targets) > 1 or len(sources) > 1 or round_.bundled is not None or round_.signal is not None:
            await _several(worker, round_, held, combine)
            continue
        # One message, or one each way, of one slot: nearly all rounds. Each is made once, without another coroutine.
        if not sources:
            sent = round_.slot(rank, targets[0])
            await worker.send(targets[0], held[sent])
            if combine is not None:
                held[sent] = None
            continue
        slot = round_.slot(sources[0], rank)
        if targets:
            sent = round_.slot(rank, targets[0])
            payload = await worker.sendrecv(targets[0], held[sent], sources[0], held[slot])
            if combine is not None:
                held[sent] = None
        else:
            payload = await worker.recv(sources[0], held[slot])
        held[slot] = payload if combine is None else await combine(held[slot], payload)
    return schedule.answer(held)


async def _several(worker: Worker, round_: Round, held: Any, combine: Combine[Any] | None) -> None:
    """Execute a round of several messages, of bundles, or of signals."""
    rank = worker.rank
    targets, sources = round_.pairs.of(rank)
    sends = [worker.send(dst, round_.message(held, rank, dst)) for dst in targets]
    receives = [worker.recv(src, round_.message(held, src, rank)) for src in sources]
    received = await _at_once(sends, receives)
    if round_.signal is not None:
        return
    if combine is not None:
        for dst in targets:
            for slot in round_.slots(rank, dst, len(held)):
                held[slot] = None
    for src, payload in zip(sources, received, strict=True):
        parts = (payload,) if round_.bundled is None else payload.parts
        for slot, part in zip(round_.slots(src, rank, len(held)), parts, strict=True):
            held[slot] = part if combine is None else await combine(held[slot], part)


async def _at_once(sends: list[Send], receives: list[Recv[Any]]) -> list[Any]:
    """Post all messages of a round together; return what was received, in the order of the receives."""
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


def scheduled(
    definition: Callable[Concatenate[Worker, P], Schedule[R]],
) -> Callable[Concatenate[Worker, P], Collective[R]]:
    """Make a function that returns one rank's schedule a collective, which expands by :func:`play`."""

    @functools.wraps(definition)
    def expand(worker: Worker, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return play(worker, definition(worker, *args, **kwargs))

    expand.schedule = definition  # type: ignore[attr-defined]
    return collective(expand)


def written(call: Collective[Any]) -> Any:
    """Return the function that a collective is made of."""
    return getattr(call.function, "func", call.function)


def has_schedule(call: Collective[Any]) -> bool:
    """Return whether a collective is a schedule."""
    return hasattr(written(call), "schedule")


def schedule_at(worker: Worker, call: Collective[R]) -> Schedule[R]:
    """Return the schedule of a collective as `worker` sees it."""
    schedule: Schedule[R] = written(call).schedule(worker, *call.args, **getattr(call.function, "keywords", {}))
    return schedule


def size_of(payload: Payload) -> tuple[int, int, int]:
    """Return the bytes of values, of indices and of flags."""
    return payload.value_bytes, payload.index_bytes, payload.control_bytes


@functools.lru_cache(maxsize=32)
def shift(workers: int, distance: int) -> Pairs:
    """Return the pairs in which every rank sends to the rank `distance` further, counted modulo the workers."""
    ranks = np.arange(workers)
    return Pairs(ranks, (ranks + distance) % workers)
