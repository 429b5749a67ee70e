"""A network as the simulator uses it: directed links, the hosts that ranks are on, and the routes between them.

Two ways to ask for routes, with the same answers:

- :meth:`Fabric.links_of` for many pairs of ranks at once, as arrays of link numbers. Bandwidths and latencies
  are columns too (``fabric.bandwidth_bps[link]``), so nothing is made for a link or a pair::

      first, links, latency_ps = fabric.links_of(src, dst)     # ranks, shape (n,)
      links[first[i] : first[i + 1]]                           # the links of pair i, in order

- :meth:`Fabric.route` for one pair of hosts by name, as :class:`Link` objects, made when first asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.errors import InfeasibleError
from netsim._util.units import HORIZON_PS, PICOSECONDS
from netsim.network.graph import Graph, from_networkx
from netsim.network.routing import TreeRouter, flow_hash

if TYPE_CHECKING:
    import networkx as nx


@dataclass(slots=True, eq=False)
class Link:
    """One direction of a cable, or of a host's or switch's port. Never changed; a frozen one takes long to make."""

    index: int
    source: str
    target: str
    bandwidth_bps: int
    latency_s: float

    @property
    def name(self) -> str:
        return f"{self.source}→{self.target}"

    @property
    def ends(self) -> tuple[str, str]:
        """The names of the nodes that it links."""
        return self.source, self.target


class Route:
    """The links from one host to another, in order, and their total latency. Never changed."""

    __slots__ = ("latency_ps", "links", "narrowest")

    def __init__(self, links: tuple[Link, ...], latency_ps: int) -> None:
        self.links = links
        self.latency_ps = latency_ps
        self.narrowest: Link | None = None
        """The link of least bandwidth, the first of several; None for a host's route to itself."""
        for link in links:
            if self.narrowest is None or link.bandwidth_bps < self.narrowest.bandwidth_bps:
                self.narrowest = link


class Routes(NamedTuple):
    """Routes of many pairs: that of pair i is ``links[first[i]:first[i + 1]]``, with ``latency_ps[i]`` in all.

    No latency is more than the horizon, so that an instant and a latency fit 64 bits.
    """

    first: IntArray
    links: IntArray
    latency_ps: IntArray


class Fabric:
    """The links of a network, and the routes between the hosts that ranks are on.

    Rank r of the workers is on the host ``order[r]`` of the graph, r if there is no order; parameter
    servers come after the last worker. `graph` may also be a networkx graph, as
    :func:`netsim.network.graph.from_networkx` takes it.
    """

    def __init__(
        self,
        graph: Graph | nx.Graph[Any],
        workers: int | None = None,
        order: Sequence[int] | IntArray | None = None,
    ) -> None:
        self.graph = graph if isinstance(graph, Graph) else from_networkx(graph)
        available = len(self.graph.hosts)
        workers = self.graph.workers if workers is None else workers
        if workers > available:
            raise InfeasibleError(
                f"{workers} workers need as many hosts, and the topology has {available}; take fewer workers or a "
                "larger topology"
            )
        chosen = np.arange(workers) if order is None else np.asarray(order, np.int64)[:workers]
        self.groups: IntArray = self.graph.groups[chosen]
        """Of every worker: the number of the machine, rack or site that it shares with others."""
        self._nodes = np.concatenate([self.graph.hosts[chosen], self.graph.servers])
        self.names = self._named(chosen)
        self.hosts: list[str] = [self.names[node] for node in self._nodes.tolist()]
        self.workers = self.hosts[:workers]
        self.server_host: str | None = self.hosts[workers] if len(self.hosts) > workers else None
        self.bandwidth_bps: IntArray = self.graph.bandwidth_bps
        links = _Links(self.graph, self.names)
        self.links: Sequence[Link] = links
        self._numbered = links.numbered
        self._routes: dict[tuple[str, str], Route] = {}

    def _named(self, chosen: IntArray) -> list[str]:
        """Name hosts that have no names of their own after the ranks that they hold.

        A host without a rank keeps the number in its network: as ``worker8``, unless ranks are placed out of order.
        """
        names, in_order = self.graph.names, np.array_equal(chosen, np.arange(len(chosen)))
        if self.graph.anonymous and not in_order:
            names = names.copy()
            for number, node in enumerate(self.graph.hosts.tolist()):
                names[node] = f"host{number}"
            for rank, node in enumerate(self.graph.hosts[chosen].tolist()):
                names[node] = f"worker{rank}"
        return names

    def links_of(
        self,
        sources: Sequence[int] | IntArray,
        targets: Sequence[int] | IntArray,
        flows: IntArray | int = 0,
    ) -> Routes:
        """Return the routes from ranks ``sources[i]`` to ``targets[i]``; that of a rank to itself is empty.

        All messages of a pair take one route, as over one connection; `flows`, a number for each pair, sets
        apart several connections of the same pair, which may take different routes among equals.
        """
        return self._between(
            self._nodes[np.asarray(sources, np.int64)], self._nodes[np.asarray(targets, np.int64)], flows
        )

    def _between(self, here: IntArray, there: IntArray, flows: IntArray | int = 0) -> Routes:
        """Return the routes between nodes."""
        paths = self.graph.router.paths(here, there, flow_hash(here, there, flows, self.graph.hash_seed))
        owners = np.repeat(np.arange(len(here)), paths.counts)
        # Summed before rounding, so that two halves of a latency make the whole.
        seconds = np.bincount(owners, self.graph.latency_s[paths.links], len(here))
        latency_ps = np.rint(np.minimum(seconds * PICOSECONDS, HORIZON_PS)).astype(np.int64)
        return Routes(paths.first, paths.links, latency_ps)

    @cached_property
    def nodes_of_hosts(self) -> dict[str, int]:
        """The node of every host by name, also of hosts that no rank is on."""
        nodes = np.concatenate([self.graph.hosts, self.graph.servers]).tolist()
        return {self.names[node]: node for node in nodes}

    def route(self, source: str, target: str) -> Route:
        """Return the route between two hosts by name, the same at every call; a host need not hold a rank."""
        if (known := self._routes.get((source, target))) is None:
            nodes = self.nodes_of_hosts
            known = self._routes[source, target] = self._route(nodes[source], nodes[target])
        return known

    def _route(self, source: int, target: int) -> Route:
        router = self.graph.router
        if isinstance(router, TreeRouter):
            links = [*map(self._numbered, router.path(source, target))]
            return Route(tuple(links), min(round(sum([link.latency_s for link in links]) * PICOSECONDS), HORIZON_PS))
        _, numbers, latency_ps = self._between(np.array([source]), np.array([target]))
        return Route(tuple(self.links[link] for link in numbers.tolist()), int(latency_ps[0]))


class _Links(Sequence[Link]):
    """The links as objects, each made when it is first looked at, and then the same one always."""

    def __init__(self, graph: Graph, names: list[str]) -> None:
        self._graph, self._names = graph, names
        self._made: dict[int, Link] = {}

    def __len__(self) -> int:
        return len(self._graph.sources)

    @overload
    def __getitem__(self, index: int) -> Link: ...
    @overload
    def __getitem__(self, index: slice) -> list[Link]: ...
    def __getitem__(self, index: int | slice) -> Link | list[Link]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self.numbered(range(len(self))[index])

    def numbered(self, number: int) -> Link:
        """Return a link by its number, of which nobody doubts that it is there."""
        if (link := self._made.get(number)) is None:
            graph, names = self._graph, self._names
            link = self._made[number] = Link(
                number,
                names[graph.sources.item(number)],
                names[graph.targets.item(number)],
                graph.bandwidth_bps.item(number),
                graph.latency_s.item(number),
            )
        return link

    def __iter__(self) -> Iterator[Link]:
        return (self[number] for number in range(len(self)))
