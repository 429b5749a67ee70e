"""How long a small message takes after two ranks of this machine have kept still for a while, over loopback.

It is waited for by its receiver; or *called*: its sender waits for a receiver that comes later; or it is an *answer*,
sent as soon as the other is there. Says after how much stillness threads sleep how deeply, and how many of them a
message wakes (docs/decisions/0021-two-threads.md). As root, ranks get real-time priority, and processors stay awake.

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

STILL_MS = (1, 2, 4, 8, 16, 32, 64)
KINDS = ("waited for", "called", "answer")
MESSAGE_S = 0.001
"""After so long a message and its answer are over, and stillness begins."""
VECTOR = Dense(torch.ones(1))

Instants = tuple[float, float, float]
"""When a rank began, when it had the message, or sent it, and when it had the answer, or sent that."""


async def sender(worker: Worker, kind: str, due: float) -> Instants:
    answer = await worker.start_recv(1, template=VECTOR)
    sending = await worker.start_send(1, VECTOR) if kind == "called" else None
    sleep_until(due)
    began = time.monotonic()
    await (sending or worker.send(1, VECTOR))
    sent = time.monotonic()
    await answer
    return began, sent, time.monotonic()


async def receiver(worker: Worker, kind: str, due: float) -> Instants:
    receiving = None if kind == "called" else await worker.start_recv(0, template=VECTOR)
    sleep_until(due)
    began = time.monotonic()
    await (receiving or worker.recv(0, template=VECTOR))
    received = time.monotonic()
    await worker.send(0, VECTOR)
    return began, received, time.monotonic()


def microseconds(kind: str, at_sender: Instants, at_receiver: Instants) -> float:
    """Return what a message of a kind took, by the clock that both ranks share."""
    if kind == "answer":
        return 1e6 * (at_sender[2] - at_receiver[1])
    return 1e6 * (at_receiver[1] - (at_receiver if kind == "called" else at_sender)[0])


def measure(rank: int, repeats: int, folder: str) -> None:
    torch.set_num_threads(1)
    wake_without_preempting()  # as all ranks of netsim's jobs
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    raise_priority()
    start, worker = SimultaneousStart(), Worker(rank, 2)
    real, program = RankInterpreter(worker, "cpu", "gloo"), (sender, receiver)[rank]
    own: dict[str, list[list[Instants]]] = {kind: [] for kind in KINDS}
    for kind, times in own.items():
        for still_ms in STILL_MS:
            due, found = start.agree(), []
            for _ in range(repeats + 1):
                found.append(real.run(program(worker, kind, due)))
                due += MESSAGE_S + still_ms / 1e3
            times.append(found[1:])  # before the first they kept still for as long as it takes to agree
    both: list[dict[str, list[list[Instants]]]] = [{}, {}]
    dist.all_gather_object(both, own)
    if rank == 0:
        table = {
            kind: [
                statistics.median(microseconds(kind, *ranks) for ranks in zip(*of_both, strict=True))
                for of_both in zip(*(of_one[kind] for of_one in both), strict=True)
            ]
            for kind in KINDS
        }
        (Path(folder) / "table.json").write_text(json.dumps(table))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder, inhibit_cpu_idle() as awake:
        mp.spawn(measure, (asked.repeats, folder), nprocs=2)  # type: ignore[no-untyped-call]
        table = json.loads((Path(folder) / "table.json").read_text())
    if asked.json:
        given = {"repeats": asked.repeats, "still_ms": STILL_MS, "processors_awake": awake}
        print(json.dumps(given | {"environment": environment(), "us": table}))
        return
    print(f"{'still for (ms)':16}", *(f"{still:6}" for still in STILL_MS))
    for kind, times in table.items():
        print(f"{kind + ' (us)':16}", *(f"{took:6.0f}" for took in times))


if __name__ == "__main__":
    main()
