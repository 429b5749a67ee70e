"""Point-to-point measurements: what a message costs in seconds and core time, as one rank of several measures it."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, NamedTuple

from netsim._util.system import busy_share, processor_ticks
from netsim.comm.payload import Dense, Sparse, Vector, add
from netsim.comm.worker import Worker
from netsim.testbed.exchanges import permutation
from netsim.testbed.host_model import START_DELAY_S
from netsim.testbed.simultaneous_start import (
    IDLE_MARGIN_S,
    SimultaneousStart,
    idle_until_all_done,
    rank_interpreter,
    sleep_until,
)

SMALL_BYTES = 4
MERGED_BYTES = 2 * 10**6
LARGE_PER_CONCURRENT = 25
"""Bytes of the large message / bytes of a concurrent one, which needs about 4 ms of its link."""
IDLE_SAMPLE_S = 0.2
"""Seconds for which all ranks are idle while the load of other processes is measured."""


def _key(key: str, **default: Any) -> Any:
    """Return a field that stored measurements call `key`."""
    return field(metadata={"key": key}, **default)


@dataclass(frozen=True, slots=True, kw_only=True)
class P2PMeasurements:
    """Costs of messages between two ranks, in seconds; the same on every rank.

    "Concurrent" messages are sent by all ranks at the same time, without pauses, and each rank sends to one other rank
    (:func:`netsim.testbed.exchanges.permutation`).

    Parameters
    ----------
    idle_small_s, idle_large_s
        A small message and one of `large_bytes`, sent to the next rank after all ranks were idle. Each repeat has
        another sender, because the time depends on the cores that run the two ranks.
    warm_small_s
        A small message in a ping-pong without pauses.
    concurrent_small_s, concurrent_large_s
        A small concurrent message, and one of `concurrent_large_bytes`.
    concurrent_small_cpu_s, concurrent_large_cpu_s
        Core seconds for each of these; None if ranks are on several hosts.
    concurrent_merge_s
        A small concurrent message, after which the receiver adds two small vectors.
    concurrent_header_s
        A small concurrent message whose size only its sender knows.
    large_bytes, concurrent_large_bytes
        Payloads in bytes.
    ranks, hosts
        Number of ranks, and of machines.
    start_delay_s, idle_margin_s
        Seconds for which ranks were idle before each message, and after its expected end.
    merge_s
        Adding two small vectors, one of which has just arrived, after the ranks were idle.
    merge_s_per_byte
        Adding two vectors, per byte that is read.
    """

    idle_small_s: float = _key("small_s")
    idle_large_s: float = _key("large_s")
    warm_small_s: float = _key("busy_s")
    concurrent_small_s: float = _key("crowd_s")
    concurrent_small_cpu_s: float | None = _key("crowd_work_s")
    concurrent_large_s: float = _key("crowd_some_s")
    concurrent_large_cpu_s: float | None = _key("crowd_some_work_s")
    concurrent_large_bytes: int = _key("crowd_some_bytes")
    concurrent_merge_s: float = _key("crowd_merge_s")
    concurrent_header_s: float = _key("crowd_header_s")
    large_bytes: int = _key("large_bytes")
    ranks: int = _key("ranks")
    hosts: int = _key("hosts", default=1)
    start_delay_s: float = _key("still_s")
    idle_margin_s: float = _key("rest_s", default=IDLE_MARGIN_S)
    merge_s: float = _key("merge_s")
    merge_s_per_byte: float = _key("merge_s_per_byte")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> P2PMeasurements:
        """Return measurements from a stored record.

        Raises
        ------
        KeyError
            A measurement is missing.
        ValueError
            A value is negative or not finite.
        """
        named = {measurement.name: _stored_name(measurement) for measurement in fields(cls)}
        measured = {name: stored[key] for name, key in named.items() if key in REQUIRED_KEYS or key in stored}
        for name, value in measured.items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} {value!r} must be finite and zero or more")
        return cls(**measured)

    def as_json(self) -> dict[str, Any]:
        """Return measurements with the keys of stored records."""
        return {_stored_name(measurement): getattr(self, measurement.name) for measurement in fields(self)}

    def cpu_speed_json(self) -> dict[str, Any]:
        """Return only the CPU-speed measurements, which change within seconds, with the keys of stored records."""
        return {key: value for key, value in self.as_json().items() if key.startswith(("crowd_", "merge_"))}


def _stored_name(measurement: Field[Any]) -> str:
    key: str = measurement.metadata["key"]
    return key


REQUIRED_KEYS = {_stored_name(measurement) for measurement in fields(P2PMeasurements) if measurement.default is MISSING}
"""Keys of a stored record without which a prediction is impossible: records of earlier versions may lack some."""


def averaged(mean: Callable[[list[float]], float], measured: Sequence[P2PMeasurements]) -> P2PMeasurements:
    """Return each measurement's mean over the repeats in which it is known.

    A value that is equal in all repeats, such as the number of ranks, stays as it is.
    """
    values: dict[str, Any] = {}
    for name in (measurement.name for measurement in fields(P2PMeasurements)):
        known = [value for of_time in measured if (value := getattr(of_time, name)) is not None]
        values[name] = (known[0] if len(set(known)) == 1 else mean(known)) if known else None
    return P2PMeasurements(**values)


def measure_p2p(
    rank: int, start: SimultaneousStart, large_bytes: int, repeats: int = 4, *, warm_up: bool = False
) -> P2PMeasurements:
    """Measure messages between two ranks, and additions of vectors; every rank gets the same result.

    Parameters
    ----------
    rank
        This rank.
    start
        Starts all ranks at one instant.
    large_bytes
        Payload of the large message.
    repeats
        Number of messages of each kind that are sent after idleness.
    warm_up
        Whether as many uncounted messages are sent first, so that connections exist.
    """
    import torch
    import torch.distributed as dist

    concurrent_bytes = max(SMALL_BYTES, large_bytes // LARGE_PER_CONCURRENT)
    small, medium, large = (
        Dense(torch.ones(nbytes // 4, device=start.device)) for nbytes in (SMALL_BYTES, concurrent_bytes, large_bytes)
    )
    sparse = Sparse(torch.zeros(1, dtype=torch.int32, device=start.device), small.values, 1)
    after_idleness = [_messages(rank, start, vector, repeats, warm_up=warm_up) for vector in (small, large)]
    warm, others_share = _to_and_fro(rank, start), _idle_share(start)
    concurrent = [
        _concurrent(rank, start, others_share, small),
        _concurrent(rank, start, others_share, medium, messages=50),
        _concurrent(rank, start, others_share, small, merging=True),
        _concurrent(rank, start, others_share, sparse),
    ]
    merging = [_merging(rank, start, nbytes) if rank == 0 else 0.0 for nbytes in (SMALL_BYTES, MERGED_BYTES)]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (after_idleness, concurrent, warm, merging))
    messages, all_concurrent, all_warm, all_merging = zip(*gathered, strict=True)
    smalls, larges = zip(*messages, strict=True)
    adding = [message.adding_s for timings in smalls for message in timings if message.adding_s is not None]
    of_small, of_medium, of_merging, of_sparse = map(_median, zip(*all_concurrent, strict=True))
    merge_small_s, merge_large_s = all_merging[0]
    return P2PMeasurements(
        idle_small_s=statistics.median(_times(smalls, start.hosts)),
        idle_large_s=statistics.median(_times(larges, start.hosts)),
        warm_small_s=all_warm[0],
        concurrent_small_s=of_small.seconds,
        concurrent_small_cpu_s=of_small.cpu_s,
        concurrent_large_s=of_medium.seconds,
        concurrent_large_cpu_s=of_medium.cpu_s,
        concurrent_large_bytes=concurrent_bytes,
        concurrent_merge_s=of_merging.seconds,
        concurrent_header_s=of_sparse.seconds,
        large_bytes=large_bytes,
        ranks=dist.get_world_size(),
        hosts=start.hosts,
        start_delay_s=START_DELAY_S,
        idle_margin_s=IDLE_MARGIN_S,
        merge_s=statistics.median(adding),
        merge_s_per_byte=max(0.0, merge_large_s - merge_small_s) / (2 * MERGED_BYTES),
    )


class MessageTiming(NamedTuple):
    """The instants of a message on one rank, in seconds of the rank's monotonic clock.

    `due` is the agreed start, and `began` the rank's start. `received` is when the rank had the message; None if the
    rank was not the receiver. `src` is the sender, and `adding_s` the seconds of the receiver's addition.
    """

    due: float
    began: float
    received: float | None = None
    src: int = 0
    adding_s: float | None = None


def _times(timings: Sequence[Sequence[MessageTiming]], hosts: int) -> list[float]:
    """Return the seconds of each repeat's message, from ``timings[rank][repeat]``.

    A message's time starts when its sender starts, or at the agreed start if sender and receiver share no clock.
    """
    times = []
    for messages in zip(*timings, strict=True):
        received, message = next((each.received, each) for each in messages if each.received is not None)
        times.append(received - (messages[message.src].began if hosts == 1 else message.due))
    return times


def _messages(
    rank: int, start: SimultaneousStart, vector: Vector, repeats: int, *, warm_up: bool = False
) -> list[MessageTiming]:
    """Send `repeats` messages, each from another rank to its next rank, and return their timings.

    One more message is sent first and not counted; its time decides how long all ranks are idle during the others. With
    `warm_up`, `repeats` messages are sent first, because the first message of a connection takes longer.
    """
    import torch.distributed as dist

    ranks = dist.get_world_size()
    stride = max(1, ranks // repeats)
    timings, longest = [], 0.0
    for repeat in range(-repeats if warm_up else -1, repeats):
        timing = _message(rank, repeat * stride % ranks, start, vector)
        idle_until_all_done(timing.due, longest)
        longest = longest or start.maximum(0.0 if timing.received is None else timing.received - timing.due)
        timings.append(timing)
    return timings[-repeats:]


def _message(rank: int, src: int, start: SimultaneousStart, vector: Vector) -> MessageTiming:
    """Send a message from `src` to the next rank after all ranks were idle; the receiver adds the message's vector."""
    import torch.distributed as dist

    due = start.agree()
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

    return rank_interpreter(worker, start).run(program(worker))


def _to_and_fro(rank: int, start: SimultaneousStart) -> float:
    """Return the seconds of a small message in a ping-pong without pauses between ranks 0 and 1."""
    import torch.distributed as dist

    from netsim.testbed.pingpong import ping_pong

    start.begin()
    worker = Worker(rank, dist.get_world_size())
    trips = rank_interpreter(worker, start).run(ping_pong(worker, time.monotonic, lambda: 0.0, 1.0, [SMALL_BYTES]))
    return statistics.median(trips[0].one_way_s) if trips else 0.0


class ConcurrentTiming(NamedTuple):
    """Seconds of a concurrent message, and its core seconds; None if ranks are on several machines."""

    seconds: float
    cpu_s: float | None


def _median(timings: Sequence[ConcurrentTiming]) -> ConcurrentTiming:
    cpu_s = [timing.cpu_s for timing in timings if timing.cpu_s is not None]
    return ConcurrentTiming(
        statistics.median(timing.seconds for timing in timings), statistics.median(cpu_s) if cpu_s else None
    )


def _idle_share(start: SimultaneousStart) -> float | None:
    """Return the share of core time that other processes use, measured while all ranks are idle."""
    start.begin()
    before = processor_ticks()
    time.sleep(IDLE_SAMPLE_S)
    return busy_share((before, processor_ticks()))


def _concurrent(
    rank: int,
    start: SimultaneousStart,
    others_share: float | None,
    vector: Vector,
    messages: int = 100,
    *,
    merging: bool = False,
) -> ConcurrentTiming:
    """Measure concurrent messages: every rank sends `vector` to one rank, and receives from another, without pauses.

    If `merging`, a rank adds each vector that it receives. A quarter as many messages are sent first and not counted,
    because some ranks start late. `others_share`, the share of core time that other processes use, is subtracted.
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

    start.begin()
    worker = Worker(rank, ranks)
    took, share = rank_interpreter(worker, start).run(program(worker))
    if share is None or others_share is None or start.hosts > 1:
        return ConcurrentTiming(took / messages, None)
    cpu_s = (share - others_share) * (os.cpu_count() or 1) * took / (messages * ranks)
    return ConcurrentTiming(took / messages, cpu_s)


def _merging(rank: int, start: SimultaneousStart, nbytes: int, repeats: int = 9) -> float:
    """Return the seconds of adding two vectors of `nbytes` that are not in the caches."""
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
    return rank_interpreter(worker, start).run(program(worker))
