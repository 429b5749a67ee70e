"""Replay of a list of flows on a network: when each flow ends, and the utilisation of each link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from netsim._util.system import old_objects_set_aside
from netsim._util.units import PICOSECONDS, picoseconds
from netsim.network.fabric import Fabric, Link, Route
from netsim.network.flow import Sharing
from netsim.network.flowfile import GivenFlow
from netsim.network.flows import Flow, Network
from netsim.report.notebook import with_packages

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class FlowOutcome:
    """A finished flow: its last byte arrived at `finish_s` seconds over the links of `route`."""

    given: GivenFlow
    finish_s: float
    route: tuple[Link, ...]

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the flow to the arrival of its last byte."""
        return self.finish_s - self.given.start_s

    @property
    def rate_bps(self) -> float | None:
        """Bits of the flow divided by its duration, latency included; None if the duration is 0."""
        return 8 * self.given.nbytes / self.duration_s if self.duration_s else None

    def to_dict(self) -> dict[str, Any]:
        """Return the flow by the keys of its row in a table or in JSON, in SI units."""
        return {
            "src": self.given.source,
            "dst": self.given.target,
            "bytes": self.given.nbytes,
            "start_s": self.given.start_s,
            "finish_s": self.finish_s,
            "duration_s": self.duration_s,
            "rate_bps": self.rate_bps,
        }


@dataclass(frozen=True, slots=True)
class LinkUse:
    """The traffic of a link; `utilisation` is its bits divided by bandwidth times the makespan of the replay."""

    link: Link
    nbytes: int
    flows: int
    utilisation: float


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome of a replay: flows in the given order, and links with traffic in the order of the network.

    `makespan_s` is the time from the start of the first flow to the end of the last one.
    """

    flows: list[FlowOutcome]
    links: list[LinkUse]
    makespan_s: float

    def to_pandas(self) -> pd.DataFrame:
        """Return the flows as a table: src, dst, bytes, start_s, finish_s, duration_s and rate_bps."""
        with with_packages("to_pandas()"):
            import pandas as pd

        return pd.DataFrame([flow.to_dict() for flow in self.flows])

    @property
    def busiest(self) -> LinkUse:
        """The link with the highest utilisation; the first one among equals."""
        return max(self.links, key=lambda use: use.utilisation)


def replay(fabric: Fabric, given: Sequence[GivenFlow], sharing: Sharing = "maxmin") -> Replay:
    """Send flows over an otherwise idle network.

    Parameters
    ----------
    fabric
        The network.
    given
        The flows, each with source, target, bytes and start in seconds.
    sharing
        How flows share a link; see :mod:`netsim.network.flow`.

    Returns
    -------
    Replay
        When each flow ended, and the traffic of each link.

    Notes
    -----
    Several flows between the same two hosts count as separate connections. Equal-cost routing picks a route for each.
    """
    routes = _routes(fabric, given)
    environment = simpy.Environment(initial_time=0)
    network = Network(environment, sharing)
    finish = [0] * len(given)

    def begin(index: int) -> None:
        def done(_: Flow) -> None:
            finish[index] = int(environment.now)

        network.start(routes[index], given[index].nbytes, done)

    def feed() -> Generator[Any, Any, None]:
        starts = [picoseconds(flow.start_s) for flow in given]
        for index in sorted(range(len(given)), key=starts.__getitem__):
            if starts[index] > environment.now:
                yield environment.timeout(starts[index] - int(environment.now))
            begin(index)

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
    connections = []
    for pair in pairs:
        connections.append(seen[pair])
        seen[pair] += 1
    sources, targets = np.array(pairs, np.int64).T
    first, links, latency_ps = fabric.links_of(sources, targets, np.array(connections, np.int64))
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
