"""Integers of b bits are packed into ⌈n b / 8⌉ bytes, as NumPy packs their bits."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.packing import MOST_BITS, pack, packed_bytes, unpack


@given(st.data(), st.integers(1, MOST_BITS), st.integers(0, 70))
def test_packed_integers_are_unpacked_and_have_the_bits_of_numpy(data: st.DataObject, bits: int, count: int) -> None:
    drawn = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    integers = np.array(drawn, np.int64)
    packed = pack(torch.from_numpy(integers), bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == packed_bytes(count, bits) == -(-count * bits // 8)
    digits = (integers[:, None] >> np.arange(bits)) & 1
    np.testing.assert_array_equal(packed.numpy(), np.packbits(digits.astype(np.uint8).ravel(), bitorder="little"))
    np.testing.assert_array_equal(unpack(packed, bits, count).numpy(), integers)
