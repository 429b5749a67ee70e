"""Quantities as people write them (``1Gbps``, ``50us``, ``100MB``) to SI numbers and back.

Strict on purpose: a misspelt unit is an error with a suggestion, never a guess. Numbers without a
unit are accepted from Python only, where they are already SI: bit/s, seconds, bytes.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from netsim.errors import UsageError, suggestion

PICOSECONDS = 10**12
"""Picoseconds in a second: simulated time is an integer number of them."""

_SI = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_IEC = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

BANDWIDTH = {f"{p}{unit}": Fraction(n) for p, n in _SI.items() for unit in ("bps", "bit/s")}
BANDWIDTH |= {f"{p}B/s": Fraction(8 * n) for p, n in (_SI | _IEC).items()}
DURATION = {
    "ps": Fraction(1, 10**12),
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 10**3),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
}
SIZE = {f"{p}B": Fraction(n) for p, n in (_SI | _IEC).items()}

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?))\s*(\D*)\s*", re.I)


def _parse(text: str | float, units: dict[str, Fraction], what: str, example: str, *, zero: bool) -> Fraction:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise UsageError(f"{what} {text!r} is not a quantity; write it like {example}")
    if isinstance(text, str):
        match = _QUANTITY.fullmatch(text)
        if match is None:
            raise UsageError(f"{what} {text!r} is not a number with a unit; write it like {example}")
        number, unit = match[1], match[2].strip()
        if math.isfinite(float(number)) and not unit:
            raise UsageError(f"{what} {text!r} has no unit; write it like {example}")
        if unit and unit not in units:
            raise UsageError(
                f"{what} {text!r} has an unknown unit {unit!r}{suggestion(unit, units)}; write it like {example}"
            )
        scale = units.get(unit, Fraction(1))
    else:
        number, scale = repr(text), Fraction(1)
    if not math.isfinite(float(number)):
        raise UsageError(f"{what} {text!r} is not finite; write it like {example}")
    value = Fraction(number) * scale
    try:
        vanishes = bool(value) and not float(value)
    except OverflowError:
        raise UsageError(f"{what} {text!r} is too large; write it like {example}") from None
    if vanishes:
        raise UsageError(f"{what} {text!r} is too small to tell from zero; write it like {example}")
    if value < 0 or (value == 0 and not zero):
        raise UsageError(
            f"{what} {text!r} must be {'zero or more' if zero else 'more than zero'}; write it like {example}"
        )
    return value


def parse_bandwidth(text: str | float) -> int:
    """Return bit/s (at least 1), from ``1Gbps``, ``100Mbit/s``, ``25GiB/s`` or a number of bit/s."""
    return max(1, round(_parse(text, BANDWIDTH, "bandwidth", "1Gbps, 100Mbit/s or 25GiB/s", zero=False)))


def parse_duration(text: str | float, what: str = "duration", *, zero: bool = False) -> float:
    """Return seconds, from ``50us``, ``1.5ms``, ``2s`` or a number of seconds."""
    return float(_parse(text, DURATION, what, "50us, 1.5ms or 2s", zero=zero))


def parse_size(text: str | float, what: str = "size") -> int:
    """Return bytes, from ``100MB``, ``64KiB`` or a number of bytes."""
    return round(_parse(text, SIZE, what, "100MB or 64KiB", zero=False))


def picoseconds(seconds: float) -> int:
    """Return the integer number of picoseconds nearest to `seconds`."""
    return round(Fraction(seconds) * PICOSECONDS)


def _scaled(value: float, steps: list[tuple[float, str]]) -> str:
    for step, unit in steps:
        if abs(value) >= step:
            return f"{value / step:.3g} {unit}" if abs(value) < 999.5 * step else f"{value / step:,.0f} {unit}"
    step, unit = steps[-1]
    return f"{value / step:.3g} {unit}"


def format_bandwidth(bits_per_second: float) -> str:
    """Return bit/s for people: ``1 Gbit/s``."""
    return _scaled(bits_per_second, [(1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1, "bit/s")])


def format_duration(seconds: float) -> str:
    """Return seconds for people: ``50 µs``."""
    if seconds == 0:
        return "0"
    return _scaled(seconds, [(1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps")])


def format_bytes(count: float) -> str:
    """Return bytes for people: ``100 MB``."""
    if count == 0:
        return "0"
    return _scaled(count, [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")])
