"""What a rank of a real cluster does at the same time: it computes a gradient, and exchanges what is there of it."""

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
    """A coroutine that ``run()`` drives to its end in a thread of its own."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self._answer: Any = None
        self._error: BaseException | None = None
        self._torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()

    def _drive(self) -> None:
        torch.set_num_threads(self._torch_threads)  # it is every thread's own, and changes bits
        try:
            self._answer = self._run()
        except BaseException as error:
            self._error = error

    def finish(self) -> Any:
        """Wait for its end and return its result; raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answer


class Backward(Pieces):
    """A gradient that a thread of `executor` computes, on `device`; each piece is there as soon as its tensors are."""

    def __init__(self, request: InPieces, executor: Executor, timeline: Timeline, device: str) -> None:
        self._request, self._timeline, self._device = request, timeline, device
        self._missing = [last - first for first, last in (piece.tensors for piece in request.pieces)]
        self._there = [threading.Event() for _ in request.pieces]
        self._given = 0
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
        for event in self._there:
            event.set()

    def _written(self, vector: Vector, tensor: int) -> None:
        self._vector = vector
        for number, piece in enumerate(self._request.pieces):
            if piece.tensors[0] <= tensor < piece.tensors[1]:
                self._missing[number] -= 1
                if not self._missing[number]:
                    if self._device.startswith("cuda"):
                        torch.cuda.synchronize(self._device)
                    self._there[number].set()

    async def next(self) -> Vector:
        piece, event = self._request.pieces[self._given], self._there[self._given]
        self._given += 1
        event.wait()
        if self._error is not None:
            raise self._error
        assert isinstance(self._vector, Dense)
        return cut(self._vector, piece.first, piece.last)
