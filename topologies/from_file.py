"""Reads networks from files, whose ending names their format; :mod:`topologies.formats` has one module a format.

The whole file is checked when it is read. An error names the file, the node or edge, and the value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from netsim._util.errors import InfeasibleError, UsageError, check_file_name, unreadable
from netsim._util.storage import content_of
from netsim.network.graph import Graph
from topologies.builder import Shape
from topologies.formats.draft import Draft, completed

T = TypeVar("T")


def _node_link(content: bytes, origin: str) -> Draft:
    from topologies.formats.node_link import read

    return read(content, origin)


def _graphml(content: bytes, origin: str) -> Draft:
    from topologies.formats.graphml import read

    return read(content, origin)


def _gml(content: bytes, origin: str) -> Draft:
    from topologies.formats.gml import read

    return read(content, origin)


def _hpcc(content: bytes, origin: str) -> Draft:
    from topologies.formats.hpcc import read

    return read(content, origin)


def _xml(content: bytes, origin: str) -> Draft:
    from topologies.formats.xml_root import read

    return read(content, origin)


def _astra_sim(content: bytes, origin: str) -> Draft:
    from topologies.formats.astra_sim import read

    return read(content, origin)


READERS: dict[str, Callable[[bytes, str], Draft]] = {
    ".json": _node_link,
    ".graphml": _graphml,
    ".gml": _gml,
    ".txt": _hpcc,
    ".xml": _xml,
    ".yml": _astra_sim,
    ".yaml": _astra_sim,
}
"""What reads files of an ending. Each imports its module when it is called, for some need large libraries."""
MATRIX = ".csv"
"""The ending of a matrix of sites, which is a ``wan:matrix=FILE``."""


def is_file(name: str) -> bool:
    """Return whether a topology's name is the name of a file."""
    return "/" in name or "\\" in name or has_ending(name)


def is_matrix(name: str) -> bool:
    """Return whether a topology's name is the name of a file with a matrix of sites."""
    return Path(name).suffix.lower() == MATRIX


def has_ending(name: str) -> bool:
    """Return whether a name has the ending of a network file."""
    return Path(name).suffix.lower() in (*READERS, MATRIX)


def read_draft(path: Path) -> Draft:
    """Return the network in a file as the file describes it; raise UsageError for a file that is none."""
    check_file_name("topology", path)
    if path.suffix.lower() not in READERS:
        endings = ", ".join([*READERS, MATRIX])
        raise UsageError(f"topology {str(path)!r}: expected a file that ends in one of {endings}")
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise unreadable(f"topology {str(path)!r}", error) from None
    return _read(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int) -> Draft:
    origin = f"topology {str(path)!r}: "
    content = content_of(path, f"topology {str(path)!r}")
    draft = _named(origin, READERS[path.suffix.lower()], content)
    kinds = (data for _, data in draft.graph.nodes(data=True))
    if not draft.routers and not any(data.get("kind") == "host" and data.get("role") != "server" for data in kinds):
        raise UsageError(f"{origin}there is no host; give the nodes that compute a kind of 'host'")
    return draft


@functools.lru_cache(maxsize=4)
def _completed(draft: Draft, bandwidth_bps: int, latency_s: float, hosts: int | None, origin: str) -> Graph:
    return _named(origin, completed, draft, Shape(1, bandwidth_bps, latency_s), hosts)


def _named(origin: str, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function of a file returns; an error about its size names the file, as all its other errors do."""
    try:
        return function(*arguments, origin)
    except InfeasibleError as error:
        raise InfeasibleError(f"{origin}{error}") from None


def read_graph(path: Path, shape: Shape | None = None, hosts: int | None = None) -> Graph:
    """Return the network in a file.

    Parameters
    ----------
    shape
        The bandwidth and latency of links for which the file says nothing; the defaults if None.
    hosts
        How many hosts to attach to every router of a file that has routers only; 1 if None.

    Raises
    ------
    UsageError
        For a file that cannot be read or is no network.
    """
    shape = Shape(1) if shape is None else shape
    return _completed(read_draft(path), shape.bandwidth_bps, shape.latency_s, hosts, f"topology {str(path)!r}: ")
