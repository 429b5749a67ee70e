"""Starts the ranks of a real run on this machine, over loopback or in a shaped cluster, or joins torchrun's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim.errors import UsageError
from netsim.experiment import Experiment
from netsim.job import JOB, LAUNCHER, Job, RankFailedError, die_with, run_rank_of, stop, supervise
from netsim.ranks import WORKS
from netsim.real import check_backend, process_group, ranks_of, run_rank
from netsim.results import Result
from netsim.simulation import OnRound, ignore, load_task
from topologies import servers_of

if TYPE_CHECKING:
    from netsim.cluster.plan import Cluster

__all__ = ["RankFailedError", "join", "launch", "launch_work", "under_launcher"]

LOOPBACK = "lo"


def launch(
    experiment: Experiment,
    backend: str,
    timeout_s: float,
    on_round: OnRound = ignore,
    cluster: Cluster | None = None,
) -> list[Result]:
    """Start all ranks here, on loopback or in a `cluster`, wait for them, and return the results."""
    load_task(experiment, "cpu")  # what every rank would refuse is better refused before there are ranks
    details = {"work": "train", "experiment": experiment.config(), "backend": backend, "timeout_s": timeout_s}
    return [Result(**result) for result in launch_work(details, ranks_of(experiment), on_round, cluster)]


def launch_work(
    details: dict[str, Any], ranks: int, on_round: OnRound = ignore, cluster: Cluster | None = None
) -> list[dict[str, Any]]:
    """Have so many ranks do the work that `details` name, and return what rank 0 says came out."""
    with tempfile.TemporaryDirectory(prefix="netsim-") as folder:
        job = Job(Path(folder))
        job.write(details | ({} if cluster is None else {"cluster": asdict(cluster)}))
        processes: list[subprocess.Popen[bytes]] = []
        names: list[int | str] = list(range(ranks)) if cluster is None else ["host"]
        try:
            processes.extend(_start(job, name, ranks) for name in names)
            supervise(processes, job, [job.stderr(name) for name in names], on_round)
        finally:
            stop(processes)
        return job.results()


def _start(job: Job, name: int | str, world_size: int) -> subprocess.Popen[bytes]:
    """Start a rank, or the host of a shaped cluster, which forks its ranks."""
    environment = os.environ | {JOB: str(job.folder), LAUNCHER: str(os.getpid()), "WORLD_SIZE": str(world_size)}
    if name != "host":
        environment |= {"RANK": str(name), "LOCAL_RANK": str(name)}
    module = "netsim.host" if name == "host" else "netsim.launch"
    with job.stderr(name).open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", module], env=environment, stdin=subprocess.DEVNULL, stderr=stderr
        )


def under_launcher() -> bool:
    """Return whether this process is a rank that torchrun, or something like it, started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join(
    options: Callable[[int], Experiment], topology: str, backend: str, timeout_s: float, on_round: OnRound = ignore
) -> tuple[Experiment, list[Result]]:
    """Take part as one rank of torchrun's job; `options(workers)` is the experiment for so many workers.

    Returns the results on rank 0, an empty list elsewhere.
    """
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    workers = world_size - (servers_of(topology) > 0)
    if workers < 1:
        raise UsageError(
            f"topology {topology} needs at least 2 ranks, a server and a worker, but torchrun started {world_size}"
        )
    experiment = options(workers)
    check_backend(backend, experiment.device)
    with process_group(backend, timeout_s, "env://", rank, world_size):
        return experiment, run_rank(experiment, backend, rank, on_round)


def _rank_main() -> int:
    die_with(int(os.environ[LAUNCHER]))
    job = Job(Path(os.environ[JOB]))
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return run_rank_of(job, rank, world_size, LOOPBACK, WORKS[job.read()["work"]])


if __name__ == "__main__":
    sys.exit(_rank_main())
