"""Collectives around a ring: every rank sends to the next and receives from the one before."""

from __future__ import annotations

import functools

from netsim.comm.payload import Vector, VectorT, add, concatenate, split
from netsim.comm.schedule import LazyRounds, Repeated, Round, Schedule, scheduled, shift
from netsim.comm.worker import Compute, Worker, collective


@scheduled
def ring_reduce_scatter(worker: Worker, vector: Vector) -> Schedule[Vector]:
    """Return chunk `rank` of the sum over workers: (P-1)α + ((P-1)/P) d β.

    Chunk c starts at rank c+1 and travels once around the ring, each rank adding its own.
    """
    rank, workers = worker.rank, worker.workers

    def add_own(own: Vector, theirs: Vector) -> Compute[Vector]:
        return worker.compute("merge", add, theirs, own)

    return Schedule(_hops(workers, 1), split(vector, workers), lambda held: held[rank], combine=add_own)


@scheduled
def ring_all_gather(worker: Worker, own: VectorT, templates: list[VectorT] | None = None) -> Schedule[list[VectorT]]:
    """Return every worker's vector in rank order: (P-1)α + (P-1) d β for vectors of d elements.

    `templates` holds a template of each rank's vector, if the vectors differ in size.
    """
    rank, workers = worker.rank, worker.workers
    held = Repeated(own, workers) if templates is None else [*templates[:rank], own, *templates[rank + 1 :]]
    return Schedule(_hops(workers, 0), held, list, holder="each", alike=templates is None)


@collective
async def ring_all_reduce(worker: Worker, vector: Vector) -> Vector:
    """Return the sum over workers: 2(P-1)α + 2((P-1)/P) d β."""
    if worker.workers == 1:
        return vector
    reduced = await ring_reduce_scatter(worker, vector)
    chunks = await ring_all_gather(worker, reduced, split(vector, worker.workers))
    return await worker.replicated("merge", concatenate, *chunks)


@functools.lru_cache(maxsize=16)
def _hops(workers: int, behind: int) -> LazyRounds:
    """Return P-1 rounds to the next rank. In the first, rank r sends slot r - `behind`; then the slot it received."""
    to_the_next = shift(workers, 1)
    return LazyRounds(workers - 1, lambda number: Round(to_the_next, lambda src, dst: src - number - behind))
