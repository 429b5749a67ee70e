"""E3M0, a float of 4 bits: a sign, three bits of exponent, and no mantissa.

With s the largest magnitude of a vector, a value becomes 0 or ± s 2^(c - 7) for a code c from 1 to 7, whichever is
nearest. A message holds s as float32, then two values a byte. The Streaming DiLoCo paper names the format (section 2.4;
Agrawal et al., eXmY) and no scale: the scale s is netsim's reading.
"""

from __future__ import annotations

from algorithms.packing import pack, packed_bytes, unpack
from algorithms.quantisation import whole_messages
from netsim.comm.payload import VALUE_BYTES, Dense, SizeOnly, size_rule

BITS, TOP = 4, 7
"""Bits of a value, and the code of the largest magnitude."""
SIGN = 2**3
"""The bit of the sign."""


def message_bytes(size: int) -> int:
    """Return the bytes of the message of `size` elements: 4 + ⌈size / 2⌉."""
    return VALUE_BYTES + packed_bytes(size, BITS)


@size_rule(lambda vector: SizeOnly(message_bytes(vector.size), None, "uint8"))
def to_e3m0(vector: Dense) -> Dense:
    """Return the message of a vector (d,); a value half-way between two levels takes the larger magnitude."""
    import torch

    values = vector.values
    scale = values.abs().amax() if values.numel() else values.new_zeros(())
    mantissa, exponent = torch.frexp(values.abs() / torch.where(scale > 0, scale, 1))
    # A ratio m 2^e with 1/2 ≤ m < 1 lies between 2^(e-1) and 2^e, whose middle is 3/4 2^e.
    code = exponent - 1 + (mantissa >= 0.75).to(exponent.dtype) + TOP
    code = torch.where((code < 1) & (exponent > -TOP), 1, code.clamp(min=0))  # 2^-7 is the middle of 0 and 2^-6
    code = torch.where(mantissa > 0, code, 0) + SIGN * torch.signbit(values)
    return Dense(torch.cat([scale.float().view(1).view(torch.uint8), pack(code, BITS)]))


@size_rule(lambda template, *messages: template)
def add_e3m0(template: Dense, *messages: Dense) -> Dense:
    """Return the sum (d,) of the vectors in messages, in rank order and in at least float32; `template` is (d,)."""
    import torch

    total = torch.zeros_like(template.values)
    for message in whole_messages(messages, message_bytes(template.size)):
        scale = message[:VALUE_BYTES].view(torch.float32).to(total.dtype)
        codes = unpack(message[VALUE_BYTES:], BITS, template.size)
        magnitude = codes % SIGN
        values = torch.where(magnitude > 0, torch.exp2(magnitude.to(total.dtype) - TOP) * scale, 0)
        total += torch.where(codes >= SIGN, -values, values)
    return Dense(total)
