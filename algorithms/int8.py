"""torch's hook of 8 bits: all workers send their scale and zero point, then a byte for each element."""

from __future__ import annotations

from typing import Any, ClassVar

from algorithms.gathering import all_gathered
from algorithms.quantisation import whole_messages
from algorithms.quantised import Quantised
from netsim.comm.payload import Dense, SizeOnly, Vector, nbytes, size_rule, split
from netsim.comm.worker import Worker
from netsim.training.sgd import quotient

LEVELS = 255
"""The largest integer of a byte."""


class Int8(Quantised):
    """Workers send bytes q of their vectors g to all other workers, and every worker adds (q - z) s of all.

        s = (max(g, 0) - min(g, 0)) / 255,    z = -round(min(g, 0) / s),    q = round(g / s) + z, from 0 to 255

    This is no all-reduce: a worker sends (P-1)(8 + d) bytes, in an all-gather of s and z and another of q. With β the
    time of a byte, rings of whole messages take 2(P-1) α + (P-1)(8 + d) β.

    Parameters
    ----------
    gather, segment
        As for :class:`~algorithms.quantised.Quantised`; s and z are not cut into slices.

    References
    ----------
    ``quantization_pertensor_hook`` in torch.distributed.algorithms.ddp_comm_hooks, with its MinMaxObserver. The hook
    sees gradients without the learning rate, which therefore multiplies the sum here. That of torch 2.13 fails on gloo:
    it indexes the gathered scales as nccl returns them.
    """

    name = "int8"
    title = "int8"
    colour = "#785a3c"
    exchanges = "torch's `quantization_pertensor_hook`: all-gathers of scales, then of bytes"
    sends = "(P-1) (d + 8) bytes per worker"
    rate_on_sum: ClassVar[bool] = True

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum (d,) of the workers' vectors in 8 bits."""
        assert vector is not None
        own = await worker.compute("select", scale_and_zero, vector)
        scales = await all_gathered(worker, own, self._gather, None, nbytes(own), split)
        message = await worker.compute("select", in_bytes, vector, own)
        messages = await self.gathered(worker, message)
        return await worker.replicated("merge", add_bytes, template, worker.workers, *scales, *messages), None


@size_rule(lambda vector: SizeOnly(2))
def scale_and_zero(vector: Dense) -> Dense:
    """Return s and z (2,) as float32 of a vector (d,)."""
    import torch

    low, high = vector.values.aminmax()
    scale = quotient(high.clamp(min=0) - low.clamp(max=0), LEVELS)
    scale = scale.float().clamp(min=torch.finfo(torch.float32).eps)  # as torch's observer does
    return Dense(torch.stack([scale, (-torch.round(low.clamp(max=0) / scale)).clamp(0, LEVELS).float()]))


@size_rule(lambda vector, scale: SizeOnly(vector.size, None, "uint8"))
def in_bytes(vector: Dense, scale: Dense) -> Dense:
    """Return q (d,) of a vector (d,), with s and z (2,)."""
    import torch

    step, zero = scale.values
    return Dense((vector.values / step).round_().add_(zero).clamp_(0, LEVELS).to(torch.uint8))


@size_rule(lambda template, workers, *scales_and_messages: template)
def add_bytes(template: Dense, workers: int, *scales_and_messages: Dense) -> Dense:
    """Return the sum (d,) of (q - z) s of all workers, from left to right.

    Parameters
    ----------
    template
        (d,), for size and type.
    workers
        P.
    scales_and_messages
        s and z of every worker in rank order, then their q; each q may be in several consecutive slices.
    """
    total = template.values.new_zeros(template.size)
    scales, slices = scales_and_messages[:workers], scales_and_messages[workers:]
    for scale, message in zip(scales, whole_messages(slices, template.size), strict=True):
        step, zero = scale.values.to(total.dtype)
        total += message.to(total.dtype).sub_(zero).mul_(step)
    return Dense(total)
