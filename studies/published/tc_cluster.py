"""Yuan's measurements on AWS p3.2xlarge machines behind ``tc netem`` (github.com/BinhangYuan/tc_cluster_setting).

Collectives and point-to-point messages, over gloo and NCCL, of 64 to 1024 MiB. A shaped egress has the stated bandwidth
and latency; the ingress has the instance's 10 Gbit/s. Three groups of terms are calibrated:

- NCCL, on collectives without a rate limit at P = 4: the bandwidth of a host that sends and receives at once;
- gloo's connections, on messages of 64 MiB without a rate limit: their rate (Amazon limits a flow to 5 Gbit/s outside a
  placement group) and their window;
- the campaign ``Simulate_DP``, at P = 4 and 256 MiB: its usable share of the bandwidth. It ran on another day, and was
  slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import (
    GLOO_EFFECTS,
    GLOO_RING,
    JUMBO,
    MIB,
    NCCL_CHAIN,
    NCCL_RING,
    NCCL_SOCKETS,
    payload_share,
)

PAGE = "github.com/BinhangYuan/tc_cluster_setting@75581a5 results/"
INSTANCE_BPS = 10**10
"""The bandwidth of an instance, and of the ingress of a shaped one, in bit/s."""


def _backend(row: PublishedRow) -> str:
    return row.backend.partition(" ")[0]


def _calibrates(row: PublishedRow) -> bool:
    return (
        row.algorithm == "point to point"
        and _backend(row) == "gloo"
        and "rate" not in row.bandwidth_kind
        and row.bytes_per_rank == 64 * MIB
        and row.latency_s is not None
        and row.latency_s <= 0.005
    )


NCCL = CalibratedCluster(
    "NCCL on p3.2xlarge",
    {"both_ways_bps": Term("bit/s", 9e9, 1e9, 1e10)},
    lambda row: row.algorithm != "point to point" and row.workers == 4 and row.bandwidth_bps == INSTANCE_BPS,
    "collectives without a rate limit at P = 4",
)
GLOO = CalibratedCluster(
    "gloo on p3.2xlarge",
    {"connection_bps": Term("bit/s", 5e9, 1e8, 1e11), "window_bytes": Term("B", 2.5e6, 1e5, 1e8)},
    _calibrates,
    "gloo's 64 MiB point to point without a rate limit, up to 5 ms",
)
CAMPAIGN = CalibratedCluster(
    "NCCL on p3.2xlarge, Simulate_DP",
    {"share": Term("1", 0.9, 0.2, 1.0)},
    lambda row: row.workers == 4 and row.bytes_per_rank == 256 * MIB,
    "P = 4 and 256 MiB",
)


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, size, bandwidth, latency_s = stated(row, "workers", "bytes_per_rank", "bandwidth_bps", "latency_s")
    kind = (_backend(row), row.algorithm)
    if kind not in KINDS:
        raise NotPredictedError(f"{row.algorithm} of {row.backend} is not modelled for this source")
    exchange, more = KINDS[kind]
    share = terms.get("share", 1.0)
    effects: dict[str, Any] = dict(more.get("effects", {}))
    if effects.get("protocol") != "tcp":
        share *= payload_share(JUMBO)
    if kind[0] == "gloo":
        effects |= {"stream_rate_bps": round(terms["connection_bps"]), "window_bytes": round(terms["window_bytes"])}
    down = max(INSTANCE_BPS, bandwidth) * share
    if row.algorithm != "point to point":
        bandwidth = min(bandwidth, terms.get("both_ways_bps", math.inf))
    question = exchange_question(
        exchange,
        workers,
        size,
        bandwidth_bps=bandwidth * share,
        latency_s=latency_s,
        topology=f"star:down={round(down)}bps" if "rate" in row.bandwidth_kind else "star",
        pipeline=more.get("pipeline"),
        eager=more.get("eager", False),
        effects=effects,
    )
    return [RowPlan.of(question)]


GLOO_TCP: dict[str, Any] = {"protocol": "tcp", "mtu": JUMBO}
"""TCP over jumbo frames. Connections that were idle for a second start again from the initial window."""
NCCL_TCP = GLOO_TCP | {"streams": NCCL_SOCKETS}
KINDS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("nccl", "point to point"): ("point-to-point", {"effects": NCCL_TCP}),
    ("gloo", "point to point"): ("point-to-point", {"effects": GLOO_TCP}),
    # Data flow both ways, so that acknowledgements take bandwidth from them.
    ("nccl", "all-reduce"): ("ring-all-reduce", {"pipeline": NCCL_RING, "effects": NCCL_TCP | {"segments_per_ack": 2}}),
    ("gloo", "all-reduce"): ("ring-all-reduce", {"pipeline": GLOO_RING, "effects": GLOO_EFFECTS}),
    # The slow start of every hop of a chain is left out: simulating it slice by slice takes minutes.
    ("nccl", "broadcast"): ("chain-broadcast", {"pipeline": NCCL_CHAIN}),
    ("gloo", "broadcast"): ("doubling-broadcast", {"eager": True, "effects": GLOO_TCP}),
    ("nccl", "reduce"): ("chain-reduce", {"pipeline": NCCL_CHAIN}),
    ("gloo", "reduce"): ("gloo-reduce", {"pipeline": GLOO_RING, "effects": GLOO_EFFECTS}),
    ("nccl", "reduce + broadcast"): ("chain-reduce-broadcast", {"pipeline": NCCL_CHAIN}),
    ("nccl", "all-to-all + all-gather"): ("sharded", {"pipeline": NCCL_RING}),
}
"""The exchange of a backend and an algorithm, and how the backend runs it."""


def _wan_plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    latency_s, size = stated(row, "latency_s", "bytes_per_rank")
    question = exchange_question(
        "point-to-point",
        2,
        size,
        bandwidth_bps=terms["bandwidth_bps"],
        latency_s=latency_s,
        effects={"streams": NCCL_SOCKETS, "window_bytes": round(terms["window_bytes"])},
    )
    return [RowPlan.of(question)]


REGIONS = CalibratedCluster(
    "AWS regions over IPsec",
    {"bandwidth_bps": Term("bit/s", 1.1e9, 1e8, 1e10), "window_bytes": Term("B", 6e5, 1e4, 1e8)},
    lambda row: row.what.endswith("->Virginia"),
    "pairs whose receiver is in Virginia",
)


def _cluster(row: PublishedRow) -> CalibratedCluster:
    return GLOO if _backend(row) == "gloo" else NCCL


def _campaign(row: PublishedRow) -> CalibratedCluster:
    return GLOO if _backend(row) == "gloo" else CAMPAIGN


def _source(
    name: str, page: str, leaves_out: str, cluster: Callable[[PublishedRow], CalibratedCluster] = _cluster
) -> Source:
    return Source(name=name, begins=(PAGE + page,), cluster=cluster, plans=_plans, leaves_out=leaves_out)


SOURCES = (
    _source(
        "tc_cluster all-reduce",
        "allreduce.md",
        "Without a rate limit, hosts reach 6.5 to 9 Gbit/s of the instance's 10 in both directions at once. gloo over "
        "delayed links is a tenth slower than two segments in flight and a notice per segment explain.",
    ),
    _source(
        "tc_cluster broadcast",
        "broadcast.md",
        "With 10 ms, NCCL's 128 MiB take a fifth more than half of the time of 256 MiB. Without a rate limit, gloo's "
        "four sends at once reach more than a link.",
    ),
    _source(
        "tc_cluster reduce",
        "reduce.md",
        "With 10 ms, gloo's two segments in flight take a tenth longer than they and their notices need. NCCL's "
        "128 MiB take a fifth more than half of the time of 256 MiB.",
    ),
    _source(
        "tc_cluster point to point",
        "p2p.md",
        "NCCL's times seem to leave out the latency: with a rate limit, 10 ms of delay add 2 ms. Without one, its 16 "
        "connections reach the link's rate sooner than a start from ten segments each.",
    ),
    Source(
        name="tc_cluster regions",
        begins=(PAGE + "p2p.md (AWS regions",),
        cluster=lambda row: REGIONS,
        plans=_wan_plans,
        leaves_out="Losses and other traffic on the public Internet, which differ from pair to pair.",
    ),
    _source(
        "tc_cluster Simulate_DP",
        "Simulate_DP.md",
        "This campaign was irregular. With 16 machines and 50 ms, 256 MiB took 28.6 s and four times as many bytes "
        "36.3 s; a reduction and broadcast of 1 GiB beat the bandwidth of its links.",
        _campaign,
    ),
)
