"""The forkserver: it forks a job's ranks, on loopback or each into a namespace of a shaped cluster, and waits for them.

It imports torch once for all ranks. In a cluster it starts with nothing imported, since only a process of one thread
may enter a user namespace. When it ends, the kernel ends the ranks and takes the cluster down.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from algorithms import ALGORITHMS, name_of
from netsim._util.errors import NetsimError, reason_of
from netsim._util.interrupts import ended_politely
from netsim._util.system import compiler
from netsim.distributed.failures import RankFailedError
from netsim.distributed.job import HOST, JOB, LAUNCHER, LIMITS, Job, RankTask, task_of
from netsim.distributed.rank_context import taking_part
from netsim.distributed.supervision import ForkedRank, die_with, stop, supervise

LOOPBACK = "lo"
PR_SET_NAME = 15


def main() -> int:
    """Fork and supervise the ranks of the job whose folder the environment names; return the exit status."""
    die_with(int(os.environ[LAUNCHER]))
    job = Job(Path(os.environ[JOB]))
    details = job.read()
    ranks: list[ForkedRank] = []
    try:
        with ended_politely():
            namespaces = _cluster(details)
            task = task_of(details)
            _import_for_ranks(details)
            ranks.extend(_fork(job, rank, namespaces, details["ranks"], task) for rank in range(details["ranks"]))
            supervise(ranks, job, range(len(ranks)), details["timeout_s"], lambda what, step: None)
    except NetsimError as error:
        kind = error.kind if isinstance(error, RankFailedError) else type(error).__name__
        job.tell(HOST, kind, str(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        stop(ranks)
    return 0


def _cluster(details: dict[str, Any]) -> list[int] | None:
    """Build the cluster that the job asks for, if any, and return descriptors of its namespaces."""
    if "cluster" not in details:
        return None
    from netsim.cluster.namespaces import become_owner, build
    from netsim.cluster.plan import Cluster

    become_owner()
    return build(Cluster(**details["cluster"]))


def _import_for_ranks(details: dict[str, Any]) -> None:
    """Import what every rank uses: torch takes two seconds of a core, and numba, for sparse algorithms, one."""
    for module in ("torch.distributed", "netsim.distributed.interpreter"):
        import_module(module)
    names = map(name_of, details.get("experiment", {}).get("algorithms", ()))
    if any(name in ALGORITHMS and ALGORITHMS[name].sparse for name in names):
        with suppress(ImportError):  # ranks then select with NumPy
            compiler()


def _fork(job: Job, rank: int, namespaces: list[int] | None, world_size: int, task: RankTask) -> ForkedRank:
    """Fork a rank, which never returns from here."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        raise NetsimError(f"rank {rank} could not be started: {reason_of(error)}; {LIMITS}") from error
    if pid:
        return ForkedRank(pid)
    code = 1
    try:
        die_with(parent)
        interface = LOOPBACK
        if namespaces is not None:
            from netsim.cluster.namespaces import enter
            from netsim.cluster.plan import INTERFACE

            interface = INTERFACE
            enter(namespaces[rank])
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        stderr = os.open(job.stderr(rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(stderr, 2)
        code = run_forked_rank(job, rank, world_size, interface, task)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def run_forked_rank(job: Job, rank: int, world_size: int, interface: str, task: RankTask) -> int:
    """Run a job's task as one rank, and return the exit status; rank 0 stores the results.

    Parameters
    ----------
    job
        The job.
    rank, world_size
        This rank, and the number of ranks.
    interface
        Network interface that gloo is to use.
    task
        What every rank runs.
    """
    from netsim.distributed.rank_main import process_group

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, f"netsim rank {rank}".encode())  # as ps and top show it
    with taking_part(rank, partial(job.tell, rank), partial(job.phases.enter, rank)):
        details = job.read()
        os.environ["GLOO_SOCKET_IFNAME"] = interface
        where = f"file://{job.rendezvous}"
        with process_group(details["backend"], details["timeout_s"], where, rank, world_size, details):
            for result in task(details, rank, job.progressed):
                if rank == 0:
                    job.add_result(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
