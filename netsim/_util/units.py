"""Converts quantities such as ``1Gbps``, ``50us`` and ``100MB`` to SI numbers, and back.

The reading is strict: a misspelt unit is an error with a suggestion, never a guess. Numbers without a unit are accepted
from Python only, where they are bit/s, seconds and bytes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from netsim._util.errors import InfeasibleError, UsageError, shown

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

HORIZON_PS = 2**62
"""The end of simulated time, in picoseconds: 53 days. The sum of two instants fits 64 bits."""
HORIZON_DAYS = HORIZON_PS // PICOSECONDS // 86400
FASTEST_BPS = 9 * 10**15
"""The largest bandwidth of a link. Whole bit/s up to this are exact in floating point (2**53)."""
SLOWEST_S = 10**6
"""The largest latency of a link, in seconds."""
MOST_BYTES = 115 * 10**16
"""The largest size of an option, in bytes; the number of its bits fits 64 bits."""
LONGEST_TEXT = 80
"""The most characters of a number. Python may take minutes to read a longer one."""

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_QUANTITY = re.compile(rf"({_NUMBER}|[+-]?(?:nan|inf(?:inity)?))\s*([^0-9]*)", re.IGNORECASE)
_PLAIN = re.compile(_NUMBER)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}|[+-]?[0-9]{1,18}(?:\.[0-9]{1,17})?[eE]\+?[0-9]{1,2}")


def read_whole(text: str) -> int | None:
    """Return the whole number in `text`, of at most 18 digits, such as 8, 1e6 or 25.6e6; None if there is none."""
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        return None
    value = Decimal(text)  # exact, and of at most 117 digits
    return int(value) if value == value.to_integral_value() and abs(value) < 10**18 else None


def read_number(text: str) -> float | None:
    """Return the finite number in `text`, such as 0.1 or 1e-3; None if there is none."""
    text = text.strip()
    if len(text) > LONGEST_TEXT or not _PLAIN.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def in_python(value: Any) -> Any:
    """Return numbers, texts and arrays of other libraries as Python's own, and paths as text; all else unchanged.

    An array of one element becomes that element. An infinity stays, so that its error can name it.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool | None):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(in_python, value))
    if hasattr(value, "tolist"):  # NumPy, torch and others
        try:
            listed = value.tolist()
        except RuntimeError:  # a tensor without values, on torch's device "meta"
            return value
        while isinstance(listed, list) and len(listed) == 1:
            listed = listed[0]
        if listed is None:  # a masked element is not "not given"
            return value
        if not hasattr(listed, "tolist"):
            return in_python(listed)
        value = listed  # a number without an equivalent in Python, such as a long double
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        with suppress(OverflowError, ValueError):
            return float(value)
    return value


def _parse(text: str | float, units: dict[str, Fraction], what: str, example: str, *, zero: bool) -> Fraction:
    def wrong(why: str) -> UsageError:
        return UsageError(f"{what} {shown(text)} {why}; write it like {example}")

    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise wrong("is not a quantity")
    if isinstance(text, str):
        if len(text) > LONGEST_TEXT:
            raise wrong(f"has {len(text):,} characters, and at most {LONGEST_TEXT} are read")
        match = _QUANTITY.fullmatch(text.strip())
        if match is None:
            raise wrong("is not a number with a unit")
        number, unit = match[1], match[2].strip()
        if math.isfinite(float(number)) and not unit:
            raise wrong("has no unit")
        if unit and unit not in units:
            raise wrong(f"has an unknown unit {unit!r}{_hint(unit, units)}")
        scale, size = units.get(unit, Fraction(1)), float(number)
    else:
        number, scale = text, Fraction(1)
        try:
            size = float(text)
        except OverflowError:
            raise wrong("is too large") from None
    if not math.isfinite(size):
        raise wrong("is not finite")
    # Fractions are exact at any exponent and would take long, so only numbers in the range of a float get here.
    value = Fraction(number) * scale if size else Fraction(0)
    try:
        vanishes = not float(value) and (bool(value) or _is_written_as_more_than_zero(number))
    except OverflowError:
        raise wrong("is too large") from None
    if vanishes:
        raise wrong("is too small to tell from zero")
    if value < 0 or (value == 0 and not zero):
        raise wrong(f"must be {'zero or more' if zero else 'more than zero'}")
    return value


def _is_written_as_more_than_zero(number: str | float) -> bool:
    return isinstance(number, str) and bool(set("123456789") & set(number.lower().partition("e")[0]))


_PREFIXES = {"": "", "k": "kilo", "M": "mega", "G": "giga", "T": "tera"}
_PREFIXES |= {"Ki": "kibi", "Mi": "mebi", "Gi": "gibi", "Ti": "tebi"}
_PREFIX = {spelt.casefold(): known for known, long in _PREFIXES.items() for spelt in (known, long)}
_DATA_UNIT = re.compile(
    rf"({'|'.join(sorted(_PREFIX, key=len, reverse=True))})"
    r"(bits?|bytes?|b|octets?|o|)(\W*p?(?:er)?\W*(?:s|secs?|seconds?)?)",
    re.IGNORECASE,
)
_SECONDS = {"": "s", "m": "ms", "milli": "ms", "mic": "us", "micro": "us", "mc": "us", "mu": "us", "u": "us"}
_SECONDS |= {"\N{GREEK SMALL LETTER MU}": "us", "n": "ns", "nano": "ns", "p": "ps", "pico": "ps"}
_TIME_UNIT = {
    **{
        f"{p}{s}": unit for p, unit in _SECONDS.items() for s in ("s", "sec", "secs", "second", "seconds", "") if p or s
    },
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    "m": "ms' or 'min",
}


def _hint(unit: str, units: dict[str, Fraction]) -> str:
    """Return a hint at the unit that was meant, if there is one of the same quantity.

    If bits and bytes are equally likely, the hint explains both.
    """
    unit = unit.strip(" .")
    if units is DURATION:
        meant = _TIME_UNIT.get(unit.casefold()) or _of_the_same_letters(unit, units)
        return f" (did you mean '{meant}'?)" if meant else ""
    match = _DATA_UNIT.fullmatch(unit) or _DATA_UNIT.fullmatch(_of_the_same_letters(unit, units))
    if match is None or not (match[2] or (match[1] and not (match[3] and units is SIZE))):
        return ""
    prefix, kind, per = _PREFIX[match[1].casefold()], match[2].casefold(), match[3]
    long, binary = _PREFIXES[prefix], prefix.endswith("i")
    if units is SIZE:
        same = (kind[:2] in ("", "by", "o", "oc") or (kind == "b" and (binary or unit == unit.lower()))) and not per
        return f" (did you mean '{prefix}B'?)" if same else f" (did you mean '{prefix}B' for {long}bytes?)"
    if kind[:2] in ("by", "o", "oc") or (binary and match[2] in ("B", "")):
        return f" (did you mean '{prefix}B/s'?)"
    in_bytes = f"'{prefix}B/s' for {long}bytes a second"
    if binary:
        bits = {"Ki": "k"}.get(prefix, prefix[0])
        return f" (did you mean {in_bytes} or '{bits}bps' for {_PREFIXES[bits]}bits a second?)"
    if kind.startswith("bit"):
        return f" (did you mean '{prefix}bit/s'?)"
    if "B" not in unit and kind == "b" and per.startswith("p"):
        return f" (did you mean '{prefix}bps'?)"
    return f" (did you mean '{prefix}bps' for {long}bits a second or {in_bytes}?)"


def _of_the_same_letters(unit: str, units: dict[str, Fraction]) -> str:
    """Return the first unit with the first letter of `unit` and then the same letters, in any order and number."""
    letters = unit.casefold()
    if not letters.isalpha():
        return ""

    def is_meant(known: str) -> bool:
        plain = known.casefold().replace("/", "")
        return plain[0] == letters[0] and set(plain) == set(letters)

    return next(filter(is_meant, units), "")


ROUNDED_BY = 1e-3
"""The largest relative change of a bandwidth by rounding to whole bit/s."""


def parse_bandwidth(text: str | float, what: str = "bandwidth") -> int:
    """Return whole bit/s from a text with a unit, or from a number of bit/s; raise UsageError for anything else.

    >>> parse_bandwidth("1Gbps"), parse_bandwidth("25GiB/s")
    (1000000000, 214748364800)
    """
    exact = _parse(text, BANDWIDTH, what, "1Gbps, 100Mbit/s or 25GiB/s", zero=False)
    rounded = round(exact)
    if not rounded or abs(rounded - exact) > ROUNDED_BY * exact:
        raise UsageError(f"{what} {shown(text)} must be a whole number of bit/s, at least 1; links take no fraction")
    return rounded


def parse_duration(text: str | float, what: str = "duration", *, zero: bool = False) -> float:
    """Return seconds from a text with a unit, or from a number of seconds; raise UsageError for anything else.

    `what` is the option that an error names; `zero` allows a duration of 0.

    >>> parse_duration("50us")
    5e-05
    """
    return float(_parse(text, DURATION, what, "50us, 1.5ms or 2s", zero=zero))


def parse_size(text: str | float, what: str = "size") -> int:
    """Return bytes from a text with a unit, or from a number of bytes; raise UsageError for anything else.

    >>> parse_size("64KiB")
    65536
    """
    size = _parse(text, SIZE, what, "100MB or 64KiB", zero=False)
    if size < 1:
        raise UsageError(f"{what} {shown(text)} must be at least a byte; write it like 100MB or 64KiB")
    if size > MOST_BYTES:
        raise UsageError(f"{what} {shown(text)} must be at most {MOST_BYTES // 10**12:,}TB")
    return round(size)


def picoseconds(seconds: float) -> int:
    """Return the number of picoseconds nearest to `seconds`, but at most the horizon."""
    return min(round(Fraction(seconds) * PICOSECONDS), HORIZON_PS) if seconds < math.inf else HORIZON_PS


def beyond_horizon() -> InfeasibleError:
    """Return the error for a simulation that reaches the horizon."""
    return InfeasibleError(
        f"the simulation goes on for more than {HORIZON_DAYS} days of simulated time, further than instants are told "
        "apart; give links more bandwidth or less latency, or have less sent and computed"
    )


def _scaled(value: float, steps: list[tuple[float, str]]) -> str:
    for step, unit in steps:
        if abs(value) >= step:
            return f"{value / step:.3g} {unit}" if abs(value) < 999.5 * step else f"{value / step:,.0f} {unit}"
    step, unit = steps[-1]
    return f"{value / step:.3g} {unit}"


def format_bandwidth(bits_per_second: float) -> str:
    """Return a bandwidth as text.

    >>> format_bandwidth(1e9)
    '1 Gbit/s'
    """
    return _scaled(bits_per_second, [(1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1, "bit/s")])


def format_duration(seconds: float) -> str:
    """Return seconds as text.

    >>> format_duration(5e-5)
    '50 µs'
    """
    if seconds == 0:
        return "0"
    return _scaled(seconds, [(1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps")])


def format_wait(seconds: float) -> str:
    """Return seconds as text in the unit in which people wait: seconds, minutes, hours, days or years.

    >>> format_wait(720)
    '12 minutes'
    """
    for step, unit in ((365 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * step:
            return f"{seconds / step:,.0f} {unit}"
    return f"{seconds:.0f} s"


def format_bytes(count: float) -> str:
    """Return bytes as text.

    >>> format_bytes(1e8)
    '100 MB'
    """
    if count == 0:
        return "0"
    return _scaled(count, [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")])


def format_factor(ratio: float) -> str:
    """Return a ratio as people write factors: three significant digits, and no power of ten.

    >>> format_factor(1049.6), format_factor(2.345), format_factor(1)
    ('1,050×', '2.35×', '1×')
    """
    rounded = float(f"{ratio:.3g}")
    return f"{rounded:,.0f}×" if rounded >= 100 else f"{rounded:g}×"


TIE = 0.01
"""The relative difference of two times up to which they count as equal: a simulation is not more accurate than that."""


def is_tie(seconds: float, least: float) -> bool:
    """Return whether a time is at most 1 % longer than the shortest one."""
    return seconds <= least * (1 + TIE)


def format_range(low: float, high: float, form: Callable[[float], str]) -> str:
    """Return a range as text, or a single value if both ends have the same text.

    >>> format_range(1e10, 4e11, format_bandwidth)
    '10 to 400 Gbit/s'
    """
    least, most = form(low), form(high)
    if least == most:
        return least
    number, _, unit = least.rpartition(" ")
    return f"{number if unit == most.rpartition(' ')[2] else least} to {most}"
