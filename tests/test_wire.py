"""Payloads survive the trip through bytes, and wrong messages are told from right ones."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netsim.backends.wire import HEADER_BYTES, Header, as_tensor, decode, encode, head_of, known_bytes, values_after
from netsim.errors import ProtocolError
from netsim.payload import Bundle, Dense, Flag, Payload, SizeOnly, Sparse, nbytes

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@st.composite
def vectors(draw: st.DrawFn) -> Dense | Sparse:
    count = draw(st.integers(0, 9))
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(draw(st.sampled_from(DTYPES)))
    if draw(st.booleans()):
        return Dense(values)
    # Indices above 2**24 are where a float32 would lose them.
    return Sparse((2**24 + 1 + torch.arange(count)).to(torch.int32), values, 2**31 - 1)


payloads = st.one_of(vectors(), st.lists(vectors(), max_size=5).map(lambda parts: Bundle(tuple(parts))))


def same(one: Payload, other: Payload) -> bool:
    if isinstance(one, Bundle):
        assert isinstance(other, Bundle)
        return len(one.parts) == len(other.parts) and all(map(same, one.parts, other.parts))
    assert not isinstance(one, SizeOnly)
    if type(one) is not type(other) or one.size != other.size:
        return False
    assert isinstance(other, Dense | Sparse)
    equal = one.values.dtype == other.values.dtype and torch.equal(one.values, other.values)
    return equal and (isinstance(one, Dense) or torch.equal(one.indices, other.indices))  # type: ignore[union-attr]


@given(payloads)
def test_a_payload_comes_back_as_it_went(payload: Payload) -> None:
    message = encode(head_of(payload, "gather", 3, 1), payload)
    received = Header.decode(message, "gather", 3, 1, "rank 0")
    assert received.body_bytes == message.numel() - HEADER_BYTES >= nbytes(payload)
    assert same(payload, decode(message[HEADER_BYTES:].clone(), received))


@given(st.one_of(payloads, st.booleans().map(Flag)))
def test_who_knows_what_to_expect_knows_how_many_bytes_that_is(payload: Payload) -> None:
    known = known_bytes(payload)
    assert (known is not None) == isinstance(payload, Dense | Flag)
    assert known in (None, encode(head_of(payload, "gather", 3, 1), payload).numel())


@given(vectors().filter(lambda vector: isinstance(vector, Dense)), st.data())
def test_a_dense_vector_is_taken_only_from_a_message_that_begins_as_it_must(vector: Dense, data: st.DataObject) -> None:
    head = head_of(vector, "gather", 3, 1)
    message = encode(head, vector)
    assert torch.equal(values_after(head, message, vector), vector.values)  # type: ignore[arg-type]
    place = data.draw(st.integers(0, len(head) - 1))
    message[place] += 1
    assert values_after(head, message, vector) is None


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"step": 4}, "gather, step 4, tag 1"),
        ({"tag": 2}, "gather, step 3, tag 2"),
        ({"operation": "scatter"}, "scatter, step 3, tag 1"),
    ],
)
def test_a_message_of_another_time_or_place_is_refused(changed: dict[str, object], named: str) -> None:
    fields = {"operation": "gather", "step": 3, "tag": 1} | changed
    sent = Header(**fields, parts=1, bundled=False, body_bytes=8)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match=f"rank 0: received a message of {named}, expected gather, step 3, tag 1"):
        Header.decode(as_tensor(sent.encode()), "gather", 3, 1, "rank 0")


def test_a_message_is_laid_out_as_the_module_says() -> None:
    vector = Sparse(torch.tensor([1, 5, 7], dtype=torch.int32), torch.tensor([0.5, -2.0, 3.0]), 9)
    name = "scatter over very long distances, é"
    message = bytes(encode(head_of(payload := Bundle((vector, Flag(True))), name, 3, 1), payload).tolist())
    table = struct.pack("<8q", 1, 0, 3, 9, 2, 0, 0, 1)
    values, indices = struct.pack("<3f", 0.5, -2.0, 3.0), struct.pack("<3i", 1, 5, 7)
    assert message[HEADER_BYTES:] == table + values + bytes(4) + indices + bytes(4)
    fields = (0x6E657473696D31, zlib.crc32(name.encode()), 3, 1, 2, 1, 96, 0)
    assert message[:HEADER_BYTES] == struct.pack("<8q", *fields) + name.encode()[:32]
    assert Header("gather", 0, 0, 1, False, 8).encode()[64:] == b"gather" + bytes(26)


def test_noise_is_not_taken_for_a_message() -> None:
    with pytest.raises(ProtocolError, match="not a netsim message"):
        Header.decode(torch.zeros(HEADER_BYTES, dtype=torch.uint8), "gather", 0, 0, "rank 0")


def test_sizes_alone_cannot_be_sent() -> None:
    with pytest.raises(ProtocolError, match="no data"):
        head_of(SizeOnly(3), "gather", 0, 0)
