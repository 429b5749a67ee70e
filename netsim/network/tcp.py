"""The parts of TCP that delay a message: headers on the wire, connections to open, and slow start.

A message of n segments is sent in windows of w, 2w, 4w … segments. A window starts when the previous window has
drained and the acknowledgement of that window's first segment is back. Once a window takes longer to drain than its
acknowledgement to come back, the sender never waits again.

For a message that shares no link this is the classic latency of a static slow start: with S/R the time of a segment on
the narrowest link, each window adds max(0, RTT + S/R - (segments of the window) S/R).

The model leaves out losses and their recovery, delayed acknowledgements, and the bandwidth of acknowledgements.

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

PAYLOAD = 1448
"""Payload of a full segment in bytes: 1500 less 20 of IP, 20 of TCP and 12 of timestamps."""

HEADERS = 90
"""Other bytes of a segment on the wire: the 52 above, Ethernet's 18, preamble 8 and gap 12."""

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
    """

    initial_window: int = 10
    connections: str = "established"

    def __post_init__(self) -> None:
        check_choice("connections", self.connections, CONNECTIONS)
        if type(self.initial_window) is not int or self.initial_window < 1:
            raise UsageError(f"initial-window {self.initial_window!r} must be a whole number of segments, such as 10")

    def windows(self, nbytes: int, first: int) -> tuple[int, ...]:
        """Return the bytes on the wire of each window of a message; the first window has `first` segments.

        >>> Tcp().windows(nbytes=5000, first=1)
        (1538, 3076, 746)
        """
        windows = []
        while nbytes > 0:
            part = min(nbytes, first * PAYLOAD)
            windows.append(on_wire(part))
            nbytes -= part
            first *= 2
        return tuple(windows)

    @staticmethod
    def acknowledged(route: Route, latency_ps: int) -> int:
        """Return the picoseconds from a window's start until the acknowledgement of its first segment is back."""
        assert route.narrowest is not None
        segment = 8 * (PAYLOAD + HEADERS) * PICOSECONDS // route.narrowest.bandwidth_bps
        return 2 * latency_ps + segment


def on_wire(nbytes: int) -> int:
    """Return the bytes of a message on the wire, including the headers of all its segments.

    >>> on_wire(1449)
    1629
    """
    return nbytes + HEADERS * -(-nbytes // PAYLOAD)
