"""Placement of workers on hosts: it decides which messages cross the narrow links of the network."""

from __future__ import annotations

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.random_streams import Stream, generator
from netsim.network.graph import Graph

PLACEMENTS = ("rank-order", "locality", "cyclic", "random")
"""As the topology lists hosts; neighbours in rank are neighbours in the network; one rack after the other in
turn, as schedulers spread jobs; by chance."""


def place(graph: Graph, workers: int, placement: str, seed: int) -> IntArray:
    """Return the host of each rank, (workers,), as a position in ``graph.hosts``; `seed` is for ``random``."""
    hosts = len(graph.hosts)
    match placement:
        case "locality":
            order = tour(graph) if graph.near is None else graph.near
        case "cyclic":
            order = np.lexsort((graph.groups, _turns(graph.groups)))
        case "random":
            order = generator(seed, Stream.PLACEMENT).permutation(hosts)
        case _:
            order = np.arange(hosts)
    return order[:workers]


def orders(graph: Graph) -> list[IntArray]:
    """Return the orders of all hosts that keep neighbours together: in the topology's own order, and by locality."""
    return [place(graph, len(graph.hosts), placement, 0) for placement in ("rank-order", "locality")]


def _turns(groups: IntArray) -> IntArray:
    """Return for every host how many hosts of its group come before it."""
    by_group = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[by_group], groups[by_group])
    turns = np.empty_like(groups)
    turns[by_group] = np.arange(len(groups)) - first
    return turns


def tour(graph: Graph) -> IntArray:
    """Return the hosts in the order of a nearest-neighbour tour: by least latency, then by fewest links.

    Hosts with the same switch as their only neighbour are one stop of the tour.
    """
    stops, where = np.unique(_stops(graph), return_inverse=True)
    first = np.full(len(stops), len(where))
    np.minimum.at(first, where, np.arange(len(where)))
    by_first = np.argsort(first)  # stops at equal distance are visited in the order of the file
    left = by_first.tolist()
    visited = [left.pop(0)]
    hosts = graph.hosts[first]
    while left:
        here = np.full(len(left), hosts[visited[-1]])
        paths = graph.router.paths(hosts[left], here, np.zeros(len(left), np.uint64))
        owners = np.repeat(np.arange(len(left)), paths.counts)
        # Rounded to a tenth of a picosecond, so that sums of the same latencies in another order are equal.
        seconds = np.rint(1e13 * np.bincount(owners, graph.latency_s[paths.links], len(left)))
        visited.append(left.pop(int(np.lexsort((paths.counts, seconds))[0])))
    position = np.empty(len(stops), np.int64)
    position[visited] = np.arange(len(stops))
    return np.argsort(position[where], kind="stable")


def _stops(graph: Graph) -> IntArray:
    """Return for every host its only neighbour, or the host itself if it has several."""
    sources, targets = graph.sources[graph.cabled], graph.targets[graph.cabled]
    ways = np.bincount(sources, minlength=len(graph.names))
    neighbour = np.zeros(len(graph.names), np.int64)
    neighbour[sources] = targets
    return np.where(ways[graph.hosts] == 1, neighbour[graph.hosts], graph.hosts)
