"""The interpreter over a simulated network: real payloads, modelled time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

import simpy

from netsim.backends.cooperative import Done
from netsim.backends.path import Path
from netsim.network.fabric import Fabric
from netsim.network.flows import Flow, Network
from netsim.payload import Payload, SizeOnly, nbytes
from netsim.worker import Compute


class Costs(Protocol):
    """How long computations take on the hosts that are simulated."""

    def picoseconds(self, request: Compute[Any]) -> int:
        """Return the time to charge for `request`."""


class SimulatedMedium:
    """Carries messages through a model of the network and charges computations by `costs`.

    Rank r lives on ``hosts[r]``. An `executor` makes gradients of several workers at once: a
    computation begins when its worker asks for it and is awaited when its simulated time has passed.
    """

    def __init__(self, fabric: Fabric, hosts: Sequence[str], costs: Costs, executor: Executor | None = None) -> None:
        self._environment = simpy.Environment(initial_time=0)
        self._network = Network(self._environment)
        self._fabric = fabric
        self._hosts = hosts
        self._costs = costs
        self._executor = executor

    @property
    def now(self) -> int:
        return int(self._environment.now)

    def carry(self, src: int, dst: int, payload: Payload, path: Path, done: Done) -> None:
        route = self._fabric.route(self._hosts[src], self._hosts[dst])

        def drained(flow: Flow) -> None:
            arrived = path.then("latency", route.latency_ps)
            for link, duration in flow.bottlenecks:
                arrived = arrived.then(link, duration)
            done(None, arrived)

        self._network.start(route, nbytes(payload), drained)

    def compute(self, request: Compute[Any], call: Callable[[], Any], path: Path, done: Done) -> None:
        charge = self._costs.picoseconds(request)
        finish = call
        if self._executor is not None and request.work == "gradient" and not isinstance(request.args[0], SizeOnly):
            finish = self._executor.submit(call).result
        if not charge and finish is call:
            done(call(), path)
            return
        timeout = self._environment.timeout(charge)
        timeout.callbacks.append(lambda _: done(finish(), path.then(request.work, charge)))

    def advance(self) -> bool:
        try:
            self._environment.step()
        except simpy.core.EmptySchedule:
            return False
        return True
