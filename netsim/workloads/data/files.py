"""Where the files of data sets are looked for, and what is said when they are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netsim.errors import InfeasibleError

SYSTEM = Path("/usr/share/datasets")
"""Where Debian's packages put data sets."""


def find_folder(data: str, wanted: Sequence[str], folders: Sequence[str], data_dir: Path | None, advice: str) -> Path:
    """Return the first of `folders`, in `data_dir` or the system's place, that holds all `wanted` files.

    A wanted file may also be there with ``.gz``. Raises InfeasibleError that says what is missing,
    where it was looked for, and what to do.
    """
    places = [root / folder for root in (data_dir, SYSTEM) if root is not None for folder in folders]
    missing: list[str] = []
    for place in places:
        absent = [name for name in wanted if find_file(place, name) is None]
        if not absent:
            return place
        if len(absent) < len(wanted):
            missing.append(f"{place} lacks {', '.join(absent)}")
    what = "; ".join(missing) or f"{wanted[0]} and what belongs to it not found in {', '.join(map(str, places))}"
    raise InfeasibleError(f"data {data}: {what}; {advice}, or use --data synthetic")


def find_file(folder: Path, name: str) -> Path | None:
    """Return the path of the file, plain or with ``.gz``, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def malformed(path: Path, what: str) -> InfeasibleError:
    """Return the error for a file that is there but cannot be what it should."""
    return InfeasibleError(f"{path}: {what}; fetch the file again")
