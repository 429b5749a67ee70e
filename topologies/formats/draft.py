"""A network as a file describes it, and its completion: what the file leaves open, and how it is filled in."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netsim._util.errors import InfeasibleError, UsageError, shown
from netsim._util.units import FASTEST_BPS, format_bandwidth, format_duration
from netsim.network.graph import Graph, from_networkx
from netsim.network.routing import ListedRoutes
from topologies.builder import Shape

if TYPE_CHECKING:
    import networkx as nx

FIBRE_KM_PER_S = 2 / 3 * 299_792.458
"""The speed of light in fibre, two thirds of that in vacuum, in km/s; it turns a distance into a latency."""
EARTH_KM = 6371.0
"""The mean radius of the Earth."""
MOST_NODES, MOST_CABLES = 100_000, 500_000
"""The limits of a network that a few lines of a file describe; such a network takes some seconds to read."""
NAMED = 3
"""Most names in a list; the others are counted."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Draft:
    """A network as its file describes it.

    Parameters
    ----------
    graph
        Nodes and edges as :func:`netsim.network.graph.from_networkx` reads them. If the file has routers only, nodes
        have no ``kind``, and edges may lack ``bandwidth_bps`` and ``latency_s``; ``unknown`` counts the parallel links
        without a speed that an edge stands for.
    routers
        Whether the file has routers only, so that hosts must be attached.
    notes
        What was read, and what was ASSUMED whatever the options are.
    listed
        The nodes between the two hosts of a route, for files that list every route; empty if routes are found.
    """

    graph: nx.Graph[Any]
    routers: bool = False
    notes: tuple[str, ...] = ()
    listed: dict[tuple[str, str], list[str]] | None = None


def check_fits(nodes: int, cables: int) -> None:
    """Raise InfeasibleError for a network too large to be read from a file; call this function before building it."""
    if nodes > MOST_NODES or cables > MOST_CABLES:
        raise InfeasibleError(
            f"the file describes {nodes:,} nodes and {cables:,} cables, and networks of files have at most "
            f"{MOST_NODES:,} and {MOST_CABLES:,}; take a smaller network, or a named topology"
        )


def completed(draft: Draft, shape: Shape, hosts: int | None, origin: str) -> Graph:
    """Return the network of a draft.

    Parameters
    ----------
    shape
        The bandwidth and latency of links for which the file says nothing.
    hosts
        How many hosts to attach to every router of a file that has routers only; 1 if None.
    origin
        The beginning of error messages.

    Raises
    ------
    UsageError
        For a value that cannot be used, for hosts that are not connected, and for `hosts` beside hosts of the file.
    """
    if not draft.routers:
        if hosts is not None:
            raise UsageError(f"{origin}hosts={hosts} was given, but the file has hosts of its own; leave it out")
        network = replace(from_networkx(draft.graph, origin), notes=draft.notes)
        return network if draft.listed is None else replace(network, router=_listed_routes(network, draft.listed))
    graph, assumed = _with_hosts(draft.graph, shape, hosts or 1)
    return replace(from_networkx(graph, origin), notes=(*draft.notes, *assumed))


def _listed_routes(network: Graph, listed: dict[tuple[str, str], list[str]]) -> ListedRoutes:
    """Return the router that takes the listed routes."""
    numbers = {name: number for number, name in enumerate(network.names)}
    ends = zip(network.sources.tolist(), network.targets.tolist(), strict=True)
    links_between = {pair: link for link, pair in enumerate(ends)}
    routes: dict[tuple[int, int], list[int]] = {}
    for (source, target), between in listed.items():
        nodes = [numbers[name] for name in (source, *between, target)]
        routes[nodes[0], nodes[-1]] = [links_between[pair] for pair in itertools.pairwise(nodes)]
    return ListedRoutes(routes)


def _with_hosts(routers: nx.Graph[Any], shape: Shape, hosts: int) -> tuple[nx.Graph[Any], list[str]]:
    """Return routers with their links completed and hosts attached, and what was assumed."""
    inner = [node for node, data in routers.nodes(data=True) if data.get("attach", True)]
    check_fits(len(inner) * hosts + len(routers), routers.number_of_edges() + len(inner) * hosts)
    graph = routers.__class__()
    for router in inner:
        for number in range(hosts):
            name = f"{router}.{number}" if hosts > 1 else str(router)
            graph.add_node(name, kind="host", group=str(router))
    for router in routers:
        graph.add_node(f"{router} router", kind="switch")
    half_s = shape.latency_s / 2
    access = {"bandwidth_bps": shape.bandwidth_bps, "latency_s": half_s}
    for name, group in list(graph.nodes(data="group")):
        if group is not None:
            graph.add_edge(name, f"{group} router", **access)
            if graph.is_directed():
                graph.add_edge(f"{group} router", name, **access)
    slow = late = by_distance = 0
    for source, target, data in routers.edges(data=True):
        unknown = data["unknown"]
        bandwidth = data["bandwidth_bps"] + unknown * shape.bandwidth_bps
        slow += unknown > 0
        latency = data["latency_s"]
        late += latency is None
        by_distance += data["by_distance"]
        values = {"bandwidth_bps": bandwidth, "latency_s": half_s if latency is None else latency}
        graph.add_edge(f"{source} router", f"{target} router", **values)
    each = "a host" if hosts == 1 else f"{hosts} hosts"
    bandwidth_text, latency_text = format_bandwidth(shape.bandwidth_bps), format_duration(half_s)
    assumed = [
        f"ASSUMED: {each} at every router{'' if len(inner) == len(routers) else ' inside'} on a link of "
        f"{bandwidth_text} and {latency_text} (--bandwidth, half of --latency)"
    ]
    if slow:
        assumed.append(f"ASSUMED: {bandwidth_text} (--bandwidth) for {links(slow)} without a speed")
    if by_distance:
        assumed.append(f"ASSUMED: light in fibre, 2/3 c, for the latency of {links(by_distance)} with a distance")
    if late:
        assumed.append(f"ASSUMED: {latency_text} (half of --latency) for {links(late)} without a latency")
    return graph, assumed


def links(count: int) -> str:
    """Return a number of links in words."""
    return f"{count:,} link{'' if count == 1 else 's'}"


def arrow(source: object, target: object) -> str:
    """Return the ends of a link in words; ends that cannot be printed are quoted."""
    text = f"{source}→{target}"
    return text if text.isprintable() else f"{shown(source)}→{shown(target)}"


def fibre_s(km: float) -> float:
    """Return the seconds that light takes for a distance in fibre."""
    return km / FIBRE_KM_PER_S


def great_circle_km(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the distance on the Earth between two points, each a latitude and a longitude in degrees.

    >>> round(great_circle_km((52.52, 13.40), (48.14, 11.58)))
    504
    """
    (lat, lon), (other_lat, other_lon) = (tuple(map(math.radians, point)) for point in (first, second))
    a = math.sin((other_lat - lat) / 2) ** 2
    b = math.cos(lat) * math.cos(other_lat) * math.sin((other_lon - lon) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(a + b)))


def printable(name: object, origin: str) -> str:
    """Return the id of a node as text; raise UsageError for text that cannot be printed."""
    text = str(name)
    if not text or not text.isprintable():
        raise UsageError(f"{origin}node {text!r}: a node's id must be printable text")
    return text


def check_ids(ids: Iterable[Hashable], origin: str) -> None:
    """Raise UsageError for an id that two nodes have."""
    for name, count in Counter(ids).items():
        if count > 1:
            raise UsageError(f"{origin}node {name!r} is there twice; give every node an id of its own")


def check_speed(bandwidth: float, where: str, written: object) -> None:
    """Raise UsageError for a bandwidth in bit/s that no link can have."""
    if not 1 <= bandwidth <= FASTEST_BPS:
        raise UsageError(f"{where}: {written!r} must be at least 1 bit/s, finite and at most {FASTEST_BPS:g}")


def some(names: Sequence[object]) -> str:
    """Return the first of several names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    few = ", ".join(map(str, names[:NAMED]))
    return few if len(names) <= NAMED else f"{few} and {len(names) - NAMED} more"
