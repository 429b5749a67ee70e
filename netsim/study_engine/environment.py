"""The inputs of a measurement besides its options: files that options name, data sets, and the processor."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from netsim._util.errors import InfeasibleError
from netsim.study_engine.kinds import Point
from netsim.training.library_models import library_version

DataDigests: TypeAlias = Mapping[tuple[str, str | None], str]
"""A description of each data set with its SHA-256, by name and folder."""

ELSEWHERE = "on a cluster"


def contents_of(point: Point, data: DataDigests | None) -> dict[str, Any]:
    """Return the inputs of a measurement besides its options: files, data sets, processor, and a model's library.

    The processor counts for training only: the last bits of trained parameters depend on it. `data` is None if a
    cluster measures, on other machines.
    """
    inputs: dict[str, Any] = {}
    if files := {name: sha256_of(Path(name)) for name in files_of(point)}:
        inputs["files"] = files
    if library := library_version(str(point.get("model", ""))):
        inputs["model"] = library
    if trains(point):
        digests = {} if data is None else {name: data[key] for name, key in data_sets(point) if key in data}
        inputs |= {
            "data": digests,
            "processor": ELSEWHERE if data is None else processor(str(point.get("device", "auto"))),
        }
    return inputs


def files_of(point: Point) -> list[str]:
    """Return the files named by the options of a point, whole or as a value of a key (``wan:matrix=FILE``)."""
    texts = [value for value in point.values() if isinstance(value, str)]
    parts = {part.strip() for text in texts for part in (text, *re.split("[:,=]", text))}
    return sorted(part for part in parts if os.path.isfile(part))  # noqa: PTH113  # False, without an error, for any text


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; empty text if it cannot be read."""
    try:
        status = path.stat()
        return _sha256_of(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=256)
def _sha256_of(path: Path, *version: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def trains(point: Point) -> bool:
    """Return whether a point computes real gradients."""
    return ("workload" in point or "data" in point) and not point.get("timing_only")


def data_sets(point: Point) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield the name of each data set that a point trains on, with its key in :data:`DataDigests`."""
    from netsim.training.workloads import DEFAULT, WORKLOADS
    from netsim.training.workloads.data import DATA, data_names

    workload = WORKLOADS.get(point.get("workload", DEFAULT))
    asked = point.get("data") or (workload.default if workload else None)
    if trains(point) and asked:
        for name in data_names(str(asked)):
            if name in DATA:
                yield name, (name, point.get("data_dir"))


def read_from_folder(points: Sequence[Point]) -> bool:
    """Return whether any of `points` trains on a data set that is found in a folder, and names no folder itself."""
    from netsim.training.workloads.data import BUNDLED

    return any(folder is None and name not in BUNDLED for point in points for name, (_, folder) in data_sets(point))


def read_data(points: Sequence[Point], data_dir: str | None) -> DataDigests:
    """Read every data set that `points` train on, so that a missing one is reported before hours of measuring.

    `data_dir` is the folder of data sets for points that name none.

    Raises
    ------
    InfeasibleError
        If a data set is missing.
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
    """Return the result of :func:`read_data`, or nothing if a data set is missing: then no trained point is stored."""
    try:
        return read_data(points, data_dir)
    except InfeasibleError:
        return {}


def processor(device: str) -> str:
    """Return the processor of gradients: the CPU instruction set that torch uses, or the name of the GPU."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return torch.cuda.get_device_name(None if device in ("auto", "cuda") else device)
