"""Topologies: functions that return a network of hosts, switches and cables.

To add one: a file with a function ``(Shape, keys...) -> Graph``, and a line below. On the command line a
topology is ``NAME`` or ``NAME:key=value,...``; the keys are the function's parameters.
"""

from __future__ import annotations

from collections.abc import Callable

from netsim.errors import UsageError, unknown
from netsim.network.graph import Graph
from topologies import spec
from topologies.builder import Shape
from topologies.dragonfly import dragonfly
from topologies.fat_tree import fat_tree
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


def check_topology(topology: object) -> None:
    """Raise UsageError unless this names a topology, and its keys have values that they can have."""
    if not isinstance(topology, str):
        raise UsageError(f"topology {topology!r} must be a name; known: {', '.join(TOPOLOGIES)}")
    name, _ = spec.split(topology)
    if name not in TOPOLOGIES:
        raise unknown("topology", name, TOPOLOGIES)
    spec.parameters(topology, TOPOLOGIES[name])


def build(topology: str, shape: Shape) -> Graph:
    """Return the network that `topology` names, for so many workers."""
    check_topology(topology)
    function = TOPOLOGIES[spec.split(topology)[0]]
    return function(shape, **spec.parameters(topology, function))


def servers_of(topology: str) -> int:
    """Return how many hosts a topology keeps for parameter servers."""
    name, _ = spec.split(topology)
    if name != "ps":
        return 0
    servers: int = spec.parameters(topology, parameter_server).get("servers", 1)
    return servers
