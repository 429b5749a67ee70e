"""The measurement of exchanges, as one rank makes it; all ranks start an exchange at the same instant."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from netsim._util.system import busy_share, processor_ticks
from netsim.comm.payload import Dense, Sparse, Vector
from netsim.comm.worker import Sends, Worker
from netsim.testbed.exchanges import EXCHANGES, SPREAD, shift
from netsim.testbed.simultaneous_start import SimultaneousStart, idle_until_all_done, rank_interpreter, sleep_until


class Span(NamedTuple):
    """The instants at which a rank began and ended an exchange, and the processors' ticks before and after it.

    The ticks (:func:`netsim._util.system.processor_ticks`) are read while all ranks are idle, because reading them
    takes as long as a small message.
    """

    began: float
    ended: float
    before: tuple[int, int]
    after: tuple[int, int]


class TimedExchange(NamedTuple):
    """Seconds of an exchange, ``seconds[repeat][rank]``, and the busy share of core time during the exchange.

    The share is that of the slowest rank's machine; None if the kernel does not report it.
    """

    seconds: list[list[float]]
    processors_busy: float | None


def vector_of(exchange: str, nbytes: int, rank: int, device: str = "cpu") -> Vector:
    """Return a rank's input of an exchange: its rank plus 1 everywhere, at evenly spread indices if sparse."""
    import torch

    template = EXCHANGES[exchange].size_only(nbytes)
    if template.entries is None:
        return Dense(torch.full((template.size,), float(rank + 1), device=device))
    indices = torch.arange(0, template.size, SPREAD, dtype=torch.int32)
    return Sparse(indices, torch.full((template.entries,), float(rank + 1)), template.size)


def measured_exchange(
    exchange: str,
    nbytes: int,
    sends: Sends,
    rank: int,
    repeats: int,
    start: SimultaneousStart,
    on_repeat: Callable[[int], None],
) -> TimedExchange:
    """Measure an exchange. A first repeat opens connections and is not counted.

    Times start when the last rank starts; the time of a single flow starts when both its sender and its receiver have
    started. If ranks share no clock, each rank's time starts with its own start.

    Parameters
    ----------
    exchange, nbytes, sends
        Name of the exchange, bytes of each rank's vector, and when a send is done.
    rank
        This rank.
    repeats
        Repeats that are counted.
    start
        Starts all ranks at one instant.
    on_repeat
        Called with the index of each repeat that is done.

    Raises
    ------
    NetsimError
        If the exchange's result is wrong.
    """
    import torch.distributed as dist

    spans: list[Span] = []
    longest = 0.0
    vector = vector_of(exchange, nbytes, rank, start.device)
    for repeat in range(-1, repeats):
        worker = Worker(rank, dist.get_world_size())
        worker.step = repeat + 1
        real = rank_interpreter(worker, start, sends)
        begin, before = start.agree(), processor_ticks()
        sleep_until(begin)
        began = time.monotonic()
        result = real.run(_program(exchange, worker, vector))
        ended = time.monotonic()
        idle_until_all_done(began, longest)
        spans.append(Span(began, ended, before, processor_ticks()))
        if repeat < 0:
            longest = start.maximum(spans[0].ended - began)
        check(exchange, result, rank, dist.get_world_size())
        on_repeat(repeat)
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, spans)
    source = EXCHANGES[exchange].source if start.hosts == 1 else lambda rank, _: rank
    counted = list(zip(*gathered, strict=True))[1:]
    seconds = [_seconds(by_rank, source) for by_rank in counted]
    slowest = [max(by_rank, key=lambda span: span.ended) for by_rank in counted]
    busy = busy_share(*((span.before, span.after) for span in slowest), seconds=sum(map(max, seconds)))
    return TimedExchange(seconds, busy)


def _seconds(spans: Sequence[Span], source: Callable[[int, int], int] | None) -> list[float]:
    """Return each rank's seconds since all ranks had begun; with `source`, since the rank and its source had begun."""
    begun = [span.began for span in spans]
    since = [
        max(begun) if source is None else max(begun[rank], begun[source(rank, len(spans))])
        for rank in range(len(spans))
    ]
    return [span.ended - began for span, began in zip(spans, since, strict=True)]


async def _program(exchange: str, worker: Worker, vector: Vector) -> Any:
    return await EXCHANGES[exchange].program(worker, vector)


def check(exchange: str, result: Any, rank: int, ranks: int) -> None:
    """Raise NetsimError unless a rank's result is right: the sum, all vectors, or the vector of one rank."""
    from netsim._util.errors import NetsimError

    inputs = [float(value) for value in range(1, ranks + 1)]
    expected: list[float] | None = {
        "ring-all-reduce": [sum(inputs)],
        "tree-all-reduce": [sum(inputs)],
        "all-gather": inputs,
        "gtopk-tree": [1.0],
        "ps-in": inputs if rank == 0 else None,
        "ps-out": [1.0],
        "permutation": [inputs[rank - shift(ranks)]],
    }[exchange]
    got = result if result is None or isinstance(result, list) else [result]
    if expected is None and got is None:
        return
    if expected is None or got is None or [_only_value(vector) for vector in got] != expected:
        raise NetsimError(f"rank {rank}: {exchange} gave a wrong result; expected {expected or 'none'}")


def _only_value(vector: Dense | Sparse) -> float | None:
    """Return the value that all entries have; None if they differ."""
    first = float(vector.values[0])
    return first if bool((vector.values == first).all()) else None
