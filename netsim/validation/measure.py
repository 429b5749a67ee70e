"""What a rank does to be measured: point-to-point messages, and exchanges that all ranks begin at one instant."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from netsim.backends.kernel import AHEAD_S, COLD_S, WARM_S
from netsim.payload import Dense, Sparse, Vector, add
from netsim.system import busy_share, processor_ticks
from netsim.validation.exchanges import EXCHANGES, SPREAD, shift
from netsim.worker import Sends, Worker

if TYPE_CHECKING:
    from netsim.backends.real import Real

OnRound = Callable[[str, int], None]


class Span(NamedTuple):
    """When a rank began and ended an exchange, and what :func:`netsim.system.processor_ticks` said then."""

    began: float
    ended: float
    before: tuple[int, int]
    after: tuple[int, int]


class Timed(NamedTuple):
    """What an exchange took, ``seconds[repeat][rank]``, and how busy the processors of one machine were.

    That is, of the machine of the rank that ended last, from when it began.
    """

    seconds: list[list[float]]
    processors_busy: float | None


class Start:
    """Lets all ranks begin at once: at an instant of the clock that they share, or as they leave a barrier.

    `hosts` is how many machines they are on, `device` what this rank's vectors are on.
    """

    def __init__(self, backend: str = "gloo") -> None:
        import torch.distributed as dist

        boots: list[str] = [""] * dist.get_world_size()
        dist.all_gather_object(boots, _boot())
        self.hosts = len(set(boots))
        self.backend = backend
        self.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if backend == "nccl" else "cpu"

    def together(self) -> float:
        """Wait until it begins; return when that was, on this rank's monotonic clock."""
        import torch
        import torch.distributed as dist

        dist.barrier()
        if self.hosts > 1:
            return time.monotonic()
        instant = torch.tensor([time.monotonic() + AHEAD_S], dtype=torch.float64)
        dist.broadcast(instant, 0)
        begin = float(instant)
        time.sleep(max(0.0, begin - time.monotonic()))
        return begin

    def first_says(self, flag: bool) -> bool:
        """Return what rank 0 says."""
        import torch
        import torch.distributed as dist

        said = torch.tensor([flag])
        dist.broadcast(said, 0)
        return bool(said)


def _boot() -> str:
    """Return what is the same only for processes of one running kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.getpid()}"


def before_others() -> bool:
    """Have the kernel wake this rank's threads before other processes' where it lets us; return whether it does."""
    threads = [int(task.name) for task in Path("/proc/self/task").iterdir()] if sys.platform == "linux" else []
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))
    except OSError:
        return False
    return bool(threads)


def interpreter(worker: Worker, start: Start, sends: Sends = "eager") -> Real:
    """Return what answers a rank's requests."""
    from netsim.backends.real import Real

    return Real(worker, start.device, start.backend, sends)


def vector_of(exchange: str, nbytes: int, rank: int, device: str = "cpu") -> Vector:
    """Return what a rank puts into an exchange: its own number everywhere, at evenly spread indices if sparse."""
    import torch

    like = EXCHANGES[exchange].size_only(nbytes)
    if like.entries is None:
        return Dense(torch.full((like.size,), float(rank + 1), device=device))
    indices = torch.arange(0, like.size, SPREAD, dtype=torch.int32, device=device)
    return Sparse(indices, torch.full((like.entries,), float(rank + 1), device=device), like.size)


def measured_exchange(
    exchange: str, nbytes: int, sends: Sends, rank: int, repeats: int, start: Start, on_repeat: Callable[[int], None]
) -> Timed:
    """Return what each rank took, of every repeat; the first, which opens connections, is left out.

    They run from when the last rank began, and those of a flow from when its sender and its receiver had; with a
    clock for each host, from when the rank itself did.

    Raises NetsimError where an exchange of known vectors does not give what it must.
    """
    import torch.distributed as dist

    own: list[Span] = []
    vector = vector_of(exchange, nbytes, rank, start.device)
    for repeat in range(-1, repeats):
        worker = Worker(rank, dist.get_world_size())
        worker.step = repeat + 1
        real = interpreter(worker, start, sends)
        start.together()
        began, before = time.monotonic(), processor_ticks()
        result = real.run(_program(exchange, worker, vector))
        own.append(Span(began, time.monotonic(), before, processor_ticks()))
        check(exchange, result, rank, dist.get_world_size())
        on_repeat(repeat)
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, own)
    source = EXCHANGES[exchange].source if start.hosts == 1 else lambda rank, _: rank
    timed = list(zip(*everyones, strict=True))[1:]
    last = [max(ranks, key=lambda span: span.ended) for ranks in timed]
    busy = busy_share(*((span.before, span.after) for span in last))
    return Timed([_seconds(ranks, source) for ranks in timed], busy)


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
    from netsim.errors import NetsimError

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


SMALL_BYTES = 4
MERGED_BYTES = 2 * 10**6
CROWD_PART = 25
"""Of the large message, in a crowd: some 4 ms of the link."""
STILL_S = 0.2
"""For so long all keep still, for what processors do besides."""


def points(rank: int, start: Start, large_bytes: int, repeats: int = 4, *, warm_up: bool = False) -> dict[str, Any]:
    """Measure what messages between two ranks cost, and adding vectors; the same answer on every rank, in seconds.

    ``small_s``: a small message to the next rank, which waits for it, after a short while of stillness, and
    ``cold_s`` after a longer one, of another sender each time, since it matters which processors two ranks are on;
    ``busy_s``: one of many to and fro without a pause; ``large_s``: one of `large_bytes`. ``all_s``: small messages
    both ways in all pairs of ranks at once. With `warm_up` as many go before those that count.

    What processors do where all ranks want them: ``crowd_s``: a small message of many without a pause, each rank's to
    another; ``crowd_some_s``: one of `crowd_some_bytes`; ``crowd_work_s`` and ``crowd_some_work_s`` of the processors
    for these; ``crowd_merge_s``: one with small vectors to add after it; ``crowd_header_s``: one whose size only its
    sender knows. ``merge_s``: adding small vectors after something else.
    """
    import torch
    import torch.distributed as dist

    own = [
        _messages(rank, start, SMALL_BYTES, WARM_S, repeats, warm_up=warm_up),
        _messages(rank, start, SMALL_BYTES, COLD_S, repeats),
        _messages(rank, start, large_bytes, WARM_S, repeats, warm_up=warm_up),
        _messages(rank, start, SMALL_BYTES, WARM_S, repeats, all_pairs=True, warm_up=warm_up),
    ]
    some_bytes = max(SMALL_BYTES, large_bytes // CROWD_PART)
    small, some = (Dense(torch.ones(nbytes // 4, device=start.device)) for nbytes in (SMALL_BYTES, some_bytes))
    sparse = Sparse(torch.zeros(1, dtype=torch.int32, device=start.device), small.values, 1)
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
    names = ("small_s", "cold_s", "large_s", "all_s")
    found = {
        name: statistics.median(_times(ranks_messages, start.hosts))
        for name, ranks_messages in zip(names, zip(*messages, strict=True), strict=True)
    }
    crowd, crowd_some, crowd_merging, crowd_sparse = map(_median, zip(*ranks_crowds, strict=True))
    busy_s, (merge_s, merge_large_s) = ranks_busy[0], ranks_merging[0]
    return found | {
        "busy_s": busy_s,
        "crowd_s": crowd.seconds,
        "crowd_work_s": crowd.processors_s,
        "crowd_some_s": crowd_some.seconds,
        "crowd_some_work_s": crowd_some.processors_s,
        "crowd_some_bytes": some_bytes,
        "crowd_merge_s": crowd_merging.seconds,
        "crowd_header_s": crowd_sparse.seconds,
        "large_bytes": large_bytes,
        "at_once": dist.get_world_size() // 2 * 2,
        "ranks": dist.get_world_size(),
        "hosts": start.hosts,
        "merge_s": merge_s,
        "merge_s_per_byte": max(0.0, merge_large_s - merge_s) / (2 * MERGED_BYTES),
    }


class Message(NamedTuple):
    """What a rank saw of a message, by its own clock: when it should begin, and when it sent and had received it."""

    due: float
    began: float
    received: float | None = None
    src: int = 0


def _times(everyones: Sequence[Sequence[Message]], hosts: int) -> list[float]:
    """Return the seconds that the messages of each repeat took, until the last of them was there.

    ``everyones[rank][repeat]``. They count from when the last sender began, or should have, by another host's clock: of
    more ranks than processors some begin late, which is not the messages'.
    """
    times = []
    for messages in zip(*everyones, strict=True):
        received = [message for message in messages if message.received is not None]
        if hosts == 1:
            began = max(messages[message.src].began for message in received)
            times.append(max(message.received for message in received) - began)
        else:
            times.append(max(message.received - message.due for message in received))
    return times


def _messages(
    rank: int,
    start: Start,
    nbytes: int,
    still_s: float,
    repeats: int,
    *,
    all_pairs: bool = False,
    warm_up: bool = False,
) -> list[Message]:
    """Have a message go from a rank to the next, from another one each time, or (`all_pairs`) both ways in all pairs.

    With `warm_up` connections are used once before: the first message on one takes longer.
    """
    import torch.distributed as dist

    ranks = dist.get_world_size()
    apart = max(1, ranks // repeats)
    found = []
    for repeat in range(-repeats if warm_up else 0, repeats):
        first = repeat * apart % ranks
        pairs = [(each, each + 1) for each in range(0, ranks - 1, 2)] if all_pairs else [(first, (first + 1) % ranks)]
        pair = next((each for each in pairs if rank in each), None)
        found.append(_message(rank, pair, start, nbytes, still_s, both_ways=all_pairs))
    return found[-repeats:]


def _message(
    rank: int, pair: tuple[int, int] | None, start: Start, nbytes: int, still_s: float, *, both_ways: bool
) -> Message:
    """Send a message from the first of a pair to the second, or both ways, after all kept still for `still_s`."""
    import torch
    import torch.distributed as dist

    vector = Dense(torch.ones(nbytes // 4, device=start.device))
    began = start.together()
    due = began + still_s
    if pair is None:
        return Message(due, due)
    sends, receives = both_ways or rank == pair[0], both_ways or rank == pair[1]
    peer = pair[1] if rank == pair[0] else pair[0]

    async def program(worker: Worker) -> Message:
        receiving = await worker.start_recv(peer, like=vector) if receives else None
        time.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        if sends:
            await worker.send(peer, vector)
        if receiving is None:
            return Message(due, began)
        await receiving
        return Message(due, began, time.monotonic(), peer)

    worker = Worker(rank, dist.get_world_size())
    return interpreter(worker, start).run(program(worker))


def _to_and_fro(rank: int, start: Start) -> float:
    """Return the seconds of a small message between ranks 0 and 1 which both have just been busy with the last one."""
    import torch.distributed as dist

    from netsim.calibration.pingpong import ping_pong

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


def _still_share(start: Start) -> float | None:
    """Return what part of the processors' time is used while all ranks keep still."""
    start.together()
    before = processor_ticks()
    time.sleep(STILL_S)
    return busy_share((before, processor_ticks()))


def _in_a_crowd(
    rank: int, start: Start, still: float | None, vector: Vector, messages: int = 100, *, merging: bool = False
) -> Crowd:
    """Have each rank send a vector again and again to one rank and receive from another, and add those if `merging`.

    A quarter as many before those are not counted: some begin late. Nor is `still`, what processors do besides.
    """
    import torch.distributed as dist

    ranks = dist.get_world_size()
    target, source = ((rank + way * shift(ranks)) % ranks for way in (1, -1))

    async def send(worker: Worker, messages: int) -> None:
        for _ in range(messages):
            theirs = await worker.sendrecv(target, vector, source, like=vector)
            if merging:
                await worker.compute("merge", add, theirs, vector)

    async def program(worker: Worker) -> tuple[float, float | None]:
        await send(worker, messages // 4)
        began, before = time.monotonic(), processor_ticks()
        await send(worker, messages)
        return time.monotonic() - began, busy_share((before, processor_ticks()))

    start.together()
    worker = Worker(rank, ranks)
    took, busy = interpreter(worker, start).run(program(worker))
    if busy is None or still is None or start.hosts > 1:
        return Crowd(took / messages, None)
    processors_s = (busy - still) * (os.cpu_count() or 1) * took / (messages * ranks)
    return Crowd(took / messages, processors_s)


def _merging(rank: int, start: Start, nbytes: int, repeats: int = 9) -> float:
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
