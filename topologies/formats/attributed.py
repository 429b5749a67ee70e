"""Graphs whose nodes and edges have attributes: netsim's own, or routers as network researchers publish them.

If a node has a ``kind``, the attributes are netsim's, and nothing is assumed. Otherwise all nodes are routers. Their
links have a speed, a distance or neither, and parallel links are added up. The attributes are those of the Internet
Topology Zoo (``LinkSpeedRaw`` in bit/s, ``Latitude``, ``Longitude``, ``Internal``) and of TopoHub, which also has the
networks of SNDlib (``dist`` in km, ``pos``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from netsim._util.errors import UsageError
from netsim._util.units import SLOWEST_S, parse_bandwidth, read_number
from topologies.formats.draft import Draft, check_speed, fibre_s, great_circle_km, links, printable, some

if TYPE_CHECKING:
    import networkx as nx

Edge = tuple[Hashable, Hashable, dict[str, Any]]

LABELS = ("LinkLabel", "label")
"""Attributes of an edge that may name its speed, such as ``10 Gbps``."""
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT])b(?:ps|it/s|/s|it)?", re.IGNORECASE)
_OPTICAL = re.compile(r"OC-?([0-9]{1,4})c?", re.IGNORECASE)
OPTICAL_BPS = 51_840_000
"""The rate of OC-1; OC-n has n times as much."""


def draft_of(nodes: dict[Hashable, dict[str, Any]], edges: list[Edge], directed: bool, origin: str, form: str) -> Draft:
    """Return the draft of a graph.

    Parameters
    ----------
    nodes
        The attributes of every node, by its id.
    edges
        The two ends and the attributes of every edge.
    origin
        The beginning of error messages.
    form
        The name of the file's format.
    """
    for node in nodes:
        printable(node, origin)
    if not nodes or any("kind" in data for data in nodes.values()):
        return _own(nodes, edges, directed, origin)
    return _routers(nodes, edges, directed, origin, form)


def _own(nodes: dict[Hashable, dict[str, Any]], edges: list[Edge], directed: bool, origin: str) -> Draft:
    """Return the draft of a graph with netsim's own attributes."""
    import networkx as nx

    graph: nx.Graph[Any] = nx.DiGraph() if directed else nx.Graph()
    for node, data in nodes.items():
        graph.add_node(node)
        graph.nodes[node].update(data)
    for source, target, data in edges:
        if source == target:
            raise UsageError(f"{origin}link {source}→{target}: a node is not linked to itself; remove it")
        if graph.has_edge(source, target):
            raise UsageError(f"{origin}link {source}→{target} is there twice; add up what the two can carry")
        graph.add_edge(source, target)
        graph.edges[source, target].update(data)
    for data in (*(data for _, data in graph.nodes(data=True)), *(data for _, _, data in graph.edges(data=True))):
        # Some programs write numbers as text.
        for key in ("bandwidth_bps", "latency_s"):
            if isinstance(data.get(key), str) and (value := read_number(data[key])) is not None:
                data[key] = value
    return Draft(graph=graph)


def _routers(nodes: dict[Hashable, dict[str, Any]], edges: list[Edge], directed: bool, origin: str, form: str) -> Draft:
    """Return the draft of a graph of routers: its largest connected part, with parallel links added up."""
    import networkx as nx

    pairs = {(source, target) for source, target, _ in edges}
    # Editors save every line as directed; only a file in which all links have their reverse means it.
    both_ways = directed and all((target, source) in pairs for source, target in pairs)
    graph: nx.Graph[Any] = nx.DiGraph() if both_ways else nx.Graph()
    graph.add_nodes_from(nodes)
    loops = sped = 0
    for source, target, data in edges:
        if source == target:
            loops += 1
            continue
        where = f"{origin}link {source}→{target}"
        bandwidth = _speed(data, where)
        sped += bandwidth is not None
        latency, by_distance = _latency(data, nodes[source], nodes[target], where)
        if not graph.has_edge(source, target):
            graph.add_edge(source, target, bandwidth_bps=0.0, unknown=0, latency_s=None, by_distance=False)
        merged = graph.edges[source, target]
        merged["bandwidth_bps"] += bandwidth or 0.0
        merged["unknown"] += bandwidth is None
        if latency is not None and (merged["latency_s"] is None or latency < merged["latency_s"]):
            merged["latency_s"], merged["by_distance"] = latency, by_distance
    each = " one way" if both_ways else ""
    said = [f"{form} of routers: {len(nodes):,} nodes, {links(len(edges))}{each}, {sped or 'none'} with a speed"]
    parallel = len(edges) - loops - graph.number_of_edges()
    if parallel:
        said.append(f"{links(parallel)} parallel to others, added up")
    if loops:
        said.append(f"{links(loops)} from a node to itself, left out")
    parts = sorted(nx.connected_components(graph.to_undirected(as_view=True)), key=len, reverse=True)
    if len(parts) > 1:
        lost = [node for node in nodes if node not in parts[0]]
        names = some([_label(nodes[node]) or node for node in lost])
        said.append(f"{len(lost):,} not connected to the largest part, left out ({names})")
        graph = graph.subgraph(parts[0]).copy()
    for node in graph:
        graph.nodes[node]["attach"] = _inside(nodes[node])
    if not any(graph.nodes[node]["attach"] for node in graph):
        raise UsageError(f"{origin}all nodes are outside (Internal 0), and none can have a host; mark those inside")
    return Draft(graph=nx.relabel_nodes(graph, _names(graph, nodes)), routers=True, notes=("; ".join(said),))


def _names(kept: Iterable[Hashable], nodes: dict[Hashable, dict[str, Any]]) -> dict[Hashable, str]:
    """Return the name of every node: its label if all have different ones, else its id."""
    labels = {node: _label(nodes[node]) for node in kept}
    unique = all(labels.values()) and len(set(labels.values())) == len(labels)
    return {node: str(label) if unique else str(node) for node, label in labels.items()}


def _label(node: dict[str, Any]) -> str | None:
    label = node.get("name", node.get("label"))
    text = str(label).strip() if isinstance(label, str | int) else ""
    return text if text and text.isprintable() else None


def _inside(node: dict[str, Any]) -> bool:
    """Return whether a node belongs to the network itself: not to a neighbour, and not a mere crossing of cables."""
    if "waypoint" in str(node.get("type", "")).lower():  # of a submarine cable, in TopoHub
        return False
    return _number(node, "Internal") != 0 and node.get("Internal") is not False and not _number(node, "hyperedge")


def _speed(edge: dict[str, Any], where: str) -> float | None:
    """Return the bandwidth of an edge in bit/s; None if it has none."""
    for key in ("LinkSpeedRaw", "bandwidth_bps"):
        bandwidth = _number(edge, key)
        if bandwidth is not None:
            check_speed(bandwidth, f"{where}, {key}", edge[key])
            return bandwidth
    for label in _texts(edge, LABELS):
        if found := _RATE.fullmatch(label):
            prefix = found[2].lower() if found[2] in "kK" else found[2].upper()
            return float(parse_bandwidth(f"{found[1]}{prefix}bps"))
        if (found := _OPTICAL.fullmatch(label)) and int(found[1]):
            return float(int(found[1]) * OPTICAL_BPS)
    return None


def _latency(
    edge: dict[str, Any], first: dict[str, Any], second: dict[str, Any], where: str
) -> tuple[float | None, bool]:
    """Return the latency of an edge in seconds, None if unknown, and whether a distance gives it."""
    latency = _number(edge, "latency_s")
    by_distance = latency is None
    if by_distance:
        km = _number(edge, "dist")
        ends = _place(first), _place(second)
        if km is not None:
            latency = fibre_s(km)
        elif ends[0] is not None and ends[1] is not None:
            latency = fibre_s(great_circle_km(ends[0], ends[1]))
    if latency is not None and not 0 <= latency <= SLOWEST_S:
        raise UsageError(f"{where}: a latency of {latency:g} s must be zero or more, and at most {SLOWEST_S:g} s")
    return latency, by_distance and latency is not None


def _place(node: dict[str, Any]) -> tuple[float, float] | None:
    """Return the latitude and longitude of a node in degrees; None if it has none."""
    position = node.get("pos")
    if isinstance(position, list) and len(position) == 2:
        node = {"lon": position[0], "lat": position[1]}
    for north, east in (("Latitude", "Longitude"), ("latitude", "longitude"), ("lat", "lon")):
        latitude, longitude = _number(node, north), _number(node, east)
        if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 360:
            return latitude, longitude
    return None


def _number(element: dict[str, Any], key: str) -> float | None:
    """Return a number that may be written as text; None for anything else."""
    value = element.get(key)
    if isinstance(value, str):
        value = read_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _texts(element: dict[str, Any], keys: Iterable[str]) -> Iterator[str]:
    for key in keys:
        if isinstance(element.get(key), str):
            yield element[key].strip()
