"""Synchronous SGD with a dense ring all-reduce: 2(P-1)α + 2((P-1)/P) d β (gTop-k paper, eq. (2)), or pipelined."""

from __future__ import annotations

from typing import ClassVar

from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from netsim._util.options import OnOff, Option
from netsim.comm.collectives import ring_all_reduce, ring_all_reduce_in_fp32
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class DenseRing(Algorithm):
    """The gradients are summed in P chunks around a ring: reduce-scatter, then all-gather.

    Parameters
    ----------
    segment
        The slices in which the ring forwards chunks: with "auto" of 512 KiB, or an 8th of a chunk if that is more, so
        that chunks of several slices take 2α + 2((P-1)/P) d β; "none" for whole chunks, as in the gTop-k paper; or a
        size.
    fp32_sums
        Whether partial sums are float32 where messages have 16-bit values, also in messages of the reduce-scatter. The
        sum is then rounded once (``docs/decisions/0031-half-precision.md``). Otherwise every addition is rounded, as by
        NCCL.
    """

    name = "dense"
    title = "dense"
    colour = "#0173b2"
    exchanges = "synchronous SGD, ring all-reduce"
    sends = "2((P-1)/P) d values per worker"
    half_precision = True
    options: ClassVar[tuple[Option, ...]] = (
        SEGMENT,
        Option(
            OnOff(),
            False,
            "With --dtype bf16 or fp16: whether partial sums in the ring are fp32, and sent so; NCCL's are not.",
            name="fp32_sums",
        ),
    )

    def __init__(self, segment: Segment = DEFAULT, fp32_sums: bool = False) -> None:
        self._pipeline = pipeline_of(segment)
        self._fp32_sums = fp32_sums

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: None, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum of all vectors (d,) by a ring all-reduce."""
        assert vector is not None
        in_fp32 = self._fp32_sums and vector.precision != "fp32"
        all_reduce = ring_all_reduce_in_fp32 if in_fp32 else ring_all_reduce
        return await all_reduce(worker, vector, self._pipeline), None
