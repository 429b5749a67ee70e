"""GML, as the Topology Zoo and TopoHub write it.

networkx refuses GML files of the Topology Zoo in which two nodes have the same label, or in which parallel links are
not announced. The grammar is small: a key and a value, which is a number, a text, or a list of such pairs in brackets.
"""

from __future__ import annotations

import html
import re
from collections.abc import Hashable
from typing import Any

from netsim._util.errors import UsageError, shown
from netsim._util.units import read_number
from topologies.formats.attributed import Edge, draft_of
from topologies.formats.draft import Draft, arrow, check_ids

_TOKEN = re.compile(r'\s*(?:#[^\n]*|"([^"]*)"|([\[\]])|([^\s\[\]"]+))')
Entries = list[tuple[str, Any]]


def read(content: bytes, origin: str) -> Draft:
    """Return the network in a GML file; raise UsageError for a file that is none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    graph = next((value for key, value in _pairs(text, origin) if key == "graph" and isinstance(value, list)), None)
    if graph is None:
        raise UsageError(f"{origin}not GML: expected graph [ node [ id 0 ] … ]")
    described = [dict(value) for key, value in graph if key == "node" and isinstance(value, list)]
    for number, node in enumerate(described):
        if not isinstance(node.get("id"), str):
            raise UsageError(f"{origin}node number {number} must have an id, such as id {number}")
    check_ids((node["id"] for node in described), origin)
    nodes: dict[Hashable, dict[str, Any]] = {node.pop("id"): node for node in described}
    edges: list[Edge] = []
    for key, value in graph:
        if key == "edge" and isinstance(value, list):
            edge = dict(value)
            ends = [edge.pop("source", None), edge.pop("target", None)]
            for end in ends:
                if not isinstance(end, str) or end not in nodes:
                    raise UsageError(f"{origin}link {arrow(*ends)}: there is no node {shown(end)}")
            edges.append((ends[0], ends[1], edge))
    return draft_of(nodes, edges, read_number(str(dict(graph).get("directed", 0))) == 1, origin, "GML")


def _pairs(text: str, origin: str) -> Entries:
    """Return the pairs at the top of a file; all values but lists are text."""
    open_lists: list[Entries] = [[]]
    key: str | None = None
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            if text[at:].strip():
                raise UsageError(f"{origin}not GML: the text that begins with {shown(text[at : at + 20])} does not end")
            break
        at = found.end()
        quoted, bracket, word = found.groups()
        if bracket == "]":
            if key is not None or len(open_lists) == 1:
                raise UsageError(f"{origin}not GML: a bracket ] that no key and [ open")
            open_lists.pop()
        elif key is None:
            if bracket or quoted is not None:
                raise UsageError(f"{origin}not GML: expected a key before {shown(found[0].strip())}")
            key = word  # None for a comment
        elif bracket:
            inner: Entries = []
            open_lists[-1].append((key, inner))
            open_lists.append(inner)
            key = None
        elif quoted is not None or word is not None:
            open_lists[-1].append((key, word if quoted is None else html.unescape(quoted)))
            key = None
    if key is not None or len(open_lists) > 1:
        raise UsageError(f"{origin}not GML: it ends before all brackets and values do")
    return open_lists[0]
