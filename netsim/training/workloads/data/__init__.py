"""Data sets by name, with the shape of their samples, which determines the size of a model.

To add one: a file with a function ``(name, shape, seed, data_dir) -> Data``, and a line in DATA.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsim._util.errors import UsageError, unknown

SYNTHETIC = "synthetic"
SEPARATOR = "+"
IMAGES, TOKENS, FRAMES = "images", "tokens", "frames"


@dataclass(frozen=True, slots=True)
class SampleShape:
    """The shape of a sample.

    Attributes
    ----------
    kind
        "images", "tokens" or "frames".
    sample
        (channels, height, width) of an image, (length,) of a sequence of tokens, or (length, features) of a sequence of
        frames.
    classes
        The number of classes; for tokens, the size of the vocabulary.
    """

    kind: str
    sample: tuple[int, ...]
    classes: int


@dataclass(frozen=True, slots=True)
class DataSet:
    """The shape of a data set, available without reading it, and the ``module:function`` that reads it."""

    shape: SampleShape
    loader: str


DATA = {
    "digits": DataSet(SampleShape(IMAGES, (1, 8, 8), 10), "netsim.training.workloads.data.digits:load"),
    "mnist": DataSet(SampleShape(IMAGES, (1, 28, 28), 10), "netsim.training.workloads.data.idx:load"),
    "fashion-mnist": DataSet(SampleShape(IMAGES, (1, 28, 28), 10), "netsim.training.workloads.data.idx:load"),
    "cifar10": DataSet(SampleShape(IMAGES, (3, 32, 32), 10), "netsim.training.workloads.data.cifar:load"),
    "cifar100": DataSet(SampleShape(IMAGES, (3, 32, 32), 100), "netsim.training.workloads.data.cifar:load"),
    "ptb": DataSet(SampleShape(TOKENS, (35,), 10_000), "netsim.training.workloads.data.text:load_ptb"),
    "python-docs": DataSet(SampleShape(TOKENS, (64,), 97), "netsim.training.workloads.data.text:load_python_docs"),
}

BUNDLED = ("digits", "python-docs", "synthetic")
"""Data that are in no folder: they come with Python's packages, or are generated."""
SYNTHETIC_LOADER = "netsim.training.workloads.data.synthetic:load"
"""Generates synthetic data in the shape that a model requires."""


def data_names(data: str) -> list[str]:
    """Return the one or two names in `data`, such as ``cifar10`` or ``cifar10+mnist``; raise UsageError for others."""
    names = data.split(SEPARATOR)
    for name in names:
        if name not in DATA and name != SYNTHETIC:
            raise unknown("data", name, [*DATA, SYNTHETIC])
    if len(names) > 2 or len(set(names)) < len(names):
        raise UsageError(f"data {data!r} must be one data set or two different ones, such as cifar10+mnist")
    return names


def joint_shape(shapes: list[SampleShape]) -> SampleShape:
    """Return a shape for several data sets: smaller images are padded, and grey images repeated in all channels."""
    if len(shapes) == 1:
        return shapes[0]
    kinds = {shape.kind for shape in shapes}
    if kinds != {IMAGES}:
        raise UsageError(f"two data sets can be mixed where both are images; these are {' and '.join(sorted(kinds))}")
    sample = tuple(max(sizes) for sizes in zip(*(shape.sample for shape in shapes), strict=True))
    return SampleShape(IMAGES, sample, max(shape.classes for shape in shapes))
