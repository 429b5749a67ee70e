"""CIFAR-10 and CIFAR-100 in their Python version: pickles, which are read without running code from them.

A pickle can call any function by name. This reader permits only the names that NumPy arrays need, and replaces them
with inert classes. The array is created afterwards from the checked bytes.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from netsim.training.workloads.data import SampleShape
from netsim.training.workloads.data.files import find_files, malformed, opened
from netsim.training.workloads.data.load import Data, of_images


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder and the file names of the published archive, and the key of its labels."""

    folder: str
    training: tuple[str, ...]
    test: str
    labels: bytes

    def is_named(self, path: str) -> bool:
        """Return whether a path names this data set; needed for CIFAR-100, whose file names are not specific."""
        return self.test == "test_batch" or re.search(r"cifar[^a-z0-9]?100", path) is not None


LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-batches-py", tuple(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch", b"labels"
    ),
    "cifar100": Layout("cifar-100-python", ("train",), "test", b"fine_labels"),
}


def load(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return the colour images of 32×32 in the files; the published files hold 50,000 + 10,000."""
    layout = LAYOUTS[name]
    archive = layout.folder.removesuffix("-batches-py").removesuffix("-python") + "-python.tar.gz"
    advice = f"netsim fetch {name} --data-dir DIR, or unpack {archive} inside DIR, and give --data-dir DIR"
    paths = find_files(name, [*layout.training, layout.test], [layout.folder], data_dir, advice, layout.is_named)
    batches = [read_batch(paths[file], layout.labels, shape) for file in layout.training]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return of_images(name, (images, labels), read_batch(paths[layout.test], layout.labels, shape))


def read_batch(path: Path, labels_key: bytes, shape: SampleShape) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, C, H, W) uint8 and labels (n,) of a file; raise InfeasibleError for a malformed file."""
    try:
        with opened(path) as file:
            packed = file.read()
        for opcode, index, _ in pickletools.genops(packed):
            if opcode.name.endswith("PUT") and (index or 0) > len(packed):  # it would allocate a list of that length
                raise pickle.UnpicklingError(f"has memo index {index}")
        content = _Reader(io.BytesIO(packed), encoding="bytes").load()
    except Exception as error:  # a broken pickle can raise any error
        raise malformed(path, f"not a CIFAR batch ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise malformed(path, f"holds a {type(content).__name__}, expected a dictionary")
    pixels, labels = content.get(b"data"), content.get(labels_key)
    if not isinstance(pixels, _Array) or not isinstance(labels, list):
        raise malformed(path, f"has no b'data' array and {labels_key!r} list")
    size = int(np.prod(shape.sample))
    if not pixels.is_rows_of(len(labels), size):
        raise malformed(path, f"{pixels.described()} for {len(labels)} labels, expected {size} unsigned bytes each")
    if not all(type(label) is int and 0 <= label < shape.classes for label in labels):
        raise malformed(path, f"a label is not in 0 to {shape.classes - 1}")
    rows = np.frombuffer(pixels.bytes, np.uint8).reshape(len(labels), size, order="F" if pixels.fortran else "C")
    return np.array(rows, order="C").reshape(-1, *shape.sample), np.array(labels, np.int64)


class _DType:
    """Replaces numpy.dtype."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Ignore the state, such as byte order, which a single byte does not have."""


class _Array:
    """Replaces numpy.ndarray: stores shape, type and bytes from the pickle."""

    def __init__(self, *_: object) -> None:
        self.shape: object = None
        self.code: object = None
        self.fortran: object = None
        self.bytes = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, dtype, self.fortran, content = state
        self.code = dtype.code if isinstance(dtype, _DType) else None
        self.bytes = content if isinstance(content, bytes) else b""

    def is_rows_of(self, rows: int, size: int) -> bool:
        """Return whether this is a complete array (rows, size) of unsigned bytes."""
        return self.code in ("u1", b"u1") and self.shape == (rows, size) and len(self.bytes) == rows * size > 0

    def described(self) -> str:
        """Return shape, type and size for an error message."""
        return f"an array of shape {self.shape} and type {self.code!r} with {len(self.bytes)} bytes"


class _Latin1:
    """Replaces codecs.encode, which turns text into bytes in pickles of protocol 2 or less."""

    __slots__ = ()

    def __call__(self, text: str, codec: str) -> bytes:
        if codec != "latin1":
            raise pickle.UnpicklingError(f"encodes as {codec!r}")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("gives a function a state")


STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Latin1(),
}


class _Reader(pickle.Unpickler):
    """Reads containers, numbers and strings, and the names in STAND_INS only."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the replacement of a name; raise UnpicklingError for any other name."""
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"names {module}.{name}, which it has no need of")
        return STAND_INS[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        """Raise UnpicklingError for a reference to another object."""
        raise pickle.UnpicklingError("refers to something outside the file")
