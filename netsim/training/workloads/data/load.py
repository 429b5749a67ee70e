"""Reading of data sets by name, and combination of two of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from netsim.training.workloads.data import DATA, SYNTHETIC_LOADER, SampleShape, data_names
from netsim.training.workloads.samples import Samples


@dataclass(frozen=True, slots=True)
class Data:
    """Training and test samples, with a description of one line."""

    training: Samples
    test: Samples
    note: str


def load(data: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return the data set `data`, or two data sets ``name+name`` combined in `shape`."""
    loaded = []
    names = data_names(data)
    for name in names:
        data_set = DATA.get(name)
        module, _, function = (data_set.loader if data_set else SYNTHETIC_LOADER).partition(":")
        loader: Callable[[str, SampleShape, int, Path | None], Data] = getattr(
            importlib.import_module(module), function
        )
        loaded.append(loader(name, data_set.shape if data_set else shape, seed, data_dir))
    if len(loaded) == 1:
        return loaded[0]
    training = _combined([part.training for part in loaded], shape)
    test = _combined([part.test for part in loaded], shape)
    return Data(training, test, "; ".join(part.note for part in loaded))


def of_images(
    name: str, training: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], made: str = ""
) -> Data:
    """Return data from uint8 images (n, C, H, W) with labels (n,).

    Pixels are standardised by the mean and the deviation of their channel over all training images.
    """
    mean, deviation = (torch.from_numpy(moment).view(1, -1, 1, 1) for moment in channel_moments(training[0]))

    def samples(images: np.ndarray, labels: np.ndarray) -> Samples:
        return Samples(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), mean, deviation)

    return described(name, samples(*training), samples(*test), made)


def described(name: str, training: Samples, test: Samples, made: str = "") -> Data:
    """Return the data with a note of its size and SHA-256."""
    size = "×".join(str(extent) for extent in training.inputs.shape[1:])
    note = f"{name}: {made}{len(training):,} training and {len(test):,} test samples of {size}"
    return Data(training, test, f"{note}, SHA-256 {training.sha256()[:16]} and {test.sha256()[:16]}")


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel, (C,) float32; a constant channel has deviation 1.

    Both are computed from counts of the 256 values, which is exact in any order and needs little memory.
    """
    counts = np.zeros((images.shape[1], 256), np.int64)
    for channel, count in enumerate(counts):
        for block in range(0, len(images), 1000):
            count += np.bincount(images[block : block + 1000, channel].ravel(), minlength=256)
    values = np.arange(256)
    pixels = counts.sum(axis=1)
    mean = counts @ values / pixels
    deviation = np.sqrt(np.maximum(counts @ values**2 / pixels - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def _combined(parts: list[Samples], shape: SampleShape) -> Samples:
    """Return the samples of all parts, padded with black to one size; each part keeps its mean and deviation."""
    if any(part.mean is None for part in parts):
        parts = [_as_floats(part) for part in parts]
    fitted = [replace(part, inputs=_fitted(part.inputs, shape.sample)) for part in parts]
    channels = shape.sample[0]

    def stacked(moments: list[torch.Tensor | None]) -> torch.Tensor | None:
        present = [moment.expand(-1, channels, -1, -1) for moment in moments if moment is not None]
        return torch.cat(present) if present else None

    return Samples(
        torch.cat([part.inputs for part in fitted]),
        torch.cat([part.labels for part in fitted]),
        stacked([part.mean for part in fitted]),
        stacked([part.deviation for part in fitted]),
        torch.cat([torch.full((len(part),), index) for index, part in enumerate(fitted)]),
    )


def _as_floats(samples: Samples) -> Samples:
    return Samples(*samples.take(torch.arange(len(samples))))


def _fitted(images: torch.Tensor, sample: tuple[int, ...]) -> torch.Tensor:
    """Repeat a grey channel in all channels of `sample`, and pad with zeros on all sides."""
    channels, height, width = sample
    if images.shape[1] == 1:
        images = images.expand(-1, channels, -1, -1)
    down, across = height - images.shape[2], width - images.shape[3]
    return functional.pad(images, (across // 2, across - across // 2, down // 2, down - down // 2))
