"""Payloads survive the trip through bytes, and wrong messages are told from right ones."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netsim._util.errors import ProtocolError
from netsim.comm.payload import Bundle, Dense, Flag, Payload, SizeOnly, Sparse, has_known_size, nbytes
from netsim.distributed.wire_format import (
    HEADER_BYTES,
    Header,
    as_tensor,
    decode,
    encode,
    encode_dense,
    head_of,
    room_for,
    values_after,
)

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


dense_vectors = vectors().filter(lambda vector: isinstance(vector, Dense))


@given(st.one_of(payloads, st.booleans().map(Flag)))
def test_who_knows_what_to_expect_has_room_for_just_that(payload: Payload) -> None:
    assert has_known_size(payload) == isinstance(payload, Dense | Flag)
    if has_known_size(payload):
        assert room_for(payload).nbytes == encode(head_of(payload, "gather", 3, 1), payload).nbytes


@given(dense_vectors)
def test_a_dense_vector_is_the_same_bytes_by_the_short_way(vector: Dense) -> None:
    head = head_of(vector, "gather", 3, 1)
    message = encode_dense(head, vector.values)
    assert message.dtype == vector.values.dtype
    assert torch.equal(message.view(torch.uint8), encode(head, vector))


def test_a_vector_that_is_scattered_in_memory_is_gathered() -> None:
    values = torch.arange(12.0).reshape(3, 4)[:, 1]
    message = encode_dense(head := head_of(Dense(values), "gather", 3, 1), values)
    assert values_after(head, message, Dense(values)).tolist() == [1.0, 5.0, 9.0]  # type: ignore[union-attr]


@given(dense_vectors, st.data())
def test_a_dense_vector_is_taken_only_from_a_message_that_begins_as_it_must(vector: Dense, data: st.DataObject) -> None:
    head = head_of(vector, "gather", 3, 1)
    message = encode_dense(head, vector.values)
    values = values_after(head, message, vector)
    assert values is not None
    assert values.dtype == vector.values.dtype
    assert torch.equal(values, vector.values)
    place = data.draw(st.integers(0, len(head) - 1))
    message.view(torch.uint8)[place] += 1
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
