"""TernGrad: every value becomes -s, 0 or s at random, where s is the largest magnitude of its block."""

from __future__ import annotations

from typing import Any, ClassVar

from algorithms.gathering import Gather
from algorithms.packing import pack, unpack
from algorithms.pipelining import DEFAULT, Segment
from algorithms.quantisation import (
    Grid,
    RoundingKey,
    euclidean,
    largest,
    packed_like,
    packed_size,
    round_at_random,
)
from algorithms.quantised import BLOCK, Quantised
from algorithms.server import OverServer, count_upload
from netsim._util.options import Number, Option
from netsim.comm.collectives import broadcast_from_server, gather
from netsim.comm.payload import Dense, SizeOnly, Vector, size_rule
from netsim.comm.worker import Worker
from netsim.training.algorithm import Convergence

TERNARY = (
    Option(
        Number(lambda value: 0 <= value < 1e6, "at least 0, such as 2.5"),
        2.5,
        "Standard deviations to which values are clipped before they become ternary; 0 for none.",
        name="clip_sigmas",
    ),
    BLOCK,
)


class TernGrad(Quantised):
    """Workers send ternary values of their vectors g, and every worker adds what all have sent.

        ternarize(g_i) = s sgn(g_i) b_i,    b_i = 1 with probability |g_i| / s, and 0 otherwise,    s = max |g|

    The expectation is that of g after clipping to c standard deviations: the sum is unbiased without clipping only
    (``clip-sigmas=0``), which is not the default. With 2 bits a value, a message has
    4 ⌈d / block⌉ + ⌈d / 4⌉ bytes, and its communication takes the time that
    :class:`~algorithms.quantised.Quantised` gives.

    Parameters
    ----------
    clip_sigmas
        c; 0 for no clipping.
    block
        The number of elements that share s; None for the whole vector. The paper has one s for each layer, which
        ``--overlap tensor`` gives.
    gather, segment
        As for :class:`~algorithms.quantised.Quantised`.
    seed, bucket
        With rank and step, they determine the random numbers; `bucket` is the index of a bucket of the gradient.

    References
    ----------
    Wen, Xu, Yan, Wu, Wang, Chen and Li, TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep
    Learning, NIPS 2017: eq. (1) to (3), and the clipping of section 4 with c = 2.5. In algorithm 1 a server adds the
    ternary values; here all workers do.
    """

    name = "terngrad"
    title = "TernGrad"
    colour = "#f07800"
    exchanges = "TernGrad: values become -s, 0 or s at random, all-gather; unbiased without clipping"
    sends = "(P-1) d/4 bytes per worker"
    random: ClassVar[bool] = True
    convergence: ClassVar[Convergence] = Convergence.UNBIASED
    options = (*TERNARY, *Quantised.options)

    def __init__(
        self,
        clip_sigmas: float = 2.5,
        block: int | None = None,
        gather: Gather = "ring",
        segment: Segment = DEFAULT,
        seed: int = 0,
        bucket: int = 0,
    ) -> None:
        super().__init__(gather, segment)
        self._clip, self._grid = clip_sigmas, Grid(1, block)
        self._seed, self._bucket = seed, bucket

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum (d,) of the workers' ternary vectors."""
        assert vector is not None
        if self._clip:
            vector = await worker.compute("select", clipped, vector, self._grid, self._clip)
        key = RoundingKey(self._seed, self._bucket, worker.rank, worker.step)
        message = await worker.compute("select", round_at_random, vector, self._grid, largest, key)
        return await self.sum_of(worker, message, self._grid, template), None


class ParameterServerTernGrad(OverServer):
    """Workers share the largest of their scales s, and a server adds their ternary values as integers.

    As for :class:`TernGrad`, the sum is unbiased without clipping only.

    A worker sends 4 ⌈d / block⌉ + ⌈d / 4⌉ bytes. The sum of P ternary values has 2P + 1 levels, so that the server
    sends ⌈d b / 8⌉ bytes with b bits for 2P, and the shared scales. The four steps take
    4α + n (8 ⌈d / block⌉ + ⌈d / 4⌉ + ⌈d b / 8⌉) β for n workers that are not the server itself, with β the time of a
    byte.

    Parameters
    ----------
    clip_sigmas, block, seed, bucket
        As for :class:`TernGrad`.
    serial_server
        As for :class:`~algorithms.server.OverServer`.

    References
    ----------
    TernGrad paper, algorithm 1, and "scaler sharing" of section 3.2.
    """

    name = "ps-terngrad"
    title = "PS TernGrad"
    colour = "#e47830"
    exchanges = "TernGrad over a parameter server; unbiased without clipping"
    sends = "d/4 bytes to the server, d ⌈log₂(2P+1)⌉/8 back"
    lossy: ClassVar[bool] = True
    random: ClassVar[bool] = True
    convergence: ClassVar[Convergence] = Convergence.UNBIASED
    half_precision: ClassVar[bool] = False
    options = (*TERNARY, *OverServer.options)

    def __init__(
        self,
        clip_sigmas: float = 2.5,
        block: int | None = None,
        serial_server: bool = False,
        seed: int = 0,
        bucket: int = 0,
    ) -> None:
        super().__init__(serial_server)
        self._clip, self._grid = clip_sigmas, Grid(1, block)
        self._seed, self._bucket = seed, bucket

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, None]:
        """Return the sum (d,) of the workers' ternary vectors, which the server adds."""
        grid, scales, ternary, largest_s, added = self._grid, None, None, None, None
        if vector is not None:
            if self._clip:
                vector = await worker.compute("select", clipped, vector, grid, self._clip)
            scales = await worker.compute("select", scales_of, vector, grid)
        everyones = await gather(worker, scales, scales_like(template, grid), self.serial)
        if everyones is not None:
            largest_s = await worker.compute("merge", largest_of, *everyones)
        shared = await broadcast_from_server(worker, largest_s, scales_like(template, grid))
        if vector is not None and scales is not None:
            key = RoundingKey(self._seed, self._bucket, worker.rank, worker.step)
            ternary = await worker.compute("select", ternary_values, vector, grid, shared, key)
            count_upload(worker, ternary)
            worker.tally["value_bits"] += 8 * scales.value_bytes
        messages = await gather(worker, ternary, packed_like(template, grid.bits), self.serial)
        sums = Grid(worker.workers, grid.block)
        if messages is not None:
            added = await worker.compute("merge", add_integers, template, sums.bits, *messages)
        total = await broadcast_from_server(worker, added, packed_like(template, sums.bits))
        return await worker.replicated("merge", values_of_sums, template, sums, shared, total), None


@size_rule(lambda vector, grid, sigmas: vector)
def clipped(vector: Dense, grid: Grid, sigmas: float) -> Dense:
    """Return a vector (d,) with the magnitudes of every block limited to `sigmas` of its standard deviations.

    References
    ----------
    TernGrad paper, section 4, "gradient clipping"; the deviation is that of all elements, as in its authors' code.
    """
    import torch

    blocks = grid.in_blocks(vector.values)  # zeros at the end change no sum
    counts = grid.counts(blocks, vector.size)
    means = blocks.sum(1, dtype=torch.float64) / counts
    squares = euclidean(blocks).square() / counts
    limits = (squares - means.square()).clamp(min=0).sqrt().mul(sigmas).to(blocks.dtype)[:, None]
    return Dense(blocks.clamp(-limits, limits).view(-1)[: vector.size])


@size_rule(lambda template, grid: SizeOnly(grid.blocks(template.size)))
def scales_like(template: Vector, grid: Grid) -> Vector:
    """Return a template of the scales of a vector like `template` (d,)."""
    import torch

    assert isinstance(template, Dense)
    return Dense(template.values.new_empty(grid.blocks(template.size), dtype=torch.float32))


@size_rule(lambda vector, grid: SizeOnly(grid.blocks(vector.size)))
def scales_of(vector: Dense, grid: Grid) -> Dense:
    """Return s (blocks,) of a vector (d,) as float32."""
    return Dense(largest(grid.in_blocks(vector.values)).float())


@size_rule(lambda first, *others: first)
def largest_of(first: Dense, *others: Dense) -> Dense:
    """Return the largest of the scales of all workers (blocks,)."""
    import torch

    return Dense(torch.stack([each.values for each in (first, *others)]).amax(0))


@size_rule(lambda vector, grid, scales, key: packed_size(vector, grid.bits))
def ternary_values(vector: Dense, grid: Grid, scales: Dense, key: RoundingKey) -> Dense:
    """Return the packed ternary values of a vector (d,), plus 1, for the scales that workers share."""
    integers = grid.integers(grid.in_blocks(vector.values), scales.values, key.draw(vector.values))
    return Dense(pack(integers.view(-1)[: vector.size], grid.bits))


@size_rule(lambda template, bits, *messages: packed_size(template, bits))
def add_integers(template: Dense, bits: int, *messages: Dense) -> Dense:
    """Return the packed sums, in `bits` bits, of packed ternary values plus 1; one for each element of `template`."""
    import torch

    total = torch.zeros(template.size, dtype=torch.int32, device=template.values.device)
    for message in messages:
        total += unpack(message.values, Grid(1).bits, template.size)
    return Dense(pack(total, bits))


@size_rule(lambda template, sums, scales, packed: template)
def values_of_sums(template: Dense, sums: Grid, scales: Dense, packed: Dense) -> Dense:
    """Return the sum (d,) of ternary vectors from their packed sums and the shared scales (blocks,)."""
    steps = scales.values.to(template.values.dtype)[:, None]
    return Dense(sums.unpacked(packed.values, steps, template.values))
