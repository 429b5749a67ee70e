"""What a rank does to measure exchanges, which all ranks begin at one instant."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from netsim._util.system import busy_share, processor_ticks
from netsim.comm.payload import Dense, Sparse, Vector
from netsim.comm.worker import Sends, Worker
from netsim.testbed.exchanges import EXCHANGES, SPREAD
from netsim.testbed.simultaneous_start import SimultaneousStart, interpreter, keep_still, sleep_until


class Span(NamedTuple):
    """When a rank began and ended an exchange, and :func:`netsim._util.system.processor_ticks` before and after that.

    They are read while all keep still, before and after: reading them takes as long as a small message.
    """

    began: float
    ended: float
    before: tuple[int, int]
    after: tuple[int, int]


class TimedExchange(NamedTuple):
    """What an exchange took, ``seconds[repeat][rank]``, and how busy the processors of one machine were meanwhile.

    That is, of the machine of the rank that ended last.
    """

    seconds: list[list[float]]
    processors_busy: float | None


def vector_of(exchange: str, nbytes: int, rank: int, device: str = "cpu") -> Vector:
    """Return what a rank puts into an exchange: its own number everywhere, at evenly spread indices if sparse."""
    import torch

    template = EXCHANGES[exchange].size_only(nbytes)
    if template.entries is None:
        return Dense(torch.full((template.size,), float(rank + 1), device=device))
    indices = torch.arange(0, template.size, SPREAD, dtype=torch.int32, device=device)
    return Sparse(indices, torch.full((template.entries,), float(rank + 1), device=device), template.size)


def measured_exchange(
    exchange: str,
    nbytes: int,
    sends: Sends,
    rank: int,
    repeats: int,
    start: SimultaneousStart,
    on_repeat: Callable[[int], None],
) -> TimedExchange:
    """Return what each rank took, of every repeat; the first, which opens connections, is left out.

    They run from when the last rank began, and those of a flow from when its sender and its receiver had; with a
    clock for each host, from when the rank itself did.

    Raises NetsimError where an exchange of known vectors does not give what it must.
    """
    import torch.distributed as dist

    own: list[Span] = []
    longest = 0.0
    vector = vector_of(exchange, nbytes, rank, start.device)
    for repeat in range(-1, repeats):
        worker = Worker(rank, dist.get_world_size())
        worker.step = repeat + 1
        real = interpreter(worker, start, sends)
        begin, before = start.agreed(), processor_ticks()
        sleep_until(begin)
        began = time.monotonic()
        result = real.run(_program(exchange, worker, vector))
        ended = time.monotonic()
        keep_still(began, longest)
        own.append(Span(began, ended, before, processor_ticks()))
        if repeat < 0:
            longest = start.longest(own[0].ended - began)
        check(exchange, result, rank, dist.get_world_size())
        on_repeat(repeat)
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, own)
    source = EXCHANGES[exchange].source if start.hosts == 1 else lambda rank, _: rank
    timed = list(zip(*everyones, strict=True))[1:]
    seconds = [_seconds(ranks, source) for ranks in timed]
    last = [max(ranks, key=lambda span: span.ended) for ranks in timed]
    busy = busy_share(*((span.before, span.after) for span in last), seconds=sum(map(max, seconds)))
    return TimedExchange(seconds, busy)


def _seconds(ranks: Sequence[Span], source: Callable[[int, int], int] | None) -> list[float]:
    """Return what each rank took: since its source had begun, too, or since all had."""
    begun = [span.began for span in ranks]
    since = [
        max(begun) if source is None else max(begun[rank], begun[source(rank, len(ranks))])
        for rank in range(len(ranks))
    ]
    return [span.ended - began for span, began in zip(ranks, since, strict=True)]


async def _program(exchange: str, worker: Worker, vector: Vector) -> Any:
    return await EXCHANGES[exchange].program(worker, vector)


def check(exchange: str, result: Any, rank: int, ranks: int) -> None:
    """Raise NetsimError unless a rank got what the exchange owes it: sums, everybody's, or the first rank's."""
    from netsim._util.errors import NetsimError

    everyones = [float(number) for number in range(1, ranks + 1)]
    expected: list[float] | None = {
        "ring-all-reduce": [sum(everyones)],
        "tree-all-reduce": [sum(everyones)],
        "all-gather": everyones,
        "gtopk-tree": [1.0],
        "ps-in": everyones if rank == 0 else None,
        "ps-out": [1.0],
        "permutation": [everyones[rank - max(1, ranks // 2 - 1)]],
    }[exchange]
    got = result if result is None or isinstance(result, list) else [result]
    if expected is None and got is None:
        return
    if expected is None or got is None or [_only(vector) for vector in got] != expected:
        raise NetsimError(f"rank {rank}: {exchange} gave something else than the vectors that were put in make")


def _only(vector: Dense | Sparse) -> float | None:
    """Return the value that all entries have, None if they differ."""
    first = float(vector.values[0])
    return first if bool((vector.values == first).all()) else None
