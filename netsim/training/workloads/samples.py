"""Samples with their labels, as they are stored and as a model wants them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch


@dataclass(frozen=True, slots=True)
class Samples:
    """`inputs` (n, ...) and `labels` (n,), or (n, length) for sequences, int64.

    Inputs are float32, int64 tokens, or uint8 images, which take a quarter of the memory; those become
    (pixel - mean) / deviation, with `mean` and `deviation` (parts, channels, 1, 1). `part` (n,) tells
    which of two mixed data sets each sample is from, None where there is one.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    mean: torch.Tensor | None = None
    deviation: torch.Tensor | None = None
    part: torch.Tensor | None = field(default=None)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs, as a model wants them, and the labels of these samples."""
        inputs = self.inputs.index_select(0, numbers)
        if self.mean is not None and self.deviation is not None:
            part = None if self.part is None else self.part[numbers]
            mean, deviation = (moment if part is None else moment[part] for moment in (self.mean, self.deviation))
            inputs = inputs.float().sub_(mean).div_(deviation)
        return inputs, self.labels[numbers]

    def to(self, device: str) -> Samples:
        """Return the same samples on `device`."""
        tensors = {name: getattr(self, name) for name in ("inputs", "labels", "mean", "deviation", "part")}
        return replace(
            self, **{name: tensor.detach().to(device) for name, tensor in tensors.items() if tensor is not None}
        )

    def sha256(self) -> str:
        """Return the SHA-256 of inputs and labels, as stored."""
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.labels):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()
