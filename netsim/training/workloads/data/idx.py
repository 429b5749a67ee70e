"""MNIST and Fashion-MNIST from their published IDX files, plain or compressed with gzip."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from netsim.training.workloads.data import SampleShape
from netsim.training.workloads.data.files import find_files, malformed, opened
from netsim.training.workloads.data.load import Data, of_images

PARTS = ("train", "t10k")
FOLDERS = {"mnist": ("mnist", "MNIST/raw"), "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw")}
"""Folders in --data-dir: a plain one, and the one of torchvision. Both data sets have the same file names."""
NAMED: dict[str, Callable[[str], bool]] = {
    "mnist": lambda path: "fashion" not in path and re.search(r"(?<![a-z])mnist", path) is not None,
    "fashion-mnist": lambda path: "fashion" in path,
}
"""Whether a path names the data set; KMNIST also has the same file names."""

ADVICE = {
    "mnist": "netsim fetch mnist --data-dir DIR, or put the IDX files into DIR/mnist, and give --data-dir DIR",
    "fashion-mnist": (
        "apt install dataset-fashion-mnist (Debian), or netsim fetch fashion-mnist --data-dir DIR, "
        "or put the IDX files into DIR/fashion-mnist, and give --data-dir DIR"
    ),
}
UNSIGNED_BYTE = 8
MOST = 10**6
"""Greatest number of images, so that a broken header cannot allocate all memory."""


def load(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return the images of 28×28 in the files; the published files hold 60,000 + 10,000."""
    wanted = [file for part in PARTS for file in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")]
    paths = find_files(name, wanted, FOLDERS[name], data_dir, ADVICE[name], NAMED[name])
    images_at, labels_at, test_images_at, test_labels_at = paths.values()
    training, test = _read_part(images_at, labels_at, shape), _read_part(test_images_at, test_labels_at, shape)
    return of_images(name, training, test)


def _read_part(images_at: Path, labels_at: Path, shape: SampleShape) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx(images_at, shape.sample[1:]), read_idx(labels_at, ())
    if len(images) != len(labels):
        raise malformed(labels_at, f"{len(labels)} labels for the {len(images)} images in {images_at.name}")
    if len(labels) and labels.max() >= shape.classes:
        raise malformed(labels_at, f"label {labels.max()}, expected 0 to {shape.classes - 1}")
    return images[:, None], labels


def read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """Return the items (n, *item) uint8 of an IDX file; raise InfeasibleError for a malformed file.

    An IDX file consists of two zero bytes, a type (8: unsigned byte), the number of dimensions, each dimension as a
    big-endian 32-bit integer, and the elements.
    """
    dimensions = 1 + len(item)
    expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    try:
        with opened(path) as file:
            magic, sizes = file.read(4), file.read(4 * dimensions)
            if magic != expected:
                raise malformed(path, f"starts with {magic.hex() or 'nothing'}, expected {expected.hex()}")
            if len(sizes) < 4 * dimensions:
                raise malformed(path, "ends inside its header")
            count, *extents = (int(extent) for extent in np.frombuffer(sizes, ">u4"))
            if tuple(extents) != item:
                raise malformed(path, f"items of {_by(extents)}, expected {_by(item)}")
            if not 0 < count <= MOST:
                raise malformed(path, f"claims {count} items, expected 1 to {MOST}")
            length = count * int(np.prod(item, dtype=np.int64))
            content = file.read(length + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise malformed(path, f"cannot be read ({' '.join(str(error).split())})") from error
    if len(content) != length:
        found = "more" if len(content) > length else str(len(content))
        raise malformed(path, f"has {found} bytes after its header, expected {length}")
    return np.frombuffer(content, np.uint8).reshape(count, *item).copy()


def _by(extents: list[int] | tuple[int, ...]) -> str:
    return "×".join(str(extent) for extent in extents) or "one byte"
