"""Bytes that a message occupies on a link, and bytes that a shaped link sends before they are due."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT_BYTES = 1448
"""Payload of a full frame: MTU 1500 less 20 of IP, 20 of TCP and 12 of the TCP timestamp option."""
SEGMENTS_PER_ACK = 2
"""TCP acknowledges every other segment."""
HEADER_BYTES = {"virtual": 66, "physical": 90}
"""Headers of a frame: 52 of IP and TCP and 14 of Ethernet; on a cable also checksum, preamble and gap."""
GLOO_BYTES = 48
"""gloo's header of a transfer."""
ENVELOPE_BYTES = GLOO_BYTES + 96 + 32
"""gloo's header, netsim's header of a message, and the table at the beginning of its body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Framing of a link, and the token bucket that shapes it.

    Parameters
    ----------
    header_bytes
        Headers of a frame, in bytes.
    ack_bytes
        Size of an acknowledgement on the way back, in bytes.
    burst_bytes
        Size of the token bucket: what an idle link sends at once, in bytes.
    gso_segments
        Frames that leave a queue as one group (generic segmentation offload). The last group of a message may leave
        on credit: the link sends while its bucket is not negative. 0 means that nothing leaves on credit.
    guaranteed_rate
        Rate that every pair of hosts is guaranteed on a link, as a fraction of the link's bandwidth. Each pair has
        a token bucket of `burst_bytes` of its own for it. 0 means no guarantee and no such bucket.
    """

    header_bytes: int = HEADER_BYTES["physical"]
    ack_bytes: int = 84
    burst_bytes: int = 0
    gso_segments: int = 0
    guaranteed_rate: float = 0.0

    def bytes_of(self, nbytes: int) -> int:
        """Return the bytes that a message with `nbytes` of values and indices takes on a link, headers included."""
        body = nbytes + ENVELOPE_BYTES
        return body + self.header_bytes * -(-body // SEGMENT_BYTES)

    def deficit_of(self, bytes_on_link: int) -> int:
        """Return the bytes of a message's last group of frames, which leaves before the bucket holds its tokens."""
        if not self.gso_segments:
            return 0
        frame = SEGMENT_BYTES + self.header_bytes
        frames_before = (-(-bytes_on_link // frame) - 1) // self.gso_segments * self.gso_segments
        return bytes_on_link - frames_before * frame

    def drained_of(self, bytes_on_link: int) -> int:
        """Return the bytes of a message that an idle link sends at its bandwidth: neither burst nor on credit."""
        return max(0, bytes_on_link - self.deficit_of(bytes_on_link) - self.burst_bytes)

    @property
    def ack_share(self) -> float:
        """Bytes of acknowledgements on the way back, per byte on the way there."""
        return self.ack_bytes / (SEGMENTS_PER_ACK * (SEGMENT_BYTES + self.header_bytes))


IDEAL_CABLE = Wire()
"""Frames of a physical cable, without a token bucket."""
