"""What a rank does to measure what messages between two ranks cost, and what processors do for them: the points."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from netsim._util.system import busy_share, processor_ticks
from netsim.comm.payload import Dense, Sparse, Vector, add
from netsim.comm.worker import Worker
from netsim.testbed.exchanges import permutation
from netsim.testbed.host_model import AHEAD_S
from netsim.testbed.simultaneous_start import REST_S, SimultaneousStart, interpreter, keep_still, sleep_until

SMALL_BYTES = 4
MERGED_BYTES = 2 * 10**6
CROWD_PART = 25
"""Of the large message, in a crowd: some 4 ms of the link."""
STILL_S = 0.2
"""For so long all keep still, for what processors do besides."""


def points(
    rank: int, start: SimultaneousStart, large_bytes: int, repeats: int = 4, *, warm_up: bool = False
) -> dict[str, Any]:
    """Measure what messages between two ranks cost, and adding vectors; the same answer on every rank, in seconds.

    ``small_s``: a small message to the next rank, which waits for it, after a while of stillness; ``large_s``: one of
    `large_bytes`; both of another sender each time, since it matters which processors two ranks are on;
    ``busy_s``: a small one of many to and fro without a pause. With `warm_up` as many go before those that count.

    What processors do where all ranks want them: ``crowd_s``: a small message of many without a pause, each rank's to
    another; ``crowd_some_s``: one of `crowd_some_bytes`; ``crowd_work_s`` and ``crowd_some_work_s`` of the processors
    for these; ``crowd_merge_s``: one with small vectors to add after it; ``crowd_header_s``: one whose size only its
    sender knows. ``merge_s``: adding small vectors when one has just come, after a short while of stillness.
    """
    import torch
    import torch.distributed as dist

    some_bytes = max(SMALL_BYTES, large_bytes // CROWD_PART)
    small, some, large = (
        Dense(torch.ones(nbytes // 4, device=start.device)) for nbytes in (SMALL_BYTES, some_bytes, large_bytes)
    )
    sparse = Sparse(torch.zeros(1, dtype=torch.int32, device=start.device), small.values, 1)
    own = [_messages(rank, start, vector, repeats, warm_up=warm_up) for vector in (small, large)]
    busy, still = _to_and_fro(rank, start), _still_share(start)
    crowds = [
        _in_a_crowd(rank, start, still, small),
        _in_a_crowd(rank, start, still, some, messages=50),
        _in_a_crowd(rank, start, still, small, merging=True),
        _in_a_crowd(rank, start, still, sparse),
    ]
    merging = [_merging(rank, start, nbytes) if rank == 0 else 0.0 for nbytes in (SMALL_BYTES, MERGED_BYTES)]
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, (own, crowds, busy, merging))
    messages, ranks_crowds, ranks_busy, ranks_merging = zip(*everyones, strict=True)
    smalls, larges = zip(*messages, strict=True)
    adding = [message.adding_s for one in smalls for message in one if message.adding_s is not None]
    crowd, crowd_some, crowd_merging, crowd_sparse = map(_median, zip(*ranks_crowds, strict=True))
    merge_small_s, merge_large_s = ranks_merging[0]
    return {
        "small_s": statistics.median(_times(smalls, start.hosts)),
        "large_s": statistics.median(_times(larges, start.hosts)),
        "busy_s": ranks_busy[0],
        "crowd_s": crowd.seconds,
        "crowd_work_s": crowd.processors_s,
        "crowd_some_s": crowd_some.seconds,
        "crowd_some_work_s": crowd_some.processors_s,
        "crowd_some_bytes": some_bytes,
        "crowd_merge_s": crowd_merging.seconds,
        "crowd_header_s": crowd_sparse.seconds,
        "large_bytes": large_bytes,
        "ranks": dist.get_world_size(),
        "hosts": start.hosts,
        "still_s": AHEAD_S,
        "rest_s": REST_S,
        "merge_s": statistics.median(adding),
        "merge_s_per_byte": max(0.0, merge_large_s - merge_small_s) / (2 * MERGED_BYTES),
    }


class MessageTiming(NamedTuple):
    """What a rank saw of a message, by its own clock: when it should begin, and when it sent and had received it.

    `adding_s` is what adding it then took, where the receiver did.
    """

    due: float
    began: float
    received: float | None = None
    src: int = 0
    adding_s: float | None = None


def _times(everyones: Sequence[Sequence[MessageTiming]], hosts: int) -> list[float]:
    """Return the seconds that the message of each repeat took; ``everyones[rank][repeat]``.

    They count from when its sender began, or should have, by another host's clock.
    """
    times = []
    for messages in zip(*everyones, strict=True):
        received, message = next((each.received, each) for each in messages if each.received is not None)
        times.append(received - (messages[message.src].began if hosts == 1 else message.due))
    return times


def _messages(
    rank: int, start: SimultaneousStart, vector: Vector, repeats: int, *, warm_up: bool = False
) -> list[MessageTiming]:
    """Have a message go from a rank to the next, from another one each time.

    The first is not counted, which tells how long all keep still for one, nor with `warm_up` as many as count, which
    use connections: the first message on one takes longer.
    """
    import torch.distributed as dist

    ranks = dist.get_world_size()
    apart = max(1, ranks // repeats)
    found, longest = [], 0.0
    for repeat in range(-repeats if warm_up else -1, repeats):
        message = _message(rank, repeat * apart % ranks, start, vector)
        keep_still(message.due, longest)
        longest = longest or start.longest(0.0 if message.received is None else message.received - message.due)
        found.append(message)
    return found[-repeats:]


def _message(rank: int, src: int, start: SimultaneousStart, vector: Vector) -> MessageTiming:
    """Have a message go from `src` to the rank after it, which waits for it and adds it, after all kept still."""
    import torch.distributed as dist

    due = start.agreed()
    worker = Worker(rank, dist.get_world_size())
    dst = (src + 1) % worker.workers
    if rank not in (src, dst):
        return MessageTiming(due, due)

    async def program(worker: Worker) -> MessageTiming:
        receiving = await worker.start_recv(src, template=vector) if rank == dst else None
        sleep_until(due)
        began = time.monotonic()
        if receiving is None:
            await worker.send(dst, vector)
            return MessageTiming(due, began)
        theirs = await receiving
        received = time.monotonic()
        await worker.compute("merge", add, theirs, vector)
        return MessageTiming(due, began, received, src, time.monotonic() - received)

    return interpreter(worker, start).run(program(worker))


def _to_and_fro(rank: int, start: SimultaneousStart) -> float:
    """Return the seconds of a small message between ranks 0 and 1 which both have just been busy with the last one."""
    import torch.distributed as dist

    from netsim.testbed.pingpong import ping_pong

    start.together()
    worker = Worker(rank, dist.get_world_size())
    trips = interpreter(worker, start).run(ping_pong(worker, time.monotonic, lambda: 0.0, 1.0, [SMALL_BYTES]))
    return statistics.median(trips[0].one_way_s) if trips else 0.0


class Crowd(NamedTuple):
    """What a message took while all ranks sent one after another: seconds, and processors' seconds if one machine's."""

    seconds: float
    processors_s: float | None


def _median(crowds: Sequence[Crowd]) -> Crowd:
    worked = [crowd.processors_s for crowd in crowds if crowd.processors_s is not None]
    return Crowd(statistics.median(crowd.seconds for crowd in crowds), statistics.median(worked) if worked else None)


def _still_share(start: SimultaneousStart) -> float | None:
    """Return what part of the processors' time is used while all ranks keep still."""
    start.together()
    before = processor_ticks()
    time.sleep(STILL_S)
    return busy_share((before, processor_ticks()))


def _in_a_crowd(
    rank: int,
    start: SimultaneousStart,
    still: float | None,
    vector: Vector,
    messages: int = 100,
    *,
    merging: bool = False,
) -> Crowd:
    """Have each rank send a vector again and again to one rank and receive from another, and add those if `merging`.

    A quarter as many before those are not counted: some begin late. Nor is `still`, what processors do besides.
    """
    import torch.distributed as dist

    ranks = dist.get_world_size()

    async def send(worker: Worker, messages: int) -> None:
        for _ in range(messages):
            theirs = await permutation(worker, vector)
            if merging:
                await worker.compute("merge", add, theirs, vector)

    async def program(worker: Worker) -> tuple[float, float | None]:
        await send(worker, messages // 4)
        before, began = processor_ticks(), time.monotonic()
        await send(worker, messages)
        return time.monotonic() - began, busy_share((before, processor_ticks()))

    start.together()
    worker = Worker(rank, ranks)
    took, busy = interpreter(worker, start).run(program(worker))
    if busy is None or still is None or start.hosts > 1:
        return Crowd(took / messages, None)
    processors_s = (busy - still) * (os.cpu_count() or 1) * took / (messages * ranks)
    return Crowd(took / messages, processors_s)


def _merging(rank: int, start: SimultaneousStart, nbytes: int, repeats: int = 9) -> float:
    """Return the seconds that adding two vectors of `nbytes` takes after something else was in the cache."""
    import torch
    import torch.distributed as dist

    vector, other = Dense(torch.ones(nbytes // 4)), torch.ones(8 * 10**6)

    async def program(worker: Worker) -> float:
        samples = []
        for _ in range(repeats):
            other.mul_(1.0)
            time.sleep(0.002)
            began = time.monotonic()
            kept = await worker.compute("merge", add, vector, vector)
            samples.append(time.monotonic() - began)
            del kept
        return statistics.median(samples[2:])

    worker = Worker(rank, dist.get_world_size())
    return interpreter(worker, start).run(program(worker))
