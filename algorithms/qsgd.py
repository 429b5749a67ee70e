"""QSGD: every value of a bucket is rounded at random to one of a few multiples of the bucket's norm."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from algorithms.gathering import Gather
from algorithms.pipelining import DEFAULT, Segment
from algorithms.quantisation import Grid, RoundingKey, Scale, euclidean, largest, round_at_random
from algorithms.quantised import Quantised
from netsim._util.options import Choice, Option, Whole
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Convergence

Norm = Literal["l2", "max"]
NORMS: dict[Norm, Scale] = {"l2": euclidean, "max": largest}


class QSGD(Quantised):
    """Workers send Q(v) of their vectors v, and every worker adds what all have sent; the expectation of Q(v) is v.

        Q(v_i) = ‖v‖ sgn(v_i) ξ_i,    ξ_i = (l + 1) / s with probability |v_i| s / ‖v‖ - l, and l / s otherwise

    Here l = ⌊|v_i| s / ‖v‖⌋, and v is a bucket of consecutive elements. b bits of sign and level give s = 2^(b-1) - 1.
    A message has 4 ⌈d / bucket⌉ + ⌈d b / 8⌉ bytes, and its communication takes the time that
    :class:`~algorithms.quantised.Quantised` gives.

    Parameters
    ----------
    bits
        b.
    bucket_size
        The number of elements that share a norm.
    norm
        ‖v‖: "l2", the 2-norm of the theorems, or "max", the largest magnitude.
    gather, segment
        As for :class:`~algorithms.quantised.Quantised`.
    seed, bucket
        With rank and step, they determine the random numbers; `bucket` is the index of a bucket of the gradient.

    References
    ----------
    Alistarh, Grubic, Li, Tomioka and Vojnovic, QSGD: Communication-Efficient SGD via Gradient Quantization and
    Encoding, NIPS 2017: algorithm 1, which sends to all peers; section 3.1, eq. (3); buckets of section 4. Its Elias
    code of variable length is not used: a level has a fixed number of bits. The all-gather is the only exchange here;
    there is no all-reduce of integers under a norm that all workers share.
    """

    name = "qsgd"
    title = "QSGD"
    colour = "#b42d0f"
    exchanges = "QSGD: b bits for each value and a norm for each bucket of them, rounded at random, all-gather"
    sends = "(P-1)(d b/8 + 4 d/bucket) bytes per worker"
    random: ClassVar[bool] = True
    convergence: ClassVar[Convergence] = Convergence.UNBIASED
    options = (
        Option(Whole(2, 8), 4, "Bits for the sign and the level of a value.", name="bits"),
        Option(Whole(1), 512, "Number of consecutive elements that share a norm.", name="bucket_size"),
        Option(Choice(NORMS), "l2", "Norm of a bucket, by which its values are divided: {choices}.", name="norm"),
        *Quantised.options,
    )

    def __init__(
        self,
        bits: int = 4,
        bucket_size: int = 512,
        norm: Norm = "l2",
        gather: Gather = "ring",
        segment: Segment = DEFAULT,
        seed: int = 0,
        bucket: int = 0,
    ) -> None:
        super().__init__(gather, segment)
        self._grid = Grid(2 ** (bits - 1) - 1, bucket_size)
        self._norm = NORMS[norm]
        self._seed, self._bucket = seed, bucket

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum (d,) of the workers' rounded vectors."""
        assert vector is not None
        key = RoundingKey(self._seed, self._bucket, worker.rank, worker.step)
        message = await worker.compute("select", round_at_random, vector, self._grid, self._norm, key)
        return await self.sum_of(worker, message, self._grid, template), None
