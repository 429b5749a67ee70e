"""The simulated time of one collective by itself, without training around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from netsim._util.units import PICOSECONDS
from netsim.comm.payload import SizeOnly
from netsim.comm.worker import Sends, Worker
from netsim.network.effects import Effects
from netsim.network.fabric import Fabric
from netsim.network.flow import Sharing
from netsim.simulator.engines import StepPlayer
from netsim.simulator.event_engine import open_transport
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.scheduler import RankScheduler
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.simulator.vectorized import RankClocks
from netsim.training.costs import AssumedCosts

NOTHING_COMPUTED = AssumedCosts({})


def exchange_time(
    collective: Callable[[Worker, SizeOnly], Awaitable[Any]],
    elements: int,
    fabric: Fabric,
    *,
    sends: Sends = "rendezvous",
    effects: Effects | None = None,
    sharing: Sharing = "maxmin",
    engine: Literal["auto", "event", "vectorized"] = "auto",
    seed: int = 0,
) -> float:
    """Return the seconds from when all workers begin a collective until the last worker has ended it.

    Computations, such as sums, take no time.

    Parameters
    ----------
    collective
        ``collective(worker, vector)`` runs it: a function of :mod:`netsim.comm.collectives`, or one that awaits some.
    elements
        Elements of each worker's vector, of 4 bytes each.
    fabric
        The network, with a host for each worker.
    sends
        When a send is done: ``rendezvous`` or ``eager``.
    effects
        Effects of networks and hosts, if any.
    sharing
        How flows share links.
    engine
        The engine; with ``auto`` the vectorised engine where it applies. Effects and eager sends need the event engine.
    seed
        Seed of random effects.

    Raises
    ------
    NoScheduleError
        If the vectorised engine is asked for and does not apply.

    Examples
    --------
    A ring all-reduce of 4 MB among 4 workers, at 1 Gbit/s and with 1 ms from worker to worker:

    >>> from netsim.comm.collectives import ring_all_reduce
    >>> from topologies import TOPOLOGIES
    >>> from topologies.builder import Shape
    >>> star = Fabric(TOPOLOGIES["star"](Shape(4, 10**9, 1e-3)))
    >>> round(exchange_time(ring_all_reduce, 10**6, star), 6)
    0.054
    """
    effects = Effects() if effects is None else effects
    vector = SizeOnly(elements)
    if engine != "event":
        try:
            if effects.any or sends == "eager":
                raise NoScheduleError("effects and eager sends are simulated one by one")
            return _vectorized(collective, vector, fabric, sharing)
        except NoScheduleError:
            if engine == "vectorized":
                raise

    ends: list[int] = []

    async def program(worker: Worker) -> None:
        await collective(worker, vector)
        ends.append(transport.now)

    transport = open_transport(fabric, NOTHING_COMPUTED, effects, seed, eager=sends == "eager", sharing=sharing)
    workers = len(fabric.workers)
    RankScheduler[None](transport).run([Worker(rank, workers) for rank in range(workers)], program)
    return max(ends) / PICOSECONDS


def _vectorized(
    collective: Callable[[Worker, SizeOnly], Awaitable[Any]], vector: SizeOnly, fabric: Fabric, sharing: Sharing
) -> float:
    """Return the seconds of a collective by the vectorised engine; raise NoScheduleError where it does not apply."""
    recorder = SymmetryRecorder(RoleMap(len(fabric.workers)), NOTHING_COMPUTED)

    async def program(worker: Worker) -> None:
        await collective(worker, vector)
        recorder.end(worker)

    recorder.run(program)
    clocks = RankClocks(fabric, recorder.world, sharing)
    StepPlayer(clocks, recorder.steps)
    return int(clocks.clock.max()) / PICOSECONDS
