"""The parts that topologies are built with: their shape, and cables laid many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.errors import InfeasibleError
from netsim._util.units import format_bytes
from netsim.network.graph import Graph, check_link
from netsim.network.routing import FloatArray, Router

BANDWIDTH_BPS = 10**9
LATENCY_S = 50e-6
"""The default bandwidth and latency of a shape."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a network and the defaults of its links.

    Parameters
    ----------
    workers
        How many hosts have a worker.
    bandwidth_bps
        The bandwidth of a link in bit/s.
    latency_s
        The one-way latency from host to host across one switch, in seconds: half of it for each of the two cables.
    fan_out
        How many children a switch has, in a tree.
    """

    workers: int
    bandwidth_bps: int = BANDWIDTH_BPS
    latency_s: float = LATENCY_S
    fan_out: int = 8

    def __post_init__(self) -> None:
        check_link(self.bandwidth_bps, self.latency_s)


MOST_NODES, MOST_LINKS = 4_000_000, 20_000_000
"""The limits of a network's size; such a network takes about 3 GB and a minute."""
NODE_BYTES, LINK_BYTES = 250, 100
"""Memory per node and per link."""


def check_size(hosts: int, switches: int, cables: int) -> None:
    """Raise InfeasibleError for a network that is too large; call this function before building it."""
    nodes, links = hosts + switches, 2 * cables
    if nodes > MOST_NODES or links > MOST_LINKS:
        memory = format_bytes(NODE_BYTES * nodes + LINK_BYTES * links)
        raise InfeasibleError(
            f"a network of {hosts:,} hosts, {switches:,} switches and {links:,} links would take about {memory}; build "
            f"one of at most {MOST_NODES:,} nodes and {MOST_LINKS:,} links"
        )


class Wiring:
    """Collects the nodes and links of a network, many at a time. Hosts come first, in the order of the ranks.

    Parameters
    ----------
    shape
        The defaults of the links.
    hosts
        The number of hosts, which may be too few for all workers; one host a worker if None.
    """

    def __init__(self, shape: Shape, hosts: int | None = None) -> None:
        self._shape = shape
        count = shape.workers if hosts is None else hosts
        self.hosts = np.arange(count)
        self._names = [f"worker{rank}" for rank in range(count)]
        self._servers = np.zeros(0, np.int64)
        self._sources: list[IntArray] = []
        self._targets: list[IntArray] = []
        self._bandwidths: list[IntArray] = []
        self._latencies: list[FloatArray] = []
        self._links = 0

    def switches(self, names: Sequence[str]) -> IntArray:
        """Add switches; return their nodes."""
        first = len(self._names)
        self._names += names
        return np.arange(first, len(self._names))

    def servers(self, names: Sequence[str]) -> IntArray:
        """Add hosts reserved for parameter servers; return their nodes."""
        self._servers = self.switches(names)
        return self._servers

    def cables(
        self,
        sources: IntArray,
        targets: IntArray,
        *,
        bandwidth_bps: int | IntArray | None = None,
        back_bps: int | IntArray | None = None,
        latency_s: float | FloatArray | None = None,
        back_s: float | FloatArray | None = None,
    ) -> IntArray:
        """Lay full-duplex cables; return the links from `sources` to `targets`. The link back has the next number.

        Parameters
        ----------
        sources, targets
            The nodes at the two ends of each cable.
        bandwidth_bps, latency_s
            Bandwidth and latency from `sources` to `targets`; None takes the shape's bandwidth, or half its latency.
        back_bps, back_s
            Bandwidth and latency from `targets` to `sources`; None takes the values of the other direction.
        """
        there = self._shape.bandwidth_bps if bandwidth_bps is None else bandwidth_bps
        wait = self._shape.latency_s / 2 if latency_s is None else latency_s
        back = there if back_bps is None else back_bps
        wait_back = wait if back_s is None else back_s
        check_link(there, wait)
        check_link(back, wait_back)
        count = len(sources)
        self._sources.append(np.stack([sources, targets], 1).ravel())
        self._targets.append(np.stack([targets, sources], 1).ravel())
        self._bandwidths.append(_alternating(count, there, back).astype(np.int64))
        self._latencies.append(_alternating(count, wait, wait_back).astype(np.float64))
        first, self._links = self._links, self._links + 2 * count
        return np.arange(first, self._links, 2)

    @property
    def nodes(self) -> int:
        """The number of nodes so far."""
        return len(self._names)

    def graph(self, router: Router, groups: IntArray | None = None, near: IntArray | None = None) -> Graph:
        """Return the network; all hosts are in one group if `groups` is None."""
        nothing = np.zeros(0, np.int64)
        return Graph(
            names=self._names,
            hosts=self.hosts,
            workers=self._shape.workers,
            servers=self._servers,
            sources=np.concatenate([nothing, *self._sources]),
            targets=np.concatenate([nothing, *self._targets]),
            bandwidth_bps=np.concatenate([nothing, *self._bandwidths]),
            latency_s=np.concatenate([np.zeros(0), *self._latencies]),
            router=router,
            groups=np.zeros(len(self.hosts), np.int64) if groups is None else groups,
            near=np.arange(len(self.hosts)) if near is None else near,
            anonymous=True,
        )


def _alternating(count: int, there: Any, back: Any) -> Any:
    """Return the values of both directions of `count` cables, in turn."""
    return np.stack([np.broadcast_to(there, count), np.broadcast_to(back, count)], 1).ravel()


class Branches:
    """The parents of the nodes of a tree, filled in as cables are laid upwards."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._laid: list[tuple[IntArray, IntArray, IntArray]] = []

    def hang(
        self,
        children: IntArray,
        parents: IntArray,
        *,
        up_bps: int | IntArray | None = None,
        down_bps: int | IntArray | None = None,
        latency_s: float | None = None,
    ) -> None:
        """Lay a cable from each child to its parent."""
        links = self._wiring.cables(children, parents, bandwidth_bps=up_bps, back_bps=down_bps, latency_s=latency_s)
        self._laid.append((children, parents, links))

    def columns(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return the parent of every node (the node itself at the root), the link to it, and the link from it."""
        above = np.arange(self._wiring.nodes)
        up = np.full(self._wiring.nodes, -1, np.int64)
        for children, parents, links in self._laid:
            above[children], up[children] = parents, links
        return above, up, up + 1
