"""Compute utilisations that the Streaming DiLoCo paper publishes: its authors' simulation, PUBLISHED, not measured.

Source: Douillard et al., arXiv 2501.18512, table 4 (Gbit/s at which 50, 80, 90, 95 and 99 % are reached) and table 1
(hours of training with 1 Gbit/s and with infinite bandwidth, whose quotient is the utilisation). The paper states
M = 2 replicas, fragments of 3 layers, τ = 1 and H = 100, and layers and step times as below. It does not state the bits
of a value without FP4; they are 16 here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

NEXT = 1.207
"""The factor between neighbours among the paper's bandwidths, 10^(2/24.5): 86.8, 104.8, 126.5, 152.6, 184.2 …"""
TARGETS = (0.5, 0.8, 0.9, 0.95, 0.99)
TABLE, STATED = "table 4", "table 1"
METHODS = (
    "dense:segment=none",
    "diloco:h=100",
    "streaming-diloco:h=100,tau=0",
    "streaming-diloco:h=100",
    "streaming-diloco:h=100,fp4=true",
)
"""Data-Parallel; vanilla DiLoCo; Streaming DiLoCo; with overlapped communication; with overlapped FP4 communication."""
GBPS: Mapping[str, Sequence[Sequence[float]]] = {
    "1B": (
        (86.8, 152.6, 184.2, 222.3, 569.0),
        (1.4, 6.2, 13.3, 23.3, 86.8),
        (1.4, 5.2, 9.1, 16.0, 28.1),
        (1.4, 4.3, 6.2, 9.1, 11.0),
        (0.4, 0.9, 1.7, 2.0, 3.0),
    ),
    "10B": (
        (104.8, 222.3, 222.3, 268.3, 471.5),
        (1.7, 7.5, 16.0, 33.9, 104.8),
        (1.7, 5.2, 9.1, 13.3, 19.3),
        (1.7, 3.6, 5.2, 6.2, 7.5),
        (0.4, 0.9, 1.4, 1.4, 1.7),
    ),
    "100B": (
        (184.2, 323.8, 390.7, 390.7, 471.5),
        (3.0, 11.0, 23.3, 49.4, 184.2),
        (2.4, 6.2, 9.1, 11.0, 19.3),
        (1.7, 3.6, 4.3, 5.2, 5.2),
        (0.5, 0.9, 1.1, 1.1, 1.4),
    ),
}
"""Bandwidths by model, a row a method and a column a target."""
TRAININGS = ("25 billion tokens", "100 billion tokens", "250 billion tokens")
HOURS = {METHODS[0]: ((0.67, 109), (2.7, 438), (6.75, 1097)), METHODS[4]: ((0.67, 0.88), (2.7, 3.5), (6.75, 8.75))}
"""Hours of each training with infinite bandwidth, and with 1 Gbit/s; a model of 1B parameters."""


class PaperUtilisation(NamedTuple):
    """A published utilisation, with its table, model, method and bandwidth, and the training if the table names it."""

    source: str
    model: str
    method: str
    bandwidth_bps: int
    utilisation: float
    training: str = ""


class Paper(NamedTuple):
    """What the paper publishes: the elements, step and layers of its models, and its utilisations."""

    workers: int
    models: Mapping[str, tuple[int, float, int]]
    rows: Sequence[PaperUtilisation]
    table: str = TABLE
    stated: str = STATED


def _rows() -> list[PaperUtilisation]:
    rows = [
        PaperUtilisation(TABLE, model, method, round(gbps * 1e9), target)
        for model, table in GBPS.items()
        for method, row in zip(METHODS, table, strict=True)
        for target, gbps in zip(TARGETS, row, strict=True)
    ]
    rows += [
        PaperUtilisation(STATED, "1B", method, 10**9, free / limited, training)
        for method, hours in HOURS.items()
        for training, (free, limited) in zip(TRAININGS, hours, strict=True)
    ]
    return rows


PAPER = Paper(2, {"1B": (10**9, 0.1, 24), "10B": (10**10, 0.8, 48), "100B": (10**11, 4.9, 108)}, _rows())
