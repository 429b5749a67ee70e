"""Data made up with NumPy from the seed, in the shape that a model wants: there to try things, not to conclude."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from netsim._util.random_streams import Stream, generator
from netsim.training.workloads.data import FRAMES, IMAGES, SampleShape
from netsim.training.workloads.data.load import Data, described
from netsim.training.workloads.samples import Samples

TRAINING, TEST = 4096, 1024
SEQUENCES, TEST_SEQUENCES = 1024, 256
CONTRAST = 0.3
"""Deviation of a class's mean from zero, where that of the noise is one."""

STAY = 0.9
"""How likely a frame has the class of the one before."""


def load(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return samples that a model can learn, and as many classes as `shape` says."""
    random = generator(seed, Stream.SYNTHETIC_DATA)
    make = {IMAGES: _images, FRAMES: _frames}.get(shape.kind, _tokens)
    training, test = make(shape, random)
    return described(name, training, test, "made up from the seed, ")


def _images(shape: SampleShape, random: np.random.Generator) -> tuple[Samples, Samples]:
    """Return unit noise around a mean of its class: blocks of 4×4 pixels, as a convolution can see them."""
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
    """Return sequences of frames, unit noise around a mean of their class, which lasts for some frames."""
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
    """Return sequences in which a token is followed by one of four that belong to it."""
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
