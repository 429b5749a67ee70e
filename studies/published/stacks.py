"""How NCCL and gloo exchange: facts of their source code, in the terms of the simulation."""

from __future__ import annotations

from typing import Any

from netsim.comm.collectives import Pipeline

MIB = 2**20

NCCL_RING = Pipeline(2 * MIB, window=2)
"""Slices of a ring all-reduce: 1 MiB (2 of the 8 steps of a 4 MiB buffer) on each of two channels, two in flight.

NCCL 2.8, ``src/include/collectives.h``: ALLREDUCE_SLICESTEPS = NCCL_STEPS / 4, ALLREDUCE_CHUNKSTEPS = NCCL_STEPS / 2.
"""
NCCL_CHAIN = Pipeline(MIB, window=8)
"""Slices of a broadcast or reduction: one step of 512 KiB on each of two channels, eight in flight."""
NCCL_SOCKETS = 16
"""Sockets of a pair on Amazon's network: 2 threads with 8 sockets each (``NCCL_NSOCKS_PERTHREAD``)."""
GLOO_RING = Pipeline(MIB, window=2, fewest=2)
"""Segments of gloo's ring: at most 1 MiB, at least two per chunk, two in flight (``gloo/allreduce.cc``)."""
GLOO_EFFECTS: dict[str, Any] = {"clear_to_send": True}
"""A gloo message leaves when its receiver has said that the buffer is ready."""

JUMBO = 9001
"""MTU of Amazon's network within a region, in bytes."""


def payload_share(mtu: int) -> float:
    """Return the payload fraction of a full frame, as Linux queueing disciplines count: 52 + 14 bytes are headers."""
    return (mtu - 52) / (mtu + 14)
