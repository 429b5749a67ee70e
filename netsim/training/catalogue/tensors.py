"""Tensors as names and shapes without values, and the tensors of common layers."""

from __future__ import annotations

import math
from typing import NamedTuple


class Tensor(NamedTuple):
    """The name and the shape of a trained tensor, as in torch: the output dimension comes first."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> list[Tensor]:
    """Return the tensors of a fully connected layer."""
    return [Tensor(f"{name}.weight", (outputs, inputs)), *([Tensor(f"{name}.bias", (outputs,))] if bias else [])]


def convolution(name: str, inputs: int, outputs: int, *kernel: int, bias: bool = False) -> list[Tensor]:
    """Return the tensors of a two-dimensional convolution; a single `kernel` size applies to both dimensions."""
    size = kernel * 2 if len(kernel) == 1 else kernel
    weight = Tensor(f"{name}.weight", (outputs, inputs, *size))
    return [weight, *([Tensor(f"{name}.bias", (outputs,))] if bias else [])]


def norm(name: str, width: int) -> list[Tensor]:
    """Return scale and shift of a batch or layer normalisation; running statistics are not trained."""
    return [Tensor(f"{name}.weight", (width,)), Tensor(f"{name}.bias", (width,))]


def lstm(name: str, layer: int, inputs: int, hidden: int) -> list[Tensor]:
    """Return the tensors of one LSTM layer as in torch: four gates, with separate biases for input and state."""
    gates = 4 * hidden
    shapes = {"weight_ih": (gates, inputs), "weight_hh": (gates, hidden), "bias_ih": (gates,), "bias_hh": (gates,)}
    return [Tensor(f"{name}.{kind}_l{layer}", shape) for kind, shape in shapes.items()]
