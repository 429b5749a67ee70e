"""Where the files of data sets are looked for, and what is said when they were not found.

Programs that unpack archives rename files (``train-images.idx3-ubyte``), put each into a folder of its own name, or
unpack into another folder. So names are compared without case, punctuation and ``.gz``, and folders below
``--data-dir`` are looked through. The usual places come first.
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
"""Where Debian's packages put data sets."""

DEPTH, MOST_FOLDERS = 3, 1000
"""How far below ``--data-dir`` folders are looked through, and how many of them."""
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
        The published names.
    folders
        The usual folders, in `data_dir` or the system's place.
    is_named
        Whether the path of another folder below `data_dir` (with the name of `data_dir`) says that it holds this data
        set; for data sets whose files are named like those of others.

    Raises
    ------
    InfeasibleError
        The error says which names were looked for, where, what was found, and what to do.
    """
    usual = [root / folder for root in (data_dir, SYSTEM) if root is not None for folder in folders]
    below = [] if data_dir is None else [place for place in _below(data_dir) if place not in usual]
    lacking, unnamed = "", ""
    for place in sorted([*usual, *below], key=lambda place: (place.is_relative_to(SYSTEM), place not in usual)):
        found = {name: path for name in wanted if (path := _find(place, name)) is not None}
        complete, named = len(found) == len(wanted), place in usual or is_named(_path_from(data_dir, place))
        if complete and named:
            return found
        if complete:
            unnamed = unnamed or f"{place} holds files of these names, but does not say whose; name it {folders[0]}"
        elif found:
            lacking = lacking or f"{place} lacks {', '.join(name for name in wanted if name not in found)}"
    what = lacking or unnamed or f"{', '.join(wanted)} not found in {', '.join(map(str, usual))}"
    there = "" if data_dir is None or lacking or unnamed else f", nor below {data_dir}, which {_content(data_dir)}"
    raise InfeasibleError(f"data {data}: {what}{there}; {advice}, or use --data synthetic")


def opened(path: Path) -> IO[bytes]:
    """Open a file to be read, through gzip if its content says so, whatever its name."""
    with path.open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
    return cast(IO[bytes], gzip.open(path)) if compressed else path.open("rb")


def malformed(path: Path, what: str) -> InfeasibleError:
    """Return the error for a file that is there but cannot be what it should."""
    return InfeasibleError(f"{path}: {what}; fetch the file again")


def _find(folder: Path, name: str) -> Path | None:
    """Return the file of this name, or a name that unpacking made of it; the plain name before others."""
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
    except OSError:  # not a folder, or one that may not be read
        return []


def _below(root: Path) -> Iterator[Path]:
    """Yield `root` and folders in it."""
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
