"""SASG: sparse and adaptive stochastic gradient (algorithm 1 of the SASG paper)."""

from __future__ import annotations

from algorithms.compression import no_entries
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.lasg import DifferenceOnOneBatch
from algorithms.lazy import LazyMemory
from algorithms.selection import Selector
from netsim.comm.payload import Bundle, Flag, Precision, Sparse, Vector
from netsim.comm.worker import Worker
from netsim.training.sgd import zeros


class SASG(DifferenceOnOneBatch):
    """Rule (6) decides which workers upload T_k(γ g + e); the server keeps the last sparse upload of each worker.

    ω^{t+1} = ω^t - Σ_{m uploads} T_k(γ ∇f_m(ω^t; ξ) + e_m) - Σ_{m skips} (upload of step t - τ_m)

    The authors sum over workers, without the factor 1/M. A worker that skips keeps its residual e_m and discards its
    gradient.

    Parameters
    ----------
    selector
        Which entries are selected.
    history, delay, alpha, serial_server
        As for :class:`~algorithms.lazy.Lazy`; `alpha` is 0.5 by default.

    References
    ----------
    SASG paper, algorithm 1 and eq. (6).
    """

    name = "sasg"
    title = "SASG"
    colour = "#6a40f0"
    exchanges = "`lasg-wk2` by rule (6) of the SASG paper, with top-k and error feedback"
    sends = "k values and indices per upload"
    sparse = True
    default_alpha = 0.5

    def __init__(
        self,
        selector: Selector,
        history: int = 10,
        delay: int | None = None,
        alpha: float | None = None,
        serial_server: bool = False,
    ) -> None:
        super().__init__(history, delay, alpha, serial_server)
        self._feedback = ErrorFeedback(selector)

    def send_as(self, precision: Precision) -> None:
        """Set the precision of the values in messages."""
        super().send_as(precision)
        self._feedback.send_as(precision)

    def initial_memory(self, template: Vector) -> LazyMemory:
        """Return the memory before the first step, with a residual of zeros."""
        assert not isinstance(template, Sparse)
        return LazyMemory(template, feedback=Feedback(zeros(template)))

    def selected(self, size: int, step: int) -> int:
        """Return k at `step`."""
        return self._feedback.selected(size, step)

    def residual(self, memory: LazyMemory) -> Vector | None:
        """Return the residual (d,)."""
        return memory.feedback.residual if memory.feedback is not None else None

    def upload_like(self, template: Vector) -> Bundle:
        """Return an example of an upload: a flag and a sparse vector."""
        return Bundle((Flag(True), no_entries(template)))

    async def message(self, worker: Worker, vector: Vector, memory: LazyMemory) -> tuple[Vector, LazyMemory]:
        """Return T_k(vector + residual), and the memory with the rest as the new residual."""
        assert memory.feedback is not None
        local, feedback = await self._feedback.compress(worker, vector, memory.feedback)
        return local, memory._replace(feedback=feedback)
