"""What a training step takes with hooks of netsim beside torch's own: DDP's all-reduce, float16 and PowerSGD.

Each step trains the network 64-1024-1024-10 of digits-mlp on random inputs. The hooks take turns, so that a busy
machine is busy for all of them. A hook's time is the median over steps of the slowest rank's time.

    python benchmarks/ddp_hooks.py                                # four ranks over loopback
    torchrun --nproc-per-node 1 --nnodes 4 … benchmarks/ddp_hooks.py    # over a network
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import netsim
from netsim._util.system import environment
from netsim.training.workloads.fully_connected import FullyConnected

WIDTHS = (64, 1024, 1024, 10)
TORCH = ("all-reduce", "float16", "PowerSGD 1", "PowerSGD 4")


def network(widths: Sequence[int], group: dist.ProcessGroup | None = None) -> DistributedDataParallel:
    torch.manual_seed(0)
    # With several buckets on gloo, PowerSGD begins collectives in an order that differs between ranks, and fails.
    return DistributedDataParallel(FullyConnected(*widths), bucket_cap_mb=100, process_group=group)


def by_torch(model: DistributedDataParallel, kind: str) -> DistributedDataParallel:
    if kind == "float16":
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif kind.startswith("PowerSGD"):
        rank = int(kind.split()[-1])
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=2)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return model


def by_netsim(model: DistributedDataParallel, algorithm: str, density: float) -> DistributedDataParallel:
    netsim.ddp.register(model, algorithm, **({} if algorithm == "dense" else {"density": density}))
    return model


def stepper(model: DistributedDataParallel, widths: Sequence[int], rank: int) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    inputs = torch.randn(16, widths[0], generator=generator)
    labels = torch.randint(widths[-1], (16,), generator=generator)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return step


def slowest(step: Callable[[], None]) -> float:
    """Return the seconds of a step on the slowest rank; all ranks begin together."""
    dist.barrier()
    began = time.perf_counter()
    step()
    seconds = torch.tensor(time.perf_counter() - began)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds)


def measure(rank: int, asked: argparse.Namespace, store: str) -> None:
    torch.set_num_threads(1)
    joined = {"rank": rank, "world_size": asked.ranks} if store else {}
    dist.init_process_group("gloo", init_method=store or "env://", **joined)
    rank = dist.get_rank()
    models = {f"torch {kind}": by_torch(network(WIDTHS), kind) for kind in TORCH}
    models |= {
        f"netsim {name}": by_netsim(network(WIDTHS), name, asked.density)
        for name in ("dense", "topk", "gtopk", "randk")
    }
    steps = {name: stepper(model, WIDTHS, rank) for name, model in models.items()}
    took: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-5, asked.steps):  # the first build buckets, compile kernels and start PowerSGD
        for name, step in steps.items():
            seconds = slowest(step)
            if turn >= 0:
                took[name].append(seconds)
    if rank == 0:
        medians = {name: statistics.median(times) for name, times in took.items()}
        if asked.json:
            given = {"ranks": dist.get_world_size(), "density": asked.density, "steps": asked.steps}
            print(json.dumps(given | {"environment": environment("cpu"), "step_s": medians}))
        else:
            for name, seconds in medians.items():
                ratio = seconds / medians["torch all-reduce"]
                print(f"{name:18} {seconds * 1e3:8.2f} ms a step MEASURED ({ratio:.2f} times DDP's all-reduce)")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--density", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if "RANK" in os.environ:  # under torchrun
        measure(0, asked, "")
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(measure, (asked, f"file://{folder}/store"), nprocs=asked.ranks)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
