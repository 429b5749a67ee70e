"""What a message of netsim costs beside a bare one of torch.distributed, between ranks of this machine over loopback.

All ranks pass vectors around a ring, by netsim's text over gloo and by isend and irecv of a tensor whose size both
ends know, in turn; what is told of rank 0 is the median over turns, and ratios are medians of ratios within a turn.
netsim's message has a header that its receiver checks, and a body of a size that it need not know before.

    python benchmarks/messages.py                    # two ranks, 25 kB
    python benchmarks/messages.py --ranks 4 --bytes 400000 --json
    python benchmarks/messages.py --ranks 4 --preempting    # threads wake as the kernel has it for others
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from netsim._util.system import environment
from netsim.comm.payload import Dense
from netsim.comm.worker import Worker
from netsim.distributed.interpreter import RankInterpreter
from netsim.distributed.rank_main import wake_without_preempting

Ring = Callable[[int], None]
"""Has every rank send so many messages to the next, and receive as many."""


def by_netsim(rank: int, ranks: int, nbytes: int) -> Ring:
    worker, vector = Worker(rank, ranks), Dense(torch.ones(nbytes // 4))
    real = RankInterpreter(worker, "cpu", "gloo")

    async def program(messages: int) -> None:
        for _ in range(messages):
            await worker.sendrecv((rank + 1) % ranks, vector, (rank - 1) % ranks, template=vector)

    return lambda messages: real.run(program(messages))


def by_torch(rank: int, ranks: int, nbytes: int) -> Ring:
    ours, theirs = torch.ones(nbytes // 4), torch.empty(nbytes // 4)

    def ring(messages: int) -> None:
        for _ in range(messages):
            works = dist.irecv(theirs, (rank - 1) % ranks), dist.isend(ours, (rank + 1) % ranks)
            for work in works:
                assert work is not None
                work.wait()

    return ring


CONTENDERS = {"netsim": by_netsim, "torch.distributed": by_torch}


def measure(rank: int, ranks: int, nbytes: int, messages: int, repeats: int, preempting: bool, folder: str) -> None:
    torch.set_num_threads(1)
    if not preempting:
        wake_without_preempting()  # as all ranks of netsim's jobs
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    rings = {name: contender(rank, ranks, nbytes) for name, contender in CONTENDERS.items()}
    turns: list[dict[str, tuple[float, float]]] = []
    for turn in range(-1, repeats):  # the first opens connections
        took = {}
        for name, ring in rings.items():
            dist.barrier()
            began, worked = time.perf_counter(), time.process_time()
            ring(messages)
            took[name] = (time.perf_counter() - began) / messages, (time.process_time() - worked) / messages
        if turn >= 0:
            turns.append(took)
    if rank == 0:
        (Path(folder) / "turns.json").write_text(json.dumps(turns))
    dist.barrier()
    dist.destroy_process_group()


def summary(turns: list[dict[str, tuple[float, float]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in CONTENDERS:
        seconds, processor = (statistics.median(turn[name][part] for turn in turns) for part in range(2))
        ratios = [statistics.median(t[name][part] / t["torch.distributed"][part] for t in turns) for part in range(2)]
        found[name] = {"s": seconds, "processor_s": processor, "ratio": ratios[0], "processor_ratio": ratios[1]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--bytes", type=int, default=25_000)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--preempting", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        arguments = (asked.ranks, asked.bytes, asked.messages, asked.repeats, asked.preempting, folder)
        mp.spawn(measure, arguments, nprocs=asked.ranks)  # type: ignore[no-untyped-call]
        found = summary(json.loads((Path(folder) / "turns.json").read_text()))
    if asked.json:
        given = {"ranks": asked.ranks, "bytes": asked.bytes, "preempting": asked.preempting}
        print(json.dumps(given | {"environment": environment("cpu"), "messages": found}))
        return
    for name, took in found.items():
        print(
            f"{name:18} {took['s'] * 1e6:7.0f} us a message ({took['ratio']:.1f} times), "
            f"{took['processor_s'] * 1e6:7.0f} us of a processor ({took['processor_ratio']:.1f} times)"
        )


if __name__ == "__main__":
    main()
