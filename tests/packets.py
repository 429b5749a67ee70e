"""A packet at a time: the reference for TCP and for switches, written from first principles.

Every segment is an event, every acknowledgement is an event, and a window grows by one segment with each (slow
start without loss or delayed acknowledgements). Times are exact fractions of a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction

PAYLOAD, OVERHEAD, ACKNOWLEDGEMENT = 1448, 90, 84


def cut(nbytes: int, size: int) -> list[int]:
    """Return the sizes of the pieces of a message."""
    return [size] * (nbytes // size) + ([nbytes % size] if nbytes % size else [])


def through_switches(packets: Sequence[int], bandwidths: Sequence[int]) -> Fraction:
    """Return when the last packet has left the last link: a packet is sent on when all of it is there."""
    free = [Fraction(0)] * len(bandwidths)
    arrived = Fraction(0)
    for packet in packets:
        arrived = Fraction(0)
        for link, bandwidth in enumerate(bandwidths):
            arrived = free[link] = max(free[link], arrived) + Fraction(8 * packet, bandwidth)
    return arrived


def slow_start(
    nbytes: int, latency: Fraction, bandwidth: int, window: int, hops: int = 1, ack: int = 0, limit: int = 2**62
) -> Fraction:
    """Return when the last byte of a message arrives, over `hops` equal links that together have `latency`.

    Acknowledgements of `ack` bytes have the way back to themselves. A window grows up to `limit` segments.
    """
    segments = [payload + OVERHEAD for payload in cut(nbytes, PAYLOAD)]
    free = [Fraction(0)] * hops
    acks: list[Fraction] = []
    now = arrived = Fraction(0)
    under_way = sent = 0
    while sent < len(segments):
        while sent < len(segments) and under_way < window:
            arrived = now
            for link in range(hops):
                free[link] = max(free[link], arrived) + Fraction(8 * segments[sent], bandwidth)
                arrived = free[link]
            arrived += latency
            heapq.heappush(acks, arrived + latency + hops * Fraction(8 * ack, bandwidth))
            sent, under_way = sent + 1, under_way + 1
        now = heapq.heappop(acks)
        under_way, window = under_way - 1, min(window + 1, limit)
    return arrived
