"""The faster ways to the time of a timing-only run: rounds of all ranks at once, and steps solved once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netsim.algorithm import Algorithm
from netsim.backends.batched import Players, Walk, play_all
from netsim.backends.spmd import Recorder
from netsim.bottleneck import bound_by
from netsim.results import Ranks, Timing, Way
from netsim.rounds import World
from netsim.sgd import Recipe
from netsim.training import Task, Trained, train
from netsim.units import PICOSECONDS
from netsim.worker import COMPUTE, SELECT, Worker

if TYPE_CHECKING:
    from netsim.backends.spmd import Costs
    from netsim.network.fabric import Fabric


class Found(NamedTuple):
    """What all ranks did, where the time went, and how that was found."""

    ranks: Ranks
    timing: Timing
    way: Way


class Training(NamedTuple):
    """What every rank does: an algorithm, on a task, for so many rounds."""

    algorithm: Algorithm
    task: Task
    recipe: Recipe
    rounds: int


def batched(training: Training, world: World, fabric: Fabric, costs: Costs) -> Found:
    """Return what :mod:`netsim.backends.simulated` would, from rounds of all ranks at once.

    Raises NoScheduleError where ranks cannot be taken all at once.
    """
    recorder = record(training, world, costs)
    players = Players(fabric, world)
    log = play_all(players, recorder.steps)
    last = (players.clock == players.clock.max()).astype(np.int64)
    walk = Walk(players, last.copy(), len(fabric.bandwidth_bps))
    for trail, times in reversed(log):
        walk.back(trail, times)
    totals = walk.totals
    for link in np.flatnonzero(walk.on_links).tolist():
        totals[fabric.links[link]] = walk.on_links[link]
    whole = int(players.clock.max()) * int(last.sum())
    server_host = fabric.hosts[world.server] if training.algorithm.uses_server else None
    return Found(
        did(recorder, players.sent, players.received),
        timing(totals, whole, int(last.sum()), training.rounds, server_host),
        "batched" if len(log) == len(recorder.steps) else "memoised",
    )


def record(training: Training, world: World, costs: Costs) -> Recorder:
    """Return what all ranks do, step by step."""
    recorder = Recorder(world, costs)

    def ended(worker: Worker, _: Trained) -> None:
        recorder.end(worker)

    recorder.run(
        lambda worker: train(worker, training.algorithm, training.task, training.rounds, training.recipe, ended)
    )
    return recorder


def did(recorder: Recorder, sent: np.ndarray, received: np.ndarray) -> Ranks:
    """Return what all ranks did, from the bytes (of values, of indices, of flags) of each, sent and received."""
    tally: Counter[str] = Counter()
    tallies = [worker.tally for worker in recorder.workers]
    for mine, ranks in zip(tallies, np.bincount(recorder.world.role).tolist(), strict=True):
        tally.update({what: ranks * count for what, count in mine.items()})
    stored = max(mine.get("stored_value_bytes", 0) for mine in tallies)
    return Ranks(sent[:, 0], sent[:, 1], sent.sum(1), received.sum(1), tally, stored)


def timing(totals: Counter[Hashable], whole: int, chains: int, rounds: int, server_host: str | None) -> Timing:
    """Return where a round's time went, along so many longest chains of events; `whole` is how long they are in all."""

    def seconds(picoseconds: int) -> float:
        return picoseconds / (PICOSECONDS * rounds * chains)

    compute = sum(totals[work] for work in COMPUTE)
    select = sum(totals[work] for work in SELECT)
    return Timing(
        seconds(whole),
        seconds(compute),
        seconds(select),
        seconds(whole - compute - select),
        bound_by(totals, server_host),
    )
