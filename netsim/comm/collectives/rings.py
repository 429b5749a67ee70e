"""Collectives around a ring: every rank sends to the next and receives from the one before."""

from __future__ import annotations

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.payload import Payload, SizeOnly, Vector, VectorT, add, concatenate, split
from netsim.comm.schedule import Pairs, PerRole, PostCompute, RoleMap, Round, Rounds, Schedule, schedule_of, size_of
from netsim.comm.worker import Compute, Worker, collective


@collective
async def ring_reduce_scatter(worker: Worker, vector: Vector) -> Vector:
    """Return chunk `rank` of the sum over workers: (P-1)α + ((P-1)/P) d β.

    Chunk c starts at rank c+1 and travels once around the ring, each rank adding its own.
    """
    rank, workers = worker.rank, worker.workers
    chunks = split(vector, workers)
    partial = chunks[(rank - 1) % workers]
    for hop in range(2, workers + 1):
        own = chunks[(rank - hop) % workers]
        theirs = await worker.sendrecv((rank + 1) % workers, partial, (rank - 1) % workers, template=own)
        partial = await worker.compute("merge", add, theirs, own)
    return partial


@schedule_of(ring_reduce_scatter)
def _reduce_scatter(world: RoleMap, vector: PerRole[Vector]) -> Schedule:
    workers = world.workers
    chunks = split(_vector(world, vector), workers)
    sizes, which = _kinds(chunks)
    around = np.concatenate([which, which])  # around[r + P - h] is that of rank r - h
    to_the_right = _ring(workers)

    def hop(number: int) -> Round:
        sent, own = (around[workers - behind :][:workers] for behind in (number + 1, number + 2))
        return Round(to_the_right, sizes, sent, PostCompute(to_the_right.src, own))

    templates = [SizeOnly(int(values) // 4) for values, _, _ in sizes.tolist()]
    adding = [[Compute("merge", add, (template, template))] for template in templates]
    return Schedule(Rounds(workers - 1, hop), [chunks[rank] for rank in world.representatives], adding)


@collective
async def ring_all_gather(worker: Worker, own: VectorT, templates: list[VectorT] | None = None) -> list[VectorT]:
    """Return every worker's vector in rank order: (P-1)α + (P-1) d β for vectors of d elements.

    `templates` are examples of what each rank sends, where they differ in size.
    """
    rank, workers = worker.rank, worker.workers
    gathered = [own] * workers
    for hop in range(1, workers):
        passed_on = gathered[(rank - hop + 1) % workers]
        source = (rank - hop) % workers
        template = own if templates is None else templates[source]
        gathered[source] = await worker.sendrecv(
            (rank + 1) % workers, passed_on, (rank - 1) % workers, template=template
        )
    return gathered


@schedule_of(ring_all_gather)
def _all_gather(
    world: RoleMap, own: PerRole[Vector], templates: PerRole[list[Vector] | None] | None = None
) -> Schedule:
    workers = world.workers
    alike = None if templates is None else templates[0]
    everyones = [world.alike(own)] * workers if alike is None else alike
    sizes, which = (world.sizes(own)[0][:1], np.zeros(workers, np.int64)) if alike is None else _kinds(alike)
    around = np.concatenate([which, which])
    to_the_right = _ring(workers)

    def hop(number: int) -> Round:
        return Round(to_the_right, sizes, around[workers - number :][:workers])

    return Schedule(Rounds(workers - 1, hop), world.everywhere(everyones))


@collective
async def ring_all_reduce(worker: Worker, vector: Vector) -> Vector:
    """Return the sum over workers: 2(P-1)α + 2((P-1)/P) d β."""
    if worker.workers == 1:
        return vector
    reduced = await ring_reduce_scatter(worker, vector)
    chunks = await ring_all_gather(worker, reduced, split(vector, worker.workers))
    return await worker.replicated("merge", concatenate, *chunks)


def _ring(workers: int) -> Pairs:
    ranks = np.arange(workers)
    return Pairs(ranks, (ranks + 1) % workers)


def _kinds(payloads: list[Vector]) -> tuple[IntArray, IntArray]:
    """Return the different sizes there are, and which of them each payload has."""
    kinds: dict[tuple[int, int, int], int] = {}
    which = np.array([kinds.setdefault(size_of(payload), len(kinds)) for payload in payloads])
    return np.array(list(kinds)), which


def _vector(world: RoleMap, vectors: PerRole[Vector]) -> Vector:
    vector: Payload = world.alike(vectors)
    assert isinstance(vector, SizeOnly)
    return vector
