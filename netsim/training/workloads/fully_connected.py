"""Networks of fully connected layers, with a forward and backward pass for several workers at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from netsim.training.workloads.data import SampleShape


class FullyConnected(nn.Sequential):
    """Linear layers of the given widths with ReLU in between; inputs (n, ...) are flattened."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores (n, classes) of images (n, ...)."""
        scores: torch.Tensor = super().forward(images.flatten(1))  # type: ignore[no-untyped-call]
        return scores


def is_plain(model: nn.Module) -> bool:
    """Return whether :class:`Pass` gives the gradient of autograd: no frozen, replaced, overridden or hooked part."""
    layers = list(model.children())
    kinds = [nn.ReLU if place % 2 else nn.Linear for place in range(len(layers))]
    return (
        type(model) is FullyConnected
        and len(layers) % 2 == 1
        and [type(layer) for layer in layers] == kinds
        and all(parameter.requires_grad and not parameter._backward_hooks for parameter in model.parameters())
        and len(list(model.parameters())) == len(layers) + 1  # every layer has a bias, and no parameter is shared
        and not any(
            (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks) != ({}, {}, {})
            for module in model.modules()
        )
    )


LEAST = 16
"""Least number of rows of a matrix product. For fewer rows MKL has special kernels, which add in another order. From
this number on, the bits of a row rarely depend on the number of rows. Where they do, differs from CPU to CPU, and
:class:`DataParallelTask` finds it by comparing a shared pass with separate ones."""


LARGEST = 1e37
"""Bound below the greatest float32, with a margin for the rounding of a sum."""


class Pass:
    """The forward and backward pass of several workers' mini-batches, up to one matrix product per worker and layer.

    Autograd is not used: it allocates its own gradients, and copying them with its bookkeeping costs half as much as
    the arithmetic.

    Parameters
    ----------
    parameters
        Weights and biases of the layers, in turn.
    images, labels
        The mini-batches of the workers one after another, all of one size.
    workers
        The number of workers.
    reached
        ``reached(self, n)`` is called in the backward pass when the gradient of layer n can be written.
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

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Return whether no gradient can overflow; if not, gradients may still be finite."""
        return all(
            float(slope.abs().max()) * max(1.0, float(values.abs().max())) * self._batch_size < LARGEST
            for slope, values in zip(self._slopes, self._values, strict=True)
        )

    def write(self, worker: int, out: list[torch.Tensor]) -> None:
        """Write the gradient of one worker's mean cross-entropy into `out`, one tensor per parameter."""
        for layer in range(len(self._slopes)):
            self.write_layer(layer, worker, out)

    @torch.no_grad()
    def write_layer(self, layer: int, worker: int, out: list[torch.Tensor]) -> None:
        """Write the gradients of the weight and the bias of one layer into `out`."""
        rows = slice(worker * self._batch_size, (worker + 1) * self._batch_size)
        slope, values = self._slopes[layer][rows], self._values[layer][rows]
        torch.mm(slope.t(), values, out=out[2 * layer])
        torch.sum(slope, 0, out=out[2 * layer + 1])


def digits_mlp(shape: SampleShape) -> nn.Module:
    """Return the network 64-1024-1024-10: 1,126,410 parameters on 8×8 digits."""
    return FullyConnected(math.prod(shape.sample), 1024, 1024, shape.classes)


def fc_mnist(shape: SampleShape) -> nn.Module:
    """Return the network 784-512-10 of the SASG paper: 407,050 parameters on MNIST."""
    return FullyConnected(math.prod(shape.sample), 512, shape.classes)
