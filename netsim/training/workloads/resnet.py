"""Residual networks for small images (He et al. 2016), of whatever height, width and channels they have.

Batch norm normalises with the statistics of the worker's own batch and keeps none: what a gradient is
depends on the parameters and the batch alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from netsim.training.workloads.data import SampleShape


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution without a bias, since batch norm follows and has one."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return batch norm that has no running statistics."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


class Subsample(nn.Module):
    """Option A of the paper's shortcuts, without parameters: every second pixel, zeros for the new channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.padding = (outputs - inputs) // 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # A mean over one pixel is that pixel. Unlike a slice's, its gradients keep the channels last, and adding others
        # to them does not cross from one layout to the other: a twentieth of the time.
        halved = functional.avg_pool2d(images, 1, 2)
        return functional.pad(halved, (0, 0, 0, 0, self.padding, self.padding))


def projection(inputs: int, outputs: int) -> nn.Module:
    """Return option B of the paper's shortcuts: a 1×1 convolution with stride 2, and batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), batch_norm(outputs))


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(inputs, outputs, stride), batch_norm(outputs)
        self.conv2, self.norm2 = conv3x3(outputs, outputs), batch_norm(outputs)
        self.shortcut = shortcut

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.norm1(self.conv1(images)), inplace=True)
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(images), inplace=True)


class ResNet(nn.Module):
    """A convolution, then stages of `depth` blocks, each stage at half the size of the one before."""

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
        features = self.blocks(functional.relu(self.norm(self.conv(images)), inplace=True))
        scores: torch.Tensor = self.head(features.mean((2, 3)))
        return scores


def resnet20(shape: SampleShape) -> nn.Module:
    """Return three stages of 16, 32 and 64 channels, shortcuts A: on CIFAR-10 269,722 parameters."""
    return ResNet(shape, (16, 32, 64), 3, Subsample)


def resnet18(shape: SampleShape) -> nn.Module:
    """Return four stages of 64 to 512 channels, shortcuts B: 11,173,962 parameters, with 100 classes 11,220,132."""
    return ResNet(shape, (64, 128, 256, 512), 2, projection)
