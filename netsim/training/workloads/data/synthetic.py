"""Synthetic data, drawn with NumPy from the seed in the shape that a model requires; for trials only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from netsim._util.random_streams import Stream, generator
from netsim.training.workloads.data import FRAMES, IMAGES, SampleShape
from netsim.training.workloads.data.load import Data, described
from netsim.training.workloads.samples import Samples

TRAINING, TEST = 4096, 1024
"""Numbers of images."""
SEQUENCES, TEST_SEQUENCES = 1024, 256
"""Numbers of sequences."""
CONTRAST = 0.3
"""Standard deviation of the class means / standard deviation of the noise."""

STAY = 0.9
"""Probability that a frame has the class of the previous frame."""


def load(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return learnable samples with the classes of `shape`."""
    random = generator(seed, Stream.SYNTHETIC_DATA)
    make = {IMAGES: _images, FRAMES: _frames}.get(shape.kind, _tokens)
    training, test = make(shape, random)
    return described(name, training, test, "made up from the seed, ")


def _images(shape: SampleShape, random: np.random.Generator) -> tuple[Samples, Samples]:
    """Return images of unit noise around the mean of their class, which has blocks of 4×4 pixels for convolutions."""
    channels, height, width = shape.sample
    blocks = random.normal(0, CONTRAST, (shape.classes, channels, -(-height // 4), -(-width // 4)))
    means = blocks.repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width].astype(np.float32)

    def draw(count: int) -> Samples:
        labels = random.permutation(np.arange(count) % shape.classes)
        images = random.standard_normal((count, *shape.sample), np.float32)
        images += means[labels]
        return Samples(torch.from_numpy(images), torch.from_numpy(labels))

    return draw(TRAINING), draw(TEST)


def _frames(shape: SampleShape, random: np.random.Generator) -> tuple[Samples, Samples]:
    """Return sequences of frames: unit noise around the mean of a class that lasts for several frames."""
    length, features = shape.sample
    means = random.normal(0, CONTRAST, (shape.classes, features)).astype(np.float32)

    def draw(count: int) -> Samples:
        labels = random.integers(shape.classes, size=(count, length))
        stay = random.random((count, length)) < STAY
        for frame in range(1, length):
            labels[:, frame] = np.where(stay[:, frame], labels[:, frame - 1], labels[:, frame])
        frames = random.standard_normal((count, length, features), np.float32) + means[labels]
        return Samples(torch.from_numpy(frames), torch.from_numpy(labels))

    return draw(SEQUENCES), draw(TEST_SEQUENCES)


def _tokens(shape: SampleShape, random: np.random.Generator) -> tuple[Samples, Samples]:
    """Return sequences in which each token has four possible successors."""
    (length,) = shape.sample
    followers = random.integers(shape.classes, size=(shape.classes, 4))

    def draw(count: int) -> Samples:
        tokens = np.empty((count, length + 1), np.int64)
        tokens[:, 0] = random.integers(shape.classes, size=count)
        choices = random.integers(4, size=(count, length))
        for position in range(length):
            tokens[:, position + 1] = followers[tokens[:, position], choices[:, position]]
        pair = (tokens[:, :-1], tokens[:, 1:])
        return Samples(*(torch.from_numpy(np.ascontiguousarray(half)) for half in pair))

    return draw(SEQUENCES), draw(TEST_SEQUENCES)
