"""The steps of recursive doubling among any number of ranks: the largest power of two of them, the *core*, and others.

A rank beyond the core folds what it has into a rank of the core, and receives the result from it in the end.
"""

from __future__ import annotations

import functools

import numpy as np

from netsim.comm.payload import PayloadT
from netsim.comm.schedule import Pairs, Repeated, Round, Schedule, scheduled
from netsim.comm.worker import Worker


@scheduled
def swap(worker: Worker, own: PayloadT, distance: int, core: int) -> Schedule[list[PayloadT]]:
    """Return the payloads of this rank and of the rank at `distance`, a power of two, the lower rank's first: α + d β.

    Ranks from `core` on do not take part, and get their own payload twice.
    """
    rank = worker.rank
    other = rank ^ distance if rank < core else rank
    lower, upper = min(rank, other), max(rank, other)
    rounds = [Round(_across(core, distance), lambda src, dst: src)]
    return Schedule(rounds, Repeated(own, worker.workers), lambda held: [held[lower], held[upper]], holder="each")


@scheduled
def fold(worker: Worker, own: PayloadT, core: int) -> Schedule[list[PayloadT]]:
    """Return this rank's payload and that of the rank `core` further, where there is such a rank: α + d β."""
    rank, workers = worker.rank, worker.workers
    rounds = [Round(_beyond(core, workers), lambda src, dst: src)]
    places = [rank, rank + core] if rank + core < workers else [rank]
    return Schedule(rounds, Repeated(own, workers), lambda held: [held[place] for place in places], holder="each")


@scheduled
def unfold(worker: Worker, own: PayloadT, core: int) -> Schedule[PayloadT]:
    """Return this rank's payload, and from `core` on that of the rank `core` before: α + d β."""
    rank, workers = worker.rank, worker.workers
    place = rank if rank < core else rank - core
    rounds = [Round(_beyond(core, workers).reversed, lambda src, dst: src)]
    return Schedule(rounds, Repeated(own, workers), lambda held: held[place], holder="each")


@functools.lru_cache(maxsize=32)
def _across(core: int, distance: int) -> Pairs:
    ranks = np.arange(core)
    return Pairs(ranks, ranks ^ distance)


@functools.lru_cache(maxsize=16)
def _beyond(core: int, workers: int) -> Pairs:
    ranks = np.arange(core, workers)
    return Pairs(ranks, ranks - core)
