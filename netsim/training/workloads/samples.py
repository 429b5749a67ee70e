"""Samples with labels, stored compactly and standardised on use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset

from netsim._util.errors import UsageError
from netsim._util.user_code import blaming

EVERY = 5
"""Of a data set without test data, every fifth sample is for tests."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples with labels.

    Attributes
    ----------
    inputs
        (n, ...): float32, int64 tokens, or uint8 images, which take a quarter of the memory.
    labels
        int64, (n,), or (n, length) for sequences; with a loss of the user, targets of any type.
    mean, deviation
        (parts, channels, 1, 1); a pixel becomes (pixel - mean) / deviation. None for no standardisation.
    part
        (n,): the data set of each sample, 0 or 1, if two are mixed; otherwise None.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    mean: torch.Tensor | None = None
    deviation: torch.Tensor | None = None
    part: torch.Tensor | None = field(default=None)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the standardised inputs and the labels of the samples `indices` (b,)."""
        inputs = self.inputs.index_select(0, indices)
        if self.mean is not None and self.deviation is not None:
            part = None if self.part is None else self.part[indices]
            mean, deviation = (moment if part is None else moment[part] for moment in (self.mean, self.deviation))
            inputs = inputs.float().sub_(mean).div_(deviation)
        return inputs, self.labels[indices]

    def to(self, device: str) -> Samples:
        """Return the same samples on `device`."""
        tensors = {name: getattr(self, name) for name in ("inputs", "labels", "mean", "deviation", "part")}
        return replace(
            self, **{name: tensor.detach().to(device) for name, tensor in tensors.items() if tensor is not None}
        )

    def sha256(self) -> str:
        """Return the SHA-256 of the stored inputs and labels."""
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.labels):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def parts_of_data(workload: str, data: Any, training: Any, test: Any) -> dict[str, Any]:
    """Return training and test samples, of which each may be a data set; raise UsageError for contradictory parts."""
    if data is not None and training is not None:
        raise UsageError(f"workload {workload}: both data and training were given; give one of them")
    everything, tested = (_read(workload, part) for part in (training if data is None else data, test))
    if tested is None and isinstance(everything, Samples):
        numbers = torch.arange(len(everything))
        if len(everything) < EVERY:
            raise UsageError(f"workload {workload}: {len(everything)} samples are too few to test on some; give test")
        is_test = numbers % EVERY == EVERY - 1
        everything, tested = (_some(everything, numbers[chosen]) for chosen in (~is_test, is_test))
    return {"training": everything, "test": tested}


def _some(samples: Samples, numbers: torch.Tensor) -> Samples:
    part = None if samples.part is None else samples.part[numbers]
    return replace(samples, inputs=samples.inputs[numbers], labels=samples.labels[numbers], part=part)


def _read(workload: str, data: Any) -> Any:
    """Return the samples of a data set of pairs of an input and a label; anything else as it is."""
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return Samples(*data.tensors)
    if not isinstance(data, Dataset):
        return data
    with blaming(f"workload {workload}", "reading its data set of pairs (input, label) of tensors"):
        pairs = [data[number] for number in range(len(data))]  # type: ignore[arg-type]
        inputs, labels = zip(*pairs, strict=True)
        return Samples(torch.stack(inputs), torch.stack([torch.as_tensor(label) for label in labels]))
