"""The transport over a simulated network: real payloads, modelled time."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeAlias

import simpy

from netsim._util.units import HORIZON_PS, beyond_horizon
from netsim.comm.payload import nbytes
from netsim.comm.worker import Compute, Recv, Send, Worker, stages
from netsim.network.effects import Effects
from netsim.network.fabric import Fabric, Link
from netsim.network.flow import Sharing
from netsim.network.flows import Flow, Network
from netsim.simulator.compute_pool import Backlog, is_long
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.observer import UNOBSERVED, Computation, Observers
from netsim.simulator.scheduler import Done
from netsim.training.costs import Costs

Begin: TypeAlias = Callable[[CriticalPath | None], None]
"""Begins to send a message, given the critical path of the message for which it waited."""


class Connections:
    """Connections, each of which carries one message after another: a message waits until the one before has drained.

    A pair of ranks has one connection in each direction, so that messages posted together do not share the pair's links
    with each other.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Begin] | None] = {}
        """For each connection in use: the messages that wait for it, None while none ever did."""

    def take(self, connection: Hashable) -> bool:
        """Take a connection if it is free, and return whether it was."""
        if connection in self._waiting:
            return False
        self._waiting[connection] = None
        return True

    def wait(self, connection: Hashable, begin: Begin) -> None:
        """Call ``begin(path)`` as soon as a connection, which was not free, is."""
        if (waiting := self._waiting[connection]) is None:
            self._waiting[connection] = deque([begin])
        else:
            waiting.append(begin)

    def post(self, connection: Hashable, begin: Begin) -> None:
        """Call ``begin(None)`` now if a connection is free, else ``begin(path)`` as soon as it is."""
        if self.take(connection):
            begin(None)
        else:
            self.wait(connection, begin)

    def drained(self, connection: Hashable, path: CriticalPath) -> None:
        """Let the next message of a connection begin, now that one has drained, after the events of `path`."""
        if waiting := self._waiting[connection]:
            waiting.popleft()(path)
        else:
            del self._waiting[connection]


class SimulatedTransport:
    """Carries messages through a model of the network, and charges computations by `costs`.

    Parameters
    ----------
    fabric
        The network.
    hosts
        The host of every rank, by name.
    costs
        The simulated time of each computation.
    executor
        Its threads make long computations, if given. A long computation is made when the simulated time of one is over,
        together with all others that were requested by then.
    now
        The start of the clock in picoseconds.
    sharing
        How flows share links.
    observers
        Who learns of computations.
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
        self._sharing = sharing
        self._connections = Connections()
        self._fabric = fabric
        self._hosts = hosts
        self._costs = costs
        self._backlog = Backlog(executor, getattr(executor, "_max_workers", 1))
        self._computers: defaultdict[int, Host] = defaultdict(Host)
        self._observers = observers
        self.eager = False
        """Whether a sender goes on as soon as its message is on its way, rather than when it has arrived."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._hosts)} hosts, now {self.now} ps)"

    @property
    def now(self) -> int:
        """The present instant in picoseconds."""
        return self._environment.now  # type: ignore[no-any-return]

    def utilisation(self) -> dict[str, float]:
        """Return the present share of bandwidth in use, from 0 to 1, of every link that carries a flow."""
        used: dict[Link, float] = {}
        for flow, rate in self._network.rates().items():
            for link in flow.route.links if rate else ():
                used[link] = used.get(link, 0.0) + rate
        return {link.name: rate / self._network.bandwidth(link) for link, rate in used.items()}

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Start a flow along the route between the two hosts, after earlier flows of this pair of ranks."""
        src, dst = pair = worker.rank, request.dst
        route = self._fabric.route(self._hosts[src], self._hosts[dst])
        if self.eager:
            sent(None, path)
        path = path.then("latency", route.latency_ps)

        def drained(flow: Flow) -> None:
            longer = path
            for bottleneck, duration in flow.bottlenecks:
                longer = longer.then(bottleneck, duration)
            self._connections.drained(pair, longer)
            if not self.eager:
                sent(None, longer)
            arrived(None, longer)

        if self._connections.take(pair):
            self._network.start(route, nbytes(request.payload), drained)
            return
        ready_at = self.now + route.latency_ps

        def begin(earlier: CriticalPath | None) -> None:
            nonlocal path
            wait = ready_at - self.now
            if wait < 0 and earlier is not None:  # it was ready before its connection was
                path = earlier
            self._network.start(route, nbytes(request.payload), drained, wait_ps=max(0, wait))

        self._connections.wait(pair, begin)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Do nothing: a flow starts when its send is posted, whether or not its receiver is ready."""

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Charge the stages of a computation to the rank's host, one after another."""
        host = self._computers[worker.rank]
        charge, parts = 0, stages(request)
        for stage in parts:
            if duration := self._charge(worker, stage):
                charge, path = charge + duration, host.occupy(self.now, path, stage.work, duration)
                for computed in self._observers.computed:
                    computed(Computation(worker.rank, stage.work, worker.step, host.free_at - duration, host.free_at))
        if not charge:
            done(call(), path)
            return
        long = not request.replicated and is_long(parts, charge)
        finish = self._backlog.add(request, parts) if long else call
        timeout = self._environment.timeout(host.free_at - self.now)
        timeout.callbacks.append(lambda _: done(finish(), path))

    def _charge(self, worker: Worker, stage: Compute[Any]) -> int:
        """Return the picoseconds of one stage of a computation."""
        return self._costs.picoseconds(stage, self._backlog.settle)

    def advance(self) -> bool:
        """Let the next event of the simulation happen; return False if there is none."""
        try:
            self._environment.step()
        except simpy.core.EmptySchedule:
            return False
        return True


class Host:
    """The processor of a simulated host: it serves first come, first served, without interruption.

    `free_at` is the instant at which all work so far is done, in picoseconds.
    """

    __slots__ = ("_path", "free_at")

    def __init__(self) -> None:
        self.free_at = 0
        self._path: CriticalPath | None = None

    def __repr__(self) -> str:
        return f"Host(free at {self.free_at} ps)"

    def occupy(self, now: int, path: CriticalPath, what: Hashable, duration: int) -> CriticalPath:
        """Do `what` for `duration` picoseconds as soon as the host is free; return the path to its end, `free_at`.

        Work that waits for the host continues the path of the work before it.
        """
        if self.free_at > now and self._path is not None:
            path = self._path
        self.free_at = max(now, self.free_at) + duration
        if self.free_at >= HORIZON_PS:
            raise beyond_horizon()
        self._path = path.then(what, duration)
        return self._path


def open_transport(
    fabric: Fabric, costs: Costs, effects: Effects, seed: int, *, eager: bool = False, **options: Any
) -> SimulatedTransport:
    """Return the transport over a simulated network whose rank r lives on ``fabric.hosts[r]``.

    Parameters
    ----------
    fabric, costs, options
        Parameters of :class:`SimulatedTransport`.
    effects, seed
        The effects, if any, and the seed of their random numbers.
    eager
        Whether a sender goes on as soon as its message is on its way.
    """
    if effects.any:
        from netsim.simulator.effects_engine import EffectsTransport

        options |= {"effects": effects, "seed": seed}
        transport: SimulatedTransport = EffectsTransport(fabric, fabric.hosts, costs, **options)
    else:
        transport = SimulatedTransport(fabric, fabric.hosts, costs, **options)
    transport.eager = eager
    return transport
