"""Hosts in a circle, each cabled to its two neighbours, passing on what is not for them."""

from __future__ import annotations

from typing import Any

import networkx as nx

from topologies.builder import Shape


def ring(shape: Shape) -> nx.Graph[Any]:
    """Return a ring of workers; neighbours are one cable apart, which carries the whole latency."""
    graph: nx.Graph[Any] = nx.Graph()
    hosts = [shape.add_worker(graph, rank) for rank in range(shape.workers)]
    for rank, host in enumerate(hosts[1:], start=1):
        shape.connect(graph, hosts[rank - 1], host, latency_s=shape.latency_s)
    if shape.workers > 2:
        shape.connect(graph, hosts[-1], hosts[0], latency_s=shape.latency_s)
    return graph
