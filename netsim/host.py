"""The process that owns a shaped cluster: it makes the namespaces, forks a rank into each, and waits for them.

It begins with nothing imported, since only a process of one thread may enter a user namespace. Then it
imports torch once for all ranks. When it ends, the kernel ends the ranks and takes the cluster down.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from netsim.cluster.namespaces import become_owner, build, enter
from netsim.cluster.plan import INTERFACE, Cluster
from netsim.errors import NetsimError
from netsim.job import JOB, LAUNCHER, Forked, Job, die_with, run_rank_of, stop, supervise


def main() -> int:
    """Host the job whose folder the environment names; return the exit status."""
    die_with(int(os.environ[LAUNCHER]))
    job = Job(Path(os.environ[JOB]))
    details = job.read()
    cluster = Cluster(**details["cluster"])
    ranks: list[Forked] = []
    try:
        become_owner()
        namespaces = build(cluster)
        from netsim.ranks import WORKS

        work = WORKS[details["work"]]
        for rank, namespace in enumerate(namespaces):
            ranks.append(_fork(job, rank, namespace, cluster.ranks, work))
        supervise(ranks, job, [job.stderr(rank) for rank in range(cluster.ranks)], lambda what, step: None)
    except NetsimError as error:
        print(f"netsim: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return error.exit_code
    finally:
        stop(ranks)
    return 0


def _fork(job: Job, rank: int, namespace: int, world_size: int, work: object) -> Forked:
    parent = os.getpid()
    if pid := os.fork():
        return Forked(pid)
    code = 1
    try:
        die_with(parent)
        enter(namespace)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        stderr = os.open(job.stderr(rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(stderr, 2)
        code = run_rank_of(job, rank, world_size, INTERFACE, work)  # type: ignore[arg-type]
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
