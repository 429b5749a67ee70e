"""Error feedback: what sparse algorithms that send k of d entries share."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from algorithms.compression import Selected, accelerate, accumulate_and_select, without
from algorithms.selection import Selector
from netsim.algorithm import Algorithm
from netsim.payload import Sparse, Vector
from netsim.sgd import zeros
from netsim.worker import Worker


class Feedback(NamedTuple):
    """What a worker did not send yet, and its own velocity under momentum correction."""

    residual: Vector
    velocity: Vector | None = None


class ErrorFeedback(Algorithm):
    """An algorithm whose workers send the selected entries and keep the rest as a residual.

    With `momentum_correction` μ each worker's momentum is applied before selection, and cleared where
    its entries were sent (momentum factor masking), as in Deep Gradient Compression.
    """

    sparse: ClassVar[bool] = True
    remembers: ClassVar[tuple[type, ...]] = (Feedback,)

    def __init__(self, selector: Selector, momentum_correction: float = 0.0) -> None:
        self.selector = selector
        self.momentum_correction = momentum_correction

    def initial_memory(self, like: Vector) -> Feedback:
        assert not isinstance(like, Sparse)
        return Feedback(zeros(like))

    def selected(self, size: int, step: int) -> int:
        return self.selector.at(step, size).k

    def residual(self, memory: Feedback) -> Vector:
        return memory.residual

    async def select(self, worker: Worker, residual: Vector, vector: Vector, selector: Selector) -> Selected:
        """Return the entries of residual + vector to send, and the rest."""
        return await worker.compute("select", accumulate_and_select, residual, vector, selector)

    async def compress(self, worker: Worker, vector: Vector, memory: Feedback) -> tuple[Vector, Feedback]:
        """Return the entries to send, and the memory without them."""
        velocity = vector
        if memory.velocity is not None:
            velocity = await worker.compute("select", accelerate, memory.velocity, vector, self.momentum_correction)
        selector = self.selector.at(worker.step, vector.size)
        worker.observe("accumulated", memory.residual, velocity)
        local, residual = await self.select(worker, memory.residual, velocity, selector)
        if not self.momentum_correction:
            return local, Feedback(residual)
        return local, Feedback(residual, await worker.compute("select", without, velocity, local))
