"""Payloads as bytes: what one rank sends another besides the message's own header.

A message is a header of twelve int64 and, unless empty, a body of bytes: first a table of four int64
a part (kind, element type, entries, size), then each part's values and indices, padded to eight bytes.
Operation, step and tag are in the header, and the receiver checks them: torch.distributed would
deliver a wrong message silently, reinterpret its bits, or keep a stale tail.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import torch

from netsim.errors import ProtocolError
from netsim.payload import Bundle, Dense, Flag, Payload, SizeOnly, Sparse, Vector

NAME_WORDS = 4
"""Of the operation, in UTF-8: what is longer is cut, and told by its checksum."""
HEADER_WORDS = 8 + NAME_WORDS
MAGIC = 0x6E657473696D31  # "netsim1"
DENSE, SPARSE, FLAG = 0, 1, 2
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_ALIGN = 8
_ROW = 4
_WORD = 8
_HEADER = struct.Struct(f"<8q{NAME_WORDS * _WORD}s")


@dataclass(frozen=True, slots=True)
class Header:
    """Which message this is, and how large its body."""

    operation: str
    step: int
    tag: int
    parts: int
    bundled: bool
    body_bytes: int

    def encode(self) -> torch.Tensor:
        """Return the header as (HEADER_WORDS,) int64."""
        fields = (MAGIC, _code(self.operation), self.step, self.tag, self.parts, self.bundled, self.body_bytes, 0)
        # What is longer than the name's words is cut, what is shorter padded with zeros.
        return torch.frombuffer(bytearray(_HEADER.pack(*fields, self.operation.encode())), dtype=torch.int64)

    @classmethod
    def decode(cls, words: torch.Tensor, operation: str, step: int, tag: int, where: str) -> Header:
        """Return the header; raise ProtocolError unless it is of this operation, step and tag."""
        magic, code, its_step, its_tag, parts, bundled, body_bytes, _, *name = words.tolist()
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


def encode(payload: Payload) -> tuple[torch.Tensor, int]:
    """Return the body as a uint8 tensor on the payload's device, and its number of parts."""
    parts = payload.parts if isinstance(payload, Bundle) else (payload,)
    if not parts:
        return torch.empty(0, dtype=torch.uint8), 0
    rows: list[int] = []
    pieces: list[torch.Tensor] = []
    for part in parts:
        if isinstance(part, SizeOnly):
            raise ProtocolError("a size-only payload has no data to send over a real network")
        if isinstance(part, Flag):
            rows += [FLAG, 0, 0, int(part.value)]
            continue
        sparse = isinstance(part, Sparse)
        rows += [SPARSE if sparse else DENSE, DTYPES.index(part.values.dtype), part.values.numel(), part.size]
        pieces += _padded(part.values)
        if isinstance(part, Sparse):
            pieces += _padded(part.indices)
    table = torch.frombuffer(bytearray(struct.pack(f"<{len(rows)}q", *rows)), dtype=torch.uint8)
    table = table.to(pieces[0].device) if pieces else table
    return torch.cat([table, *pieces]), len(parts)


def decode(body: torch.Tensor, header: Header) -> Payload:
    """Return the payload of a received body."""
    if not header.parts:
        return Bundle(())
    table = body[: header.parts * _ROW * _WORD].view(torch.int64).tolist()
    position = header.parts * _ROW * _WORD
    parts: list[Vector | Flag] = []

    def take(dtype: torch.dtype, count: int) -> torch.Tensor:
        nonlocal position
        length = count * dtype.itemsize
        piece = body[position : position + length].view(dtype)
        position += length + -length % _ALIGN
        return piece

    for row in range(header.parts):
        kind, dtype, entries, size = table[row * _ROW : (row + 1) * _ROW]
        if kind == FLAG:
            parts.append(Flag(bool(size)))
            continue
        values = take(DTYPES[dtype], entries)
        parts.append(Sparse(take(torch.int32, entries), values, size) if kind == SPARSE else Dense(values))
    return Bundle(tuple(parts)) if header.bundled else parts[0]


def _padded(values: torch.Tensor) -> list[torch.Tensor]:
    """Return the bytes of a tensor, and zeros up to the next word if it does not end with one."""
    raw = values.contiguous().view(torch.uint8)
    missing = -raw.numel() % _ALIGN
    return [raw, raw.new_zeros(missing)] if missing else [raw]
