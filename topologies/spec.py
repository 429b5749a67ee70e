"""How a topology is named on the command line: ``NAME``, ``NAME:key=value,key=value``, or a file.

What keys a topology takes are the parameters of its function, and their annotations read the values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

from netsim.errors import UsageError, check_choice, unknown
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


def takes(build: Callable[..., Any]) -> dict[str, tuple[Callable[[str], Any], Any]]:
    """Return the keys that a topology takes, with what reads a value and the default."""
    hints = get_type_hints(build, include_extras=True)
    keys: dict[str, tuple[Callable[[str], Any], Any]] = {}
    for name, parameter in list(inspect.signature(build).parameters.items())[1:]:
        hint = hints[name]
        annotated = next((each for each in (hint, *get_args(hint)) if hasattr(each, "__metadata__")), None)
        assert annotated is not None, f"{build.__name__}: parameter {name} has no reader"
        keys[name.rstrip("_").replace("_", "-")] = (annotated.__metadata__[0], parameter.default)
    return keys


def split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the name, and the keys with their values as they were written."""
    name, _, rest = text.partition(":")
    pairs = []
    for item in rest.split(",") if rest else []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(f"topology {text!r}: {item!r} must be key=value, such as {name}:key=4")
        pairs.append((key.strip().replace("_", "-"), value.strip()))
    return name, pairs


def parameters(text: str, build: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments that `text` gives to a topology's function; raise UsageError naming key and value."""
    name, pairs = split(text)
    keys = takes(build)
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key not in keys:
            raise (
                unknown(f"key of topology {name}", key, keys)
                if keys
                else UsageError(f"topology {text!r}: {name} takes no keys; write {name}")
            )
        argument = next(
            each for each in (key.replace("-", "_"), f"{key}_") if each in inspect.signature(build).parameters
        )
        if argument in found:
            raise UsageError(f"topology {text!r}: {key} was given twice; give it once")
        try:
            found[argument] = keys[key][0](value)
        except UsageError as error:
            raise UsageError(f"topology {text!r}: {key} {str(error).removeprefix(f'{key} ')}") from None
    return found


__all__ = ["Bandwidth", "Count", "Duration", "File", "Ratio", "Seed", "Sides", "check_choice", "parameters", "takes"]
