"""Reads the name of a topology on the command line: ``NAME``, ``NAME:key=value,key=value``, or a file.

The keys of a topology are the parameters of its function; the parameters' annotations read the values.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

from netsim._util.errors import UsageError, shown, unknown
from netsim._util.units import parse_bandwidth, parse_duration, read_number, read_whole
from netsim._util.user_code import own_parts
from netsim.network.graph import check_link
from topologies.from_file import has_ending, is_file


def _whole(text: str) -> int:
    value = read_whole(text)
    if value is None or value < 1:
        raise UsageError(f"{shown(text)} must be a whole number of at least 1, such as 4")
    return value


def _seed(text: str) -> int:
    value = read_whole(text)
    if value is None or value < 0:
        raise UsageError(f"{shown(text)} must be a whole number of at least 0 and at most 18 digits, such as 1")
    return value


def _ratio(text: str) -> float:
    value = read_number(text)
    if value is None or not 1e-6 <= value <= 1e6:
        raise UsageError(f"{shown(text)} must be a number of more than 0 (1e-6 to 1e6), such as 4")
    return value


def _sides(text: str) -> tuple[int, ...]:
    sides = [read_whole(side) for side in text.split("x")]
    if not 1 <= len(sides) <= 3 or any(side is None or side < 1 for side in sides):
        raise UsageError(f"{shown(text)} must be two or three sides, such as 8x8 or 4x4x2")
    return tuple(side for side in sides if side is not None)


def _bandwidth(text: str) -> int:
    value = parse_bandwidth(text)
    check_link(value, 0.0)
    return value


def _latency(text: str) -> float:
    value = parse_duration(text, "latency")
    check_link(1, value)
    return value


Count: TypeAlias = Annotated[int, _whole]
Seed: TypeAlias = Annotated[int, _seed]
Ratio: TypeAlias = Annotated[float, _ratio]
Sides: TypeAlias = Annotated[tuple[int, ...], _sides]
LinkBandwidth: TypeAlias = Annotated[int, _bandwidth]
LinkLatency: TypeAlias = Annotated[float, _latency]
File: TypeAlias = Annotated[Path, Path]


def _number(text: str) -> float:
    value = read_number(text)
    if value is None:
        raise UsageError(f"{shown(text)} must be a finite number, such as 0.5")
    return value


PLAIN: dict[Any, Callable[[str], Any]] = {int: _seed, float: _number}
"""The reader of a key by its parameter's plain type; any other value is text."""


def keys_of(build: Callable[..., Any]) -> dict[str, tuple[str, Callable[[str], Any]]]:
    """Return the keys of a topology, each with its parameter and the function that reads its value."""
    names = list(inspect.signature(build).parameters)[1:]
    hints = _hints(build, names)
    keys: dict[str, tuple[str, Callable[[str], Any]]] = {}
    for name in names:
        kinds = [kind for kind in (hints.get(name), *get_args(hints.get(name))) if kind is not None]
        read = next((kind.__metadata__[0] for kind in kinds if hasattr(kind, "__metadata__")), None)
        keys[name.rstrip("_").replace("_", "-")] = (name, read or next(filter(None, map(PLAIN.get, kinds)), str))
    return keys | {"hash": ("hash", _seed)}


def _hints(build: Callable[..., Any], names: list[str]) -> dict[str, Any]:
    """Return the types of some parameters; others may have types for checkers only, such as ``networkx.Graph[str]``."""

    def of_names() -> None:
        """Hold the annotations of `names`."""

    of_names.__annotations__ = {name: hint for name, hint in build.__annotations__.items() if name in names}
    return get_type_hints(of_names, inspect.unwrap(build).__globals__, include_extras=True)


NAMES: set[str] = set()
"""The registered names of topologies; :mod:`topologies` adds them."""
_WORD = re.compile(r"[\w-]+")
_KEY = re.compile(r"\s*[\w-]+\s*=")


def parts_of(text: str) -> tuple[str, str]:
    """Return the name of a topology, and the text of its keys.

    A path may contain colons, such as ``C:\\net.json`` or ``./a:b.json``. Keys follow a word or a file's suffix.

    >>> parts_of("racks:size=8,uplink=10Gbps"), parts_of("./mine.py:pair:size=8")
    (('racks', 'size=8,uplink=10Gbps'), ('./mine.py:pair', 'size=8'))
    """
    own = own_parts(text)
    if own is not None and not (has_ending(place := own[0].partition(":")[0]) or place in NAMES):
        return own
    for colon in (place for place, letter in enumerate(text) if letter == ":"):
        name, rest = text[:colon], text[colon + 1 :]
        if _KEY.match(rest) and (_WORD.fullmatch(name) or has_ending(name)):
            return name, rest
    name, _, rest = text.partition(":")
    return (text, "") if is_file(text) else (name, rest)


def name_of(text: str) -> str:
    """Return the name of a topology, without its keys."""
    return parts_of(text)[0]


def arguments(text: str, build: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword arguments of a topology's function; raise UsageError for an unknown key or a bad value."""
    name, rest = parts_of(text)
    keys = keys_of(build)
    values: dict[str, Any] = {}
    for item in rest.split(",") if rest else []:
        key, _, value = (part.strip() for part in item.partition("="))
        key = key.replace("_", "-")
        if not key or not value:
            raise UsageError(
                f"topology {shown(text)}: {shown(item)} must be key=value, such as {name}:{next(iter(keys))}=4"
            )
        if key not in keys:
            raise unknown(f"key of topology {name}:", key, keys)
        parameter, read = keys[key]
        if parameter in values:
            raise UsageError(f"topology {shown(text)}: {key} was given twice; give it once")
        try:
            values[parameter] = read(value)
        except UsageError as error:
            raise UsageError(f"topology {shown(text)}, {key}: {error}") from None
    return values
