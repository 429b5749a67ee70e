"""What switches add to a message's time: nothing, the time of a header, or that of a whole packet a hop.

Without this a message flows through all links of its route at once. A cut-through switch first reads the header
(Kermani and Kleinrock 1979, *Virtual cut-through*), a store-and-forward switch a whole packet. On an idle route
the extra time is exact; where links are shared it stays what it is on an idle one.
"""

from __future__ import annotations

from fractions import Fraction

from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Route

SWITCHINGS = ("ideal", "cut-through", "store-and-forward")

HEADER = 22
"""Bytes that a cut-through switch reads before it forwards: preamble and Ethernet header."""


def extra_ps(switching: str, route: Route, wire_bytes: int, packet: int) -> int:
    """Return the picoseconds beyond the route's latency and the bytes' time on its narrowest link.

    Cut-through: the header's time on every link but the last. Store-and-forward, of packets of `packet` bytes and a
    last one of the rest: when the last has passed the last link, which is the longest way through the table of
    (packet, link) from the first packet's first link, less the time on the narrowest.
    """
    bandwidths = [link.bandwidth_bps for link in route.links]
    if switching == "ideal" or len(bandwidths) < 2 or not wire_bytes:
        return 0
    if switching == "cut-through":
        extra = sum(Fraction(8 * min(HEADER, wire_bytes), bandwidth) for bandwidth in bandwidths[:-1])
    else:
        full, rest = divmod(wire_bytes - 1, packet)
        extra = _pipeline(bandwidths, full, packet, rest + 1) - Fraction(8 * wire_bytes, min(bandwidths))
    return round(extra * PICOSECONDS)


def _pipeline(bandwidths: list[int], full: int, packet: int, last: int) -> Fraction:
    """Return when `full` packets and a `last` one of so many bytes have passed links of these bandwidths, in seconds.

    The longest way goes along the first `at` links with one packet, through all full packets but that one on the
    slowest of them, and on with the last packet.
    """
    times = [Fraction(8, bandwidth) for bandwidth in bandwidths]
    if not full:
        return last * sum(times, Fraction(0))
    return max(
        packet * (sum(times[: at + 1], Fraction(0)) + (full - 1) * max(times[: at + 1]))
        + last * sum(times[at:], Fraction(0))
        for at in range(len(times))
    )
