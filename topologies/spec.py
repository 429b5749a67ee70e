"""How a topology is named on the command line: ``NAME``, ``NAME:key=value,key=value``, or a file.

What keys a topology takes are the parameters of its function, and their annotations read the values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

from netsim.errors import UsageError, unknown
from netsim.units import parse_bandwidth, parse_duration


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{text!r} must be a whole number of at least 0")
    return int(text)


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e6:
        raise UsageError(f"{text!r} must be a number of more than 0, such as 4")
    return value


def _sides(text: str) -> tuple[int, ...]:
    sides = text.split("x")
    if not 1 <= len(sides) <= 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"{text!r} must be two or three sides, such as 8x8 or 4x4x2")
    return tuple(map(int, sides))


Count: TypeAlias = Annotated[int, _whole]
Seed: TypeAlias = Annotated[int, _number]
Ratio: TypeAlias = Annotated[float, _ratio]
Sides: TypeAlias = Annotated[tuple[int, ...], _sides]
Bandwidth: TypeAlias = Annotated[int, parse_bandwidth]
Duration: TypeAlias = Annotated[float, functools.partial(parse_duration, what="latency")]
File: TypeAlias = Annotated[Path, Path]


def keys_of(build: Callable[..., Any]) -> dict[str, tuple[str, Callable[[str], Any]]]:
    """Return the keys that a topology takes, each with the parameter it sets and what reads its value."""
    hints = get_type_hints(build, include_extras=True)
    keys: dict[str, tuple[str, Callable[[str], Any]]] = {}
    for name in list(inspect.signature(build).parameters)[1:]:
        annotated = next(each for each in (hints[name], *get_args(hints[name])) if hasattr(each, "__metadata__"))
        keys[name.rstrip("_").replace("_", "-")] = (name, annotated.__metadata__[0])
    return keys | {"hash": ("hash", _number)}


def name_of(text: str) -> str:
    """Return the name that a topology begins with."""
    return text.partition(":")[0]


def several(text: str) -> list[str]:
    """Return the topologies in a list with commas: what looks like key=value belongs to the one before it."""
    found: list[str] = []
    for part in text.split(","):
        if found and "=" in part and ":" not in part.partition("=")[0]:
            found[-1] += f",{part}"
        else:
            found.append(part.strip())
    return found


def arguments(text: str, build: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments that `text` gives to a topology's function; raise UsageError naming key and value."""
    name, _, rest = text.partition(":")
    keys = keys_of(build)
    found: dict[str, Any] = {}
    for item in rest.split(",") if rest else []:
        key, _, value = (part.strip() for part in item.partition("="))
        key = key.replace("_", "-")
        if not key or not value:
            raise UsageError(f"topology {text!r}: {item!r} must be key=value, such as {name}:{next(iter(keys))}=4")
        if key not in keys:
            raise unknown(f"key of topology {name!r}", key, keys)
        parameter, read = keys[key]
        if parameter in found:
            raise UsageError(f"topology {text!r}: {key} was given twice; give it once")
        try:
            found[parameter] = read(value)
        except UsageError as error:
            raise UsageError(f"topology {text!r}, {key}: {error}") from None
    return found
