"""Whole rounds of training, measured by one rank of a real cluster and predicted on the simulated cluster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from netsim._util.system import one_thread_each
from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.comm.payload import Dense
from netsim.comm.worker import Sends, Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import sha256_of
from netsim.network.fabric import Fabric
from netsim.simulator.opening import load_task
from netsim.simulator.scheduler import RankScheduler
from netsim.simulator.workers import make_workers
from netsim.testbed.host_model import HostTerms, HostTransport
from netsim.testbed.local_work import CONCURRENT_RANKS, TimedCosts, TimedTransport, medians
from netsim.testbed.simultaneous_start import SimultaneousStart, idle_until_all_done, rank_interpreter
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
    """Train repeatedly with the first algorithm of an experiment, from the same initial parameters each time.

    The first repeat is not counted, nor is the first round of each repeat, because both take longer than the others.

    Parameters
    ----------
    experiment
        The workload, the algorithm and the hyper-parameters.
    sends
        When a sender continues, as in ``--send-mode``.
    rank
        This rank.
    repeats
        Number of repeats that count.
    start
        Starts all ranks at one instant.
    on_repeat
        Called with the index of each repeat that is done.

    Returns
    -------
    dict
        ``times``: each repeat's seconds per round; ``sha256``: the different digests of the ranks' trained parameters;
        ``local``: seconds of each computation in a round.
    """
    import torch.distributed as dist

    task, tensors, _ = load_task(experiment, start.device)
    algorithm = experiment.algorithm(experiment.algorithms[0], tensors, shapes=task.shapes)
    compute_s = _computation_seconds(experiment, task, algorithm, rank, start)
    round_ends: list[list[float]] = []
    sha256, longest = "", 0.0
    for repeat in range(-1, repeats):
        worker = make_workers(algorithm, experiment.workers, experiment.servers)[rank]
        real = rank_interpreter(worker, start, sends)
        began = start.begin()
        ends: list[float] = []

        def ended(*_: Any, ends: list[float] = ends) -> None:
            ends.append(time.monotonic())

        trained = real.run(
            train(worker, algorithm, task, 1 + experiment.round_count, experiment.recipe(algorithm.name), ended)
        )
        round_ends.append(ends)
        idle_until_all_done(began, longest)
        if repeat < 0:
            longest = start.maximum(ends[-1] - began)
        assert isinstance(trained.parameters, Dense)
        sha256 = sha256_of(trained.parameters)
        on_repeat(repeat)
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (round_ends, sha256))
    all_ends, digests = zip(*gathered, strict=True)
    times = [seconds_a_round(by_rank) for by_rank in zip(*all_ends, strict=True)][1:]
    return {"times": times, "sha256": sorted(set(digests)), "local": compute_s}


def seconds_a_round(ends: Sequence[Sequence[float]]) -> float:
    """Return the seconds of a round after the first, in the mean over ranks.

    Ranks that share cores end a round one after another, in another order each time. The slowest rank is therefore
    mostly a rank that ended the first round early, and the mean is more informative than the maximum.

    Parameters
    ----------
    ends
        ``ends[rank][round]``: when a round ended, in seconds of the rank's own clock.
    """
    return statistics.mean((by_round[-1] - by_round[0]) / (len(by_round) - 1) for by_round in ends)


def _computation_seconds(
    experiment: Experiment, task: Any, algorithm: Algorithm, rank: int, start: SimultaneousStart
) -> dict[str, float]:
    """Return the seconds of each computation, measured by the first ranks while the others are idle."""
    import torch.distributed as dist

    runs: list[dict[str, list[float]]] = []
    start.begin()
    for _ in range(2 if rank < CONCURRENT_RANKS else 0):
        transport = TimedTransport(start.device)
        workers = make_workers(algorithm, experiment.workers, experiment.servers)
        RankScheduler[Trained](transport).run(
            workers,
            lambda worker: train(
                worker, algorithm, task, 1 + experiment.round_count, experiment.recipe(algorithm.name)
            ),
        )
        runs.append(dict(transport.seconds))
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, runs[1:])  # the first run also loads code
    return medians([seconds for of_rank in gathered for seconds in of_rank])


def predicted_rounds(
    experiment: Experiment, fabric: Fabric, wire: Wire, terms: HostTerms, sends: Sends, compute_s: Mapping[str, float]
) -> tuple[float, str]:
    """Train with the first algorithm of an experiment over the simulated cluster.

    Parameters
    ----------
    experiment, sends
        What is trained, and when a send is done.
    fabric, wire, terms
        The links, their framing, and the costs of hosts.
    compute_s
        Seconds of each computation (:mod:`netsim.testbed.local_work`).

    Returns
    -------
    tuple of (float, str)
        Seconds of a round after the first, and the SHA-256 of the trained parameters.
    """
    with one_thread_each():
        task, tensors, _ = load_task(experiment, "cpu")
        algorithm = experiment.algorithm(experiment.algorithms[0], tensors, shapes=task.shapes)
        terms = replace(terms, call_s=0.0)  # the timed computations include it
        transport = HostTransport(fabric, wire, terms, TimedCosts(compute_s), sends)
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
