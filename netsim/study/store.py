"""Points that were measured, one JSON file each, named by what decides them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from netsim._util.errors import NetsimError, UsageError, reason_of, shown
from netsim._util.storage import made_folder, remove_leftovers, write_atomically
from netsim.study.environment import DataDigests, contents_of
from netsim.study.kinds import Outcome, Point
from netsim.study.sources import version_of

SCHEMA = "netsim.point/2"
A_POINT = 4096
"""Bytes that a point may take."""


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: keys sorted, no blanks. Raises UsageError for what JSON cannot hold."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"point {shown(value)} cannot be written as JSON ({error}); give text and finite numbers"
        ) from None
    return text


def name_of(measure: Callable[..., Any]) -> str:
    """Return what a measurement is called: where its function lives."""
    return f"{measure.__module__}:{measure.__qualname__}"


class Store:
    """A folder of points, measured by one function of one version of the code.

    A file is whole or not there, and says what it holds; two runs may write into one folder, because whatever
    they write under one name is the same. `data` says what the data sets hold that points train on; None, if a
    cluster trains.
    """

    def __init__(self, folder: Path, measure: Callable[[Point], Outcome], data: DataDigests | None = None) -> None:
        self.folder = folder
        self._data = data
        code, libraries = version_of(measure)
        self._decides = {"measure": name_of(measure), "version": code, "libraries": libraries}

    def key(self, point: Point) -> str:
        """Return the SHA-256 of what decides a point: what it says and names, the measurement, and its version."""
        config = {name: value for name, value in point.items() if name != "seed"}
        whole = {"config": config, "seed": point.get("seed", 0)} | contents_of(point, self._data) | self._decides
        return _sha256(whole)

    def load(self, point: Point) -> Outcome | None:
        """Return what was found at `point`; None if nothing is kept, or the file does not hold what it must."""
        path = self._path(point)
        kept: Any = None
        try:
            if path.is_file():
                kept = json.loads(path.read_text(encoding="utf-8"))
            sealed = isinstance(kept, dict) and kept.pop("sha256", None) == _sha256(kept)
        except (OSError, ValueError, RecursionError):  # ValueError: UsageError, too, for what JSON cannot hold
            return None
        same = {"schema": SCHEMA, "point": json.loads(canonical(point))} | self._decides
        if not sealed or not isinstance(kept.get("outcome"), dict) or not same.items() <= kept.items():
            return None
        outcome: Outcome = kept["outcome"]
        return outcome

    def save(self, point: Point, outcome: Mapping[str, Any]) -> Outcome:
        """Keep what was found at `point`; return it as :meth:`load` will."""
        kept = {"schema": SCHEMA, "point": dict(point), "outcome": dict(outcome)} | self._decides
        text = json.dumps(kept | {"sha256": _sha256(kept)}, indent=1, sort_keys=True, ensure_ascii=False)
        try:
            write_atomically(self._path(point), text + "\n")
        except OSError as error:
            raise NetsimError(
                f"out {str(self.folder)!r} could not be written to: {reason_of(error)}; points that were ready before "
                "are kept: mend that, and give --resume to go on from there"
            ) from error
        read: Outcome = json.loads(canonical(outcome))
        return read

    def prepare(self, points: Iterable[Point]) -> None:
        """Find out before an hour of measuring, not after it, that `points` could not be kept.

        Makes the folder, and removes from it what killed processes left, and points that may not be read or written.
        Raises UsageError for what is in the way.
        """
        made_folder("out", self.folder)
        remove_leftovers(self.folder)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(A_POINT))  # on a full disk a file can be made, and nothing written to it
        except OSError as error:
            raise UsageError(
                f"out {str(self.folder)!r} cannot be written to: {reason_of(error)}; make room there"
            ) from None
        for path in map(self._path, points):
            try:
                there = path.lstat().st_mode
            except OSError:  # mostly there is none
                continue
            if not stat.S_ISREG(there):
                raise UsageError(f"point {str(path)!r} is in the way of a file, and is none; remove it")
            if not os.access(path, os.R_OK | os.W_OK):
                try:
                    path.unlink()
                except OSError as error:
                    raise UsageError(f"point {str(path)!r} may not be read: {reason_of(error)}; remove it") from None

    def _path(self, point: Point) -> Path:
        return self.folder / f"{self.key(point)}.json"


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()
