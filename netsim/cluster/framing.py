"""What a message of so many bytes costs a link that counts frames, and what links let through besides."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT_BYTES = 1448
"""Payload of a full frame: MTU 1500 less 20 of IP, 20 of TCP and 12 of its time stamp."""
HEADER_BYTES = {"virtual": 66, "physical": 90}
"""Of a frame: those 52 and 14 of Ethernet, which is all that a veth's queue counts; on a cable also the checksum,
preamble and gap."""
GLOO_BYTES = 48
"""gloo's own header of a transfer; also all that it sends to say that a receiver is ready."""
ENVELOPE_BYTES = GLOO_BYTES + 96 + 32
"""That, the header of a message of ours, and the table that begins its body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How bytes become frames, and what the receiver's acknowledgements and a shaper's credit come to.

    `header_bytes` a segment; `ack_bytes` an acknowledgement on the way back, of which TCP sends one for
    every `ack_every` segments; `credit_bytes` is what an idle link lets through at once. Where a
    shaper lets whole groups of frames go as long as a link owes nothing, and has it owe them, `together` is how many.
    `sure_share` is the part of a link that two hosts are sure of whatever others send: they have such a credit each.
    `ready_bytes` is what goes the way back before a message does: its receiver's word that it is ready for it.
    """

    header_bytes: int = HEADER_BYTES["physical"]
    ack_bytes: int = 84
    ack_every: int = 2
    credit_bytes: int = 0
    together: int = 0
    sure_share: float = 0.0
    ready_bytes: int = 0

    def bytes_of(self, nbytes: int) -> int:
        """Return what a message of `nbytes` of values and indices puts on a link."""
        body = nbytes + ENVELOPE_BYTES
        return body + self.header_bytes * -(-body // SEGMENT_BYTES)

    def owed_of(self, bytes_on_link: int) -> int:
        """Return what of a message goes before it is earned: its last group of frames."""
        if not self.together:
            return 0
        frame = SEGMENT_BYTES + self.header_bytes
        frames_before = (-(-bytes_on_link // frame) - 1) // self.together * self.together
        return bytes_on_link - frames_before * frame

    def earned_of(self, bytes_on_link: int) -> int:
        """Return what an idle link has to earn of a message while that is under way."""
        return max(0, bytes_on_link - self.owed_of(bytes_on_link) - self.credit_bytes)

    @property
    def ack_share(self) -> float:
        """Bytes of acknowledgement on the way back for a byte on the way there."""
        return self.ack_bytes / (self.ack_every * (SEGMENT_BYTES + self.header_bytes))


IDEAL_CABLE = Wire()
