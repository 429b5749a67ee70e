"""The process that forks a job's ranks, on loopback or each into a namespace of a shaped cluster, and waits for them.

It imports torch once for all ranks. In a cluster it begins with nothing imported, since only a process of one
thread may enter a user namespace. When it ends, the kernel ends the ranks and takes the cluster down.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from netsim._util.errors import NetsimError, reason_of
from netsim._util.interrupts import ended_politely
from netsim.distributed.failures import RankFailedError
from netsim.distributed.job import (
    HOST,
    JOB,
    LAUNCHER,
    LIMITS,
    ForkedRank,
    Job,
    RankTask,
    die_with,
    run_rank_of,
    stop,
    supervise,
)

LOOPBACK = "lo"


def main() -> int:
    """Host the job whose folder the environment names; return the exit status."""
    die_with(int(os.environ[LAUNCHER]))
    job = Job(Path(os.environ[JOB]))
    details = job.read()
    ranks: list[ForkedRank] = []
    try:
        with ended_politely():
            namespaces = _cluster(details)
            from netsim.distributed.tasks import rank_task

            work = rank_task(details["work"])
            ranks.extend(_fork(job, rank, namespaces, details["ranks"], work) for rank in range(details["ranks"]))
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
    """Build the cluster that the job asks for, if any, and return its namespaces."""
    if "cluster" not in details:
        return None
    from netsim.cluster.namespaces import become_owner, build
    from netsim.cluster.plan import Cluster

    become_owner()
    return build(Cluster(**details["cluster"]))


def _fork(job: Job, rank: int, namespaces: list[int] | None, world_size: int, work: RankTask) -> ForkedRank:
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
        code = run_rank_of(job, rank, world_size, interface, work)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
