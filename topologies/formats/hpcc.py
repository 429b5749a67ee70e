"""``topology.txt`` of HPCC's simulator (Li et al., SIGCOMM 2019), which ASTRA-sim's ns-3 backend reads, too.

The first line has the numbers of nodes, switches and links, and the second the switches. Each further line is a link:
its two nodes, rate, delay and error rate. All nodes that are not switches are hosts. Lines beyond the number of links
are not read, as by the simulator.
"""

from __future__ import annotations

import re

import networkx as nx

from netsim._util.errors import UsageError, shown
from netsim._util.units import parse_bandwidth, parse_duration, read_number, read_whole
from topologies.formats.draft import Draft, check_fits, links

_BITS = re.compile(r"(?<=[0-9kKMGT])b/s$")


def read(content: bytes, origin: str) -> Draft:
    """Return the network in an HPCC file; raise UsageError for a file that is none."""
    lines = [(number, line.split()) for number, line in enumerate(content.decode("latin-1").splitlines(), 1)]
    rows = [(number, words) for number, words in lines if words]
    counts = [read_whole(word) for word in rows[0][1]] if rows else []
    if len(counts) != 3 or any(count is None or count < 0 for count in counts):
        raise UsageError(
            f"{origin}the first line must have the numbers of nodes, switches and links, such as 5 1 4, as in HPCC"
        )
    nodes, switches, cables = (count or 0 for count in counts)
    check_fits(nodes, cables)
    ids = [word for _, words in rows[1 : 2 if switches else 1] for word in words]
    numbers = {read_whole(word) for word in ids}
    if len(numbers) != switches or any(number is None or not 0 <= number < nodes for number in numbers):
        raise UsageError(
            f"{origin}the second line must have the {switches:,} switches, each a node from 0 to {nodes - 1}"
        )
    graph: nx.Graph[str] = nx.Graph()
    for node in range(nodes):
        graph.add_node(str(node), kind="switch" if node in numbers else "host")
    given = rows[2 if switches else 1 :]
    if len(given) < cables:
        raise UsageError(f"{origin}the first line says {links(cables)}, and there are {len(given):,}; correct it")
    errors = 0
    for number, words in given[:cables]:
        errors += _lay(graph, words, f"{origin}line {number}")
    notes = f"HPCC topology: {nodes:,} nodes, {switches:,} of them switches, {links(cables)}"
    beyond = f"; {len(given) - cables:,} lines beyond these not read" if len(given) > cables else ""
    ignored = f"; the error rates of {links(errors)} not simulated (--loss has one for all)" if errors else ""
    return Draft(graph=graph, notes=(notes + beyond + ignored,))


def _lay(graph: nx.Graph[str], words: list[str], where: str) -> bool:
    """Add the link of a line to the graph; return whether it loses packets."""
    if len(words) < 4:
        raise UsageError(
            f"{where}: {shown(' '.join(words))} must be a link: two nodes, rate and delay, 0 1 100Gbps 1us"
        )
    ends = [read_whole(word) for word in words[:2]]
    source, target = (str(end) for end in ends)
    for word, end in zip(words, (source, target), strict=False):
        if end not in graph:
            raise UsageError(f"{where}: there is no node {word!r}; the first line says how many there are")
    if source == target:
        raise UsageError(f"{where}: node {source} is linked to itself; remove it")
    bandwidth = parse_bandwidth(_BITS.sub("bps", words[2]), f"{where}: rate")
    latency = parse_duration(words[3], f"{where}: delay", zero=True)
    if graph.has_edge(source, target):
        bandwidth += graph.edges[source, target]["bandwidth_bps"]
        latency = min(latency, graph.edges[source, target]["latency_s"])
    graph.add_edge(source, target, bandwidth_bps=bandwidth, latency_s=latency)
    return bool(read_number(words[4])) if len(words) > 4 else False
