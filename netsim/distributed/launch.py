"""Starts the ranks of a real run on this machine, or joins a job of torchrun as one rank."""

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

from algorithms import is_users
from algorithms.own import check_for_ranks
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
from netsim.simulator.opening import load_task
from netsim.simulator.rehearsal import rehearse
from netsim.training import workloads
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
    """Start all ranks on this machine, and wait for them.

    A failing rank ends all ranks, so algorithms after one that diverged run on new ranks. After any other failure no
    further algorithm runs.

    Parameters
    ----------
    experiment
        What is trained.
    backend, timeout_s
        Backend of torch.distributed, and the seconds after which an operation that waits fails.
    on_round
        Called with the progress of rank 0.
    cluster
        A shaped cluster to build; None for loopback.

    Returns
    -------
    tuple
        The results, and the error of each algorithm that failed by the algorithm's name.

    Raises
    ------
    RankFailedError
        If a rank fails before there is any result.
    """
    for name in filter(is_users, experiment.algorithms):
        check_for_ranks(name)
    workloads.check_for_ranks(experiment.workload)
    rehearse(experiment)
    task, _, _ = load_task(experiment, "cpu")  # refuse here, before ranks exist, what every rank would refuse
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
    """Return the error of an exit message."""
    return NonFiniteGradientError(message) if kind == NonFiniteGradientError.__name__ else NetsimError(message)


def launch_work(
    details: dict[str, Any], ranks: int, on_round: OnRound = ignore, cluster: Cluster | None = None
) -> list[dict[str, Any]]:
    """Run a task on ranks of this machine, and return the results of rank 0.

    Parameters
    ----------
    details
        Arguments of the task. ``work`` names its function (:func:`netsim.distributed.job.task_of`); ``backend`` and
        ``timeout_s`` are required, too.
    ranks
        Number of ranks.
    on_round
        Called with the progress of rank 0.
    cluster
        A shaped cluster to build; None for loopback.

    Raises
    ------
    RankFailedError
        If a rank fails; the error holds the results until then.
    """
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
    """Make a temporary folder for a job."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="netsim-", ignore_cleanup_errors=True)
    except OSError as error:
        raise NetsimError(f"no folder for the run could be made: {reason_of(error)}; TMPDIR must name one") from error
    with folder as name:
        yield Path(name)


def _start(job: Job) -> subprocess.Popen[bytes]:
    """Start the forkserver."""
    environment = child_environment() | {JOB: str(job.folder), LAUNCHER: str(os.getpid())}
    with job.stderr(HOST).open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "netsim.distributed.forkserver"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=_stdout_of_ranks(),
            stderr=stderr,
        )


def _stdout_of_ranks() -> int:
    """Return the file for the ranks' stdout: this process's stderr, since stdout is for results."""
    try:
        os.fstat(STDERR)
    except OSError:  # it was closed
        return subprocess.DEVNULL
    return STDERR


def under_launcher() -> bool:
    """Return whether torchrun, or something like it, started this process as a rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


Rest = Callable[[Experiment, list[Result], dict[str, NetsimError]], None]
"""``rest(experiment, results, failed)`` delivers on rank 0 the results before this process had to end."""


def join(
    options: Callable[[int], Experiment],
    topology: str,
    backend: str,
    timeout_s: float,
    rest: Rest,
    on_round: OnRound = ignore,
) -> tuple[Experiment, list[Result]]:
    """Train as one rank of torchrun's job; an error ends this process.

    Parameters
    ----------
    options
        ``options(workers)`` returns the experiment for a number of workers.
    topology
        Decides how many of the ranks are parameter servers.
    backend, timeout_s
        Backend of torch.distributed, and the seconds after which an operation that waits fails.
    rest
        Called before an error ends the process.
    on_round
        Told the progress of this rank.

    Returns
    -------
    tuple
        The experiment, and its results on rank 0, an empty list elsewhere.
    """
    world_size = _from_environment("WORLD_SIZE")
    workers = world_size - servers_of(topology)
    if workers < 1:
        raise UsageError(
            f"topology {topology} needs at least {servers_of(topology) + 1} ranks, servers and a worker, but torchrun "
            f"started {world_size}"
        )
    experiment = options(workers)
    check_backend(backend, experiment)
    details = {"work": TRAIN, "experiment": experiment.config(), "backend": backend, "timeout_s": timeout_s}

    def ended_early(so_far: list[dict[str, Any]], why: NetsimError) -> None:
        results = [Result(**result) for result in so_far]
        begun = experiment.algorithms[: len(results) + 1][-1]
        rest(experiment, results, {begun: why})

    return experiment, [Result(**result) for result in join_work(details, on_round, ended_early)]


def join_work(
    details: dict[str, Any],
    on_round: OnRound = ignore,
    ended_early: Callable[[list[dict[str, Any]], NetsimError], None] | None = None,
) -> list[dict[str, Any]]:
    """Run a task as one rank of torchrun's job; an error ends this process, with a message that says where it was.

    Parameters
    ----------
    details
        Arguments of the task, as for :func:`launch_work`.
    on_round
        Told the progress of this rank.
    ended_early
        Called with the results so far, if there are any, and the error, before an error ends the process.

    Returns
    -------
    list of dict
        The results on rank 0, an empty list elsewhere.
    """
    rank, world_size = _from_environment("RANK"), _from_environment("WORLD_SIZE")
    if "LOCAL_RANK" in os.environ:
        _from_environment("LOCAL_RANK")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with(os.getppid(), heed_interrupts=True)
    results: list[dict[str, Any]] = []

    def tell(kind: str, message: str, code: int, peer: int | None) -> None:
        if results and ended_early is not None:
            ended_early(results, _error(kind, message))

    group = process_group(details["backend"], details["timeout_s"], "env://", rank, world_size, details)
    with taking_part(rank, tell, Alarm(details["timeout_s"], tell)), group:
        if rank == 0:
            print(f"netsim: rank 0 {where_it_listens()}", file=sys.stderr, flush=True)  # noqa: T201
        for result in task_of(details)(details, rank, on_round):
            results.append(result)  # noqa: PERF402  `tell` needs the results before the end
    return results


def ranks_given() -> int:
    """Return the number of ranks that torchrun has started."""
    return _from_environment("WORLD_SIZE")


def _from_environment(name: str) -> int:
    """Return a whole number from an environment variable of torchrun."""
    value = read_whole(os.environ[name])
    if value is None:
        raise UsageError(f"{name} {shown(os.environ[name])} must be a whole number, as torchrun sets it")
    return value
