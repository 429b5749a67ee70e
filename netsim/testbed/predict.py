"""What an exchange takes according to the model: the same text, over the simulated cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.comm.payload import nbytes
from netsim.comm.worker import Compute, Sends, Worker
from netsim.network.fabric import Fabric
from netsim.simulator.scheduler import RankScheduler
from netsim.testbed.exchanges import EXCHANGES
from netsim.testbed.host_model import HostTerms, HostTransport


@dataclass(frozen=True, slots=True)
class MergeCosts:
    """Charges merges by the bytes that they read; exchanges compute nothing else."""

    seconds_per_byte: float

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        return round(self.seconds_per_byte * PICOSECONDS * sum(nbytes(arg) for arg in request.args))


def predicted_exchange(
    exchange: str, size: int, sends: Sends, fabric: Fabric, wire: Wire, terms: HostTerms, merge_s_per_byte: float = 0.0
) -> list[float]:
    """Return the seconds after which each rank is done with one exchange of `size` bytes on an idle network."""
    transport = HostTransport(fabric, wire, terms, MergeCosts(merge_s_per_byte), sends)
    vector = EXCHANGES[exchange].size_only(size)

    async def program(worker: Worker) -> float:
        await EXCHANGES[exchange].program(worker, vector)
        return transport.now / PICOSECONDS

    ranks = len(fabric.hosts)
    tasks = RankScheduler[float](transport).run([Worker(rank, ranks) for rank in range(ranks)], program)
    return [task.result for task in tasks if task.result is not None]
