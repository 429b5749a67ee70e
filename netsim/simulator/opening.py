"""Opens a session: loads the data of an experiment, chooses its device, and takes its cost model."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim._util.device import exact_arithmetic, gpus_beside, is_gpu, resolve_device, wait_for_gpu
from netsim._util.errors import InfeasibleError, UsageError
from netsim._util.system import check_memory, old_objects_set_aside, one_thread_each
from netsim._util.units import format_duration
from netsim.experiment.configuration import Experiment
from netsim.simulator.rehearsal import rehearse
from netsim.simulator.session import Session
from netsim.training.costs import REPEATS, WARM_UP, AssumedCosts, MeasuredCosts, RatedCosts, ReportedCosts
from netsim.training.loop import TimingOnly
from netsim.training.workloads import WORKLOADS, is_own, load_workload

if TYPE_CHECKING:
    from netsim.training.workloads.task import DataParallelTask
    from netsim.training.workloads.workload import Workload

logger = logging.getLogger(__name__)

SMALL_BATCH = 1024
"""A mini-batch up to this size may be larger than the data; some samples are then in it several times."""


@contextmanager
def open_session(experiment: Experiment) -> Iterator[Session]:
    """Yield a session for an experiment, with its data, its device, and a pool of threads for gradients.

    Users' algorithms are rehearsed first.
    """
    rehearse(experiment)
    if experiment.timing_only:
        if experiment.ready == "measured":
            raise UsageError("ready 'measured' was given with --timing-only, which computes nothing; leave one out")
        tensors, shapes = experiment.known_tensors(), experiment.known_shapes()
        if not tensors:
            shapes = shapes_of_workload(experiment)
            tensors = tuple(map(math.prod, shapes))
        charges = costs_of(experiment, AssumedCosts(experiment.assumed_costs()))
        with old_objects_set_aside():
            yield Session(experiment, TimingOnly(sum(tensors), shapes), tensors, charges)
        return
    # Data are loaded with one thread a torch operator as well: OpenMP's threads do not exist in a forked process, which
    # would wait for them.
    with one_thread_each() as (threads, initializer):
        device, chosen = faster_device(experiment, threads)
        with (
            exact_arithmetic(device, experiment.tf32),
            ThreadPoolExecutor(threads, "gradients", initializer) as pool,
        ):
            task, tensors, device = load_task(experiment, device, beside=gpus_beside(device, experiment.device))
            costs = costs_of(experiment, MeasuredCosts(experiment.assumed_costs(), device))
            # A GPU is one device however many threads feed it; a task with several GPUs has a thread for each.
            executor = pool if device == "cpu" else None
            with old_objects_set_aside():
                yield Session(experiment, task, tensors, costs, device, executor, chosen)


def costs_of(experiment: Experiment, rest: ReportedCosts) -> ReportedCosts:
    """Return the cost model of an experiment: the rates of its profile, and `rest` for computations without a rate."""
    rates = experiment.rates()
    return RatedCosts(rates, set(experiment.assumed_costs()), rest) if rates else rest


def faster_device(experiment: Experiment, threads: int, *, of_rank: bool = False) -> tuple[str, str | None]:
    """Return the device of an experiment, and for ``auto`` where there is a GPU how it was chosen.

    A few gradients are timed on the CPU and on the GPU, after a warm-up. The CPU computes those of several workers at
    once, by `threads` threads; so does a GPU, but not one `of_rank`, which has one gradient a step.
    """
    gpu = resolve_device(experiment.device)
    if experiment.device != "auto" or not is_gpu(gpu):
        return gpu, None
    at_once = min(threads, experiment.workers)
    seconds = {}
    with exact_arithmetic(gpu, experiment.tf32):
        for device in ("cpu", gpu):
            beside = None if of_rank else gpus_beside(device, experiment.device)
            task, _, _ = load_task(experiment, device, tried=True, beside=beside)
            seconds[device] = seconds_of_gradient(task)
    on_cpu, on_gpu = seconds["cpu"] / at_once, seconds[gpu]
    chosen = "cpu" if on_cpu <= on_gpu else gpu
    reason = (
        f"auto took {chosen}: a gradient takes {format_duration(on_gpu)} on {gpu}, and {format_duration(on_cpu)} on "
        f"{at_once} thread{'' if at_once == 1 else 's'} of the CPU, MEASURED"
    )
    logger.info("%s", reason)
    return chosen, reason


def seconds_of_gradient(task: DataParallelTask) -> float:
    """Return the median seconds of a worker's gradient at the initial parameters, after a warm-up.

    Where several are computed at the same time, it is their time divided by their number.
    """
    samples = []
    calls = [(task.initial_parameters(), rank, 0) for rank in range(min(task.at_once, len(task.shards)))]
    for _ in range(WARM_UP + REPEATS):
        started = time.perf_counter()
        for _ in task.gradients(calls):
            pass
        wait_for_gpu(task.device)
        samples.append((time.perf_counter() - started) / len(calls))
    return statistics.median(samples[WARM_UP:])


def load_task(
    experiment: Experiment, device: str, tried: bool = False, beside: Sequence[str] | None = None
) -> tuple[DataParallelTask, tuple[int, ...], str]:
    """Return the experiment's task on `device`, the sizes of its tensors, and the name of the device.

    A user's own workload is checked by :mod:`netsim.training.workloads.trial`, unless it was `tried` before. On a GPU,
    the task computes gradients of several workers at once, also on the GPUs `beside` it; a rank's, with None, does not.
    """
    from netsim.training.workloads.gpu_task import GpuTask
    from netsim.training.workloads.task import DataParallelTask

    device = resolve_device(device)
    workload = _workload(experiment)
    experiment.k_of(workload.elements)
    _check_room(experiment, workload)
    options: dict[str, Any] = {
        "workload": workload,
        "workers": experiment.workers,
        "batch_size": experiment.batch_size,
        "seed": experiment.seed,
        "device": device,
        "split": experiment.split,
        "sampling": experiment.sampling,
        "accumulate": experiment.accumulate,
    }
    several = is_gpu(device) and beside is not None
    task = GpuTask(beside or (), **options) if several else DataParallelTask(**options)
    if is_own(experiment.workload) and not tried:
        from netsim.training.workloads.trial import try_out

        try_out(task)
    return task, tuple(size for _, size in workload.tensors), device


def _check_room(experiment: Experiment, workload: Workload) -> None:
    """Raise InfeasibleError if the gradients or a mini-batch do not fit into memory."""
    inputs = workload.training.inputs
    if experiment.batch_size > max(len(inputs), SMALL_BATCH):
        raise InfeasibleError(
            f"a mini-batch of {experiment.batch_size:,} samples would take more than {workload.name} has, which are "
            f"{len(inputs):,}; take a smaller --batch-size"
        )
    check_memory(
        f"a mini-batch of {experiment.batch_size:,} samples",
        4 * experiment.batch_size * (inputs.numel() // len(inputs)),
        "take a smaller --batch-size",
    )
    check_memory(
        f"gradients of {experiment.workers:,} workers, with {workload.elements:,} elements each,",
        4 * experiment.workers * workload.elements,
        "take fewer workers, or --timing-only",
    )


def shapes_of_workload(experiment: Experiment) -> tuple[tuple[int, ...], ...]:
    """Return the shape of each tensor that an experiment's workload trains."""
    if experiment.workload in WORKLOADS:
        return WORKLOADS[experiment.workload].shapes(experiment.data)
    return _workload(experiment).shapes


def _workload(experiment: Experiment) -> Workload:
    folder = None if experiment.data_dir is None else Path(experiment.data_dir)
    return load_workload(experiment.workload, experiment.seed, experiment.data, folder)
