"""gloo's ring all-reduce as its issues report it (github.com/pytorch/gloo): what a host moves, and small messages."""

from __future__ import annotations

import re

from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import GLOO_RING, NCCL_RING

USABLE = re.compile(r"(\d+(?:\.\d+)?) ([MG])B/s")
"""A rate in the words of a row: "110 MB/s usable", "host-bound: 1.07 GB/s"."""
LATENCY_S = 50e-6
"""ASSUMED; none of these issues states one."""
NOTHING = CalibratedCluster("machines that state what they move")


def _stated_plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, size = stated(row, "workers", "bytes_per_rank")
    usable = USABLE.search(row.bandwidth_kind)
    if usable is None or row.algorithm != "all-reduce":
        raise NotPredictedError("the row does not state the rate that a host reaches")
    bandwidth = 8 * float(usable[1]) * {"M": 1e6, "G": 1e9}[usable[2]]
    return [
        RowPlan.of(
            exchange_question(
                "ring-all-reduce",
                workers,
                size,
                bandwidth_bps=bandwidth,
                latency_s=LATENCY_S,
                pipeline=GLOO_RING,
            )
        )
    ]


def _server(backend: str) -> CalibratedCluster:
    return CalibratedCluster(
        f"two servers, {backend}",
        {"latency_s": Term("s", 1e-4, 1e-6, 0.1), "bandwidth_bps": Term("bit/s", 2e8, 1e6, 1e12)},
        lambda row: row.bytes_per_rank in (1024, 131_072),
        "1 KiB and 128 KiB",
    )


SERVERS = {backend: _server(backend) for backend in ("gloo", "nccl")}


def _small_plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, nodes, size = stated(row, "workers", "nodes", "bytes_per_rank")
    gloo = row.backend.startswith("gloo")
    return [
        RowPlan.of(
            exchange_question(
                exchange,
                nodes if gloo else workers,
                size,
                bandwidth_bps=terms["bandwidth_bps"],
                latency_s=terms["latency_s"],
                pipeline=GLOO_RING if gloo else NCCL_RING,
            )
        )
        for exchange in ("ring-all-reduce", *(() if gloo else ("double-tree-all-reduce",)))
    ]


SOURCES = (
    Source(
        name="gloo issues 21 and 248",
        begins=("github.com/pytorch/gloo/issues/21 ", "github.com/pytorch/gloo/issues/248 "),
        cluster=lambda row: NOTHING,
        plans=_stated_plans,
        leaves_out="The links' latency, which neither issue states.",
    ),
    Source(
        name="gloo issue 158",
        begins=("github.com/pytorch/gloo/issues/158 ",),
        cluster=lambda row: SERVERS["gloo" if row.backend.startswith("gloo") else "nccl"],
        plans=_small_plans,
        leaves_out="NCCL's choice among protocols and trees for small messages, which moves its time by a half from "
        "one size to the next.",
    ),
)
