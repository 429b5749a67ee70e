"""netsim's side of benchmarks/network.py: one piece of work, one way, one line of JSON.

    python benchmarks/network_ways.py WORK P WAY [TRAFFIC]      # TRAFFIC: lines "src dst bytes start_s", for w5

It prints the seconds of the main loop, how many messages there were, when the last ended in simulated seconds,
and for w5 when each did. Way `events` starts a flow a message from plain callbacks (Network.start); `algorithms` does
the same from coroutines that ask for messages (netsim.comm.collectives); `batched` takes rounds of all ranks at
once, and `compiled` the same rounds message by message in compiled code (both inside the vectorised engine).
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import simpy

from netsim._util.system import old_objects_set_aside
from netsim._util.units import PICOSECONDS, picoseconds
from netsim.comm.collectives import rings, server, trees
from netsim.comm.payload import SizeOnly
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.network.fabric import Fabric, Route
from netsim.network.flow import Sharing
from netsim.network.flows import Flow, Network, Solver
from netsim.simulator.engines import VectorizedMethod
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.opening import open_session
from netsim.simulator.scheduler import RankScheduler
from netsim.training.costs import AssumedCosts
from topologies import build
from topologies.builder import Shape

DENSE, BLOCK = 100_000_000, 200_000
"""Bytes of a dense vector, and of 25,000 values with their indices."""
ENTRIES = BLOCK // 8
Traffic: TypeAlias = tuple[int, int, int, int]
"""From which host to which, bytes, start in picoseconds."""


def fabric_for(work: str, workers: int) -> Fabric:
    """Return hosts on one switch, or in racks of 16 with 4:1 uplinks; 25 µs a link."""
    return Fabric(build("racks:size=16" if work == "w5" else "star", Shape(workers, 10**9, 50e-6)))


class Events:
    """Work driven by callbacks: a flow's end starts the next."""

    def __init__(self, fabric: Fabric, sharing: Sharing = "maxmin", solver: Solver = "auto") -> None:
        self.environment = simpy.Environment(initial_time=0)
        self.network = Network(self.environment, sharing, solver)
        self.fabric = fabric
        self.messages = 0

    def route(self, src: int, dst: int) -> Route:
        return self.fabric.route(self.fabric.hosts[src], self.fabric.hosts[dst])

    def send(self, src: int, dst: int, nbytes: int, done: Callable[[Flow], None]) -> None:
        self.messages += 1
        self.network.start(self.route(src, dst), nbytes, done)

    def ring(self, workers: int, rounds: int, nbytes: int) -> None:
        """Everybody sends to the right as soon as the last send is over and the block from the left is there."""
        routes = [self.route(rank, (rank + 1) % workers) for rank in range(workers)]
        ended, start = [0] * workers, self.network.start

        def finish(rank: int) -> Callable[[Flow], None]:
            left, right = rank - 1, (rank + 1) % workers

            def done(_: Flow) -> None:
                ended[rank] = mine = ended[rank] + 1
                if ended[left] >= mine < rounds:
                    start(routes[rank], nbytes, finished[rank])
                if ended[right] == mine < rounds:
                    start(routes[right], nbytes, finished[right])

            return done

        finished = [finish(rank) for rank in range(workers)]
        for rank in range(workers):
            start(routes[rank], nbytes, finished[rank])
        self.messages = workers * rounds
        self.environment.run()

    def tree(self, workers: int) -> None:
        """Up a binomial tree to rank 0, and down again."""

        def children(rank: int) -> list[int]:
            span = rank & -rank or workers
            return [rank + (1 << level) for level in range(20) if 1 << level < span and rank + (1 << level) < workers]

        waiting = [len(children(rank)) for rank in range(workers)]

        def up(rank: int) -> None:
            if rank:
                self.send(rank, rank & (rank - 1), BLOCK, lambda _: arrived(rank & (rank - 1)))
            else:
                down(0, children(0))

        def arrived(rank: int) -> None:
            waiting[rank] -= 1
            if not waiting[rank]:
                up(rank)

        def down(rank: int, left: list[int]) -> None:
            if left:
                child = left.pop()

                def done(_: Flow) -> None:
                    down(child, children(child))
                    down(rank, left)

                self.send(rank, child, BLOCK, done)

        for rank in range(1, workers, 2):
            up(rank)
        self.environment.run()

    def server(self, workers: int) -> None:
        """Everybody sends a block to rank 0, which then sends a vector to everybody."""
        missing = workers - 1

        def arrived(_: Flow) -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                for rank in range(1, workers):
                    self.send(0, rank, DENSE, lambda _: None)

        for rank in range(1, workers):
            self.send(rank, 0, BLOCK, arrived)
        self.environment.run()

    def traffic(self, flows: list[Traffic]) -> list[float]:
        """Send the flows, each from its start on; return when each ended."""
        ends = [0] * len(flows)
        of_instant: defaultdict[int, list[int]] = defaultdict(list)
        for number, flow in enumerate(flows):
            of_instant[flow[3]].append(number)

        def begin(timeout: Any) -> None:
            for number in of_instant[timeout.value]:
                src, dst, nbytes, _ = flows[number]
                self.send(src, dst, nbytes, partial(done, number))

        def done(number: int, _: Flow) -> None:
            ends[number] = self.environment.now

        for instant in of_instant:
            self.environment.timeout(instant, instant).callbacks.append(begin)
        self.environment.run()
        return [end / PICOSECONDS for end in ends]


def by_events(work: str, workers: int, flows: list[Traffic]) -> None:
    """Do the work with callbacks."""
    fabric = fabric_for(work, workers)
    events = Events(fabric)
    if work == "w5":
        events = Events(fabric, "rtt", "compiled")
        # Two flows that share a link load what is compiled.
        Events(fabric, "rtt", "compiled").traffic([(0, 1, 1000, 0), (0, 1, 1000, 0)])
    ends: list[float] = []
    began = clocks()
    match work:
        case "w1":
            events.ring(workers, 2 * (workers - 1), chunk(workers))
        case "w2":
            events.tree(workers)
        case "w3":
            events.ring(workers, workers - 1, BLOCK)
        case "w4":
            events.server(workers)
        case "w5":
            ends = events.traffic(flows)
    report(began, events.messages, events.environment.now, ends)


def by_algorithms(work: str, workers: int, _: list[Traffic]) -> None:
    """Do the work with coroutines that ask for messages."""
    fabric = fabric_for(work, workers)
    transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts({}))
    ranks = [Worker(rank, workers) for rank in range(workers)]
    dense, sparse = SizeOnly(chunk(workers) // 4 * workers), SizeOnly(DENSE // 4, ENTRIES)

    async def program(worker: Worker) -> None:
        match work:
            case "w1":
                await rings.ring_all_reduce(worker, dense)
            case "w2":
                merged = await trees.tree_reduce(worker, sparse, first_of_two)
                await trees.tree_broadcast(worker, merged, sparse)
            case "w3":
                await rings.ring_all_gather(worker, sparse)
            case "w4":
                await server.gather(worker, sparse, sparse)
                whole = SizeOnly(DENSE // 4)
                await server.broadcast_from_server(worker, whole if worker.rank == 0 else None, whole)

    began = clocks()
    RankScheduler[None](transport).run(ranks, program)
    report(began, sum(worker.traffic.messages_up for worker in ranks), transport.now, [])


def by_rounds(inside: VectorizedMethod, work: str, workers: int, _: list[Traffic]) -> None:
    """Do the work in rounds, as algorithms whose exchange is just that; links are made within."""
    algorithm = {"w1": "dense:segment=none", "w2": "gtopk", "w3": "topk:segment=none", "w4": "ps-topk"}[work]
    elements = chunk(workers) // 4 * workers if work == "w1" else DENSE // 4
    experiment = Experiment.of(
        workers=workers, bandwidth="1Gbps", latency="50us", algorithm=algorithm, timing_only=True, elements=elements,
        k=ENTRIES, rounds=1,
    )  # fmt: skip
    with open_session(experiment) as lab:
        if inside == "compiled":  # load what is compiled
            with open_session(experiment.for_workers(2)) as small:
                small.vectorized(small.experiment.algorithm(algorithm, small.tensors), inside)
        began = clocks()
        result = lab.vectorized(lab.experiment.algorithm(algorithm, lab.tensors), inside)
        sent = {"w1": 2 * (workers - 1) * workers, "w3": (workers - 1) * workers}.get(work, 2 * (workers - 1))
        report(began, sent, round(result.round_time_s * PICOSECONDS), [])


async def first_of_two(own: SizeOnly, theirs: SizeOnly) -> SizeOnly:
    """Merge two selections of the same size, in no time."""
    return own


def chunk(workers: int) -> int:
    """Return the bytes of a ring's block: whole values."""
    return DENSE // workers // 4 * 4


def clocks() -> tuple[float, float]:
    """Return seconds that passed, and that this process computed."""
    return time.perf_counter(), time.process_time()


def report(began: tuple[float, float], messages: int, now: int, ends: list[float]) -> None:
    took, cpu = (after - before for after, before in zip(clocks(), began, strict=True))
    found = {"loop_s": took, "loop_cpu_s": cpu, "messages": messages, "end_s": now / PICOSECONDS, "finish_s": ends}
    print(json.dumps(found))


WAYS: dict[str, Callable[[str, int, list[Traffic]], None]] = {
    "events": by_events,
    "algorithms": by_algorithms,
    "batched": partial(by_rounds, "batched"),
    "compiled": partial(by_rounds, "compiled"),
}


def main() -> None:
    work, workers, way, *rest = sys.argv[1:]
    flows: list[Traffic] = []
    for line in Path(rest[0]).read_text().splitlines() if rest else ():
        src, dst, nbytes, start = line.split()
        flows.append((int(src), int(dst), int(nbytes), picoseconds(float(start))))
    with old_objects_set_aside():
        WAYS[way](work, int(workers), flows)


if __name__ == "__main__":
    main()
