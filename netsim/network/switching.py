"""The time that switches add to a message: none, the time of a header per hop, or that of a whole packet per hop.

Without this effect a message flows through all links of its route at once. A cut-through switch reads the header before
it forwards (Kermani and Kleinrock 1979, *Virtual cut-through*); a store-and-forward switch reads a whole packet. The
extra time is exact on an idle route. On shared links it is approximate: the same as on an idle route.
"""

from __future__ import annotations

from fractions import Fraction

from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Route

SWITCHINGS = ("ideal", "cut-through", "store-and-forward")

HEADER = 22
"""Bytes that a cut-through switch reads before it forwards: the preamble and the Ethernet header."""


def extra_ps(switching: str, route: Route, wire_bytes: int, packet: int) -> int:
    """Return the picoseconds by which switches delay a message, beyond latency and its time on the narrowest link.

    Cut-through adds the time of a header on every link but the last. Store-and-forward sends packets of `packet` bytes,
    and a last packet with the remaining bytes. The delay is then the time until the last packet has passed the last
    link, minus the time of all bytes on the narrowest link.
    """
    bandwidths = [link.bandwidth_bps for link in route.links if link.cabled]
    if switching == "ideal" or len(bandwidths) < 2 or not wire_bytes:
        return 0
    if switching == "cut-through":
        extra = sum(Fraction(8 * min(HEADER, wire_bytes), bandwidth) for bandwidth in bandwidths[:-1])
    else:
        full, rest = divmod(wire_bytes - 1, packet)
        extra = _pipeline(bandwidths, full, packet, rest + 1) - Fraction(8 * wire_bytes, min(bandwidths))
    return round(extra * PICOSECONDS)


def _pipeline(bandwidths: list[int], full: int, packet: int, last: int) -> Fraction:
    """Return the seconds until `full` packets and one of `last` bytes have passed links of these bandwidths.

    That is the longest path through the table of (packet, link). It follows one packet over the first links, waits for
    all other full packets on the slowest of them, and follows the last packet over the remaining links.
    """
    times = [Fraction(8, bandwidth) for bandwidth in bandwidths]
    if not full:
        return last * sum(times, Fraction(0))
    return max(
        packet * (sum(times[: turn + 1], Fraction(0)) + (full - 1) * max(times[: turn + 1]))
        + last * sum(times[turn:], Fraction(0))
        for turn in range(len(times))
    )
