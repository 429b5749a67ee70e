"""Selection of entries of a vector: exactly, by a sampled threshold, over the whole vector or per tensor.

Exact selection takes the min(k, number of non-zeros) entries of largest magnitude; among equal magnitudes the lower
index wins. The gTop-k paper (eq. (4)) writes "> the k-th largest", which would keep k - 1 entries, and fewer with ties.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from algorithms import kernels

if TYPE_CHECKING:
    import torch

How = Literal["exact", "sampled", "threshold"]
HOWS: tuple[How, ...] = ("exact", "sampled", "threshold")

SAMPLE = 4096
"""Elements of a long vector that are sampled to estimate the k-th largest magnitude."""

FIRST_DENSITY = 0.25
"""Density at which a warm-up begins (Deep Gradient Compression, section 3.3)."""


@dataclass(frozen=True, slots=True)
class Selector:
    """The number of entries to select, and the method.

    Attributes
    ----------
    k
        Number of selected entries in all.
    blocks
        (elements, k) of consecutive tensors, for a selection within each tensor; empty for one over the whole vector.
    how
        "exact" takes the k largest magnitudes. "sampled" takes the entries above a threshold that is estimated from a
        sample, at most k (Deep Gradient Compression). "threshold" takes all entries above it, about k.
    warmup_rounds
        Rounds over which the density falls geometrically from 1/4 to its final value.
    """

    k: int
    blocks: tuple[tuple[int, int], ...] = ()
    how: How = "exact"
    warmup_rounds: int = 0

    @classmethod
    def per_tensor(cls, density: float, sizes: tuple[int, ...]) -> Selector:
        """Return a selector of max(1, floor(density · n)) entries from every tensor of n elements (SASG paper)."""
        blocks = tuple((size, entries(density, size)) for size in sizes)
        return cls(sum(k for _, k in blocks), blocks)

    def at(self, step: int, size: int) -> Selector:
        """Return the selector with the k of a step, for vectors of `size` elements."""
        if step >= self.warmup_rounds or not size:
            return self
        done: float = step / self.warmup_rounds

        def warm(k: int, of: int) -> int:
            density = FIRST_DENSITY ** (1 - done) * (k / of) ** done
            return max(k, min(of, int(of * density)))

        blocks = tuple((of, warm(k, of)) for of, k in self.blocks)
        return replace(self, k=sum(k for _, k in blocks) if blocks else warm(self.k, size), blocks=blocks)

    def bounds(self) -> tuple[list[int], list[int]]:
        """Return the boundaries of the blocks, one more than there are blocks, and the k of each block."""
        return [0, *itertools.accumulate(size for size, _ in self.blocks)], [k for _, k in self.blocks]

    def positions(self, values: torch.Tensor) -> torch.Tensor:
        """Return the selected positions (k,) of a dense vector (d,), ascending."""
        import torch

        if not self.blocks:
            return self._of(values, self.k)
        pieces, first = [], 0
        for size, k in self.blocks:
            pieces.append(self._of(values[first : first + size], k) + first)
            first += size
        return torch.cat(pieces)

    def among(self, indices: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return which entries of a sparse vector are the largest: positions in `values`, ascending; always exact."""
        import torch

        if not self.blocks:
            return top_positions(values, self.k)
        ends = torch.tensor([size for size, _ in self.blocks], device=indices.device).cumsum(0)
        pieces, first = [], 0
        for last, (_, k) in zip(torch.searchsorted(indices, ends).tolist(), self.blocks, strict=True):
            pieces.append(top_positions(values[first:last], k) + first)
            first = last
        return torch.cat(pieces)

    def _of(self, values: torch.Tensor, k: int) -> torch.Tensor:
        if self.how == "exact":
            return top_positions(values, k)
        magnitudes = values.abs()
        candidates = above(magnitudes, sampled_threshold(magnitudes, k))
        if self.how == "sampled" and candidates.numel() > k:
            candidates = candidates[top_positions(magnitudes[candidates], k)]
        return candidates


def on_kernels(values: torch.Tensor) -> bool:
    """Return whether the compiled kernels accept this tensor: on the CPU, contiguous, float32 or float64.

    From other tensors :mod:`algorithms.rows` selects the same entries, bit for bit.
    """
    floats = values.is_floating_point() and values.element_size() >= 4
    return values.device.type == "cpu" and floats and values.is_contiguous()


def entries(density: float, size: int) -> int:
    """Return max(1, floor(density · size)); 1e-9 is added because 0.29 * 100 is 28.999999999999996."""
    return max(1, math.floor(density * size + 1e-9))


def top_positions(values: torch.Tensor, k: int) -> torch.Tensor:
    """Return the ascending positions of the min(k, non-zeros) largest magnitudes; of equal ones, the lower position."""
    import torch

    return torch.from_numpy(kernels.top_positions(values.detach().cpu().contiguous().numpy(), k))


def sampled_rank(size: int, k: int) -> tuple[int, int]:
    """Return the stride of a sample of `size` elements, and the rank in it that guesses the k-th largest element.

    It is the expected rank of the k-th largest, plus three standard deviations; 0 where guessing does not pay. A wrong
    guess costs time but never changes the result. Of a longer vector more elements are sampled, one in 64 at most, so
    that fewer others reach the guess.
    """
    stride = size // min(max(SAMPLE, size // 64), 16 * SAMPLE)
    if stride < 8:
        return stride, 0
    expected = k / stride
    rank = int(expected + 3 * expected**0.5 + 4)
    return stride, rank if rank < -(-size // stride) else 0


def sampled_threshold(magnitudes: torch.Tensor, k: int) -> float:
    """Return an estimate, from a strided sample, of the magnitude that k elements reach."""
    sample = magnitudes[:: max(1, magnitudes.numel() // SAMPLE)]
    rank = max(1, min(sample.numel(), round(k * sample.numel() / max(1, magnitudes.numel()))))
    return float(sample.topk(rank).values[-1]) if sample.numel() else 0.0


def above(magnitudes: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the ascending positions of the non-zero magnitudes of at least `threshold`."""
    import torch

    return torch.nonzero((magnitudes >= threshold) & (magnitudes > 0)).flatten()
