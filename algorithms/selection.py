"""Which entries of a vector are selected.

Exact selection takes min(k, number of non-zeros) entries, ordered by magnitude and, among equal
magnitudes, by index: "> the k-th largest" (gTop-k paper, eq. (4)) would keep k-1, and fewer under ties.
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
"""How many elements of a long vector are looked at for a first guess of the k-th magnitude."""

FIRST_DENSITY = 0.25
"""Where a warm-up of the density begins (Deep Gradient Compression, section 3.3)."""


@dataclass(frozen=True, slots=True)
class Selector:
    """How many entries to select, of what, and how.

    `k` is the number in all. With `blocks`, (elements, k) of consecutive tensors, each tensor has its
    own. `how`: "exact"; "sampled" takes what exceeds a threshold estimated from a sample, and at most k
    (Deep Gradient Compression); "threshold" takes all that exceeds it, so about k.
    During the first `warmup_rounds` the density falls geometrically from 1/4 to its final value.
    """

    k: int
    blocks: tuple[tuple[int, int], ...] = ()
    how: How = "exact"
    warmup_rounds: int = 0

    @classmethod
    def per_tensor(cls, density: float, sizes: tuple[int, ...]) -> Selector:
        """Return max(1, floor(density n)) of every tensor of n elements, as in the SASG paper."""
        blocks = tuple((size, entries(density, size)) for size in sizes)
        return cls(sum(k for _, k in blocks), blocks)

    def at(self, step: int, size: int) -> Selector:
        """Return the selector for a step, on vectors of `size` elements."""
        if step >= self.warmup_rounds or not size:
            return self
        done: float = step / self.warmup_rounds

        def warm(k: int, of: int) -> int:
            density = FIRST_DENSITY ** (1 - done) * (k / of) ** done
            return max(k, min(of, int(of * density)))

        blocks = tuple((of, warm(k, of)) for of, k in self.blocks)
        return replace(self, k=sum(k for _, k in blocks) if blocks else warm(self.k, size), blocks=blocks)

    def bounds(self) -> tuple[list[int], list[int]]:
        """Return where blocks begin and the last one ends, and the k of each."""
        return [0, *itertools.accumulate(size for size, _ in self.blocks)], [k for _, k in self.blocks]

    def positions(self, values: torch.Tensor) -> torch.Tensor:
        """Return the positions selected in a dense vector, ascending."""
        import torch

        if not self.blocks:
            return self._of(values, self.k)
        pieces, first = [], 0
        for size, k in self.blocks:
            pieces.append(self._of(values[first : first + size], k) + first)
            first += size
        return torch.cat(pieces)

    def among(self, indices: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the positions to keep of a sparse vector with ascending `indices`, ascending; exact."""
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
        found = above(magnitudes, sampled_threshold(magnitudes, k))
        if self.how == "sampled" and found.numel() > k:
            found = found[top_positions(magnitudes[found], k)]
        return found


def on_kernels(values: torch.Tensor) -> bool:
    """Return whether the compiled kernels take this tensor: in main memory, of float32 or float64.

    Elsewhere torch's own operators find the same entries, bit for bit.
    """
    floats = values.is_floating_point() and values.element_size() >= 4
    return values.device.type == "cpu" and floats and values.is_contiguous()


def entries(density: float, size: int) -> int:
    """Return max(1, floor(density size)), without falling for 0.29 * 100 = 28.999999999999996."""
    return max(1, math.floor(density * size + 1e-9))


def top_positions(values: torch.Tensor, k: int) -> torch.Tensor:
    """Return the positions, ascending, of the min(k, non-zeros) largest magnitudes; ties to the lower position."""
    import torch

    if on_kernels(values):
        return torch.from_numpy(kernels.top_positions(values.numpy(), k))
    magnitudes = values.abs()
    threshold = _guess(magnitudes, k)
    candidates = torch.nonzero(magnitudes >= threshold).flatten() if threshold > 0 else None
    if candidates is None or candidates.numel() < k:
        candidates = torch.nonzero(magnitudes).flatten()
    if candidates.numel() <= k:
        return candidates
    among = magnitudes[candidates]
    order = torch.sort(among, descending=True, stable=True).indices[:k]
    return candidates[torch.sort(order).values]


def _guess(magnitudes: torch.Tensor, k: int) -> float:
    """Return a magnitude likely to be a little below the k-th largest, or 0 if a guess is not worth it.

    From a strided sample: the position of the k-th largest in it, three standard deviations further
    down. A wrong guess costs time, never exactness.
    """
    stride = magnitudes.numel() // SAMPLE
    if stride < 8:
        return 0.0
    sample = magnitudes[::stride]
    expected = k / stride
    rank = int(expected + 3 * expected**0.5 + 4)
    if rank >= sample.numel():
        return 0.0
    return float(sample.topk(rank).values[-1])


def sampled_threshold(magnitudes: torch.Tensor, k: int) -> float:
    """Return the magnitude that about k elements exceed, estimated from a strided sample."""
    sample = magnitudes[:: max(1, magnitudes.numel() // SAMPLE)]
    rank = max(1, min(sample.numel(), round(k * sample.numel() / max(1, magnitudes.numel()))))
    return float(sample.topk(rank).values[-1]) if sample.numel() else 0.0


def above(magnitudes: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the positions of the non-zero magnitudes of at least `threshold`, ascending."""
    import torch

    return torch.nonzero((magnitudes >= threshold) & (magnitudes > 0)).flatten()
