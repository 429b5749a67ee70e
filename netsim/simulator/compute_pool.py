"""Spares time where ranks of one process compute: equal computations are made once, others together.

:class:`ReplicaMemo` makes a computation only once that all workers repeat with the same arguments. :class:`Backlog`
collects computations until a result is needed. It then makes those of workers at about the same simulated time in one
pass where that is faster, and by several threads if there are any. The simulated charge of a computation depends on
neither.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from functools import partial
from typing import Any

from netsim.comm.payload import Bundle, Dense, SizeOnly, Sparse, is_on_gpu
from netsim.comm.worker import Compute, evaluate

TOGETHER = 32
"""The most computations that are made together in one pass."""

WORTH_A_THREAD = 500 * 10**6
"""Picoseconds of charge from which a computation is worth a thread."""

_BY_IDENTITY = {Dense, Sparse, SizeOnly, Bundle}


def is_long(parts: Iterable[Compute[Any]], charge: int) -> bool:
    """Return whether a computation of these stages, charged in picoseconds, is better made in a :class:`Backlog`."""
    return charge >= WORTH_A_THREAD or any(stage.work == "gradient" for stage in parts)


class Entry:
    """A request of several `stages`; later the future of the thread that answers it, if any; finally its answer."""

    __slots__ = ("answer", "future", "request", "stages")

    def __init__(self, request: Compute[Any], parts: Sequence[Compute[Any]]) -> None:
        self.request: Compute[Any] | None = request
        self.stages = parts
        self.future: Future[None] | None = None
        self.answer: Any = None

    def take(self, answer: Any) -> None:
        """Take note of the answer, and release the arguments of the request."""
        self.answer, self.request, self.stages = answer, None, ()


class Backlog:
    """Requests that are not answered yet; the first answer that is needed makes all of them.

    Parameters
    ----------
    executor
        Its `threads` make the computations, if given.
    """

    def __init__(self, executor: Executor | None = None, threads: int = 1) -> None:
        self._executor = executor
        self._threads = threads
        self._entries: list[Entry] = []
        self._running: set[Future[None]] = set()

    def __repr__(self) -> str:
        return f"Backlog({len(self._entries)} requests held, {len(self._running)} threads compute)"

    def add(self, request: Compute[Any], parts: Sequence[Compute[Any]]) -> Callable[[], Any]:
        """Return a function that returns the answer to a request, whose stages are `parts`; call it exactly once."""
        entry = Entry(request, parts)
        self._entries.append(entry)
        return partial(self._answer, entry)

    def settle(self) -> None:
        """Wait until no thread computes."""
        wait(tuple(self._running))

    def _answer(self, entry: Entry) -> Any:
        if entry.request is not None and entry.future is None:
            self._begin()
        if entry.future is not None:
            entry.future.result()
        answer, entry.answer = entry.answer, None
        return answer

    def _begin(self) -> None:
        """Answer all requests that are held, or hand them to threads."""
        entries, self._entries = self._entries, []
        shared = any(map(_is_faster_together, entries))
        if self._executor is None and not shared:
            for entry in entries:
                assert entry.request is not None
                entry.take(evaluate(entry.request))
            return
        size = min(TOGETHER, -(-len(entries) // self._threads)) if shared else 1
        for first in range(0, len(entries), size):
            batch = entries[first : first + size]
            if self._executor is None:
                make(batch)
                continue
            future = self._executor.submit(make, batch)
            self._running.add(future)
            future.add_done_callback(self._running.discard)
            for entry in batch:
                entry.future = future


def _is_faster_together(entry: Entry) -> bool:
    """Return whether a computation, or one of its stages, is faster together with those of other workers."""
    return any(stage.many is not None or _many_on_gpu(stage) is not None for stage in entry.stages)


def make(entries: Sequence[Entry]) -> None:
    """Answer requests one after another; stages that are faster together are made in one call for all requests."""
    calls: defaultdict[Any, list[tuple[Any, ...]]] = defaultdict(list)
    for entry in entries:
        for stage in entry.stages:
            if stage.many is not None:
                calls[stage.many].append(stage.args)
    results = {many: many(args) for many, args in calls.items()}

    def call(stage: Compute[Any], args: list[Any]) -> Any:
        return stage.function(*args) if stage.many is None else next(results[stage.many])

    def made(entry: Entry) -> tuple[Any, ...]:
        """Return the arguments of an entry's request, after making those that are computations."""
        assert entry.request is not None
        return tuple(evaluate(arg, call) if isinstance(arg, Compute) else arg for arg in entry.request.args)

    alike = {(entry.request.function, _many_on_gpu(entry.request)) for entry in entries if entry.request is not None}
    many = next(iter(alike))[1] if len(alike) == 1 else None
    if many is not None:
        answers: Iterable[Any] = many(map(made, entries))
    else:
        answers = (evaluate(entry.request, call) for entry in entries if entry.request is not None)
    for entry, answer in zip(entries, answers, strict=True):
        entry.take(answer)


def _many_on_gpu(request: Compute[Any]) -> Callable[[Iterable[Any]], Iterator[Any]] | None:
    """Return the function that makes several calls like this one at once, if it has one and its vector is on a GPU."""
    many = getattr(request.function, "many_on_gpu", None)
    return many if many is not None and is_on_gpu(request.args[0]) else None


class ReplicaMemo:
    """The results of replicated computations whose arguments are alive.

    Workers in one process receive the same objects that others sent, so arguments are compared by identity. A worker
    that holds an equal but different object computes for itself. A result is kept as long as all payloads among its
    arguments live.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def __repr__(self) -> str:
        return f"ReplicaMemo({len(self)} results)"

    def __len__(self) -> int:
        return len(self._results)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return ``function(*args)``; equal calls with the same objects compute once."""
        if _BY_IDENTITY.isdisjoint(map(type, args)):
            return function(*args)
        key = (function, *[id(arg) if type(arg) in _BY_IDENTITY else ("value", arg) for arg in args])
        if (known := self._results.get(key)) is not None:
            return known[0]
        result = function(*args)
        payloads = [arg for arg in args if type(arg) in _BY_IDENTITY]
        # The id of a dead argument may be reused, so the entry is removed with its first argument.
        forget = tuple(weakref.ref(payload, lambda _: self._results.pop(key, None)) for payload in payloads)
        self._results[key] = (result, forget)
        return result
