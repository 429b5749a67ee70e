"""The samples that a worker trains on: its share of the data set, and the mini-batch of each step.

A split divides the samples among workers. Every sample belongs to exactly one worker, and every worker has at least
one. A mini-batch is a function of (seed, rank, step). Random numbers come from NumPy and the seed. To add a split: a
function below, and a line in SPLITS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from netsim._util.errors import InfeasibleError, UsageError, unknown
from netsim._util.random_streams import Stream, generator
from netsim._util.units import read_number

DIRICHLET, BY_CLASS, MIX = "dirichlet", "by-class", "mix"
BY_LABEL = (DIRICHLET, BY_CLASS)
"""Splits that depend on the class of a sample."""

MOST_ALPHA = 1e6
"""Greatest α; beyond it, the shares of workers differ by less than a thousandth."""

RANDOM, EPOCHS = "random", "epochs"
SAMPLINGS = (RANDOM, EPOCHS)
"""Independent random batches; or the shard in a new random order in each epoch, without repetition within it."""


@dataclass(frozen=True, slots=True)
class Divisible:
    """The input of a split: the class of each sample (n,), None for sequences, and its data set (n,)."""

    data: str
    count: int
    classes: np.ndarray | None
    part: np.ndarray | None


def parse_split(split: str) -> tuple[str, float | None]:
    """Return the name of a rule and its α, None for rules without α; raise UsageError for any other text."""
    name, colon, value = split.partition(":")
    if name not in SPLITS:
        raise unknown("split", name, [f"{DIRICHLET}:ALPHA" if rule == DIRICHLET else rule for rule in SPLITS])
    if name != DIRICHLET:
        if colon:
            raise UsageError(f"split {split!r}: {name} takes no value")
        return name, None
    alpha = read_number(value)
    if alpha is None or not 0 < alpha <= MOST_ALPHA:
        raise UsageError(
            f"split {split!r} must be dirichlet:ALPHA with 0 < ALPHA <= {MOST_ALPHA:g}, such as dirichlet:0.5"
        )
    return name, alpha


def divide(samples: Divisible, workers: int, split: str, seed: int) -> list[np.ndarray]:
    """Return the indices of the samples of each worker, ascending.

    Raises
    ------
    UsageError
        If the rule needs classes or two data sets, and the samples have none.
    InfeasibleError
        If there are fewer samples than workers.
    """
    name, alpha = parse_split(split)
    if workers > samples.count:
        raise InfeasibleError(
            f"{workers} workers but {samples.data} has {samples.count} training samples: "
            f"use at most {samples.count} workers, or --timing-only, which needs no data"
        )
    shards = SPLITS[name](samples, workers, generator(seed, Stream.SPLIT), alpha or 0.0)
    return [np.sort(shard) for shard in shards]


def _iid(samples: Divisible, workers: int, random: np.random.Generator, alpha: float) -> list[np.ndarray]:
    """Shuffle all samples, and cut them into equal parts."""
    return np.array_split(random.permutation(samples.count), workers)


def _dirichlet(samples: Divisible, workers: int, random: np.random.Generator, alpha: float) -> list[np.ndarray]:
    """Divide each class among workers in shares drawn from Dirichlet(α) (Hsu et al. 2019).

    A smaller α makes the data of workers more different. A worker without samples gets one from the worker with most.
    """
    classes = _classes(samples, DIRICHLET)
    shares: list[list[np.ndarray]] = [[] for _ in range(workers)]
    for label in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == label))
        bounds = np.cumsum(random.dirichlet(np.full(workers, alpha)))[:-1]
        for share, piece in zip(shares, np.split(members, np.rint(bounds * len(members)).astype(int)), strict=True):
            share.append(piece)
    shards = [np.concatenate(share) for share in shares]
    for empty in (worker for worker in range(workers) if not len(shards[worker])):
        richest = max(range(workers), key=lambda worker: len(shards[worker]))
        shards[empty], shards[richest] = shards[richest][:1], shards[richest][1:]
    return shards


def _by_class(samples: Divisible, workers: int, random: np.random.Generator, alpha: float) -> list[np.ndarray]:
    """Sort samples by class, in random order within a class, and cut the sequence into equal parts."""
    classes = _classes(samples, BY_CLASS)
    shuffled = random.permutation(samples.count)
    return np.array_split(shuffled[np.argsort(classes[shuffled], kind="stable")], workers)


def _mix(samples: Divisible, workers: int, random: np.random.Generator, alpha: float) -> list[np.ndarray]:
    """Divide the first data set among workers 0, 2, 4 … and the second among 1, 3, 5 …, as in the SASG paper."""
    if samples.part is None:
        raise UsageError(f"split mix needs two data sets, such as --data cifar10+mnist; {samples.data} has one")
    if workers < 2:
        raise InfeasibleError("split mix needs at least 2 workers, one for each data set")
    shards: list[np.ndarray] = [np.empty(0, int)] * workers
    for part in (0, 1):
        members = np.flatnonzero(samples.part == part)
        ranks = range(part, workers, 2)
        if len(members) < len(ranks):
            raise InfeasibleError(f"{len(ranks)} workers share a data set of {len(members)} samples; use fewer workers")
        for rank, shard in zip(ranks, np.array_split(random.permutation(members), len(ranks)), strict=True):
            shards[rank] = shard
    return shards


def _classes(samples: Divisible, split: str) -> np.ndarray:
    if samples.classes is None:
        raise UsageError(f"split {split} needs a class for each sample; {samples.data} is sequences: use --split iid")
    return samples.classes


SPLITS: dict[str, Callable[[Divisible, int, np.random.Generator, float], list[np.ndarray]]] = {
    "iid": _iid,
    DIRICHLET: _dirichlet,
    BY_CLASS: _by_class,
    MIX: _mix,
}


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
