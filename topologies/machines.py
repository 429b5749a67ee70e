"""Machines of several GPUs, each machine with one link to the network."""

from __future__ import annotations

import numpy as np

from netsim.network.graph import Graph
from netsim.network.routing import TreeRouter
from topologies.builder import Branches, Shape, Wiring, check_size
from topologies.spec import Count, LinkBandwidth, LinkLatency

INSIDE_BPS, INSIDE_S = 24 * 10**11, 5e-6
"""ASSUMED inside a machine unless given: 300 GB/s each way, as NVLink of an A100 has, and 5 µs from GPU to GPU."""


def machines(
    shape: Shape,
    gpus: Count = 8,
    inside: LinkBandwidth = INSIDE_BPS,
    network: LinkBandwidth | None = None,
    inside_latency: LinkLatency = INSIDE_S,
    network_latency: LinkLatency | None = None,
    pcie: LinkBandwidth | None = None,
    ceiling: LinkBandwidth | None = None,
) -> Graph:
    """Return machines of `gpus` workers each. The workers of a machine share one full-duplex link to the network.

    A message between machines takes ``inside_latency + network_latency`` and its bits over the slowest link.

    Parameters
    ----------
    inside, inside_latency
        The bandwidth of a GPU's own cable to the others of its machine, and the latency from GPU to GPU.
    network, network_latency
        The bandwidth of a machine's link, and the latency from machine to machine; the shape's if None.
    pcie
        What all GPUs of a machine move together, in both directions, among themselves and to the network: one bus,
        such as a PCIe switch; no such limit if None.
    ceiling
        What a machine itself can move for the network, sent and received bytes together; no such limit if None.
    """
    count = -(-shape.workers // gpus)
    inner = 1 if ceiling is None else 2
    check_size(shape.workers, inner * count + 1, shape.workers + inner * count)
    wiring = Wiring(shape)
    branches = Branches(wiring)
    machine = wiring.hosts // gpus
    switches = wiring.switches([f"machine{number}" for number in range(count)])
    branches.hang(wiring.hosts, switches[machine], up_bps=inside, latency_s=inside_latency / 2)
    ports = switches
    if ceiling is not None:
        ports = wiring.switches([f"nic{number}" for number in range(count)])
        branches.hang(switches, ports, up_bps=network, latency_s=0.0)
    core = wiring.switches(["network"])
    half = None if network_latency is None else network_latency / 2
    branches.hang(ports, np.repeat(core, count), up_bps=network, latency_s=half)
    graph = wiring.graph(TreeRouter(*branches.columns()), groups=machine)
    for nodes, bandwidth_bps in ((switches, pcie), (ports, ceiling)):
        if bandwidth_bps is not None:
            graph = graph.limited(nodes, bandwidth_bps)
    return graph
