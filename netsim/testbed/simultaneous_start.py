"""How ranks that are measured begin at one instant, and keep still when they are done."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from netsim.comm.worker import Sends, Worker
from netsim.testbed.host_model import AHEAD_S

if TYPE_CHECKING:
    from netsim.distributed.interpreter import RankInterpreter


REST_S = 0.02
"""Who is done keeps still until the last should be, by what it took before, and for so long after.

What a rank does next, such as going to a barrier, would otherwise be in the way of those that are not done: with 16
ranks the last step of a ring took twice as long as those before it."""


class SimultaneousStart:
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
        begin = self.agreed()
        sleep_until(begin)
        return begin

    def agreed(self) -> float:
        """Return when all begin, on this rank's monotonic clock, some time before that."""
        import torch
        import torch.distributed as dist

        dist.barrier()
        if self.hosts > 1:
            return time.monotonic()
        instant = torch.tensor([time.monotonic() + AHEAD_S], dtype=torch.float64)
        dist.broadcast(instant, 0)
        return float(instant)

    def longest(self, seconds: float) -> float:
        """Return the most that a rank says."""
        import torch
        import torch.distributed as dist

        said = torch.tensor([seconds], dtype=torch.float64)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return float(said)

    def first_says(self, flag: bool) -> bool:
        """Return what rank 0 says."""
        import torch
        import torch.distributed as dist

        said = torch.tensor([flag])
        dist.broadcast(said, 0)
        return bool(said)


def keep_still(began: float, longest_s: float) -> None:
    """Wait until all are done that began then, if none takes much longer than that."""
    sleep_until(began + longest_s + REST_S)


def sleep_until(instant: float) -> None:
    """Wait until an instant of the monotonic clock."""
    time.sleep(max(0.0, instant - time.monotonic()))


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


def interpreter(worker: Worker, start: SimultaneousStart, sends: Sends = "eager") -> RankInterpreter:
    """Return what answers a rank's requests."""
    from netsim.distributed.interpreter import RankInterpreter

    return RankInterpreter(worker, start.device, start.backend, sends)
