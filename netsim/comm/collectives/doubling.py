"""Recursive doubling: what a rank holds doubles in every round."""

from __future__ import annotations

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.payload import Bundle, Flag, Payload, Vector, VectorT
from netsim.comm.schedule import Pairs, PerRole, RoleMap, Round, Schedule, schedule_of, size_of
from netsim.comm.worker import Worker, collective


@collective
async def doubling_all_gather(worker: Worker, own: VectorT) -> list[VectorT]:
    """Return every worker's vector in rank order, by recursive doubling: log₂P α + (P-1) d β.

    When P is not a power of two, the ranks above the largest one below P first hand theirs to a
    partner, and receive the whole at the end.
    """
    rank, workers = worker.rank, worker.workers
    core = 1 << (workers.bit_length() - 1)
    if rank >= core:
        await worker.send(rank - core, Bundle((own,)))
        everything = await worker.recv(rank - core, template=Bundle((own,) * workers))
        return list(everything.parts)  # type: ignore[arg-type]
    held: dict[int, Vector] = {rank: own}
    if rank + core < workers:
        (held[rank + core],) = _vectors(await worker.recv(rank + core, template=Bundle((own,))))
    distance = 1
    while distance < core:
        partner = rank ^ distance
        mine = Bundle(tuple(held[source] for source in sorted(held)))
        block = range(partner & -distance, (partner & -distance) + distance)
        sources = sorted([*block, *(source + core for source in block if source + core < workers)])
        theirs = await worker.sendrecv(partner, mine, partner, template=Bundle((own,) * len(sources)))
        held |= zip(sources, _vectors(theirs), strict=True)
        distance *= 2
    gathered = [held[source] for source in range(workers)]
    if rank + core < workers:
        await worker.send(rank + core, Bundle(tuple(gathered)))
    return gathered  # type: ignore[return-value]


@schedule_of(doubling_all_gather)
def _doubling(world: RoleMap, own: PerRole[Vector]) -> Schedule:
    workers = world.workers
    core = 1 << (workers.bit_length() - 1)
    alike = world.alike(own)
    ranks, others = np.arange(core), np.arange(core, workers)
    rounds = []
    if len(others):
        rounds.append(_messages(others, others - core, alike, np.ones(len(others), np.int64)))
    distance = 1
    while distance < core:
        first = ranks & -distance
        held = distance + np.clip(workers - core - first, 0, distance)
        rounds.append(_messages(ranks, ranks ^ distance, alike, held))
        distance *= 2
    if len(others):
        rounds.append(_messages(others - core, others, alike, np.full(len(others), workers)))
    return Schedule(rounds, world.everywhere([alike] * workers))


def _messages(src: IntArray, dst: IntArray, payload: Payload, copies: IntArray) -> Round:
    """Return a round of bundles of so many vectors."""
    different, which = np.unique(copies, return_inverse=True)
    return Round(Pairs(src, dst), np.outer(different, size_of(payload)), which)


def _vectors(bundle: Bundle) -> list[Vector]:
    return [part for part in bundle.parts if not isinstance(part, Flag)]
