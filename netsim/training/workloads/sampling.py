"""Mini-batches: the samples that a worker uses in a step, as a function of (seed, rank, step)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsim._util.random_streams import Stream, generator

RANDOM, EPOCHS = "random", "epochs"
SAMPLINGS = (RANDOM, EPOCHS)
"""Independent random batches; or the shard in a new random order in each epoch, without repetition within it."""


class Sampler:
    """Draws mini-batches of `batch_size` samples from each worker's shard."""

    def __init__(self, shards: Sequence[np.ndarray], batch_size: int, seed: int, sampling: str) -> None:
        self._shards = shards
        self._batch_size = batch_size
        self._seed = seed
        self._draw = {RANDOM: self._random, EPOCHS: self._epochs}[sampling]
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # a cache: the order of each rank's last epoch

    def batch(self, rank: int, step: int) -> np.ndarray:
        """Return the indices of the samples of a mini-batch (batch_size,)."""
        return self._draw(rank, step)

    def _random(self, rank: int, step: int) -> np.ndarray:
        """Draw without replacement if the shard is large enough."""
        shard = self._shards[rank]
        random = generator(self._seed, Stream.BATCHES, rank, step)
        return shard[random.choice(len(shard), self._batch_size, replace=len(shard) < self._batch_size)]

    def _epochs(self, rank: int, step: int) -> np.ndarray:
        """Take the next samples in order; a batch may contain the end of one epoch and the start of the next."""
        size = len(self._shards[rank])
        start, end = step * self._batch_size, (step + 1) * self._batch_size
        pieces = []
        for epoch in range(start // size, (end - 1) // size + 1):
            first = epoch * size
            pieces.append(self._order(rank, epoch)[max(start - first, 0) : end - first])
        return np.concatenate(pieces)

    def _order(self, rank: int, epoch: int) -> np.ndarray:
        last, order = self._orders.get(rank, (-1, self._shards[rank]))
        if last != epoch:
            order = generator(self._seed, Stream.BATCHES, rank, epoch).permutation(self._shards[rank])
            self._orders[rank] = (epoch, order)
        return order
