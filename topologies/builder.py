"""What topologies share: naming, and cables of one bandwidth and latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx


@dataclass(frozen=True, slots=True)
class Shape:
    """What a topology is built for.

    `latency_s` is one way from host to host across one switch, so each of the two links carries
    half of it. `fan_out` is the number of children of a switch, where a topology has such.
    """

    workers: int
    bandwidth_bps: int
    latency_s: float
    fan_out: int = 8

    def add_worker(self, graph: nx.Graph[Any], rank: int) -> str:
        """Add the host of worker `rank`; return its name."""
        name = f"worker{rank}"
        graph.add_node(name, kind="host")
        return name

    def connect(self, graph: nx.Graph[Any], one: str, other: str, *, latency_s: float | None = None) -> None:
        """Lay a full-duplex cable that carries half the host-to-host latency, or `latency_s`."""
        latency_s = self.latency_s / 2 if latency_s is None else latency_s
        graph.add_edge(one, other, bandwidth_bps=self.bandwidth_bps, latency_s=latency_s)
