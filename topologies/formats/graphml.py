"""GraphML, as networkx, the Topology Zoo and yEd write it."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from netsim._util.errors import UsageError
from topologies.formats.attributed import draft_of
from topologies.formats.draft import Draft, check_ids

if TYPE_CHECKING:
    import networkx as nx


def read(content: bytes, origin: str) -> Draft:
    """Return the network in a GraphML file; one with entities or a document type is refused before it is parsed."""
    from xml.etree.ElementTree import ParseError

    import networkx as nx
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(content, forbid_dtd=True)
        with warnings.catch_warnings(action="error"):  # networkx warns where it guesses, for example a type
            graph: nx.Graph[Any] = nx.read_graphml(io.BytesIO(content), force_multigraph=True)
    except DefusedXmlException:
        raise UsageError(f"{origin}it declares a document type or entities, which are not read; remove them") from None
    except (ParseError, nx.NetworkXError, ValueError, LookupError, TypeError, AttributeError, Warning) as error:
        raise UsageError(f"{origin}not GraphML: {error}") from None
    check_ids((each.get("id") for each in root.iter() if each.tag.rpartition("}")[2] == "node"), origin)
    edges = [(source, target, dict(data)) for source, target, data in graph.edges(data=True)]
    return draft_of(dict(graph.nodes(data=True)), edges, graph.is_directed(), origin, "GraphML")
