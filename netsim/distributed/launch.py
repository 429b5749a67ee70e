"""Starts the ranks of a real run on this machine, over loopback or in a shaped cluster, or joins torchrun's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim._util.errors import NetsimError, NonFiniteGradientError, UsageError, reason_of, shown
from netsim._util.interrupts import ended_politely
from netsim._util.progress import OnRound, ignore
from netsim._util.system import check_memory, child_environment, where_it_listens
from netsim._util.units import read_whole
from netsim.distributed.failures import RankFailedError
from netsim.distributed.job import HOST, JOB, LAUNCHER, LIMITS, Job, task_of
from netsim.distributed.rank_context import Alarm, taking_part
from netsim.distributed.rank_main import TRAIN, check_backend, process_group, ranks_of
from netsim.distributed.supervision import GRACE_S, die_with, stop, supervise
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.simulator.session import load_task
from netsim.training.workloads import is_own
from topologies import servers_of

if TYPE_CHECKING:
    from netsim.cluster.plan import Cluster

STDERR = 2
RANK_BYTES = 30 * 10**6
"""Memory that a rank's process takes at least, besides what it shares with others."""


def launch(
    experiment: Experiment,
    backend: str,
    timeout_s: float,
    on_round: OnRound = ignore,
    cluster: Cluster | None = None,
) -> tuple[list[Result], dict[str, NetsimError]]:
    """Start all ranks here, on loopback or in a `cluster`, wait for them, and return the results.

    The second answer tells, by its name, what happened to each algorithm that failed. A rank that fails ends all
    of them, so algorithms after one that diverged begin with new ranks. After any other failure none is begun.
    """
    task, _, _ = load_task(experiment, "cpu")  # what every rank would refuse is better refused before there are ranks
    ranks = ranks_of(experiment)
    check_memory(f"{ranks:,} processes", ranks * RANK_BYTES, "start fewer with --nproc")
    details = {"work": TRAIN, "experiment": experiment.config(), "backend": backend, "timeout_s": timeout_s}
    if is_own(experiment.workload):
        from netsim.training.workloads.trial import parts

        details["launched_with"] = parts(task)
    results: list[dict[str, Any]] = []
    failed: dict[str, NetsimError] = {}
    while (ended := len(results) + len(failed)) < len(experiment.algorithms):
        try:
            results += launch_work(details | {"first": ended}, ranks, on_round, cluster)
        except RankFailedError as error:
            results += error.results
            diverged = error.kind == NonFiniteGradientError.__name__
            if not (results or failed or diverged):
                raise
            name = (experiment.algorithms[ended:] + experiment.algorithms[-1:])[len(error.results)]  # or after the last
            failed[name] = _error(error.kind, str(error)) if diverged else error
            if not diverged:
                break
    return [Result(**result) for result in results], failed


def _error(kind: str, message: str) -> NetsimError:
    """Return the error that a rank told of, by its class."""
    return NonFiniteGradientError(message) if kind == NonFiniteGradientError.__name__ else NetsimError(message)


def launch_work(
    details: dict[str, Any], ranks: int, on_round: OnRound = ignore, cluster: Cluster | None = None
) -> list[dict[str, Any]]:
    """Have so many ranks do the work that `details` name, and return what rank 0 says came out."""
    with _folder() as folder, ended_politely():
        job = Job(folder)
        try:
            job.write(details | {"ranks": ranks} | ({} if cluster is None else {"cluster": asdict(cluster)}))
            host = _start(job)
        except OSError as error:
            raise NetsimError(f"the ranks could not be started: {reason_of(error)}; {LIMITS}") from error
        try:
            supervise([host], job, [HOST], details["timeout_s"], on_round)
        except RankFailedError as error:
            error.results = job.results()
            raise
        finally:
            stop([host], 2 * GRACE_S)  # it ends its ranks first
        return job.results()


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for a job, and remove it at the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="netsim-", ignore_cleanup_errors=True)
    except OSError as error:
        raise NetsimError(f"no folder for the run could be made: {reason_of(error)}; TMPDIR must name one") from error
    with folder as name:
        yield Path(name)


def _start(job: Job) -> subprocess.Popen[bytes]:
    """Start the process that forks the ranks."""
    environment = child_environment() | {JOB: str(job.folder), LAUNCHER: str(os.getpid())}
    with job.stderr(HOST).open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "netsim.distributed.forkserver"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=_prints(),
            stderr=stderr,
        )


def _prints() -> int:
    """Return where the ranks' stdout goes: to this process's stderr, since stdout is for results."""
    try:
        os.fstat(STDERR)
    except OSError:  # it was closed
        return subprocess.DEVNULL
    return STDERR


def under_launcher() -> bool:
    """Return whether this process is a rank that torchrun, or something like it, started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


Rest = Callable[[Experiment, list[Result], dict[str, NetsimError]], None]
"""``rest(experiment, results, failed)`` delivers on rank 0 what came out before this process had to end."""


def join(
    options: Callable[[int], Experiment],
    topology: str,
    backend: str,
    timeout_s: float,
    rest: Rest,
    on_round: OnRound = ignore,
) -> tuple[Experiment, list[Result]]:
    """Take part as one rank of torchrun's job; `options(workers)` is the experiment for so many workers.

    Returns the results on rank 0, an empty list elsewhere. An error ends this process, after `rest`.
    """
    world_size = _given("WORLD_SIZE")
    workers = world_size - servers_of(topology)
    if workers < 1:
        raise UsageError(
            f"topology {topology} needs at least {servers_of(topology) + 1} ranks, servers and a worker, but torchrun "
            f"started {world_size}"
        )
    experiment = options(workers)
    check_backend(backend, experiment)
    details = {"work": TRAIN, "experiment": experiment.config(), "backend": backend, "timeout_s": timeout_s}

    def ended_early(found: list[dict[str, Any]], why: NetsimError) -> None:
        results = [Result(**result) for result in found]
        begun = experiment.algorithms[: len(results) + 1][-1]
        rest(experiment, results, {begun: why})

    return experiment, [Result(**result) for result in join_work(details, on_round, ended_early)]


def join_work(
    details: dict[str, Any],
    on_round: OnRound = ignore,
    ended_early: Callable[[list[dict[str, Any]], NetsimError], None] | None = None,
) -> list[dict[str, Any]]:
    """Do the work that `details` name as one rank of torchrun's job; an error ends this process, saying where it was.

    Returns what came out on rank 0, an empty list elsewhere. Before an error ends the process, `ended_early` is
    given what came out so far, if anything did, and why no more does.
    """
    rank, world_size = _given("RANK"), _given("WORLD_SIZE")
    if "LOCAL_RANK" in os.environ:
        _given("LOCAL_RANK")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with(os.getppid(), heed_interrupts=True)
    found: list[dict[str, Any]] = []

    def tell(kind: str, message: str, code: int, peer: int | None) -> None:
        if found and ended_early is not None:
            ended_early(found, _error(kind, message))

    group = process_group(details["backend"], details["timeout_s"], "env://", rank, world_size, details)
    with taking_part(rank, tell, Alarm(details["timeout_s"], tell)), group:
        if rank == 0:
            print(f"netsim: rank 0 {where_it_listens()}", file=sys.stderr, flush=True)  # noqa: T201
        for result in task_of(details)(details, rank, on_round):
            found.append(result)  # noqa: PERF402  an error must find what there is
    return found


def ranks_given() -> int:
    """Return how many ranks torchrun has started."""
    return _given("WORLD_SIZE")


def _given(name: str) -> int:
    """Return a whole number that torchrun put into the environment."""
    value = read_whole(os.environ[name])
    if value is None:
        raise UsageError(f"{name} {shown(os.environ[name])} must be a whole number, as torchrun sets it")
    return value
