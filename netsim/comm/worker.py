"""One worker of a distributed computation, and the requests it can make.

An algorithm is a coroutine. It never performs I/O: it awaits *requests*, frozen values which one of
the interpreters in :mod:`netsim.simulator` and :mod:`netsim.distributed` answers, in memory, over a
simulated network or over ``torch.distributed``. The only places that yield to an interpreter are the ``__await__``
methods
of this file.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from netsim.comm.payload import Payload, PayloadT
from netsim.comm.traffic import Traffic

R = TypeVar("R")
P = ParamSpec("P")

Work: TypeAlias = Literal["gradient", "select", "merge", "update"]
"""What a computation is for; its time is charged and reported under this name."""
COMPUTE: tuple[Work, ...] = ("gradient", "update")
SELECT: tuple[Work, ...] = ("select", "merge")


Part: TypeAlias = tuple[float, float]
"""What a piece is of a whole: from which share of it to which."""
WHOLE: Final[Part] = (0.0, 1.0)


Sends: TypeAlias = Literal["rendezvous", "eager"]
"""When a send is done: when its receiver has the last byte, or as soon as the network takes it off the sender."""
SENDS: tuple[Sends, ...] = ("rendezvous", "eager")
EARLIER_SENDS = {"acknowledged": "rendezvous"}
"""Names that files of earlier versions hold."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send `payload` to rank `dst`; done when the last byte has arrived, or before (:data:`Sends`). Answers None."""

    dst: int
    payload: Payload
    tag: int = 0

    def __await__(self) -> Generator[Any, Any, None]:
        yield self


@dataclass(frozen=True, slots=True)
class Recv(Generic[PayloadT]):
    """Receive from rank `src` a payload of the same kind, size and element type as `template`."""

    src: int
    template: PayloadT
    tag: int = 0

    def __await__(self) -> Generator[Any, Any, PayloadT]:
        answer: PayloadT = yield self
        return answer


@dataclass(frozen=True, slots=True)
class SendRecv(Generic[PayloadT]):
    """Send and receive at once; done when both are. Answers the payload received.

    One request, because some backends (nccl) deadlock on the same two made one after the other.
    """

    send: Send
    recv: Recv[PayloadT]

    def __await__(self) -> Generator[Any, Any, PayloadT]:
        answer: PayloadT = yield self
        return answer


@dataclass(frozen=True, slots=True)
class Compute(Generic[R]):
    """Call ``function(*args)`` and charge its time under `work`.

    The function is pure, but that one marked :func:`~netsim.comm.payload.in_place` overwrites its first
    argument. An argument may itself be a Compute that nobody awaits: it is made first, charged under its
    own work, and its result is gone when this one is made.

    `replicated` says that every worker makes this same call on the same arguments, so an
    interpreter that holds many workers may make it once and hand all of them the one result.
    `many`, given the arguments of several such calls, yields their results in turn, bit for bit, and
    is faster. ``gradual(written, *args)`` returns the same result, and calls ``written(result so far, n)`` as
    soon as tensor n of it is there.

    `part` says what it is of the computation that an assumed charge is for: from which share of that to which.
    """

    work: Work
    function: Callable[..., R]
    args: tuple[Any, ...]
    replicated: bool = False
    many: Callable[[Sequence[Any]], Iterator[R]] | None = None
    gradual: Callable[..., R] | None = None
    part: Part = WHOLE

    def __await__(self) -> Generator[Any, Any, R]:
        answer: R = yield self
        return answer


def stages(request: Compute[Any]) -> Iterator[Compute[Any]]:
    """Yield the computations that a request is made of, in the order in which they are made."""
    if _has_stages(request):
        for arg in request.args:
            if isinstance(arg, Compute):
                yield from stages(arg)
    yield request


def _has_stages(request: Compute[Any]) -> bool:
    """Return whether an argument is itself a computation; there may be a million arguments."""
    return Compute in set(map(type, request.args))


def evaluate(request: Compute[R], call: Callable[[Compute[Any], list[Any]], Any] | None = None) -> R:
    """Make all stages of a request and return its answer; ``call(stage, args)`` makes one of them."""
    args = request.args
    if _has_stages(request):
        args = tuple(evaluate(arg, call) if isinstance(arg, Compute) else arg for arg in args)
    answer: R = request.function(*args) if call is None else call(request, list(args))
    return answer


@dataclass(frozen=True, slots=True)
class Start(Generic[R]):
    """Begin a send or a receive and go on at once. Answers a :class:`Handle`; await it to finish."""

    request: Send | Recv[Any]

    def __await__(self) -> Generator[Any, Any, Handle[R]]:
        answer: Handle[R] = yield self
        return answer


class Handle(Generic[R]):
    """A request under way; interpreters subclass it. Awaiting it answers what the request answers."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, R]:
        answer: R = yield self
        return answer


@dataclass(frozen=True, slots=True)
class Fork(Generic[R]):
    """Run `coroutine` beside the one that asks; it asks as `worker`, a :meth:`Worker.branch` of the same rank.

    It runs until it waits for something, then the one that asks goes on. Answers a :class:`Handle`.
    """

    worker: Worker
    coroutine: Coroutine[Any, Any, R]

    def __await__(self) -> Generator[Any, Any, Handle[R]]:
        answer: Handle[R] = yield self
        return answer


class _Expand:
    """The answer by which an interpreter declines to do natively what can be expanded."""


EXPAND: Final = _Expand()


@dataclass(frozen=True, slots=True)
class Collective(Generic[R]):
    """An operation in which all workers take part, with its expansion into messages.

    An interpreter may perform it natively, or answer :data:`EXPAND` to have `function` run.
    """

    name: str
    function: Callable[..., Awaitable[R]]
    worker: Worker
    args: tuple[Any, ...]

    def __await__(self) -> Generator[Any, Any, R]:
        answer = yield self
        if answer is not EXPAND:
            return answer  # type: ignore[no-any-return]
        outer, self.worker.operation = self.worker.operation, self.name
        try:
            return (yield from self.function(self.worker, *self.args).__await__())
        finally:
            self.worker.operation = outer


def collective(
    function: Callable[Concatenate[Worker, P], Awaitable[R]],
) -> Callable[Concatenate[Worker, P], Collective[R]]:
    """Make a coroutine function over point-to-point messages a :class:`Collective`."""
    name: str = getattr(function, "__name__", "collective")

    @functools.wraps(function)
    def request(worker: Worker, /, *args: P.args, **kwargs: P.kwargs) -> Collective[R]:
        call = functools.partial(function, **kwargs) if kwargs else function
        return Collective(name, call, worker, args)

    return request


TAGS = 1024
"""Tags that an algorithm may use: 0 to one less."""

Observer: TypeAlias = Callable[..., None]
"""Called with a worker, a name and payloads; see :meth:`Worker.observe`."""


class Worker:
    """What one rank of an algorithm sees of the world.

    `rank` is its number; `workers` how many ranks train; `server` the rank that serves as the
    parameter server: one of the workers (rank 0), or, where the server has a host of its own, the
    rank after the last worker. `step` and `operation` say where it is, for headers and messages.
    `tally` counts what an algorithm wants counted, such as uploads, and `traffic` what an interpreter sent.
    `part` is what its vectors are of a whole one.
    """

    __slots__ = (
        *("_first_tag", "observer", "operation", "part", "rank", "server", "step", "tally", "traffic", "workers"),
    )

    def __init__(self, rank: int, workers: int, server: int = 0, observer: Observer | None = None) -> None:
        self.rank = rank
        self.workers = workers
        self.server = server
        self.step = 0
        self.operation = "point-to-point"
        self.tally: Counter[str] = Counter()
        self.traffic = Traffic()
        self.observer = observer
        self.part = WHOLE
        self._first_tag = 0

    def branch(self, number: int, part: Part, observer: Observer | None = None, server: int | None = None) -> Worker:
        """Return what a coroutine sees that runs beside others of this rank: they differ in `number`, from 0.

        Their messages do not meet. It sees vectors that are a `part` of whole ones, perhaps another
        server, and counts by itself.
        """
        branch = Worker(self.rank, self.workers, self.server if server is None else server, observer)
        branch.step, branch.operation, branch.part = self.step, self.operation, part
        branch._first_tag = self._first_tag + number * TAGS
        return branch

    def observe(self, what: str, *payloads: Payload) -> None:
        """Show payloads to whoever watches this run; they are not sent anywhere."""
        if self.observer is not None:
            self.observer(self, what, *payloads)

    @property
    def trains(self) -> bool:
        """Whether this rank has data of its own; a server with its own host has none."""
        return self.rank < self.workers

    @property
    def world_size(self) -> int:
        """The number of ranks, a server with its own host included."""
        return max(self.workers, self.server + 1)

    def send(self, dst: int, payload: Payload, tag: int = 0) -> Send:
        """Return the request to send `payload` to rank `dst`."""
        self._check(dst, "send to")
        return Send(dst, payload, self._first_tag + tag)

    def recv(self, src: int, template: PayloadT, tag: int = 0) -> Recv[PayloadT]:
        """Return the request to receive from rank `src` something like `template`."""
        self._check(src, "receive from")
        return Recv(src, template, self._first_tag + tag)

    def sendrecv(self, dst: int, payload: Payload, src: int, template: PayloadT, tag: int = 0) -> SendRecv[PayloadT]:
        """Return the request to send to `dst` and to receive from `src` at once."""
        return SendRecv(self.send(dst, payload, tag), self.recv(src, template, tag))

    def start_send(self, dst: int, payload: Payload, tag: int = 0) -> Start[None]:
        """Return the request to begin a send; its answer is a handle."""
        return Start(self.send(dst, payload, tag))

    def start_recv(self, src: int, template: PayloadT, tag: int = 0) -> Start[PayloadT]:
        """Return the request to begin a receive; its answer is a handle."""
        return Start(self.recv(src, template, tag))

    def fork(self, branch: Worker, coroutine: Coroutine[Any, Any, R]) -> Fork[R]:
        """Return the request to run a coroutine beside this one, as `branch`; its answer is a handle."""
        return Fork(branch, coroutine)

    def compute(self, work: Work, function: Callable[..., R], *args: Any) -> Compute[R]:
        """Return the request to call ``function(*args)`` and charge its time as `work`; see :class:`Compute`."""
        return Compute(work, function, args, part=self.part)

    def replicated(self, work: Work, function: Callable[..., R], *args: Any) -> Compute[R]:
        """Like :meth:`compute`, for a call that every worker makes on the same arguments."""
        return Compute(work, function, args, replicated=True, part=self.part)

    def _check(self, peer: int, verb: str) -> None:
        if not 0 <= peer < self.world_size or peer == self.rank:
            raise ValueError(
                f"rank {self.rank} cannot {verb} rank {peer}: expected another rank from 0 to {self.world_size - 1}"
            )
