"""A ring all-reduce's traffic through tc's token bucket filter: time over 2 (P-1)/P S/B, by connections of a pair.

Four network namespaces on a bridge, each egress shaped by ``tbf rate RATE burst BURST latency LATENCY``. A host sends
the first quarter of S at once, and then what it has received, in slices of 512 kB over all connections, as NCCL does.
The figures show when the filter's queue drops frames, and what that costs (docs/effects.md). Needs iproute2, and the
right to make namespaces.

    python benchmarks/token_bucket.py
    python benchmarks/token_bucket.py --rate 50mbit --connections 1,4,16 --megabytes 12
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import subprocess
import time
from pathlib import Path

from netsim._util.units import parse_bandwidth
from netsim.cluster import namespaces
from netsim.cluster.plan import INTERFACE, Cluster, address

HOSTS = 4
SLICE = 512 * 1024
PIECE = 256 * 1024
PORT = 5000
DEFAULT_BUFFERS = "4096 16384 4194304"
"""Linux's default of tcp_wmem, which the testbed's namespaces enlarge."""


def tool(*command: str) -> str:
    """Run a command, and return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def shape(hosts: list[int], mtu: int, rate: str, burst: str, latency: str) -> None:
    """Give all interfaces the MTU and large groups of frames, and replace the testbed's queues by a plain tbf."""
    for rank, namespace in enumerate(hosts):
        tool("ip", "link", "set", f"port{rank}", "mtu", str(mtu), "gso_max_segs", "65535")
        tool("tc", "qdisc", "del", "dev", f"port{rank}", "root")
        with namespaces.within(namespace):
            tool("ip", "link", "set", INTERFACE, "mtu", str(mtu), "gso_max_segs", "65535")
            tool("tc", "qdisc", "del", "dev", INTERFACE, "root")
            shaper = ["rate", rate, "burst", burst, "latency", latency]
            tool("tc", "qdisc", "add", "dev", INTERFACE, "root", "tbf", *shaper)
            Path("/proc/sys/net/ipv4/tcp_wmem").write_text(DEFAULT_BUFFERS)
            Path("/proc/sys/net/ipv4/tcp_min_tso_segs").write_text("2")
    tool("ip", "link", "set", "sw0", "mtu", str(mtu))


def ring(rank: int, connections: int, nbytes: int, ready: int, go: int) -> float:
    """Send and receive a rank's part of the traffic; return the seconds that it took."""
    with socket.create_server((address(rank), PORT), backlog=connections) as server:
        meet(ready, go)
        to = address((rank + 1) % HOSTS), PORT
        sending = [socket.create_connection(to) for _ in range(connections)]
        receiving = [server.accept()[0] for _ in range(connections)]
    sent, received = [0] * connections, [0] * connections
    whole, own, part = (size // connections for size in (nbytes * 2 * (HOSTS - 1) // HOSTS, nbytes // HOSTS, SLICE))
    buffer = memoryview(bytearray(PIECE))
    watched = selectors.DefaultSelector()
    for index, (out, into) in enumerate(zip(sending, receiving, strict=True)):
        out.setblocking(False)
        out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        watched.register(into, selectors.EVENT_READ, index)
        watched.register(out, selectors.EVENT_WRITE, index)
    idle: set[int] = set()
    meet(ready, go)
    began = time.monotonic()
    while min(sent) < whole or min(received) < whole:
        for key, _ in watched.select():
            index, peer = key.data, key.fileobj
            assert isinstance(peer, socket.socket)
            if key.events == selectors.EVENT_READ:
                received[index] += peer.recv_into(buffer)
                if received[index] >= whole:
                    watched.unregister(peer)
                continue
            has = whole if min(received) >= whole else own + min(received) // part * part
            if (size := min(has, whole) - sent[index]) <= 0:
                watched.unregister(peer)
                idle.add(index)
                continue
            sent[index] += peer.send(buffer[:size])
        has = whole if min(received) >= whole else own + min(received) // part * part
        for index in [index for index in idle if sent[index] < min(has, whole)]:
            watched.register(sending[index], selectors.EVENT_WRITE, index)
            idle.remove(index)
    return time.monotonic() - began


def meet(ready: int, go: int) -> None:
    """Tell the main process that this one is ready, and wait for the others."""
    os.write(ready, b".")
    os.read(go, 1)


def measure(hosts: list[int], connections: int, nbytes: int) -> float:
    """Return the seconds until all hosts are done."""
    children = []
    for rank, namespace in enumerate(hosts):
        (answer, ready), (wait, go) = os.pipe(), os.pipe()
        if not (child := os.fork()):
            namespaces.enter(namespace)
            took = ring(rank, connections, nbytes, ready, wait)
            os.write(ready, f"{took:.4f}\n".encode())
            os._exit(0)
        os.close(ready)
        children.append((child, answer, go))
    for _ in range(2):
        for _, answer, _ in children:
            os.read(answer, 1)
        for _, _, go in children:
            os.write(go, b".")
    took = max(float(os.read(answer, 100) or b"nan") for _, answer, _ in children)
    for child, answer, go in children:
        os.waitpid(child, 0)
        os.close(answer)
        os.close(go)
    return took


def dropped(hosts: list[int]) -> int:
    """Return the frames that the queues dropped so far."""
    total = 0
    for namespace in hosts:
        with namespaces.within(namespace):
            words = tool("tc", "-s", "qdisc", "show", "dev", INTERFACE).replace(",", "").split()
            total += int(words[words.index("(dropped") + 1])
    return total


def main() -> None:
    """Measure, and print a row for each number of connections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="200mbit", help="of the filter, as tc reads it")
    parser.add_argument("--burst", default="32kb", help="size of the bucket, as tc reads it")
    parser.add_argument("--latency", default="50ms", help="length of the queue as a time, as tc reads it")
    parser.add_argument("--mtu", type=int, default=9001)
    parser.add_argument("--connections", default="1,4,8,16", help="of a pair, with commas")
    parser.add_argument("--megabytes", type=int, default=60, help="S")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rate_bps, nbytes = (
        parse_bandwidth(given.rate.replace("bit", "bit/s").replace("m", "M").replace("g", "G")),
        given.megabytes * 10**6,
    )
    bound = 8 * nbytes * 2 * (HOSTS - 1) / HOSTS / rate_bps
    namespaces.become_owner()
    hosts = namespaces.build(Cluster(ranks=HOSTS, bandwidth_bps=rate_bps, shaping="tbf"))
    shape(hosts, given.mtu, given.rate, given.burst, given.latency)
    print(f"rate {given.rate}, burst {given.burst}, latency {given.latency}, MTU {given.mtu}, S = {given.megabytes} MB")
    for connections in map(int, given.connections.split(",")):
        for _ in range(given.repeats):
            before = dropped(hosts)
            took = measure(hosts, connections, nbytes)
            print(
                f"{connections:3} connections: {took / bound:.3f} × the bound, {dropped(hosts) - before} frames dropped"
            )


if __name__ == "__main__":
    main()
