"""Runs all ranks in one process: resumes coroutines, matches messages, reports deadlocks.

A *transport* decides what a message or a computation costs. :class:`~netsim.simulator.in_memory.InMemoryTransport`
takes no time; :class:`~netsim.simulator.event_engine.SimulatedTransport` asks a model of the network.
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
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.observer import UNOBSERVED, Observers, TracedMessage, tell
from netsim.simulator.replica_cache import ReplicaMemo

T = TypeVar("T")
Done = Callable[[Any, CriticalPath], None]
"""Called by a transport with the answer, and with the path of events that led to it."""
EXPANDED = (Collective, InPieces)
"""What is run as the messages and computations that it is made of."""
MESSAGES = (Send, Recv, SendRecv)
"""What waits for messages."""
BESIDE = (Start, Fork)
"""What goes on beside the one that asks."""


class Transport(Protocol):
    """What time messages and computations take. Times are integer picoseconds."""

    @property
    def now(self) -> int: ...

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Move the payload that `worker` sends.

        Call `sent(None, path)` when the sender may go on, `arrived(None, path)` when the last byte is there.
        """

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Learn that `worker` is ready to receive; on some networks nothing moves before."""

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Have `call` made on the host of `worker` and call `done(answer, path)` when its time has passed."""

    def advance(self) -> bool:
        """Let the next thing happen; return False if nothing is under way."""


class Operation(Handle[Any]):
    """A request under way, and whom to tell when it is done."""

    __slots__ = ("answer", "done", "request", "tell")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.done = False
        self.answer: Any = None
        self.tell: Done | None = None


class Message:
    """A payload on its way, matched to a receive in the order in which both were posted."""

    __slots__ = ("arrived", "claim", "operation", "path", "payload", "posted_at", "src", "version")

    def __init__(self, src: int, payload: Payload, operation: str, posted_at: int) -> None:
        self.src = src
        self.payload = payload
        self.version = payload.version()
        self.operation = operation
        self.posted_at = posted_at
        self.arrived = False
        self.path: CriticalPath | None = None
        self.claim: tuple[Operation, RankCoroutine[Any]] | None = None


class Place(NamedTuple):
    """Where a message is received, in words if there is something to say about it."""

    worker: Worker
    message: Message

    def __str__(self) -> str:
        rank, step = self.worker.rank, self.worker.step
        return f"rank {rank}, {self.message.operation}, step {step}, from rank {self.message.src}"


class RankCoroutine(Generic[T]):
    """A coroutine and where it stands: a rank's own, or one that it forked, whose `end` it may await."""

    __slots__ = ("blocked_since", "coroutine", "end", "finished", "path", "result", "waits_for", "worker")

    def __init__(
        self, worker: Worker, coroutine: Coroutine[Any, Any, T], start: CriticalPath, end: Operation | None = None
    ) -> None:
        self.worker = worker
        self.coroutine = coroutine
        self.path = start
        self.end = end
        self.waits_for: Operation | None = None
        self.blocked_since = 0
        self.finished = False
        self.result: T | None = None


class Channel:
    """Messages from one rank to another under one tag: sent but unclaimed, and receives unserved."""

    __slots__ = ("messages", "receives")

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.receives: deque[tuple[Operation, RankCoroutine[Any]]] = deque()


class RankScheduler(Generic[T]):
    """Runs one coroutine a rank to its end and answers its requests; tells `observers` of messages and waits."""

    def __init__(self, transport: Transport, observers: Observers = UNOBSERVED) -> None:
        self._transport = transport
        self._observers = observers
        self._channels: defaultdict[tuple[int, int, int], Channel] = defaultdict(Channel)
        self._ready: deque[tuple[RankCoroutine[T], Any]] = deque()
        self._forked: dict[RankCoroutine[Any], None] = {}
        self._replicas = ReplicaMemo()
        self._begins: dict[type, Callable[[RankCoroutine[Any], Any], Operation]] = {
            Operation: lambda _, handle: handle,
            Start: lambda task, start: self._begin(task, start.request),
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
        """Run ``program(worker)`` for all workers; return their finished tasks in rank order.

        `start` is the path that led here, if they do not begin at the beginning.
        """
        start = CriticalPath.start(self._transport.now) if start is None else start
        tell(self._observers.began, self._transport)
        tasks = [RankCoroutine(worker, program(worker), start) for worker in workers]
        with ExitStack() as stack:
            stack.callback(self._close_forked)
            for task in tasks:
                stack.callback(task.coroutine.close)
            self._ready.extend((task, None) for task in tasks)
            while True:
                while self._ready:
                    self._resume(*self._ready.popleft())
                if not self._transport.advance():
                    break
                for advanced in self._observers.advanced:
                    advanced()
            self._check_finished([*tasks, *self._forked])
        return tasks

    def _resume(self, task: RankCoroutine[T], answer: Any) -> None:
        while True:
            try:
                request = task.coroutine.send(answer)
            except StopIteration as stop:
                task.finished, task.result = True, stop.value
                if task.end is not None:
                    del self._forked[task]
                    self._finish(task.end, stop.value, task.path)
                return
            if isinstance(request, EXPANDED):
                answer = EXPAND
                continue
            operation = self._begin(task, request)
            if isinstance(request, BESIDE):
                answer = operation
                continue
            if not operation.done:
                operation.tell = partial(self._wake, task)
                task.waits_for, task.blocked_since = operation, self._transport.now
                return
            answer = operation.answer

    def _begin(self, task: RankCoroutine[T], request: Any) -> Operation:
        begin = self._begins.get(type(request))
        if begin is not None:
            return begin(task, request)
        raise ProtocolError(
            f"rank {task.worker.rank} awaited {request!r}, which is not a netsim request: "
            "algorithms await only the requests of netsim.comm.worker"
        )

    def _send(self, task: RankCoroutine[T], request: Send) -> Operation:
        operation = Operation(request)
        message = Message(task.worker.rank, request.payload, task.worker.operation, self._transport.now)
        task.worker.traffic.sent(request.payload)
        channel = self._channels[task.worker.rank, request.dst, request.tag]
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

        callbacks: tuple[Done, Done] = (sent, arrived)
        if self._observers.delivered:
            callbacks = self._observed(task.worker, request, sent, arrived)
        self._transport.carry(task.worker, request, task.path, *callbacks)
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
                    tell(self._observers.delivered, message)
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
        """Begin both; the pair is done when both are, and answers what was received.

        The path is that of the later; of two at one instant, of the message received, whichever is handled first.
        """
        operation = Operation(request)
        received = self._receive(task, request.recv)
        sent = self._send(task, request.send)
        pending = [part for part in (received, sent) if not part.done]
        received_at: tuple[int, CriticalPath] | None = None

        def part_done(_: Any, path: CriticalPath) -> None:
            nonlocal received_at
            if not sent.done:
                received_at = (self._transport.now, path)
            elif received.done:
                if received_at is not None and received_at[0] == self._transport.now:
                    path = received_at[1]
                self._finish(operation, received.answer, path)

        for part in pending:
            part.tell = part_done
        if not pending:
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
        """Run a coroutine beside `task`, at first until it waits for something."""
        operation = Operation(request)
        forked: RankCoroutine[Any] = RankCoroutine(request.worker, request.coroutine, task.path, operation)
        self._forked[forked] = None
        self._resume(forked, None)
        return operation

    def _close_forked(self) -> None:
        for forked in self._forked:
            forked.coroutine.close()

    def _deliver(self, message: Message, operation: Operation, task: RankCoroutine[T]) -> None:
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
            operation.tell = None  # it may refer back here, and payloads must go when they are done with
            tell(answer, path)

    def _wake(self, task: RankCoroutine[T], answer: Any, path: CriticalPath) -> None:
        # If the task was blocked until now, its critical path runs through the event it was waiting for.
        if self._transport.now > task.blocked_since:
            task.path = path
        if self._observers.waited and isinstance(_awaited(task), MESSAGES):
            tell(self._observers.waited, task.worker.rank, task.blocked_since, self._transport.now)
        task.waits_for = None
        self._ready.append((task, answer))

    def _check_finished(self, tasks: Sequence[RankCoroutine[T]]) -> None:
        stuck = [task for task in tasks if not task.finished]
        # Who waits for a coroutine that it forked is told of by that.
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


def _awaited(task: RankCoroutine[Any]) -> Any:
    return None if task.waits_for is None else task.waits_for.request


def _clock(picoseconds: int) -> str:
    return format_duration(picoseconds / PICOSECONDS)
