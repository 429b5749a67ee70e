"""Points that were measured, one JSON file each, named by what decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from netsim.errors import NetsimError, UsageError
from netsim.storage import write_atomically
from netsim.study.kinds import Outcome, Point
from netsim.system import version
from topologies.from_file import is_file
from topologies.spec import name_of as name_of_topology

SCHEMA = "netsim.point/1"
SHOWN = ("cli.py", "commands", "conclusion.py", "launch.py", "render.py", "report", "study")
"""Rooms of :mod:`netsim` that only ask for results or show them: changing them leaves results what they are."""


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return netsim's version with the SHA-256 of the sources that decide a result.

    In a checkout the version alone says nothing: a point that older code measured must not pass for one of today's.
    """
    home = Path(__file__).parents[2]
    found = hashlib.sha256()
    for package in ("algorithms", "netsim", "topologies"):
        for path in sorted((home / package).rglob("*.py")):
            place = path.relative_to(home / package)
            if package == "netsim" and place.parts[0] in SHOWN:
                continue
            found.update(f"{package}/{place.as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return f"{version()}+{found.hexdigest()[:16]}"


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: keys sorted, no blanks. Raises UsageError for what JSON cannot hold."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"point {value!r} cannot be written as JSON ({error}); give text and finite numbers") from None


def name_of(measure: Callable[..., Any]) -> str:
    """Return what a measurement is called: where its function lives."""
    return f"{measure.__module__}:{measure.__qualname__}"


class Store:
    """A folder of points, measured by one function of one version of the code.

    A file is whole or not there, and says what it holds; two runs may write into one folder, because whatever
    they write under one name is the same.
    """

    def __init__(self, folder: Path, measure: Callable[[Point], Outcome]) -> None:
        self.folder = folder
        self._decides = {"measure": name_of(measure), "version": code_version()}

    def key(self, point: Point) -> str:
        """Return the SHA-256 of the point's configuration and seed, of the measurement, and of the code's version."""
        config = {name: value for name, value in point.items() if name != "seed"}
        whole = {"config": config, "seed": point.get("seed", 0), **_network_in_file(point)} | self._decides
        return hashlib.sha256(canonical(whole).encode()).hexdigest()

    def load(self, point: Point) -> Outcome | None:
        """Return what was found at `point`, None if nothing is kept or a file does not hold what it says."""
        path = self._path(point)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise NetsimError(f"point {str(path)!r} could not be read: {error.strerror}") from error
        whole = isinstance(kept, dict) and kept.get("schema") == SCHEMA and isinstance(kept.get("outcome"), dict)
        if not whole or kept.get("sha256") != _seal(kept["outcome"]):
            return None
        outcome: Outcome = kept["outcome"]
        return outcome

    def save(self, point: Point, outcome: Mapping[str, Any]) -> Outcome:
        """Keep what was found at `point`; return it as :meth:`load` will."""
        kept = {"schema": SCHEMA, "point": dict(point), "outcome": dict(outcome), "sha256": _seal(outcome)}
        kept |= self._decides
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(point), json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        except OSError as error:
            raise NetsimError(f"out {str(self.folder)!r} could not be written to: {error.strerror}") from error
        read: Outcome = json.loads(canonical(outcome))
        return read

    def _path(self, point: Point) -> Path:
        return self.folder / f"{self.key(point)}.json"


def _network_in_file(point: Point) -> dict[str, str]:
    """Return the SHA-256 of the file that a point's network is in, if it is: its name says nothing of what it holds."""
    name = name_of_topology(str(point.get("topology", "")))
    if not is_file(name) or not Path(name).is_file():
        return {}
    return {"network": hashlib.sha256(Path(name).read_bytes()).hexdigest()}


def _seal(outcome: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(outcome).encode()).hexdigest()
