"""Pipelined collectives along the chain of ranks 0, 1, …, P-1, as NCCL broadcasts and reduces.

A vector of m slices passes through the chain slice by slice. Let a slice take t to drain, w slices be in flight, and
α be the latency. A chain then takes (P-1)(α + t) + (m-1) t if α ≤ (w-1) t. A vector in one piece takes (P-1)(α + m t).
"""

from __future__ import annotations

import functools

import numpy as np

from netsim.comm.collectives.pipeline import Pipeline, addition
from netsim.comm.payload import Vector, nbytes, split
from netsim.comm.schedule import LazyRounds, Pairs, Round, Schedule, scheduled
from netsim.comm.worker import Worker


@scheduled
def chain_broadcast(worker: Worker, vector: Vector, pipeline: Pipeline | None = None) -> Schedule[list[Vector]]:
    """Return rank 0's vector everywhere, in slices: (P-1)(α + d β), or pipelined.

    Parameters
    ----------
    vector
        The vector (d,) at rank 0; a template of it elsewhere.
    pipeline
        How the chain forwards; in one piece if None.
    """
    held, rounds, ahead = _chained(worker, vector, pipeline, upwards=True)
    return Schedule(rounds, held, list, holder=0, alike=False, ahead=ahead)


@scheduled
def chain_reduce(worker: Worker, vector: Vector, pipeline: Pipeline | None = None) -> Schedule[list[Vector] | None]:
    """Return the sum over workers at rank 0, in slices, and None elsewhere: (P-1)(α + d β), or pipelined.

    Every rank adds its own vector (d,) to what comes from the rank above it, and passes the sum on to the rank below.
    """
    held, rounds, ahead = _chained(worker, vector, pipeline, upwards=False)
    is_root = worker.rank == 0
    return Schedule(
        rounds,
        held,
        lambda held: list(held) if is_root else None,
        combine=addition(worker, len(held)),
        ahead=ahead,
    )


def _chained(
    worker: Worker, vector: Vector, pipeline: Pipeline | None, *, upwards: bool
) -> tuple[list[Vector], LazyRounds, int]:
    """Return the slices of a vector, the rounds of a chain, and how far ahead rounds are posted."""
    slices = 1 if pipeline is None else pipeline.slices(nbytes(vector))
    ahead = 0 if pipeline is None else pipeline.ahead(slices)
    return split(vector, slices), _links(worker.workers, slices, ahead + 1, upwards), ahead


@functools.lru_cache(maxsize=16)
def _links(workers: int, slices: int, window: int, upwards: bool) -> LazyRounds:
    """Return the rounds of a chain, in which the link number n carries slice i - n `window` in round i.

    A rank then has a slice `window` rounds before it passes that on: what it waits for before it posts the round.
    """

    def place(src: int, dst: int) -> int:
        """Return the number of a link from rank to rank, counted in the direction of the chain."""
        return src if upwards else workers - 1 - src

    def make(index: int) -> Round:
        first, last = max(0, -(-(index - slices + 1) // window)), min(workers - 2, index // window)
        return Round(_pairs(workers, first, last, upwards), lambda src, dst: index - window * place(src, dst))

    def of(rank: int) -> range:
        number = rank if upwards else workers - 1 - rank
        return range(max(0, number - 1) * window, min(workers - 2, number) * window + slices)

    return LazyRounds(slices + (workers - 2) * window, make, of) if workers > 1 else LazyRounds(0, make)


@functools.lru_cache(maxsize=256)
def _pairs(workers: int, first: int, last: int, upwards: bool) -> Pairs:
    """Return the links number `first` to `last` of a chain."""
    numbers = np.arange(first, last + 1)
    return Pairs(numbers, numbers + 1) if upwards else Pairs(workers - 1 - numbers, workers - 2 - numbers)
