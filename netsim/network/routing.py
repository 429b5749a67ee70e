"""Routes as arrays: which links lead from one node to another, for many pairs at once.

A router answers for all the pairs it is asked about together. Those of the built-in topologies compute
routes from the numbers of the hosts; :class:`ShortestPaths` finds them in any graph. Where several
routes are equally good, a hash of the flow picks one (equal-cost multi-path, as switches do it), so that
a flow keeps its route and no packet overtakes another; the hash is arithmetic, the same on every machine.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray

FloatArray: TypeAlias = npt.NDArray[np.float64]
HashArray: TypeAlias = npt.NDArray[np.uint64]

NO_LINK = -1
"""In a matrix of routes: this route has no link here."""


class Paths(NamedTuple):
    """Route i is ``links[first[i]:first[i + 1]]``, in order (compressed sparse rows)."""

    first: IntArray
    links: IntArray

    @classmethod
    def of_matrix(cls, matrix: IntArray) -> Paths:
        """Return the routes in the rows of a matrix, without its NO_LINK entries."""
        present = matrix != NO_LINK
        return cls.of_counts(present.sum(1), matrix[present])

    @classmethod
    def of_counts(cls, counts: IntArray, links: IntArray) -> Paths:
        """Return routes of so many links each, which follow each other in `links`."""
        first = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=first[1:])
        return cls(first, links.astype(np.int64, copy=False))

    @property
    def counts(self) -> IntArray:
        """The number of links of each route."""
        return np.diff(self.first)


class Router(Protocol):
    """Finds routes between nodes, all of one graph."""

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route from ``sources[i]`` to ``targets[i]``, picked by ``hashes[i]`` among equals."""


def flow_hash(sources: IntArray, targets: IntArray, flows: IntArray | int, seed: int) -> HashArray:
    """Return a well-mixed number for each flow: a pair of nodes, and which of the flows between them it is."""
    mixed = np.full(np.shape(sources), seed, np.uint64)
    for part in (sources, targets, flows):
        mixed = _mix(mixed ^ np.asarray(part).astype(np.uint64))
    return mixed


def choice(hashes: HashArray, stage: int, choices: IntArray | int) -> IntArray:
    """Return which of so many choices each flow takes at a stage of its route."""
    return (_mix(hashes + np.uint64(stage)) % np.asarray(choices).astype(np.uint64)).astype(np.int64)


def _mix(values: HashArray) -> HashArray:
    """The step of SplitMix64 (Steele, Lea and Flood, 2014); wraps around at 64 bits."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


class TreeRouter:
    """The one route there is between two nodes of a tree: up to where their branches meet, and down.

    `parents` is the node above each node, itself at the root; `up` and `down` are the links to it and from it.
    """

    def __init__(self, parents: IntArray, up: IntArray, down: IntArray) -> None:
        self._parents, self._up, self._down = parents, up, down
        self._depths = np.zeros(len(parents), np.int64)
        node = np.arange(len(parents))
        while (climbs := node != parents[node]).any():
            self._depths += climbs
            node = parents[node]

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
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
        """Return the links of one route: the same as :meth:`paths`, sooner for a single one."""
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
    """Routes of fewest links in any graph, by breadth-first search backwards from each target.

    At every node the links that lead nearer to the target are equal-cost choices. Searches are kept for
    the targets asked for last, `KEPT` links' worth of them. A target with a single link into it shares the
    search of the node before it, so hosts of one switch cost one search.
    """

    KEPT = 50_000_000

    def __init__(self, nodes: int, sources: IntArray, targets: IntArray) -> None:
        self._sources, self._targets = sources, targets
        self._out = _ordered(sources, nodes)
        self._into = _ordered(targets, nodes)
        self._searches: OrderedDict[int, _Search] = OrderedDict()

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return routes; those of nodes that no route connects are empty, like those of a node to itself."""
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
        """Fill in, column by column, the links that lead a group of routes to their common end."""
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
        """Return how many links each node is from `target`; -1 where no route leads there."""
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
        if (known := self._searches.get(end)) is not None:
            self._searches.move_to_end(end)
            return known
        distances = self.distances(end)
        first, order = self._out
        here, there = distances[self._sources[order]], distances[self._targets[order]]
        nearer = (there >= 0) & (there == here - 1)
        before = np.concatenate([[0], np.cumsum(nearer)])[first]
        found = _Search(order[nearer], before[:-1], np.diff(before))
        self._searches[end] = found
        if len(self._searches) > max(1, self.KEPT // max(1, len(order))):
            self._searches.popitem(last=False)
        return found


class _Search(NamedTuple):
    """For one target: at node n, ``nearer[first[n]:first[n] + choices[n]]`` are the links that lead nearer to it."""

    nearer: IntArray
    first: IntArray
    choices: IntArray


def _ordered(nodes: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """Return where each node's links begin in an order of links by node, and that order."""
    first = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(nodes, minlength=count), out=first[1:])
    return first, np.argsort(nodes, kind="stable")


def _ranges(begins: IntArray, ends: IntArray) -> IntArray:
    """Return all the numbers from each begin up to its end, one range after the other."""
    counts = ends - begins
    offsets: IntArray = np.repeat(begins + counts - np.cumsum(counts), counts)
    return offsets + np.arange(len(offsets))
