"""The gradient exchange of ResNet-50 in JAX over 10 Gbit/s Ethernet (a blog of 2024)."""

from __future__ import annotations

from typing import Any

from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, RowPlan, Source, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import NCCL_RING

LATENCY_S = 50e-6
"""ASSUMED: the source states one switch only."""


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, size, bandwidth_bps = stated(row, "workers", "bytes_per_rank", "bandwidth_bps")
    network: dict[str, Any] = {"bandwidth_bps": bandwidth_bps, "latency_s": LATENCY_S}
    # A footnote says that the number of nodes was odd.
    return [
        RowPlan.of(exchange_question("ring-all-reduce", ranks, size, **network, pipeline=NCCL_RING))
        for ranks in (workers, workers - 1)
        if ranks > 1
    ]


SOURCES = (
    Source(
        name="JAX blog",
        begins=('blog "Data Parallelism using standard Ethernet"',),
        cluster=lambda row: CalibratedCluster("10GbE X540, one switch"),
        plans=_plans,
        leaves_out="The profiler's time leaves out what overlaps, and the source contradicts itself on P.",
    ),
)
