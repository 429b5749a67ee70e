"""Rows of any other source: an exchange is predicted if the row states all inputs of the simulation."""

from __future__ import annotations

from typing import Any

from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, RowPlan, Source, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import GLOO_EFFECTS, GLOO_RING, NCCL_CHAIN, NCCL_RING

NOTHING = CalibratedCluster("a network that its rows state")
EXCHANGES: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("nccl", "all-reduce"): ("ring-all-reduce", {"pipeline": NCCL_RING}),
    ("nccl", "broadcast"): ("chain-broadcast", {"pipeline": NCCL_CHAIN}),
    ("nccl", "reduce"): ("chain-reduce", {"pipeline": NCCL_CHAIN}),
    ("nccl", "point to point"): ("point-to-point", {}),
    ("gloo", "all-reduce"): ("ring-all-reduce", {"pipeline": GLOO_RING, "effects": GLOO_EFFECTS}),
    ("gloo", "broadcast"): ("doubling-broadcast", {"eager": True}),
    ("gloo", "point to point"): ("point-to-point", {}),
}
"""By backend and algorithm: the exchange, and how the backend runs it."""
SIMULATED_THERE = "Streaming DiLoCo arXiv 2501.18512 Table 1"
"""The beginning of a source whose rows are simulated bandwidths, not measured times."""


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    kind = (row.backend.partition(" ")[0].lower(), row.algorithm)
    if row.source.startswith(SIMULATED_THERE):
        raise NotPredictedError(
            "the row is a bandwidth that its source simulated, not a measured time; netsim study utilisation compares "
            "these rows"
        )
    if kind not in EXCHANGES:
        known = ", ".join(dict.fromkeys(algorithm for _, algorithm in EXCHANGES))
        raise NotPredictedError(
            f"neither source nor exchange is known: {row.algorithm or '?'} of {row.backend or '?'}; known exchanges of "
            f"nccl or gloo: {known}"
        )
    workers, size, bandwidth_bps, latency_s = stated(row, "workers", "bytes_per_rank", "bandwidth_bps", "latency_s")
    if row.gpus_per_node is not None and row.gpus_per_node > 1:
        raise NotPredictedError("the source is not known, and the row does not state the links inside a machine")
    exchange, how = EXCHANGES[kind]
    network: dict[str, Any] = {"bandwidth_bps": bandwidth_bps, "latency_s": latency_s}
    return [RowPlan.of(exchange_question(exchange, workers, size, **network, **how))]


SOURCE = Source(
    name="other sources",
    begins=(),
    cluster=lambda row: NOTHING,
    plans=_plans,
    leaves_out="Hosts and headers: the row's bandwidth and latency are all that is known.",
)
