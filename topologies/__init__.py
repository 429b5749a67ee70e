"""Topologies: functions that return a network of hosts, switches and cables.

To add one: a file with a function ``(Shape, keys...) -> Graph``, and a line below. On the command line a
topology is ``NAME`` or ``NAME:key=value,...``; the keys are the function's parameters, and `hash`, the seed of
the hash that picks one of several equal routes. Or it is the name of a file.
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
    "fat-tree": fat_tree,
    "dragonfly": dragonfly,
    "wan": wide_area,
}

STARS = ("star", "ps")
"""Topologies whose links are all alike; with keys they are not."""


def check_topology(topology: object) -> None:
    """Raise UsageError unless this names a topology with keys that it takes, or a file with a network."""
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
    """Return the file that a topology is read from, or that a key names, as in ``wan:matrix=FILE``; None if none is."""
    check_topology(topology)
    name = spec.name_of(topology)
    if is_file(name):
        return Path(name)
    values = spec.arguments(topology, TOPOLOGIES[name]).values()
    return next((value for value in values if isinstance(value, Path)), None)


def build(topology: str, shape: Shape) -> Graph:
    """Return the network that `topology` names, for so many workers, or that is in the file it names."""
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
    """Whether any link of a topology takes the bandwidth, and the latency, of the shape that it is built for."""

    bandwidth: bool
    latency: bool


def taken(topology: str) -> Taken:
    """Return which of a shape's bandwidth and latency decide any link, where a file or keys may decide all of them."""
    check_topology(topology)
    return Taken(False, False) if is_file(spec.name_of(topology)) else _taken(topology)


@functools.lru_cache(maxsize=256)
def _taken(topology: str) -> Taken:
    """Build the topology twice, for shapes that differ in bandwidth and latency, and see what differs."""
    one, other = (build(topology, Shape(2, 10**3 * times, 1e-3 * times)) for times in (1, 2))
    if not len(one.sources):
        return Taken(True, True)  # there is no link that decides otherwise
    return Taken(
        not np.array_equal(one.bandwidth_bps, other.bandwidth_bps), not np.array_equal(one.latency_s, other.latency_s)
    )


def servers_of(topology: str) -> int:
    """Return how many hosts a topology keeps for parameter servers."""
    name = spec.name_of(topology)
    if is_file(name):
        return len(read_graph(Path(name)).servers)
    if name != "ps":
        return 0
    servers: int = spec.arguments(topology, parameter_server).get("servers", 1)
    return servers


def _of_file(shape: Shape) -> None:
    """Stand for a file among topologies: it takes no keys of its own."""
