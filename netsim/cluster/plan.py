"""The parts of a shaped cluster, and the `ip` and `tc` commands that build it; nothing here runs them.

The host of a rank is a network namespace with one interface, `eth0`. One more namespace holds the switches: bridges
with a port for each host. A cable is a veth pair, and the traffic that leaves either end is shaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from netsim._util.errors import UsageError, check_choice
from netsim.cluster.framing import HEADER_BYTES, Wire

if TYPE_CHECKING:
    import networkx as nx

Shaping = Literal["fair", "tbf"]
SHAPINGS: tuple[Shaping, ...] = ("fair", "tbf")
Placement = Literal["contiguous", "interleaved"]
PLACEMENTS: tuple[Placement, ...] = ("contiguous", "interleaved")

INTERFACE = "eth0"
FRAME_BYTES = 1514
"""Size of a full frame as a veth's queue counts it: MTU 1500 and 14 of Ethernet, no preamble, no checksum."""
ACK_BYTES = 66
"""Size of an acknowledgement on a veth: 14 of Ethernet, 20 of IP, 20 of TCP and 12 of the timestamp option."""
BURST_BYTES = 4096
"""Size of a link's token bucket. With a third of it late timers cost rate; a larger one falsifies short messages."""
FRAMES_BPS = 100_000_000
"""Total bandwidth of all ranks' links up to which every frame leaves a queue by itself.

Above it frames leave in groups, so that the number of timers a second stays the same."""
MOST_GSO_SEGMENTS = 8
"""The most frames in a group. A link serves a group without interruption, so large groups make small messages wait."""
QUEUE_BYTES = 16 * 2**20
"""Length of a queue: longer than TCP's window, so no frame is lost. This is a model of links, not of loss."""
PEERS_SHARE = 0.8
"""Fraction of a link's rate that the classes of its peers are guaranteed in all.

With a guarantee near zero, rings of 16 ranks were 30 % slower."""
INITIAL_WINDOW = 100
"""TCP's initial window in segments: a connection that was idle sends at the link's rate from the start."""
ACK_CLASS, FIRST_PEER_CLASS = 2, 16
MOST_RANKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A shaped cluster: hosts on one switch, or in two racks with a switch each and a trunk between the switches.

    Parameters
    ----------
    ranks
        Number of hosts P, one for each rank.
    bandwidth_bps
        Bandwidth of every link, each way, in bit/s. The kernel counts whole frames, headers included.
    trunk_bps
        Bandwidth of the trunk between two racks, in bit/s; None for one rack.
    placement
        How ranks are placed in two racks: ``contiguous`` halves, or ``interleaved``.
    shaping
        ``fair``: htb with a class for every peer, and pure acknowledgements first.
        ``tbf``: one token bucket and one queue for each link.
    latency_s
        One-way latency in seconds. It needs a kernel with netem.
    """

    ranks: int
    bandwidth_bps: int
    trunk_bps: int | None = None
    placement: Placement = "contiguous"
    shaping: Shaping = "fair"
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        check_choice("shaping", self.shaping, SHAPINGS)
        check_choice("placement", self.placement, PLACEMENTS)
        if not 1 <= self.ranks <= MOST_RANKS:
            raise UsageError(f"{self.ranks} ranks must be 1 to {MOST_RANKS} on one machine")
        if self.trunk_bps is None and self.placement != PLACEMENTS[0]:
            raise UsageError(
                f"placement {self.placement!r} was given, but without a trunk there is one rack; add --trunk 50Mbps"
            )
        if self.trunk_bps is not None and self.ranks < 4:
            raise UsageError(f"{self.ranks} ranks cannot make two racks of two; give at least 4, or no trunk")

    @property
    def racks(self) -> int:
        """Number of racks, 1 or 2."""
        return 1 if self.trunk_bps is None else 2

    @property
    def gso_segments(self) -> int:
        """Frames that leave a queue as one group (generic segmentation offload), 1 to 8.

        Every departure from a queue costs the machine a timer and the receiving host an interrupt.
        """
        if self.shaping == "tbf":
            return 1
        return min(MOST_GSO_SEGMENTS, max(1, -(-self.ranks * self.bandwidth_bps // FRAMES_BPS)))

    @property
    def wire(self) -> Wire:
        """Framing of a veth, and the token buckets of this cluster's links."""
        return Wire(
            header_bytes=HEADER_BYTES["virtual"],
            ack_bytes=ACK_BYTES,
            burst_bytes=BURST_BYTES,
            gso_segments=self.gso_segments if self.shaping == "fair" else 0,  # tbf sends nothing on credit
            guaranteed_rate=PEERS_SHARE / max(1, self.ranks - 1) if self.shaping == "fair" else 0.0,
        )

    def rack(self, rank: int) -> int:
        """Return the index of the rack in which the host of `rank` stands."""
        if self.placement == "interleaved":
            return rank % self.racks
        return rank * self.racks // self.ranks

    def graph(self) -> nx.Graph[Any]:
        """Return the cluster as the simulator's graph; bandwidths count whole frames, as the kernel does."""
        import networkx as nx

        graph: nx.Graph[Any] = nx.Graph()
        for rank in range(self.ranks):
            graph.add_node(f"worker{rank}", kind="host")
        for rank in range(self.ranks):
            switch = f"switch{self.rack(rank)}"
            graph.add_node(switch, kind="switch")
            graph.add_edge(f"worker{rank}", switch, bandwidth_bps=self.bandwidth_bps, latency_s=self.latency_s / 2)
        if self.trunk_bps is not None:
            graph.add_edge("switch0", "switch1", bandwidth_bps=self.trunk_bps, latency_s=0.0)
        return graph


def address(rank: int) -> str:
    """Return the IPv4 address of a rank's host, which is reachable only from inside the namespaces."""
    return f"10.77.0.{rank + 1}"


def hardware_address(rank: int) -> str:
    """Return the Ethernet address of a rank's host: locally administered, so that no host has to ask for it."""
    return f"02:4e:53:00:00:{rank + 1:02x}"


def cables(cluster: Cluster, namespace_of_rank: list[str]) -> str:
    """Return the `ip` commands that lay all cables and bring up the switches, to be run in the switches' namespace."""
    lines = [f"link add sw{rack} type bridge mcast_snooping 0 stp_state 0" for rack in range(cluster.racks)]
    for rank, namespace in enumerate(namespace_of_rank):
        lines += [
            f"link add port{rank} mtu 1500 type veth peer name {INTERFACE} mtu 1500 "
            f"address {hardware_address(rank)} netns {namespace}",
            f"link set port{rank} master sw{cluster.rack(rank)} up gso_max_segs {cluster.gso_segments}",
        ]
    if cluster.racks == 2:
        lines.append("link add trunk0 mtu 1500 type veth peer name trunk1 mtu 1500")
        lines += [f"link set trunk{rack} master sw{rack} up gso_max_segs {cluster.gso_segments}" for rack in range(2)]
    lines += [f"link set sw{rack} up" for rack in range(cluster.racks)]
    return "\n".join(lines) + "\n"


def host(cluster: Cluster, rank: int) -> str:
    """Return the `ip` commands that set up a host: its address, its neighbours, TCP's initial windows."""
    lines = [
        "link set lo up",
        f"addr add {address(rank)}/24 dev {INTERFACE} noprefixroute",
        f"link set {INTERFACE} up gso_max_segs {cluster.gso_segments}",
        f"route add 10.77.0.0/24 dev {INTERFACE} src {address(rank)} initcwnd {INITIAL_WINDOW} "
        f"initrwnd {INITIAL_WINDOW} congctl cubic",
    ]
    lines += [
        f"neigh add {address(peer)} lladdr {hardware_address(peer)} dev {INTERFACE} nud permanent"
        for peer in range(cluster.ranks)
        if peer != rank
    ]
    return "\n".join(lines) + "\n"


def host_shaping(cluster: Cluster, rank: int) -> str:
    """Return the `tc` commands that shape a host's egress: a class for every destination."""
    peers = [f"match ip dst {address(peer)}/32" for peer in range(cluster.ranks) if peer != rank]
    return _shaped(cluster, INTERFACE, cluster.bandwidth_bps, peers)


def switch_shaping(cluster: Cluster) -> str:
    """Return the `tc` commands that shape the switches' egress: a class a source, on the trunk a class a pair."""
    text = ""
    for rank in range(cluster.ranks):
        peers = [f"match ip src {address(peer)}/32" for peer in range(cluster.ranks) if peer != rank]
        text += _shaped(cluster, f"port{rank}", cluster.bandwidth_bps, peers)
    if cluster.trunk_bps is not None:
        for rack in range(2):
            pairs = [
                f"match ip src {address(source)}/32 match ip dst {address(target)}/32"
                for source in range(cluster.ranks)
                for target in range(cluster.ranks)
                if cluster.rack(source) == rack != cluster.rack(target)
            ]
            text += _shaped(cluster, f"trunk{rack}", cluster.trunk_bps, pairs)
    return text


def _shaped(cluster: Cluster, device: str, rate: int, peers: list[str]) -> str:
    """Return the `tc` commands that shape the egress of a device; `peers` are the filters of its classes."""
    delayed = device == INTERFACE and cluster.latency_s
    # Latency is added in the hosts' queues; netem counts frames, and none may be lost.
    leaf = f"netem delay {round(cluster.latency_s * 1e6)}us limit {QUEUE_BYTES // FRAME_BYTES}" if delayed else ""
    lines = (
        _fair(device, rate, peers, leaf, cluster.gso_segments)
        if cluster.shaping == "fair"
        else _token_bucket(device, rate, leaf)
    )
    return "\n".join(lines) + "\n"


def _token_bucket(device: str, rate: int, leaf: str) -> Iterator[str]:
    """Yield tbf commands: one bucket and one queue."""
    yield f"qdisc add dev {device} root handle 1: tbf rate {rate}bit burst {BURST_BYTES} limit {QUEUE_BYTES}"
    if leaf:
        yield f"qdisc add dev {device} parent 1:1 {leaf}"


def _fair(device: str, rate: int, peers: list[str], leaf: str, gso_segments: int) -> Iterator[str]:
    """Yield htb commands: a class of equal rate per peer, and a class of higher priority for pure acknowledgements.

    A filter recognises pure acknowledgements by their length.
    """
    leaf = leaf or f"bfifo limit {QUEUE_BYTES}"
    burst = f"burst {BURST_BYTES} cburst {BURST_BYTES} quantum {gso_segments * FRAME_BYTES}"
    yield f"qdisc add dev {device} root handle 1: htb default {ACK_CLASS}"
    yield f"class add dev {device} parent 1: classid 1:1 htb rate {rate}bit ceil {rate}bit {burst}"
    acks = round(rate * (1 - PEERS_SHARE))
    yield f"class add dev {device} parent 1:1 classid 1:{ACK_CLASS} htb rate {acks}bit ceil {rate}bit prio 0 {burst}"
    yield f"qdisc add dev {device} parent 1:{ACK_CLASS} {leaf}"
    # IP total length 52 … 88 (u16 at 2): tested as 32 … 63 and 64 … 95 by their upper bits.
    for length in (0x0020, 0x0040):
        yield (
            f"filter add dev {device} parent 1: protocol ip prio 1 u32 match u16 {length:#06x} 0xffe0 at 2 "
            f"match ip protocol 6 0xff flowid 1:{ACK_CLASS}"
        )
    peer_rate = max(8, round(rate * PEERS_SHARE / max(1, len(peers))))
    for minor, match in enumerate(peers, start=FIRST_PEER_CLASS):
        yield (
            f"class add dev {device} parent 1:1 classid 1:{minor:x} htb rate {peer_rate}bit ceil {rate}bit "
            f"prio 1 {burst}"
        )
        yield f"qdisc add dev {device} parent 1:{minor:x} {leaf}"
        yield f"filter add dev {device} parent 1: protocol ip prio 2 u32 {match} flowid 1:{minor:x}"
