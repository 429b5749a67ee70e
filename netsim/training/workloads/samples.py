"""Samples with labels, stored compactly and standardised on use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples with labels.

    Attributes
    ----------
    inputs
        (n, ...): float32, int64 tokens, or uint8 images, which take a quarter of the memory.
    labels
        int64, (n,), or (n, length) for sequences.
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
