"""Collectives around a ring: every rank sends to the next and receives from the one before.

A ring may be *pipelined*: it forwards a chunk in slices, so that a rank passes a slice on while the next ones of the
chunk arrive. A chunk has m slices, of which w ≤ m are in flight. A slice takes t to drain, and the latency is α. If
α ≤ (w-1) t, P-1 steps take α + (P-1) m t: draining hides the latency of all steps but the first. Otherwise, every w
slices take α + t. The ring of textbooks (m = 1) takes (P-1)(α + t).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netsim.comm.collectives.pipeline import Pipeline, addition
from netsim.comm.payload import (
    SizeOnly,
    Vector,
    VectorT,
    concatenate,
    nbytes,
    rounded,
    split,
    split_entries,
    template_of,
    templates_of_parts,
    widened,
)
from netsim.comm.schedule import LazyRounds, Pairs, Repeated, Round, Schedule, scheduled, shift
from netsim.comm.worker import Worker, collective


@scheduled
def ring_reduce_scatter(worker: Worker, vector: Vector, pipeline: Pipeline | None = None) -> Schedule[list[Vector]]:
    """Return chunk `rank` of the sum over workers, in slices: (P-1)α + ((P-1)/P) d β, or pipelined.

    Chunk c starts at rank c+1 and travels once around the ring, each rank adding its own.
    """
    rank, workers = worker.rank, worker.workers
    slots, slices = _sliced(vector, workers, pipeline)
    return Schedule(
        _hops(workers, slices, 1),
        slots,
        lambda held: list(held[rank * slices : (rank + 1) * slices]),
        combine=addition(worker, slices),
        ahead=0 if pipeline is None else pipeline.ahead(slices),
    )


@scheduled
def ring_all_gather(
    worker: Worker,
    *own: VectorT,
    templates: list[VectorT] | None = None,
    pipeline: Pipeline | None = None,
    entries: int | None = None,
) -> Schedule[list[VectorT]]:
    """Return every worker's vector in rank order: (P-1)α + (P-1) d β for vectors of d elements, or pipelined.

    Parameters
    ----------
    own
        This rank's vector, whole or in slices; every rank has the same number of them.
    templates
        Templates of all ranks' slices in rank order, if the vectors differ in size.
    pipeline
        How many slices are in flight.
    entries
        The entries of all sparse vectors together. They are read without data only: each round then carries as many
        entries as any other, or one more, so that the messages of a rank have those of P-1 vectors of mean size.
    """
    rank, workers, slices = worker.rank, worker.workers, len(own)
    held: Sequence[VectorT]
    first: Any = own[0]
    if entries is not None and isinstance(first, SizeOnly):
        parts: list[Any] = split_entries(first.resized(first.size, entries), workers)
        return Schedule(_in_turn(workers), parts, list)
    if templates is not None:
        held = [*templates[: rank * slices], *own, *templates[(rank + 1) * slices :]]
    else:
        held = Repeated(own[0], workers) if slices == 1 else [*own] * workers
    return Schedule(
        _hops(workers, slices, 0),
        held,
        list,
        holder="each",
        alike=templates is None,
        ahead=0 if pipeline is None else pipeline.ahead(slices),
    )


@collective
async def ring_all_reduce(worker: Worker, vector: Vector, pipeline: Pipeline | None = None) -> Vector:
    """Return the sum over workers: 2(P-1)α + 2((P-1)/P) d β, or pipelined; the same bits in either case."""
    if worker.workers == 1:
        return vector
    reduced = await ring_reduce_scatter(worker, vector, pipeline)
    templates, _ = _sliced(vector, worker.workers, pipeline, templates_of_parts)
    slices = await ring_all_gather(worker, *reduced, templates=templates, pipeline=pipeline)
    return await worker.replicated("merge", concatenate, *slices)


@collective
async def ring_all_reduce_in_fp32(worker: Worker, vector: Vector, pipeline: Pipeline | None = None) -> Vector:
    """Return the sum over workers of vectors of 16-bit values, added in float32 and rounded once.

    Partial sums travel as float32, so that the reduce-scatter carries twice the bytes of the all-gather:
    2(P-1)α + 3((P-1)/P) d β, with β the time of a 16-bit value.
    """
    if worker.workers == 1:
        return vector
    wide = await worker.compute("update", widened, vector)
    reduced = await ring_reduce_scatter(worker, wide, pipeline)
    own = [await worker.compute("update", rounded, part, vector.precision) for part in reduced]
    slots, _ = _sliced(wide, worker.workers, pipeline, templates_of_parts)
    templates = [template_of(slot, vector.precision) for slot in slots]
    slices = await ring_all_gather(worker, *own, templates=templates, pipeline=pipeline)
    return await worker.replicated("merge", concatenate, *slices)


@collective
async def ring_reduce(worker: Worker, vector: Vector, pipeline: Pipeline | None = None) -> list[Vector] | None:
    """Return the sum over workers at rank 0, in chunks, and None elsewhere: as gloo does.

    The ring's reduce-scatter is followed by one message from every rank to rank 0: α + ((P-1)/P) d β more.
    """
    reduced = await ring_reduce_scatter(worker, vector, pipeline)
    chunk = reduced[0] if len(reduced) == 1 else await worker.compute("merge", concatenate, *reduced)
    return await _gather_chunks(worker, chunk, templates_of_parts(vector, worker.workers))


@scheduled
def _gather_chunks(worker: Worker, own: Vector, templates: list[Vector]) -> Schedule[list[Vector] | None]:
    """Return the chunks of all ranks at rank 0, and None elsewhere."""
    rank, workers = worker.rank, worker.workers
    others = np.arange(1, workers)
    rounds = [Round(Pairs(others, 0 * others), lambda src, dst: src)] if workers > 1 else []
    held = [*templates[:rank], own, *templates[rank + 1 :]]
    return Schedule(rounds, held, lambda held: list(held) if rank == 0 else None, holder="each", alike=False)


def _sliced(
    vector: Vector,
    workers: int,
    pipeline: Pipeline | None,
    cut: Callable[[Vector, int], list[Vector]] = split,
) -> tuple[list[Vector], int]:
    """Cut a vector into a chunk per worker, and every chunk into the same number of slices, which is returned too."""
    chunks = cut(vector, workers)
    slices = 1 if pipeline is None else pipeline.slices(nbytes(chunks[0]))
    if slices == 1:
        return chunks, 1
    return [each for chunk in chunks for each in cut(chunk, slices)], slices


@functools.lru_cache(maxsize=16)
@functools.lru_cache(maxsize=16)
def _in_turn(workers: int) -> LazyRounds:
    """Return P-1 rounds to the next rank, of which round s carries slot s + 1."""
    to_the_next = shift(workers, 1)

    def hop(index: int) -> Round:
        return Round(to_the_next, lambda src, dst: 0 * src + index + 1)

    return LazyRounds(workers - 1, hop, pairs=to_the_next, in_turn=True)


def _hops(workers: int, slices: int, behind: int) -> LazyRounds:
    """Return P-1 steps to the next rank, of one round a slice of a chunk.

    In the first step, rank r sends chunk r - `behind`; then the chunk that it received in the step before.
    """
    to_the_next = shift(workers, 1)

    def hop(index: int) -> Round:
        step, place = divmod(index, slices)
        return Round(to_the_next, lambda src, dst: (src - step - behind) * slices + place)

    return LazyRounds((workers - 1) * slices, hop, pairs=to_the_next)
