"""Broadcasts and reductions of 1 GB over MPI: how time grows with P, relative to the time at P = 2 (a GitHub page).

The source does not state its network. The usable bandwidth of each series is therefore calibrated at P = 2.
"""

from __future__ import annotations

from functools import cache

from netsim.comm.collectives import Pipeline
from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import MIB

PIECES = Pipeline(8 * MIB, window=4)
"""ASSUMED slices of a library that pipelines."""
LATENCY_S = 50e-6
"""ASSUMED; it is nothing beside the seconds of 1 GB."""


@cache
def _series(what: str) -> CalibratedCluster:
    return CalibratedCluster(
        what,
        {"bandwidth_bps": Term("bit/s", 5e9, 1e8, 1e12)},
        lambda row: row.workers == 2,
        "P = 2",
    )


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, size = stated(row, "workers", "bytes_per_rank")
    operation = row.algorithm.partition(" ")[0]
    if operation not in ("broadcast", "reduce") or "tree" not in row.algorithm:
        raise NotPredictedError(f"{row.algorithm} is not modelled for this source")
    # A library that its page does not describe may also forward in a pipeline.
    others = () if "own tree" in row.what else (f"chain-{operation}",)
    return [
        RowPlan.of(
            exchange_question(
                exchange,
                workers,
                size,
                bandwidth_bps=terms["bandwidth_bps"],
                latency_s=LATENCY_S,
                pipeline=None if exchange.startswith("tree") else PIECES,
            )
        )
        for exchange in (f"tree-{operation}", *others)
    ]


SOURCES = (
    Source(
        name="MPI trees",
        begins=("GitHub markdown, stored text 33581787178",),
        cluster=lambda row: _series(row.what),
        plans=_plans,
        leaves_out="Intel MPI pipelines large messages, so that its time grows with less than log₂P.",
    ),
)
