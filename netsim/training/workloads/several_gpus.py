"""A task whose gradients are computed by several GPUs of one machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any

from netsim.comm.payload import Dense, Vector
from netsim.training.workloads.workload import DataParallelTask

IN_FLIGHT = 2
"""Gradients of a GPU that are computed or wait to be used: while one is used, the GPU computes the next one."""


class SeveralGpus(DataParallelTask):
    """A data-parallel task with its vectors on the first GPU, and further GPUs that compute gradients for it.

    GPUs of one model give the same bits, so that it does not matter which of them computes a gradient. A single
    gradient, which is what costs are measured with, is computed on the first one.

    Parameters
    ----------
    beside
        The further GPUs, such as "cuda:1".
    **options
        Those of :class:`DataParallelTask`; the device is the first GPU.
    """

    def __init__(self, beside: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        others = (DataParallelTask(**options | {"device": device}) for device in beside)
        # Kernels of small models take less time than their launches, so each GPU has a thread that launches.
        self._tasks = [(each, ThreadPoolExecutor(1, f"gradients of {each.device}")) for each in (self, *others)]
        self.gpus = len(self._tasks)

    @property
    def shares_passes(self) -> bool:
        """Whether :meth:`gradients` is faster than single calls: yes."""
        return True

    def gradients(self, calls: Sequence[tuple[Vector, int, int]]) -> Iterator[Dense]:
        """Yield the same bits as :meth:`gradient` for each (parameters, rank, step) of `calls`, on the first GPU."""
        moved: dict[tuple[int, str], Dense] = {}
        begun: deque[Future[Dense]] = deque()
        try:
            for call, (task, thread) in zip(calls, cycle(self._tasks), strict=False):
                begun.append(thread.submit(self._computed, task, moved, *call))
                if len(begun) == IN_FLIGHT * self.gpus:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for each in begun:
                each.cancel()

    def _computed(
        self, task: DataParallelTask, moved: dict[tuple[int, str], Dense], parameters: Vector, rank: int, step: int
    ) -> Dense:
        """Return a gradient on the first GPU, computed on that of `task`, to which its parameters were `moved`."""
        assert isinstance(parameters, Dense)
        if (key := (id(parameters), task.device)) not in moved:
            moved[key] = Dense(parameters.values.to(task.device))
        return Dense(task.gradient(moved[key], rank, step).values.to(self.device))
