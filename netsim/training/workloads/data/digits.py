"""Handwritten digits, which scikit-learn contains: 1,797 grey images of 8×8 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from netsim._util.random_streams import Stream, generator
from netsim.training.workloads.data import SampleShape
from netsim.training.workloads.data.load import Data, described
from netsim.training.workloads.samples import Samples

TEST_FRACTION = 0.2


def load(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return 1,438 training and 359 test images, divided at random by `seed`; pixels are from 0 to 1."""
    digits = load_digits()
    order = generator(seed, Stream.DIGITS).permutation(len(digits.target))
    images = torch.from_numpy(digits.data.astype(np.float32) / 16).view(-1, *shape.sample)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    cut = round(TEST_FRACTION * len(order))
    test, training = torch.from_numpy(order[:cut]), torch.from_numpy(order[cut:])
    return described(name, Samples(images[training], labels[training]), Samples(images[test], labels[test]))
