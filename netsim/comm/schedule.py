"""A collective seen for all ranks at once: the rounds it is made of, as arrays.

A coroutine says what one rank does; its *schedule* says the same of all ranks, with a rank that is an array.
So an interpreter that needs no data (:mod:`netsim.simulator.vectorized`) takes a round of P messages in a
few array operations. Both forms stand side by side in :mod:`netsim.comm.collectives`, and tests hold them to the same
messages. A collective without a schedule is simply taken apart into messages.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.payload import Payload
from netsim.comm.worker import Collective, Compute, evaluate

T = TypeVar("T")
PerRole: TypeAlias = Sequence[T]
"""One T for each of a world's representatives, in their order."""


class NoScheduleError(Exception):
    """The ranks cannot be taken all at once; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Who sends to whom in a round: rank ``src[i]`` to rank ``dst[i]``."""

    src: IntArray
    dst: IntArray


class PostCompute(NamedTuple):
    """What follows the messages of a round: rank ``at[i]`` makes the schedule's computations ``requests[pick[i]]``."""

    at: IntArray
    pick: IntArray


class Round(NamedTuple):
    """What happens at once.

    A rank posts all its sends and receives of a round together, goes on when all are done, and may then
    compute. Message i has ``sizes[which[i]]`` bytes: of values, of indices and of flags (:func:`size_of`). A rank that
    receives several waits for them in this order.
    """

    pairs: Pairs
    sizes: IntArray
    which: IntArray
    then: PostCompute | None = None


class Rounds(Sequence[Round]):
    """So many rounds, each made when it is looked at."""

    def __init__(self, count: int, make: Callable[[int], Round]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        return self._make(range(self._count)[number])

    def __iter__(self) -> Iterator[Round]:
        return map(self._make, range(self._count))


class Schedule(NamedTuple):
    """All that a collective does, and the `answers` that the representatives get.

    `requests` are the computations that rounds refer to, each a list of those made one after the other.
    `uneven` says that ranks of one role made different numbers of them.
    """

    rounds: Sequence[Round]
    answers: PerRole[Any]
    requests: Sequence[Sequence[Compute[Any]]] = ()
    uneven: bool = False


class RoleMap:
    """All ranks, and the few that stand for them: rank 0, the last worker for the others, and the server.

    `role` is which of the `representatives` stands for each rank.
    """

    def __init__(self, workers: int, server: int = 0) -> None:
        self.workers, self.server = workers, server
        self.size = max(workers, server + 1)
        self.ranks: IntArray = np.arange(self.size)
        self.representatives = tuple(dict.fromkeys((0, workers - 1, server)))
        self.role: IntArray = np.full(self.size, self.representatives.index(workers - 1))
        for role, rank in enumerate(self.representatives):
            self.role[rank] = role

    def sizes(self, payloads: PerRole[Payload]) -> tuple[IntArray, IntArray]:
        """Return the sizes there are, and which is that of every rank's own payload."""
        return np.array([size_of(payload) for payload in payloads]), self.role

    def alike(self, payloads: PerRole[Payload | None]) -> Payload:
        """Return the payload that all have who have one; raise NoScheduleError where they differ in size."""
        present = [payload for payload in payloads if payload is not None]
        if len({(kind_of(payload), *size_of(payload)) for payload in present}) > 1:
            raise NoScheduleError("payloads of different sizes are combined")
        return present[0]

    def everywhere(self, value: T) -> list[T]:
        """Return the same answer for all."""
        return [value] * len(self.representatives)

    def only_at(self, rank: int, value: T) -> list[T | None]:
        """Return an answer for one rank, and None for the others."""
        return [value if one == rank else None for one in self.representatives]


def size_of(payload: Payload) -> tuple[int, int, int]:
    """Return the bytes of values, of indices and of flags."""
    return payload.value_bytes, payload.index_bytes, payload.control_bytes


def kind_of(payload: Payload) -> tuple[Any, ...]:
    """Return what tells payloads of the same bytes apart."""
    return type(payload).__name__, getattr(payload, "size", None)


def asked(work: Awaitable[T]) -> tuple[list[Compute[Any]], T]:
    """Return the computations that a coroutine asks for, and what it returns; it may ask for nothing else."""
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


Scheduler: TypeAlias = Callable[..., Schedule]
_SCHEDULERS: dict[Any, Scheduler] = {}


def schedule_of(collective: Callable[..., Collective[Any]]) -> Callable[[Scheduler], Scheduler]:
    """Give a collective its schedule: a function of the world and of its own arguments, each by representative."""

    def register(scheduler: Scheduler) -> Scheduler:
        _SCHEDULERS[getattr(collective, "__wrapped__", collective)] = scheduler
        return scheduler

    return register


def has_schedule(call: Collective[Any]) -> bool:
    """Return whether a collective can be taken for all ranks at once."""
    return written(call) in _SCHEDULERS


def written(call: Collective[Any]) -> Any:
    """Return the coroutine function that a collective is made of."""
    return getattr(call.function, "func", call.function)


def scheduled(world: RoleMap, calls: PerRole[Collective[Any]]) -> Schedule:
    """Return the schedule of a collective that every representative calls."""
    return called(_SCHEDULERS[written(calls[0])], calls, world)


def called(function: Callable[..., T], calls: PerRole[Collective[Any]], *first: Any) -> T:
    """Call a function, after its first arguments, with those that each representative hands to a collective."""
    parameters = inspect.signature(function)
    bound = []
    for call in calls:
        arguments = parameters.bind(*first, *call.args, **getattr(call.function, "keywords", {}))
        arguments.apply_defaults()
        bound.append(list(arguments.arguments.values())[len(first) :])
    return function(*first, *zip(*bound, strict=True))
