"""What work costs on one host: selecting and merging, by function and size, and a step of training."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from netsim._util.random_streams import Stream, generator
from netsim._util.units import PICOSECONDS
from netsim.comm.payload import Dense
from netsim.comm.worker import Compute, Worker
from netsim.experiment.configuration import Experiment
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.scheduler import RankScheduler
from netsim.simulator.session import load_task, make_workers
from netsim.training.costs import MeasuredCosts
from netsim.training.profiled_costs import Given
from netsim.training.sgd import descend

ELEMENTS = (16_384, 131_072, 1_048_576, 4_194_304)
DENSITIES = (0.001, 0.01)
"""Two, since what an entry costs and what an element does are otherwise not to be told apart."""
ALGORITHMS = ("dense", "topk", "gtopk", "ps", "ps-topk")
"""Between them they call all functions that the usual algorithms select and merge with."""
BUDGET_S = 12.0
WORKERS = 4
STEPS = 5


class SamplingCosts(MeasuredCosts):
    """Times every function at every size that it is given, once: the median of a few calls."""

    def __init__(self) -> None:
        super().__init__({})
        self.seconds: dict[Given, float] = {}

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        given = Given.to(request)
        if given not in self.seconds:
            settle()
            self.seconds[given] = self._time(request) / PICOSECONDS
        return 0


def work_samples(elements: Sequence[int] = ELEMENTS, budget_s: float = BUDGET_S) -> dict[Given, float]:
    """Return the median seconds of each function that algorithms compute exchanges with, by what it was given.

    Once `budget_s` is over, larger vectors are left out, but that there are two sizes.

    Every algorithm makes one exchange of random gradients among simulated workers, whose computations
    are really made, and timed.
    """
    costs, began = SamplingCosts(), time.perf_counter()
    for size, density, name in itertools.product(elements, DENSITIES, ALGORITHMS):
        if time.perf_counter() - began > budget_s and size not in elements[:2]:
            break
        experiment = Experiment(workers=WORKERS, algorithms=(name,), density=density)
        algorithm = experiment.algorithm(name, (size,))
        fabric = experiment.fabric()

        async def program(worker: Worker, algorithm: Any = algorithm, size: int = size) -> None:
            own = _gradient(worker.rank, size)
            await algorithm.exchange(worker, own, algorithm.initial_memory(own), own)

        transport = SimulatedTransport(fabric, fabric.hosts, costs, None, 0, "maxmin")
        RankScheduler[None](transport).run(make_workers(algorithm, WORKERS, False), program)
    return costs.seconds


def _gradient(rank: int, elements: int) -> Dense:
    """Return a vector as gradients are: most entries small, a few large."""
    random = generator(0, Stream.CALIBRATION_VECTORS, rank)
    return Dense(torch.from_numpy(random.standard_normal(elements, dtype=np.float32) ** 3))


def step_samples(workload: str, batch_size: int) -> tuple[int, list[float]]:
    """Return the elements of a workload's model, and the seconds of a few steps: gradient and update."""
    experiment = Experiment(workers=1, workload=workload, batch_size=batch_size)
    task, tensors, _ = load_task(experiment, "cpu")
    parameters: Any = task.initial_parameters()
    recipe = experiment.recipe("dense")
    samples = []
    for step in range(STEPS + 1):
        began = time.perf_counter()
        gradient = task.gradient(parameters, 0, step)
        parameters = descend(parameters, gradient, None, recipe, step, 1).parameters
        samples.append(time.perf_counter() - began)
    return sum(tensors), samples[1:]  # the first also loads kernels
