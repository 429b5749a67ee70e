"""Messages to and fro between ranks 0 and 1, over sizes; real and simulated ranks run the same program."""

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
"""Bounds for the round trips at a size: fewer make no reliable median, more add nothing."""
LEAST_SIZES = 3
"""Number of sizes that are measured however long they take, since fewer make no line."""
PAIR = (0, 1)


@dataclass(frozen=True, slots=True)
class Trips:
    """Round trips of one size in bytes: seconds one way of each, and those for packing and unpacking on both hosts."""

    size: int
    one_way_s: tuple[float, ...]
    packing_s: tuple[float, ...]


async def ping_pong(
    worker: Worker, clock: Clock, packing: Clock, budget_s: float, sizes: Sequence[int] = SIZES
) -> list[Trips]:
    """Send messages of each size to and fro; ranks other than 0 and 1 do nothing.

    Rank 0 tells rank 1 before each size how many round trips follow, and stops before a size that would take too long.

    Parameters
    ----------
    worker
        This rank's worker.
    clock
        Returns the time in seconds.
    packing
        Returns the seconds that this rank has spent on packing so far.
    budget_s
        About how many seconds all sizes may take.
    sizes
        Payloads in bytes, ascending.

    Returns
    -------
    list of Trips
        On rank 0 the times that count.
    """
    if worker.rank not in PAIR:
        return []
    measured: list[Trips] = []
    left, medians = budget_s, [0.0]
    for index, size in enumerate(sizes):
        trips = await _agreed(worker, _planned(left / (len(sizes) - index), medians))
        if not trips:
            break
        began = clock()
        vector = Dense(torch.ones(max(1, size // VALUE_BYTES)))
        rows = [await _round_trip(worker, vector, clock, packing) for _ in range(WARM_UP + trips)][WARM_UP:]
        measured.append(Trips(size, tuple(row[0] for row in rows), tuple(row[1] for row in rows)))
        left -= clock() - began
        medians.append(2 * median(measured[-1].one_way_s))
    return measured


def _planned(share_s: float, medians: list[float]) -> int:
    """Return how many round trips fit into `share_s`; 0 if they are too few.

    `medians` are zero and the medians of all smaller sizes, each of four times the bytes of the one before. A trip
    takes α + β n, so from size to size the increase grows fourfold.
    """
    last = medians[-1]
    expected = last + 4 * max(0.0, last - medians[-2]) if len(medians) > LEAST_SIZES else last
    affordable = MOST if expected <= 0 else int(share_s / expected) - WARM_UP
    if len(medians) > LEAST_SIZES and affordable < FEWEST:
        return 0
    return max(FEWEST, min(MOST, affordable))


async def _agreed(worker: Worker, planned: int) -> int:
    """Return on both ranks the number of round trips that rank 0 has planned."""
    message = Dense(torch.tensor([float(planned)]))
    if worker.rank == 0:
        await worker.send(1, message)
        return planned
    return int((await worker.recv(0, template=message)).values.item())


async def _round_trip(worker: Worker, vector: Dense, clock: Clock, packing: Clock) -> tuple[float, float]:
    """Return half of a round trip's seconds, and the seconds of packing and unpacking on this rank."""
    began, packed_before = clock(), packing()
    if worker.rank == 0:
        await worker.send(1, vector)
        await worker.recv(1, template=vector)
    else:
        theirs = await worker.recv(0, template=vector)
        await worker.send(0, theirs)
    worker.step += 1
    return (clock() - began) / 2, packing() - packed_before
