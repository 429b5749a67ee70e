"""Topologies: functions that return a network of hosts, switches and cables.

To add a topology, write a file with a function ``(Shape, keys...) -> Graph`` and add a line to :data:`TOPOLOGIES`. On
the command line a topology is ``NAME``, ``NAME:key=value,...`` or the name of a file. The keys are the function's
parameters, and `hash`: the seed of the hash that picks one of several routes of equal cost.

>>> graph = build("racks:size=2,uplink=1Gbps", Shape(workers=4))
>>> [graph.names[switch] for switch in graph.switches]
['rack0', 'rack1', 'core']
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from netsim._util.errors import InfeasibleError, UsageError, unknown
from netsim.network.graph import Graph
from topologies import spec
from topologies.builder import Shape, check_size
from topologies.dragonfly import dragonfly
from topologies.fat_tree import fat_tree
from topologies.from_file import is_file, read_graph
from topologies.machines import machines
from topologies.star import parameter_server, star
from topologies.torus import ring, torus
from topologies.tree import racks, tree
from topologies.wide_area import wide_area

TOPOLOGIES: dict[str, Callable[..., Graph]] = {
    "star": star,
    "ps": parameter_server,
    "ring": ring,
    "torus": torus,
    "tree": tree,
    "racks": racks,
    "machines": machines,
    "fat-tree": fat_tree,
    "dragonfly": dragonfly,
    "wan": wide_area,
}

STARS = ("star", "ps")
"""Topologies in which all links are alike if no key is given."""


def check_topology(topology: object) -> None:
    """Raise UsageError unless `topology` is a topology with valid keys, or a file with a network."""
    if not isinstance(topology, str):
        raise UsageError(f"topology {topology!r} must be a name; known: {', '.join(TOPOLOGIES)}")
    name = spec.name_of(topology)
    if is_file(name):
        spec.arguments(topology, _of_file)
        read_graph(Path(name))
        return
    if name not in TOPOLOGIES:
        raise unknown("topology", name, [*TOPOLOGIES, "or a file: FILE.json, FILE.graphml"])
    spec.arguments(topology, TOPOLOGIES[name])


def file_of(topology: str) -> Path | None:
    """Return the file that a topology is read from or that a key names, as in ``wan:matrix=FILE``; None without one."""
    check_topology(topology)
    name = spec.name_of(topology)
    if is_file(name):
        return Path(name)
    values = spec.arguments(topology, TOPOLOGIES[name]).values()
    return next((value for value in values if isinstance(value, Path)), None)


def build(topology: str, shape: Shape) -> Graph:
    """Return the network of a topology.

    Parameters
    ----------
    topology
        ``NAME``, ``NAME:key=value,...`` or the name of a file.
    shape
        The number of workers, and the bandwidth and latency of links for which the topology says nothing else.

    Raises
    ------
    UsageError
        For an unknown name, key or value, and for a file that is no network.
    InfeasibleError
        If the network is too large.
    """
    check_topology(topology)
    name = spec.name_of(topology)
    if is_file(name):
        arguments = spec.arguments(topology, _of_file)
        graph = read_graph(Path(name))
    else:
        arguments = spec.arguments(topology, TOPOLOGIES[name])
        try:
            check_size(shape.workers, 0, 0)
            graph = TOPOLOGIES[name](shape, **{key: value for key, value in arguments.items() if key != "hash"})
        except InfeasibleError as error:
            raise InfeasibleError(f"topology {topology!r}: {error}") from None
    return replace(graph, hash_seed=arguments.get("hash", 0))


class Taken(NamedTuple):
    """Whether any link of a topology has the bandwidth, and the latency, of its :class:`Shape`."""

    bandwidth: bool
    latency: bool


def taken(topology: str) -> Taken:
    """Return whether any link of a topology takes the shape's bandwidth, and whether any takes its latency."""
    check_topology(topology)
    return Taken(False, False) if is_file(spec.name_of(topology)) else _taken(topology)


@functools.lru_cache(maxsize=256)
def _taken(topology: str) -> Taken:
    """Build the topology for two shapes that differ in bandwidth and latency, and compare the links."""
    slow, fast = (build(topology, Shape(2, 10**3 * times, 1e-3 * times)) for times in (1, 2))
    if not len(slow.sources):
        return Taken(True, True)  # larger networks of this topology may have links
    return Taken(
        not np.array_equal(slow.bandwidth_bps, fast.bandwidth_bps), not np.array_equal(slow.latency_s, fast.latency_s)
    )


def servers_of(topology: str) -> int:
    """Return how many hosts a topology reserves for parameter servers."""
    name = spec.name_of(topology)
    if is_file(name):
        return len(read_graph(Path(name)).servers)
    if name != "ps":
        return 0
    servers: int = spec.arguments(topology, parameter_server).get("servers", 1)
    return servers


def _of_file(shape: Shape) -> None:
    """Stand for a topology without keys: a network from a file takes no key but `hash`."""
