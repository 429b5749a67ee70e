"""Any traffic on any network: when each flow ends, and how much each link is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from netsim._util.system import old_objects_set_aside
from netsim._util.units import PICOSECONDS, picoseconds
from netsim.network.fabric import Fabric, Link, Route
from netsim.network.flowfile import GivenFlow
from netsim.network.flows import Flow, Network
from netsim.network.sharing import Sharing


@dataclass(frozen=True, slots=True)
class FlowOutcome:
    """A flow that has arrived: its last byte at `finish_s`, on the links of its route."""

    given: GivenFlow
    finish_s: float
    route: tuple[Link, ...]

    @property
    def duration_s(self) -> float:
        return self.finish_s - self.given.start_s

    @property
    def rate_bps(self) -> float | None:
        """Bits of the flow by its duration, latency included; None for what takes no time."""
        return 8 * self.given.nbytes / self.duration_s if self.duration_s else None


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What a link carried, and which part that is of what it could have carried from first start to last finish."""

    link: Link
    nbytes: int
    flows: int
    utilisation: float


@dataclass(frozen=True, slots=True)
class Replay:
    """Flows in the order given; links that carried any, in the order of the network."""

    flows: list[FlowOutcome]
    links: list[LinkUse]
    makespan_s: float

    @property
    def busiest(self) -> LinkUse:
        """The link of highest utilisation, the first of several."""
        return max(self.links, key=lambda use: use.utilisation)


def replay(fabric: Fabric, given: Sequence[GivenFlow], sharing: Sharing = "maxmin") -> Replay:
    """Send the flows over an otherwise idle network; return when each ends.

    Several flows of one pair of hosts are connections of their own: among equal routes each has its own.
    """
    routes = _routes(fabric, given)
    environment = simpy.Environment(initial_time=0)
    network = Network(environment, sharing)
    finish = [0] * len(given)

    def begin(number: int) -> None:
        def done(_: Flow) -> None:
            finish[number] = int(environment.now)

        network.start(routes[number], given[number].nbytes, done)

    def feed() -> Generator[Any, Any, None]:
        starts = [picoseconds(flow.start_s) for flow in given]
        for number in sorted(range(len(given)), key=starts.__getitem__):
            if starts[number] > environment.now:
                yield environment.timeout(starts[number] - int(environment.now))
            begin(number)

    environment.process(feed())
    with old_objects_set_aside():
        environment.run()
    outcomes = [
        FlowOutcome(flow, end / PICOSECONDS, route.links)
        for flow, end, route in zip(given, finish, routes, strict=True)
    ]
    makespan_s = (max(finish) - min(picoseconds(flow.start_s) for flow in given)) / PICOSECONDS
    return Replay(outcomes, _uses(outcomes, makespan_s), makespan_s)


def _routes(fabric: Fabric, given: Sequence[GivenFlow]) -> list[Route]:
    ranks = {host: rank for rank, host in enumerate(fabric.hosts)}
    pairs = [(ranks[flow.source], ranks[flow.target]) for flow in given]
    seen: Counter[tuple[int, int]] = Counter()
    numbers = []
    for pair in pairs:
        numbers.append(seen[pair])
        seen[pair] += 1
    sources, targets = np.array(pairs, np.int64).T
    first, links, latency_ps = fabric.links_of(sources, targets, np.array(numbers, np.int64))
    return [
        Route(tuple(fabric.links[link] for link in links[begin:end].tolist()), latency)
        for begin, end, latency in zip(first[:-1].tolist(), first[1:].tolist(), latency_ps.tolist(), strict=True)
    ]


def _uses(outcomes: Sequence[FlowOutcome], makespan_s: float) -> list[LinkUse]:
    carried: Counter[Link] = Counter()
    flows: Counter[Link] = Counter()
    for outcome in outcomes:
        for link in outcome.route:
            carried[link] += outcome.given.nbytes
            flows[link] += 1
    # Times are whole picoseconds: rounding must not make a link carry more than it can, or divide by zero.
    at_least_s = max(8 * nbytes / link.bandwidth_bps for link, nbytes in carried.items())
    span_s = max(makespan_s, at_least_s)
    return [
        LinkUse(link, carried[link], flows[link], 8 * carried[link] / (link.bandwidth_bps * span_s))
        for link in sorted(carried, key=lambda link: link.index)
    ]
