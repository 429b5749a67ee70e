"""TCP as it matters to a message: headers on the wire, connections to open, and slow start.

A message of n segments is sent in windows of w, 2w, 4w … segments. A window starts when the one before has
drained, and not before the acknowledgement of that one's first segment is back; once a window takes longer to
drain than its acknowledgement to come, the sender never waits again. For a message that shares no link this is
the classic latency of a static slow start (Heidemann, Obraczka and Touch 1997, *Modeling the Performance of HTTP
over Several Transport Protocols*; Kurose and Ross, *Computer Networking*, section 3.7): with S/R a segment's time
on the narrowest link, each window adds max(0, RTT + S/R - (its size) S/R).

Left out: loss and what follows from it, delayed acknowledgements, and the way that acknowledgements take.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsim._util.errors import UsageError, check_choice
from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Route

PAYLOAD = 1448
"""Bytes of a message in a full segment: 1500 less 20 of IP, 20 of TCP and 12 of timestamps."""

HEADERS = 90
"""Bytes beside them on the wire: those 52, Ethernet's 18, preamble 8 and gap 12."""

CONNECTIONS = ("established", "per-pair", "per-message")


@dataclass(frozen=True, slots=True)
class Tcp:
    """How messages travel: the first window in segments, and when a connection is opened, at one round trip.

    "established": before the run. "per-pair": by the first message between two hosts, either way. "per-message".
    """

    initial_window: int = 10
    connections: str = "established"

    def __post_init__(self) -> None:
        check_choice("connections", self.connections, CONNECTIONS)
        if type(self.initial_window) is not int or self.initial_window < 1:
            raise UsageError(f"initial-window {self.initial_window!r} must be a whole number of segments, such as 10")

    def windows(self, nbytes: int, first: int) -> tuple[int, ...]:
        """Return the bytes on the wire of a message's windows, of which the first has `first` segments."""
        windows = []
        while nbytes > 0:
            part = min(nbytes, first * PAYLOAD)
            windows.append(on_wire(part))
            nbytes -= part
            first *= 2
        return tuple(windows)

    @staticmethod
    def acknowledged(route: Route, latency_ps: int) -> int:
        """Return the picoseconds from a window's start until its first segment is acknowledged."""
        assert route.narrowest is not None
        segment = 8 * (PAYLOAD + HEADERS) * PICOSECONDS // route.narrowest.bandwidth_bps
        return 2 * latency_ps + segment


def on_wire(nbytes: int) -> int:
    """Return the bytes on the wire of a message, headers of all its segments included."""
    return nbytes + HEADERS * -(-nbytes // PAYLOAD)
