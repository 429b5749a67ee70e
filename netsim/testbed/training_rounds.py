"""Whole rounds of training, as one rank of a real cluster and over the simulated one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from netsim._util.device import one_thread_each
from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.comm.payload import Dense
from netsim.comm.worker import Sends, Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import sha256_of
from netsim.network.fabric import Fabric
from netsim.simulator.scheduler import RankScheduler
from netsim.simulator.session import load_task, make_workers
from netsim.testbed.host_model import HostTerms, HostTransport
from netsim.testbed.local_work import COMPANY, TimedCosts, TimedTransport, medians
from netsim.testbed.simultaneous_start import SimultaneousStart, interpreter, keep_still
from netsim.training.algorithm import Algorithm
from netsim.training.loop import Trained, train


def measured_rounds(
    experiment: Experiment,
    sends: Sends,
    rank: int,
    repeats: int,
    start: SimultaneousStart,
    on_repeat: Callable[[int], None],
) -> dict[str, Any]:
    """Train anew `repeats` times, after once that is left out; return seconds a round, and the parameters' SHA-256.

    Of `experiment` the first algorithm is run. A first round, which costs more than those after it, is not timed.
    """
    import torch.distributed as dist

    task, tensors, _ = load_task(experiment, start.device)
    algorithm = experiment.algorithm(experiment.algorithms[0], tensors)
    local = _local_work(experiment, task, algorithm, rank, start)
    own: list[list[float]] = []
    sha256, longest = "", 0.0
    for repeat in range(-1, repeats):
        worker = make_workers(algorithm, experiment.workers, experiment.servers)[rank]
        real = interpreter(worker, start, sends)
        began = start.together()
        ends: list[float] = []

        def ended(*_: Any, ends: list[float] = ends) -> None:
            ends.append(time.monotonic())

        trained = real.run(
            train(worker, algorithm, task, 1 + experiment.round_count, experiment.recipe(algorithm.name), ended)
        )
        own.append(ends)
        keep_still(began, longest)
        if repeat < 0:
            longest = start.longest(ends[-1] - began)
        assert isinstance(trained.parameters, Dense)
        sha256 = sha256_of(trained.parameters)
        on_repeat(repeat)
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, (own, sha256))
    times = [seconds_a_round(repeat) for repeat in zip(*(own for own, _ in everyones), strict=True)][1:]
    return {"times": times, "sha256": sorted({each for _, each in everyones}), "local": local}


def seconds_a_round(ends: Sequence[Sequence[float]]) -> float:
    """Return what a round took after the first; ``ends[rank][round]`` is when it ended, by the rank's own clock.

    The mean over ranks. They end a round one after another where they share processors, and in another order each
    time, so the rank that took longest is mostly the one that was early in the first round's queue.
    """
    return statistics.mean((own[-1] - own[0]) / (len(own) - 1) for own in ends)


def _local_work(
    experiment: Experiment, task: Any, algorithm: Algorithm, rank: int, start: SimultaneousStart
) -> dict[str, float]:
    """Return what each computation costs, as the first ranks find; the others keep still."""
    import torch.distributed as dist

    seen: list[dict[str, list[float]]] = []
    start.together()
    for _ in range(2 if rank < COMPANY else 0):
        transport = TimedTransport()
        workers = make_workers(algorithm, experiment.workers, experiment.servers)
        RankScheduler[Trained](transport).run(
            workers,
            lambda worker: train(
                worker, algorithm, task, 1 + experiment.round_count, experiment.recipe(algorithm.name)
            ),
        )
        seen.append(dict(transport.seconds))
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, seen[1:])  # the first run also loads code
    return medians([seconds for each in everyones for seconds in each])


def predicted_rounds(
    experiment: Experiment, fabric: Fabric, wire: Wire, terms: HostTerms, sends: Sends, local: Mapping[str, float]
) -> tuple[float, str]:
    """Return seconds a round of the first algorithm over the simulated cluster, after a first, and the SHA-256.

    Computations are charged what ranks that only computed measured (:mod:`netsim.testbed.local_work`).
    """
    with one_thread_each():
        task, tensors, _ = load_task(experiment, "cpu")
        algorithm = experiment.algorithm(experiment.algorithms[0], tensors)
        terms = replace(terms, call_s=0.0, hot_call_s=0.0)  # these were timed, too
        transport = HostTransport(fabric, wire, terms, TimedCosts(local), sends)
        workers = make_workers(algorithm, experiment.workers, experiment.servers)
        ends: list[list[float]] = [[] for _ in workers]

        def ended(worker: Worker, _: Trained) -> None:
            ends[worker.rank].append(transport.now / PICOSECONDS)

        tasks = RankScheduler[Trained](transport).run(
            workers,
            lambda worker: train(
                worker, algorithm, task, 1 + experiment.round_count, experiment.recipe(algorithm.name), ended
            ),
        )
    trained = tasks[0].result
    assert trained is not None
    assert isinstance(trained.parameters, Dense)
    return seconds_a_round(ends), sha256_of(trained.parameters)
