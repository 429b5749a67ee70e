"""A task whose gradients are computed by one GPU, or by several of one machine."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import cycle, islice
from typing import Any

import torch

from netsim.comm.payload import Dense, Vector
from netsim.training.workloads.gradient_graph import GradientGraph
from netsim.training.workloads.task import DataParallelTask

logger = logging.getLogger(__name__)

GRAPHS = 4
"""CUDA graphs of a GPU, which it replays at the same time: a gradient of a small model does not fill it."""
GRAPHS_LONG = 2
"""The same for vectors of more than LONG elements, whose parameters and gradients take memory for each."""
LONG = 2**23

Call = tuple[Vector, int, int]
"""Parameters, rank and step of a gradient."""


class GpuTask(DataParallelTask):
    """A data-parallel task with its vectors on a GPU, and perhaps further GPUs that compute gradients for it.

    CUDA graphs compute the gradients of several workers at the same time (:class:`GradientGraph`). The first gradient
    of each graph is compared with one that was launched kernel by kernel. If the bits differ, or the model cannot be
    captured, all gradients are launched kernel by kernel.

    A single gradient, which is what costs are measured with, is computed on the first GPU without a graph, as a rank
    of ``netsim run`` computes it.

    Parameters
    ----------
    beside
        Further GPUs of the model of the first one, such as "cuda:1"; they give the same bits.
    **options
        Those of :class:`DataParallelTask`; the device is the first GPU.
    """

    def __init__(self, beside: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self._beside = [DataParallelTask(**options | {"device": device}) for device in beside]
        self.at_once = len(self._tasks) * (GRAPHS if self.elements <= LONG else GRAPHS_LONG)
        self.graphs: list[GradientGraph] | None = None
        """The graphs; none if they cannot be used, and None until several gradients are asked for."""

    @property
    def _tasks(self) -> list[DataParallelTask]:
        """The task of each GPU, this one first."""
        return [self, *self._beside]

    @property
    def shares_passes(self) -> bool:
        """Whether :meth:`gradients` is faster than single calls: yes."""
        return True

    def gradients(self, calls: Sequence[Call]) -> Iterator[Dense]:
        """Return the same bits as :meth:`gradient` for each (parameters, rank, step) of `calls`, on the first GPU."""
        if len(calls) == 1:
            return super().gradients(calls)
        if self.graphs is None or 0 < len(self.graphs) < min(self.at_once, len(calls)):
            self.graphs = self._more_graphs(calls)
        if self.graphs:
            return self._replayed(self.graphs, calls)
        return super().gradients(calls) if len(self._tasks) == 1 else self._by_threads(calls)

    def _more_graphs(self, calls: Sequence[Call]) -> list[GradientGraph]:
        """Return the graphs and new ones that give the bits of :meth:`gradient`; none if one of them does not."""
        graphs = self.graphs or []
        try:
            for task, call in islice(zip(cycle(self._tasks), calls, strict=False), len(graphs), self.at_once):
                graphs.append(GradientGraph(task))
                graphs[-1].begin(*_dense(call))
                if not torch.equal(graphs[-1].finish(self.device).values, self.gradient(*call).values):
                    raise RuntimeError("its bits differ")
        except Exception as error:  # by the model or the driver; a fault of the model comes again without a graph
            # What ends a capture says only that it failed; its context is the operator's error.
            reason = str(error.__context__ or error).partition("\n")[0]
            logger.warning(
                "gradients are launched kernel by kernel, which takes longer: a CUDA graph cannot be used (%s)", reason
            )
            return []
        return graphs

    def _replayed(self, graphs: Sequence[GradientGraph], calls: Sequence[Call]) -> Iterator[Dense]:
        """Yield the gradients of `calls`, of which as many are computed at once as there are graphs."""
        begun: deque[GradientGraph] = deque()
        for graph in graphs:
            graph.forget_parameters()
        try:
            for graph, call in zip(cycle(graphs), calls, strict=False):
                # The graph that has to begin is the one that began first.
                gradient = begun.popleft().finish(self.device) if len(begun) == len(graphs) else None
                graph.begin(*_dense(call))
                begun.append(graph)
                if gradient is not None:
                    yield gradient
            while begun:
                yield begun.popleft().finish(self.device)
        finally:
            for graph in begun:
                graph.wait()

    def _by_threads(self, calls: Sequence[Call]) -> Iterator[Dense]:
        """Yield the gradients of `calls`, whose kernels a thread for each GPU launches."""
        moved: dict[tuple[int, str], Dense] = {}
        begun: deque[Future[Dense]] = deque()
        try:
            for call, (task, thread) in zip(calls, cycle(zip(self._tasks, self._threads, strict=True)), strict=False):
                begun.append(thread.submit(self._computed, task, moved, *_dense(call)))
                if len(begun) == 2 * len(self._tasks):  # while one is used, its GPU computes the next one
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for each in begun:
                each.cancel()

    @cached_property
    def _threads(self) -> list[ThreadPoolExecutor]:
        # Kernels of small models take less time than their launches, so each GPU has a thread that launches.
        return [ThreadPoolExecutor(1, f"gradients of {task.device}") for task in self._tasks]

    def _computed(
        self, task: DataParallelTask, moved: dict[tuple[int, str], Dense], parameters: Dense, rank: int, step: int
    ) -> Dense:
        """Return a gradient on the first GPU, computed on that of `task`, to which its parameters were `moved`."""
        if (key := (id(parameters), task.device)) not in moved:
            moved[key] = Dense(parameters.values.to(task.device))
        return Dense(task.gradient(moved[key], rank, step).values.to(self.device))


def _dense(call: Call) -> tuple[Dense, int, int]:
    parameters, rank, step = call
    assert isinstance(parameters, Dense)
    return parameters, rank, step
