"""The option ``segment``: whether rings and double trees forward vectors in slices, as NCCL does, or in one piece."""

from __future__ import annotations

from typing import Final, TypeAlias

from netsim._util.options import Option, Size
from netsim.comm.collectives import Pipeline

Segment: TypeAlias = int | str
"""The bytes of a slice, ``auto`` for the default of a collective, or ``none`` for whole chunks."""
AUTO, NONE = "auto", "none"
DEFAULT: Final[Segment] = AUTO

SEGMENT: Final = Option(
    Size((AUTO, NONE)),
    DEFAULT,
    "Size of the slices that a ring or double tree forwards: auto (512KiB; an 8th of a ring's chunk or a 128th of a "
    "tree's half if that is more), a size, or none (whole chunks).",
    name="segment",
)
RING: Final = Pipeline(most=Pipeline().window)
"""The slices of a ring by default. All slices of a chunk are in flight, so that they take at most the time of the whole
chunk on links of any latency, and the same time as smaller slices where these hide the latency."""


def pipeline_of(segment: Segment, auto: Pipeline = RING) -> Pipeline | None:
    """Return how a collective forwards, with `auto` by default; None for whole chunks."""
    if segment == NONE:
        return None
    return auto if segment == AUTO else Pipeline(SEGMENT.read(segment))
