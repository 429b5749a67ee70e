"""A topology as the simulator uses it: directed links, hosts, and the routes between them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsim.errors import UsageError
from netsim.units import picoseconds

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """One direction of a cable, or of a host's or switch's port."""

    index: int
    source: str
    target: str
    bandwidth_bps: int
    latency_s: float

    @property
    def name(self) -> str:
        return f"{self.source}→{self.target}"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The links from one host to another, in order, and their total latency."""

    links: tuple[Link, ...]
    latency_ps: int

    @property
    def narrowest(self) -> Link | None:
        """The link of least bandwidth, the first of several; None for a host's route to itself."""
        return min(self.links, key=lambda link: link.bandwidth_bps, default=None)


class Fabric:
    """The links of a topology graph, and minimum-hop routes between its hosts.

    The graph's nodes have a ``kind``, "host" or "switch"; its edges ``bandwidth_bps`` and ``latency_s``.
    An undirected edge is a full-duplex cable: two links. Hosts hold the workers in node order; a host
    whose ``role`` is "server" holds the parameter server and comes after them.
    """

    def __init__(self, graph: nx.Graph[Any]) -> None:
        self._graph = graph
        self.links: list[Link] = []
        self._between: dict[tuple[str, str], Link] = {}
        for source, target, data in graph.edges(data=True):
            self._add(source, target, data)
            if not graph.is_directed():
                self._add(target, source, data)
        hosts = [node for node, data in graph.nodes(data=True) if data.get("kind") == "host"]
        servers = [node for node in hosts if graph.nodes[node].get("role") == "server"]
        self.workers = [host for host in hosts if host not in servers]
        self.server_host: str | None = servers[0] if servers else None
        self.hosts = self.workers + servers
        self._routes: dict[tuple[str, str], Route] = {}

    def _add(self, source: str, target: str, data: dict[str, Any]) -> None:
        bandwidth, latency = data.get("bandwidth_bps"), data.get("latency_s")
        if not isinstance(bandwidth, int | float) or not math.isfinite(bandwidth) or bandwidth < 1:
            raise UsageError(f"link {source}→{target}: bandwidth_bps {bandwidth!r} must be at least 1 and finite")
        if not isinstance(latency, int | float) or not math.isfinite(latency) or latency < 0:
            raise UsageError(f"link {source}→{target}: latency_s {latency!r} must be zero or more and finite")
        link = Link(len(self.links), source, target, round(bandwidth), float(latency))
        self.links.append(link)
        self._between[source, target] = link

    def route(self, source: str, target: str) -> Route:
        """Return the route of fewest links; among equals always the same one."""
        if (known := self._routes.get((source, target))) is not None:
            return known
        import networkx as nx

        try:
            nodes = nx.shortest_path(self._graph, source, target)
        except nx.NetworkXNoPath:
            raise UsageError(f"no path from host {source!r} to host {target!r}: connect them") from None
        links = tuple(self._between[pair] for pair in itertools.pairwise(nodes))
        # Summed before rounding, so that two halves of a latency make the whole.
        route = Route(links, picoseconds(math.fsum(link.latency_s for link in links)))
        self._routes[source, target] = route
        return route
