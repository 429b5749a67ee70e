"""LAG with stochastic gradients: rule (5) of the SASG paper, which compares gradients of two batches."""

from __future__ import annotations

import math

from algorithms.lazy import Lazy, LazyMemory, TriggerDecision, gradient_distance
from netsim.comm.payload import Vector, copied
from netsim.comm.worker import Worker
from netsim.training.algorithm import Gradient


class LAG(Lazy):
    """Rule (5): ‖∇f_m(ω^t; ξ^t) - ∇f_m(ω^{t-τ}; ξ^{t-τ})‖² against the limit: no second gradient.

    Its left-hand side does not vanish as training converges, since the batches differ; so it comes to
    skip nothing, which is why LASG and SASG compare on one batch. α_d = 1/(10 γ²), as for LAG-WK.
    """

    name = "lag"
    title = "LAG"

    def weight(self, rate: float) -> float:
        return (0.1 / rate if self.alpha is None else self.alpha) / rate

    async def evaluate_trigger(
        self, worker: Worker, parameters: Vector, fresh: Vector, gradient: Gradient, memory: LazyMemory, asked: bool
    ) -> TriggerDecision:
        distance = math.inf
        if asked and memory.reference is not None:
            distance = await worker.compute("select", gradient_distance, fresh, memory.reference)
        return TriggerDecision(distance, reference=await worker.compute("update", copied, fresh))
