"""Handwritten digits, which scikit-learn contains: 1,797 grey images of 8×8 pixels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from netsim._util.random_streams import Stream, generator
from netsim.training.workloads.data import SampleShape
from netsim.training.workloads.data.load import Data, described
from netsim.training.workloads.samples import Samples

TEST_FRACTION = 0.2


def load(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return 1,438 training and 359 test images, divided at random by `seed`; pixels are from 0 to 1."""
    pixels, digits = _scikit_learns()
    order = generator(seed, Stream.DIGITS).permutation(len(digits))
    images = torch.from_numpy(pixels.astype(np.float32) / 16).view(-1, *shape.sample)
    labels = torch.from_numpy(digits.astype(np.int64))
    cut = round(TEST_FRACTION * len(order))
    test, training = torch.from_numpy(order[:cut]), torch.from_numpy(order[cut:])
    return described(name, Samples(images[training], labels[training]), Samples(images[test], labels[test]))


def _scikit_learns() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (1797, 64), from 0 to 16, and the digits (1797,).

    They are read from scikit-learn's file, because its import takes a second. A version that keeps the file elsewhere
    is imported.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        if (file := Path(folder, "datasets", "data", "digits.csv.gz")).exists():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data, found.target
