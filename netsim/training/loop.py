"""The training loop of one rank: the same code in memory, in the simulator and over torch.distributed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from netsim.comm.payload import SizeOnly, Vector
from netsim.comm.worker import Compute, Worker
from netsim.training.algorithm import Algorithm, State
from netsim.training.sgd import SGDConfig

Written = Callable[[Vector, int], None]
"""Called with an incomplete gradient and the index of a tensor of it that is complete."""


class Task(Protocol):
    """A training task: initial parameters, and the gradient of each worker's data."""

    shapes: tuple[tuple[int, ...], ...] = ()
    """The shape of each tensor of the parameters; empty if the tensors are not known."""

    def initial_parameters(self) -> Vector:
        """Return the parameters that every worker starts from."""

    def gradient(self, parameters: Vector, rank: int, step: int) -> Vector:
        """Return the gradient of worker `rank`'s mini-batch of `step` at `parameters`, as a new vector (d,).

        The function must be pure: equal arguments give equal bits.
        """

    def gradual(self, written: Written, parameters: Vector, rank: int, step: int) -> Vector:
        """Return the same bits as :meth:`gradient`, and call ``written(vector, n)`` once tensor n is complete.

        Calling `written` is optional; tensors not reported are available when the function returns.
        """
        return self.gradient(parameters, rank, step)

    @property
    def shares_passes(self) -> bool:
        """Whether one call of :meth:`gradients` is faster than one call of :meth:`gradient` per worker."""
        return False

    def gradients(self, calls: Sequence[tuple[Vector, int, int]]) -> Iterator[Vector]:
        """Yield the same bits as :meth:`gradient` for each of `calls`, tuples of its arguments."""
        return itertools.starmap(self.gradient, calls)


class TimingOnly(Task):
    """A task without data, for simulations of times only: its vectors are sizes of `elements` elements."""

    def __init__(self, elements: int, shapes: tuple[tuple[int, ...], ...] = ()) -> None:
        self._vector = SizeOnly(elements)
        self.shapes = shapes

    def initial_parameters(self) -> SizeOnly:
        """Return the size of the parameters."""
        return self._vector

    def gradient(self, parameters: Vector, rank: int, step: int) -> Vector:
        """Return the size of a gradient, which equals the size of the parameters."""
        return self._vector


class Trained(NamedTuple):
    """The parameters and the state of a rank after a round."""

    parameters: Vector
    state: State


OnStep = Callable[[Worker, Trained], None]
"""Called on a rank after each of its rounds."""


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
    """Train as one rank.

    Parameters
    ----------
    worker
        The rank; its `step` counts the rounds.
    algorithm, task, recipe
        How vectors are exchanged, what is trained, and the hyper-parameters of SGD.
    rounds
        The number of rounds of the whole run.
    on_round
        Called after each round.
    first
        The first step to run; above 0 after a checkpoint.
    start
        The parameters and state before step `first`; None at the start of a run.

    Returns
    -------
    Trained
        The parameters and the state after the last round.
    """
    if start is None:
        parameters = task.initial_parameters()
        start = Trained(parameters, algorithm.initial_state(parameters))
    parameters, state = start
    del start  # otherwise the first residual would stay in memory beside the current one

    many = task.gradients if task.shares_passes else None

    def gradient(parameters: Vector) -> Compute[Vector]:
        return Compute(
            "gradient",
            task.gradient,
            (parameters, worker.rank, worker.step),
            many=many,
            gradual=task.gradual,
        )

    for worker.step in range(first, rounds):
        local_gradient = gradient if worker.trains else None
        parameters, state = await algorithm.step(worker, parameters, local_gradient, recipe, state)
        if worker.step == rounds - 1:
            state = await algorithm.settle(worker, state)
        if on_round is not None:
            on_round(worker, Trained(parameters, state))
    return Trained(parameters, state)
