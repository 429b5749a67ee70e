"""The worker that an algorithm sees, and the requests that it awaits.

An algorithm is a coroutine without I/O. It awaits *requests*, which are frozen values. An interpreter of
:mod:`netsim.simulator` or :mod:`netsim.distributed` answers them: in memory, over a simulated network, or over
``torch.distributed``. Only the ``__await__`` methods in this file yield to an interpreter.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Concatenate, Final, Generic, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar

from netsim.comm.payload import Payload, PayloadT

R = TypeVar("R")
P = ParamSpec("P")

Work: TypeAlias = Literal["gradient", "select", "merge", "update"]
"""The kind of a computation; its time is charged and reported under this name."""
COMPUTE: tuple[Work, ...] = ("gradient", "update")
SELECT: tuple[Work, ...] = ("select", "merge")


Part: TypeAlias = tuple[float, float]
"""A share of a whole, from and to, each between 0 and 1."""
WHOLE: Final[Part] = (0.0, 1.0)


Sends: TypeAlias = Literal["rendezvous", "eager"]
"""When a send is done: when its receiver has the last byte, or when the network has taken it from the sender."""
SENDS: tuple[Sends, ...] = ("rendezvous", "eager")
EARLIER_SENDS = {"acknowledged": "rendezvous"}
"""Names that files of earlier versions hold."""


class Send(NamedTuple):
    """Send `payload` to rank `dst`; the answer is None.

    The send is done when its last byte has arrived, or earlier (:data:`Sends`).
    """

    dst: int
    payload: Payload
    tag: int = 0

    def __await__(self) -> Generator[Any, Any, None]:
        yield self


class Recv(NamedTuple, Generic[PayloadT]):
    """Receive from rank `src` a payload of the same kind, size and element type as `template`."""

    src: int
    template: PayloadT
    tag: int = 0

    def __await__(self) -> Generator[Any, Any, PayloadT]:
        answer: PayloadT = yield self
        return answer


class SendRecv(NamedTuple, Generic[PayloadT]):
    """Send and receive at once; the answer is the payload received, when both are done.

    This is one request, because some backends (nccl) deadlock if the two are requested one after the other.
    """

    send: Send
    recv: Recv[PayloadT]

    def __await__(self) -> Generator[Any, Any, PayloadT]:
        answer: PayloadT = yield self
        return answer


class Compute(NamedTuple, Generic[R]):
    """Call ``function(*args)``, and charge its time under `work`; the answer is the function's result.

    Parameters
    ----------
    work
        The kind of work.
    function
        A pure function. One that is marked :func:`~netsim.comm.payload.in_place` overwrites its first argument.
    args
        Its arguments. An argument may be another Compute: it is made first, and charged under its own work; its result
        is released after this call.
    replicated
        Whether every worker makes this call with the same arguments. An interpreter with many workers may then make it
        once, and give all of them the same result.
    many
        Given the arguments of several such calls, yields their results in turn, bit for bit, in less time.
    gradual
        ``gradual(written, *args)`` returns the same result, and calls ``written(result so far, n)`` when tensor n is
        ready.
    part
        The share of the computation, from and to, that an assumed charge is for.
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


def stages(request: Compute[Any]) -> Sequence[Compute[Any]]:
    """Return the computations of a request, in the order in which they are made."""
    if Compute not in map(type, request.args):  # the usual case; there may be a million arguments
        return (request,)
    return [stage for arg in request.args if isinstance(arg, Compute) for stage in stages(arg)] + [request]


def evaluate(request: Compute[R], call: Callable[[Compute[Any], list[Any]], Any] | None = None) -> R:
    """Make all stages of a request, and return its answer; ``call(stage, args)`` makes one stage."""
    args: Sequence[Any] = request.args
    if Compute in map(type, args):
        args = [evaluate(arg, call) if isinstance(arg, Compute) else arg for arg in args]
    answer: R = request.function(*args) if call is None else call(request, list(args))
    return answer


class Start(NamedTuple, Generic[R]):
    """Begin a send, a receive or both, and continue at once. The answer is a :class:`Handle`; await it to finish."""

    request: Send | Recv[Any] | SendRecv[Any]

    def __await__(self) -> Generator[Any, Any, Handle[R]]:
        answer: Handle[R] = yield self
        return answer


class Handle(Generic[R]):
    """A request in progress, which interpreters subclass. Awaiting it gives the answer of the request."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, R]:
        answer: R = yield self
        return answer


class Fork(NamedTuple, Generic[R]):
    """Run `coroutine` beside the coroutine that awaits this; its worker is a :meth:`Worker.branch` of the same rank.

    The new coroutine runs first, until it waits for something. The answer is a :class:`Handle`.
    """

    worker: Worker
    coroutine: Coroutine[Any, Any, R]

    def __await__(self) -> Generator[Any, Any, Handle[R]]:
        answer: Handle[R] = yield self
        return answer


class _Expand:
    """The answer with which an interpreter asks for the expansion of a request."""


EXPAND: Final = _Expand()


class Collective(NamedTuple, Generic[R]):
    """An operation of all workers, with its expansion into messages.

    An interpreter may perform it natively, or answer :data:`EXPAND` to run `function`.
    """

    name: str
    function: Callable[..., Awaitable[R]]
    worker: Worker
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __await__(self) -> Generator[Any, Any, R]:
        answer = yield self
        if answer is not EXPAND:
            return answer  # type: ignore[no-any-return]
        outer, self.worker.operation = self.worker.operation, self.name
        try:
            return (yield from self.function(self.worker, *self.args, **self.kwargs).__await__())
        finally:
            self.worker.operation = outer


def collective(
    function: Callable[Concatenate[Worker, P], Awaitable[R]],
) -> Callable[Concatenate[Worker, P], Collective[R]]:
    """Turn a coroutine function into a :class:`Collective`."""
    name: str = getattr(function, "__name__", "collective")

    @functools.wraps(function)
    def request(worker: Worker, /, *args: P.args, **kwargs: P.kwargs) -> Collective[R]:
        return Collective(name, function, worker, args, kwargs)

    return request


TAGS = 1024
"""Tags that an algorithm may use: 0 to one less."""

Observer: TypeAlias = Callable[..., None]
"""Called with a worker, a name and payloads; see :meth:`Worker.observe`."""


@dataclass(slots=True)
class Traffic:
    """Payload bytes of one rank: values, indices and flags, sent (up) and received (down).

    Headers of real messages are not counted, because they belong to the transport.
    """

    value_bytes_up: int = 0
    index_bytes_up: int = 0
    value_bytes_down: int = 0
    index_bytes_down: int = 0
    control_bytes_up: int = 0
    control_bytes_down: int = 0
    messages_up: int = 0

    def sent(self, payload: Payload) -> None:
        """Count a payload that was sent."""
        self.value_bytes_up += payload.value_bytes
        self.index_bytes_up += payload.index_bytes
        self.control_bytes_up += payload.control_bytes
        self.messages_up += 1

    def received(self, payload: Payload) -> None:
        """Count a payload that was received."""
        self.value_bytes_down += payload.value_bytes
        self.index_bytes_down += payload.index_bytes
        self.control_bytes_down += payload.control_bytes

    def add(self, other: Traffic) -> None:
        """Add the counts of another."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def bytes_up(self) -> int:
        """Bytes sent."""
        return self.value_bytes_up + self.index_bytes_up + self.control_bytes_up

    @property
    def bytes_down(self) -> int:
        """Bytes received."""
        return self.value_bytes_down + self.index_bytes_down + self.control_bytes_down


class Worker:
    """One rank, as an algorithm sees it.

    Attributes
    ----------
    rank
        The number of this rank, from 0.
    workers
        Number of ranks that train.
    server
        The rank of the parameter server: rank 0, or the rank after the last worker if the server has its own host.
    step, operation
        The present step and collective, for message headers and error messages.
    tally
        Counts by name, such as uploads.
    traffic
        Bytes that an interpreter sent and received for this rank.
    part
        The share of the whole vector that this worker's vectors are, from and to.
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
        """Return the worker of a coroutine beside others of this rank; branches differ in `number`.

        Messages of different branches do not meet. A branch has a `part` of the whole vector, and counts separately; it
        may have another server.
        """
        branch = Worker(self.rank, self.workers, self.server if server is None else server, observer)
        branch.step, branch.operation, branch.part = self.step, self.operation, part
        branch._first_tag = self._first_tag + number * TAGS
        return branch

    def strand(self, tag: int) -> Worker:
        """Return the worker of a coroutine beside others in the same exchange of this rank; strands differ in `tag`.

        Its messages have `tag` added to theirs. It counts traffic separately.
        """
        strand = self.branch(0, self.part, self.observer)
        strand._first_tag += tag
        return strand

    def observe(self, what: str, *payloads: Payload) -> None:
        """Show payloads to the observer of this run; they are not sent."""
        if self.observer is not None:
            self.observer(self, what, *payloads)

    @property
    def trains(self) -> bool:
        """Whether this rank has training data; a server with its own host has none."""
        return self.rank < self.workers

    @property
    def world_size(self) -> int:
        """Number of ranks, including a server with its own host."""
        return max(self.workers, self.server + 1)

    def send(self, dst: int, payload: Payload, tag: int = 0) -> Send:
        """Return the request to send `payload` to rank `dst`."""
        self._check(dst, "send to")
        return Send(dst, payload, self._first_tag + tag)

    def recv(self, src: int, template: PayloadT, tag: int = 0) -> Recv[PayloadT]:
        """Return the request to receive a payload like `template` from rank `src`."""
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
        """Return the request to run a coroutine beside this one, as `branch`; the answer is a handle."""
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
