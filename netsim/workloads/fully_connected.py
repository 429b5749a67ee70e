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

    @staticmethod
    @torch.no_grad()
    def write_gradients(
        parameters: list[torch.Tensor], images: torch.Tensor, labels: torch.Tensor, out: list[list[torch.Tensor]]
    ) -> None:
        """Write the gradients of several workers' mean cross-entropies into `out`, a list of tensors for each.

        `images` and `labels` are their mini-batches one after another, of equal size. For one worker the
        bits are autograd's, which would make gradients of its own, to be copied: that and its bookkeeping
        cost half as much again as the arithmetic. Several share the passes through the layers.
        """
        batch_size = len(labels) // len(out)
        weights, biases = parameters[::2], parameters[1::2]
        values = [images.flatten(1)]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            values.append(torch.addmm(bias, values[-1], weight.t()).relu_())
        logs = torch.addmm(biases[-1], values[-1], weights[-1].t()).log_softmax(1)
        picked = torch.zeros_like(logs).scatter_(1, labels[:, None], -1 / batch_size)
        slope = torch.ops.aten._log_softmax_backward_data(picked, logs, 1, logs.dtype)
        for layer in reversed(range(len(weights))):
            for own, own_slope, own_values in zip(
                out, torch.split(slope, batch_size), torch.split(values[layer], batch_size), strict=True
            ):
                torch.mm(own_slope.t(), own_values, out=own[2 * layer])
                torch.sum(own_slope, 0, out=own[2 * layer + 1])
            if layer:
                slope = torch.mm(slope, weights[layer]).masked_fill_(values[layer] <= 0, 0)


def digits_mlp(shape: Shape) -> nn.Module:
    """Return 64-1024-1024-10: on 8×8 digits 1,126,410 parameters."""
    return FullyConnected(math.prod(shape.sample), 1024, 1024, shape.classes)


def fc_mnist(shape: Shape) -> nn.Module:
    """Return 784-512-10, as the SASG paper trains it on MNIST: 407,050 parameters."""
    return FullyConnected(math.prod(shape.sample), 512, shape.classes)
