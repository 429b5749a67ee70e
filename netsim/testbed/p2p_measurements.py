"""Point-to-point measurements: seconds and core time of a message, as each rank of a job measures them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, NamedTuple

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
    concurrent_small_s
        A small concurrent message.
    concurrent_header_s
        A small concurrent message whose size only its sender knows.
    large_bytes
        Payload of the large message in bytes.
    ranks, hosts
        Number of ranks, and of machines.
    start_delay_s, idle_margin_s
        Seconds for which ranks were idle before each message, and after its expected end.
    merge_s
        Adding two small vectors, one of which has just arrived, after the ranks were idle.
    """

    idle_small_s: float = _key("small_s")
    idle_large_s: float = _key("large_s")
    warm_small_s: float = _key("busy_s")
    concurrent_small_s: float = _key("crowd_s")
    concurrent_header_s: float = _key("crowd_header_s")
    large_bytes: int = _key("large_bytes")
    ranks: int = _key("ranks")
    hosts: int = _key("hosts", default=1)
    start_delay_s: float = _key("still_s")
    idle_margin_s: float = _key("rest_s", default=IDLE_MARGIN_S)
    merge_s: float = _key("merge_s")

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
            if not 0 <= value < math.inf:
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
    """Return each measurement's mean over repeats; a value that is equal in all repeats stays as it is."""
    values: dict[str, Any] = {}
    for name in (measurement.name for measurement in fields(P2PMeasurements)):
        repeats = [getattr(of_time, name) for of_time in measured]
        values[name] = repeats[0] if len(set(repeats)) == 1 else mean(repeats)
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

    small, large = (Dense(torch.ones(nbytes // 4, device=start.device)) for nbytes in (SMALL_BYTES, large_bytes))
    sparse = Sparse(torch.zeros(1, dtype=torch.int32, device=start.device), small.values, 1)
    after_idleness = [_messages(rank, start, vector, repeats, warm_up=warm_up) for vector in (small, large)]
    warm = _to_and_fro(rank, start)
    concurrent = [_concurrent(rank, start, vector) for vector in (small, sparse)]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (after_idleness, concurrent, warm))
    messages, all_concurrent, all_warm = zip(*gathered, strict=True)
    smalls, larges = zip(*messages, strict=True)
    adding = [message.adding_s for timings in smalls for message in timings if message.adding_s is not None]
    of_small, of_sparse = map(statistics.median, zip(*all_concurrent, strict=True))
    return P2PMeasurements(
        idle_small_s=statistics.median(_times(smalls, start.hosts)),
        idle_large_s=statistics.median(_times(larges, start.hosts)),
        warm_small_s=all_warm[0],
        concurrent_small_s=of_small,
        concurrent_header_s=of_sparse,
        large_bytes=large_bytes,
        ranks=dist.get_world_size(),
        hosts=start.hosts,
        start_delay_s=START_DELAY_S,
        idle_margin_s=IDLE_MARGIN_S,
        merge_s=statistics.median(adding),
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


def _concurrent(rank: int, start: SimultaneousStart, vector: Vector, messages: int = 100) -> float:
    """Return the seconds of a concurrent message: every rank sends `vector` to one rank and receives from another.

    Ranks make no pauses. A quarter as many messages are sent first and not counted, because some ranks start late.
    """
    import torch.distributed as dist

    async def send(worker: Worker, messages: int) -> None:
        for _ in range(messages):
            await permutation(worker, vector)

    async def program(worker: Worker) -> float:
        await send(worker, messages // 4)
        began = time.monotonic()
        await send(worker, messages)
        return (time.monotonic() - began) / messages

    start.begin()
    worker = Worker(rank, dist.get_world_size())
    return rank_interpreter(worker, start).run(program(worker))
