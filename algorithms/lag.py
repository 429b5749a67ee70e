"""LAG with stochastic gradients: rule (5) of the SASG paper, which compares the gradients of two batches."""

from __future__ import annotations

import math

from algorithms.lazy import Lazy, LazyMemory, TriggerDecision, gradient_distance
from netsim.comm.payload import Vector, copied
from netsim.comm.worker import Worker
from netsim.training.algorithm import Gradient


class LAG(Lazy):
    """A worker uploads if ‖∇f_m(ω^t; ξ^t) - ∇f_m(ω^{t-τ}; ξ^{t-τ})‖² exceeds the limit; α_d = 1/(10 γ²) by default.

    The rule needs no second gradient. Its left-hand side contains the noise of two different batches and does not
    vanish as training converges, so workers eventually skip no upload. LASG and SASG therefore compare on one batch.

    References
    ----------
    SASG paper, eq. (5).
    """

    name = "lag"
    title = "LAG"
    colour = "#6c9c9c"
    exchanges = (
        "`ps`, but a worker whose gradient has changed little skips its upload, and the server uses the last one again"
    )
    sends = "d values per upload"

    def weight(self, rate: float) -> float:
        """Return α_d = 1/(10 γ²), or alpha / γ."""
        return (0.1 / rate if self.alpha is None else self.alpha) / rate

    async def evaluate_trigger(
        self, worker: Worker, parameters: Vector, fresh: Vector, gradient: Gradient, memory: LazyMemory, asked: bool
    ) -> TriggerDecision:
        """Return the distance between this gradient and the last uploaded one."""
        distance = math.inf
        if asked and memory.reference is not None:
            distance = await worker.compute("select", gradient_distance, fresh, memory.reference)
        return TriggerDecision(distance, reference=await worker.compute("update", copied, fresh))
