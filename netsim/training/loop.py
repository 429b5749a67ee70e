"""The training loop of one rank: the same text in memory, in simulation and on real machines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from netsim.comm.payload import SizeOnly, Vector
from netsim.comm.worker import Compute, Worker
from netsim.training.algorithm import Algorithm, State
from netsim.training.sgd import SGDConfig

Written = Callable[[Vector, int], None]
"""Called with a vector that is not complete, and the number of a tensor that is there."""


class Task(Protocol):
    """What is trained: initial parameters, and each worker's gradients of its own data."""

    def initial_parameters(self) -> Vector:
        """Return the parameters that every worker starts from."""

    def gradient(self, parameters: Vector, rank: int, step: int) -> Vector:
        """Return the gradient of worker `rank`'s mini-batch of `step`, newly made; a pure function."""

    def gradual(self, written: Written, parameters: Vector, rank: int, step: int) -> Vector:
        """Return what :meth:`gradient` returns, bit for bit; call ``written(vector, n)`` when tensor n of it is there.

        Whether it does is the task's own affair: what was not announced is there at the end.
        """
        return self.gradient(parameters, rank, step)

    @property
    def shares_passes(self) -> bool:
        """Whether :meth:`gradients` of several workers at once are faster."""
        return False

    def gradients(self, calls: Sequence[tuple[Vector, int, int]]) -> Iterator[Vector]:
        """Yield what :meth:`gradient` returns for each of `calls`, its arguments, bit for bit."""
        return itertools.starmap(self.gradient, calls)


class TimingOnly(Task):
    """A task without data: vectors of `elements` elements, of which only the size is known."""

    def __init__(self, elements: int) -> None:
        self._vector = SizeOnly(elements)

    def initial_parameters(self) -> SizeOnly:
        return self._vector

    def gradient(self, parameters: Vector, rank: int, step: int) -> Vector:
        return self._vector


class Trained(NamedTuple):
    """What a rank holds after a round, and when training ends."""

    parameters: Vector
    state: State


OnStep = Callable[[Worker, Trained], None]


async def train(
    worker: Worker,
    algorithm: Algorithm,
    task: Task,
    rounds: int,
    recipe: SGDConfig,
    on_round: OnStep | None = None,
    first: int = 0,
    start: Trained | None = None,
) -> Trained:
    """Run `algorithm` on `task` as one rank, from step `first` until there were `rounds`; call `on_round` after each.

    `start` is what the rank held before step `first`, if that is not the first of all.
    """
    if start is None:
        parameters = task.initial_parameters()
        start = Trained(parameters, algorithm.initial_state(parameters))
    parameters, state = start
    del start  # a residual must go when the next one comes

    def gradient(at: Vector) -> Compute[Vector]:
        return Compute(
            "gradient",
            task.gradient,
            (at, worker.rank, worker.step),
            many=task.gradients if task.shares_passes else None,
            gradual=task.gradual,
        )

    for worker.step in range(first, rounds):
        own = gradient if worker.trains else None
        parameters, state = await algorithm.step(worker, parameters, own, recipe, state)
        if on_round is not None:
            on_round(worker, Trained(parameters, state))
    return Trained(parameters, state)
