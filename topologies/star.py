"""Every host on one switch."""

from __future__ import annotations

from typing import Any

import networkx as nx

from topologies.builder import Shape


def star(shape: Shape) -> nx.Graph[Any]:
    """Return one switch with all workers; a parameter server shares the host of worker 0."""
    graph: nx.Graph[Any] = nx.Graph()
    graph.add_node("switch", kind="switch")
    for rank in range(shape.workers):
        shape.connect(graph, shape.add_worker(graph, rank), "switch")
    return graph


def parameter_server(shape: Shape) -> nx.Graph[Any]:
    """Return a star on which the parameter server has a host of its own."""
    graph = star(shape)
    graph.add_node("server", kind="host", role="server")
    shape.connect(graph, "server", "switch")
    return graph
