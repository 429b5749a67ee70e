"""Initial parameters, drawn with NumPy because torch's generators give different numbers on different CPUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from netsim._util.errors import UsageError
from netsim._util.random_streams import Stream, generator

EMBEDDING_DEVIATION = 0.1
"""Standard deviation of embeddings; torch has 1, language models usually 0.1."""


def initial_values(model: nn.Module, seed: int) -> np.ndarray:
    """Return initial values (d,) float32 of the trainable parameters, in the order of ``model.named_parameters()``.

    Raises
    ------
    UsageError
        For a layer with parameters and without a rule.

    Notes
    -----
    The rules are those of torch, except for embeddings. Weights and biases are uniform in ±1/√fan_in for Linear and
    Conv2d, and in ±1/√hidden for LSTM. BatchNorm and LayerNorm have ones, and zeros as bias. Embeddings are normal with
    standard deviation 0.1.
    """
    random = generator(seed, Stream.INITIAL_VALUES)
    values: list[np.ndarray] = []
    seen: set[int] = set()  # a shared parameter is drawn once
    for module in model.modules():
        parameters: Mapping[str, nn.Parameter] = dict(module.named_parameters(recurse=False))
        fresh = {
            name: parameter
            for name, parameter in parameters.items()
            if parameter.requires_grad and id(parameter) not in seen
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
"""How parameters are drawn, by the kind of layer."""
