"""Pictures of networks.

A network whose cables only join neighbouring levels (fat tree, racks, star) is drawn level by level, hosts lowest. Any
other network is drawn by a spring layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.errors import UsageError
from netsim._util.units import format_bandwidth, format_duration
from netsim.network.fabric import Fabric
from netsim.report.canvas import canvas, legend, plain, to_svg
from netsim.report.palette import COLOURS

MOST_NODES = 600
"""Larger networks are not drawn."""
MOST_NAMES = 40
"""Nodes up to which their names are drawn."""
MOST_KINDS = 6
"""Combinations of bandwidth and latency with separate colours."""


def draw_network(fabric: Fabric, order: IntArray) -> str:
    """Return a picture of the network.

    Parameters
    ----------
    fabric
        The network, at most 600 nodes.
    order
        Indices of the hosts from left to right, for a network that is drawn in levels.

    Returns
    -------
    str
        The picture as SVG.

    Raises
    ------
    UsageError
        If the network has too many nodes to be drawn.
    """
    graph, names = fabric.graph, fabric.names
    if len(names) > MOST_NODES:
        raise UsageError(f"{len(names)} nodes are too many to draw; take fewer --workers or keys of a smaller network")
    in_levels = _levels(fabric, order)
    places = _springs(fabric) if in_levels is None else in_levels
    from matplotlib.collections import LineCollection

    cabled = graph.cabled
    columns = zip(graph.bandwidth_bps[cabled], graph.latency_s[cabled], strict=True)
    kinds = [(int(bps), float(s)) for bps, s in columns]
    ends = zip(graph.sources[cabled].tolist(), graph.targets[cabled].tolist(), strict=True)
    cables = {(min(pair), max(pair)): kind for pair, kind in zip(ends, kinds, strict=True)}
    with canvas(height=4.2) as (drawing, axes):
        shown: list[tuple[Any, str]] = []
        for number, kind in enumerate(sorted(set(cables.values()), reverse=True)):
            lines = LineCollection(
                [(places[one], places[other]) for (one, other), of in cables.items() if of == kind],
                colors=COLOURS[min(number, MOST_KINDS - 1)],
                linewidths=max(0.5, 1.6 - 0.25 * number),
                alpha=0.35 if len(cables) > 300 else 0.8,
                zorder=1,
            )
            axes.add_collection(lines)
            if number < MOST_KINDS:
                shown.append((lines, f"{format_bandwidth(kind[0])}, {format_duration(kind[1])}"))
        size = max(6.0, 60 - 0.2 * len(names))
        for nodes, marker, colour, label in (
            (graph.hosts, "o", "black", "host"),
            (graph.servers, "D", COLOURS[1], "server"),
            (graph.switches, "s", COLOURS[6], "switch"),
        ):
            if len(nodes):
                dots = axes.scatter(
                    places[nodes, 0], places[nodes, 1], s=size, marker=marker, color=colour, zorder=2, linewidths=0
                )
                shown.append((dots, label))
        if len(names) <= MOST_NAMES:
            hosts = set(graph.hosts.tolist())
            for node, (place, name) in enumerate(zip(places, names, strict=True)):
                # In levels cables go up and down: names stand below hosts, and at the right of switches.
                beside = in_levels is not None and node not in hosts
                below = in_levels is not None and not beside
                axes.annotate(
                    plain(name),
                    place,
                    (5, 0) if beside else (0, -6 if below else 5),
                    textcoords="offset points",
                    size=6.5,
                    ha="left" if beside else "center",
                    va="center" if beside else "top" if below else "bottom",
                    rotation=90 if below and len(hosts) > 8 else 0,
                )
        axes.set_axis_off()
        axes.margins(0.06)
        legend(drawing, shown)
        return to_svg(drawing)


def _levels(fabric: Fabric, order: IntArray) -> np.ndarray | None:
    """Return node positions (n, 2) for a drawing in levels; None if a cable joins two nodes of one level.

    The level of a node is the number of links from the nearest host or server to it.
    """
    graph = fabric.graph
    sources, targets = graph.sources[graph.cabled], graph.targets[graph.cabled]
    nodes = len(fabric.names)
    level = np.full(nodes, -1)
    level[graph.hosts] = level[graph.servers] = 0
    for rise in range(nodes):
        fresh = targets[(level[sources] == rise) & (level[targets] < 0)]
        if not len(fresh):
            break
        level[fresh] = rise + 1
    if (level[sources] == level[targets]).any():
        return None
    x = np.zeros(nodes)
    row = np.concatenate([graph.hosts[order], graph.servers])
    for rise in range(level.max() + 1):
        if rise:
            below = level[targets] == rise - 1
            upper, below_x = sources[below], x[targets[below]]
            middle = np.bincount(upper, below_x, nodes) / np.maximum(1, np.bincount(upper, minlength=nodes))
            row = np.flatnonzero(level == rise)
            row = row[np.argsort(middle[row], kind="stable")]
        x[row] = (np.arange(len(row)) + 0.5) / len(row)
    return np.stack([x, 0.6 * level], 1)


def _springs(fabric: Fabric) -> np.ndarray:
    import networkx as nx

    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(fabric.names)))
    graph.add_edges_from(zip(fabric.graph.sources.tolist(), fabric.graph.targets.tolist(), strict=True))
    start = nx.circular_layout(graph)
    if len(graph) <= 150:
        positions = nx.kamada_kawai_layout(graph, pos=start)
    else:
        positions = nx.spring_layout(graph, pos=start, iterations=100, seed=0)
    return np.array([positions[node] for node in range(len(fabric.names))])
