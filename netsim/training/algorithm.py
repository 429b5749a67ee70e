"""The interface of a distributed-SGD algorithm: an exchange of vectors, and a training step built on it.

A new algorithm is one file in :mod:`algorithms` and one line in its registry. It usually overrides
:meth:`Algorithm.exchange` only: the coroutine by which one rank turns its own vector into the sum over all ranks.

An algorithm object is shared by all ranks and never changes. Whatever a rank remembers between steps, such as a
residual, is an argument of `exchange` and part of its return value. The object can therefore run in the simulator, in
memory and over torch.distributed alike, and a checkpoint can save the memory of each rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from netsim._util.options import Option
from netsim.comm.payload import Vector
from netsim.comm.worker import Compute, Worker
from netsim.training.sgd import Scaled, SGDConfig, descend, prepare, weigh

Gradient: TypeAlias = Callable[[Vector], Compute[Vector]]
"""Maps parameters to the computation of the worker's mini-batch gradient; await it, or pass it to another one."""

Contribution: TypeAlias = Vector | Compute[Vector | Scaled]
"""A worker's input to an exchange: a vector, or the computation that produces it."""


class State(NamedTuple):
    """The state of a rank between steps: the memory of its exchange, and the velocity of momentum."""

    memory: Any
    velocity: Vector | None


class Algorithm:
    """Synchronous SGD: x ← x - (1/P) Σ_p γ g_p. Subclasses implement the exchange that computes the sum.

    Attributes
    ----------
    name, title
        The name on the command line, and the name in tables and sentences; the name of the class by default.
    sparse
        Whether the algorithm selects k of d entries.
    uses_server
        Whether workers exchange through a parameter server.
    grouped
        Whether the constructor takes `groups`: for each rank, the number of its machine, rack or site.
    accumulates
        Whether `exchange` accepts the computation of a vector in place of the vector. The algorithm can then add the
        vector to its residual while computing it, without another pass over memory.
    random
        Whether entries are selected at random instead of by magnitude.
    corrects_momentum
        Whether the constructor takes `momentum_correction`: momentum at each worker, before selection.
    overlaps
        Whether a bucket of the gradient can be exchanged before the rest of the gradient is computed.
    remembers
        The NamedTuple classes of which a memory consists. A checkpoint saves and loads no other classes.
    """

    name: str
    title: str
    options: ClassVar[tuple[Option, ...]] = ()
    """The algorithm's own options, as in ``gtopk:residual=index-intersection``; each is a constructor parameter."""
    sparse: ClassVar[bool] = False
    uses_server: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    accumulates: ClassVar[bool] = False
    random: ClassVar[bool] = False
    corrects_momentum: ClassVar[bool] = False
    overlaps: ClassVar[bool] = True
    remembers: ClassVar[tuple[type, ...]] = ()
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    """What the constructor was given, from which an equal object can be built in another process."""

    def __init_subclass__(cls) -> None:
        for name in ("name", "title"):
            if name not in vars(cls):
                setattr(cls, name, cls.__name__)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Return a new object that remembers the arguments of its constructor."""
        created = super().__new__(cls)
        created.arguments = args, kwargs
        return created

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def initial_memory(self, template: Vector) -> Any:
        """Return the memory before the first exchange; `template` is any vector of d elements."""
        return None

    async def exchange(self, worker: Worker, vector: Any, memory: Any, template: Vector) -> tuple[Vector, Any]:
        """Exchange vectors with all other ranks.

        Parameters
        ----------
        worker
            The rank on which this coroutine runs, and its requests: send, receive, compute.
        vector
            The worker's vector (d,). It may also be a computation of one if the algorithm `accumulates`. It is None at
            a parameter server on a host of its own, which has no data.
        memory
            What this rank remembers from the exchange before.
        template
            Any vector (d,), for its size, type and device.

        Returns
        -------
        total
            The sum of all workers' vectors, possibly compressed; the same on every rank.
        memory
            What this rank remembers for the next exchange.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement exchange")

    def selected(self, size: int, step: int) -> int:
        """Return k, the number of entries of a vector of `size` elements that the exchange at `step` applies."""
        return size

    def residual(self, memory: Any) -> Vector | None:
        """Return the residual in a memory: the sum of vectors not yet applied (d,); None without one."""
        return None

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Make one training step: compute the gradient, exchange it, and move the parameters.

        Parameters
        ----------
        worker
            The rank on which this coroutine runs.
        parameters
            The parameters x (d,) before the step.
        gradient
            The computation of the mini-batch gradient; None at a parameter server on a host of its own.
        recipe
            The hyper-parameters of SGD.
        state
            The state of this rank after the previous step.

        Returns
        -------
        parameters, state
            The parameters, and the state of this rank, after the step.
        """
        vector = None
        if gradient is not None:
            vector = await self.contribution(worker, gradient(parameters), parameters, recipe)
        total, memory = await self.exchange(worker, vector, state.memory, template=parameters)
        return await self.apply(worker, parameters, total, recipe, state._replace(memory=memory))

    async def contribution(
        self, worker: Worker, fresh: Vector | Compute[Vector], parameters: Vector, recipe: SGDConfig
    ) -> Contribution:
        """Return the input to the exchange: γ times the gradient, or its computation if nothing observes it."""
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
        """Return the parameters moved by the exchanged sum, and the state with the new velocity."""
        worker.observe("total", total)
        moved = await worker.replicated(
            "update", descend, parameters, total, state.velocity, recipe, worker.step, worker.workers
        )
        return moved.parameters, state._replace(velocity=moved.velocity)

    def initial_state(self, template: Vector) -> State:
        """Return the state of a rank before the first step."""
        return State(self.initial_memory(template), None)
