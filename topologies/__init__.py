"""Topologies: functions that return a networkx graph of hosts, switches and cables.

To add one: a file with a function ``(Shape) -> Graph``, and a line below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx

from topologies.builder import Shape
from topologies.ring import ring
from topologies.star import parameter_server, star
from topologies.tree import tree

TOPOLOGIES: dict[str, Callable[[Shape], nx.Graph[Any]]] = {
    "star": star,
    "ps": parameter_server,
    "ring": ring,
    "tree": tree,
}
