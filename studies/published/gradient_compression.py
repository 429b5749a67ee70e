"""All-reduces in training steps on AWS, dense and compressed (github.com/vineeths96/Gradient-Compression).

The source does not name its instances; its compute times show two kinds. For each kind, two terms are calibrated at
P = 2: the bandwidth, on dense all-reduces, and the latency of a message, on all-reduces of random-k entries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import NCCL_RING

K80_S = 0.3
"""Both models compute for longer than this on the slow instances, and for less on the fast ones."""

EXCHANGES = {"all-reduce": ("ring-all-reduce", "double-tree-all-reduce"), "all-gather": ("ring-all-gather",)}
"""By the beginning of an algorithm: NCCL's exchanges, of which it takes what it expects to be the fastest."""


@cache
def _instances(kind: str) -> CalibratedCluster:
    return CalibratedCluster(
        f"{kind} instances of Gradient-Compression",
        {"bandwidth_bps": Term("bit/s", 9e9, 1e8, 1e11), "latency_s": Term("s", 1e-4, 1e-6, 1e-2)},
        lambda row: row.workers == 2 and row.what.startswith(("NoneAll", "GlobalRandKMaxNormReducer")),
        "float32 and random-k all-reduces at P = 2",
    )


def _cluster(row: PublishedRow) -> CalibratedCluster:
    return _instances("slow" if row.compute_s is not None and row.compute_s > K80_S else "fast")


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, size, _ = stated(row, "workers", "bytes_per_rank", "compute_s")
    if "Heterogeneous" in row.notes:
        raise NotPredictedError("the time contains a fast machine's wait for a slow one")
    exchanges = next((ways for name, ways in EXCHANGES.items() if row.algorithm.startswith(name)), None)
    if exchanges is None:
        raise NotPredictedError(f"{row.algorithm} is not modelled for this source")
    network: dict[str, Any] = {"bandwidth_bps": terms["bandwidth_bps"], "latency_s": terms["latency_s"]}
    ways = [exchange_question(name, workers, size, **network, pipeline=NCCL_RING) for name in exchanges]
    return [RowPlan.of(ways[0]), RowPlan([(1, way) for way in ways], compose=min)]


SOURCES = (
    Source(
        name="Gradient-Compression",
        begins=("github.com/vineeths96/Gradient-Compression",),
        cluster=_cluster,
        plans=_plans,
        leaves_out="Links of AWS instances of up to 10 Gbit/s vary from day to day, and with the number of peers.",
        contender=lambda row: (row.what.rpartition(", ")[2], f"{row.bytes_per_rank} bytes"),
    ),
)
