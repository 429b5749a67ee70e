"""EF-signSGD: one bit for each element and a scale for each block, with error feedback."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from algorithms.feedback import Feedback
from algorithms.gathering import Gather
from algorithms.pipelining import DEFAULT, Segment
from algorithms.quantisation import Grid
from algorithms.quantised import BLOCK, Quantised
from netsim.comm.payload import Dense, Sparse, Vector, in_place, size_rule
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution, Convergence
from netsim.training.sgd import Scaled, product, zeros


class EFSignSGD(Quantised):
    """Workers send signs with one scale, and keep what signs and scale do not say as a residual e.

        p = γ g + e,    Δ = (‖p‖₁ / d) sign(p),    x ← x - (1/P) Σ Δ,    e ← p - Δ

    Messages and residuals together hold the whole gradient. A value of 0 counts as +1, because a sign has one bit. A
    message has 4 ⌈d / block⌉ + ⌈d / 8⌉ bytes, and its communication takes the time that
    :class:`~algorithms.quantised.Quantised` gives.

    Parameters
    ----------
    block
        The number of elements that share a scale; None for the whole vector. The paper's experiments have one scale for
        each layer, which ``--overlap tensor`` gives.
    gather, segment
        As for :class:`~algorithms.quantised.Quantised`.

    References
    ----------
    Karimireddy, Rebjock, Stich and Jaggi, Error Feedback Fixes SignSGD and other Gradient Compression Schemes, ICML
    2019, algorithm 1, at every worker; workers send Δ to each other.
    """

    name = "ef-signsgd"
    title = "EF-signSGD"
    colour = "#7800ff"
    exchanges = "signs with one scale and error feedback, all-gather"
    sends = "(P-1) d/8 bytes per worker"
    convergence: ClassVar[Convergence] = Convergence.FEEDBACK
    accumulates: ClassVar[bool] = True
    remembers: ClassVar[tuple[type, ...]] = (Feedback,)
    options = (BLOCK, *Quantised.options)

    def __init__(self, block: int | None = None, gather: Gather = "ring", segment: Segment = DEFAULT) -> None:
        super().__init__(gather, segment)
        self._grid = Grid(1 / 2, block)

    def initial_memory(self, template: Vector) -> Feedback:
        """Return a residual of zeros."""
        assert not isinstance(template, Sparse)
        return Feedback(zeros(template))

    def residual(self, memory: Feedback) -> Vector:
        """Return the residual e (d,)."""
        return memory.residual

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the sum of Δ (d,) over workers."""
        assert vector is not None
        signed = await worker.compute("select", accumulate_and_sign, memory.residual, vector, self._grid)
        total = await self.sum_of(worker, signed.message, self._grid, template)
        return total, Feedback(signed.rest)


class Signed(NamedTuple):
    """The message of scales and signs, and the residual (d,)."""

    message: Vector
    rest: Vector


@in_place
@size_rule(lambda residual, vector, grid: Signed(grid.message_size(residual), residual))
def accumulate_and_sign(residual: Dense, vector: Dense | Scaled, grid: Grid) -> Signed:
    """Return the signs of p = residual + vector with the mean magnitude of each block, and what they do not say of p.

    Parameters
    ----------
    residual
        (d,); overwritten by the new residual.
    vector
        (d,), possibly times a factor that is not multiplied yet.
    grid
        Signs, and the elements of a block.

    References
    ----------
    EF-signSGD paper, algorithm 1, lines 4, 5 and 7.
    """
    import torch

    values, size = residual.values, residual.size
    values += product(vector)
    blocks = grid.in_blocks(values)
    magnitudes = torch.linalg.vector_norm(blocks, ord=1, dim=1, dtype=torch.float64) / grid.counts(blocks, size)
    message = grid.message(magnitudes, blocks >= 0, size)
    return Signed(message, Dense(values.sub_(grid.values(message.values, values))))
