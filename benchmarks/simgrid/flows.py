"""The rings of flows.cpp, W1 and W3, through SimGrid's Python binding; same arguments, same line of JSON.

python flows.py WORK P
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from simgrid import Actor, Engine, LinkInRoute, Mailbox, NetZone

GBIT, LATENCY = 125e6, 25e-6
ROUNDS = {"w1": lambda count: 2 * (count - 1), "w3": lambda count: count - 1}
NBYTES = {"w1": lambda count: 100_000_000 // count // 4 * 4, "w3": lambda count: 200_000}


def build(count: int) -> tuple[list[Any], list[Any]]:
    """Return hosts on one switch, and a mailbox for each."""
    root = NetZone.create_star_zone("root")
    hosts, boxes = [], []
    for rank in range(count):
        host = root.create_host(f"host{rank}", 1e9)
        cable = root.create_split_duplex_link(f"host{rank}-cable", GBIT).set_latency(LATENCY).seal()
        root.add_route(host.netpoint, None, None, None, [LinkInRoute(cable, LinkInRoute.UP)], True)
        hosts.append(host)
        boxes.append(Mailbox.by_name(f"host{rank}"))
    root.seal()
    return hosts, boxes


def main() -> None:
    work, count = sys.argv[1], int(sys.argv[2])
    if work not in ROUNDS:
        raise SystemExit(f"work {work!r}: only {' and '.join(ROUNDS)} are written for the binding")
    rounds, nbytes = ROUNDS[work](count), NBYTES[work](count)
    settings = ("network/model:CM02", "network/crosstraffic:0", "network/TCP-gamma:0")
    engine = Engine([sys.argv[0], *(f"--cfg={setting}" for setting in settings)])
    hosts, boxes = build(count)

    def ring(rank: int) -> None:
        mine, right = boxes[rank], boxes[(rank + 1) % count]
        for _ in range(rounds):
            incoming, _block = mine.get_async()
            outgoing = right.put_async(0, nbytes)
            incoming.wait()
            outgoing.wait()

    for rank, host in enumerate(hosts):
        Actor.create("worker", host, ring, rank)
    began = time.perf_counter()
    engine.run()
    took = time.perf_counter() - began
    print(json.dumps({"loop_s": took, "messages": count * rounds, "end_s": engine.clock, "finish_s": []}))


if __name__ == "__main__":
    main()
