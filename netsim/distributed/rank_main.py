"""The program of one rank of a real run: it joins the process group, and trains with each algorithm."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from netsim._util.device import check_gpu_each, exact_arithmetic, gpu_of_rank, number_of_gpus, resolve_device
from netsim._util.errors import UsageError, unknown
from netsim._util.progress import OnRound, ignore
from netsim._util.system import one_thread_each
from netsim.comm.payload import Dense
from netsim.comm.worker import Sends, Worker
from netsim.distributed.rank_context import CURRENT_RANK
from netsim.distributed.rendezvous import rendezvous, verify_config
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import RankOutcome, Ranks, Result, Timing, sha256_of, summarise
from netsim.simulator.opening import faster_device, load_task
from netsim.simulator.session import final_quality
from netsim.simulator.timeline import Spent, Timeline
from netsim.simulator.workers import holds_a_part, make_workers
from netsim.training.loop import Trained, train
from netsim.training.overlap import Overlapped, described
from netsim.training.workloads import is_own

if TYPE_CHECKING:
    from netsim.training.workloads.task import DataParallelTask

TRAIN = f"{__name__}:train_as_rank"
"""The task of ranks that train, as :func:`netsim.distributed.job.task_of` takes it."""
BACKENDS = ("gloo", "nccl", "mpi")
TIMEOUT_S = 30.0
"""Default timeout of an operation in seconds; with torch's, a stopped peer would go unnoticed for 30 minutes."""


def check_backend(backend: str, experiment: Experiment) -> None:
    """Raise UsageError unless this torch and this machine can run an experiment over a backend."""
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    device = experiment.device
    if backend != "gloo" and (experiment.overlap is not None or experiment.servers > 1):
        what = "overlap" if experiment.overlap is not None else "several servers"
        raise UsageError(
            f"backend {backend!r} would mix up messages that are under way at the same time, as with {what}; "
            "use --backend gloo"
        )
    import torch
    import torch.distributed as dist

    if backend == "nccl" and not torch.cuda.is_available():
        raise UsageError("backend 'nccl' needs a CUDA GPU, and torch sees none; use --backend gloo")
    if resolve_device(device) == "cpu" and backend == "nccl":
        raise UsageError(f"backend 'nccl' needs --device cuda, not {device!r}; or use --backend gloo")
    if backend == "nccl":
        check_gpu_each(ranks_of(experiment), device)
    if not dist.is_backend_available(backend):
        raise UsageError(f"backend {backend!r} is not built into this torch; use --backend gloo")


def on_faster_device(experiment: Experiment, backend: str) -> Experiment:
    """Return an experiment whose ranks take the faster device for ``auto``; unchanged where there is no choice.

    The launcher chooses for all ranks. It times a gradient on one thread of the CPU, and one on an idle GPU.
    """
    if experiment.device != "auto" or not number_of_gpus():
        return experiment
    if backend == "nccl":
        return replace(experiment, device="cuda")
    with one_thread_each():
        device, _ = faster_device(experiment, threads=1, of_rank=True)
    return replace(experiment, device=device.partition(":")[0])


def ranks_of(experiment: Experiment) -> int:
    """Return the number of ranks of a real run: workers, and servers that have hosts in the topology."""
    return experiment.workers + experiment.servers


@contextmanager
def process_group(
    backend: str, timeout_s: float, init_method: str, rank: int, world_size: int, config: Mapping[str, Any]
) -> Iterator[None]:
    """Join the process group, and leave it at the end unless an error occurs.

    Its traffic stays on loopback if the rendezvous does.

    Parameters
    ----------
    backend, timeout_s
        Backend of torch.distributed, and the seconds after which an operation that waits fails.
    init_method
        Where the ranks meet: ``file://PATH`` or ``env://``.
    rank, world_size
        This rank, and the number of ranks.
    config
        What this rank is going to do; it must be the same on all ranks.

    Raises
    ------
    NetsimError
        Within the timeout, with the ranks that did not come or are going to do something else.
    """
    import torch
    import torch.distributed as dist

    wake_without_preempting()
    gpu = None
    if backend == "nccl":
        gpu = torch.device(gpu_of_rank(config.get("experiment", {}).get("device", "cuda")))
        torch.cuda.set_device(gpu)
    with CURRENT_RANK.between(f"joining the group of {world_size}", "before step 0"):
        store, serves = rendezvous(init_method, rank, world_size, timeout_s)
        verify_config(store, rank, world_size, timeout_s, config, serves)
    with CURRENT_RANK.between(f"connecting the group of {world_size}", "before step 0"):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if backend == "nccl" else backend,
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_s),
            # Connects all ranks here; the first message may be one of a few ranks, at which nccl must not do so.
            device_id=gpu,
        )
    yield
    # Not after an error, since it would wait for ranks that have ended.
    with CURRENT_RANK.between("leaving the group", "after the last step"):
        dist.destroy_process_group()


def wake_without_preempting() -> None:
    """Make threads of this process that wake up wait for a core instead of preempting a running thread.

    While a rank's own thread holds a connection's lock, gloo's thread polls for the lock without a pause. Where ranks
    outnumber cores, preempting the holder of a lock costs whole time slices.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):  # if that is not allowed, messages cost more
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def train_as_rank(details: Mapping[str, Any], rank: int, on_round: OnRound) -> Iterator[dict[str, Any]]:
    """Train with all algorithms of an experiment: the task TRAIN.

    Parameters
    ----------
    details
        The experiment's configuration, and the backend. ``first`` is the index of the first algorithm to run,
        ``launched_with`` are digests of the user's workload as the launcher had it.
    rank
        This rank.
    on_round
        Told the progress of rank 0.

    Returns
    -------
    iterator of dict
        On rank 0 the result of each algorithm when it has ended; nothing elsewhere.
    """
    experiment = Experiment.from_config(details["experiment"])
    launched_with, first = details.get("launched_with"), details.get("first", 0)
    return map(asdict, run_rank(experiment, details["backend"], rank, on_round, launched_with, first))


def run_rank(
    experiment: Experiment,
    backend: str,
    rank: int,
    on_round: OnRound = ignore,
    launched_with: Mapping[str, str] | None = None,
    first: int = 0,
) -> Iterator[Result]:
    """Train with an experiment's algorithms as one rank of the joined process group.

    Parameters
    ----------
    experiment
        What is trained.
    backend
        Backend of the process group.
    rank
        This rank.
    on_round
        Told the progress of rank 0.
    launched_with
        Digests of a user's own workload as the launcher had it; None without a launcher.
    first
        Index of the first algorithm to run.

    Yields
    ------
    Result
        On rank 0 the result of each algorithm when it has ended; nothing elsewhere.
    """
    device = gpu_of_rank(experiment.device)
    with one_thread_each(), exact_arithmetic(device, experiment.tf32):
        task, tensors, device = load_task(experiment, device, tried=launched_with is not None)
        if is_own(experiment.workload):
            _check_same_everywhere(task, launched_with)
        for name in experiment.algorithms[first:]:
            algorithm = experiment.algorithm(name, tensors, shapes=task.shapes)
            workers = make_workers(algorithm, experiment.workers, experiment.servers)
            mine = workers[rank] if rank < len(workers) else None
            outcomes, timing, quality = _run_algorithm(experiment, algorithm, task, mine, device, backend, on_round)
            if rank == 0:
                yield summarise(
                    ranks=Ranks.of(outcomes),
                    server=workers[0].server if algorithm.uses_server else None,
                    timing=timing,
                    rounds=experiment.round_count,
                    algorithm=algorithm.name,
                    title=algorithm.title,
                    mode="real",
                    workers=experiment.workers,
                    elements=sum(tensors),
                    k=experiment.k_in_all(name, tensors) if algorithm.sparse else None,
                    **described(algorithm, None),
                    momentum=experiment.momentum_of(name),
                    dtype=algorithm.precision,
                    compute_provenance="MEASURED",
                    select_provenance="MEASURED",
                    **quality,
                )


def _check_same_everywhere(task: DataParallelTask, launched_with: Mapping[str, str] | None) -> None:
    """Raise UsageError unless a user's own workload is the same on all ranks and in the launcher.

    On a CPU, as in the launcher, the first gradient must be the same, too.
    """
    import torch.distributed as dist

    from netsim.training.workloads.trial import parts

    comparable = launched_with is not None and task.device == "cpu"
    gathered: list[Any] = [None] * dist.get_world_size()
    with CURRENT_RANK.between("comparing workloads", "before step 0"):
        dist.all_gather_object(gathered, parts(task) if comparable else task.workload.parts_sha256())
    expected = launched_with or gathered[0]
    for rank, digests in enumerate(gathered):
        for part, digest in digests.items():
            if expected.get(part) != digest:
                raise UsageError(
                    f"workload {task.workload.name}: {part} of rank {rank} differs from that of other "
                    "processes; expected a function of the seed alone, not of the process, its environment or time"
                )


def _run_algorithm(
    experiment: Experiment,
    algorithm: Any,
    task: Any,
    worker: Worker | None,
    device: str,
    backend: str,
    on_round: OnRound,
) -> tuple[list[RankOutcome], Timing, dict[str, float | None]]:
    """Train with one algorithm as a worker (None: stand by); return all ranks' outcomes, timing and quality."""
    import torch.distributed as dist

    from netsim.distributed.interpreter import RankInterpreter

    outcome, spent, elapsed = None, Spent(), 0.0
    quality: dict[str, float | None] = {}
    interpreter: RankInterpreter | None = None
    if worker is not None:
        sends: Sends = "rendezvous" if experiment.sends == "rendezvous" else "eager"
        interpreter = RankInterpreter(worker, device, backend, sends)
        _warm_up(experiment, algorithm.name, task)
        if isinstance(algorithm, Overlapped) and worker.trains:
            interpreter.warm_up(task.gradual, task.initial_parameters(), 0, 0)
    with CURRENT_RANK.between(f"barrier before {algorithm.name}", "before step 0"):
        dist.barrier()
    if worker is not None and interpreter is not None:
        timeline = interpreter.timeline = Timeline(algorithm.concurrent)

        def ended(worker: Worker, _: Trained) -> None:
            nonlocal spent
            spent = spent.plus(timeline.spent())
            if worker.rank == 0:
                on_round(algorithm.name, worker.step)

        started = time.perf_counter()
        trained = interpreter.run(
            train(worker, algorithm, task, experiment.round_count, experiment.recipe(algorithm.name), ended)
        )
        elapsed = time.perf_counter() - started
        assert isinstance(trained.parameters, Dense)
        part = holds_a_part(worker, ranks_of(experiment))
        sha256 = None if part else sha256_of(trained.parameters)
        outcome = RankOutcome(worker.rank, worker.traffic, sha256, dict(worker.tally))
        if worker.rank == 0:
            quality = final_quality(task, trained.parameters)
    gathered: list[Any] = [None] * dist.get_world_size()
    with CURRENT_RANK.between(f"gathering the results of {algorithm.name}", f"after step {experiment.round_count - 1}"):
        dist.all_gather_object(gathered, (outcome, spent, elapsed))
    trained_ranks = [of_rank for of_rank in gathered if of_rank[0] is not None]
    _, slowest_spent, slowest_elapsed = max(trained_ranks, key=lambda of_rank: of_rank[2])
    timing = _timing(slowest_spent, slowest_elapsed, experiment.round_count)
    return [outcome for outcome, _, _ in trained_ranks], timing, quality


def _warm_up(experiment: Experiment, algorithm: str, task: Any) -> None:
    """Take a step in memory, with at most two workers: first calls load kernels, which no round should be charged."""
    from netsim.simulator.scheduler import InMemoryTransport, RankScheduler

    few = experiment.for_workers(min(2, experiment.workers))
    own = few.algorithm(algorithm, tuple(size for _, size in task.tensors), shapes=task.shapes)
    workers = make_workers(own, few.workers, few.servers)
    RankScheduler[Trained](InMemoryTransport()).run(
        workers, lambda worker: train(worker, own, task, 1, few.recipe(algorithm))
    )


def _timing(spent: Spent, elapsed: float, rounds: int) -> Timing:
    """Return the parts of the slowest rank's time; all time without computation is communication or waiting."""
    compute, select = spent.compute / rounds, spent.select / rounds
    comm = elapsed / rounds - compute - select
    parts = {"compute": compute, "selection": select, "network": comm}
    bound_by = max(parts, key=lambda part: parts[part])
    return Timing(elapsed / rounds, compute, select, comm, bound_by, spent.hidden / rounds)
