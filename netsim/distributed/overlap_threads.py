"""Threads of a rank that overlap computing a gradient with exchanging the pieces of it that are ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import torch

from netsim._util.device import is_gpu, on_own_stream, wait_for_gpu
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
    device
        Device of its vectors. On a GPU, the coroutine's work goes to a stream of its own, beside the backward pass.
    """

    def __init__(self, run: Callable[[], Any], device: str = "cpu") -> None:
        wait_for_gpu(device)  # what the coroutine begins with was computed in this thread
        self._run, self._device = run, device
        self._answer: Any = None
        self._error: BaseException | None = None
        self._torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()

    def _drive(self) -> None:
        torch.set_num_threads(self._torch_threads)  # each thread has its own number, which changes bits
        try:
            with on_own_stream(self._device, urgent=True):
                self._answer = self._run()
                wait_for_gpu(self._device)
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
        self._computed: list[Any] = [None for _ in request.pieces]
        """On a GPU, the event of its stream after which a piece is computed; None if the GPU was waited for."""
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
            wait_for_gpu(self._device)
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
                    if is_gpu(self._device):  # the backward pass goes on; who needs the piece waits for the event
                        self._computed[index] = torch.cuda.current_stream(self._device).record_event()
                    self._ready[index].set()

    async def next(self) -> Vector:
        """Wait for the next piece, and return it."""
        index = self._next
        self._next += 1
        self._ready[index].wait()
        if self._error is not None:
            raise self._error
        if self._computed[index] is not None:
            self._computed[index].synchronize()
        piece = self._request.pieces[index]
        assert isinstance(self._vector, Dense)
        return cut(self._vector, piece.first, piece.last)
