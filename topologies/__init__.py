"""Topologies: functions that return a network of hosts, switches and cables.

To add a topology, write a file with a function ``(Shape, keys...) -> Graph`` and add a line to :data:`TOPOLOGIES`. On
the command line a topology is ``NAME``, ``NAME:key=value,...`` or the name of a file. The keys are the function's
parameters, and `hash`: the seed of the hash that picks one of several routes of equal cost. A user's own function is
named ``FILE.py:FUNCTION`` or ``package.module:FUNCTION``, and may return a networkx graph instead. An installed package
adds a name by an entry point in the group ``netsim.topologies``.

>>> graph = build("racks:size=2,uplink=1Gbps", Shape(workers=4))
>>> [graph.names[switch] for switch in graph.switches]
['rack0', 'rack1', 'core']
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from netsim._util.errors import InfeasibleError, UsageError, unknown
from netsim._util.options import several
from netsim._util.user_code import blaming, imported, name_of_object, own_parts, plugins
from netsim.network.graph import Graph, from_networkx
from topologies import spec
from topologies.builder import Shape, check_size
from topologies.dragonfly import dragonfly
from topologies.fat_tree import fat_tree
from topologies.from_file import is_file, is_matrix, read_draft, read_graph
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

UNUSABLE: dict[str, UsageError] = {}
"""Why a topology of an installed package cannot be used, by its name."""
for _name, _found, _error in plugins("netsim.topologies"):
    if _error is None:
        TOPOLOGIES.setdefault(_name, _found)
    else:
        UNUSABLE[_name] = _error
spec.NAMES.update(TOPOLOGIES)
_from_python: dict[str, Callable[..., Any]] = {}

FILES = (
    "FILE.json, FILE.graphml, FILE.gml, FILE.csv (sites), FILE.xml (SimGrid, SNDlib), FILE.yml (ASTRA-sim), "
    "FILE.txt (HPCC)"
)
"""The files that are topologies, for the help."""
STARS = ("star", "ps")
"""Topologies in which all links are alike if no key is given."""


def check_topology(topology: object) -> None:
    """Raise UsageError unless `topology` is a topology with valid keys, or a file with a network."""
    if not isinstance(topology, str):
        raise UsageError(f"topology {topology!r} must be a name; known: {', '.join(TOPOLOGIES)}")
    name = spec.name_of(topology)
    if is_own(topology):
        _arguments(topology)
        return
    if is_matrix(name):
        _arguments(topology)
        return
    if is_file(name):
        read_graph(Path(name), hosts=spec.arguments(topology, _of_file).get("hosts"))
        return
    named = several(topology)
    if len(named) > 1 and all(spec.name_of(each) in TOPOLOGIES for each in named):
        raise UsageError(
            f"topology {topology!r} names {len(named)} topologies, and a simulation has one; netsim recommend and "
            "netsim.sweep take several"
        )
    if name not in TOPOLOGIES:
        if name in UNUSABLE:
            raise UNUSABLE[name]
        raise unknown("topology", name, [*TOPOLOGIES, f"or a file: {FILES}, FILE.py:FUNCTION"])
    spec.arguments(topology, TOPOLOGIES[name])


def is_own(topology: str) -> bool:
    """Return whether a topology names a user's own function."""
    name = spec.name_of(topology)
    return name not in TOPOLOGIES and own_parts(name) is not None


def text_of(topology: Any) -> Any:
    """Return the name of a topology that is given as a Python function; return any other value unchanged."""
    if not inspect.isfunction(topology):
        return topology
    name = next((name for name, function in TOPOLOGIES.items() if function is topology), None)
    if name is None:
        name = name_of_object(topology)
        _from_python[name] = topology
    return name


def function_of(name: str) -> Callable[..., Any]:
    """Return the function of a topology's name, which may name a user's own; raise UsageError if it is none."""
    if name in TOPOLOGIES:
        return TOPOLOGIES[name]
    function = _from_python.get(name) or imported("topology", name, "FILE.py:FUNCTION or package.module:FUNCTION")
    if not callable(function) or isinstance(function, type):
        raise UsageError(f"topology {name!r} is of type {type(function).__name__}; expected a function of a Shape")
    return function


def _arguments(topology: str) -> dict[str, Any]:
    """Return the keyword arguments of a topology's function; a file of sites is the matrix of ``wan``."""
    name = spec.name_of(topology)
    if is_matrix(name) and not is_own(topology):
        values = spec.arguments(topology, wide_area)
        if "matrix" in values:
            raise UsageError(f"topology {topology!r} is a matrix, and another one was given; leave one out")
        return {"matrix": Path(name)} | values
    function = function_of(name)
    with blaming(f"topology {topology!r}", "the annotations of its function") if is_own(topology) else nullcontext():
        return spec.arguments(topology, function)


def file_of(topology: str) -> Path | None:
    """Return the file that a topology is read from or that a key names, as in ``wan:matrix=FILE``; None without one."""
    check_topology(topology)
    name = spec.name_of(topology)
    if not is_own(topology) and is_file(name):
        return Path(name)
    values = _arguments(topology).values()
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
    if not is_own(topology) and is_file(name) and not is_matrix(name):
        arguments = spec.arguments(topology, _of_file)
        graph = read_graph(Path(name), shape, arguments.get("hosts"))
    else:
        arguments = _arguments(topology)
        keys = {key: value for key, value in arguments.items() if key != "hash"}
        try:
            check_size(shape.workers, 0, 0)
            if is_own(topology):
                graph = _built_by_user(topology, function_of(name), shape, keys)
            else:
                graph = TOPOLOGIES["wan" if is_matrix(name) else name](shape, **keys)
        except InfeasibleError as error:
            raise InfeasibleError(f"topology {topology!r}: {error}") from None
    return replace(graph, hash_seed=arguments.get("hash", 0))


def _built_by_user(topology: str, function: Callable[..., Any], shape: Shape, keys: dict[str, Any]) -> Graph:
    """Return the network of a user's function, which may return a networkx graph, described as in a file."""
    with blaming(f"topology {topology!r}", "its function"):
        built = function(shape, **keys)
    if isinstance(built, Graph):
        return built
    if not hasattr(built, "nodes"):
        raise UsageError(
            f"topology {topology!r}: its function returned {type(built).__name__}, expected a networkx graph with "
            "hosts and links"
        )
    return from_networkx(built, f"topology {topology!r}: ")


class Taken(NamedTuple):
    """Whether any link of a topology has the bandwidth, and the latency, of its :class:`Shape`."""

    bandwidth: bool
    latency: bool


def taken(topology: str) -> Taken:
    """Return whether the shape's bandwidth applies to any link of a topology, and whether its latency does."""
    check_topology(topology)
    if is_own(topology):
        return _taken.__wrapped__(topology)  # its function may change
    if is_file(name := spec.name_of(topology)) and not is_matrix(name):
        return Taken(of_routers(topology), of_routers(topology))
    return _taken(topology)


def of_routers(topology: str) -> bool:
    """Return whether a topology is a file of routers, to which hosts are attached."""
    name = spec.name_of(topology)
    return not is_own(topology) and is_file(name) and not is_matrix(name) and read_draft(Path(name)).routers


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
    if is_own(topology):
        return len(build(topology, Shape(1)).servers)
    if is_file(name) and not is_matrix(name):
        return len(read_graph(Path(name)).servers)
    if name != "ps":
        return 0
    servers: int = spec.arguments(topology, parameter_server).get("servers", 1)
    return servers


def _of_file(shape: Shape, hosts: spec.Count | None = None) -> None:
    """Declare the keys of a network from a file: `hash`, and `hosts` at every router of a file of routers."""
