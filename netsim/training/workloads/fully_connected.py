"""Networks of fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from netsim.training.workloads.data import SampleShape


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


def is_plain(model: nn.Module) -> bool:
    """Return whether :class:`Pass` computes what autograd would: nothing frozen, replaced, overridden or hooked."""
    layers = list(model.children())
    kinds = [nn.ReLU if place % 2 else nn.Linear for place in range(len(layers))]
    return (
        type(model) is FullyConnected
        and len(layers) % 2 == 1
        and [type(layer) for layer in layers] == kinds
        and all(parameter.requires_grad and not parameter._backward_hooks for parameter in model.parameters())
        and len(list(model.parameters())) == len(layers) + 1  # biases, and nothing shared
        and not any(
            (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks) != ({}, {}, {})
            for module in model.modules()
        )
    )


LEAST = 16
"""Rows that a product of matrices has at the least. MKL has kernels of their own for fewer, which add in another
order; from here on a row has the same bits however many rows there are, on the CPUs that were tried."""


LARGEST = 1e37
"""Below what float32 holds, by more than all roundings of a sum."""


class Pass:
    """The way of some workers' mini-batches through the layers and back, up to a matrix product a worker and layer.

    `images` and `labels` are the mini-batches one after another, of equal size. Autograd would make gradients
    of its own, to be copied: that and its bookkeeping cost half as much again as the arithmetic.
    """

    @torch.no_grad()
    def __init__(
        self,
        parameters: list[torch.Tensor],
        images: torch.Tensor,
        labels: torch.Tensor,
        workers: int,
        reached: Callable[[Pass, int], None] | None = None,
    ) -> None:
        """Go there and back; ``reached(self, n)`` is called on the way back, when layer n's gradient can be written."""
        self._batch_size = len(labels) // workers
        weights, biases = parameters[::2], parameters[1::2]
        spare = max(0, LEAST - len(labels))
        labels = torch.nn.functional.pad(labels, (0, spare))
        self._values = [torch.nn.functional.pad(images.flatten(1), (0, 0, 0, spare))]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            self._values.append(torch.addmm(bias, self._values[-1], weight.t()).relu_())
        logs = torch.addmm(biases[-1], self._values[-1], weights[-1].t()).log_softmax(1)
        picked = torch.zeros_like(logs).scatter_(1, labels[:, None], -1 / self._batch_size)
        slope = torch.ops.aten._log_softmax_backward_data(picked, logs, 1, logs.dtype)
        self._slopes = [slope] * len(weights)
        for layer in range(len(weights) - 1, -1, -1):
            if layer + 1 < len(weights):
                slope = torch.mm(slope, weights[layer + 1]).masked_fill_(self._values[layer + 1] <= 0, 0)
            self._slopes[layer] = slope
            if reached is not None:
                reached(self, layer)
        self.finite = all(
            float(slope.abs().max()) * max(1.0, float(values.abs().max())) * self._batch_size < LARGEST
            for slope, values in zip(self._slopes, self._values, strict=True)
        )
        """Whether the sums of products that gradients are cannot overflow; if not they still may be finite."""

    def write(self, worker: int, out: list[torch.Tensor]) -> None:
        """Write the gradient of one worker's mean cross-entropy into `out`, a tensor for each parameter."""
        for layer in range(len(self._slopes)):
            self.write_layer(layer, worker, out)

    @torch.no_grad()
    def write_layer(self, layer: int, worker: int, out: list[torch.Tensor]) -> None:
        """Write two tensors of `out`, those of one layer."""
        own = slice(worker * self._batch_size, (worker + 1) * self._batch_size)
        slope, values = self._slopes[layer][own], self._values[layer][own]
        torch.mm(slope.t(), values, out=out[2 * layer])
        torch.sum(slope, 0, out=out[2 * layer + 1])


def digits_mlp(shape: SampleShape) -> nn.Module:
    """Return 64-1024-1024-10: on 8×8 digits 1,126,410 parameters."""
    return FullyConnected(math.prod(shape.sample), 1024, 1024, shape.classes)


def fc_mnist(shape: SampleShape) -> nn.Module:
    """Return 784-512-10, as the SASG paper trains it on MNIST: 407,050 parameters."""
    return FullyConnected(math.prod(shape.sample), 512, shape.classes)
