"""Quantities: exact where they are right, refused with a suggestion where they are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim._util.errors import UsageError
from netsim._util.units import (
    format_bandwidth,
    format_bytes,
    format_duration,
    in_python,
    parse_bandwidth,
    parse_duration,
    parse_size,
    picoseconds,
    read_number,
    read_whole,
)

# Hypothesis' deadline is a timed assertion, and this machine may be busy.
untimed = settings(deadline=None)

BITS_PER_SECOND = {
    **{"bps": 1, "kbps": 10**3, "Kbps": 10**3, "Mbps": 10**6, "Gbps": 10**9, "Tbps": 10**12},
    **{"bit/s": 1, "kbit/s": 10**3, "Kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9, "Tbit/s": 10**12},
    **{"B/s": 8, "kB/s": 8 * 10**3, "KB/s": 8 * 10**3, "MB/s": 8 * 10**6, "GB/s": 8 * 10**9, "TB/s": 8 * 10**12},
    **{"KiB/s": 8 * 2**10, "MiB/s": 8 * 2**20, "GiB/s": 8 * 2**30, "TiB/s": 8 * 2**40},
}
BYTES = {
    **{"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}
PER_SECOND = {"ps": 10**12, "ns": 10**9, "us": 10**6, "µs": 10**6, "ms": 10**3, "s": 1}
SECONDS = {"s": 1, "min": 60, "h": 3600}
DURATIONS = PER_SECOND | SECONDS

Parse = Callable[[Any], float]
counts = st.integers(1, 10**6)


@untimed
@given(counts, st.sampled_from(sorted(BITS_PER_SECOND)))
def test_whole_bandwidths_are_exact(n: int, unit: str) -> None:
    assert parse_bandwidth(f"{n}{unit}") == n * BITS_PER_SECOND[unit]


@untimed
@given(counts, st.sampled_from(sorted(BYTES)))
def test_whole_sizes_are_exact(n: int, unit: str) -> None:
    assert parse_size(f"{n}{unit}") == n * BYTES[unit]


@untimed
@given(counts, st.sampled_from(sorted(PER_SECOND)))
def test_durations_are_the_nearest_float(n: int, unit: str) -> None:
    # Division of two integers rounds once in Python, to the nearest float.
    assert parse_duration(f"{n}{unit}") == n / PER_SECOND[unit]


@untimed
@given(counts, st.sampled_from(sorted(SECONDS)))
def test_long_durations_are_exact(n: int, unit: str) -> None:
    assert parse_duration(f"{n}{unit}") == n * SECONDS[unit]


@untimed
@given(counts, st.integers(0, 999), st.sampled_from(["kbps", "Mbit/s", "Gbps", "GB/s"]))
def test_decimals_of_a_bandwidth_are_not_rounded_through_binary(n: int, thousandths: int, unit: str) -> None:
    assert parse_bandwidth(f"{n}.{thousandths:03d}{unit}") == (1000 * n + thousandths) * BITS_PER_SECOND[unit] // 1000


@untimed
@given(st.integers(1, 10**15))
def test_picoseconds_survive_the_way_through_seconds(n: int) -> None:
    assert picoseconds(parse_duration(f"{n}ps")) == n


@untimed
@given(st.integers(1, 10**15), st.floats(1e-12, 1e6))
def test_numbers_from_python_are_si_already(n: int, seconds: float) -> None:
    assert parse_bandwidth(n) == n
    assert parse_size(n) == n
    assert parse_duration(seconds) == seconds


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_bandwidth, "25GiB/s", 214_748_364_800),
        (parse_bandwidth, "2.5Gbps", 2_500_000_000),
        (parse_bandwidth, ".5Gbps", 500_000_000),
        (parse_bandwidth, "1.Gbps", 1_000_000_000),
        (parse_bandwidth, "1e3Mbps", 1_000_000_000),
        (parse_bandwidth, "1E+3Mbps", 1_000_000_000),
        (parse_bandwidth, "+1Gbps", 1_000_000_000),
        (parse_bandwidth, "  1 Gbps ", 1_000_000_000),
        (parse_size, "1.5KiB", 1536),
        (parse_duration, "1.5ms", 0.0015),
        (parse_duration, "50 us", 0.00005),
        (parse_duration, "5e-5s", 0.00005),
    ],
)
def test_ways_of_writing(parse: Parse, text: str, expected: float) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("nothing", ["0s", "0ms", "0.0us", 0, 0.0])
def test_zero_is_a_duration_only_where_asked_for(nothing: str | float) -> None:
    assert parse_duration(nothing, zero=True) == 0
    with pytest.raises(UsageError, match="must be more than zero"):
        parse_duration(nothing)


@pytest.mark.parametrize("text", ["1Gpbs", "1 Gbps x", "1Gb", "1G", "1bits", "1s/s", "1B/s/s", "1furlong"])
@pytest.mark.parametrize("parse", [parse_bandwidth, parse_size, parse_duration])
def test_unknown_units_are_refused(parse: Parse, text: str) -> None:
    with pytest.raises(UsageError, match=f"{re.escape(repr(text))} has an unknown unit .*write it like"):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_bandwidth, "1us"), (parse_bandwidth, "1MB"), (parse_duration, "1Gbps"), (parse_size, "1MB/s")],
)
def test_units_of_another_quantity_are_refused(parse: Parse, text: str) -> None:
    with pytest.raises(UsageError, match="has an unknown unit"):
        parse(text)


@pytest.mark.parametrize("parse", [parse_bandwidth, parse_size, parse_duration])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1", "no unit"),
        ("1e9", "no unit"),
        ("", "not a number with a unit"),
        ("fast", "not a number with a unit"),
        ("Gbps", "not a number with a unit"),
        ("1_000s", "not a number with a unit"),
        ("1,5s", "not a number with a unit"),
        ("1.2.3s", "not a number with a unit"),
        ("--5s", "not a number with a unit"),
        ("5s5s", "not a number with a unit"),
        ("0x10s", "not a number with a unit"),
        ("nan", "not finite"),
        ("inf", "not finite"),
        ("-Infinity", "not finite"),
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        (0, "more than zero"),
        (-1, "more than zero"),
        (-0.5, "more than zero"),
        (True, "not a quantity"),
        (None, "not a quantity"),
        ([1], "not a quantity"),
    ],
)
def test_what_is_no_quantity(parse: Parse, text: object, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse(text)
    assert repr(text) in str(caught.value)
    assert "write it like" in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_bandwidth, "0Gbps"),
        (parse_bandwidth, "-1Gbps"),
        (parse_bandwidth, "infGbps"),
        (parse_bandwidth, "nanGbps"),
        (parse_bandwidth, "1e999Gbps"),
        (parse_bandwidth, "1e300Gbps"),
        (parse_bandwidth, "0.5bps"),
        (parse_bandwidth, "1e-3bps"),
        (parse_bandwidth, "1.5bps"),
        (parse_bandwidth, "0.05B/s"),
        (parse_duration, "0us"),
        (parse_duration, "-50us"),
        (parse_duration, "nanus"),
        (parse_duration, "1e999s"),
        (parse_duration, "1e308h"),
        (parse_duration, "1e-400s"),
        (parse_size, "-1B"),
        (parse_size, "0MB"),
    ],
)
def test_quantities_outside_what_a_float_holds_or_makes_sense(parse: Parse, text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [
        (parse_bandwidth, "1Gpbs", "Gbps"),
        (parse_bandwidth, "1gbps", "Gbps"),
        (parse_bandwidth, "100mbps", "Mbps"),
        (parse_bandwidth, "100mbit/s", "Mbit/s"),
        (parse_bandwidth, "1Gbit", "Gbit/s"),
        (parse_bandwidth, "1Gbits/s", "Gbit/s"),
        (parse_duration, "5usec", "us"),
        (parse_duration, "5msec", "ms"),
        (parse_duration, "5sec", "s"),
        (parse_duration, "5 MS", "ms"),
        (parse_size, "100mb", "MB"),
        (parse_size, "64kib", "KiB"),
    ],
)
def test_near_misses_get_a_suggestion(parse: Parse, text: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"did you mean '({meant})'\?"):
        parse(text)


@pytest.mark.parametrize("unit", ["GBps", "GBPS", "GB", "Gb/s", "gb/s", "G", "GpBs", "GBs", "GB/S", "Gb"])
def test_a_hint_that_may_be_wrong_by_a_factor_of_eight_says_bits_and_bytes(unit: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bandwidth(f"1{unit}")
    assert "'Gbps' for gigabits a second or 'GB/s' for gigabytes a second" in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text", "hint"),
    [
        (parse_size, "1Gb", "'GB' for gigabytes?"),
        (parse_size, "1Gbit", "'GB' for gigabytes?"),
        (parse_duration, "5m", "'ms' or 'min'?"),
        (parse_duration, "5hours", "'h'?"),
        (parse_duration, "5seconds", "'s'?"),
    ],
)
def test_hints_that_would_change_the_quantity_say_what_they_are(parse: Parse, text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"did you mean {hint}")):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "unit", "hint"),
    [
        (parse_bandwidth, "gigabit", "'Gbit/s'"),
        (parse_bandwidth, "Megabytes per second", "'MB/s'"),
        (parse_bandwidth, "Mo/s", "'MB/s'"),
        (parse_bandwidth, "GiBps", "'GiB/s'"),
        (parse_bandwidth, "Gibit/s", "'GiB/s' for gibibytes a second or 'Gbps' for gigabits a second"),
        (parse_bandwidth, "Kib/s", "'KiB/s' for kibibytes a second or 'kbps' for kilobits a second"),
        (parse_size, "bit", "'B' for bytes"),
        (parse_size, "kbit", "'kB' for kilobytes"),
        (parse_size, "Mibit", "'MiB' for mebibytes"),
        (parse_size, "MB/s", "'MB' for megabytes"),
        (parse_size, "mebibyte", "'MiB'"),
        (parse_duration, "micros", "'us'"),
        (parse_duration, "mcs", "'us'"),
        (parse_duration, "\N{GREEK SMALL LETTER MU}s", "'us'"),
        (parse_duration, "milli", "'ms'"),
        (parse_duration, "nanoseconds", "'ns'"),
        *(
            (parse_bandwidth, unit, None)
            for unit in ("Pbps", "PB/s", "GT/s", "Mbit/min", "MB/ms", "Gbit/ms", "ps", "s")
        ),
        *((parse_size, unit, None) for unit in ("PB", "PiB", "ms", "s", "elements")),
        *((parse_duration, unit, None) for unit in ("d", "ks", "Gs", "cs", "fs", "bps", "us/B", "Hz", "mns")),
    ],
)
def test_a_hint_is_of_the_same_quantity_or_says_which_it_is(parse: Parse, unit: str, hint: str | None) -> None:
    """A unit that netsim lacks, such as PB, gets no hint: the nearest spelling is another magnitude."""
    with pytest.raises(UsageError) as caught:
        parse(f"1{unit}")
    found = re.search(r"did you mean (.*)\?\)", str(caught.value))
    assert (found and found[1]) == hint


@pytest.mark.parametrize(
    ("parse", "text", "why"),
    [
        (parse_bandwidth, "1e-999999999Gbps", "too small"),
        (parse_bandwidth, "0e999999999Gbps", "more than zero"),
        (parse_bandwidth, "1e999999999Gbps", "not finite"),
        (parse_bandwidth, "9" * 4000 + "Gbps", "4,004 characters"),
        (parse_duration, " " * 4000 + "1" + " " * 4000 + "2", "8,002 characters"),
        (parse_bandwidth, 10**400, "too large"),
        pytest.param(parse_bandwidth, 10**5000, "too large", id="5,001 digits"),
        (parse_size, "0.4B", "at least a byte"),
        (parse_size, "1e300B", "at most"),
        (parse_bandwidth, "\N{ARABIC-INDIC DIGIT THREE}Gbps", "not a number"),
        (parse_bandwidth, "1\N{ARABIC-INDIC DIGIT THREE}Gbps", "unknown unit"),
        (parse_bandwidth, "1\N{SUPERSCRIPT TWO}Gbps", "unknown unit"),
    ],
)
def test_numbers_that_would_take_for_ever_or_are_none_are_refused_on_one_short_line(
    parse: Parse, text: str | int, why: str
) -> None:
    """An exact power of ten with a billion digits never ends, and a pattern may take quadratic time."""
    with pytest.raises(UsageError, match=why) as caught:
        parse(text)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@given(st.text())
def test_a_number_that_is_read_is_what_decimal_says(text: str) -> None:
    """Plain ASCII digits alone: neither 1_000 nor digits of other scripts, which Python's own reading takes."""
    whole = r"[+-]?\d{1,18}((\.\d+)?[eE]\+?\d{1,2})?"
    for read, plain in ((read_whole, whole), (read_number, r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")):
        value = read(text)
        if value is not None:
            assert re.fullmatch(plain, text.strip(), re.ASCII)
            assert value == float(Decimal(text.strip()))


@pytest.mark.parametrize(
    "text", ["1_000", "\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}", "0x10", "nan", "", "9" * 4301]
)
def test_what_is_no_plain_number(text: str) -> None:
    assert read_whole(text) is None
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("8", 8), ("-3", -3), (" 10 ", 10), ("+5", 5), ("007", 7)),
        *(("1e6", 10**6), ("25.6E+6", 25_600_000), ("-2e0", -2), ("999999999999999999", 10**18 - 1)),
        *(("1.5e0", None), ("1e-3", None), ("1e18", None), ("1e99", None), ("1.0", None), ("1e", None)),
    ],
)
def test_whole_numbers(text: str, value: int | None) -> None:
    assert read_whole(text) == value


@given(st.integers(0, 10**18 - 1), st.integers(0, 17))
def test_a_whole_number_may_be_written_with_a_power_of_ten(value: int, power: int) -> None:
    """Exactly: a float would lose the last digits of 18."""
    assert read_whole(str(value)) == value
    assert read_whole(f"{value // 10**power}e{power}") == value // 10**power * 10**power


@pytest.mark.parametrize(
    ("parse", "wrong"),
    [
        (parse, wrong)
        for parse, known in ((parse_bandwidth, BITS_PER_SECOND), (parse_size, BYTES), (parse_duration, DURATIONS))
        for wrong in sorted({mangled for unit in known for mangled in (unit.lower(), unit.upper())} - known.keys())
        if wrong.isascii()
    ],
)
def test_a_unit_in_the_wrong_case_is_never_corrected_to_another_magnitude(parse: Parse, wrong: str) -> None:
    """Mbps for mbps is a correction; bps would be wrong by a factor of a million. B for b may be right."""
    with pytest.raises(UsageError) as caught:
        parse(f"1{wrong}")
    suggested = re.search(r"did you mean '([^']+)'", str(caught.value))
    assert suggested is not None
    assert _prefix(suggested[1]) == _prefix(wrong)
    assert "bit" not in wrong.lower() or "bit" in suggested[1]


def _prefix(unit: str) -> str:
    return re.sub(r"(bps|bit/s|b/s|b|s|min|h)$", "", unit.lower())


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (format_bandwidth, 10**9, "1 Gbit/s"),
        (format_bandwidth, 100e6, "100 Mbit/s"),
        (format_bandwidth, 1, "1 bit/s"),
        (format_bandwidth, 2.5e12, "2.5 Tbit/s"),
        (format_duration, 50e-6, "50 µs"),
        (format_duration, 0.0605, "60.5 ms"),
        (format_duration, 1.5, "1.5 s"),
        (format_duration, 2e-12, "2 ps"),
        (format_bytes, 100e6, "100 MB"),
        (format_bytes, 8, "8 B"),
        (format_bytes, 4505640, "4.51 MB"),
    ],
)
def test_written_for_people(write: Callable[[float], str], value: float, expected: str) -> None:
    assert write(value) == expected


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)


@untimed
@given(numbers)
def test_everything_can_be_written_and_carries_a_unit(value: float) -> None:
    units = {"bit/s": format_bandwidth, "s": format_duration, "B": format_bytes}
    for unit, write in units.items():
        # Zero is zero in every unit.
        assert write(value).endswith(unit) or (value == 0 and write(value) == "0")


@untimed
@given(st.integers(1, 10**14))
def test_what_is_written_reads_back_to_three_digits(value: int) -> None:
    """Half a unit of the third digit is at most one part in two hundred."""
    assert parse_bandwidth(_plain(format_bandwidth(value))) == pytest.approx(value, rel=5.01e-3)
    assert parse_size(_plain(format_bytes(value))) == pytest.approx(value, rel=5.01e-3)
    assert parse_duration(_plain(format_duration(value / 10**12))) == pytest.approx(value / 10**12, rel=5.01e-3)


def _plain(written: str) -> str:
    return written.replace(",", "")  # thousands are set apart for people


@pytest.mark.parametrize("value", [np.longdouble(0.5), np.array([0.5], dtype=np.longdouble)])
def test_a_long_double_is_a_number(value: object) -> None:
    read = in_python(value)
    assert type(read) is float
    assert read == 0.5


@pytest.mark.parametrize("value", [np.ma.masked, np.array([None]), torch.zeros(1, device="meta")])
def test_what_has_no_value_is_not_taken_for_an_option_that_was_not_given(value: object) -> None:
    assert in_python(value) is value
    with pytest.raises(UsageError, match="density"):
        netsim.simulate(workers=2, timing_only=True, elements=100, algorithm="gtopk", density=value)


@pytest.mark.parametrize("name", [np.array("star"), np.array(["star"]), np.str_("star")])
def test_a_topology_may_be_named_by_an_array_of_one_text(name: object) -> None:
    report = netsim.simulate(workers=2, timing_only=True, elements=100, algorithm="dense", topology=name)
    assert report.config["topology"] == "star"
