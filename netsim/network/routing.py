"""Routers: they find the routes of many pairs of nodes at once, as arrays of links.

The routers of the built-in topologies compute routes from the numbers of the hosts; :class:`ShortestPaths` finds routes
in any graph. If several routes have equal cost, a hash of the flow picks one, as switches do (equal-cost multi-path):
a flow keeps its route, so its packets stay in order. The hash is integer arithmetic, the same on every machine.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray

FloatArray: TypeAlias = npt.NDArray[np.float64]
HashArray: TypeAlias = npt.NDArray[np.uint64]

NO_LINK = -1
"""An empty entry in a matrix of routes."""


class Paths(NamedTuple):
    """Route i is ``links[first[i]:first[i + 1]]``, in order (compressed sparse rows)."""

    first: IntArray
    links: IntArray

    @classmethod
    def of_matrix(cls, matrix: IntArray) -> Paths:
        """Return the routes in the rows of a matrix, without its empty entries.

        >>> Paths.of_matrix(np.array([[4, NO_LINK, 5], [NO_LINK, 7, NO_LINK]])).links
        array([4, 5, 7])
        """
        present = matrix != NO_LINK
        return cls.of_counts(present.sum(1), matrix[present])

    @classmethod
    def of_counts(cls, counts: IntArray, links: IntArray) -> Paths:
        """Return routes of ``counts[i]`` links each; `links` has one route after another."""
        first = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=first[1:])
        return cls(first, links.astype(np.int64, copy=False))

    @property
    def counts(self) -> IntArray:
        """The number of links of each route."""
        return np.diff(self.first)

    def through(self, sources: IntArray, targets: IntArray, limits: IntArray) -> Paths:
        """Return the routes with the link ``limits[node]`` inserted for every node on them, unless it is NO_LINK.

        Parameters
        ----------
        sources
            The node at which every route starts.
        targets
            The node to which every link of the network leads.
        limits
            For every node of the network: the link that all routes over the node share.
        """
        counts = self.counts
        at_start = np.where(counts > 0, limits[sources], NO_LINK)  # the empty route of a node to itself stays empty
        after = np.stack([self.links, limits[targets[self.links]]], 1).ravel()
        routes = np.arange(len(counts))
        owners = np.concatenate([routes, np.repeat(routes, 2 * counts)])
        links = np.concatenate([at_start, after])
        order = np.argsort(owners, kind="stable")
        kept = order[links[order] != NO_LINK]
        return Paths.of_counts(np.bincount(owners[kept], minlength=len(counts)), links[kept])


class Router(Protocol):
    """Finds routes between the nodes of one graph."""

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route from ``sources[i]`` to ``targets[i]`` for every i; ``hashes[i]`` picks among equal costs."""


def flow_hash(sources: IntArray, targets: IntArray, flows: IntArray | int, seed: int) -> HashArray:
    """Return a hash of each flow from its two nodes and its index among the flows between them."""
    mixed = np.full(np.shape(sources), seed, np.uint64)
    for part in (sources, targets, flows):
        mixed = _mix(mixed ^ np.asarray(part).astype(np.uint64))
    return mixed


def choice(hashes: HashArray, stage: int, choices: IntArray | int) -> IntArray:
    """Return which of its `choices` each flow takes at a stage of its route, from 0."""
    return (_mix(hashes + np.uint64(stage)) % np.asarray(choices).astype(np.uint64)).astype(np.int64)


def _mix(values: HashArray) -> HashArray:
    """Apply one step of SplitMix64 (Steele, Lea and Flood, 2014), which wraps around at 64 bits."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


class ListedRoutes:
    """Finds routes in a list: ``routes[source, target]`` has the links from one node to another, in order."""

    def __init__(self, routes: Mapping[tuple[int, int], Sequence[int]]) -> None:
        self._routes = routes

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the listed route of every pair; from a node to itself, the empty one."""
        routes = [self._routes.get(pair, ()) for pair in zip(sources.tolist(), targets.tolist(), strict=True)]
        counts = np.array([len(route) for route in routes], np.int64)
        return Paths.of_counts(counts, np.array([*itertools.chain.from_iterable(routes)], np.int64))


class TreeRouter:
    """Finds the only route between two nodes of a tree: up to their lowest common ancestor, and down.

    ``parents[node]`` is the node's parent; the root is its own parent. ``up[node]`` and ``down[node]`` are the links to
    the parent and back.
    """

    def __init__(self, parents: IntArray, up: IntArray, down: IntArray) -> None:
        self._parents, self._up, self._down = parents, up, down
        self._depths = np.zeros(len(parents), np.int64)
        node = np.arange(len(parents))
        while (climbs := node != parents[node]).any():
            self._depths += climbs
            node = parents[node]

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route of every pair."""
        here, there = sources, targets
        climb: list[IntArray] = []
        descent: list[IntArray] = []
        while (apart := here != there).any():
            deeper = apart & (self._depths[here] >= self._depths[there])
            lower = apart & (self._depths[there] >= self._depths[here])
            climb.append(np.where(deeper, self._up[here], NO_LINK))
            descent.append(np.where(lower, self._down[there], NO_LINK))
            here = np.where(deeper, self._parents[here], here)
            there = np.where(lower, self._parents[there], there)
        if not climb:
            return Paths.of_counts(np.zeros(len(sources), np.int64), np.zeros(0, np.int64))
        return Paths.of_matrix(np.stack(climb + descent[::-1], 1))

    def path(self, source: int, target: int) -> list[int]:
        """Return the links of one route, as :meth:`paths` does, but faster for a single pair."""
        parents, up, down, depths = self._lists
        climb: list[int] = []
        descent: list[int] = []
        while source != target:
            deeper, lower = depths[source] >= depths[target], depths[target] >= depths[source]
            if deeper:
                climb.append(up[source])
                source = parents[source]
            if lower:
                descent.append(down[target])
                target = parents[target]
        return climb + descent[::-1]

    @cached_property
    def _lists(self) -> tuple[list[int], list[int], list[int], list[int]]:
        return self._parents.tolist(), self._up.tolist(), self._down.tolist(), self._depths.tolist()


class ShortestPaths:
    """Finds routes of fewest links in any graph, by breadth-first search backwards from each target.

    At every node, all links that lead nearer to the target have equal cost. The searches of recent targets are cached,
    up to `KEPT` links in all. A target with a single link into it shares the search of the node before it, so all hosts
    of one switch cost one search.
    """

    KEPT = 50_000_000

    def __init__(self, nodes: int, sources: IntArray, targets: IntArray) -> None:
        self._sources, self._targets = sources, targets
        self._out = _ordered(sources, nodes)
        self._into = _ordered(targets, nodes)
        self._searches: OrderedDict[int, _Search] = OrderedDict()

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route of every pair; it is empty if no route exists, and from a node to itself."""
        first, order = self._into
        alone = first[targets + 1] - first[targets] == 1
        last = np.where(alone, order[np.minimum(first[targets], len(order) - 1)], NO_LINK) if len(order) else targets
        ends = np.where(alone, self._sources[last], targets) if len(order) else targets
        last = np.where(alone & (sources != targets), last, NO_LINK)
        ends = np.where(sources == targets, targets, ends)
        by_end = np.argsort(ends, kind="stable")
        columns: list[IntArray] = []
        bounds = np.flatnonzero(np.diff(ends[by_end], prepend=-1, append=-1))
        for begin, end in itertools.pairwise(bounds.tolist()):
            group = by_end[begin:end]
            self._walk(columns, group, sources, int(ends[group[0]]), hashes)
        return Paths.of_matrix(np.stack([*columns, last], 1))

    def _walk(self, columns: list[IntArray], group: IntArray, sources: IntArray, end: int, hashes: HashArray) -> None:
        """Fill in, column by column, the links that lead the routes of a group to their common end."""
        search = self._search(end)
        here, hop = sources[group], 0
        while True:
            underway = search.choices[here] > 0
            group, here = group[underway], here[underway]
            if not len(group):
                return
            if hop == len(columns):
                columns.append(np.full(len(sources), NO_LINK, np.int64))
            picked = choice(hashes[group], hop, search.choices[here])
            links = search.nearer[search.first[here] + picked]
            columns[hop][group] = links
            here, hop = self._targets[links], hop + 1

    def distances(self, target: int) -> IntArray:
        """Return the number of links from every node to `target`; -1 if no route exists."""
        first, order = self._into
        distances = np.full(len(first) - 1, -1, np.int64)
        distances[target] = 0
        frontier, distance = np.array([target]), 0
        while len(frontier):
            distance += 1
            before = self._sources[order[_ranges(first[frontier], first[frontier + 1])]]
            frontier = np.unique(before[distances[before] < 0])
            distances[frontier] = distance
        return distances

    def _search(self, end: int) -> _Search:
        """Return the breadth-first search backwards from a node, from the cache if possible."""
        if (cached := self._searches.get(end)) is not None:
            self._searches.move_to_end(end)
            return cached
        distances = self.distances(end)
        first, order = self._out
        here, there = distances[self._sources[order]], distances[self._targets[order]]
        nearer = (there >= 0) & (there == here - 1)
        before = np.concatenate([[0], np.cumsum(nearer)])[first]
        search = self._searches[end] = _Search(order[nearer], before[:-1], np.diff(before))
        if len(self._searches) > max(1, self.KEPT // max(1, len(order))):
            self._searches.popitem(last=False)
        return search


class _Search(NamedTuple):
    """For one target: ``nearer[first[n]:first[n] + choices[n]]`` are the links of node n that lead nearer to it."""

    nearer: IntArray
    first: IntArray
    choices: IntArray


def _ordered(nodes: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """Return the order of links by node, preceded by the position at which each node's links begin."""
    first = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(nodes, minlength=count), out=first[1:])
    return first, np.argsort(nodes, kind="stable")


def _ranges(begins: IntArray, ends: IntArray) -> IntArray:
    """Return the integers from each begin up to its end, one range after another."""
    counts = ends - begins
    offsets: IntArray = np.repeat(begins + counts - np.cumsum(counts), counts)
    return offsets + np.arange(len(offsets))
