"""Writes networks to files that netsim and other tools read: node-link JSON, GraphML, SimGrid's platform XML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import networkx as nx
import numpy as np

from netsim._util.errors import InfeasibleError
from netsim.network.fabric import Fabric, Link

MOST_ROUTES = 10**6
"""The most routes that a SimGrid platform may list; the file for 1,000 hosts has about 300 MB."""


def to_networkx(fabric: Fabric) -> nx.Graph[Any]:
    """Return the network as a networkx graph that :func:`netsim.network.graph.from_networkx` reads.

    The graph is undirected if both directions of every cable are alike, else directed. Hosts have a ``group``. A node
    with a limit has ``bandwidth_bps``.
    """
    graph = fabric.graph
    ways = [link for link in fabric.links if link.source != link.target]
    links = {(link.source, link.target): (link.bandwidth_bps, link.latency_s) for link in ways}
    alike = all(links.get((target, source)) == values for (source, target), values in links.items())
    network: nx.Graph[Any] = nx.Graph() if alike else nx.DiGraph()
    names = fabric.names
    nodes: dict[str, dict[str, str | int]] = {names[node]: {"kind": "switch"} for node in range(len(names))}
    for node, group in zip(graph.hosts.tolist(), graph.groups.tolist(), strict=True):
        nodes[names[node]] = {"kind": "host", "group": f"group{group}"}
    for node in graph.servers.tolist():
        nodes[names[node]] = {"kind": "host", "role": "server"}
    for link in fabric.links:
        if link.source == link.target:
            nodes[link.source]["bandwidth_bps"] = link.bandwidth_bps
    network.add_nodes_from(nodes.items())
    for (source, target), (bandwidth, latency) in links.items():
        network.add_edge(source, target, bandwidth_bps=bandwidth, latency_s=latency)
    return network


def to_json(fabric: Fabric) -> Iterator[str]:
    """Yield the network as networkx's node-link JSON."""
    yield json.dumps(nx.node_link_data(to_networkx(fabric), edges="edges"), indent=1, ensure_ascii=False)


def to_graphml(fabric: Fabric) -> Iterator[str]:
    """Yield the network as GraphML."""
    yield "\n".join(nx.generate_graphml(to_networkx(fabric)))


def to_simgrid(fabric: Fabric) -> Iterator[str]:
    """Yield the network as a platform of SimGrid (DTD 4.1), piece by piece.

    Each direction of a cable is a link, and so is the limit of a node. In a tree without limits SimGrid finds the only
    possible routes by itself. In other networks the file lists every route, so that SimGrid uses the same routes as
    netsim.

    Raises
    ------
    InfeasibleError
        If the file would list too many routes.
    """
    is_tree = len(fabric.links) == 2 * (len(fabric.names) - 1)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">'
    yield f'\n<platform version="4.1">\n <zone id="network" routing="{"Dijkstra" if is_tree else "Full"}">'
    for host in fabric.hosts:
        yield f'\n  <host id={quoteattr(host)} speed="1Gf"/>'
    if is_tree:
        yield from (f"\n  <router id={quoteattr(fabric.names[node])}/>" for node in fabric.graph.switches.tolist())
    for link in fabric.links:
        yield f'\n  <link id={_id(link)} bandwidth="{link.bandwidth_bps}bps" latency="{link.latency_s!r}s"/>'
    if is_tree:
        yield from (_route(link.source, link.target, [link]) for link in fabric.links)
    else:
        yield from _all_routes(fabric)
    yield "\n </zone>\n</platform>"


def _all_routes(fabric: Fabric) -> Iterator[str]:
    ranks = np.arange(len(fabric.hosts))
    if len(ranks) ** 2 > MOST_ROUTES:
        raise InfeasibleError(
            f"a SimGrid platform of {len(ranks)} hosts that are not a tree would spell out {len(ranks) ** 2:,} routes; "
            f"take at most {int(MOST_ROUTES**0.5)} hosts"
        )
    for rank, host in enumerate(fabric.hosts):
        first, links, _ = fabric.links_of(np.full(len(ranks), rank), ranks)
        for other in range(len(ranks)):
            if other != rank:
                route = [fabric.links[link] for link in links[first[other] : first[other + 1]].tolist()]
                yield _route(host, fabric.hosts[other], route)


def _route(source: str, target: str, links: list[Link]) -> str:
    crossed = "".join(f"<link_ctn id={_id(link)}/>" for link in links)
    return f'\n  <route src={quoteattr(source)} dst={quoteattr(target)} symmetrical="NO">{crossed}</route>'


def _id(link: Link) -> str:
    return quoteattr(f"{link.source}->{link.target}")


FORMATS = {"json": to_json, "graphml": to_graphml, "simgrid": to_simgrid}
