"""Training steps on 16 machines of four RTX 2080 Ti, over three networks (github.com/HKBU-HPML/ddl-benchmarks).

All GPUs of a machine share its link, and a ring crosses the link once each way. BytePS sums inside a machine, then
pushes to and pulls from as many servers as there are machines, one tensor after another.

Four clusters are calibrated, with one term each. For a machine by itself (P = 4), the term is the bandwidth that a GPU
reaches over PCIe. For each of the three networks, the term is the bandwidth that a machine reaches over its link.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from netsim.training.catalogue import MODELS, tensors_of
from studies.published.exchanges import exchange_question
from studies.published.plans import CalibratedCluster, NotPredictedError, Question, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow
from studies.published.stacks import NCCL_RING
from studies.published.training_steps import Scheduler, step_plan

INSIDE_BPS = 126e9
"""PCIe 3.0 x16, each way. What several machines exchange is limited by what their links move."""
INSIDE_S = 5e-6
LATENCIES_S = {"TCP": (10e-6, 5e-6, 25e-6), "RDMA": (2e-6, 1e-6, 5e-6)}
"""ASSUMED latency between machines by protocol, and others that may be: the source states none."""
RING, DOUBLE_TREE = "ring-all-reduce", "double-tree-all-reduce"
"""Exchanges of NCCL, which may take either."""
SCHEDULERS: dict[str, Scheduler] = {"BSP": "BSP", "WFBP": "WFBP", "MG": "MG-WFBP"}


def _contender(row: PublishedRow) -> tuple[str, str]:
    task, _, contender = row.what.rpartition(", ")
    return task, contender


def _calibrates(row: PublishedRow) -> bool:
    """Return whether a row measures one or two machines that exchange after the backward pass."""
    few = row.nodes is not None and row.nodes <= 2
    return few and _contender(row)[1] == "BSP-A2A"


@cache
def _one_machine() -> CalibratedCluster:
    term = {"inside_bps": Term("bit/s", 4e10, 1e9, INSIDE_BPS)}
    return CalibratedCluster("a machine of four RTX 2080 Ti", term, _calibrates, "BSP-A2A at P = 4")


@cache
def _network(kind: str, line_bps: float) -> CalibratedCluster:
    term = {"network_bps": Term("bit/s", line_bps / 3, line_bps / 100, line_bps)}
    return CalibratedCluster(f"machines of four RTX 2080 Ti, {kind}", term, _calibrates, "BSP-A2A at P = 8")


def _cluster(row: PublishedRow) -> CalibratedCluster:
    if row.nodes == 1 or row.bandwidth_bps is None:
        return _one_machine()
    return _network(row.bandwidth_kind, row.bandwidth_bps)


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    machines, gpus, compute_s, elements = stated(row, "nodes", "gpus_per_node", "compute_s", "elements")
    if machines > 1:
        stated(row, "bandwidth_bps")
    name, _, exchange = _contender(row)[1].partition("-")
    if name not in SCHEDULERS:
        raise NotPredictedError(f"netsim exchanges gradients as they get ready, and {name} by priority, in tuned parts")
    tensors = _tensors(row, elements, SCHEDULERS[name])
    latency_s, *others_s = LATENCIES_S["RDMA" if "RDMA" in row.bandwidth_kind else "TCP"]
    if exchange == "PS":
        exchanges = [partial(_parameter_servers, machines, gpus, terms, each) for each in (latency_s, *others_s)]
    else:
        exchanges = [partial(_all_reduce, machines, gpus, terms, each, (RING,)) for each in (latency_s, *others_s)]
        exchanges += [partial(_all_reduce, machines, gpus, terms, latency_s, (RING, DOUBLE_TREE))]
    return [step_plan(compute_s, tensors, SCHEDULERS[name], exchange) for exchange in exchanges]


def _tensors(row: PublishedRow, elements: int, scheduler: Scheduler) -> Sequence[int]:
    if scheduler == "BSP":
        return [elements]
    model = _contender(row)[0].rpartition(", ")[2].partition(" ")[0].lower()
    known = next((name for name in (model, model.replace("-", "")) if name in MODELS), None)
    if known is None:
        raise NotPredictedError(f"the sizes of the tensors of {model} are not known")
    return [tensor.size for tensor in tensors_of(known)]


def _all_reduce(
    machines: int, gpus: int, terms: Terms, latency_s: float, ways: Sequence[str], elements: int
) -> list[Question]:
    """Return the questions of a sum over all GPUs, one for each of the exchanges `ways`."""
    inside_bps = terms.get("inside_bps", INSIDE_BPS)
    network_bps = terms.get("network_bps", inside_bps)
    topology = (
        f"machines:gpus={gpus},inside={round(inside_bps)}bps,network={round(network_bps)}bps,"
        f"inside-latency={INSIDE_S}s,network-latency={latency_s}s"
    )
    network: dict[str, Any] = {"bandwidth_bps": network_bps, "latency_s": latency_s, "topology": topology}
    return [exchange_question(way, machines * gpus, 4 * elements, **network, pipeline=NCCL_RING) for way in ways]


def _parameter_servers(machines: int, gpus: int, terms: Terms, latency_s: float, elements: int) -> list[Question]:
    """Return the question of an exchange between machines and servers; a single machine uses no servers.

    BytePS cuts tensors into parts. It sums a part inside machines while other parts cross the network.
    """
    if machines == 1:
        return _all_reduce(machines, gpus, terms, latency_s, (RING,), elements)
    servers: dict[str, Any] = {
        "algorithm": "ps",
        "topology": f"ps:servers={machines}",
        "workers": machines,
        "elements": max(elements, machines),
        "bandwidth": round(terms["network_bps"]),
        "latency": latency_s,
        "timing_only": True,
        "compute_time": 0.0,
        "select_time": 0.0,
        "merge_time": 0.0,
    }
    return [servers]


def _not_planned(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    raise NotPredictedError(
        "the authors' line is faster than any ring over the stated link; how many GPUs share a machine is not stated"
    )


SOURCES = (
    Source(
        name="MG-WFBP fits",
        begins=("github.com/HKBU-HPML/MG-WFBP",),
        cluster=lambda row: CalibratedCluster("an unnamed cluster of the authors of MG-WFBP"),
        plans=_not_planned,
        leaves_out="",
    ),
    Source(
        name="ddl-benchmarks",
        begins=("github.com/HKBU-HPML/ddl-benchmarks",),
        cluster=_cluster,
        plans=_plans,
        leaves_out="BERT's step on four GPUs of one machine takes 57 ms more than alone and its exchange, with every "
        "network; BytePS spends about a millisecond per tensor over TCP.",
        contender=_contender,
    ),
)
