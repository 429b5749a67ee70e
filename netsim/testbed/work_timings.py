"""Times of work on one host: selection and merging by function and size, and a training step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from netsim._util.device import wait_for_gpu
from netsim._util.random_streams import Stream, generator
from netsim._util.units import PICOSECONDS
from netsim.comm.payload import Dense
from netsim.comm.worker import Compute, Worker
from netsim.experiment.configuration import Experiment
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.opening import load_task
from netsim.simulator.scheduler import RankScheduler
from netsim.simulator.workers import make_workers
from netsim.training.costs import Given, MeasuredCosts
from netsim.training.sgd import descend

ELEMENTS = (16_384, 131_072, 1_048_576, 4_194_304)
DENSITIES = (0.001, 0.01)
"""Two densities, because from one the costs of an entry and of an element cannot be separated."""
ALGORITHMS = ("dense", "topk", "gtopk", "ps", "ps-topk")
"""Algorithms that together call all functions with which the usual algorithms select and merge."""
BUDGET_S = 12.0
"""Seconds after which larger vectors are left out."""
WORKERS = 4
STEPS = 5


class SamplingCosts(MeasuredCosts):
    """Times every function once at every size of its arguments, and charges nothing.

    Parameters
    ----------
    device
        Where the vectors are.

    Attributes
    ----------
    seconds : dict
        Median seconds of a few calls, by function and sizes.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__({}, device)
        self.seconds: dict[Given, float] = {}

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Time a computation of a new size; return 0."""
        sizes = Given.to(request)
        if sizes not in self.seconds:
            settle()
            self.seconds[sizes] = self._time(request) / PICOSECONDS
        return 0


def work_samples(
    elements: Sequence[int] = ELEMENTS, budget_s: float = BUDGET_S, device: str = "cpu"
) -> dict[Given, float]:
    """Time the functions with which algorithms select and merge.

    Every algorithm makes one exchange of random gradients among simulated workers; its computations run and are timed.

    Parameters
    ----------
    elements
        Sizes of the gradients, ascending.
    budget_s
        Seconds after which larger gradients are left out, from the third size on.
    device
        Where the gradients are.

    Returns
    -------
    dict
        Median seconds by function and the sizes of its arguments.
    """
    costs, began = SamplingCosts(device), time.perf_counter()
    for size, density, name in itertools.product(elements, DENSITIES, ALGORITHMS):
        if time.perf_counter() - began > budget_s and size not in elements[:2]:
            break
        experiment = Experiment(workers=WORKERS, algorithms=(name,), density=density)
        algorithm = experiment.algorithm(name, (size,))
        fabric = experiment.fabric()

        async def program(worker: Worker, algorithm: Any = algorithm, size: int = size) -> None:
            gradient = _gradient(worker.rank, size, device)
            await algorithm.exchange(worker, gradient, algorithm.initial_memory(gradient), gradient)

        transport = SimulatedTransport(fabric, fabric.hosts, costs, None, 0, "maxmin")
        RankScheduler[None](transport).run(make_workers(algorithm, WORKERS, False), program)
    return costs.seconds


def _gradient(rank: int, elements: int, device: str) -> Dense:
    """Return a vector (elements,) on a device like a gradient: most entries small, a few large."""
    random = generator(0, Stream.CALIBRATION_VECTORS, rank)
    return Dense(torch.from_numpy(random.standard_normal(elements, dtype=np.float32) ** 3).to(device))


def step_samples(workload: str, batch_size: int, device: str = "cpu") -> tuple[int, list[float]]:
    """Return the number of elements of a workload's model, and the seconds of a few steps of gradient and update."""
    experiment = Experiment(workers=1, workload=workload, batch_size=batch_size)
    task, tensors, _ = load_task(experiment, device)
    parameters: Any = task.initial_parameters()
    recipe = experiment.recipe("dense")
    samples = []
    for step in range(STEPS + 1):
        began = time.perf_counter()
        gradient = task.gradient(parameters, 0, step)
        parameters = descend(parameters, gradient, None, recipe, step, 1).parameters
        wait_for_gpu(device)
        samples.append(time.perf_counter() - began)
    return sum(tensors), samples[1:]  # the first also loads kernels
