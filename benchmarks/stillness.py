"""Time of a small message between two ranks over loopback, after both have been idle for a while.

Its receiver waits for it; or it is *called*: its sender waits for a receiver that comes later; or it is an *answer*,
sent as soon as another message has come. The figures show how fast threads fall asleep, and how many threads a message
wakes (docs/host-model.md). As root, ranks get real-time priority, and processors are kept awake.

    python benchmarks/stillness.py
    python benchmarks/stillness.py --repeats 100 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from netsim._util.system import environment, inhibit_cpu_idle
from netsim.comm.payload import Dense
from netsim.comm.worker import Worker
from netsim.distributed.interpreter import RankInterpreter
from netsim.distributed.rank_main import wake_without_preempting
from netsim.testbed.simultaneous_start import SimultaneousStart, raise_priority, sleep_until

IDLE_MS = (1, 2, 4, 8, 16, 32, 64)
KINDS = ("waited for", "called", "answer")
MESSAGE_S = 0.001
"""Seconds after which a message and its answer are over, and the ranks are idle."""
VECTOR = Dense(torch.ones(1))

Instants = tuple[float, float, float]
"""When a rank began, when it had or had sent the message, and when it had or had sent the answer."""


async def sender(worker: Worker, kind: str, due: float) -> Instants:
    """Send a message of a kind at an instant, and wait for the answer."""
    answer = await worker.start_recv(1, template=VECTOR)
    sending = await worker.start_send(1, VECTOR) if kind == "called" else None
    sleep_until(due)
    began = time.monotonic()
    await (sending or worker.send(1, VECTOR))
    sent = time.monotonic()
    await answer
    return began, sent, time.monotonic()


async def receiver(worker: Worker, kind: str, due: float) -> Instants:
    """Receive a message of a kind at an instant, and answer."""
    receiving = None if kind == "called" else await worker.start_recv(0, template=VECTOR)
    sleep_until(due)
    began = time.monotonic()
    await (receiving or worker.recv(0, template=VECTOR))
    received = time.monotonic()
    await worker.send(0, VECTOR)
    return began, received, time.monotonic()


def microseconds(kind: str, at_sender: Instants, at_receiver: Instants) -> float:
    """Return the microseconds of a message of a kind, by the clock that both ranks share."""
    if kind == "answer":
        return 1e6 * (at_sender[2] - at_receiver[1])
    return 1e6 * (at_receiver[1] - (at_receiver if kind == "called" else at_sender)[0])


def measure(rank: int, repeats: int, folder: str) -> None:
    """Measure as one of two ranks; rank 0 writes the medians into the folder."""
    torch.set_num_threads(1)
    wake_without_preempting()  # as every rank of netsim does
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    raise_priority()
    start, worker = SimultaneousStart(), Worker(rank, 2)
    real, program = RankInterpreter(worker, "cpu", "gloo"), (sender, receiver)[rank]
    instants: dict[str, list[list[Instants]]] = {kind: [] for kind in KINDS}
    for kind, by_idle in instants.items():
        for idle_ms in IDLE_MS:
            due, measured = start.agree(), []
            for _ in range(repeats + 1):
                measured.append(real.run(program(worker, kind, due)))
                due += MESSAGE_S + idle_ms / 1e3
            by_idle.append(measured[1:])  # before the first, ranks are idle for as long as it takes to agree
    both: list[dict[str, list[list[Instants]]]] = [{}, {}]
    dist.all_gather_object(both, instants)
    if rank == 0:
        table = {
            kind: [
                statistics.median(microseconds(kind, *ranks) for ranks in zip(*of_both, strict=True))
                for of_both in zip(*(of_rank[kind] for of_rank in both), strict=True)
            ]
            for kind in KINDS
        }
        (Path(folder) / "table.json").write_text(json.dumps(table))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder, inhibit_cpu_idle() as awake:
        mp.spawn(measure, (asked.repeats, folder), nprocs=2)  # type: ignore[no-untyped-call]
        table = json.loads((Path(folder) / "table.json").read_text())
    if asked.json:
        given = {"repeats": asked.repeats, "still_ms": IDLE_MS, "processors_awake": awake}
        print(json.dumps(given | {"environment": environment("cpu"), "us": table}))
        return
    print(f"{'idle for (ms)':16}", *(f"{idle:6}" for idle in IDLE_MS))
    for kind, times in table.items():
        print(f"{kind + ' (us)':16}", *(f"{took:6.0f}" for took in times))


if __name__ == "__main__":
    main()
