"""XML files, whose root tells the format: SimGrid's platform, SNDlib's network, or GraphML under another ending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netsim._util.errors import UsageError
from topologies.formats import graphml, simgrid, sndlib
from topologies.formats.draft import Draft

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read(content: bytes, origin: str) -> Draft:
    """Return the network in an XML file; raise UsageError for a file that is none, and for one with entities."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(content)
    except DefusedXmlException:
        raise UsageError(f"{origin}it declares entities, which are not read; remove them") from None
    except (ParseError, ValueError, LookupError) as error:
        raise UsageError(f"{origin}not XML: {error}") from None
    match root.tag.rpartition("}")[2]:
        case "platform":
            return simgrid.platform(root, origin)
        case "network":
            return sndlib.network(root, origin)
        case "graphml":
            return graphml.read(content, origin)
    raise UsageError(
        f"{origin}its root is {root.tag!r}; expected a platform of SimGrid, a network of SNDlib, or graphml"
    )
