"""A worker's gradient as a CUDA graph: one launch for all of its kernels, on a stream beside other gradients'."""

from __future__ import annotations

import math
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from netsim.comm.payload import Dense
from netsim.training.buffers import on_device

if TYPE_CHECKING:
    from netsim.training.workloads.task import DataParallelTask

WARM_UP = 3
"""Gradients before the capture: in their first calls cuBLAS and cuDNN allocate memory, which a graph must not."""


class GradientGraph:
    """A CUDA graph of the gradient of a step, with a stream on which it is replayed.

    Its kernels read parameters and sample numbers from fixed places in memory, and write the gradient to another one.
    They are the kernels of :meth:`DataParallelTask.gradient`; whether the bits are the same, the caller compares.

    Parameters
    ----------
    task
        Whose gradient is captured, on a GPU.

    Raises
    ------
    RuntimeError
        For a model that cannot be captured, such as one that reads a value from the GPU in its forward.
    """

    def __init__(self, task: DataParallelTask) -> None:
        # A task holds its graphs. If they held the task, only a garbage collection would free its memory on the GPU.
        self._weak_task = weakref.ref(task)
        self._replica = task.replica()
        self._held: Dense | None = None
        self._flat = task.initial_parameters().values.clone()
        self._row = torch.empty_like(self._flat)
        self._samples = torch.from_numpy(task.batches(0, 0)).to(task.device)
        self._begun = (0, 0)
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream(task.device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(task.device))
        # The context of a capture that fails leaves its stream the current one; this one ends that.
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._sum = self._compute()
            self._stream.synchronize()
            self._capture()

    @property
    def _task(self) -> DataParallelTask:
        task = self._weak_task()
        assert task is not None, "a task outlives its graphs"
        return task

    def _capture(self) -> None:
        pool = torch.cuda.graph_pool_handle()
        try:
            # Other threads may allocate memory during the capture.
            with torch.cuda.graph(self._graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                self._sum = self._compute()
        except Exception:
            # Before torch 2.12, a capture that failed never ended for the allocator of memory, and no other one could
            # begin. Later versions have ended it here, and raise.
            with suppress(RuntimeError, AttributeError):
                torch._C._cuda_endAllocateToPool(torch.device(self._task.device).index, pool)
            raise

    def begin(self, parameters: Dense, rank: int, step: int) -> None:
        """Have the GPU compute the gradient of a worker's step at `parameters` (d,), and do not wait for it."""
        device = self._flat.device
        self._begun = (rank, step)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # which computes parameters, and copies the row
        with torch.cuda.stream(self._stream):
            if parameters is not self._held:
                self._flat.copy_(parameters.values)
                self._held = parameters
            # Allocated for this stream, or another one could reuse the memory before the copy.
            self._samples.copy_(on_device(torch.from_numpy(self._task.batches(rank, step)), device))
            self._graph.replay()

    def finish(self, device: str) -> Dense:
        """Wait for the gradient that was begun, and return a copy (d,) on a GPU.

        Raises
        ------
        NonFiniteGradientError
            If it contains NaN or infinity.
        """
        with torch.cuda.stream(self._stream):
            finite = math.isfinite(float(self._sum))  # waits for this stream only
        row = self._row.to(device, copy=True)
        if not finite:
            self._task.check_finite(row, *self._begun)
        return Dense(row)

    def wait(self) -> None:
        """Wait until the GPU has computed what was begun."""
        self._stream.synchronize()

    def forget_parameters(self) -> None:
        """Copy the parameters at the next gradient, even those of the last one, which may have been changed since."""
        self._held = None

    def _compute(self) -> torch.Tensor:
        """Write the gradient at `_flat` over `_samples`, and return its sum, which is finite only if all of it is."""
        for number, indices in enumerate(self._samples):
            row = torch.empty_like(self._row) if number else self._row
            write, _ = self._replica.passes(self._flat, *self._task.training.take(indices), 1)
            write(0, row)
            if number:
                self._row.add_(row)
        if len(self._samples) > 1:
            self._row.div_(self._row.new_full((), len(self._samples)))
        return self._row.sum()
