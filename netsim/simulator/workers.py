"""The workers of a run, of which the last ones may be servers with hosts of their own."""

from __future__ import annotations

from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


def make_workers(algorithm: Algorithm, workers: int, servers: int) -> list[Worker]:
    """Return one worker a rank; `servers` with hosts of their own are the ranks after the last training one."""
    serving = servers if algorithm.uses_server else 0
    return [Worker(rank, workers, workers if serving else 0) for rank in range(workers + serving)]


def holds_a_part(worker: Worker, ranks: int) -> bool:
    """Return whether a rank is one of several servers, each of which holds a part of the parameters."""
    return not worker.trains and ranks > worker.workers + 1
