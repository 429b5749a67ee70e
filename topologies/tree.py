"""A tree of switches with the hosts as its leaves."""

from __future__ import annotations

from typing import Any

import networkx as nx

from topologies.builder import Shape


def tree(shape: Shape) -> nx.Graph[Any]:
    """Return a switch tree: every switch has up to `fan_out` children, and every link one bandwidth.

    So a switch's uplink is oversubscribed by its number of children.
    """
    graph: nx.Graph[Any] = nx.Graph()
    children = [shape.add_worker(graph, rank) for rank in range(shape.workers)]
    level = 0
    while level == 0 or len(children) > 1:
        switches = []
        for first in range(0, len(children), shape.fan_out):
            switch = f"switch{level}.{first // shape.fan_out}"
            graph.add_node(switch, kind="switch")
            for child in children[first : first + shape.fan_out]:
                shape.connect(graph, child, switch)
            switches.append(switch)
        children, level = switches, level + 1
    return graph
