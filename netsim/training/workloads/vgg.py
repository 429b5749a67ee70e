"""VGG-16 for small images: thirteen convolutions with batch norm, and a single linear layer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from netsim.training.workloads.data import SampleShape
from netsim.training.workloads.resnet import batch_norm

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions before each halving of the image."""

LEAST = 32
"""Pixels that five halvings need; smaller images are padded with zeros."""


class Vgg(nn.Module):
    """VGG with a bias in convolutions, although batch norm follows, as in the variant whose size the papers state."""

    def __init__(self, shape: SampleShape) -> None:
        super().__init__()
        channels, height, width = shape.sample
        down, across = max(LEAST - height, 0), max(LEAST - width, 0)
        self.padding = (across // 2, across - across // 2, down // 2, down - down // 2)
        layers: list[nn.Module] = []
        for stage in STAGES:
            for outputs in stage:
                convolution = nn.Conv2d(channels, outputs, 3, padding=1)
                layers += [convolution, batch_norm(outputs), nn.ReLU(inplace=True)]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, shape.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (n, classes) for images (n, channels, height, width)."""
        scores: torch.Tensor = self.head(self.layers(functional.pad(images, self.padding)).mean((2, 3)))
        return scores


def vgg16(shape: SampleShape) -> nn.Module:
    """Return VGG-16: 14,728,266 parameters on CIFAR-10."""
    return Vgg(shape)
