"""A pipelined broadcast along a chain: chunks of a vector follow each other from rank to rank."""

from __future__ import annotations

import numpy as np

from netsim.comm.payload import Vector, concatenate, split
from netsim.comm.schedule import Pairs, Round, Rounds, Schedule, scheduled
from netsim.comm.worker import Worker


@scheduled
def chain_broadcast(worker: Worker, own: Vector | None, template: Vector, chunks: int = 8) -> Schedule[Vector]:
    """Return rank 0's vector everywhere: (P-2+m) (α + (d/m) β) for m chunks."""
    workers = worker.workers

    def step(number: int) -> Round:
        senders = np.arange(max(0, number - chunks + 1), min(number + 1, workers - 1))
        return Round(Pairs(senders, senders + 1), lambda src, dst: number - src)

    return Schedule(
        Rounds(workers - 2 + chunks if workers > 1 else 0, step),
        split(template if own is None else own, chunks),
        lambda held: concatenate(*held),
        holder=0,
        alike=False,
    )
