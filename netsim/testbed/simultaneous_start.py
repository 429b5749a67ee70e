"""The simultaneous start of measured ranks, and their idleness afterwards."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from netsim._util.device import gpu_of_rank
from netsim.comm.worker import Sends, Worker
from netsim.testbed.host_model import START_DELAY_S

if TYPE_CHECKING:
    from netsim.distributed.interpreter import RankInterpreter


IDLE_MARGIN_S = 0.02
"""Seconds for which ranks that are done stay idle beyond the expected end of the slowest rank.

Without it the next barrier's messages disturb ranks that are not done: with 16 ranks, the last step of a ring took
twice as long as the others."""


class SimultaneousStart:
    """Starts all ranks at one instant of their common clock; ranks without a common clock start after a barrier.

    Attributes
    ----------
    hosts : int
        Number of machines that the ranks are on.
    backend : str
        Backend of torch.distributed.
    device : str
        Where this rank's vectors are.
    """

    def __init__(self, backend: str = "gloo") -> None:
        import torch.distributed as dist

        boots: list[str] = [""] * dist.get_world_size()
        dist.all_gather_object(boots, _boot())
        self.hosts = len(set(boots))
        self.backend = backend
        self.device = gpu_of_rank("cuda") if backend == "nccl" else "cpu"

    def begin(self) -> float:
        """Wait until the agreed start; return that instant of this rank's monotonic clock."""
        instant = self.agree()
        sleep_until(instant)
        return instant

    def agree(self) -> float:
        """Return the instant of this rank's monotonic clock at which all ranks start, without waiting for it."""
        import torch
        import torch.distributed as dist

        dist.barrier()
        if self.hosts > 1:
            return time.monotonic()
        instant = torch.tensor([time.monotonic() + START_DELAY_S], dtype=torch.float64)
        dist.broadcast(instant, 0)
        return float(instant)

    def maximum(self, seconds: float) -> float:
        """Return, on every rank, the largest `seconds` that any rank passed."""
        import torch
        import torch.distributed as dist

        value = torch.tensor([seconds], dtype=torch.float64)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return float(value)

    def broadcast(self, flag: bool) -> bool:
        """Return, on every rank, the `flag` that rank 0 passed."""
        import torch
        import torch.distributed as dist

        value = torch.tensor([flag])
        dist.broadcast(value, 0)
        return bool(value)


def idle_until_all_done(began: float, longest_s: float) -> None:
    """Sleep until `longest_s` after `began`, with a margin: all ranks should then be done."""
    sleep_until(began + longest_s + IDLE_MARGIN_S)


def sleep_until(instant: float) -> None:
    """Sleep until an instant of the monotonic clock."""
    time.sleep(max(0.0, instant - time.monotonic()))


def _boot() -> str:
    """Return a name of the running kernel, the same for all processes on it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.getpid()}"


def raise_priority() -> bool:
    """Give this rank's threads real-time priority, so that they wake before others; return whether that is allowed."""
    threads = [int(task.name) for task in Path("/proc/self/task").iterdir()] if sys.platform == "linux" else []
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))
    except OSError:
        return False
    return bool(threads)


def rank_interpreter(worker: Worker, start: SimultaneousStart, sends: Sends = "eager") -> RankInterpreter:
    """Return the interpreter that runs a worker's program over torch.distributed."""
    from netsim.distributed.interpreter import RankInterpreter

    return RankInterpreter(worker, start.device, start.backend, sends)
