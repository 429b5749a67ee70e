"""The dragonfly of Kim, Dally, Scott and Abts (ISCA 2008): groups of routers with one link between every two groups."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.errors import check_choice
from netsim.network.graph import Graph
from netsim.network.routing import NO_LINK, HashArray, Paths, choice
from topologies.builder import Shape, Wiring, check_size
from topologies.spec import Count, LinkBandwidth, LinkLatency

ROUTINGS = ("minimal", "valiant")


def _routing(text: str) -> str:
    check_choice("routing", text, ROUTINGS)
    return text


Routing: TypeAlias = Annotated[str, _routing]


def dragonfly(
    shape: Shape,
    a: Count | None = None,
    p: Count | None = None,
    h: Count | None = None,
    global_: LinkBandwidth | None = None,
    global_latency: LinkLatency | None = None,
    routing: Routing = "minimal",
) -> Graph:
    """Return a dragonfly: g = a h + 1 groups of `a` routers, each with `p` hosts and `h` links to other groups.

    Parameters
    ----------
    a, p, h
        Those that are None are balanced as the paper advises, a = 2p = 2h, in the smallest network with room for all
        workers.
    global_, global_latency
        The bandwidth of the links between groups, and the latency of their cables; the shape's if None.
    routing
        "minimal" routes have at most one link between groups. "valiant" routes pass through another group that the
        flow's hash picks: they are longer, and spread the traffic between two groups over all links.
    """
    if a is None or p is None or h is None:
        a, p, h = _smallest(shape.workers, a, p, h)
    groups = a * h + 1
    hosts = groups * a * p
    check_size(hosts, groups * a, hosts + groups * a * (a - 1) // 2 + groups * (groups - 1) // 2)
    wiring = Wiring(shape, hosts)
    routers = wiring.switches([f"router{group}.{number}" for group in range(groups) for number in range(a)])
    wiring.cables(wiring.hosts, routers[wiring.hosts // p])
    lower, upper = np.triu_indices(a, 1)
    first = np.arange(groups)[:, None] * a
    inside = wiring.cables(routers[(first + lower).ravel()], routers[(first + upper).ravel()])
    near, far = np.triu_indices(groups, 1)
    across = wiring.cables(
        routers[near * a + (far - near - 1) // h],
        routers[far * a + (near - far - 1) % groups // h],
        bandwidth_bps=global_,
        latency_s=global_latency,
    )
    router = DragonflyRouter(a, p, h, _square(a, inside[: len(lower)]), _square(groups, across), routing == "valiant")
    return wiring.graph(router, groups=wiring.hosts // (a * p))


def _smallest(workers: int, *given: int | None) -> tuple[int, int, int]:
    """Return (a, p, h) of the smallest network with room for all workers, with the values that are `given`."""
    h = 0
    while True:
        h += 1
        a, p, ports = (default if value is None else value for value, default in zip(given, (2 * h, h, h), strict=True))
        if a * p * (a * ports + 1) >= workers or all(value is not None for value in given):
            return a, p, ports


def _square(size: int, links: IntArray) -> IntArray:
    """Return the matrix of links between all pairs, from those of the upper triangle; each link back is the next."""
    matrix = np.full((size, size), NO_LINK, np.int64)
    lower, upper = np.triu_indices(size, 1)
    matrix[lower, upper], matrix[upper, lower] = links, links + 1
    return matrix


class DragonflyRouter:
    """Finds minimal or Valiant routes in a dragonfly.

    ``inside[x, y]`` is the link from router x to router y of group 0, ``across[i, j]`` the link from group i to j.
    """

    def __init__(self, a: int, p: int, h: int, inside: IntArray, across: IntArray, valiant: bool) -> None:
        self._a, self._p, self._h = a, p, h
        self._inside, self._across = inside, across
        self._per_group = a * (a - 1)
        self._groups = len(across)
        self._valiant = valiant and self._groups > 2

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route of every pair; the hash picks the group between them with Valiant routing."""
        here, there = sources // self._p, targets // self._p
        group, aim = here // self._a, there // self._a
        columns = [np.where(sources != targets, 2 * sources, NO_LINK)]
        at = here % self._a
        if self._valiant:
            between = choice(hashes, 0, self._groups - 2)
            low, high = np.minimum(group, aim), np.maximum(group, aim)
            between = between + (between >= low)
            between = np.where(group == aim, aim, between + (between >= high))
            group, at = self._leap(columns, group, at, between)
        group, at = self._leap(columns, group, at, aim)
        columns.append(self._step(group, at, there % self._a))
        columns.append(np.where(sources != targets, 2 * targets + 1, NO_LINK))
        return Paths.of_matrix(np.stack(columns, 1))

    def _leap(self, columns: list[IntArray], group: IntArray, at: IntArray, aim: IntArray) -> tuple[IntArray, IntArray]:
        """Append the links from router `at` of a group to group `aim`; return the group and router reached."""
        leaves = np.where(group == aim, at, (aim - group - 1) % self._groups // self._h)
        columns.append(self._step(group, at, leaves))
        columns.append(np.where(group == aim, NO_LINK, self._across[group, aim]))
        return aim, np.where(group == aim, at, (group - aim - 1) % self._groups // self._h)

    def _step(self, group: IntArray, at: IntArray, to: IntArray) -> IntArray:
        """Return the link between two routers of a group, NO_LINK if they are the same."""
        return np.where(at == to, NO_LINK, self._inside[at, to] + group * self._per_group)
