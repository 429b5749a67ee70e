"""Steps of DDP with hooks of netsim and of torch on a shaped cluster, beside the steps that netsim predicts.

Four gloo ranks, each in a network namespace with a link of 100 Mbit/s, train a network of two million parameters. The
prediction is that of `netsim.simulate` from two inputs, MEASURED on the same ranks in turns with the steps:

- the time of a step without communication: the same hook in a process group of one rank, on all ranks at once;
- the one-way time of a message with one entry, as the latency.

The link's bandwidth is the nominal one, with TCP's headers and acknowledgements. Merges of other ranks' entries are
left out. Times are medians over steps of the slowest rank. As root, ranks get real-time priority, so that other
processes of the machine hardly matter. The namespaces vanish with the process that holds them.

    python benchmarks/ddp_shaped.py                     # 90 s; Linux, as root or with user namespaces
    python benchmarks/ddp_shaped.py --density 0.001 --steps 5 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # DDP imports it on first use: here once, before ranks are forked
import torch.distributed as dist
from ddp_hooks import TORCH, by_netsim, by_torch, network, slowest, stepper

import netsim
from netsim._util.progress import OnRound
from netsim._util.system import environment
from netsim._util.units import parse_bandwidth
from netsim.cluster.plan import Cluster
from netsim.comm.payload import Sparse
from netsim.comm.worker import Worker
from netsim.distributed.interpreter import RankInterpreter
from netsim.distributed.launch import launch_work
from netsim.testbed.simultaneous_start import raise_priority

WIDTHS = (64, 1408, 1408, 10)
ELEMENTS = sum(inputs * outputs + outputs for inputs, outputs in pairwise(WIDTHS))
NETSIM = ("dense", "topk", "gtopk")
WARM_UP = 3
"""Steps that are not counted: they build buckets, compile kernels and start PowerSGD."""
MESSAGES = 20


def as_rank(details: dict[str, Any], rank: int, on_round: OnRound) -> Iterator[dict[str, Any]]:
    """Measure as one rank; yield the seconds of every step by hook, with and without communication, and of messages."""
    torch.set_num_threads(1)
    alone = [dist.new_group([each]) for each in range(dist.get_world_size())][rank]
    steps = {f"torch {kind}": stepper(by_torch(network(WIDTHS), kind), WIDTHS, rank) for kind in TORCH}
    for name in NETSIM:
        for title, group in ((f"netsim {name}", None), (f"alone {name}", alone)):
            model = by_netsim(network(WIDTHS, group), name, details["density"])
            steps[title] = stepper(model, WIDTHS, rank)
    raise_priority()  # other processes of this machine then hardly matter
    took: dict[str, list[float]] = {name: [] for name in steps}
    one_way: list[float] = []
    for turn in range(-WARM_UP, details["steps"]):
        message_s = one_way_s(rank)
        seconds = {name: slowest(step) for name, step in steps.items()}
        if turn >= 0:
            one_way.append(message_s)
            for name, each in seconds.items():
                took[name].append(each)
        if rank == 0:
            on_round("steps", turn + WARM_UP)
    if rank == 0:
        yield {"step_s": took, "one_way_s": one_way}


def one_way_s(rank: int) -> float:
    """Return half the seconds of a message of one entry from rank 0 to rank 1 and back."""
    worker, one = Worker(rank, dist.get_world_size()), Sparse(torch.zeros(1, dtype=torch.int32), torch.ones(1), 1)

    async def to_and_fro() -> None:
        for _ in range(MESSAGES):
            if rank == 0:
                await worker.send(1, one)
                await worker.recv(1, template=one)
            elif rank == 1:
                await worker.recv(0, template=one)
                await worker.send(0, one)

    dist.barrier()
    began = time.perf_counter()
    RankInterpreter(worker, "cpu", "gloo").run(to_and_fro())
    return (time.perf_counter() - began) / MESSAGES / 2


def predicted_s(algorithm: str, asked: argparse.Namespace, local_s: float, latency_s: float) -> float:
    """Return the seconds of a step by `netsim.simulate`, given those without communication."""
    report = netsim.simulate(
        workers=asked.ranks,
        algorithm=algorithm,
        elements=ELEMENTS,
        timing_only=True,
        density=asked.density,
        bandwidth=asked.bandwidth,
        latency=latency_s,
        compute_time=local_s,
        select_time=0,
        merge_time=0,
        protocol="tcp",
        segments_per_ack=2,
        initial_window=100,
        send_mode="eager",
    )
    return float(report.results[0].round_time_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--bandwidth", default="100Mbps")
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    # The ranks find this file by its name.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    )
    load = os.getloadavg()[0]
    details = {"work": "ddp_shaped:as_rank", "backend": "gloo", "timeout_s": 60.0}
    details |= {"density": asked.density, "steps": asked.steps}
    cluster = Cluster(ranks=asked.ranks, bandwidth_bps=round(parse_bandwidth(asked.bandwidth)))
    (measured,) = launch_work(details, asked.ranks, cluster=cluster)
    median = {name: statistics.median(times) for name, times in measured["step_s"].items()}
    one_way = statistics.median(measured["one_way_s"])
    predicted = {name: predicted_s(name, asked, median[f"alone {name}"], one_way) for name in NETSIM}
    if asked.json:
        given = {name: getattr(asked, name) for name in ("ranks", "bandwidth", "density", "steps")}
        found = {"load_before": load, "one_way_s": one_way, "step_s": median, "predicted_s": predicted}
        print(json.dumps(given | {"elements": ELEMENTS, "environment": environment("cpu")} | found))
        return
    print(
        f"{ELEMENTS:,} parameters, {asked.ranks} ranks, {asked.bandwidth}, density {asked.density:g}; load {load:.1f}"
    )
    for name, seconds in median.items():
        if name.startswith("alone"):
            continue
        line = f"{name:18} {seconds * 1e3:8.1f} ms a step MEASURED"
        if (own := name.removeprefix("netsim ")) in predicted:
            line += f", {predicted[own] * 1e3:8.1f} PREDICTED ({predicted[own] / seconds - 1:+.1%})"
            line += f", {median[f'alone {own}'] * 1e3:.1f} without communication"
        print(line)
    for name in NETSIM[1:]:
        real, simulated = median["netsim dense"] / median[f"netsim {name}"], predicted["dense"] / predicted[name]
        print(f"{name} is {real:.2f} times as fast as dense, PREDICTED {simulated:.2f} ({simulated / real - 1:+.1%})")


if __name__ == "__main__":
    main()
