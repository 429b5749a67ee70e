"""The interpreter over a simulated network: real payloads, modelled time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Any, Protocol

import simpy

from netsim.backends.cooperative import Done
from netsim.backends.path import Path
from netsim.network.fabric import Fabric, Link
from netsim.network.flows import Flow, Network
from netsim.network.sharing import Sharing
from netsim.payload import nbytes
from netsim.worker import Compute, Recv, Send, Worker


class Costs(Protocol):
    """How long computations take on the hosts that are simulated."""

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Return the time to charge for `request`; call `settle` first if it must be timed undisturbed."""


WORTH_A_THREAD = 500 * 10**6
"""Picoseconds of charge from which a computation is handed to the executor."""


class SimulatedMedium:
    """Carries messages through a model of the network and charges computations by `costs`.

    Rank r lives on ``hosts[r]``; the clock starts at `now`. An `executor` makes long computations of
    several workers at once: one begins when its worker asks for it and is awaited when its simulated
    time has passed.
    """

    def __init__(
        self,
        fabric: Fabric,
        hosts: Sequence[str],
        costs: Costs,
        executor: Executor | None = None,
        now: int = 0,
        sharing: Sharing = "maxmin",
    ) -> None:
        self._environment = simpy.Environment(initial_time=now)
        self._network = Network(self._environment, sharing)
        self._fabric = fabric
        self._hosts = hosts
        self._costs = costs
        self._executor = executor
        self._running: set[Future[Any]] = set()

    @property
    def now(self) -> int:
        return int(self._environment.now)

    def utilisation(self) -> dict[str, float]:
        """Return the share of its bandwidth that is in use now, of every link that carries anything."""
        used: dict[Link, float] = {}
        for flow, rate in self._network.rates().items():
            for link in flow.route.links if rate else ():
                used[link] = used.get(link, 0.0) + rate
        return {link.name: rate / self._network.bandwidth(link) for link, rate in used.items()}

    def carry(self, worker: Worker, request: Send, path: Path, sent: Done, arrived: Done) -> None:
        route = self._fabric.route(self._hosts[worker.rank], self._hosts[request.dst])

        def drained(flow: Flow) -> None:
            there = path.then("latency", route.latency_ps)
            for link, duration in flow.bottlenecks:
                there = there.then(link, duration)
            sent(None, there)
            arrived(None, there)

        self._network.start(route, nbytes(request.payload), drained)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Sends are eager: a flow starts when its send is posted."""

    def compute(self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: Path, done: Done) -> None:
        charge = self._costs.picoseconds(request, self._settle)
        finish = call
        long = charge >= WORTH_A_THREAD or request.work == "gradient"
        if self._executor is not None and long and not request.replicated:
            future = self._executor.submit(call)
            self._running.add(future)
            future.add_done_callback(self._running.discard)
            finish = future.result
        elif not charge:
            done(call(), path)
            return
        timeout = self._environment.timeout(charge)
        timeout.callbacks.append(lambda _: done(finish(), path.then(request.work, charge)))

    def _settle(self) -> None:
        wait(tuple(self._running))

    def advance(self) -> bool:
        try:
            self._environment.step()
        except simpy.core.EmptySchedule:
            return False
        return True
