"""Residual networks for small images of any size (He et al. 2016).

Batch norm uses the statistics of the worker's batch and keeps none, so that a gradient depends on the parameters and
the batch only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from netsim.training.workloads.data import SampleShape


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution without a bias, because the batch norm after it has one."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm without running statistics."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


class Subsample(nn.Module):
    """Option A of the paper's shortcuts, without parameters: every second pixel, and zeros as new channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.padding = (outputs - inputs) // 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (n, outputs, height / 2, width / 2)."""
        # The mean over one pixel is the pixel. Unlike the gradient of a slice, its gradient keeps the channels-last
        # layout, so that adding other gradients to it takes a twentieth of the time.
        halved = functional.avg_pool2d(images, 1, 2)
        return functional.pad(halved, (0, 0, 0, 0, self.padding, self.padding))


def projection(inputs: int, outputs: int) -> nn.Module:
    """Return option B of the paper's shortcuts: a 1×1 convolution with stride 2 and a batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), batch_norm(outputs))


class Block(nn.Module):
    """Two 3×3 convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(inputs, outputs, stride), batch_norm(outputs)
        self.conv2, self.norm2 = conv3x3(outputs, outputs), batch_norm(outputs)
        self.shortcut = shortcut

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of a block (n, outputs, height / stride, width / stride)."""
        inner = functional.relu(self.norm1(self.conv1(images)), inplace=True)
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(images), inplace=True)


class ResNet(nn.Module):
    """A convolution, then one stage of `depth` blocks per width; each stage halves height and width."""

    def __init__(
        self, shape: SampleShape, widths: tuple[int, ...], depth: int, shortcut: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        width = widths[0]
        self.conv, self.norm = conv3x3(shape.sample[0], width), batch_norm(width)
        blocks = []
        for outputs in widths:
            for _ in range(depth):
                halves = outputs != width
                through = shortcut(width, outputs) if halves else nn.Identity()
                blocks.append(Block(width, outputs, 2 if halves else 1, through))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, shape.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (n, classes) for images (n, channels, height, width)."""
        features = self.blocks(functional.relu(self.norm(self.conv(images)), inplace=True))
        scores: torch.Tensor = self.head(features.mean((2, 3)))
        return scores


def resnet20(shape: SampleShape) -> nn.Module:
    """Return stages of 16, 32 and 64 channels with shortcuts A: 269,722 parameters on CIFAR-10."""
    return ResNet(shape, (16, 32, 64), 3, Subsample)


def resnet18(shape: SampleShape) -> nn.Module:
    """Return stages of 64 to 512 channels with shortcuts B: 11,173,962 parameters, 11,220,132 with 100 classes."""
    return ResNet(shape, (64, 128, 256, 512), 2, projection)
