"""A network as the simulator uses it: directed links, the hosts of the ranks, and the routes between hosts.

Routes are available in two forms, with the same answers:

- :meth:`Fabric.links_of` returns the routes of many pairs of ranks at once, as arrays of link numbers. Bandwidths and
  latencies are columns too (``fabric.bandwidth_bps[link]``), so no object is made for a link or a pair::

      first, links, latency_ps = fabric.links_of(src, dst)     # ranks, shape (n,)
      links[first[i] : first[i + 1]]                           # the links of pair i, in order

- :meth:`Fabric.route` returns the route of one pair of hosts by name, as :class:`Link` objects made on first use.
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
    """One direction of a cable, or what all messages at a node share; it then leads from the node to itself.

    A link never changes. The class is not frozen because frozen instances take several times as long to make.
    """

    index: int
    source: str
    target: str
    bandwidth_bps: int
    latency_s: float

    @property
    def name(self) -> str:
        """The link's name in reports: ``worker0→switch``, or ``machine0`` for the limit of a node."""
        return f"{self.source}→{self.target}" if self.source != self.target else self.source

    @property
    def cabled(self) -> bool:
        """Whether the link is one way of a cable, and not the limit of a node."""
        return self.source != self.target

    @property
    def ends(self) -> tuple[str, str]:
        """The names of the two nodes."""
        return self.source, self.target


class Route:
    """The links from one host to another, in order, and their total latency in picoseconds. A route never changes."""

    __slots__ = ("latency_ps", "links", "narrowest")

    def __init__(self, links: tuple[Link, ...], latency_ps: int) -> None:
        self.links = links
        self.latency_ps = latency_ps
        self.narrowest: Link | None = None
        """The link of least bandwidth, the first of several equal ones; None for a host's route to itself."""
        for link in links:
            if self.narrowest is None or link.bandwidth_bps < self.narrowest.bandwidth_bps:
                self.narrowest = link


class Routes(NamedTuple):
    """Routes of n pairs: pair i takes ``links[first[i]:first[i + 1]]``, with ``latency_ps[i]`` in all.

    `first` has shape (n + 1,), `latency_ps` shape (n,). No latency exceeds the horizon, so the sum of an instant and a
    latency fits 64 bits.
    """

    first: IntArray
    links: IntArray
    latency_ps: IntArray


class Fabric:
    """The links of a network, the hosts of the ranks, and the routes between hosts.

    Parameters
    ----------
    graph
        The network; also a networkx graph as :func:`netsim.network.graph.from_networkx` takes it.
    workers
        How many ranks train; all that the graph has room for if None. Parameter servers come after the last worker.
    order
        Rank r is on the host ``graph.hosts[order[r]]``; ``graph.hosts[r]`` if None.

    Raises
    ------
    InfeasibleError
        If there are fewer hosts than workers.
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
        """For every worker: the number of its machine, rack or site."""
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

    def __repr__(self) -> str:
        return f"Fabric({len(self.workers)} workers, {len(self.links)} links)"

    def _named(self, chosen: IntArray) -> list[str]:
        """Name anonymous hosts after their ranks.

        A host without a rank is named after its position in the network: ``worker8``, or ``host8`` if ranks are placed
        out of order.
        """
        names, in_order = self.graph.names, np.array_equal(chosen, np.arange(len(chosen)))
        if self.graph.anonymous and not in_order:
            names = names.copy()
            for position, node in enumerate(self.graph.hosts.tolist()):
                names[node] = f"host{position}"
            for rank, node in enumerate(self.graph.hosts[chosen].tolist()):
                names[node] = f"worker{rank}"
        return names

    def links_of(
        self,
        sources: Sequence[int] | IntArray,
        targets: Sequence[int] | IntArray,
        flows: IntArray | int = 0,
    ) -> Routes:
        """Return the routes from ranks ``sources[i]`` to ``targets[i]``; the route of a rank to itself is empty.

        All messages of a pair take one route, as over one connection. `flows` numbers the connections of a pair:
        connections with different numbers may take different routes of equal cost.
        """
        return self._between(
            self._nodes[np.asarray(sources, np.int64)], self._nodes[np.asarray(targets, np.int64)], flows
        )

    def _between(self, here: IntArray, there: IntArray, flows: IntArray | int = 0) -> Routes:
        """Return the routes between nodes."""
        graph = self.graph
        paths = graph.router.paths(here, there, flow_hash(here, there, flows, graph.hash_seed))
        if graph.limits is not None:
            paths = paths.through(here, graph.targets, graph.limits)
        owners = np.repeat(np.arange(len(here)), paths.counts)
        # Latencies are summed before rounding, so that two halves of a latency make the whole.
        seconds = np.bincount(owners, graph.latency_s[paths.links], len(here))
        latency_ps = np.rint(np.minimum(seconds * PICOSECONDS, HORIZON_PS)).astype(np.int64)
        return Routes(paths.first, paths.links, latency_ps)

    @cached_property
    def nodes_of_hosts(self) -> dict[str, int]:
        """The node of every host by name, also of hosts without a rank."""
        nodes = np.concatenate([self.graph.hosts, self.graph.servers]).tolist()
        return {self.names[node]: node for node in nodes}

    def route(self, source: str, target: str) -> Route:
        """Return the route between two hosts by name, the same object at every call; a host need not have a rank."""
        if (cached := self._routes.get((source, target))) is None:
            nodes = self.nodes_of_hosts
            cached = self._routes[source, target] = self._route(nodes[source], nodes[target])
        return cached

    def _route(self, source: int, target: int) -> Route:
        router = self.graph.router
        if isinstance(router, TreeRouter) and self.graph.limits is None:
            links = [*map(self._numbered, router.path(source, target))]
            return Route(tuple(links), min(round(sum([link.latency_s for link in links]) * PICOSECONDS), HORIZON_PS))
        _, numbers, latency_ps = self._between(np.array([source]), np.array([target]))
        return Route(tuple(self.links[link] for link in numbers.tolist()), int(latency_ps[0]))


class _Links(Sequence[Link]):
    """The links as objects; each is made when it is first looked up, and kept."""

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
            return [self[position] for position in range(*index.indices(len(self)))]
        return self.numbered(range(len(self))[index])

    def numbered(self, index: int) -> Link:
        """Return the link of a number, without checking that the number is valid."""
        if (link := self._made.get(index)) is None:
            graph, names = self._graph, self._names
            link = self._made[index] = Link(
                index,
                names[graph.sources.item(index)],
                names[graph.targets.item(index)],
                graph.bandwidth_bps.item(index),
                graph.latency_s.item(index),
            )
        return link

    def __iter__(self) -> Iterator[Link]:
        return (self[index] for index in range(len(self)))
