"""The interpreter over a simulated network: real payloads, modelled time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import simpy

from netsim.comm.payload import nbytes
from netsim.comm.worker import Compute, Recv, Send, Worker, stages
from netsim.network.fabric import Fabric, Link
from netsim.network.flows import Flow, Network
from netsim.network.hosts import Host
from netsim.network.sharing import Sharing
from netsim.simulator.compute_pool import Backlog
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.observer import UNOBSERVED, Computation, Observers
from netsim.simulator.scheduler import Done
from netsim.training.costs import Costs

WORTH_A_THREAD = 500 * 10**6
"""Picoseconds of charge from which a computation is long."""


class SimulatedTransport:
    """Carries messages through a model of the network and charges computations by `costs`.

    Rank r lives on ``hosts[r]``; the clock starts at `now`. Long computations are made when the simulated
    time of one has passed, together with all others asked for by then, by the threads of `executor` if any.
    """

    def __init__(
        self,
        fabric: Fabric,
        hosts: Sequence[str],
        costs: Costs,
        executor: Executor | None = None,
        now: int = 0,
        sharing: Sharing = "maxmin",
        observers: Observers = UNOBSERVED,
    ) -> None:
        self._environment: Any = simpy.Environment(initial_time=now)  # its clock counts whole picoseconds
        self._network = Network(self._environment, sharing)
        self._fabric = fabric
        self._hosts = hosts
        self._costs = costs
        self._backlog = Backlog(executor, getattr(executor, "_max_workers", 1))
        self._computers: defaultdict[int, Host[CriticalPath]] = defaultdict(Host)
        self._observers = observers
        self.eager = False
        """Whether a sender goes on as soon as its message is on its way, not when that has arrived."""

    @property
    def now(self) -> int:
        return self._environment.now  # type: ignore[no-any-return]

    def utilisation(self) -> dict[str, float]:
        """Return the share of its bandwidth that is in use now, of every link that carries anything."""
        used: dict[Link, float] = {}
        for flow, rate in self._network.rates().items():
            for link in flow.route.links if rate else ():
                used[link] = used.get(link, 0.0) + rate
        return {link.name: rate / self._network.bandwidth(link) for link, rate in used.items()}

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        route = self._fabric.route(self._hosts[worker.rank], self._hosts[request.dst])

        def drained(flow: Flow) -> None:
            there = path.then("latency", route.latency_ps)
            for link, duration in flow.bottlenecks:
                there = there.then(link, duration)
            if not self.eager:
                sent(None, there)
            arrived(None, there)

        if self.eager:
            sent(None, path)
        self._network.start(route, nbytes(request.payload), drained)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """A flow starts when its send is posted, whether or not its receiver is there."""

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        host = self._computers[worker.rank]
        charge = 0
        for stage in stages(request):
            if duration := self._charge(worker, stage):
                charge, path = charge + duration, host.occupy(self.now, path, stage.work, duration)
                for computed in self._observers.computed:
                    computed(Computation(worker.rank, stage.work, worker.step, host.free_at - duration, host.free_at))
        if not charge:
            done(call(), path)
            return
        long = charge >= WORTH_A_THREAD or any(stage.work == "gradient" for stage in stages(request))
        finish = self._backlog.add(request) if long and not request.replicated else call
        timeout = self._environment.timeout(host.free_at - self.now)
        timeout.callbacks.append(lambda _: done(finish(), path))

    def _charge(self, worker: Worker, stage: Compute[Any]) -> int:
        """Return the picoseconds that a computation takes, without the stages before it."""
        return self._costs.picoseconds(stage, self._backlog.settle)

    def advance(self) -> bool:
        try:
            self._environment.step()
        except simpy.core.EmptySchedule:
            return False
        return True
