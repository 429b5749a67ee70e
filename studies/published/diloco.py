"""DiLoCo, LocalSGD and DDP on four g6e.2xlarge machines behind token buckets (github.com/Adnan082/diloco-measured).

The model has 57 tensors (`TENSORS`, from the sizes in ``configs/models/30m-realvocab.toml``). DiLoCo and LocalSGD
exchange each tensor by an all-reduce of its own, one after another; DDP exchanges buckets of 25 MiB.

Two terms are calibrated. The first is the link's bandwidth without a token bucket, which the source does not state
(one iperf3 stream reached 9.53 Gbit/s). A token bucket queues 50 ms of traffic at its rate and drops further packets.
If this queue is smaller than the 4 MiB that NCCL has in flight, retransmissions take a share of the link. The second
term is the share that remains.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, Question, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import JUMBO, MIB, NCCL_RING, payload_share

DIM, HIDDEN, LAYERS, VOCABULARY = 256, 768, 6, 50_257
TENSORS = (
    VOCABULARY * DIM,
    *LAYERS * (*4 * (DIM * DIM,), *3 * (DIM * HIDDEN,), DIM, DIM),
    DIM,
    VOCABULARY * DIM,
)
"""Elements of the model's tensors: embedding; attention, feed-forward and norms of each layer; norm; output."""
ELEMENTS = sum(TENSORS)
BUCKET_BYTES = 25 * MIB
LATENCY_S = 50e-6
"""ASSUMED; the source states a placement group only."""
OTHER_LATENCIES_S = (25e-6, 100e-6)
IN_FLIGHT = NCCL_RING.slice_bytes * NCCL_RING.window
QUEUE_S = re.compile(r"latency (\d+(?:\.\d+)?) ms")


def _unshaped(row: PublishedRow) -> bool:
    return "tbf" not in row.bandwidth_kind


def _drops(row: PublishedRow) -> bool:
    """Return whether the queue of a token bucket holds less than NCCL has in flight."""
    queue = QUEUE_S.search(row.bandwidth_kind)
    return (
        queue is not None
        and row.bandwidth_bps is not None
        and row.bandwidth_bps / 8 * float(queue[1]) / 1e3 < IN_FLIGHT
    )


def _calibrates(row: PublishedRow) -> bool:
    if row.algorithm.startswith("DDP") or not row.what.endswith("H=1") or not row.bandwidth_bps:
        return False
    return _unshaped(row) or (_drops(row) and row.algorithm.startswith("LocalSGD"))


G6E = CalibratedCluster(
    "g6e.2xlarge in a placement group",
    {"unshaped_bps": Term("bit/s", 1.2e10, 1e9, 1e11), "kept": Term("1", 0.9, 0.1, 1.0)},
    _calibrates,
    "H = 1: DiLoCo without a token bucket, LocalSGD behind a token bucket that drops packets",
)


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, bandwidth, elements = stated(row, "workers", "bandwidth_bps", "elements")
    if elements != ELEMENTS:
        raise NotPredictedError(f"the sizes of the tensors of a model of {elements:,} elements are not known")
    if "all-reduce" not in row.algorithm:
        raise NotPredictedError(f"{row.algorithm} is not modelled for this source")
    sizes = _buckets(TENSORS[::-1]) if row.algorithm.startswith("DDP") else list(TENSORS)
    rate = terms["unshaped_bps"] if _unshaped(row) else bandwidth * payload_share(JUMBO)
    rate *= terms["kept"] if _drops(row) else 1

    def plan(exchange: str, latency_s: float) -> RowPlan:
        def question(size: int) -> Question:
            network: dict[str, Any] = {"bandwidth_bps": rate, "latency_s": latency_s}
            return exchange_question(exchange, workers, 4 * size, **network, pipeline=NCCL_RING)

        return RowPlan([(count, question(size)) for size, count in Counter(sizes).items()])

    return [
        plan("ring-all-reduce", LATENCY_S),
        *(plan("ring-all-reduce", latency_s) for latency_s in OTHER_LATENCIES_S),
        plan("double-tree-all-reduce", LATENCY_S),
    ]


def _buckets(tensors: Iterable[int]) -> list[int]:
    """Return the number of elements of each DDP bucket; the first is full at 1 MiB, all others at 25 MiB."""
    buckets, full = [0], MIB
    for size in tensors:
        if 4 * buckets[-1] >= full:
            buckets.append(0)
            full = BUCKET_BYTES
        buckets[-1] += size
    return buckets


SOURCES = (
    Source(
        name="diloco-measured",
        begins=("github.com/Adnan082/diloco-measured",),
        cluster=lambda row: G6E,
        plans=_plans,
        leaves_out="Exchanges are cold at the start of a run and after 128 steps without one. A token bucket that "
        "drops packets loses more than a constant share. DDP's buckets take a quarter longer than the tensors one by "
        "one.",
    ),
)
