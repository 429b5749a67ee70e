"""Search for the files of data sets, and the error if they were not found.

Programs that unpack archives may rename files (``train-images.idx3-ubyte``), put each file into a folder of its name,
or use another folder. The search therefore compares names without case, punctuation and ``.gz``, and covers the folders
in ``--data-dir``. Usual places come first.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from netsim._util.errors import InfeasibleError, reason_of

SYSTEM = Path("/usr/share/datasets")
"""The folder of data sets from Debian's packages."""

DEPTH, MOST_FOLDERS = 3, 1000
"""Depth and number of folders in ``--data-dir`` that are searched."""
MOST_SHOWN = 8
GZIP = b"\x1f\x8b"


def find_files(
    data: str,
    wanted: Sequence[str],
    folders: Sequence[str],
    data_dir: Path | None,
    advice: str,
    is_named: Callable[[str], bool] = lambda path: True,
) -> dict[str, Path]:
    """Return the paths of the files `wanted`, all from one folder.

    Parameters
    ----------
    wanted
        The published file names.
    folders
        The usual folders, in `data_dir` or the system's folder.
    is_named
        Whether the path of another folder, from `data_dir` on, names this data set; for data sets that share file names
        with others.

    Raises
    ------
    InfeasibleError
        If a file was not found; the error lists names, places, what was found, and a fix.
    """
    usual = [root / folder for root in (data_dir, SYSTEM) if root is not None for folder in folders]
    below = [] if data_dir is None else [place for place in _below(data_dir) if place not in usual]
    lacking, unnamed = "", ""
    for place in sorted([*usual, *below], key=lambda place: (place.is_relative_to(SYSTEM), place not in usual)):
        paths = {name: path for name in wanted if (path := _find(place, name)) is not None}
        complete, named = len(paths) == len(wanted), place in usual or is_named(_path_from(data_dir, place))
        if complete and named:
            return paths
        if complete:
            unnamed = (
                unnamed or f"{place} holds files of these names, but its name does not show whose; name it {folders[0]}"
            )
        elif paths:
            lacking = lacking or f"{place} lacks {', '.join(name for name in wanted if name not in paths)}"
    problem = lacking or unnamed or f"{', '.join(wanted)} not found in {', '.join(map(str, usual))}"
    searched = "" if data_dir is None or lacking or unnamed else f", nor in {data_dir}, which {_content(data_dir)}"
    raise InfeasibleError(f"data {data}: {problem}{searched}; {advice}, or use --data synthetic")


def opened(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip if its content is compressed, whatever its name."""
    with path.open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
    return cast(IO[bytes], gzip.open(path)) if compressed else path.open("rb")


def malformed(path: Path, what: str) -> InfeasibleError:
    """Return the error for a malformed file."""
    return InfeasibleError(f"{path}: {what}; fetch the file again")


def _find(folder: Path, name: str) -> Path | None:
    """Return the file of this name, or of a name that unpacking may give it; the exact name first."""
    alike = sorted(entry for entry in _entries(folder) if _plain(entry.name) == _plain(name))
    files = [entry for entry in alike if entry.is_file()]
    inside = [
        entry for each in alike if each not in files for entry in _entries(each) if _plain(entry.name) == _plain(name)
    ]
    exact = [folder / name, folder / f"{name}.gz"]
    return next((path for path in [*exact, *files, *sorted(inside)] if path.is_file()), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "-", name.lower().removesuffix(".gz"))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # not a folder, or no permission to read it
        return []


def _below(root: Path) -> Iterator[Path]:
    """Yield `root` and the folders in it, down to DEPTH."""
    for folder, inner, _ in itertools.islice(os.walk(root), MOST_FOLDERS):
        inner.sort()
        if len(Path(folder).relative_to(root).parts) >= DEPTH:
            inner.clear()
        yield Path(folder)


def _path_from(root: Path | None, place: Path) -> str:
    assert root is not None
    return "/".join((root.resolve().name, *place.relative_to(root).parts)).lower()


def _content(folder: Path) -> str:
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        return f"cannot be read ({reason_of(error)})"
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"holds {', '.join(names[:MOST_SHOWN])}{more}" if names else "is empty"
