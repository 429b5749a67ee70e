"""A star: all hosts on one switch."""

from __future__ import annotations

import numpy as np

from netsim.network.graph import Graph
from netsim.network.routing import TreeRouter
from topologies.builder import Branches, Shape, Wiring, check_size
from topologies.spec import Count, LinkBandwidth


def star(shape: Shape, up: LinkBandwidth | None = None, down: LinkBandwidth | None = None) -> Graph:
    """Return one switch with all workers; a parameter server shares the host of worker 0.

    `up` and `down` are the bandwidths from host to switch and back; the shape's if None.
    """
    return _around_a_switch(shape, up, down)


def parameter_server(
    shape: Shape, servers: Count = 1, up: LinkBandwidth | None = None, down: LinkBandwidth | None = None
) -> Graph:
    """Return a star with `servers` more hosts, for parameter servers.

    `up` and `down` are the bandwidths from a worker's host to the switch and back; the shape's if None. The links of
    servers always have the shape's bandwidth.
    """
    check_size(shape.workers + servers, 1, shape.workers + servers)
    names = ["server"] if servers == 1 else [f"server{number}" for number in range(servers)]
    return _around_a_switch(shape, up, down, names)


def _around_a_switch(shape: Shape, up: int | None, down: int | None, servers: list[str] | None = None) -> Graph:
    check_size(shape.workers, 1, shape.workers)
    wiring = Wiring(shape)
    branches = Branches(wiring)
    switch = wiring.switches(["switch"])
    down = shape.bandwidth_bps if down is None else down
    branches.hang(wiring.hosts, np.repeat(switch, len(wiring.hosts)), up_bps=up, down_bps=down)
    if servers is not None:
        branches.hang(wiring.servers(servers), np.repeat(switch, len(servers)))
    return wiring.graph(TreeRouter(*branches.columns()))
