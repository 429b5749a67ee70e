"""Rehearsal of a user's algorithm before a run: two steps of up to four ranks in memory, which check the rules.

A broken rule ends in one line that names the rule, the file and the line: a payload that was changed after other ranks
could hold it, a request or its handle that was not awaited, a function of payloads without a size rule, ranks that end
with different sums, a deadlock, and any other error of the user's code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, replace
from functools import lru_cache
from types import FrameType
from typing import Any, NamedTuple

from algorithms import class_of, is_users
from algorithms.own import place_of
from netsim._util.errors import DeadlockError, NetsimError, UsageError, text_of
from netsim._util.random_streams import Stream, generator
from netsim._util.user_code import is_users_file, short, where
from netsim.comm.payload import Dense, Payload, Vector, describe, has_size_rule, is_in_place
from netsim.comm.worker import Collective, Compute, Fork, Send, SendRecv, Start, Worker, stages
from netsim.experiment.configuration import Experiment
from netsim.network.effects import NONE
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.workers import make_workers
from netsim.training.loop import Task, TimingOnly, Trained, train

RANKS, ELEMENTS, STEPS, DENSITY = 4, 1000, 2, 0.1
"""The extent of a rehearsal, and the density of sparse algorithms in it."""

UNCHANGED = "a payload never changes, because other ranks may hold it: make a new one"


def rehearse(experiment: Experiment) -> None:
    """Try users' algorithms with values, and for a timing-only run with sizes; raise UsageError for a broken rule."""
    if not any(map(is_users, experiment.algorithms)):
        return
    few = replace(
        experiment,
        workers=min(RANKS, experiment.workers),
        effects=NONE,
        k=None,
        density=DENSITY,
        density_warmup=0,
        per_tensor=False,
        overlap=None,
        ready=None,
        elements=None,
        model=None,
    )
    _rehearse_once(few, tuple(map(class_of, few.algorithms)))


@lru_cache(maxsize=64)
def _rehearse_once(few: Experiment, classes: tuple[Any, ...]) -> None:
    """Rehearse, unless the same classes passed before; the classes are new if their file changed."""
    for name in filter(is_users, few.algorithms):
        _try_out(few, name, RandomGradients(ELEMENTS))
        if few.timing_only:
            _try_out(few, name, TimingOnly(ELEMENTS))


class RandomGradients(Task):
    """A task whose gradients are random numbers; its parameters start at 0."""

    def __init__(self, elements: int) -> None:
        self._elements = elements

    def initial_parameters(self) -> Dense:
        """Return zeros (d,)."""
        import torch

        return Dense(torch.zeros(self._elements))

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        """Return normal random numbers (d,) that depend on rank and step."""
        import torch

        random = generator(0, Stream.REHEARSAL, rank, step)
        return Dense(torch.from_numpy(random.standard_normal(self._elements)).float())


class PayloadChangedError(UsageError):
    """A payload was changed that several ranks may hold."""


def _try_out(experiment: Experiment, name: str, task: Task) -> None:
    """Try an algorithm; if it changes a payload, try it again line by line, to name the line that does."""
    try:
        _attempt(experiment, name, task, RuleWatch(f"algorithm {name!r}"))
    except PayloadChangedError:
        watch = RuleWatch(f"algorithm {name!r}")
        with watch.line_by_line():
            _attempt(experiment, name, task, watch)
        raise


def _attempt(experiment: Experiment, name: str, task: Task, watch: RuleWatch) -> None:
    algorithm = experiment.algorithm(name, (ELEMENTS,))
    workers = [WatchedWorker(each, watch) for each in make_workers(algorithm, experiment.workers, experiment.servers)]
    recipe = experiment.recipe(name)

    def program(worker: Worker) -> Any:
        return WatchedCoroutine(watch, worker.rank, train(worker, algorithm, task, STEPS, recipe))

    try:
        tasks = RankScheduler[Trained](InMemoryTransport()).run(workers, program)
    except DeadlockError as error:
        watch.check_awaited()
        raise UsageError(f"{watch.subject}: {error}") from error
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise watch.blamed(error) from error
    watch.check_awaited()
    watch.check_handles()
    _check_equal(watch.subject, [each.result for each in tasks if each.worker.trains])


def _check_equal(subject: str, results: list[Trained | None]) -> None:
    import torch

    parameters = [each.parameters for each in results if each is not None]
    values = [each.values for each in parameters if isinstance(each, Dense)]
    for rank, each in enumerate(values):
        if not torch.equal(each, values[0]):
            raise UsageError(
                f"{subject}: rank {rank} ends a rehearsal with other parameters than rank 0; exchange must return the "
                "same sum on every rank, added in the same order"
            )


class Held(NamedTuple):
    """A payload that several ranks may hold, with its description and its version."""

    payload: Payload
    what: str
    version: int


class Made(NamedTuple):
    """A request that user code made, its method, and the place in the code."""

    request: Any
    method: str
    place: str


class RuleWatch:
    """Watches the coroutines of all ranks: the payloads that they share, and the requests that they make."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.last: Any = None
        self._held: dict[int, Held] = {}
        self._made: list[Made] = []
        self._awaited: dict[int, Any] = {}
        self._handles: list[tuple[Any, Any]] = []
        self._place = ""

    def made(self, request: Any, method: str, frame: FrameType | None) -> Any:
        """Note a request that user code made, and return it."""
        if frame is not None and is_users_file(frame.f_code.co_filename):
            self._made.append(Made(request, method, f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"))
        return request

    def requested(self, rank: int, request: Any, place: str) -> None:
        """Note a request that a rank awaits, with its parts, and the payloads that others hold from now on."""
        self.last, self._place = request, place
        for part in _parts(request):
            self._awaited[id(part)] = part  # kept, so that no later request has its id
            if isinstance(part, Send):
                payload = part.payload
                what = f"{describe(payload)} that rank {rank} sent to rank {part.dst}{place}"
                self._held.setdefault(id(payload), Held(payload, what, payload.version()))

    def answered(self, request: Any, answer: Any, place: str) -> None:
        """Note the handle that a rank gets, and the payloads of a result that an interpreter gives to every rank."""
        if isinstance(request, Start | Fork):
            self._handles.append((request, answer))
        elif isinstance(request, Collective) or (isinstance(request, Compute) and request.replicated):
            for payload in _payloads(answer):
                what = f"{describe(payload)} that every rank has as a result{place}"
                self._held.setdefault(id(payload), Held(payload, what, payload.version()))

    def check_unchanged(self, by: str) -> None:
        """Raise UsageError if a payload that several ranks may hold was changed since the last check, `by` whom."""
        for held in self._held.values():
            if held.payload.version() != held.version:
                raise PayloadChangedError(f"{self.subject}: {held.what} was changed {by}; {UNCHANGED}")

    @contextmanager
    def line_by_line(self) -> Iterator[None]:
        """Compare payloads after every line of user code inside the block, too."""
        line = ""

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal line
            if not is_users_file(frame.f_code.co_filename):
                return None
            if event != "call":
                self.check_unchanged(f"at {line}")
            line = f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def check_awaited(self) -> None:
        """Raise UsageError for a request that was made and never awaited."""
        for request, method, place in self._made:
            if id(request) not in self._awaited:
                raise UsageError(
                    f"{self.subject}: worker.{method} at {place} was not awaited, so it never happens; write await "
                    f"worker.{method}(...)"
                )

    def check_handles(self) -> None:
        """Raise UsageError for what user code began and never finished by awaiting its handle."""
        made = {id(each.request): each for each in self._made}
        for request, handle in self._handles:
            if id(request) in made and id(handle) not in self._awaited:
                _, method, place = made[id(request)]
                raise UsageError(
                    f"{self.subject}: the handle of worker.{method} at {place} was not awaited: a real rank may "
                    f"lose the message then; write handle = await worker.{method}(...), and await handle later"
                )

    def blamed(self, error: BaseException) -> UsageError:
        """Return the error of user code, with the rule that it breaks if one explains it."""
        last, place = self.last, where(error) or self._place
        cause = f"{type(error).__name__} ({text_of(error)})"
        sizes = "SizeOnly" in str(error) or "SizeOnly" in _argument_types(last)
        if isinstance(error, NetsimError):
            return UsageError(f"{self.subject}: {error}{place}")
        if sizes and isinstance(last, Compute) and not has_size_rule(last.function):
            name = getattr(last.function, "__name__", "a function")
            return UsageError(
                f"{self.subject}: {name}{place_of(last.function)} has no size_rule, and --timing-only computes sizes "
                f"alone ({cause}{place}); add @size_rule(lambda ...: SizeOnly(...)), the size of its result"
            )
        if sizes:
            return UsageError(
                f"{self.subject}: {cause}{place}; with --timing-only a payload has a size and no values, so read "
                "values only in functions given to worker.compute"
            )
        rule = f"; {UNCHANGED}" if isinstance(error, FrozenInstanceError) else ""
        return UsageError(f"{self.subject}: {cause} in its exchange{place}{rule}")


def _argument_types(request: Any) -> set[str]:
    if not isinstance(request, Compute):
        return set()
    return {type(arg).__name__ for stage in stages(request) for arg in stage.args}


def _parts(request: Any) -> list[Any]:
    """Return a request and the requests that it consists of."""
    if isinstance(request, SendRecv):
        return [request, request.send, request.recv]
    if isinstance(request, Start):
        return [request, *_parts(request.request)]
    return [*stages(request)] if isinstance(request, Compute) else [request]


def _payloads(answer: Any) -> Iterator[Payload]:
    """Return the payloads of an answer, also those in its tuples and lists."""
    if isinstance(answer, Payload):
        yield answer
    elif isinstance(answer, tuple | list):
        for each in answer:
            yield from _payloads(each)


class WatchedCoroutine:
    """A rank's coroutine as the scheduler runs it. Before and after each of its stretches, payloads are compared."""

    def __init__(self, watch: RuleWatch, rank: int, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._watch, self._rank, self._coroutine = watch, rank, coroutine
        self._request: Any = None

    def send(self, answer: Any) -> Any:
        """Run the coroutine until its next request."""
        self._watch.check_unchanged(_by_function(self._watch.last))
        before = _line(self._coroutine)
        self._watch.answered(self._request, answer, f" at {before}" if before else "")
        try:
            request = self._coroutine.send(answer)
        except StopIteration:
            self._watch.check_unchanged(f"by rank {self._rank} after {before or 'its first line'}")
            raise
        self._request, now = request, _line(self._coroutine)
        self._watch.check_unchanged(f"by rank {self._rank} between {before or 'its first line'} and {now}")
        self._watch.requested(self._rank, request, f" at {now}" if now else "")
        if isinstance(request, Fork):
            watched: Any = WatchedCoroutine(self._watch, self._rank, request.coroutine)
            return Fork(request.worker, watched)
        return request

    def close(self) -> None:
        """End the coroutine."""
        self._coroutine.close()


def _by_function(request: Any) -> str:
    if not isinstance(request, Compute):
        return "by a rank"
    changing = [stage.function for stage in stages(request)]
    function = next((each for each in changing if is_in_place(each)), changing[-1])
    return f"by {getattr(function, '__name__', 'a function')}{place_of(function)}"


def _line(coroutine: Any) -> str:
    """Return FILE:LINE of the innermost line of user code at which a coroutine waits; empty text without one."""
    place = ""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None and is_users_file(frame.f_code.co_filename):
            place = f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return place


REQUESTS = ("send", "recv", "sendrecv", "start_send", "start_recv", "fork", "compute", "replicated")
"""The methods of a worker that return a request."""


class WatchedWorker(Worker):
    """A worker that notes the requests which user code makes."""

    __slots__ = ("_watch",)

    def __init__(self, worker: Worker, watch: RuleWatch) -> None:
        super().__init__(worker.rank, worker.workers, worker.server)
        self._watch = watch


def _noting(method: str) -> Callable[..., Any]:
    plain = getattr(Worker, method)

    def call(self: WatchedWorker, *args: Any, **kwargs: Any) -> Any:
        return self._watch.made(plain(self, *args, **kwargs), method, sys._getframe(1))

    call.__name__, call.__doc__ = method, plain.__doc__
    return call


for _method in REQUESTS:
    setattr(WatchedWorker, _method, _noting(_method))
