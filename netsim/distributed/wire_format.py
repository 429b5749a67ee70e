"""Messages as bytes: a header, a table of parts, and values.

A message is a header of twelve int64 and, unless it is empty, a body. The body begins with a table of four int64 for
each part (kind, element type, entries, size). Each part's values and indices follow, padded to eight bytes. A receiver
that knows the size takes in header and body at once; any other takes in the header first.

The receiver checks operation, step and tag in the header. torch.distributed would deliver a wrong message silently,
reinterpret its bits, or keep a stale tail.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import zlib
from dataclasses import dataclass

import torch

from netsim._util.errors import ProtocolError
from netsim.comm.payload import Bundle, Dense, Flag, Payload, Sparse, Vector
from netsim.training.buffers import on_device

NAME_WORDS = 4
"""Words of the header for the operation's name in UTF-8; longer names are cut, and their checksum tells them apart."""
MAGIC = 0x6E657473696D31  # "netsim1"
DENSE, SPARSE, FLAG = 0, 1, 2
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int32)
_ALIGN = 8
_ROW_WORDS = 4
_ROW = struct.Struct(f"<{_ROW_WORDS}q")
_HEADER = struct.Struct(f"<8q{8 * NAME_WORDS}s")
HEADER_BYTES = _HEADER.size
_WHOLE_HEAD_BYTES = HEADER_BYTES + _ROW.size
"""Header and table of a vector: a whole number of elements of every type."""


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a message: operation, step and tag, number of parts, and size of the body in bytes."""

    operation: str
    step: int
    tag: int
    parts: int
    bundled: bool
    body_bytes: int

    def encode(self) -> bytes:
        """Return the header's HEADER_BYTES."""
        fields = (MAGIC, _code(self.operation), self.step, self.tag, self.parts, self.bundled, self.body_bytes, 0)
        # pack cuts a name that is longer than its words, and pads a shorter one with zeros.
        return _HEADER.pack(*fields, self.operation.encode())

    @classmethod
    def decode(cls, message: torch.Tensor, operation: str, step: int, tag: int, where: object) -> Header:
        """Return the header of a message.

        Parameters
        ----------
        message
            uint8 (n,), the message or its beginning.
        operation, step, tag
            Of the message that is expected.
        where
            For errors.

        Raises
        ------
        ProtocolError
            If it is another message.
        """
        magic, code, its_step, its_tag, parts, bundled, body_bytes, _, *name = (
            message[:HEADER_BYTES].view(torch.int64).tolist()
        )
        if magic != MAGIC:
            raise ProtocolError(f"{where}: received something that is not a netsim message; do all ranks run netsim?")
        if (code, its_step, its_tag) != (_code(operation), step, tag):
            theirs = struct.pack(f"<{NAME_WORDS}q", *name).rstrip(b"\0").decode(errors="replace")
            raise ProtocolError(
                f"{where}: received a message of {theirs}, step {its_step}, tag {its_tag}, "
                f"expected {operation}, step {step}, tag {tag}; do all ranks run the same?"
            )
        return cls(operation, its_step, its_tag, parts, bool(bundled), body_bytes)


def _code(operation: str) -> int:
    return zlib.crc32(operation.encode())


def head_of(payload: Payload, operation: str, step: int, tag: int) -> bytes:
    """Return the header of a payload's message and the table of its body.

    All dense vectors of one size and element type have the same.
    """
    if isinstance(payload, Dense):
        return _dense_head(payload.values.dtype, payload.size, operation, step, tag)
    parts = payload.parts if isinstance(payload, Bundle) else (payload,)
    table = b"".join(map(_row, parts))
    body_bytes = len(table) + sum(map(_padded_bytes, parts))
    return Header(operation, step, tag, len(parts), isinstance(payload, Bundle), body_bytes).encode() + table


@functools.lru_cache(64)  # the steps of a ring differ in nothing of this
def _dense_head(dtype: torch.dtype, size: int, operation: str, step: int, tag: int) -> bytes:
    table = _ROW.pack(DENSE, DTYPES.index(dtype), size, size)
    return Header(operation, step, tag, 1, False, len(table) + _padded_size(size * dtype.itemsize)).encode() + table


def _row(part: Payload) -> bytes:
    if isinstance(part, Dense | Sparse):
        kind = SPARSE if isinstance(part, Sparse) else DENSE
        return _ROW.pack(kind, DTYPES.index(part.values.dtype), part.values.numel(), part.size)
    if isinstance(part, Flag):
        return _ROW.pack(FLAG, 0, 0, part.value)
    raise ProtocolError("a size-only payload has no data to send over a real network")


def _padded_bytes(part: Payload) -> int:
    return _padded_size(part.value_bytes) + _padded_size(part.index_bytes)


def _padded_size(nbytes: int) -> int:
    return nbytes + -nbytes % _ALIGN


def room_for(template: Payload) -> torch.Tensor:
    """Return an empty tensor for a message with a payload like the template, a dense vector or a flag."""
    if isinstance(template, Dense):
        dtype = template.values.dtype
        nbytes = _WHOLE_HEAD_BYTES + _padded_size(template.size * dtype.itemsize)
        return torch.empty(nbytes // dtype.itemsize, dtype=dtype)
    assert isinstance(template, Flag)
    return torch.empty(_WHOLE_HEAD_BYTES, dtype=torch.uint8)


def encode_dense(head: bytes, values: torch.Tensor) -> torch.Tensor:
    """Return the message of a dense vector, with the bytes of :func:`encode`, but only two calls of torch's.

    Parameters
    ----------
    head
        Header and table.
    values
        Values (n,) in main memory.
    """
    values = values.contiguous()
    message, nbytes = room_for(Dense(values)), values.nbytes
    address = message.data_ptr()
    ctypes.memmove(address, head, len(head))
    ctypes.memmove(address + len(head), values.data_ptr(), nbytes)
    ctypes.memset(address + len(head) + nbytes, 0, -nbytes % _ALIGN)
    return message


def encode(head: bytes, payload: Payload) -> torch.Tensor:
    """Return `head`, followed by the values and indices of a payload, as uint8 on the payload's device."""
    pieces: list[torch.Tensor] = []
    for part in payload.parts if isinstance(payload, Bundle) else (payload,):
        if isinstance(part, Dense | Sparse):
            pieces += _padded(part.values)
        if isinstance(part, Sparse):
            pieces += _padded(part.indices)
    first = as_tensor(head)
    if not pieces:
        return first
    device = pieces[0].device
    return torch.cat([first if device.type == "cpu" else first.to(device), *pieces])


def as_tensor(raw: bytes) -> torch.Tensor:
    """Return bytes as (n,) uint8."""
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)


def values_after(head: bytes, message: torch.Tensor, template: Dense) -> torch.Tensor | None:
    """Return the values in a dense vector's message; None if the message does not begin with `head`.

    Parameters
    ----------
    head
        Header and table of the message that is expected.
    message
        The message, in elements of the vector's type.
    template
        A vector of the expected size.
    """
    if ctypes.string_at(message.data_ptr(), len(head)) != head:
        return None
    return message.narrow(0, len(head) // message.element_size(), template.size)


def decode(body: torch.Tensor, header: Header) -> Payload:
    """Return the payload of a received body, uint8 (n,), which begins with the table of parts."""
    if not header.parts:
        return Bundle(())
    position = header.parts * _ROW.size
    table = body[:position].view(torch.int64).tolist()
    parts: list[Vector | Flag] = []

    def take(dtype: torch.dtype, count: int) -> torch.Tensor:
        nonlocal position
        length = count * dtype.itemsize
        piece = body[position : position + length].view(dtype)
        position += length + -length % _ALIGN
        return piece

    for row in range(header.parts):
        kind, dtype, entries, size = table[row * _ROW_WORDS : (row + 1) * _ROW_WORDS]
        if kind == FLAG:
            parts.append(Flag(bool(size)))
            continue
        values = take(DTYPES[dtype], entries)
        parts.append(Sparse(take(torch.int32, entries), values, size) if kind == SPARSE else Dense(values))
    return Bundle(tuple(parts)) if header.bundled else parts[0]


def placed(payload: Payload, template: Payload) -> Payload:
    """Return a received payload, its tensors on the devices of those of a template of its kind.

    Dense vectors may be on a GPU; sparse ones are in main memory.
    """
    if isinstance(payload, Bundle) and isinstance(template, Bundle):
        return Bundle(tuple(placed(*pair) for pair in zip(payload.parts, template.parts, strict=False)))  # type: ignore[misc]
    if isinstance(payload, Dense) and isinstance(template, Dense):
        return Dense(on_device(payload.values, template.values.device))
    if isinstance(payload, Sparse) and isinstance(template, Sparse):
        indices, values = (on_device(part, template.values.device) for part in (payload.indices, payload.values))
        return Sparse(indices, values, payload.size)
    return payload


def _padded(values: torch.Tensor) -> list[torch.Tensor]:
    """Return the bytes of a tensor, followed by zeros up to the next multiple of eight bytes."""
    raw = values.contiguous().view(torch.uint8)
    missing = -raw.numel() % _ALIGN
    return [raw, raw.new_zeros(missing)] if missing else [raw]
