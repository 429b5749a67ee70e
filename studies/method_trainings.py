"""Trainings of methods: real gradients on two splits of the data, with the bytes and seconds of several networks.

Every method trains on the same number of samples. It trains once: what it sends depends on no bandwidth, so that the
seconds on every network follow from the recorded messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import inf
from typing import Any, NamedTuple

from pydantic import Field

from algorithms import ALGORITHMS, BUILT_IN, class_of, is_dense_sgd, name_of, title_of, with_options
from netsim._util.errors import NonFiniteGradientError, UsageError
from netsim._util.units import parse_bandwidth, parse_duration
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.simulator.layout import NoScheduleError
from netsim.simulator.opening import open_session
from netsim.study_engine import Outcome, Point, Settings
from netsim.study_engine.checks import checked

RATES = {"signsgd": 0.0003, "dgc": 0.03, "diloco": 0.001, "streaming-diloco": 0.001}
HALVES = ("dense@fp16", "dense@bf16")


def registered() -> tuple[str, ...]:
    """Return all methods: netsim's own algorithms, and ``dense`` with values of 16 bits in its messages."""
    return (*(name for name in ALGORITHMS if name in BUILT_IN), *HALVES)


def stands_for(method: str) -> str:
    """Return the method that trains in place of `method`; the method itself if it has an accuracy of its own.

    >>> [stands_for(method) for method in ("dense-tree", "dense@bf16", "ssar", "topk")]
    ['dense', 'dense@bf16', 'topk', 'topk']
    """
    if "@" in method:
        return method
    return "dense" if is_dense_sgd(method) else class_of(method).same_parameters_as or method


class MethodsSettings(Settings):
    """The settings of the study.

    A training is a workload, its rounds, the number of its seeds, the compute time of a mini-batch, and the learning
    rate of the methods that `rates` does not name. A method is an algorithm, with ``@fp16`` or ``@bf16`` for values of
    16 bits. `exchanges` is the number of exchanges of a method
    with local steps in a run, which sets its H; post-local SGD is dense for the first quarter of a run.

    The rates have the highest test accuracy of some, with Fashion-MNIST and seed 0. That of each training has the
    highest mean over both splits and dense, topk, randk, ef-signsgd, powersgd, lasg-wk2 and local-sgd, among 0.05, 0.1
    and 0.2. On fc-mnist, iid, those of signsgd, and of diloco and streaming-diloco together, were the best among
    0.0003, 0.001 and 0.003; that of dgc of 0.01 and 0.03.

    `claims` says whether claims of papers are tested, for which a quick run is too short.
    """

    methods: tuple[str, ...] = registered()
    trainings: tuple[str, ...] = ("fc-mnist:200:3:5ms:0.2", "resnet20:60:3:20ms:0.05")
    splits: tuple[str, ...] = ("iid", "by-class")
    bandwidths: tuple[str, ...] = ("100Mbps", "1Gbps", "10Gbps")
    data: str = "fashion-mnist"
    workers: int = Field(default=8, ge=1)
    batch_size: int = Field(default=16, ge=1)
    density: float = 0.01
    exchanges: int = Field(default=20, ge=1)
    fragments: int = Field(default=4, ge=1)
    rates: dict[str, float] = Field(default_factory=lambda: dict(RATES))
    momentum: float = Field(default=0.9, ge=0, lt=1)
    latency: str = "50us"
    select_time: str = "0.3ms"
    merge_time: str = "0.1ms"
    margin: float = Field(default=0.02, ge=0, lt=1)
    claims: bool = True


class TrainingPlan(NamedTuple):
    """What is trained, for how many rounds, with how many seeds, the seconds of a gradient, and the learning rate."""

    workload: str
    rounds: int
    seeds: int
    compute_s: float
    lr: float

    @property
    def counted_seeds(self) -> str:
        """The number of seeds in words."""
        return f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"


def plan_of(text: str) -> TrainingPlan:
    """Return a training from a text such as ``fc-mnist:200:3:5ms:0.2``."""
    try:
        workload, rounds, seeds, compute, lr = text.split(":")
        plan = TrainingPlan(workload, int(rounds), int(seeds), parse_duration(compute, "time of a training"), float(lr))
    except ValueError:
        plan = None
    if plan is None or plan.rounds < 1 or plan.seeds < 1 or not 0 < plan.lr < inf:
        raise UsageError(f"training {text!r} must be WORKLOAD:ROUNDS:SEEDS:TIME:LR, such as fc-mnist:200:3:5ms:0.2")
    return plan


class WantedPoint(NamedTuple):
    """A point with its training, method, split and seed; a point without data counts for all splits and seeds."""

    plan: TrainingPlan
    method: str
    split: str | None
    point: Point


def points(settings: MethodsSettings) -> list[Point]:
    """Return a training of each method with an accuracy of its own, and the sizes alone of the other methods."""
    for bandwidth in settings.bandwidths:
        parse_bandwidth(bandwidth)
    if "dense" not in settings.methods:
        raise UsageError(
            f"methods {','.join(settings.methods)} must contain dense, which the others are compared with; "
            f"write methods={','.join(('dense', *settings.methods))}"
        )
    wanted = [each.point for each in wanted_points(settings)]
    checked([_options(point, settings.bandwidths[0]) for point in wanted])
    return wanted


def wanted_points(settings: MethodsSettings) -> Iterator[WantedPoint]:
    """Yield the points in the order in which they are asked for."""
    for plan in map(plan_of, dict.fromkeys(settings.trainings)):
        same = _same(settings, plan)
        for method in dict.fromkeys(settings.methods):
            options = same | options_of(settings, plan, method)
            if stands_for(method) != method:
                yield WantedPoint(plan, method, None, options | {"timing_only": True})
                continue
            for split, seed in product(dict.fromkeys(settings.splits), range(plan.seeds)):
                yield WantedPoint(plan, method, split, options | {"split": split, "seed": seed})


def _same(settings: MethodsSettings, plan: TrainingPlan) -> dict[str, Any]:
    """Return the options that all methods of a training have in common."""
    return {
        "workload": plan.workload,
        "data": settings.data,
        "rounds": plan.rounds,
        "compute_time": plan.compute_s,
        "select_time": settings.select_time,
        "merge_time": settings.merge_time,
        "latency": settings.latency,
        "workers": settings.workers,
        "batch_size": settings.batch_size,
        "density": settings.density,
        "device": "cpu",
        "bandwidths": settings.bandwidths,
    }


def options_of(settings: MethodsSettings, plan: TrainingPlan, method: str) -> dict[str, Any]:
    """Return the options of ``netsim simulate`` that differ between methods."""
    algorithm, _, dtype = method.partition("@")
    trained = name_of(stands_for(method).partition("@")[0])
    h = max(1, plan.rounds // settings.exchanges)
    return {
        "algorithm": with_options(algorithm, h=h, start=plan.rounds // 4, fragments=min(settings.fragments, h)),
        "dtype": dtype or "fp32",
        "lr": settings.rates.get(trained, plan.lr),
        "momentum": settings.momentum if class_of(algorithm).always_corrects else 0.0,
    }


def _options(point: Point, bandwidth: str) -> dict[str, Any]:
    """Return the options of a simulation on a network."""
    return {name: value for name, value in point.items() if name != "bandwidths"} | {"bandwidth": bandwidth}


def measure(point: Point) -> Outcome:
    """Train, and return the test accuracy, the bytes of a worker, and the seconds of the run on every network.

    A training whose messages belong to collectives is recorded once, and timed on each network. Of a training that
    diverges only the error is returned. A point without data has bytes and seconds only, from the sizes of messages.
    """
    networks = {bandwidth: Experiment.of(**_options(point, bandwidth)) for bandwidth in point["bandwidths"]}
    first = next(iter(networks.values()))
    (name,) = first.algorithms
    found: dict[str, Any] = {"title": title_of(name)}
    if first.timing_only:
        return found | _summary(_simulated(networks))
    try:
        with open_session(first) as session:
            algorithm = first.algorithm(name, session.tensors, None, session.task.shapes)
            task: Any = session.task
            try:
                recording = session.record(algorithm)
                evaluation = task.evaluate(recording.trained[0].parameters, most=task.workload.loss_samples)
                found["accuracy"] = evaluation.accuracy
                results = {key: session.time_recording(recording, each.fabric()) for key, each in networks.items()}
            except NoScheduleError:
                found["accuracy"] = session.simulate(name).final_accuracy
                # Local steps, whatever their values, are as large as the parameters; other messages need the values.
                fixed = class_of(name).steps_locally
                results = _simulated({key: replace(each, timing_only=fixed) for key, each in networks.items()})
    except NonFiniteGradientError as error:
        return found | {"diverged": str(error)}
    return found | _summary(results)


def _simulated(networks: Mapping[str, Experiment]) -> dict[str, Result]:
    """Return the result of one algorithm on each network."""
    results = {}
    for bandwidth, experiment in networks.items():
        (name,) = experiment.algorithms
        with open_session(experiment) as session:
            results[bandwidth] = session.simulate(name)
    return results


def _summary(results: Mapping[str, Result]) -> dict[str, Any]:
    """Return the bytes that a worker sends and receives in a run, the uploads of all workers, and the seconds."""
    each = next(iter(results.values()))
    sent = each.rounds * (each.value_bytes_up + each.index_bytes_up)
    return {
        "sent": sent,
        "received": each.rounds * each.bytes_down,
        "uploads": each.uploads,
        "seconds": {bandwidth: each.rounds * each.round_time_s for bandwidth, each in results.items()},
    }
