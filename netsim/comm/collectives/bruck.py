"""Bruck's all-gather: the number of vectors that a rank holds doubles in every round, for any number of ranks.

J. Bruck, C.-T. Ho, S. Kipnis, E. Upfal and D. Weathersby, Efficient algorithms for all-to-all communications in
multiport message-passing systems, IEEE Transactions on Parallel and Distributed Systems 8(11), 1997.
"""

from __future__ import annotations

from netsim.comm.payload import VectorT
from netsim.comm.schedule import LazyRounds, Repeated, Round, Schedule, scheduled, shift
from netsim.comm.worker import Worker


@scheduled
def bruck_all_gather(worker: Worker, own: VectorT) -> Schedule[list[VectorT]]:
    """Return every worker's vector in rank order: ⌈log₂P⌉ α + (P-1) d β for vectors of d elements.

    In round i, rank r sends to rank r - 2^i the vectors of ranks r, r+1, …: 2^i vectors, but in the last round only
    P - 2^i.
    """
    workers = worker.workers

    def double(number: int) -> Round:
        distance = 1 << number
        return Round(shift(workers, -distance), lambda src, dst: src, bundled=min(distance, workers - distance))

    rounds = LazyRounds((workers - 1).bit_length(), double)
    return Schedule(rounds, Repeated(own, workers), list, holder="each")
