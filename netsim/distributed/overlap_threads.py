"""Threads of a rank that overlap computing a gradient with exchanging the pieces of it that are ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import torch

from netsim.comm.payload import Dense, Vector, cut
from netsim.comm.pieces import InPieces, Pieces
from netsim.comm.worker import Handle, evaluate
from netsim.simulator.timeline import Timeline


class ForkedExchange(Handle[Any]):
    """A coroutine that runs to its end in a thread of its own.

    Parameters
    ----------
    run
        Drives the coroutine, and returns its result.
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self._answer: Any = None
        self._error: BaseException | None = None
        self._torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()

    def _drive(self) -> None:
        torch.set_num_threads(self._torch_threads)  # each thread has its own number, which changes bits
        try:
            self._answer = self._run()
        except BaseException as error:
            self._error = error

    def finish(self) -> Any:
        """Wait for the coroutine's end, and return its result or raise its error."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answer


class Backward(Pieces):
    """A gradient that a thread computes; each piece is ready as soon as its tensors are.

    Parameters
    ----------
    request
        The computation, and the pieces of its result.
    executor
        Runs the thread.
    timeline
        Records the computation.
    device
        Device of the computation.
    """

    def __init__(self, request: InPieces, executor: Executor, timeline: Timeline, device: str) -> None:
        self._request, self._timeline, self._device = request, timeline, device
        self._missing = [last - first for first, last in (piece.tensors for piece in request.pieces)]
        self._ready = [threading.Event() for _ in request.pieces]
        self._next = 0
        self._vector: Vector | None = None
        self._error: BaseException | None = None
        executor.submit(self._compute)

    def _compute(self) -> None:
        whole = self._request.whole
        started = time.perf_counter()
        try:
            if whole.gradual is None:
                self._vector = evaluate(whole)
            else:
                self._vector = whole.gradual(self._written, *whole.args)
        except BaseException as error:
            self._error = error
        self._timeline.computed(whole.work, started, time.perf_counter())
        for event in self._ready:
            event.set()

    def _written(self, vector: Vector, tensor: int) -> None:
        self._vector = vector
        for index, piece in enumerate(self._request.pieces):
            if piece.tensors[0] <= tensor < piece.tensors[1]:
                self._missing[index] -= 1
                if not self._missing[index]:
                    if self._device.startswith("cuda"):
                        torch.cuda.synchronize(self._device)
                    self._ready[index].set()

    async def next(self) -> Vector:
        """Wait for the next piece, and return it."""
        piece, event = self._request.pieces[self._next], self._ready[self._next]
        self._next += 1
        event.wait()
        if self._error is not None:
            raise self._error
        assert isinstance(self._vector, Dense)
        return cut(self._vector, piece.first, piece.last)
