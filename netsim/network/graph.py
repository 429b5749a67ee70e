"""A network as columns: its nodes, its directed links, and the router that finds routes in it.

Columns instead of an object per node and link: 65,536 hosts take a fraction of a second and a few megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray
from netsim._util.errors import UsageError, shown
from netsim._util.units import FASTEST_BPS, SLOWEST_S, format_bandwidth, format_duration, format_range
from netsim.network.routing import NO_LINK, FloatArray, Router, ShortestPaths

if TYPE_CHECKING:
    import networkx as nx


class LinkRanges(NamedTuple):
    """The least and the greatest bandwidth, and the least and the greatest latency, of a network's links."""

    bandwidth_bps: tuple[int, int]
    latency_s: tuple[float, float]

    def as_json(self) -> dict[str, list[float]]:
        """Return the ranges as values for JSON."""
        return {"bandwidth_bps": list(self.bandwidth_bps), "latency_s": list(self.latency_s)}

    def in_words(self) -> str:
        """Return the ranges as text.

        >>> LinkRanges((10**10, 4 * 10**11), (5e-6, 5e-6)).in_words()
        '10 to 400 Gbit/s   5 µs a link'
        """
        latency = format_range(*self.latency_s, format_duration)
        return f"{format_range(*self.bandwidth_bps, format_bandwidth)}   {latency} a link"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Graph:
    """A network of n nodes and m directed links, both numbered from 0.

    Parameters
    ----------
    names
        The name of every node, (n,).
    hosts
        The nodes that workers may be placed on, in order, (h,).
    workers
        How many hosts have a worker by default.
    servers
        The hosts reserved for parameter servers. All nodes that are not hosts are switches.
    sources, targets
        The nodes that every link leads from and to, (m,).
    bandwidth_bps, latency_s
        The bandwidth and latency of every link, (m,).
    router
        Finds routes.
    groups
        The number of every host's machine, rack or site, (h,).
    near
        Positions in `hosts`, in an order in which neighbours are near each other in the network; None if unknown.
    limits
        For every node: the link that all messages share which start, end or pass there, whatever their direction;
        NO_LINK for a node without such a limit. This link leads from the node to itself. (n,); None if no node is
        limited.
    anonymous
        Whether hosts are named after the workers placed on them.
    hash_seed
        The seed of the hash that picks one of several routes of equal cost.
    notes
        What was read from a file of another program, and what was ASSUMED; empty for all other networks.
    """

    names: list[str]
    hosts: IntArray
    workers: int
    servers: IntArray
    sources: IntArray
    targets: IntArray
    bandwidth_bps: IntArray
    latency_s: FloatArray
    router: Router
    groups: IntArray
    near: IntArray | None = None
    limits: IntArray | None = None
    anonymous: bool = False
    hash_seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def switches(self) -> IntArray:
        """The nodes that are not hosts."""
        is_switch = np.ones(len(self.names), np.bool_)
        is_switch[self.hosts] = is_switch[self.servers] = False
        return np.flatnonzero(is_switch)

    @property
    def all_hosts(self) -> IntArray:
        """The nodes that are hosts, of workers and of parameter servers, (h + s,)."""
        return np.concatenate([self.hosts, self.servers])

    @property
    def cabled(self) -> npt.NDArray[np.bool_]:
        """Whether each link is one way of a cable, (m,); the others are the limits of nodes."""
        cabled: npt.NDArray[np.bool_] = self.sources != self.targets
        return cabled

    def ranges(self) -> LinkRanges | None:
        """Return the ranges of the cables' bandwidths and latencies; None if there are no cables."""
        cabled = self.cabled
        if not cabled.any():
            return None
        bandwidth, latency = self.bandwidth_bps[cabled], self.latency_s[cabled]
        return LinkRanges((int(bandwidth.min()), int(bandwidth.max())), (float(latency.min()), float(latency.max())))

    def limited(self, nodes: IntArray, bandwidth_bps: int | IntArray) -> Graph:
        """Return the network with a limit at each of `nodes`: all messages there share its bandwidth.

        Messages that start, end or pass at the node count, in both directions together. A limit is a bus, such as the
        PCIe of a machine; what a host itself can move; or, at a switch between two cables, a half-duplex cable.

        Raises
        ------
        UsageError
            For a bandwidth that is too large, and for a node that has a limit already.
        """
        check_link(bandwidth_bps, 0.0)
        limits = np.full(len(self.names), NO_LINK) if self.limits is None else self.limits.copy()
        for node in nodes[limits[nodes] != NO_LINK][:1].tolist():
            raise UsageError(f"node {self.names[node]!r} was given a bandwidth twice; give it once")
        limits[nodes] = len(self.sources) + np.arange(len(nodes))
        return replace(
            self,
            sources=np.concatenate([self.sources, nodes]),
            targets=np.concatenate([self.targets, nodes]),
            bandwidth_bps=np.concatenate([self.bandwidth_bps, np.broadcast_to(bandwidth_bps, len(nodes))]),
            latency_s=np.concatenate([self.latency_s, np.zeros(len(nodes))]),
            limits=limits,
        )

    def scaled(self, bandwidth: float, latency: float) -> Graph:
        """Return the network with every link's bandwidth and latency multiplied by these factors.

        Raises
        ------
        UsageError
            If a link would be faster or slower than the simulation can represent.
        """
        rates, delays = self.bandwidth_bps, self.latency_s
        if bandwidth != 1:
            wanted = np.rint(rates * bandwidth)
            if (wanted > FASTEST_BPS).any():
                raise _beyond("bandwidth-scale", bandwidth, f"more than {FASTEST_BPS:g} bit/s, the most")
            if (wanted < 1).any():
                raise _beyond("bandwidth-scale", bandwidth, "less than 1 bit/s, the least")
            rates = wanted.astype(np.int64)
        if latency != 1:
            delays = delays * latency
            if (delays > SLOWEST_S).any():
                raise _beyond("latency-scale", latency, f"more than {SLOWEST_S:g} s, the most")
        return replace(self, bandwidth_bps=rates, latency_s=delays)


def _beyond(scale: str, value: float, bound: str) -> UsageError:
    what = scale.removesuffix("-scale")
    return UsageError(f"{scale} {value:g} makes the {what} of a link {bound} that there can be; give another scale")


def from_networkx(graph: nx.Graph[Any], origin: str = "") -> Graph:
    """Return the network that a networkx graph describes.

    Parameters
    ----------
    graph
        Nodes have a ``kind``, "host" or "switch", and may have a ``role``, "server", and a ``group``. A node with
        ``bandwidth_bps`` has a :attr:`limit <Graph.limits>`. Edges have ``bandwidth_bps`` and ``latency_s``. An
        undirected edge is a full-duplex cable: two links. An edge of a directed graph is one link, so the two
        directions of a cable may differ.
    origin
        The beginning of every error message.

    Raises
    ------
    UsageError
        For an attribute that is missing or cannot be used, and for hosts that are not connected.
    """
    numbers = {node: number for number, node in enumerate(graph)}
    kinds = [_kind(origin, node, data) for node, data in graph.nodes(data=True)]
    edges: list[tuple[int, int, int, float]] = []
    for source, target, data in graph.edges(data=True):
        bandwidth, latency = link_values(f"{origin}link {source}→{target}", data)
        edges.append((numbers[source], numbers[target], bandwidth, latency))
        if not graph.is_directed():
            edges.append((numbers[target], numbers[source], bandwidth, latency))
    sources = np.array([edge[0] for edge in edges], np.int64)
    targets = np.array([edge[1] for edge in edges], np.int64)
    router = ShortestPaths(len(numbers), sources, targets)
    hosts = [number for number, kind in enumerate(kinds) if kind == "host"]
    network = Graph(
        names=[str(node) for node in graph],
        hosts=np.array(hosts, np.int64),
        workers=len(hosts),
        servers=np.array([number for number, kind in enumerate(kinds) if kind == "server"], np.int64),
        sources=sources,
        targets=targets,
        bandwidth_bps=np.array([edge[2] for edge in edges], np.int64),
        latency_s=np.array([edge[3] for edge in edges], np.float64),
        router=router,
        groups=_groups(graph, origin, hosts, sources, targets),
    )
    check_connected(network, origin)
    limits = {
        numbers[node]: bandwidth_of(f"{origin}node {node!r}", data)
        for node, data in graph.nodes(data=True)
        if "bandwidth_bps" in data
    }
    return network.limited(np.array([*limits], np.int64), np.array([*limits.values()], np.int64)) if limits else network


def link_values(where: str, data: Any) -> tuple[int, float]:
    """Return the bandwidth in bit/s and the latency in seconds from the attributes of an edge.

    Raises UsageError for values that cannot be used; `where` begins its message.
    """
    bandwidth, latency = bandwidth_of(where, data), data.get("latency_s")
    if not _is_number(latency) or not 0 <= latency <= SLOWEST_S:
        raise UsageError(f"{where}: latency_s {shown(latency)} must be zero or more, finite and at most {SLOWEST_S:g}")
    return bandwidth, float(latency)


def bandwidth_of(where: str, data: Any) -> int:
    """Return the bandwidth in bit/s from the attributes of an edge or a node.

    Raises UsageError for a value that cannot be used; `where` begins its message.
    """
    bandwidth = data.get("bandwidth_bps")
    if not _is_number(bandwidth) or not 1 <= bandwidth <= FASTEST_BPS:
        raise UsageError(
            f"{where}: bandwidth_bps {shown(bandwidth)} must be at least 1, finite and at most {FASTEST_BPS:g}"
        )
    whole: int = round(bandwidth)
    return whole


def check_link(bandwidth_bps: Any, latency_s: Any) -> None:
    """Raise UsageError for a bandwidth or latency larger than the simulation can represent; both may be arrays."""
    fastest, slowest = np.max(bandwidth_bps, initial=0), np.max(latency_s, initial=0.0)
    if fastest > FASTEST_BPS:
        raise UsageError(f"bandwidth {shown(int(fastest))} bit/s must be at most {FASTEST_BPS:g} bit/s")
    if not slowest <= SLOWEST_S:
        raise UsageError(f"latency {shown(float(slowest))} s must be at most {SLOWEST_S:g} s")


def check_connected(graph: Graph, origin: str = "") -> None:
    """Raise UsageError unless every host can reach every other host; the message names two that cannot."""
    hosts = np.concatenate([graph.hosts, graph.servers])
    if not len(hosts):
        return
    nodes, first = len(graph.names), int(hosts[0])
    back = ShortestPaths(nodes, graph.sources, graph.targets).distances(first)[hosts]
    there = ShortestPaths(nodes, graph.targets, graph.sources).distances(first)[hosts]
    for distances, turned in ((there, False), (back, True)):
        if (distances < 0).any():
            pair = [graph.names[first], graph.names[int(hosts[np.argmax(distances < 0)])]]
            source, target = pair[::-1] if turned else pair
            raise UsageError(f"{origin}no path from host {source!r} to host {target!r}: connect them")


def _kind(origin: str, node: object, data: Any) -> str:
    """Return "host", "server" or "switch"; raise UsageError for another kind or role."""
    kind, role = data.get("kind"), data.get("role")
    if kind not in ("host", "switch"):
        raise UsageError(f"{origin}node {node!r}: kind {shown(kind)} must be 'host' or 'switch'")
    if role not in (None, "", "server", "worker") or (role == "server" and kind != "host"):
        raise UsageError(f"{origin}node {node!r}: role {shown(role)} must be 'server' or 'worker', and of a host")
    return "server" if role == "server" else str(kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _groups(graph: nx.Graph[Any], origin: str, hosts: list[int], sources: IntArray, targets: IntArray) -> IntArray:
    """Return the number of every host's group: by the node's ``group``, else by the only neighbour of the host."""
    nodes = list(graph.nodes(data=True))
    neighbours: dict[int, set[int]] = {host: set() for host in hosts}
    for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
        if source in neighbours:
            neighbours[source].add(target)
    numbers: dict[object, int] = {}
    groups = []
    for host in hosts:
        near = neighbours[host]
        name, data = nodes[host]
        label: object = data.get("group", ("at", min(near)) if len(near) == 1 else "none")
        if "group" in data and not isinstance(label, str | int | float):
            raise UsageError(f"{origin}node {name!r}: group {shown(label)} must be text or a number")
        groups.append(numbers.setdefault(label, len(numbers)))
    return np.array(groups, np.int64)
