"""A network in numbers: its size, its diameter and its bisection bandwidth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.units import PICOSECONDS
from netsim.network.fabric import Fabric
from netsim.network.graph import LinkRanges

Tell = Callable[[str], None]


def nobody(what: str) -> None:
    """Report no progress."""


MOST_PAIRS = 2 * 10**6
PAIRS_AT_ONCE = 200_000
MOST_HOSTS = 5000
"""Hosts up to which the maximum flow between halves is computed."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The size, diameter and bisection of a network.

    Parameters
    ----------
    diameter_links, diameter_s
        The number of links of the longest route, and the largest latency of a route. Unless `exact`, they come from a
        sample of the pairs, and the true values may be larger.
    bisection_bps
        The least bandwidth from one half of the hosts to the other, over the halvings tried; None for large networks.
    link_ranges
        The ranges of the links' bandwidths and latencies; None if there are no links.
    """

    hosts: int
    switches: int
    links: int
    groups: int
    diameter_links: int
    diameter_s: float
    exact: bool
    bisection_bps: int | None
    link_ranges: LinkRanges | None


def summarise(fabric: Fabric, orders: list[IntArray], tell: Tell = nobody) -> Summary:
    """Return the summary of a network.

    Each of the `orders` of the hosts is cut in the middle to find the bisection. ``tell(text)`` reports progress.
    """
    graph = fabric.graph
    count = len(fabric.hosts)
    asked = np.unique(np.linspace(0, count - 1, max(1, min(count, MOST_PAIRS // count))).astype(np.int64))
    links, seconds = 0, 0.0
    # Routes are searched for backwards from their targets, so all sources of a target are looked up together.
    targets = max(1, PAIRS_AT_ONCE // count)
    for begin in range(0, len(asked), targets):
        tell(f"looked at {begin / len(asked):.0%} of the routes between {count:,} hosts")
        some = asked[begin : begin + targets]
        routes = fabric.links_of(np.tile(np.arange(count), len(some)), np.repeat(some, count))
        counts = np.diff(routes.first)
        owners = np.repeat(np.arange(len(counts)), counts)
        links = max(links, int(np.bincount(owners, graph.cabled[routes.links], len(counts)).max()))
        seconds = max(seconds, float(np.bincount(owners, graph.latency_s[routes.links], len(counts)).max()))
    tell(f"looking for the bisection of {count:,} hosts")
    return Summary(
        hosts=count,
        switches=len(graph.switches),
        links=int(graph.cabled.sum()),
        groups=len(np.unique(graph.groups)),
        diameter_links=links,
        diameter_s=round(seconds * PICOSECONDS) / PICOSECONDS,
        exact=len(asked) == count,
        bisection_bps=bisection(fabric, orders),
        link_ranges=graph.ranges(),
    )


def bisection(fabric: Fabric, orders: list[IntArray]) -> int | None:
    """Return the bandwidth in bit/s from the first half of the hosts to the rest, the least over all `orders`.

    The bandwidth is the maximum flow, so hosts' own links count, too. Textbooks define the bisection as the least over
    *all* halvings, which is NP-hard to find; this value is an upper bound.
    """
    hosts = fabric.graph.hosts
    if not 2 <= len(hosts) <= MOST_HOSTS:
        return None
    return min(_flow(fabric, hosts[order[: len(hosts) // 2]], hosts[order[len(hosts) // 2 :]]) for order in orders)


def _flow(fabric: Fabric, half: IntArray, rest: IntArray) -> int:
    """Return the maximum flow in bit/s from one half of the hosts to the rest.

    A node with a limit is two nodes: the links into it end at the first, those out of it begin at the second, and its
    limit leads from the first to the second.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    graph, nodes = fabric.graph, len(fabric.names)
    limits = np.flatnonzero(~graph.cabled)
    out = np.arange(nodes)
    out[graph.sources[limits]] = nodes + 2 + np.arange(len(limits))
    # SciPy computes in 32 bits: exact if all bandwidths are multiples of a large enough unit, else to 1e-4.
    unit = int(np.gcd.reduce(graph.bandwidth_bps))
    most = int(graph.bandwidth_bps.max())
    if most // unit * len(half) >= 2**30:
        unit = max(1, most * len(half) // 2**30)
    ends = np.full(len(half), nodes), np.full(len(rest), nodes + 1)
    endless = np.full(len(half) + len(rest), 2**30)
    capacity = np.concatenate([graph.bandwidth_bps // unit, endless]).astype(np.int32)
    rows = np.concatenate([np.where(graph.cabled, out[graph.sources], graph.sources), ends[0], out[rest]])
    columns = np.concatenate([np.where(graph.cabled, graph.targets, out[graph.targets]), half, ends[1]])
    size = nodes + 2 + len(limits)
    network = csr_array((capacity, (rows, columns)), shape=(size, size))
    return int(maximum_flow(network, nodes, nodes + 1).flow_value) * unit
