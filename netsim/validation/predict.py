"""What an exchange takes according to the model: the same text, over the simulated cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netsim.backends.cooperative import Cooperative
from netsim.backends.kernel import HostTerms, KernelMedium
from netsim.network.fabric import Fabric
from netsim.network.wire import Wire
from netsim.payload import nbytes
from netsim.units import PICOSECONDS
from netsim.validation.exchanges import EXCHANGES
from netsim.worker import Compute, Sends, Worker


@dataclass(frozen=True, slots=True)
class MergeCosts:
    """Charges merges by the bytes that they read; exchanges compute nothing else."""

    seconds_per_byte: float

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        return round(self.seconds_per_byte * PICOSECONDS * sum(nbytes(arg) for arg in request.args))


def predicted_exchange(
    exchange: str, size: int, sends: Sends, fabric: Fabric, wire: Wire, terms: HostTerms, merge_s_per_byte: float = 0.0
) -> float:
    """Return the seconds until the last rank is done with one exchange of `size` bytes on an idle network."""
    medium = KernelMedium(fabric, wire, terms, MergeCosts(merge_s_per_byte), sends)
    vector = EXCHANGES[exchange].size_only(size)
    ends: list[int] = []

    async def program(worker: Worker) -> None:
        await EXCHANGES[exchange].program(worker, vector)
        ends.append(medium.now)

    ranks = len(fabric.hosts)
    Cooperative[None](medium).run([Worker(rank, ranks) for rank in range(ranks)], program)
    return max(ends) / PICOSECONDS
