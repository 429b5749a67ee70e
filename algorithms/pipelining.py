"""The option ``segment``: whether rings and double trees forward vectors in slices, as NCCL does, or in one piece."""

from __future__ import annotations

from typing import Final, TypeAlias

from netsim._util.options import Option, Size
from netsim.comm.collectives import Pipeline

Segment: TypeAlias = int | str
"""The bytes of a slice, ``auto`` for the default of :class:`Pipeline`, or ``none`` for whole chunks."""
AUTO, NONE = "auto", "none"
DEFAULT: Final[Segment] = AUTO

SEGMENT: Final = Option(
    Size((AUTO, NONE)),
    DEFAULT,
    "Size of the slices that a ring or double tree forwards: auto (512KiB), a size, or none (whole chunks).",
    name="segment",
)


def pipeline_of(segment: Segment) -> Pipeline | None:
    """Return how rings forward; None for whole chunks."""
    if segment == NONE:
        return None
    return Pipeline() if segment == AUTO else Pipeline(SEGMENT.read(segment))
