"""A model, its training data, and what workers compute on it."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from netsim.errors import InfeasibleError, NonFiniteGradientError
from netsim.payload import Dense, Vector


@dataclass(frozen=True, slots=True)
class Workload:
    """`model` is trained on ``inputs`` (n, ...) and ``labels`` (n,) by cross-entropy.

    The model's own parameters are only names and shapes; the values are a flat vector handed in.
    """

    name: str
    model: nn.Module
    inputs: torch.Tensor
    labels: torch.Tensor

    @property
    def elements(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


class DataParallelTask:
    """A workload split over workers: each has its own shard, and a mini-batch of it every step.

    Everything random is drawn with NumPy from `seed`, so it is the same on every CPU and device.
    """

    def __init__(self, workload: Workload, workers: int, batch_size: int, seed: int, device: str) -> None:
        samples = len(workload.labels)
        if workers > samples:
            raise InfeasibleError(
                f"{workers} workers but {workload.name} has {samples} training samples: "
                f"use at most {samples} workers, or --timing-only, which needs no data"
            )
        self._model = workload.model
        self._own = threading.local()
        self._shapes = {name: parameter.shape for name, parameter in workload.model.named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        self._inputs, self._labels = workload.inputs.to(device), workload.labels.to(device)
        shuffled = np.random.default_rng((seed, 1)).permutation(samples)
        self._shards = [np.sort(shard) for shard in np.array_split(shuffled, workers)]
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._initial = Dense(torch.from_numpy(initial_values(workload.model, seed)).to(device))

    def initial_parameters(self) -> Dense:
        return self._initial

    def batch(self, rank: int, step: int) -> np.ndarray:
        """Return the sample numbers of a mini-batch, drawn without replacement where the shard is large enough."""
        shard = self._shards[rank]
        random = np.random.default_rng((self._seed, 2, rank, step))
        return random.choice(shard, self._batch_size, replace=len(shard) < self._batch_size)

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        """Return the gradient of the mean loss over the worker's mini-batch; it is finite."""
        assert isinstance(parameters, Dense)
        samples = torch.from_numpy(self.batch(rank, step)).to(self._device)
        flat = parameters.values.detach().requires_grad_()
        loss = self._loss(flat, self._inputs[samples], self._labels[samples])
        (gradient,) = torch.autograd.grad(loss, flat)
        if not bool(torch.isfinite(gradient).all()):
            raise NonFiniteGradientError(
                f"worker {rank}, step {step}: the gradient of {self._first_bad(gradient)} is not finite; "
                "lower --lr (the training diverged) or check the data"
            )
        return Dense(gradient)

    def loss(self, parameters: Dense) -> float:
        """Return the mean loss over all training data."""
        with torch.no_grad():
            return float(self._loss(parameters.values, self._inputs, self._labels))

    def _loss(self, flat: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(flat, self._sizes)
        tensors = {name: piece.view(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}
        return nn.functional.cross_entropy(functional_call(self._model_of_thread(), tensors, (inputs,)), labels)

    def _model_of_thread(self) -> nn.Module:
        """Return a copy of the model for this thread: ``functional_call`` swaps parameters inside it."""
        if not hasattr(self._own, "model"):
            self._own.model = copy.deepcopy(self._model).to("meta")
        model: nn.Module = self._own.model
        return model

    def _first_bad(self, gradient: torch.Tensor) -> str:
        pieces = torch.split(gradient, self._sizes)
        return next(
            name for name, piece in zip(self._shapes, pieces, strict=True) if not bool(torch.isfinite(piece).all())
        )


def initial_values(model: nn.Module, seed: int) -> np.ndarray:
    """Return initial parameters (d,) float32: uniform in ±1/√fan_in, as torch initialises linear layers.

    Drawn with NumPy, since torch's generators give other numbers on other CPUs.
    """
    random = np.random.default_rng((seed, 0))
    values = []
    for module in model.modules():
        own: Mapping[str, nn.Parameter] = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        if not isinstance(module, nn.Linear):
            raise TypeError(f"no rule to initialise {type(module).__name__}")
        bound = 1 / math.sqrt(module.in_features)
        values += [random.uniform(-bound, bound, parameter.numel()) for parameter in own.values()]
    return np.concatenate(values).astype(np.float32)
