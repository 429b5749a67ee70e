"""Networks of fully connected layers."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from netsim.workloads.data import Shape


class FullyConnected(nn.Sequential):
    """Layers of the given widths with ReLU between them; (n, ...) inputs are flattened."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = super().forward(images.flatten(1))  # type: ignore[no-untyped-call]
        return scores


def digits_mlp(shape: Shape) -> nn.Module:
    """Return 64-1024-1024-10: on 8×8 digits 1,126,410 parameters."""
    return FullyConnected(math.prod(shape.sample), 1024, 1024, shape.classes)


def fc_mnist(shape: Shape) -> nn.Module:
    """Return 784-512-10, as the SASG paper trains it on MNIST: 407,050 parameters."""
    return FullyConnected(math.prod(shape.sample), 512, shape.classes)
