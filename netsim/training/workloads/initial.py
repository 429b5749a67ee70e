"""Initial parameters, drawn with NumPy: torch's generators give other numbers on other CPUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from netsim._util.errors import UsageError
from netsim._util.random_streams import Stream, generator

EMBEDDING_DEVIATION = 0.1


def initial_values(model: nn.Module, seed: int) -> np.ndarray:
    """Return initial values of the trainable parameters (d,) float32, in the order of ``model.named_parameters()``.

    Linear and Conv2d: uniform in ±1/√fan_in, and LSTM: in ±1/√hidden, biases too, all as torch has it.
    BatchNorm and LayerNorm: ones, with zeros for the bias. Embedding: normal with deviation 0.1, where
    torch has 1, as is usual for language models. Raises UsageError for another layer with parameters.
    """
    random = generator(seed, Stream.INITIAL_VALUES)
    values: list[np.ndarray] = []
    seen: set[int] = set()  # a parameter that two layers share is drawn once
    for module in model.modules():
        own: Mapping[str, nn.Parameter] = dict(module.named_parameters(recurse=False))
        fresh = {
            name: parameter for name, parameter in own.items() if parameter.requires_grad and id(parameter) not in seen
        }
        if not fresh:
            continue
        seen.update(id(parameter) for parameter in fresh.values())
        draw = next((rule(module) for kinds, rule in RULES if isinstance(module, kinds)), None)
        if draw is None:
            raise UsageError(f"no rule to initialise {type(module).__name__}: give its Workload initial values")
        values += [draw(random, name, parameter.numel()).astype(np.float32) for name, parameter in fresh.items()]
    return np.concatenate(values)


DrawValues = Callable[[np.random.Generator, str, int], np.ndarray]


def _uniform(bound: float) -> DrawValues:
    return lambda random, name, size: random.uniform(-bound, bound, size)


def _fan_in(module: Any) -> DrawValues:
    return _uniform(1 / math.sqrt(module.weight.shape[1:].numel()))


def _recurrent(module: Any) -> DrawValues:
    return _uniform(1 / math.sqrt(module.hidden_size))


def _norm(module: Any) -> DrawValues:
    return lambda random, name, size: np.full(size, float(name == "weight"))


def _embedding(module: Any) -> DrawValues:
    return lambda random, name, size: random.normal(0, EMBEDDING_DEVIATION, size)


RULES: tuple[tuple[tuple[type[nn.Module], ...], Callable[[Any], DrawValues]], ...] = (
    ((nn.Linear, nn.Conv1d, nn.Conv2d), _fan_in),
    ((nn.RNNBase,), _recurrent),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm), _norm),
    ((nn.Embedding,), _embedding),
)
"""How a layer's parameters are drawn, by the kind of layer."""
