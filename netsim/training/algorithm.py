"""What a distributed-SGD algorithm is: an exchange of vectors, and a step built on it.

A new algorithm is one file in :mod:`algorithms` and one line in its registry. It keeps no state of
its own: state goes in and comes out, one value a rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

from netsim.comm.payload import Vector
from netsim.comm.worker import Compute, Worker
from netsim.training.sgd import Scaled, SGDConfig, descend, prepare, weigh

Gradient: TypeAlias = Callable[[Vector], Compute[Vector]]
"""The gradient of the worker's mini-batch of this step at given parameters; to be awaited, or an argument."""


Contribution: TypeAlias = Vector | Compute[Vector | Scaled]
"""What a worker puts into an exchange, or how it is made."""


class State(NamedTuple):
    """What a rank remembers from step to step: its exchange's memory, and the velocity of momentum."""

    memory: Any
    velocity: Vector | None


class Algorithm:
    """Synchronous SGD: x ← x - (1/P) Σ_p γ g_p, where subclasses say how the sum is exchanged."""

    name: ClassVar[str]
    title: ClassVar[str]
    sparse: ClassVar[bool] = False
    uses_server: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    """Whether it takes `groups`: which ranks share a machine, rack or site."""
    accumulates: ClassVar[bool] = False
    """Whether an exchange takes a vector that is not computed yet, to add it where it is wanted."""
    random: ClassVar[bool] = False
    """Whether the entries that it selects are drawn, and not the largest."""
    corrects_momentum: ClassVar[bool] = False
    """Whether it takes `momentum_correction`: each worker's momentum is applied before its entries are selected."""
    overlaps: ClassVar[bool] = True
    """Whether an exchange of a piece of the gradient may begin before the rest is known."""
    remembers: ClassVar[tuple[type, ...]] = ()
    """The classes, all NamedTuples, that a memory is made of; a checkpoint saves and loads no others."""

    def initial_memory(self, template: Vector) -> Any:
        """Return what an exchange remembers before the first; `template` is any vector of d elements."""
        return None

    async def exchange(self, worker: Worker, vector: Any, memory: Any, template: Vector) -> tuple[Vector, Any]:
        """Return the (possibly compressed) sum of all workers' vectors, and the new memory.

        `vector` is a Vector, or, if the algorithm `accumulates`, any Contribution; None at a server that
        has a host of its own and no data. `template` is any vector of d elements.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it exchanges vectors")

    def selected(self, size: int, step: int) -> int:
        """Return how many of `size` elements an exchange applies at a step."""
        return size

    def residual(self, memory: Any) -> Vector | None:
        """Return the part of a worker's vectors that was not yet applied, None if there is none."""
        return None

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Return the parameters after one step, and the new state; `gradient` is None at a dedicated server."""
        vector = None
        if gradient is not None:
            vector = await self.contribution(worker, gradient(parameters), parameters, recipe)
        total, memory = await self.exchange(worker, vector, state.memory, template=parameters)
        return await self.apply(worker, parameters, total, recipe, state._replace(memory=memory))

    async def contribution(
        self, worker: Worker, fresh: Vector | Compute[Vector], parameters: Vector, recipe: SGDConfig
    ) -> Contribution:
        """Return what a worker puts into the exchange, or, where nobody need see it before, how to make it."""
        gradient = fresh
        if worker.observer is not None:
            gradient = await fresh if isinstance(fresh, Compute) else fresh
            worker.observe("gradient", gradient)
        elif self.accumulates:
            return worker.compute("update", weigh, gradient, parameters, recipe, worker.step)
        return await worker.compute("update", prepare, gradient, parameters, recipe, worker.step)

    async def apply(
        self, worker: Worker, parameters: Vector, total: Vector, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Return the parameters moved by the aggregated vector, and the state with the new velocity."""
        worker.observe("total", total)
        moved = await worker.replicated(
            "update", descend, parameters, total, state.velocity, recipe, worker.step, worker.workers
        )
        return moved.parameters, state._replace(velocity=moved.velocity)

    def initial_state(self, template: Vector) -> State:
        """Return what a rank remembers before the first step."""
        return State(self.initial_memory(template), None)
