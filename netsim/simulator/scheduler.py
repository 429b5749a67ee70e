"""Runs all ranks in one process: resumes coroutines, matches messages, reports deadlocks.

A rank is a coroutine that awaits requests: send, receive, compute. The scheduler begins each request, and resumes the
rank when the request is done. A :class:`Transport` decides how long messages and computations take:
:class:`InMemoryTransport` takes no time, and :class:`~netsim.simulator.event_engine.SimulatedTransport` asks a model of
the network.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from netsim._util.errors import DeadlockError, ProtocolError
from netsim._util.units import PICOSECONDS, format_duration
from netsim.comm.payload import Payload, check_like, describe, nbytes
from netsim.comm.pieces import InPieces
from netsim.comm.worker import EXPAND, Collective, Compute, Fork, Handle, Recv, Send, SendRecv, Start, Worker, evaluate
from netsim.simulator.compute_pool import ReplicaMemo
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.observer import UNOBSERVED, Observers, TracedMessage, tell

T = TypeVar("T")
Done = Callable[[Any, CriticalPath], None]
"""A transport calls it with the answer to a request, and with the path of events that led to the answer."""
EXPANDED = (Collective, InPieces)
"""Requests that consist of other requests, which the coroutine then awaits one by one."""
MESSAGES = (Send, Recv, SendRecv)
"""Requests that wait for a message."""
BESIDE = (Start, Fork)
"""Requests that run beside the coroutine that makes them."""


class Transport(Protocol):
    """Decides how long messages and computations take. Times are integer picoseconds."""

    @property
    def now(self) -> int:
        """The present instant."""

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Move the payload that `worker` sends, after the events of `path`.

        Call ``sent(None, path)`` when the sender may go on, and ``arrived(None, path)`` when the last byte arrives.
        """

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Take note that `worker` is ready to receive; some transports send nothing before then."""

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Compute ``answer = call()`` for `worker`; call ``done(answer, path)`` when the computation's time is over."""

    def advance(self) -> bool:
        """Process the next event; return False if there is none."""


class InMemoryTransport:
    """The transport in memory: messages arrive at once, and nothing takes time."""

    now = 0

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Deliver the message at once."""
        sent(None, path)
        arrived(None, path)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Do nothing: messages wait for their receivers."""

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Compute at once."""
        done(call(), path)

    def advance(self) -> bool:
        """Return False: no event is ever left."""
        return False


class Operation(Handle[Any]):
    """A request that has begun; `tell` is called when it is done."""

    __slots__ = ("answer", "done", "request", "tell")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.done = False
        self.answer: Any = None
        self.tell: Done | None = None

    def __repr__(self) -> str:
        return f"Operation({self.request!r}, {'done' if self.done else 'under way'})"


class Message:
    """A payload on its way. Messages and receives of a channel are matched in the order in which they were posted.

    `claim` is the receive that the message is matched to, if any; `path` is known when the message has `arrived`.
    """

    __slots__ = ("arrived", "claim", "operation", "path", "payload", "posted_at", "src", "version")

    def __init__(self, src: int, payload: Payload, operation: str, posted_at: int) -> None:
        self.src = src
        self.payload = payload
        # The receiver gets this very object and no copy, so a later change by the sender must be noticed.
        self.version = payload.version()
        self.operation = operation
        self.posted_at = posted_at
        self.arrived = False
        self.path: CriticalPath | None = None
        self.claim: tuple[Operation, RankCoroutine[Any]] | None = None

    def __repr__(self) -> str:
        return f"Message(from rank {self.src}, {self.operation}, {'arrived' if self.arrived else 'on its way'})"


class Place(NamedTuple):
    """The receiver of a message; its text begins error messages."""

    worker: Worker
    message: Message

    def __str__(self) -> str:
        rank, step = self.worker.rank, self.worker.step
        return f"rank {rank}, {self.message.operation}, step {step}, from rank {self.message.src}"


class RankCoroutine(Generic[T]):
    """A coroutine and its state: that of a rank, or one that a rank forked and whose `end` it may await.

    `path` is the chain of events that led to the coroutine's present; `blocked_since` and `ended_at` are instants in
    picoseconds.
    """

    __slots__ = ("blocked_since", "coroutine", "end", "ended_at", "finished", "path", "result", "waits_for", "worker")

    def __init__(
        self, worker: Worker, coroutine: Coroutine[Any, Any, T], start: CriticalPath, end: Operation | None = None
    ) -> None:
        self.worker = worker
        self.coroutine = coroutine
        self.path = start
        self.end = end
        self.waits_for: Operation | None = None
        self.blocked_since = self.ended_at = 0
        self.finished = False
        self.result: T | None = None

    def __repr__(self) -> str:
        state = "finished" if self.finished else f"waits for {_awaited(self)!r} since {self.blocked_since} ps"
        return f"RankCoroutine(rank {self.worker.rank}, step {self.worker.step}, {state})"


class Channel:
    """One sender, receiver and tag: messages without a receive, and receives without a message."""

    __slots__ = ("messages", "receives")

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.receives: deque[tuple[Operation, RankCoroutine[Any]]] = deque()

    def __repr__(self) -> str:
        return f"Channel({len(self.messages)} messages, {len(self.receives)} receives)"


class RankScheduler(Generic[T]):
    """Runs one coroutine a rank to its end and answers its requests; tells `observers` of messages and waits."""

    def __init__(self, transport: Transport, observers: Observers = UNOBSERVED) -> None:
        self._transport = transport
        self._began, self._advanced = observers.began, observers.advanced
        self._delivered, self._waited = observers.delivered, observers.waited
        self._requested, self._forks = observers.requested, observers.forked
        self._channels: defaultdict[tuple[int, int, int], Channel] = defaultdict(Channel)
        self._ready: deque[tuple[RankCoroutine[T], Any]] = deque()
        self._forked: dict[RankCoroutine[Any], None] = {}
        self._replicas = ReplicaMemo()
        # Looked up by exact type: millions of requests would pay for a chain of isinstance.
        self._begins: dict[type, Callable[[RankCoroutine[Any], Any], Operation]] = {
            Operation: lambda _, handle: handle,
            Start: lambda task, start: self._begins[type(start.request)](task, start.request),
            Send: self._send,
            Recv: self._receive,
            SendRecv: self._both,
            Compute: self._compute,
            Fork: self._fork,
        }

    def run(
        self,
        workers: Sequence[Worker],
        program: Callable[[Worker], Coroutine[Any, Any, T]],
        start: CriticalPath | None = None,
    ) -> list[RankCoroutine[T]]:
        """Run ``program(worker)`` for all workers until all are finished.

        Parameters
        ----------
        start
            The path of events so far, if the ranks go on after a pause.

        Returns
        -------
        list
            The finished coroutines with their results, in rank order.

        Raises
        ------
        DeadlockError
            If ranks wait for ever, or messages are never received.
        ProtocolError
            If a message is not what its receiver expects, or a rank awaits something other than a request.
        """
        start = CriticalPath.start(self._transport.now) if start is None else start
        tell(self._began, self._transport)
        tasks = [RankCoroutine(worker, program(worker), start) for worker in workers]
        # After an error, coroutines that were not closed would run their `finally` blocks at any later time.
        with ExitStack() as stack:
            stack.callback(self._close_forked)
            for task in tasks:
                stack.callback(task.coroutine.close)
            self._ready.extend((task, None) for task in tasks)
            while True:
                # First come, first served, so that a run repeats exactly. Time goes on when no rank can: all requests
                # of an instant are then known to the transport.
                while self._ready:
                    self._resume(*self._ready.popleft())
                if not self._transport.advance():
                    break
                for advanced in self._advanced:
                    advanced()
            self._check_finished([*tasks, *self._forked])
        return tasks

    def _resume(self, task: RankCoroutine[T], answer: Any) -> None:
        """Run a coroutine with the answer to its last request until it is blocked or finished."""
        begins = self._begins
        while True:
            try:
                request = task.coroutine.send(answer)
            except StopIteration as stop:
                task.finished, task.result, task.ended_at = True, stop.value, self._transport.now
                if task.end is not None:
                    del self._forked[task]
                    self._finish(task.end, stop.value, task.path)
                return
            begin = begins.get(type(request))
            if begin is None:
                _check_expanded(task, request)
                answer = EXPAND
                continue
            operation = begin(task, request)
            for requested in self._requested:
                requested(task, request, operation)
            if isinstance(request, BESIDE):
                answer = operation
                continue
            if not operation.done:
                operation.tell = partial(self._wake, task)
                task.waits_for, task.blocked_since = operation, self._transport.now
                return
            answer = operation.answer

    def _send(self, task: RankCoroutine[T], request: Send) -> Operation:
        operation = Operation(request)
        message = Message(task.worker.rank, request.payload, task.worker.operation, self._transport.now)
        task.worker.traffic.sent(request.payload)
        channel = self._channels[task.worker.rank, request.dst, request.tag]
        # Messages are matched when they are posted and not when they arrive, because one may overtake another.
        if channel.receives:
            message.claim = channel.receives.popleft()
        else:
            channel.messages.append(message)

        def sent(_: Any, path: CriticalPath) -> None:
            self._finish(operation, None, path)

        def arrived(_: Any, path: CriticalPath) -> None:
            message.arrived, message.path = True, path
            if message.claim is not None:
                self._deliver(message, *message.claim)

        # Most runs have no such observer, and are spared two more closures a message.
        if self._delivered:
            self._transport.carry(task.worker, request, task.path, *self._observed(task.worker, request, sent, arrived))
        else:
            self._transport.carry(task.worker, request, task.path, sent, arrived)
        return operation

    def _observed(self, worker: Worker, request: Send, sent: Done, arrived: Done) -> tuple[Done, Done]:
        """Return the two callbacks of a message such that the later call also tells the observers of the message."""
        posted = (worker.rank, request.dst, nbytes(request.payload), worker.operation, worker.step, request.tag)
        start = self._transport.now
        instants: dict[str, int] = {}

        def noted(field: str, then: Done) -> Done:
            def at(answer: Any, path: CriticalPath) -> None:
                instants[field] = self._transport.now
                if len(instants) == 2:
                    message = TracedMessage(*posted, start, instants["sent"], instants["end"])
                    tell(self._delivered, message)
                then(answer, path)

            return at

        return noted("sent", sent), noted("end", arrived)

    def _receive(self, task: RankCoroutine[T], request: Recv[Any]) -> Operation:
        operation = Operation(request)
        self._transport.expect(task.worker, request)
        channel = self._channels[request.src, task.worker.rank, request.tag]
        if not channel.messages:
            channel.receives.append((operation, task))
        elif (message := channel.messages.popleft()).arrived:
            self._deliver(message, operation, task)
        else:
            message.claim = (operation, task)
        return operation

    def _both(self, task: RankCoroutine[T], request: SendRecv[Any]) -> Operation:
        """Begin a send and a receive; the pair is done when both are, and its answer is the received payload.

        Its path is that of the later part. If both are done at one instant, it is that of the message,
        whatever the order in which the two are handled.
        """
        operation = Operation(request)
        received = self._receive(task, request.recv)
        sent = self._send(task, request.send)
        received_at: tuple[int, CriticalPath] | None = None

        def part_done(_: Any, path: CriticalPath) -> None:
            nonlocal received_at
            if not sent.done:
                received_at = (self._transport.now, path)
            elif received.done:
                if received_at is not None and received_at[0] == self._transport.now:
                    path = received_at[1]
                self._finish(operation, received.answer, path)

        if not received.done:
            received.tell = part_done
        if not sent.done:
            sent.tell = part_done
        elif received.done:
            self._finish(operation, received.answer, task.path)
        return operation

    def _compute(self, task: RankCoroutine[T], request: Compute[Any]) -> Operation:
        operation = Operation(request)

        def call() -> Any:
            if request.replicated:
                return self._replicas.call(request.function, request.args)
            return evaluate(request)

        self._transport.compute(
            task.worker, request, call, task.path, lambda answer, path: self._finish(operation, answer, path)
        )
        return operation

    def _fork(self, task: RankCoroutine[T], request: Fork[Any]) -> Operation:
        """Run a coroutine beside `task`, now until it is blocked for the first time."""
        operation = Operation(request)
        forked: RankCoroutine[Any] = RankCoroutine(request.worker, request.coroutine, task.path, operation)
        self._forked[forked] = None
        tell(self._forks, task, forked)
        # At once, so that its first messages are ahead of those that `task` posts next to the same ranks.
        self._resume(forked, None)
        return operation

    def _close_forked(self) -> None:
        for forked in self._forked:
            forked.coroutine.close()

    def _deliver(self, message: Message, operation: Operation, task: RankCoroutine[T]) -> None:
        """Answer a receive with a message that has arrived, after checking that it is as the receiver expects."""
        where = Place(task.worker, message)
        if message.payload.version() != message.version:
            raise ProtocolError(f"{where}: the sender changed {describe(message.payload)} after sending it")
        check_like(message.payload, operation.request.template, where)
        task.worker.traffic.received(message.payload)
        assert message.path is not None
        self._finish(operation, message.payload, message.path)

    @staticmethod
    def _finish(operation: Operation, answer: Any, path: CriticalPath) -> None:
        operation.done, operation.answer = True, answer
        if (tell := operation.tell) is not None:
            operation.tell = None  # breaks a reference cycle, so that payloads are freed at once
            tell(answer, path)

    def _wake(self, task: RankCoroutine[T], answer: Any, path: CriticalPath) -> None:
        # If the task was blocked until now, its critical path runs through the event it was waiting for. A wait that
        # took no time changes no path, so that paths do not depend on the order of simultaneous events.
        if self._transport.now > task.blocked_since:
            task.path = path
        if self._waited and isinstance(_awaited(task), MESSAGES):
            tell(self._waited, task.worker.rank, task.blocked_since, self._transport.now)
        task.waits_for = None
        self._ready.append((task, answer))

    def _check_finished(self, tasks: Sequence[RankCoroutine[T]]) -> None:
        stuck = [task for task in tasks if not task.finished]
        # A rank that waits for its own fork is left out: the fork's own line explains the wait.
        problems = [self._why(task) for task in stuck if not isinstance(_awaited(task), Fork)]
        problems += [
            f"rank {src} sent rank {dst} {describe(message.payload)} (tag {tag}, {message.operation}) "
            f"at {_clock(message.posted_at)} that nobody received"
            for (src, dst, tag), channel in self._channels.items()
            for message in channel.messages
        ]
        if problems:
            shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
            raise DeadlockError(f"the algorithm deadlocks: {shown}")

    @staticmethod
    def _why(task: RankCoroutine[T]) -> str:
        worker = task.worker
        request = _awaited(task)
        if isinstance(request, SendRecv):
            request = request.recv
        if isinstance(request, Recv):
            awaited = f"a message from rank {request.src} (tag {request.tag}, {worker.operation}, step {worker.step})"
        else:
            awaited = repr(request)
        return f"rank {worker.rank} waits for {awaited} since {_clock(task.blocked_since)}"


def _check_expanded(task: RankCoroutine[Any], request: Any) -> None:
    """Raise ProtocolError for what a coroutine awaited, unless it consists of requests."""
    if not isinstance(request, EXPANDED):
        raise ProtocolError(
            f"rank {task.worker.rank} awaited {request!r}, which is not a netsim request: "
            "algorithms await only the requests of netsim.comm.worker"
        )


def _awaited(task: RankCoroutine[Any]) -> Any:
    """Return the request that a coroutine waits for, None if it waits for none."""
    return None if task.waits_for is None else task.waits_for.request


def _clock(picoseconds: int) -> str:
    """Return an instant as text."""
    return format_duration(picoseconds / PICOSECONDS)
