"""The parts of TCP that delay a message: headers on the wire, connections to open, slow start, and acknowledgements.

A message of n segments is sent in windows of w, 2w, 4w … segments. A window starts when the previous window has
drained and the acknowledgement of that window's first segment is back. Once a window takes longer to drain than its
acknowledgement to come back, the sender never waits again. A message right behind another one on its connection goes on
with the window of that message; after an idle time, slow start begins anew.

For a message that shares no link this is the classic latency of a static slow start: with S/R the time of a segment on
the narrowest link, each window adds max(0, RTT + S/R - (segments of the window) S/R).

Acknowledgements go back over the links of the other direction and take part of their bandwidth, if asked for: a frame
for every `segments_per_ack` segments. Receivers with delayed acknowledgements send one for two segments (RFC 1122).

The model leaves out losses and their recovery.

References
----------
Heidemann, Obraczka and Touch 1997, *Modeling the Performance of HTTP over Several Transport Protocols*.
Kurose and Ross, *Computer Networking*, section 3.7.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsim._util.errors import UsageError, check_choice
from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Route

IP_HEADERS = 52
"""Bytes of headers in an IP packet: 20 of IP, 20 of TCP and 12 of timestamps."""

HEADERS = 90
"""Bytes of a segment on the wire beside its payload: those of IP, Ethernet's 18, preamble 8 and gap 12."""

ACKNOWLEDGEMENT = 90
"""Bytes of an acknowledgement on the wire: a segment without payload."""

CONNECTIONS = ("established", "per-pair", "per-message")


@dataclass(frozen=True, slots=True)
class Tcp:
    """The options of TCP.

    Parameters
    ----------
    initial_window
        The first window of a message, in segments.
    connections
        When a connection is opened, which takes one round trip: "established" before the run, "per-pair" with the first
        message between two hosts in either direction, or "per-message".
    mtu
        The largest IP packet in bytes: 1500, or about 9000 for jumbo frames.
    segments_per_ack
        Segments per acknowledgement; with 0, acknowledgements take no bandwidth.
    """

    initial_window: int = 10
    connections: str = "established"
    mtu: int = 1500
    segments_per_ack: int = 0

    def __post_init__(self) -> None:
        check_choice("connections", self.connections, CONNECTIONS)
        if type(self.initial_window) is not int or self.initial_window < 1:
            raise UsageError(f"initial-window {self.initial_window!r} must be a whole number of segments, such as 10")

    @property
    def payload(self) -> int:
        """Payload of a full segment, in bytes.

        >>> Tcp().payload, Tcp(mtu=9001).payload
        (1448, 8949)
        """
        return self.mtu - IP_HEADERS

    @property
    def segment(self) -> int:
        """A full segment on the wire, in bytes."""
        return self.payload + HEADERS

    def on_wire(self, nbytes: int) -> int:
        """Return the bytes of a message on the wire, including the headers of all its segments.

        >>> Tcp().on_wire(1449)
        1629
        """
        return nbytes + HEADERS * -(-nbytes // self.payload)

    def acknowledgements(self, wire_bytes: int) -> int:
        """Return the bytes of acknowledgements that a number of bytes on the wire causes in the other direction.

        >>> Tcp(segments_per_ack=2).acknowledgements(3 * 1538)
        180
        """
        if not self.segments_per_ack:
            return 0
        return ACKNOWLEDGEMENT * -(-wire_bytes // (self.segment * self.segments_per_ack))

    def acknowledged(self, route: Route, latency_ps: int) -> int:
        """Return the picoseconds from a window's start until the acknowledgement of its first segment is back."""
        assert route.narrowest is not None
        segment = 8 * self.segment * PICOSECONDS // route.narrowest.bandwidth_bps
        return 2 * latency_ps + segment


class CongestionWindow:
    """The present window of slow start on a connection.

    Parameters
    ----------
    tcp
        The options of TCP.
    segments
        Size of the first window.

    Attributes
    ----------
    began : int
        When the window started, in picoseconds.
    """

    __slots__ = ("_left", "_segments", "_tcp", "began")

    def __init__(self, tcp: Tcp, segments: int) -> None:
        self._tcp, self._segments = tcp, segments
        self._left = segments * tcp.payload
        self.began = 0

    def __repr__(self) -> str:
        return f"CongestionWindow({self._segments} segments, {self._left} bytes left)"

    @property
    def used_up(self) -> bool:
        """Whether what follows waits for an acknowledgement."""
        return not self._left

    def open(self) -> None:
        """Let everything that follows be sent without waiting for acknowledgements."""
        self._left = 2**63

    def take(self, nbytes: int) -> list[int]:
        """Return the bytes on the wire of each window of a message: the rest of this window, and larger windows.

        >>> window = CongestionWindow(Tcp(), segments=1)
        >>> window.take(1000), window.take(5000)
        ([1090], [538, 3076, 1836])
        """
        windows = []
        while nbytes:
            if self.used_up:
                self._segments *= 2
                self._left = self._segments * self._tcp.payload
            part = min(nbytes, self._left)
            self._left -= part
            nbytes -= part
            windows.append(self._tcp.on_wire(part))
        return windows or [0]
