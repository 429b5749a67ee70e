"""Quantisation as pure functions: the values of a vector on a grid of few levels, in messages of packed integers.

A vector is cut into blocks of consecutive elements. Every block has a scale s, and its values become integers c from 0
to 2h, which stand for s (c - h) / h. Signs are the grid h = 1/2, ternary values h = 1. A message holds the scales as
float32, then the integers in as few bits as 2h needs. A name (d,) after a vector is its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from algorithms.packing import pack, packed_bytes, unpack
from netsim._util.random_streams import Stream, generator
from netsim.comm.payload import VALUE_BYTES, Dense, SizeOnly, Vector, size_rule
from netsim.training.sgd import quotient

if TYPE_CHECKING:
    import torch

Scale = Callable[["torch.Tensor"], "torch.Tensor"]
"""Returns the scale of every block (m,) from blocks (m, n)."""


class Grid(NamedTuple):
    """The levels -s to s of a block, at equal distances.

    Attributes
    ----------
    half
        h, half of the number of steps from -s to s.
    block
        The number of elements that share a scale; None for one scale of the whole vector.
    """

    half: float
    block: int | None = None

    @property
    def bits(self) -> int:
        """The bits of an integer from 0 to 2h."""
        return round(2 * self.half).bit_length()

    def blocks(self, size: int) -> int:
        """Return the number of blocks of a vector of `size` elements."""
        return 1 if self.block is None else -(-size // self.block)

    def nbytes(self, size: int) -> int:
        """Return the bytes of the message of a vector: 4 ⌈d / block⌉ + ⌈d bits / 8⌉."""
        return VALUE_BYTES * self.blocks(size) + packed_bytes(size, self.bits)

    def message_size(self, vector: Vector) -> SizeOnly:
        """Return the size of the message of a vector."""
        return SizeOnly(self.nbytes(vector.size), None, "uint8")

    def in_blocks(self, values: torch.Tensor) -> torch.Tensor:
        """Return values (d,) as (blocks, elements of a block), with zeros at the end."""
        import torch

        rows, size = self.blocks(values.numel()), values.numel()
        missing = 0 if self.block is None else rows * self.block - size
        return (torch.nn.functional.pad(values, (0, missing)) if missing else values).view(rows, -1)

    def counts(self, blocks: torch.Tensor, size: int) -> torch.Tensor:
        """Return the number of elements of each block (m,) without the zeros at the end, as float64."""
        import torch

        counts = torch.full((len(blocks),), blocks.shape[1], dtype=torch.float64, device=blocks.device)
        counts[-1] -= blocks.numel() - size
        return counts

    def steps(self, scales: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the distance s / h of two levels of every block, (blocks, 1), in the type of `values`."""
        return quotient(scales.to(values.dtype)[:, None], self.half)

    def message(self, scales: torch.Tensor, integers: torch.Tensor, size: int) -> Dense:
        """Return the message of scales (blocks,) and integers (blocks, elements of a block)."""
        import torch

        packed = pack(integers.view(-1)[:size], self.bits)
        return Dense(torch.cat([scales.float().view(torch.uint8), packed]))

    def integers(self, blocks: torch.Tensor, scales: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Return the integers of values (blocks, elements of a block), rounded at random.

        A value v between levels l and l + 1 of its block becomes l + 1 with probability |v| h / s - l.

        Parameters
        ----------
        blocks, scales
            The values, and the scales (blocks,) as a message holds them.
        draws
            Uniform numbers (d,) from [0, 1).
        """
        import torch

        steps = self.steps(scales, blocks)
        levels = blocks.abs().div_(torch.where(steps > 0, steps, 1))
        below = levels.floor()
        above = levels.sub_(below) > self.in_blocks(draws)
        below.add_(above).clamp_(max=self.half)  # a scale that was rounded down may be less than the value
        return below.copysign_(blocks).add_(self.half)

    def values(self, message: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return the values (d,) in a message, in the type of `like` (d,)."""
        import torch

        head = VALUE_BYTES * self.blocks(like.numel())
        return self.unpacked(message[head:], self.steps(message[:head].view(torch.float32), like), like)

    def unpacked(self, packed: torch.Tensor, steps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return the values (d,) of packed integers, with the distance of two levels of every block (blocks, 1)."""
        size = like.numel()
        levels = unpack(packed, self.bits, size).to(like.dtype).sub_(self.half)
        block = self.block or size
        full = size // block
        levels[: full * block].view(full, block).mul_(steps[:full])
        levels[full * block :].mul_(steps[-1])
        return levels


class RoundingKey(NamedTuple):
    """The key of the random numbers by which a worker rounds a bucket of the gradient at a step."""

    seed: int
    bucket: int
    rank: int
    step: int

    def draw(self, like: torch.Tensor) -> torch.Tensor:
        """Return uniform float32 numbers (d,) from [0, 1), in the order of the elements of `like` (d,)."""
        import numpy as np
        import torch

        random = generator(self.seed, Stream.ROUNDING, self.bucket, self.rank, self.step)
        return torch.from_numpy(random.random(like.numel(), np.float32)).to(like.device)


def largest(blocks: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of each block (m,)."""
    return blocks.abs().amax(1)


def euclidean(blocks: torch.Tensor) -> torch.Tensor:
    """Return the 2-norm of each block (m,), added in float64, so that the order of addition changes no float32 norm."""
    import torch

    norms: torch.Tensor = torch.linalg.vector_norm(blocks, dim=1, dtype=torch.float64)
    return norms


@size_rule(lambda vector, grid, scale, key: grid.message_size(vector))
def round_at_random(vector: Dense, grid: Grid, scale: Scale, key: RoundingKey) -> Dense:
    """Return the message of a vector whose values are rounded at random, so that their expectation does not change.

    Parameters
    ----------
    vector
        (d,).
    grid, scale
        The levels, and the function that gives the scale s of a block.
    key
        Determines the random numbers.

    References
    ----------
    QSGD paper, section 3.1, eq. (3); TernGrad paper, eq. (1) to (3).
    """
    blocks = grid.in_blocks(vector.values)
    scales = scale(blocks).float()
    return grid.message(scales, grid.integers(blocks, scales, key.draw(vector.values)), vector.size)


@size_rule(lambda template, grid, *messages: template)
def add_quantised(template: Dense, grid: Grid, *messages: Dense) -> Dense:
    """Return the sum (d,) of the vectors in messages, added from left to right.

    Parameters
    ----------
    template
        (d,), for size and type.
    grid
        The levels.
    messages
        The messages in rank order; each may be in several consecutive slices.
    """
    total = template.values.new_zeros(template.size)
    for message in whole_messages(messages, grid.nbytes(template.size)):
        total += grid.values(message, template.values)
    return Dense(total)


def whole_messages(slices: Sequence[Dense], nbytes: int) -> Iterator[torch.Tensor]:
    """Yield messages of `nbytes` bytes from their consecutive slices."""
    import torch

    parts: list[torch.Tensor] = []
    for part in slices:
        parts.append(part.values)
        if sum(each.numel() for each in parts) == nbytes:
            yield parts[0] if len(parts) == 1 else torch.cat(parts)
            parts = []


def packed_size(vector: Vector, bits: int) -> SizeOnly:
    """Return the size of packed integers of some bits, one for each element of a vector (d,)."""
    return SizeOnly(packed_bytes(vector.size, bits), None, "uint8")


@size_rule(packed_size)
def packed_like(template: Vector, bits: int) -> Vector:
    """Return a template of packed integers of some bits, one for each element of `template` (d,)."""
    import torch

    assert isinstance(template, Dense)
    return Dense(template.values.new_empty(packed_bytes(template.size, bits), dtype=torch.uint8))
