"""Error feedback, the common part of sparse algorithms that send k of d entries.

A worker adds its gradient to a residual, sends the k selected entries of the sum, and keeps the rest as the next
residual. No part of a gradient is lost, only delayed (gTop-k paper, algorithm 1, lines 3 to 5). If messages hold 16-bit
values, the residual also keeps what rounding takes from the sent entries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, NamedTuple, TypeAlias

from algorithms.compression import Selected, accelerate, accumulate_and_select, round_selected, without
from algorithms.selection import Selector
from netsim.comm.payload import Sparse, Vector
from netsim.comm.worker import Compute, Worker
from netsim.training.algorithm import Algorithm, Contribution, Convergence
from netsim.training.sgd import SGDConfig, zeros

Select: TypeAlias = Callable[[Worker, Vector, Contribution, Selector], Awaitable[Selected]]
"""Selects entries of residual + vector, as :meth:`ErrorFeedback.select` does."""


class Feedback(NamedTuple):
    """The memory of a worker: the residual not sent yet (d,), and the velocity (d,) under momentum correction."""

    residual: Vector
    velocity: Vector | None = None


class ErrorFeedback(Algorithm):
    """An algorithm whose workers send the selected entries and keep the rest as a residual.

    Parameters
    ----------
    selector
        Which entries are selected.
    momentum_correction
        μ of the momentum that each worker applies before selection. The velocity of a sent entry is set to 0 (momentum
        factor masking). If the learning rate changes over time, pass the :class:`~netsim.training.sgd.SGDConfig` with
        momentum μ instead, because the velocity contains the rate.

    References
    ----------
    Lin et al., Deep Gradient Compression, ICLR 2018: momentum correction and momentum factor masking.
    """

    sparse: ClassVar[bool] = True
    convergence: ClassVar[Convergence] = Convergence.FEEDBACK
    accumulates: ClassVar[bool] = True
    corrects_momentum: ClassVar[bool] = True
    half_precision: ClassVar[bool] = True
    rounds: ClassVar[bool] = True
    remembers: ClassVar[tuple[type, ...]] = (Feedback,)

    def __init__(self, selector: Selector, momentum_correction: SGDConfig | float = 0.0) -> None:
        self.selector = selector
        if not isinstance(momentum_correction, SGDConfig):
            momentum_correction = SGDConfig(1.0, momentum=momentum_correction)
        self._corrected = momentum_correction

    def initial_memory(self, template: Vector) -> Feedback:
        """Return a residual of zeros, and a velocity of zeros under momentum correction."""
        assert not isinstance(template, Sparse)
        return Feedback(zeros(template), zeros(template) if self._corrected.momentum else None)

    def selected(self, size: int, step: int) -> int:
        """Return k at `step`."""
        return self.selector.at(step, size).k

    def residual(self, memory: Feedback) -> Vector:
        """Return the residual (d,)."""
        return memory.residual

    async def select(self, worker: Worker, residual: Vector, vector: Contribution, selector: Selector) -> Selected:
        """Return the entries of residual + vector to send, and the rest as the new residual."""
        return await worker.compute("select", accumulate_and_select, residual, vector, selector)

    async def compress(
        self, worker: Worker, vector: Contribution, memory: Feedback, select: Select | None = None
    ) -> tuple[Vector, Feedback]:
        """Return the entries to send, and the memory with these entries removed; `select` replaces :meth:`select`."""
        velocity = memory.velocity
        if velocity is not None:
            momentum = self._corrected.momentum_at(worker.step)
            vector = velocity = await worker.compute("update", accelerate, velocity, vector, momentum)
        if worker.observer is not None and not isinstance(vector, Compute):
            worker.observe("accumulated", memory.residual, vector)
        selector = self.selector.at(worker.step, memory.residual.size)
        local, residual = await (select or self.select)(worker, memory.residual, vector, selector)
        if self.precision != "fp32":
            local, residual = await worker.compute("update", round_selected, residual, local, self.precision)
        if velocity is not None:
            velocity = await worker.compute("update", without, velocity, local)
        return local, Feedback(residual, velocity)
