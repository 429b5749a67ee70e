"""The store of measured points: one JSON file per point, named by the hash of everything that determines it."""

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
from netsim.study_engine.environment import DataDigests, contents_of
from netsim.study_engine.kinds import Outcome, Point
from netsim.study_engine.sources import version_of

SCHEMA = "netsim.point/2"
A_POINT = 4096
"""Bytes written to test that a folder has room for a point."""


def canonical(value: Any) -> str:
    """Return `value` as canonical JSON, with sorted keys and no blanks; raise UsageError if that is impossible."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"point {shown(value)} cannot be written as JSON ({error}); give text and finite numbers"
        ) from None
    return text


def canonical_hash(value: Any) -> str:
    """Return the SHA-256 of `value` as canonical JSON, in hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def name_of(measure: Callable[..., Any]) -> str:
    """Return the name of a measurement: the module and the name of its function."""
    return f"{measure.__module__}:{measure.__qualname__}"


class Store:
    """A folder of points measured by one function, in one version of the code.

    A file is written whole or not at all. Two runs may share a folder, because files of one name have one content.

    Parameters
    ----------
    folder
        The folder.
    measure
        The function that measures points.
    data
        Digests of the data sets that points train on; None if a cluster measures.
    """

    def __init__(self, folder: Path, measure: Callable[[Point], Outcome], data: DataDigests | None = None) -> None:
        self.folder = folder
        self._data = data
        code, libraries = version_of(measure)
        self._decides = {"measure": name_of(measure), "version": code, "libraries": libraries}

    def __repr__(self) -> str:
        return f"Store({self.folder}, {self._decides['measure']} {self._decides['version']})"

    def key(self, point: Point) -> str:
        """Return the SHA-256 of the point, the files and data that it names, the measurement, and its code version."""
        config = {name: value for name, value in point.items() if name != "seed"}
        whole = {"config": config, "seed": point.get("seed", 0)} | contents_of(point, self._data) | self._decides
        return canonical_hash(whole)

    def load(self, point: Point) -> Outcome | None:
        """Return the stored outcome of `point`; None if there is no file, or the file is damaged."""
        path = self._path(point)
        kept: Any = None
        try:
            if path.is_file():
                kept = json.loads(path.read_text(encoding="utf-8"))
            sealed = isinstance(kept, dict) and kept.pop("sha256", None) == canonical_hash(kept)
        except (OSError, ValueError, RecursionError):  # ValueError includes UsageError, from canonical()
            return None
        same = {"schema": SCHEMA, "point": json.loads(canonical(point))} | self._decides
        if not sealed or not isinstance(kept.get("outcome"), dict) or not same.items() <= kept.items():
            return None
        outcome: Outcome = kept["outcome"]
        return outcome

    def save(self, point: Point, outcome: Mapping[str, Any]) -> Outcome:
        """Store the outcome of `point`; return it as :meth:`load` does."""
        kept = {"schema": SCHEMA, "point": dict(point), "outcome": dict(outcome)} | self._decides
        text = json.dumps(kept | {"sha256": canonical_hash(kept)}, indent=1, sort_keys=True, ensure_ascii=False)
        try:
            write_atomically(self._path(point), text + "\n")
        except OSError as error:
            raise NetsimError(
                f"out {str(self.folder)!r} could not be written to: {reason_of(error)}; finished points are "
                "stored: make it writable, and give --resume to continue"
            ) from error
        read: Outcome = json.loads(canonical(outcome))
        return read

    def prepare(self, points: Iterable[Point]) -> None:
        """Make the folder ready to store `points`, so that an error shows before hours of measuring.

        Temporary files of killed processes are removed, and so are points without permission to read and write.

        Raises
        ------
        UsageError
            If the folder cannot be written, or a point's name is not a regular file.
        """
        made_folder("out", self.folder)
        remove_leftovers(self.folder)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(A_POINT))  # on a full disk an empty file can be created, but not written
        except OSError as error:
            raise UsageError(
                f"out {str(self.folder)!r} cannot be written to: {reason_of(error)}; make room there"
            ) from None
        for path in map(self._path, points):
            try:
                mode = path.lstat().st_mode
            except OSError:  # usually the file does not exist
                continue
            if not stat.S_ISREG(mode):
                raise UsageError(f"point {str(path)!r} is not a regular file; remove it")
            if not os.access(path, os.R_OK | os.W_OK):
                try:
                    path.unlink()
                except OSError as error:
                    raise UsageError(f"point {str(path)!r} cannot be read: {reason_of(error)}; remove it") from None

    def _path(self, point: Point) -> Path:
        return self.folder / f"{self.key(point)}.json"
