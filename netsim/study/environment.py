"""What decides a point besides what it says: files that it names; where it trains, its data and the processor."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from netsim._util.errors import InfeasibleError
from netsim.study.kinds import Point

DataDigests: TypeAlias = Mapping[tuple[str, str | None], str]
"""What each data set holds, in words with a SHA-256, by its name and the folder that it was asked for in."""

ELSEWHERE = "on a cluster"


def contents_of(point: Point, data: DataDigests | None) -> dict[str, Any]:
    """Return what decides `point` besides itself; `data` is None where a cluster trains, on machines of its own.

    What is trained depends in its last bits on the processor, so that a point of one kind of processor is not
    another's. A simulation without values does not.
    """
    found: dict[str, Any] = {}
    if files := {name: sha256_of(Path(name)) for name in files_of(point)}:
        found["files"] = files
    if trains(point):
        known = {} if data is None else {name: data[key] for name, key in data_sets(point) if key in data}
        found |= {
            "data": known,
            "processor": ELSEWHERE if data is None else processor(str(point.get("device", "auto"))),
        }
    return found


def files_of(point: Point) -> list[str]:
    """Return the files that a point's texts name: by themselves, or as a value of a key, ``wan:matrix=FILE``."""
    texts = [value for value in point.values() if isinstance(value, str)]
    parts = {part.strip() for text in texts for part in (text, *re.split("[:,=]", text))}
    return sorted(part for part in parts if os.path.isfile(part))  # noqa: PTH113  # false for any text, never an error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; of one that cannot be read, nothing."""
    try:
        found = path.stat()
        return _sha256_of(path, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=256)
def _sha256_of(path: Path, *version: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def trains(point: Point) -> bool:
    """Return whether a point asks for real gradients."""
    return ("workload" in point or "data" in point) and not point.get("timing_only")


def data_sets(point: Point) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield the data sets that a point trains on, by name, each with its key in :data:`DataDigests`."""
    from netsim.training.workloads import DEFAULT, WORKLOADS
    from netsim.training.workloads.data import DATA, data_names

    workload = WORKLOADS.get(point.get("workload", DEFAULT))
    asked = point.get("data") or (workload.default if workload else None)
    if trains(point) and asked:
        for name in data_names(str(asked)):
            if name in DATA:
                yield name, (name, point.get("data_dir"))


def read_data(points: Sequence[Point], data_dir: str | None) -> DataDigests:
    """Read every data set that `points` train on; where one is missing raise InfeasibleError, before hours go by.

    `data_dir` is where it is for points that do not say so.
    """
    keys = sorted({key for point in points for _, key in data_sets(point)}, key=str)
    if not keys:
        return {}
    from netsim.training.workloads.data import DATA
    from netsim.training.workloads.data.load import load

    places = {key: key[1] or data_dir for key in keys}
    return {
        key: load(key[0], DATA[key[0]].shape, 0, None if place is None else Path(place)).note
        for key, place in places.items()
    }


def data_if_there(points: Sequence[Point], data_dir: str | None) -> DataDigests:
    """Return what :func:`read_data` does, or nothing where a data set is missing: then no trained point is known."""
    try:
        return read_data(points, data_dir)
    except InfeasibleError:
        return {}


def processor(device: str) -> str:
    """Return what computes gradients: the instructions of this CPU that torch uses, or the GPU's name."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return torch.cuda.get_device_name(None if device in ("auto", "cuda") else device)
