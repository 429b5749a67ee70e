"""XML of SNDlib (Orlowski et al., Networks 2010): routers with places, and links.

The capacities of modules have no unit in the file and are choices of a design problem. They are not read.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from netsim._util.errors import UsageError
from topologies.formats.attributed import Edge, draft_of
from topologies.formats.draft import Draft, arrow, check_ids

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def network(root: Element, origin: str) -> Draft:
    """Return the network below the root of an SNDlib file; raise UsageError for one without nodes."""
    pixels = any(each.get("coordinatesType") == "pixel" for each in root.iterfind("{*}networkStructure/{*}nodes"))
    found = list(root.iterfind("{*}networkStructure/{*}nodes/{*}node"))
    ids = [str(node.get("id", "")) for node in found]
    check_ids(ids, origin)
    if not ids:
        raise UsageError(f"{origin}no node in networkStructure/nodes, as in SNDlib's XML; add routers")
    nodes: dict[Hashable, dict[str, Any]] = {}
    for name, node in zip(ids, found, strict=True):
        longitude, latitude = (node.findtext(f"{{*}}coordinates/{{*}}{axis}") for axis in "xy")
        nodes[name] = {} if pixels else {"lon": longitude, "lat": latitude}
    edges: list[Edge] = []
    for link in root.iterfind("{*}networkStructure/{*}links/{*}link"):
        source, target = ((link.findtext(f"{{*}}{end}") or "").strip() for end in ("source", "target"))
        for end in (source, target):
            if end not in nodes:
                raise UsageError(f"{origin}link {arrow(source, target)}: there is no node {end!r}")
        edges.append((source, target, {}))
    return draft_of(nodes, edges, False, origin, "SNDlib network")
