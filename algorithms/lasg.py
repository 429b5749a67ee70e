"""LASG, lazily aggregated stochastic gradients: two rules that workers evaluate, and one that the server evaluates."""

from __future__ import annotations

import math
from typing import NamedTuple

from algorithms.lazy import Lazy, LazyMemory, TriggerDecision, gradient_distance, squared_distance
from algorithms.server import SKIP, upload
from netsim.comm.collectives import scatter
from netsim.comm.payload import Bundle, Dense, Flag, SizeOnly, Vector, size_rule, subtract
from netsim.comm.worker import Worker
from netsim.training.algorithm import Gradient, State
from netsim.training.sgd import SGDConfig, prepare

C = 0.1
"""c of the LASG papers: α_d = c / γ²."""


class DifferenceOnOneBatch(Lazy):
    """A worker uploads if ‖∇f_m(ω^t; ξ^t) - ∇f_m(ω^{t-τ}; ξ^t)‖² exceeds the limit, both on the current batch.

    The rule costs a second gradient in every step in which it is evaluated.

    References
    ----------
    SASG paper, eq. (6).
    """

    async def evaluate_trigger(
        self, worker: Worker, parameters: Vector, fresh: Vector, gradient: Gradient, memory: LazyMemory, asked: bool
    ) -> TriggerDecision:
        """Return the distance between the gradients at the current parameters and at those of the last upload."""
        if not asked:
            return TriggerDecision(math.inf)
        stale = await gradient(memory.old)
        return TriggerDecision(await worker.compute("select", gradient_distance, fresh, stale))


class _Published(Lazy):
    def weight(self, rate: float) -> float:
        return (C / rate if self.alpha is None else self.alpha) / rate


class LASGWK2(_Published, DifferenceOnOneBatch):
    """LASG-WK2: rule (6) on dense gradients."""

    name = "lasg-wk2"
    title = "LASG-WK2"
    colour = "#7f7f7f"
    exchanges = "`lag` by the difference of two gradients on one mini-batch"
    sends = "d values per upload"


class LASGWK1(_Published):
    """LASG-WK1: compares the corrected gradients ∇f(ω; ξ) - ∇f(ω̃; ξ) of this step and of the last upload.

    The snapshot ω̃ of the parameters is taken every D steps. The correction costs a second gradient in every step.
    """

    name = "lasg-wk1"
    title = "LASG-WK1"
    colour = "#6c6078"
    exchanges = "`lag` by the difference of two gradients that a snapshot of the parameters corrects"
    sends = "d values per upload"

    async def evaluate_trigger(
        self, worker: Worker, parameters: Vector, fresh: Vector, gradient: Gradient, memory: LazyMemory, asked: bool
    ) -> TriggerDecision:
        """Return the distance between this corrected gradient and that of the last upload."""
        snapshot = parameters if worker.step % self.history == 0 else memory.snapshot
        assert snapshot is not None
        corrected = await worker.compute("select", subtract, fresh, await gradient(snapshot))
        distance = math.inf
        if asked and memory.reference is not None:
            distance = await worker.compute("select", gradient_distance, corrected, memory.reference)
        return TriggerDecision(distance, reference=corrected, snapshot=snapshot)


class Known(NamedTuple):
    """The server's record of a worker: the parameters at its last upload, and its skips since then."""

    old: Vector
    skipped: int


class ServerMemory(NamedTuple):
    """The memory of a rank under LASG-PS: `known` is kept by the server, the estimate `smoothness` of L by a worker."""

    old: Vector
    smoothness: float = 0.0
    known: tuple[Known, ...] = ()
    movements: tuple[float, ...] = ()
    latest: tuple[Bundle, ...] = ()


class LASGPS(_Published):
    """LASG-PS: the server asks worker m for an upload if L_m² ‖ω^t - ω^{t-τ}‖² exceeds the limit.

    A worker that is not asked computes nothing. A worker that is asked estimates L_m as the largest
    ‖∇f(ω) - ∇f(ω_old)‖ / ‖ω - ω_old‖ so far, both gradients on one batch, and sends L_m with its gradient.
    """

    name = "lasg-ps"
    title = "LASG-PS"
    colour = "#6c6054"
    exchanges = "`lag` by the movement of the parameters, and the server decides"
    sends = "d values per upload"
    remembers = (ServerMemory, Known)

    def initial_memory(self, template: Vector) -> ServerMemory:  # type: ignore[override]
        """Return the memory before the first step."""
        return ServerMemory(template)

    def upload_like(self, template: Vector) -> Bundle:
        """Return an example of an upload, with the estimate of L."""
        return Bundle((Flag(True), template, number(0.0, template)))

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Make one step: the server asks, asked workers compute and upload, and all ranks move their parameters."""
        memory: ServerMemory = state.memory
        flags = None
        if worker.rank == worker.server:
            known = memory.known or (Known(memory.old, 0),) * worker.workers
            limit = self.limit(worker, recipe, memory.movements)
            flags = [
                Flag(await self._wants(worker, parameters, rank, known[rank], memory, limit))
                for rank in range(worker.workers)
            ]
            memory = memory._replace(
                known=tuple(
                    Known(parameters, 0) if flag.value else Known(entry.old, entry.skipped + 1)
                    for flag, entry in zip(flags, known, strict=True)
                )
            )
        asked = await scatter(worker, flags, template=Flag(True))
        message = None
        if gradient is not None:
            message = SKIP
            if asked is not None and asked.value:
                fresh = await gradient(parameters)
                worker.observe("gradient", fresh)
                if memory.old is not parameters:
                    stale = await gradient(memory.old)
                    secant = await worker.compute("select", smoothness, fresh, stale, parameters, memory.old)
                    memory = memory._replace(smoothness=max(memory.smoothness, secant))
                vector = await worker.compute("update", prepare, fresh, parameters, recipe, worker.step)
                vector = await self.rounded(worker, vector)
                message = upload(worker, vector, await worker.compute("update", number, memory.smoothness, fresh))
                memory = memory._replace(old=parameters)
        return await self.finish(worker, parameters, message, recipe, state._replace(memory=memory))

    async def _wants(
        self, worker: Worker, parameters: Vector, rank: int, known: Known, memory: ServerMemory, limit: float
    ) -> bool:
        if self.must_upload(worker.step, known.skipped):
            return True
        moved = await worker.compute("select", squared_distance, parameters, known.old)
        return value(memory.latest[rank].parts[2]) ** 2 * moved > limit


@size_rule(lambda fresh, stale, parameters, old: 0.0)
def smoothness(fresh: Dense, stale: Dense, parameters: Dense, old: Dense) -> float:
    """Return ‖∇f(ω) - ∇f(ω_old)‖ / ‖ω - ω_old‖, or 0 if the parameters did not change."""
    moved = squared_distance(parameters, old)
    return math.sqrt(squared_distance(fresh, stale) / moved) if moved else 0.0


@size_rule(lambda number, template: SizeOnly(1))
def number(number: float, template: Vector) -> Vector:
    """Return a number as a payload of one float32 element, which messages of 16 bits do not round."""
    import torch

    assert isinstance(template, Dense)
    values = template.values
    return Dense(values.new_tensor([number], dtype=torch.promote_types(values.dtype, torch.float32)))


def value(payload: object) -> float:
    """Return the number packed by :func:`number`; infinity where only sizes are simulated."""
    return float(payload.values) if isinstance(payload, Dense) else math.inf
