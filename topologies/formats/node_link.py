"""Node-link JSON, as networkx and TopoHub write it."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable
from typing import Any

from netsim._util.errors import UsageError, shown
from topologies.formats.attributed import Edge, draft_of
from topologies.formats.draft import Draft, arrow, printable


def read(content: bytes, origin: str) -> Draft:
    """Return the network in a JSON file; raise UsageError for a file that is none."""
    try:
        document = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin}not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise UsageError(f"{origin}expected an object with 'nodes' and 'edges', as networkx.node_link_data makes it")
    lines = document.get("edges", document.get("links"))
    if not isinstance(lines, list):
        raise UsageError(f"{origin}'edges' {lines!r} must be a list of edges")
    nodes: dict[Hashable, dict[str, Any]] = {}
    for number, node in enumerate(document["nodes"]):
        if not isinstance(node, dict) or not isinstance(node.get("id"), str | int):
            raise UsageError(f"{origin}node number {number} {shown(node)} must be an object with an 'id'")
        name = printable(node["id"], origin)
        if name in nodes:
            raise UsageError(f"{origin}node {name!r} is there twice; give every node an id of its own")
        nodes[name] = _finite(node, ("id",), f"{origin}node {name!r}")
    edges: list[Edge] = []
    for number, edge in enumerate(lines):
        if not isinstance(edge, dict) or not {"source", "target"} <= edge.keys():
            raise UsageError(f"{origin}edge number {number} {shown(edge)} must be an object with 'source' and 'target'")
        source, target = str(edge["source"]), str(edge["target"])
        for end in (source, target):
            if end not in nodes:
                raise UsageError(f"{origin}link {arrow(source, target)}: there is no node {end!r}")
        edges.append((source, target, _finite(edge, ("source", "target"), f"{origin}link {source}→{target}")))
    return draft_of(nodes, edges, bool(document.get("directed")), origin, "node-link JSON")


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
