"""Algorithms with options of their own, for tests that give the same options to several."""

from __future__ import annotations

from typing import Any

from algorithms import OWN_OPTIONS, with_options
from netsim._util.options import several


def named(names: str, **own: Any) -> str:
    """Return the algorithms, which have commas between, each with those of the options that it takes."""
    return ",".join(with_options(name, **own) for name in several(names))


def with_own(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a simulation with those of single algorithms moved into their names."""
    own = {name: value for name, value in options.items() if name in OWN_OPTIONS}
    others = {name: value for name, value in options.items() if name not in OWN_OPTIONS}
    return others | {"algorithm": named(options["algorithm"], **own)}
