"""Training steps of gTop-k's authors: S-SGD, Top-k and gTop-k over 1 Gbit/s Ethernet (github.com/hclhkbu/gtopkssgd).

The network has the α and β that the authors state. Two costs of the hosts, in seconds per element of the gradient, are
calibrated: the selection, and a copy between GPU and host. S-SGD copies the gradient to the host and the sum back.
Top-k selects, and copies a dense sum back. gTop-k selects, and copies only sparse vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from netsim.training.catalogue import parameters_of
from studies.cluster import ALTERNATIVES, BANDWIDTH_BPS, DENSITY, two_switches
from studies.paper_figures import ALPHA_S
from studies.published.plans import CalibratedCluster, NotPredictedError, RowPlan, Source, Term, Terms, stated
from studies.published.rows import PublishedRow

ELEMENTS = {
    "VGG-16": 14_728_266,
    "ResNet-20": 269_722,
    "AlexNet": parameters_of("alexnet"),
    "ResNet-50": parameters_of("resnet50"),
    "LSTM-PTB": parameters_of("lstm-ptb"),
}
"""Elements of a gradient; VGG-16 and ResNet-20 are those for CIFAR-10."""
ONE_SWITCH = 8
"""Ranks at which the authors' figures show no second switch."""


class HostPasses(NamedTuple):
    """Number of selections from all elements, and of copies of all elements between GPU and host, per step."""

    selections: int
    copies: int


WORK = {"dense": HostPasses(0, 2), "topk": HostPasses(1, 1), "gtopk": HostPasses(1, 0)}
CLUSTER = CalibratedCluster(
    "gTop-k's authors, 1 Gbit/s Ethernet",
    {"select_s": Term("s/element", 5e-8, 1e-10, 1e-6), "copy_s": Term("s/element", 1e-8, 1e-10, 1e-6)},
    lambda row: "VGG-16" in row.what and row.workers == 4,
    "VGG-16 at P = 4",
)


def _contender(row: PublishedRow) -> tuple[str, str]:
    task, _, algorithm = row.what.rpartition(", ")
    return task, algorithm


def _plans(row: PublishedRow, terms: Terms) -> list[RowPlan]:
    workers, compute_s = stated(row, "workers", "compute_s")
    task, name = _contender(row)
    model = task.rpartition(", ")[2]
    if model not in ELEMENTS or name not in WORK:
        raise NotPredictedError(f"{name} of {model} is not modelled for this source")
    elements, work = ELEMENTS[model], WORK[name]
    constant_s = compute_s + elements * (work.selections * terms["select_s"] + work.copies * terms["copy_s"])
    networks: list[dict[str, Any]] = [{}, *(two_switches(workers) if workers > ONE_SWITCH else [])]
    return [
        RowPlan.of(
            {
                "algorithm": algorithm,
                "workers": workers,
                "elements": elements,
                "density": DENSITY,
                "bandwidth": BANDWIDTH_BPS,
                "latency": ALPHA_S,
                "timing_only": True,
                "compute_time": 0.0,
                "select_time": 0.0,
                "merge_time": 0.0,
            }
            | network,
            constant_s=constant_s,
        )
        for network in networks
        for algorithm in ALTERNATIVES[name]
    ]


SOURCES = (
    Source(
        name="gtopkssgd",
        begins=("github.com/hclhkbu/gtopkssgd",),
        cluster=lambda row: CLUSTER,
        plans=_plans,
        leaves_out="The selection of a small gradient takes less than in proportion to its elements; beyond 8 workers, "
        "another switch that the source does not name.",
        contender=_contender,
    ),
)
