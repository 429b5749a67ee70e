"""Tensors that have a name and a shape and no values, and the layers that consist of them."""

from __future__ import annotations

import math
from typing import NamedTuple


class Tensor(NamedTuple):
    """A trained tensor; `shape` is as torch has it, the output dimension first."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> list[Tensor]:
    """Return the tensors of a fully connected layer."""
    return [Tensor(f"{name}.weight", (outputs, inputs)), *([Tensor(f"{name}.bias", (outputs,))] if bias else [])]


def convolution(name: str, inputs: int, outputs: int, *kernel: int, bias: bool = False) -> list[Tensor]:
    """Return the tensors of a two-dimensional convolution; one `kernel` size is that of both dimensions."""
    size = kernel * 2 if len(kernel) == 1 else kernel
    weight = Tensor(f"{name}.weight", (outputs, inputs, *size))
    return [weight, *([Tensor(f"{name}.bias", (outputs,))] if bias else [])]


def norm(name: str, width: int) -> list[Tensor]:
    """Return the scale and the shift of a batch or layer normalisation; running statistics are not trained."""
    return [Tensor(f"{name}.weight", (width,)), Tensor(f"{name}.bias", (width,))]


def lstm(name: str, layer: int, inputs: int, hidden: int) -> list[Tensor]:
    """Return the tensors of one LSTM layer as torch has it: four gates, and a bias each for input and state."""
    gates = 4 * hidden
    shapes = {"weight_ih": (gates, inputs), "weight_hh": (gates, hidden), "bias_ih": (gates,), "bias_hh": (gates,)}
    return [Tensor(f"{name}.{kind}_l{layer}", shape) for kind, shape in shapes.items()]
