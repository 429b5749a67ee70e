"""What pipelined collectives share: how a chunk is cut into slices, and how slices are added."""

from __future__ import annotations

from typing import NamedTuple

from netsim._util.errors import InfeasibleError
from netsim._util.units import format_bytes
from netsim.comm.payload import Vector, add
from netsim.comm.schedule import Combine
from netsim.comm.worker import Compute, Worker

MOST_SLICES = 2**15
"""Most slices of a chunk. The longest vector in slices of 512 KiB has as many."""


class Pipeline(NamedTuple):
    """How chunks are forwarded in slices; the default is NCCL's.

    Parameters
    ----------
    slice_bytes
        The largest size of a slice.
    window
        The number of slices that a rank has posted at once.
    fewest
        The smallest number of slices of a chunk.
    most
        The largest number of slices of a chunk, whose slices are larger than `slice_bytes` if need be; None for any.

    References
    ----------
    NCCL: a buffer of 4 MiB in 8 steps. gloo: ``Pipeline(2**20, window=2, fewest=2)``.
    """

    slice_bytes: int = 2**19
    window: int = 8
    fewest: int = 1
    most: int | None = None

    def slices(self, size: int) -> int:
        """Return the number of slices of a chunk of `size` bytes; raise InfeasibleError for more than `MOST_SLICES`."""
        slices = max(1, self.fewest, -(-size // self.slice_bytes))
        if self.most is not None:
            slices = min(slices, self.most)
        if slices > MOST_SLICES:
            cut = f"{format_bytes(size)} in slices of {format_bytes(self.slice_bytes)}"
            raise InfeasibleError(f"{cut} are {slices:,} slices; take larger ones, at most {MOST_SLICES:,}")
        return slices

    def ahead(self, slices: int) -> int:
        """Return how many rounds of one slice are posted ahead, if a chunk has that many slices."""
        return min(self.window, slices) - 1


def addition(worker: Worker, slices: int) -> Combine[Vector]:
    """Return the addition of a received slice to this rank's own, charged as one of `slices` equal parts of a chunk."""
    start, end = worker.part
    part = worker.part if slices == 1 else (start, start + (end - start) / slices)

    def add_own(own: Vector, theirs: Vector) -> Compute[Vector]:
        return Compute("merge", add, (theirs, own), part=part)

    return add_own
