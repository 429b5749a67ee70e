"""``network.yml`` of ASTRA-sim's analytical backend: NPUs in one or more dimensions.

A ring, links between all pairs, or a switch joins the NPUs that differ in one dimension only. As in ASTRA-sim,
``bandwidth`` (GB/s) and ``latency`` (ns) are those of one link and one direction, and a switch takes two links.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import networkx as nx

from netsim._util.errors import UsageError, shown
from netsim._util.units import FASTEST_BPS, SLOWEST_S
from topologies.formats.draft import Draft, check_fits, links

KEYS = ("topology", "npus_count", "bandwidth", "latency")
MOST_BYTES = 100_000
"""The largest file that is read; published ones have less than 2,000 bytes."""


def read(content: bytes, origin: str) -> Draft:
    """Return the network in a file of ASTRA-sim; raise UsageError for a file that is none."""
    dimensions = _dimensions(content, origin)
    counts = [count for _, count, _, _ in dimensions]
    npus = math.prod(counts)
    switches = sum(npus // count for name, count, _, _ in dimensions if name == "switch")
    each = {
        "ring": lambda n: n if n > 2 else n - 1,
        "fullyconnected": lambda n: n * (n - 1) // 2,
        "switch": lambda n: n,
    }
    check_fits(npus + switches, sum(npus // count * each[name](count) for name, count, _, _ in dimensions))
    graph: nx.Graph[str] = nx.Graph()
    places = list(itertools.product(*(range(count) for count in reversed(counts))))
    names = {place[::-1]: f"npu{rank}" for rank, place in enumerate(places)}
    for place, name in names.items():
        graph.add_node(name, kind="host", group=str(place[1:]) if len(counts) > 1 else "0")
    for dimension, (kind, count, bandwidth, latency) in enumerate(dimensions):
        values = {"bandwidth_bps": bandwidth, "latency_s": latency}
        for place in (place for place in names if place[dimension] == 0):
            line = [names[(*place[:dimension], position, *place[dimension + 1 :])] for position in range(count)]
            if kind == "switch":
                switch = f"switch{dimension}.{'.'.join(map(str, place))}"
                graph.add_node(switch, kind="switch")
                graph.add_edges_from(((npu, switch) for npu in line), **values)
            elif kind == "ring":
                graph.add_edges_from(itertools.pairwise([*line, line[0]] if count > 2 else line), **values)
            else:
                graph.add_edges_from(itertools.combinations(line, 2), **values)
    said = " × ".join(f"{kind} of {count}" for kind, count, _, _ in dimensions)
    notes = [f"ASTRA-sim network: {said}, {npus:,} NPUs, {links(graph.number_of_edges())} of GB/s and ns"]
    if len(dimensions) > 1:
        notes.append("ASSUMED: NPUs forward messages from one dimension to another, by routes with the fewest links")
    return Draft(graph=graph, notes=tuple(notes))


def _dimensions(content: bytes, origin: str) -> list[tuple[str, int, int, float]]:
    """Return the kind, the number of NPUs, the bandwidth (bit/s) and the latency (s) of every dimension."""
    import yaml

    if len(content) > MOST_BYTES:
        raise UsageError(f"{origin}it has {len(content):,} bytes, and at most {MOST_BYTES:,} are read")
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise UsageError(f"{origin}not YAML: {' '.join(str(error).split())}") from None
    columns: list[list[Any]] = []
    for key in KEYS:
        value = document.get(key) if isinstance(document, dict) else None
        if not isinstance(value, list) or not value:
            raise UsageError(
                f"{origin}{key} {shown(value)} must be a list with an entry per dimension, as in ASTRA-sim"
            )
        columns.append(value)
    if len({len(column) for column in columns}) > 1:
        counted = ", ".join(f"{key} {len(column)}" for key, column in zip(KEYS, columns, strict=True))
        raise UsageError(f"{origin}the lists must have an entry per dimension each, and have {counted}")
    dimensions = []
    for number, (kind, count, bandwidth, latency) in enumerate(zip(*columns, strict=True)):
        where = f"{origin}dimension {number}"
        name = str(kind).replace("_", "").lower()
        if name not in ("ring", "fullyconnected", "switch"):
            raise UsageError(f"{where}: topology {shown(kind)} must be Ring, FullyConnected or Switch")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10**7:
            raise UsageError(f"{where}: npus_count {shown(count)} must be a whole number of at least 1")
        bits = _number(bandwidth, f"{where}: bandwidth", "GB/s") * 8e9
        seconds = _number(latency, f"{where}: latency", "ns") * 1e-9
        if not 1 <= bits <= FASTEST_BPS or not 0 <= seconds <= SLOWEST_S:
            raise UsageError(
                f"{where}: {bandwidth} GB/s and {latency} ns must be of at least 1 bit/s and 0 s, and finite"
            )
        dimensions.append((name, count, round(bits), seconds))
    return dimensions


def _number(value: Any, where: str, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
        raise UsageError(f"{where} {shown(value)} must be a number of {unit}")
    return float(value)
