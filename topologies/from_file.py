"""Reads networks from files: networkx node-link JSON, and GraphML.

The whole file is checked when it is read. An error names the file, the node or edge, and the value.
"""

from __future__ import annotations

import functools
import io
import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim._util.errors import UsageError, check_file_name, shown, unreadable
from netsim._util.storage import content_of
from netsim._util.units import read_number
from netsim.network.graph import Graph, from_networkx

if TYPE_CHECKING:
    import networkx as nx

SUFFIXES = (".json", ".graphml")


def is_file(name: str) -> bool:
    """Return whether a topology's name is the name of a file."""
    return "/" in name or "\\" in name or has_ending(name)


def has_ending(name: str) -> bool:
    """Return whether a name has the suffix of a network file, also of one that netsim does not read."""
    return Path(name).suffix.lower() in (*SUFFIXES, ".xml", ".gml", ".yaml", ".yml")


def read_graph(path: Path) -> Graph:
    """Return the network in a file; raise UsageError for a file that cannot be read or is no network."""
    check_file_name("topology", path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"topology {str(path)!r}: expected a file that ends in {' or '.join(SUFFIXES)}")
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise unreadable(f"topology {str(path)!r}", error) from None
    return _read(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int) -> Graph:
    origin = f"topology {str(path)!r}: "
    content = content_of(path, f"topology {str(path)!r}")
    read = _from_json if path.suffix.lower() == ".json" else _from_graphml
    graph = read(content, origin)
    if not any(data.get("kind") == "host" and data.get("role") != "server" for _, data in graph.nodes(data=True)):
        raise UsageError(f"{origin}there is no host; give the nodes that compute a kind of 'host'")
    return from_networkx(graph, origin)


def _from_json(content: bytes, origin: str) -> nx.Graph[Any]:
    import networkx as nx

    try:
        document = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin}not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise UsageError(f"{origin}expected an object with 'nodes' and 'edges', as networkx.node_link_data makes it")
    edges = document.get("edges", document.get("links"))
    if not isinstance(edges, list):
        raise UsageError(f"{origin}'edges' {edges!r} must be a list of edges")
    graph: nx.Graph[Any] = nx.DiGraph() if document.get("directed") else nx.Graph()
    for number, node in enumerate(document["nodes"]):
        if not isinstance(node, dict) or not isinstance(node.get("id"), str | int):
            raise UsageError(f"{origin}node number {number} {shown(node)} must be an object with an 'id'")
        name = _name(node["id"], origin)
        if name in graph:
            raise UsageError(f"{origin}node {name!r} is there twice; give every node an id of its own")
        graph.add_node(name)
        graph.nodes[name].update(_finite(node, ("id",), f"{origin}node {name!r}"))
    for number, edge in enumerate(edges):
        if not isinstance(edge, dict) or not {"source", "target"} <= edge.keys():
            raise UsageError(f"{origin}edge number {number} {shown(edge)} must be an object with 'source' and 'target'")
        ends = [str(edge["source"]), str(edge["target"])]
        for end in ends:
            if end not in graph:
                raise UsageError(f"{origin}link {ends[0]}→{ends[1]}: there is no node {end!r}")
        _check_new(graph.has_edge(*ends), ends[0], ends[1], origin)
        graph.add_edge(*ends)
        graph.edges[ends[0], ends[1]].update(_finite(edge, ("source", "target"), f"{origin}link {ends[0]}→{ends[1]}"))
    return graph


def _finite(element: dict[str, Any], ids: tuple[str, ...], where: str) -> dict[str, Any]:
    """Return the attributes of a node or an edge; raise UsageError for NaN, which Python's JSON parser accepts."""
    attributes = {key: value for key, value in element.items() if key not in ids}
    for key, value in attributes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{where}: {key} {value!r} is not finite; write a number")
    return attributes


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise ValueError for a key given twice, of which Python's parser keeps the last."""
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {key!r} is there twice in one object")
        members[key] = value
    return members


def _from_graphml(content: bytes, origin: str) -> nx.Graph[Any]:
    """Read GraphML; a file with entities or a document type is refused before networkx parses it."""
    from xml.etree.ElementTree import ParseError

    import networkx as nx
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(content, forbid_dtd=True)
        with warnings.catch_warnings(action="error"):  # networkx warns where it guesses, for example a type
            graph: nx.Graph[Any] = nx.read_graphml(io.BytesIO(content))
    except DefusedXmlException:
        raise UsageError(f"{origin}it declares a document type or entities, which are not read; remove them") from None
    except (ParseError, nx.NetworkXError, ValueError, LookupError, TypeError, AttributeError, Warning) as error:
        raise UsageError(f"{origin}not GraphML: {error}") from None
    counts = Counter(element.get("id") for element in root.iter() if element.tag.rpartition("}")[2] == "node")
    for name, count in counts.items():
        if count > 1:
            raise UsageError(f"{origin}node {name!r} is there twice; give every node an id of its own")
    for node in graph:
        _name(node, origin)
    seen: set[Any] = set()
    for source, target in graph.edges():
        pair = (source, target) if graph.is_directed() else frozenset((source, target))
        _check_new(pair in seen, source, target, origin)
        seen.add(pair)
    for data in (*(data for _, data in graph.nodes(data=True)), *(data for _, _, data in graph.edges(data=True))):
        # Some programs write numbers as text.
        for key in ("bandwidth_bps", "latency_s"):
            if isinstance(data.get(key), str) and (value := read_number(data[key])) is not None:
                data[key] = value
    return nx.DiGraph(graph) if graph.is_directed() else nx.Graph(graph)


def _name(name: object, origin: str) -> str:
    text = str(name)
    if not text or not text.isprintable():
        raise UsageError(f"{origin}node {text!r}: a node's id must be printable text")
    return text


def _check_new(there: bool, source: str, target: str, origin: str) -> None:
    if source == target:
        raise UsageError(f"{origin}link {source}→{target}: a node is not linked to itself; remove it")
    if there:
        raise UsageError(f"{origin}link {source}→{target} is there twice; add up what the two can carry")
