"""Packed integers: n integers of b bits in ⌈n b / 8⌉ bytes, in the order that NumPy's ``packbits`` calls "little".

Integer j has the bits j b to (j + 1) b - 1 of the message, its lowest bit first. Bit i is bit i mod 8 of byte ⌊i / 8⌋.
Integers of b bits meet the borders of bytes alike in every group of lcm(b, 8) bits, so that one pass over groups moves
each overlap of an integer and a byte by a shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import lcm
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

MOST_BITS = 24
"""Most bits of an integer, so that each shifted byte fits an int32."""


class Overlap(NamedTuple):
    """An integer and a byte of a group that share bits: the byte has the integer shifted left by `shift`."""

    integer: int
    byte: int
    shift: int


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes of `count` integers of `bits` bits: ⌈count · bits / 8⌉."""
    return -(-count * bits // 8)


def pack(integers: torch.Tensor, bits: int) -> torch.Tensor:
    """Return integers (n,) from 0 to 2^bits - 1 as uint8 (⌈n · bits / 8⌉,)."""
    import torch

    if bits == 8:
        return integers.to(torch.uint8)
    count, each = integers.numel(), lcm(bits, 8) // bits
    groups = _padded(integers.to(_type_of(bits)), each).view(-1, each)
    packed = groups.new_zeros(len(groups), lcm(bits, 8) // 8, dtype=torch.uint8)
    for integer, byte, shift in _overlaps(bits):
        packed[:, byte] |= (_shifted(groups[:, integer], shift) & 255).to(torch.uint8)
    return packed.view(-1)[: packed_bytes(count, bits)]


def unpack(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return the `count` integers of `bits` bits in bytes (⌈count · bits / 8⌉,); uint8 for up to 8 bits, else int32."""
    if bits == 8:
        return packed
    each = lcm(bits, 8) // 8
    groups = _padded(packed, each).view(-1, each).to(_type_of(bits))
    integers = groups.new_zeros(len(groups), lcm(bits, 8) // bits)
    for integer, byte, shift in _overlaps(bits):
        integers[:, integer] |= _shifted(groups[:, byte], -shift) & ((1 << bits) - 1)
    return integers.view(-1)[:count]


@lru_cache(MOST_BITS)
def _overlaps(bits: int) -> tuple[Overlap, ...]:
    """Return the overlaps of integers and bytes in a group."""
    return tuple(_all_overlaps(bits))


def _all_overlaps(bits: int) -> Iterator[Overlap]:
    group = lcm(bits, 8)
    for integer in range(group // bits):
        for byte in range(group // 8):
            shift = integer * bits - byte * 8
            if -bits < shift < 8:
                yield Overlap(integer, byte, shift)


def _type_of(bits: int) -> torch.dtype:
    import torch

    return torch.uint8 if bits <= 8 else torch.int32


def _shifted(integers: torch.Tensor, left: int) -> torch.Tensor:
    return integers << left if left >= 0 else integers >> -left


def _padded(values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Return the values (n,), with zeros up to the next multiple of `multiple`."""
    import torch

    missing = -values.numel() % multiple
    return torch.cat([values, values.new_zeros(missing)]) if missing else values.contiguous()
