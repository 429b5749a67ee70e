"""Workloads: a model with its data."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from netsim._util.errors import UsageError
from netsim.training.workloads.parameters import (
    check_initial,
    check_model,
    check_moments,
    check_samples,
    fixed,
    trainable,
)
from netsim.training.workloads.replica import LossFunction
from netsim.training.workloads.samples import Samples, parts_of_data
from netsim.training.workloads.user_code import hashed


@dataclass(frozen=True, slots=True)
class Workload:
    """A model with its data; training minimises the cross-entropy, or a loss of the user.

    ``Workload(model=net, data=dataset)`` is a workload for ``netsim.simulate(workload=...)``: every fifth sample of the
    data set is for tests, unless `test` is given.

    Attributes
    ----------
    name
        The name of the workload.
    model
        The model, which is put into training mode. Its trainable parameters only give names and shapes. Frozen
        parameters and buffers keep their values.
    training, test
        The samples; a data set of pairs (input, label) of tensors is read whole.
    source, note
        The names of the data sets, and a description of one line.
    chunk
        Samples evaluated at once.
    loss_samples
        Training samples over which the training loss is computed.
    initial
        Initial values (d,) of the trainable parameters; None for :func:`initial_values`.
    loss
        ``loss(outputs, labels)`` returns the mean loss of a mini-batch; None for the cross-entropy of scores.
    data
        The data set, in place of `training`.

    Raises
    ------
    UsageError
        For a model whose gradient visibly depends on more than parameters and batch, for trainable parameters that are
        not float32, and for invalid samples.
    """

    name: str = "own"
    model: nn.Module = field(default_factory=nn.Module)
    training: Samples = None  # type: ignore[assignment]  # by `data`
    test: Samples = None  # type: ignore[assignment]  # by `data`
    source: str = "its own"
    note: str = ""
    chunk: int = 2048
    loss_samples: int = 10_000
    initial: np.ndarray | None = None
    loss: LossFunction | None = None
    data: InitVar[Any] = None

    def __post_init__(self, data: Any) -> None:
        for part, samples in parts_of_data(self.name, data, self.training, self.test).items():
            object.__setattr__(self, part, samples)
        if self.loss is nn.functional.cross_entropy:
            object.__setattr__(self, "loss", None)
        if self.loss is not None and not callable(self.loss):
            raise UsageError(
                f"workload {self.name}: loss is {type(self.loss).__name__}, expected a function of outputs and labels"
            )
        if not isinstance(self.model, nn.Module):
            raise UsageError(f"workload {self.name}: model is {type(self.model).__name__}, expected a torch.nn.Module")
        self.model.train()
        check_model(self.name, self.model)
        for kind, samples in (("training", self.training), ("test", self.test)):
            if not isinstance(samples, Samples):
                raise UsageError(
                    f"workload {self.name}: {kind} is {type(samples).__name__}, expected Samples(inputs, labels)"
                )
            check_samples(self.name, kind, samples.inputs, samples.labels, are_classes=self.loss is None)
            check_moments(self.name, kind, samples.mean, samples.deviation)
        for name in ("chunk", "loss_samples"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise UsageError(f"workload {self.name}: {name} {value!r} must be a whole number of at least 1")
        if self.initial is not None:
            check_initial(self.name, self.initial, self.elements)

    @property
    def elements(self) -> int:
        """The number d of trainable parameters."""
        return sum(size for _, size in self.tensors)

    @property
    def tensors(self) -> tuple[tuple[str, int], ...]:
        """The name and number of elements of each trainable tensor, in the order of the flat vector."""
        return tuple((name, parameter.numel()) for name, parameter in trainable(self.model))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each trainable tensor, in the order of the flat vector."""
        return tuple(tuple(parameter.shape) for _, parameter in trainable(self.model))

    def data_sha256(self) -> tuple[str, str]:
        """Return the SHA-256 of the training and of the test data."""
        return self.training.sha256(), self.test.sha256()

    def parts_sha256(self) -> dict[str, str]:
        """Return the SHA-256 of every part of the workload that affects a run, by name."""
        training, test = self.data_sha256()
        parts = {"training data": training, "test data": test, "sizes of the parameters": hashed(self.tensors)}
        parts |= {name: hashed(tensor) for name, tensor in fixed(self.model)}
        return parts | ({} if self.initial is None else {"initial values": hashed(self.initial)})
