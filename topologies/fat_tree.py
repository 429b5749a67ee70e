"""The fat-tree of Al-Fares, Loukissas and Vahdat (SIGCOMM 2008): full bisection bandwidth from k-port switches."""

from __future__ import annotations

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.errors import UsageError
from netsim.network.graph import Graph
from netsim.network.routing import NO_LINK, HashArray, Paths, choice
from topologies.builder import Shape, Wiring, check_size
from topologies.spec import Count


def fat_tree(shape: Shape, k: Count | None = None) -> Graph:
    """Return a fat-tree of k-port switches: k pods, k³/4 hosts, 5k²/4 switches, 3k³/4 cables.

    Without `k`, the fat-tree is the smallest with room for all workers.
    """
    if k is None:
        k = 2
        while k**3 // 4 < shape.workers:
            k += 2
    if k % 2:
        raise UsageError(f"topology fat-tree: k {k} must be even: half of a switch's ports go up, and half down")
    half, hosts = k // 2, k**3 // 4
    check_size(hosts, 5 * k**2 // 4, 3 * hosts)
    wiring = Wiring(shape, hosts)
    pods = range(k)
    edge = wiring.switches([f"edge{pod}.{number}" for pod in pods for number in range(half)])
    above = wiring.switches([f"agg{pod}.{number}" for pod in pods for number in range(half)])
    core = wiring.switches([f"core{group}.{number}" for group in range(half) for number in range(half)])
    every = np.arange(hosts)  # also the number of cables between edge and aggregation, and of those to the core
    wiring.cables(every, edge[every // half])
    wiring.cables(edge[every // half], above[every // half**2 * half + every % half])
    wiring.cables(above[every // half], core[every // half % half * half + every % half])
    return wiring.graph(UpDown(half), groups=every // half)


class UpDown:
    """Finds routes up to a lowest common switch, and down again.

    The hash of the flow picks one of several ports on the way up. On the way down there is only one.
    """

    def __init__(self, half: int) -> None:
        self._half = half

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route of every pair."""
        half, hosts = self._half, 2 * self._half**3
        edge, edge_there = sources // half, targets // half
        pod, pod_there = edge // half, edge_there // half
        aggregation, core = choice(hashes, 0, half), choice(hashes, 1, half)
        rising = np.where(edge != edge_there, hosts + edge * half + aggregation, NO_LINK)
        falling = np.where(edge != edge_there, hosts + edge_there * half + aggregation, NO_LINK)
        to_core = np.where(pod != pod_there, 2 * hosts + (pod * half + aggregation) * half + core, NO_LINK)
        from_core = np.where(pod != pod_there, 2 * hosts + (pod_there * half + aggregation) * half + core, NO_LINK)
        apart = sources != targets
        up = [np.where(apart, sources, NO_LINK), rising, to_core]
        down = [from_core, falling, np.where(apart, targets, NO_LINK)]
        links = [np.where(cable != NO_LINK, 2 * cable, NO_LINK) for cable in up]
        links += [np.where(cable != NO_LINK, 2 * cable + 1, NO_LINK) for cable in down]
        return Paths.of_matrix(np.stack(links, 1))
