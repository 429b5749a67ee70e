"""What a shaped cluster consists of, and the `ip` and `tc` commands that make it; nothing here runs them.

A rank's host is a network namespace with one interface, `eth0`. A further namespace holds the switches:
bridges, with a port a host. A cable is a veth pair, and what leaves either end of it is shaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from netsim._util.errors import UsageError, check_choice
from netsim.cluster.framing import GLOO_BYTES, HEADER_BYTES, Wire

if TYPE_CHECKING:
    import networkx as nx

Shaping = Literal["fair", "tbf"]
SHAPINGS: tuple[Shaping, ...] = ("fair", "tbf")
Placement = Literal["contiguous", "interleaved"]
PLACEMENTS: tuple[Placement, ...] = ("contiguous", "interleaved")

INTERFACE = "eth0"
FRAME_BYTES = 1514
"""What the kernel charges a full frame of a veth: MTU 1500 and 14 of Ethernet, no preamble, no checksum."""
ACK_BYTES = 66
"""Of an acknowledgement on a veth: 14 of Ethernet, 20 of IP, 20 of TCP and 12 of its time stamp."""
READY_BYTES = ACK_BYTES + GLOO_BYTES
"""Of the frame in which gloo says that a receiver is ready."""
BURST_BYTES = 4096
"""What an idle link lets through at once. A third of it loses rate to late timers; more falsifies short messages."""
FRAMES_BPS = 100_000_000
"""What all ranks' links may carry frame by frame; beyond, frames leave together, so that queues are busy no oftener."""
MOST_TOGETHER = 8
"""Frames in a group at the most: a group takes its turn at a link whole."""
QUEUE_BYTES = 16 * 2**20
"""Longer than what TCP has under way, so nothing is lost: this is a model of links, not of loss."""
PEERS_SHARE = 0.8
"""Of a link's rate, what its peers' classes are guaranteed in all; with ever so little, rings were 30 % slow."""
INITIAL_WINDOW = 100
"""Segments: a connection that was idle sends at the link's rate at once."""
ACK_CLASS, FIRST_PEER_CLASS = 2, 16
MOST_RANKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """P hosts, on one switch or (with a `trunk_bps`) in two racks, each with a switch, and a trunk between them.

    Every link carries `bandwidth_bps` each way, counted as the kernel counts, in whole frames. `shaping` is
    ``fair`` (htb with a class for every peer, so that TCP need not share by luck, and pure ACKs first) or
    ``tbf`` (one token bucket and one queue a link). `latency_s` is one way and needs a kernel with netem.
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
        return 1 if self.trunk_bps is None else 2

    @property
    def together(self) -> int:
        """How many frames leave a queue as one (the kernel's segmentation offload).

        Every queue costs the machine's cores a timer, and every host a waking, for each time that frames leave.
        """
        if self.shaping == "tbf":
            return 1
        return min(MOST_TOGETHER, max(1, -(-self.ranks * self.bandwidth_bps // FRAMES_BPS)))

    @property
    def wire(self) -> Wire:
        """What the kernel counts on a veth, and what an idle link lets through at once."""
        return Wire(
            header_bytes=HEADER_BYTES["virtual"],
            ack_bytes=ACK_BYTES,
            ack_every=max(2, self.together),  # a group that arrives is acknowledged once
            credit_bytes=BURST_BYTES,
            together=self.together if self.shaping == "fair" else 0,  # a plain bucket owes nothing
            sure_share=PEERS_SHARE / max(1, self.ranks - 1) if self.shaping == "fair" else 0.0,
            ready_bytes=READY_BYTES,
        )

    def rack(self, rank: int) -> int:
        """Return which rack the host of `rank` is in."""
        if self.placement == "interleaved":
            return rank % self.racks
        return rank * self.racks // self.ranks

    def graph(self) -> nx.Graph[Any]:
        """Return the cluster as the simulator takes it, its bandwidths in whole frames as the kernel counts them."""
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
    """Return the IPv4 address of a rank's host; the network is seen from inside the namespaces only."""
    return f"10.77.0.{rank + 1}"


def hardware_address(rank: int) -> str:
    """Return the Ethernet address of a rank's host: locally administered, and known to all beforehand."""
    return f"02:4e:53:00:00:{rank + 1:02x}"


def cables(cluster: Cluster, namespace_of_rank: list[str]) -> str:
    """Return the `ip` commands that, run in the switches' namespace, lay all cables and bring up the switches."""
    lines = [f"link add sw{rack} type bridge mcast_snooping 0 stp_state 0" for rack in range(cluster.racks)]
    for rank, namespace in enumerate(namespace_of_rank):
        lines += [
            f"link add port{rank} mtu 1500 type veth peer name {INTERFACE} mtu 1500 "
            f"address {hardware_address(rank)} netns {namespace}",
            f"link set port{rank} master sw{cluster.rack(rank)} up gso_max_segs {cluster.together}",
        ]
    if cluster.racks == 2:
        lines.append("link add trunk0 mtu 1500 type veth peer name trunk1 mtu 1500")
        lines += [f"link set trunk{rack} master sw{rack} up gso_max_segs {cluster.together}" for rack in range(2)]
    lines += [f"link set sw{rack} up" for rack in range(cluster.racks)]
    return "\n".join(lines) + "\n"


def host(cluster: Cluster, rank: int) -> str:
    """Return the `ip` commands that set up a host: its address, its neighbours, how TCP begins."""
    lines = [
        "link set lo up",
        f"addr add {address(rank)}/24 dev {INTERFACE} noprefixroute",
        f"link set {INTERFACE} up gso_max_segs {cluster.together}",
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
    """Return the `tc` commands for what leaves a host: a class for every destination."""
    peers = [f"match ip dst {address(peer)}/32" for peer in range(cluster.ranks) if peer != rank]
    return _shaped(cluster, INTERFACE, cluster.bandwidth_bps, peers)


def switch_shaping(cluster: Cluster) -> str:
    """Return the `tc` commands for what leaves a switch: by source to a host, by both over the trunk."""
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
    delayed = device == INTERFACE and cluster.latency_s
    # A host's queues delay what goes through them; netem counts frames, of which none must be lost.
    leaf = f"netem delay {round(cluster.latency_s * 1e6)}us limit {QUEUE_BYTES // FRAME_BYTES}" if delayed else ""
    lines = (
        _fair(device, rate, peers, leaf, cluster.together)
        if cluster.shaping == "fair"
        else _token_bucket(device, rate, leaf)
    )
    return "\n".join(lines) + "\n"


def _token_bucket(device: str, rate: int, leaf: str) -> Iterator[str]:
    yield f"qdisc add dev {device} root handle 1: tbf rate {rate}bit burst {BURST_BYTES} limit {QUEUE_BYTES}"
    if leaf:
        yield f"qdisc add dev {device} parent 1:1 {leaf}"


def _fair(device: str, rate: int, peers: list[str], leaf: str, together: int) -> Iterator[str]:
    """One class a peer, equal among themselves; pure ACKs, by their length, before all of them."""
    leaf = leaf or f"bfifo limit {QUEUE_BYTES}"
    burst = f"burst {BURST_BYTES} cburst {BURST_BYTES} quantum {together * FRAME_BYTES}"
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
    each = max(8, round(rate * PEERS_SHARE / max(1, len(peers))))
    for number, match in enumerate(peers, start=FIRST_PEER_CLASS):
        yield f"class add dev {device} parent 1:1 classid 1:{number:x} htb rate {each}bit ceil {rate}bit prio 1 {burst}"
        yield f"qdisc add dev {device} parent 1:{number:x} {leaf}"
        yield f"filter add dev {device} parent 1: protocol ip prio 2 u32 {match} flowid 1:{number:x}"
