"""All-reduces of mlbench on GCP n1-standard-4 machines, over gloo, NCCL and Open MPI (github.com/mlbench).

Hosts of four virtual processors limit the bandwidth; the links could carry more. For each backend, two terms are
calibrated at P = 2: the latency of a message and the usable bandwidth.
"""

from __future__ import annotations

from functools import cache

from netsim.comm.collectives import Pipeline
from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import GLOO_RING, NCCL_RING

ALGORITHMS: dict[str, tuple[str, Pipeline | None, str | None]] = {
    "gloo": ("ring-all-reduce", GLOO_RING, None),
    "nccl": ("ring-all-reduce", NCCL_RING, "double-tree-all-reduce"),
    "Open MPI": ("ring-all-reduce", None, "recursive-doubling"),
}
"""By backend: its all-reduce, how it is pipelined, and what the backend may choose instead."""
SMALL_BYTES = 10_000
"""Open MPI's tuned all-reduce doubles recursively below this size."""


@cache
def _cluster(backend: str) -> CalibratedCluster:
    return CalibratedCluster(
        f"n1-standard-4, {backend}",
        {"latency_s": Term("s", 2e-4, 1e-6, 0.1), "bandwidth_bps": Term("bit/s", 4e9, 1e7, 1e12)},
        lambda row: row.workers == 2,
        "P = 2",
    )


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, size = stated(row, "workers", "bytes_per_rank")
    name = next((name for name in ALGORITHMS if row.backend.startswith(name)), None)
    if name is None or row.algorithm != "all-reduce":
        raise NotPredictedError(f"{row.algorithm} of {row.backend} is not modelled for this source")
    exchange, pipeline, other = ALGORITHMS[name]
    if other == "recursive-doubling" and size < SMALL_BYTES:
        exchange, other = other, exchange
    return [
        RowPlan.of(
            exchange_question(
                each,
                workers,
                size,
                bandwidth_bps=terms["bandwidth_bps"],
                latency_s=terms["latency_s"],
                pipeline=pipeline,
            )
        )
        for each in (exchange, other)
        if each is not None
    ]


SOURCES = (
    Source(
        name="mlbench",
        begins=("github.com/mlbench/mlbench-results",),
        cluster=lambda row: _cluster(row.backend),
        plans=_plans,
        leaves_out="The time of a host for a byte depends on the size: copies, and sums of vectors beyond its caches. "
        "Small all-reduces of GPU tensors took as long at P = 2 as at 4, so that the calibrated latency is too long.",
    ),
)
