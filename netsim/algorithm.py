"""What a distributed-SGD algorithm is: an exchange of vectors, and a step built on it.

A new algorithm is one file in :mod:`algorithms` and one line in its registry. It keeps no state of
its own: state goes in and comes out, one value a worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeAlias

from netsim.payload import Dense, SizeOnly, Sparse, Vector, size_rule
from netsim.worker import Worker

Gradient: TypeAlias = Callable[[Vector], Awaitable[Vector]]
"""The gradient of the worker's mini-batch of this step at given parameters."""


class Algorithm:
    """Synchronous SGD: x ← x - (1/P) Σ_p γ g_p, where subclasses say how the sum is exchanged."""

    name: ClassVar[str]
    title: ClassVar[str]
    sparse: ClassVar[bool] = False
    uses_server: ClassVar[bool] = False

    def initial_state(self, like: Vector) -> Any:
        """Return what a worker remembers before the first step; `like` is any vector of d elements."""
        return None

    async def exchange(self, worker: Worker, vector: Vector, state: Any) -> tuple[Vector, Any]:
        """Return the (possibly compressed) sum of all workers' vectors, and the new state."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it exchanges vectors")

    async def serve(self, worker: Worker, like: Vector) -> Vector:
        """Take part as a server that has a host of its own and no data; return the sum."""
        raise NotImplementedError(f"{type(self).__name__} uses no server")

    def residual(self, state: Any) -> Vector | None:
        """Return the part of a worker's vectors that was not yet applied, None if there is none."""
        return None

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient, learning_rate: float, state: Any
    ) -> tuple[Vector, Any]:
        """Return the parameters after one step, and the new state.

        The learning rate multiplies the gradient before the exchange (gTop-k paper, algorithm 1,
        line 3), so that a residual keeps the rate that its gradient was computed under.
        """
        fresh = await gradient(parameters)
        vector = await worker.compute("update", scale, fresh, learning_rate)
        total, state = await self.exchange(worker, vector, state)
        return await worker.replicated("update", descend, parameters, total, worker.workers), state


class ErrorFeedback(Algorithm):
    """An algorithm that sends k of d entries and keeps the rest as a residual, its only state."""

    sparse: ClassVar[bool] = True

    def __init__(self, k: int) -> None:
        self.k = k

    def initial_state(self, like: Vector) -> Vector:
        assert not isinstance(like, Sparse)
        return zeros(like)

    def residual(self, state: Vector) -> Vector:
        return state


@size_rule(lambda vector, factor: vector)
def scale(vector: Dense, factor: float) -> Dense:
    """Return ``factor * vector``."""
    return Dense(vector.values * factor)


@size_rule(lambda like: like)
def zeros(like: Dense | SizeOnly) -> Dense | SizeOnly:
    """Return the zero vector of the size, type and device of `like`."""
    assert isinstance(like, Dense)
    return Dense(like.values.new_zeros(like.size))


@size_rule(lambda parameters, total, workers: parameters)
def descend(parameters: Dense, total: Dense | Sparse, workers: int) -> Dense:
    """Return ``parameters - total / workers`` (gTop-k paper, algorithm 1, line 6)."""
    if isinstance(total, Dense):
        return Dense(parameters.values - total.values / workers)
    moved = parameters.values.clone()
    moved[total.indices.long()] -= total.values / workers
    return Dense(moved)
