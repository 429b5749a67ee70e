"""When flows end, by progressive filling in exact fractions: slow, obvious, and sharing no code with netsim.

Everything is a whole number or a fraction: bit/s, bits, picoseconds. Nothing is ever rounded, so events that
coincide do so exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import strategies as st

SECOND = 10**12


@dataclass(frozen=True)
class Wanted:
    """A flow: its links, bits, when it begins to drain in picoseconds, its weight, and its cap in bit/s if any."""

    links: tuple[int, ...]
    bits: int
    at: int
    weight: Fraction = Fraction(1)
    cap: int | None = None


def rates(flows: list[Wanted], capacity: list[int]) -> list[Fraction]:
    """Raise the levels of all flows together, a rate being level times weight, until a link or a cap stops some."""
    rate = [Fraction(0)] * len(flows)
    growing = set(range(len(flows)))
    level = Fraction(0)
    while growing:
        rises = []
        for link, limit in enumerate(capacity):
            users = [number for number in growing if link in flows[number].links]
            if users:
                used = sum(rate[number] for number, flow in enumerate(flows) if link in flow.links)
                rises.append((limit - used) / sum(flows[number].weight for number in users))
        caps = {number: cap for number in growing if (cap := flows[number].cap) is not None}
        rises += [cap / flows[number].weight - level for number, cap in caps.items()]
        rise = min(rises)
        level += rise
        for number in growing:
            rate[number] += rise * flows[number].weight
        carried = [
            sum(rate[number] for number, flow in enumerate(flows) if link in flow.links)
            for link in range(len(capacity))
        ]
        full = {link for link, limit in enumerate(capacity) if carried[link] >= limit}
        growing = {
            number for number in growing if not full & set(flows[number].links) and rate[number] != flows[number].cap
        }
    return rate


def finish(flows: list[Wanted], capacity: list[int]) -> list[Fraction]:
    """Return the picosecond at which the last bit of each flow has drained, not rounded."""
    left = [Fraction(flow.bits) for flow in flows]
    ends: list[Fraction | None] = [None if flow.bits and flow.links else Fraction(flow.at) for flow in flows]
    now = Fraction(0)
    while None in ends:
        active = [number for number, end in enumerate(ends) if end is None and flows[number].at <= now]
        later = [Fraction(flow.at) for flow in flows if flow.at > now]
        fair = dict(zip(active, rates([flows[number] for number in active], capacity), strict=True))
        until = min([now + left[number] / fair[number] * SECOND for number in active] + later)
        for number in active:
            left[number] -= fair[number] * (until - now) / SECOND
            if not left[number]:
                ends[number] = until
        now = until
    return [end for end in ends if end is not None]


@st.composite
def traffics(draw: st.DrawFn, kind: str = "any", links: int = 8, flows: int = 12) -> tuple[list[int], list[Wanted]]:
    """Draw capacities and flows: "plain", "weighted" (by round-trip time), "capped", or any mixture."""
    kind = draw(st.sampled_from(["plain", "weighted", "capped", "both"])) if kind == "any" else kind
    capacity = draw(st.lists(st.sampled_from([10**6, 25 * 10**5, 10**7, 3 * 10**8, 10**9]), min_size=1, max_size=links))
    route = st.lists(st.integers(0, len(capacity) - 1), min_size=1, max_size=4, unique=True).map(tuple)
    bits = st.one_of(st.sampled_from([0, 8 * 10**3, 8 * 10**5]), st.integers(10**3, 10**6).map(lambda size: 8 * size))
    at = st.one_of(st.integers(0, 3).map(lambda half: half * SECOND // 2), st.integers(0, SECOND))
    weight = st.integers(1, 20).map(lambda hops: Fraction(40_000, hops)) if kind in ("weighted", "both") else st.just(1)
    cap = st.sampled_from([None, 10**5, 777_777, 10**6, 10**8]) if kind in ("capped", "both") else st.none()
    flow = st.builds(Wanted, route, bits, at, weight.map(Fraction), cap)
    return capacity, draw(st.lists(flow, min_size=1, max_size=flows))
