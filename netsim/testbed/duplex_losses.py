"""What links lose where all ranks send at once, as point-to-point messages say: then processors serve queues late."""

from __future__ import annotations

import functools
import statistics
from dataclasses import replace

from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.comm.worker import Worker
from netsim.network.fabric import Fabric
from netsim.simulator.scheduler import RankScheduler
from netsim.testbed.exchanges import EXCHANGES, permutation
from netsim.testbed.host_model import HostTerms, HostTransport
from netsim.training.costs import AssumedCosts

BEFORE, MESSAGES = 4, 16
"""Of a crowd so many messages are simulated, of which the first do not count: ranks do not keep step yet."""
MOST = 0.2
"""No more than this is lost, however long messages took: something else was wrong then."""


def crowd_message(nbytes: int, fabric: Fabric, wire: Wire, terms: HostTerms) -> float:
    """Return the seconds that the model gives a message of many that each rank sends another, one after the other."""
    transport = HostTransport(fabric, wire, terms, AssumedCosts({}))
    vector = EXCHANGES["permutation"].size_only(nbytes)

    async def program(worker: Worker) -> float:
        for _ in range(BEFORE):
            await permutation(worker, vector)
        began = transport.now
        for _ in range(MESSAGES):
            await permutation(worker, vector)
        return (transport.now - began) / PICOSECONDS / MESSAGES

    ranks = len(fabric.hosts)
    tasks = RankScheduler[float](transport).run([Worker(rank, ranks) for rank in range(ranks)], program)
    return statistics.median(task.result for task in tasks if task.result is not None)


@functools.lru_cache(64)
def with_losses(terms: HostTerms, nbytes: int, seconds: float, fabric: Fabric, wire: Wire) -> HostTerms:
    """Return terms with which a message of `nbytes` of a crowd takes the `seconds` that it was measured to take.

    That is, if it took longer than without losses. They count for as many bytes of larger messages, too.
    """
    share = 0.0
    for _ in range(2):  # what is lost makes a message longer by nearly as much
        terms = replace(terms, lost_share=share, lost_bytes=wire.bytes_of(nbytes))
        took = crowd_message(nbytes, fabric, wire, terms)
        share = min(MOST, max(0.0, share + seconds / took - 1))
    return replace(terms, lost_share=share)
