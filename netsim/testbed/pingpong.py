"""Messages to and fro between ranks 0 and 1, over sizes: one text for real ranks and simulated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from netsim.comm.payload import VALUE_BYTES, Dense
from netsim.comm.worker import Worker

Clock = Callable[[], float]
SIZES = tuple(4 * 4**power for power in range(11))
"""Bytes of a message: 4 B to 4 MB, each four times the one before."""
WARM_UP = 2
FEWEST, MOST = 5, 41
"""Round trips at a size. With fewer the median says little; more are not worth their time."""
LEAST_SIZES = 3
"""Are measured whatever they take: fewer make no line."""
PAIR = (0, 1)


@dataclass(frozen=True, slots=True)
class Trips:
    """Of one size: seconds one way, of each round trip, and of those what packing and unpacking took, both hosts."""

    size: int
    one_way_s: tuple[float, ...]
    packing_s: tuple[float, ...]


async def ping_pong(
    worker: Worker, clock: Clock, packing: Clock, budget_s: float, sizes: Sequence[int] = SIZES
) -> list[Trips]:
    """Send messages of each size to and fro, for about `budget_s` in all; other ranks than 0 and 1 do nothing.

    Rank 0 tells rank 1 before each size how many round trips there will be, and stops where they would take
    too long; its answer counts. ``packing()`` is the time that this rank has spent on packing so far.
    """
    if worker.rank not in PAIR:
        return []
    found: list[Trips] = []
    left, medians = budget_s, [0.0]
    for number, size in enumerate(sizes):
        trips = await _told(worker, _planned(left / (len(sizes) - number), medians))
        if not trips:
            break
        began = clock()
        vector = Dense(torch.ones(max(1, size // VALUE_BYTES)))
        rows = [await _round_trip(worker, vector, clock, packing) for _ in range(WARM_UP + trips)][WARM_UP:]
        found.append(Trips(size, tuple(row[0] for row in rows), tuple(row[1] for row in rows)))
        left -= clock() - began
        medians.append(2 * median(found[-1].one_way_s))
    return found


def _planned(share_s: float, medians: list[float]) -> int:
    """Return how many round trips to make in `share_s`, 0 if too few; `medians` are those of smaller sizes, and zero.

    A trip of α + β n, and another of four times the bytes: the latter takes as much more as four times what
    the former took more than that of a quarter.
    """
    last = medians[-1]
    expected = last + 4 * max(0.0, last - medians[-2]) if len(medians) > LEAST_SIZES else last
    affordable = MOST if expected <= 0 else int(share_s / expected) - WARM_UP
    if len(medians) > LEAST_SIZES and affordable < FEWEST:
        return 0
    return max(FEWEST, min(MOST, affordable))


async def _told(worker: Worker, planned: int) -> int:
    """Return the number of round trips that rank 0 has planned, on both ranks."""
    number = Dense(torch.tensor([float(planned)]))
    if worker.rank == 0:
        await worker.send(1, number)
        return planned
    return int((await worker.recv(0, template=number)).values.item())


async def _round_trip(worker: Worker, vector: Dense, clock: Clock, packing: Clock) -> tuple[float, float]:
    """Return half of a round trip's seconds, and what this rank's packing and unpacking of it took."""
    began, packed = clock(), packing()
    if worker.rank == 0:
        await worker.send(1, vector)
        await worker.recv(1, template=vector)
    else:
        theirs = await worker.recv(0, template=vector)
        await worker.send(0, theirs)
    worker.step += 1
    return (clock() - began) / 2, packing() - packed
