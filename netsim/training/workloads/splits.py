"""How training samples are given to workers: every sample to exactly one, at least one to each.

Everything random is drawn with NumPy from the seed. To add a rule: a function below, and a line in SPLITS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from netsim._util.errors import InfeasibleError, UsageError, unknown
from netsim._util.random_streams import Stream, generator
from netsim._util.units import read_number

DIRICHLET, BY_CLASS, MIX = "dirichlet", "by-class", "mix"
BY_LABEL = (DIRICHLET, BY_CLASS)
"""Splits that look at the class of a sample."""

MOST_ALPHA = 1e6
"""Beyond this, workers' shares differ by less than a sample in a thousand."""


@dataclass(frozen=True, slots=True)
class Divisible:
    """What a split looks at: a class (n,) for each sample, None if labels are sequences, and its data set (n,)."""

    data: str
    count: int
    classes: np.ndarray | None
    part: np.ndarray | None


def parse_split(split: str) -> tuple[str, float | None]:
    """Return the rule's name and α, None for rules without one; raise UsageError for anything else."""
    name, colon, value = split.partition(":")
    if name not in SPLITS:
        raise unknown("split", name, [f"{DIRICHLET}:ALPHA" if known == DIRICHLET else known for known in SPLITS])
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
    """Return the sample numbers of each worker, ascending.

    Raises InfeasibleError if there are fewer samples than workers, or the rule needs what these samples
    do not have.
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
    """Give each class to workers in shares drawn from Dirichlet(α): the smaller α, the less alike workers are.

    As Hsu et al. (2019) and others draw it. Whoever is left without a sample gets one from whoever has
    the most then.
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
    """Line samples up by class, shuffled within a class, and cut the line into equal parts."""
    classes = _classes(samples, BY_CLASS)
    shuffled = random.permutation(samples.count)
    return np.array_split(shuffled[np.argsort(classes[shuffled], kind="stable")], workers)


def _mix(samples: Divisible, workers: int, random: np.random.Generator, alpha: float) -> list[np.ndarray]:
    """Give the first data set to workers 0, 2, 4 … and the second to 1, 3, 5 …, as in the SASG paper."""
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
