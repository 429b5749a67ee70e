"""A network in numbers: how large it is, how far it is across, and what crosses its middle."""

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
    """Tell nobody."""


MOST_PAIRS = 2 * 10**6
PAIRS_AT_ONCE = 200_000
MOST_HOSTS = 5000
"""Up to which the flow between halves is computed."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts, and how far and how wide the network is.

    `diameter_links` and `diameter_s` are the most links and latency of any route; of a sample of
    the pairs, and so perhaps too low, unless `exact`. `bisection_bps` is the bandwidth from one half of the
    hosts to the other, the least over the halvings that were tried; None for very large networks. `link_ranges` is
    None where there are no links.
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
    """Return a network's numbers; `orders` of the hosts are cut in the middle to find the bisection.

    ``tell(what)`` is called as it goes on.
    """
    graph = fabric.graph
    count = len(fabric.hosts)
    asked = np.unique(np.linspace(0, count - 1, max(1, min(count, MOST_PAIRS // count))).astype(np.int64))
    links, seconds = 0, 0.0
    # Routes are searched for backwards from their targets, so many sources of a target are asked for together.
    targets = max(1, PAIRS_AT_ONCE // count)
    for begin in range(0, len(asked), targets):
        tell(f"looked at {begin / len(asked):.0%} of the routes between {count:,} hosts")
        some = asked[begin : begin + targets]
        routes = fabric.links_of(np.tile(np.arange(count), len(some)), np.repeat(some, count))
        counts = np.diff(routes.first)
        links = max(links, int(counts.max()))
        owners = np.repeat(np.arange(len(counts)), counts)
        seconds = max(seconds, float(np.bincount(owners, graph.latency_s[routes.links], len(counts)).max()))
    tell(f"looking for the bisection of {count:,} hosts")
    return Summary(
        hosts=count,
        switches=len(graph.switches),
        links=len(graph.sources),
        groups=len(np.unique(graph.groups)),
        diameter_links=links,
        diameter_s=round(seconds * PICOSECONDS) / PICOSECONDS,
        exact=len(asked) == count,
        bisection_bps=bisection(fabric, orders),
        link_ranges=graph.ranges(),
    )


def bisection(fabric: Fabric, orders: list[IntArray]) -> int | None:
    """Return the bandwidth in bit/s from the first half of an order of the hosts to the rest, the least of all orders.

    By the maximum flow, so whatever is narrowest between the halves counts, hosts' own links included. The
    least over *all* halvings, as textbooks define it, is not known how to find quickly; this is never less.
    """
    hosts = fabric.graph.hosts
    if not 2 <= len(hosts) <= MOST_HOSTS:
        return None
    return min(_flow(fabric, hosts[order[: len(hosts) // 2]], hosts[order[len(hosts) // 2 :]]) for order in orders)


def _flow(fabric: Fabric, half: IntArray, rest: IntArray) -> int:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    graph, nodes = fabric.graph, len(fabric.names)
    # The flow is computed in 32 bits: exactly where bandwidths are multiples of one not too small, else to 1e-4.
    unit = int(np.gcd.reduce(graph.bandwidth_bps))
    most = int(graph.bandwidth_bps.max())
    if most // unit * len(half) >= 2**30:
        unit = max(1, most * len(half) // 2**30)
    ends = np.full(len(half), nodes), np.full(len(rest), nodes + 1)
    endless = np.full(len(half) + len(rest), 2**30)
    capacity = np.concatenate([graph.bandwidth_bps // unit, endless]).astype(np.int32)
    rows = np.concatenate([graph.sources, ends[0], rest])
    columns = np.concatenate([graph.targets, half, ends[1]])
    network = csr_array((capacity, (rows, columns)), shape=(nodes + 2, nodes + 2))
    return int(maximum_flow(network, nodes, nodes + 1).flow_value) * unit
