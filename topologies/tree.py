"""Trees of switches with the hosts as leaves: with any fan-out, and with two tiers of racks."""

from __future__ import annotations

import numpy as np

from netsim._util.errors import UsageError
from netsim._util.units import FASTEST_BPS, format_bandwidth
from netsim.network.graph import Graph
from netsim.network.routing import TreeRouter
from topologies.builder import Branches, Shape, Wiring, check_size
from topologies.spec import Count, LinkBandwidth, LinkLatency, Ratio


def tree(
    shape: Shape,
    fan_out: Count | None = None,
    uplink: LinkBandwidth | None = None,
    oversubscription: Ratio | None = None,
) -> Graph:
    """Return a tree of switches with up to `fan_out` children each.

    Parameters
    ----------
    fan_out
        Children of a switch; None takes the fan-out of `shape`.
    uplink
        Bandwidth of a switch's uplink in bit/s. Without `uplink` and `oversubscription`, it is that of a host's link.
    oversubscription
        Instead of `uplink`: the bandwidth of all links below a switch, divided by the bandwidth of its uplink.
    """
    fan_out = shape.fan_out if fan_out is None else fan_out
    if fan_out < 2:
        raise UsageError(f"topology tree: fan-out {fan_out} must be at least 2")
    check_size(shape.workers, shape.workers // (fan_out - 1), shape.workers * fan_out // (fan_out - 1))
    wiring = Wiring(shape)
    branches = Branches(wiring)
    children, below, level = wiring.hosts, shape.bandwidth_bps, 0
    while level == 0 or len(children) > 1:
        count = -(-len(children) // fan_out)
        switches = wiring.switches([f"switch{level}.{number}" for number in range(count)])
        branches.hang(children, switches[np.arange(len(children)) // fan_out], up_bps=below)
        below = _uplink(below * fan_out, shape.bandwidth_bps, uplink, oversubscription)
        children, level = switches, level + 1
    return wiring.graph(TreeRouter(*branches.columns()), groups=wiring.hosts // fan_out)


def racks(
    shape: Shape,
    size: Count = 16,
    uplink: LinkBandwidth | None = None,
    oversubscription: Ratio | None = None,
    inside: LinkBandwidth | None = None,
    inside_latency: LinkLatency | None = None,
    uplink_latency: LinkLatency | None = None,
) -> Graph:
    """Return racks of `size` hosts with one switch each, and a core switch that links the racks.

    A machine of 8 GPUs is ``racks:size=8,inside=2.4Tbps,inside-latency=5us,uplink=100Gbps``.

    Parameters
    ----------
    uplink
        The bandwidth of a rack's uplink in bit/s.
    oversubscription
        Instead of `uplink`: the bandwidth of all hosts of a rack, divided by that of its uplink; 4 if both are None.
    inside, inside_latency
        The bandwidth of a host's link, and the latency from host to host in a rack; the shape's if None.
    uplink_latency
        The latency of an uplink's cable; half of the shape's if None.
    """
    check_size(shape.workers, shape.workers // size + 2, shape.workers + shape.workers // size)
    wiring = Wiring(shape)
    branches = Branches(wiring)
    count = -(-len(wiring.hosts) // size)
    rack = wiring.hosts // size
    host_bps = shape.bandwidth_bps if inside is None else inside
    switches = wiring.switches([f"rack{number}" for number in range(count)])
    core = wiring.switches(["core"])
    half = None if inside_latency is None else inside_latency / 2
    branches.hang(wiring.hosts, switches[rack], up_bps=host_bps, latency_s=half)
    up = _uplink(host_bps * size, host_bps * size // 4, uplink, oversubscription)
    branches.hang(switches, np.repeat(core, count), up_bps=up, latency_s=uplink_latency)
    return wiring.graph(TreeRouter(*branches.columns()), groups=rack)


def _uplink(below: int, default: int, uplink: int | None, oversubscription: float | None) -> int:
    """Return the bandwidth of an uplink above links of `below` bit/s in all; raise UsageError if it is too large."""
    if uplink is not None and oversubscription is not None:
        raise UsageError(
            f"both uplink {format_bandwidth(uplink)} and oversubscription {oversubscription:g} were given; give one of "
            "them"
        )
    if uplink is not None:
        return uplink
    bandwidth = max(1, default if oversubscription is None else round(below / oversubscription))
    if bandwidth > FASTEST_BPS:
        raise UsageError(
            f"the uplink of switches whose links carry {format_bandwidth(below)} together would be "
            f"{format_bandwidth(bandwidth)}, more than a link may carry; take a smaller size or fan-out, or give uplink"
        )
    return bandwidth
