"""Exchanges in which every rank has a part of its own for every other rank, and sends it directly."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from netsim.comm.payload import VectorT
from netsim.comm.schedule import LazyRounds, Round, Schedule, scheduled, shift
from netsim.comm.worker import Worker


@scheduled
def all_to_all(worker: Worker, parts: Sequence[VectorT], by_distance: bool = False) -> Schedule[list[VectorT]]:
    """Return the part of each rank for this one, in rank order: (P-1)(α + m β) for parts of m elements.

    In round s, rank r sends to rank r + s (modulo P), so that no rank receives two parts at once.

    Parameters
    ----------
    worker
        The rank.
    parts
        The part for each rank, in rank order. Slot s holds what is sent in round s, and then what has arrived.
    by_distance
        Whether part s is for rank r + s (modulo P) instead. Without data, parts that differ in size must come so.
    """
    rank, workers = worker.rank, worker.workers
    held = list(parts) if by_distance else [parts[(rank + distance) % workers] for distance in range(workers)]
    return Schedule(
        _distances(workers), held, lambda held: [held[(rank - source) % workers] for source in range(workers)]
    )


@functools.lru_cache(maxsize=16)
def _distances(workers: int) -> LazyRounds:
    def at_distance(number: int) -> Round:
        return Round(shift(workers, number + 1), lambda src, dst: 0 * src + number + 1)

    return LazyRounds(workers - 1, at_distance, in_turn=True)
