"""Platform XML of SimGrid: hosts, routers, links, routes and clusters.

In SimGrid a link is a resource, and a route is a list of links. Here each link becomes a node that limits what passes,
and cables join the nodes in the order of the routes. A ``SHARED`` link is one node for both directions, a
``SPLITDUPLEX`` link one for each. Messages that come to a ``FATPIPE`` link from different hosts or links do
not share it.

If the file lists a route for every two hosts, messages take these routes. Otherwise they take routes with the fewest
links, which is what SimGrid's routings ``Floyd`` and ``Dijkstra`` look for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import networkx as nx

from netsim._util.errors import UsageError, shown
from netsim._util.units import BANDWIDTH, DURATION, FASTEST_BPS, SLOWEST_S, read_number, read_whole
from topologies.formats.draft import Draft, arrow, check_fits, links, printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_UNIT = re.compile(r"\s*([0-9.eE+-]+?)\s*([A-Za-zµ]*)\s*")
DUPLEX = ("SPLITDUPLEX", "FULLDUPLEX")
"""Both names of links with a bandwidth in each direction; the second is the older one."""
UNREAD = ("peer", "cabinet", "bypassRoute", "bypassASroute", "bypassZoneRoute", "include", "host_link", "backbone")
"""Elements that change the network in ways that are not read."""


@dataclass
class Platform:
    """What has been read of a platform: its graph, the links by name, and the listed routes."""

    origin: str
    graph: nx.DiGraph[str] = field(default_factory=nx.DiGraph)
    duplex: dict[str, bool] = field(default_factory=dict)
    """Whether each link has a bandwidth in each direction."""
    values: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Bandwidth in bit/s and latency in seconds of the node of each link and direction."""
    pipes: list[str] = field(default_factory=list)
    listed: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    crossed: int = 0
    """The nodes of all routes together."""

    def node(self, name: str, kind: str, group: str | None = None) -> None:
        """Add a host or a router."""
        if printable(name, self.origin) in self.graph:
            raise UsageError(f"{self.origin}node {name!r} is there twice; give every node an id of its own")
        self.graph.add_node(name, kind=kind, **({} if group is None else {"group": group}))
        if kind == "host":
            self.hosts.append(name)
        check_fits(len(self.graph), 0)

    def link(self, name: str, bandwidth: int, latency: float, policy: str) -> None:
        """Add a link: a node for it, or one for each of its directions."""
        if printable(name, self.origin) in self.duplex:
            raise UsageError(f"{self.origin}link {name!r} is there twice; give every link an id of its own")
        if policy not in ("SHARED", "FATPIPE", *DUPLEX):
            raise UsageError(
                f"{self.origin}link {name!r}: sharing_policy {policy!r} is not read, only SHARED, SPLITDUPLEX, FATPIPE"
            )
        self.duplex[name] = policy in DUPLEX
        for node in _directions(name) if self.duplex[name] else (name,):
            self.node(f"link {node}", "switch")
            self.values[f"link {node}"] = bandwidth, latency
            if policy == "FATPIPE":
                self.pipes.append(f"link {node}")
            else:
                self.graph.nodes[f"link {node}"]["bandwidth_bps"] = bandwidth

    def along(self, nodes: list[str]) -> None:
        """Lay cables from each node to the next; a link's latency is that of the cable to it."""
        self.crossed += len(nodes)
        check_fits(len(self.graph), self.crossed)
        for source, target in itertools.pairwise(nodes):
            bandwidth, latency = self.values.get(target) or (self.values.get(source, (FASTEST_BPS, 0.0))[0], 0.0)
            self.graph.add_edge(source, target, bandwidth_bps=bandwidth, latency_s=latency)


def platform(root: Element, origin: str) -> Draft:
    """Return the network below the root of a platform; raise UsageError for what is not read or does not fit."""
    read = Platform(origin)
    if str(root.get("version", "4")).strip() in ("1", "2", "3"):
        raise UsageError(
            f"{origin}version {root.get('version')} is older than 4; run SimGrid's simgrid_update_xml on it"
        )
    elements = list(_inside(root))
    for element in elements:
        if element.tag in UNREAD:
            raise UsageError(f"{origin}{element.tag} is not read; write hosts, links and routes instead")
        if element.get("coordinates") is not None:
            raise UsageError(f"{origin}coordinates are not read; write links and routes instead")
        if element.tag in ("host", "router"):
            read.node(_of(element, "id", origin), "host" if element.tag == "host" else "switch")
        elif element.tag == "link":
            _link(read, element)
        elif element.tag == "cluster":
            _cluster(read, element)
    routes = [element for element in elements if element.tag in ("route", "zoneRoute", "ASroute")]
    for element in routes:
        _route(read, element)
    return _draft(read, len(routes))


def _draft(platform: Platform, routes: int) -> Draft:
    graph, hosts = platform.graph, len(platform.hosts)
    unused = {node for node in platform.values if not graph.degree(node)}
    pipes = [pipe for pipe in platform.pipes if pipe not in unused]
    for source, target in [edge for pipe in pipes for edge in graph.out_edges(pipe)]:
        if target not in platform.values:
            graph.edges[source, target]["bandwidth_bps"] = min(FASTEST_BPS, hosts * platform.values[source][0])
    graph.remove_nodes_from(unused)
    every = hosts > 1 and len(platform.listed) == hosts * (hosts - 1)
    listed = f"{routes:,} route{'' if routes == 1 else 's'}"
    notes = [f"SimGrid platform: {hosts:,} hosts, {links(len(platform.duplex))}, {listed}"]
    if not every:
        notes.append("ASSUMED: routes with the fewest links, since the file does not list those of all hosts")
    if pipes:
        notes.append("ASSUMED: messages share a FATPIPE link only if they come to it from the same host or link")
    return Draft(graph=graph, notes=tuple(notes), listed=platform.listed if every else None)


def _inside(element: Element) -> Iterator[Element]:
    """Yield the elements in an element's zones, in order, without those of hosts and clusters."""
    stack = [iter(element)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
        elif child.tag in ("zone", "AS"):
            stack.append(iter(child))
        else:
            yield child


def _link(platform: Platform, element: Element) -> None:
    name = _of(element, "id", platform.origin)
    where = f"{platform.origin}link {name!r}: "
    bandwidth = _bandwidth(_of(element, "bandwidth", where), where)
    platform.link(
        name, bandwidth, _latency(element.get("latency", "0"), where), element.get("sharing_policy", "SHARED")
    )


def _cluster(platform: Platform, element: Element) -> None:
    """Add a cluster: hosts with a link each, a backbone if there is one, and the router to other zones."""
    name = _of(element, "id", platform.origin)
    where = f"{platform.origin}cluster {name!r}: "
    if element.get("topology", "FLAT") != "FLAT" or element.get("limiter_link"):
        raise UsageError(
            f"{where}only a flat cluster is read, without topology and limiter_link; write its links and routes"
        )
    prefix, suffix = element.get("prefix", ""), element.get("suffix", "")
    bandwidth = _bandwidth(_of(element, "bw", where), where)
    latency, policy = _latency(_of(element, "lat", where), where), element.get("sharing_policy", "SPLITDUPLEX")
    router = element.get("router_id") or f"{prefix}{name}_router{suffix}"
    platform.node(router, "switch")
    hub = router
    if element.get("bb_bw") is not None:
        backbone = f"{name}_backbone"
        values = _bandwidth(_of(element, "bb_bw", where), where), _latency(element.get("bb_lat", "0"), where)
        platform.link(backbone, *values, element.get("bb_sharing_policy", "SHARED").replace("SPLITDUPLEX", "SHARED"))
        hub = f"link {backbone}"
        platform.along([router, hub, router])
    for number in _radical(_of(element, "radical", where), where):
        host, link = f"{prefix}{number}{suffix}", f"{name}_link_{number}"
        platform.node(host, "host", group=name)
        platform.link(link, bandwidth, latency, policy)
        up, down = _ways(platform, link, "NONE")
        platform.along([host, up, hub, down, host])


def _route(platform: Platform, element: Element) -> None:
    """Lay the cables of a route, and of its reverse unless it is said not to be symmetrical."""
    ends = ("src", "dst") if element.tag == "route" else ("gw_src", "gw_dst")
    source, target = (_of(element, end, platform.origin) for end in ends)
    where = f"{platform.origin}route {arrow(source, target)}: "
    if source == target:
        return  # a loopback; a host's own messages take no link
    for end in (source, target):
        if end not in platform.graph or end in platform.values:
            raise UsageError(f"{where}there is no host or router {end!r}")
    there, back = [source], [target]
    for crossed in element:
        if crossed.tag != "link_ctn":
            continue
        name = _of(crossed, "id", where)
        if name not in platform.duplex:
            raise UsageError(f"{where}there is no link {name!r}")
        one, other = _ways(platform, name, crossed.get("direction", "NONE"))
        there.append(one)
        back.insert(1, other)
    symmetrical = element.get("symmetrical", "YES").upper() in ("YES", "TRUE", "1")
    for route in ([*there, target], [*back, source])[: 2 if symmetrical else 1]:
        platform.along(route)
        if {"host"} == {platform.graph.nodes[end]["kind"] for end in (route[0], route[-1])}:
            platform.listed[route[0], route[-1]] = route[1:-1]


def _ways(platform: Platform, link: str, direction: str) -> tuple[str, str]:
    """Return the nodes of a link that a route takes, and that its reverse takes."""
    if not platform.duplex[link]:
        return f"link {link}", f"link {link}"
    up, down = (f"link {each}" for each in _directions(link))
    return (down, up) if direction == "DOWN" else (up, down)


def _directions(link: str) -> tuple[str, str]:
    return f"{link}_UP", f"{link}_DOWN"


def _of(element: Element, attribute: str, where: str) -> str:
    value = element.get(attribute)
    if not value:
        raise UsageError(f"{where}{element.tag} without {attribute}; give it")
    return str(value)


def _bandwidth(text: str, where: str) -> int:
    """Return a bandwidth in bit/s, which SimGrid writes as 125MBps or 1Gbps; a plain number is in bytes per second."""
    number, unit = _split(text)
    scale = BANDWIDTH.get(f"{unit[:-3]}B/s" if unit.endswith("Bps") else unit or "B/s")
    bits = None if number is None or scale is None else number * float(scale)
    if bits is None or not 1 <= bits <= FASTEST_BPS:
        raise UsageError(f"{where}bandwidth {shown(text)} must be at least 1 bit/s, such as 125MBps or 1Gbps")
    return round(bits)


def _latency(text: str, where: str) -> float:
    """Return a latency in seconds, which SimGrid writes as 50us; a plain number is in seconds."""
    number, unit = _split(text)
    scale = DURATION.get(unit or "s")
    seconds = None if number is None or scale is None else number * float(scale)
    if seconds is None or not 0 <= seconds <= SLOWEST_S:
        raise UsageError(f"{where}latency {shown(text)} must be zero or more, such as 50us")
    return seconds


def _split(text: str) -> tuple[float | None, str]:
    found = _UNIT.fullmatch(text)
    return (None, "") if found is None else (read_number(found[1]), found[2])


def _radical(text: str, where: str) -> Iterator[int]:
    """Yield the numbers of a cluster's hosts, which SimGrid writes as 0-9,12,15-20."""
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        low, high = read_whole(first), read_whole(last or first)
        if low is None or high is None or not 0 <= low <= high:
            raise UsageError(f"{where}radical {shown(text)} must be numbers or ranges of them, such as 0-9,12")
        check_fits(high - low, 0)
        yield from range(low, high + 1)
