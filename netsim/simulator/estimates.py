"""Estimates how long a simulation takes: a long one is announced before it begins, and a too long one is refused.

The constants are times of one core of a present server processor.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, NamedTuple

from algorithms import class_of, is_users, settings_of, with_options
from netsim._util.errors import InfeasibleError, UsageError
from netsim._util.units import PICOSECONDS, format_wait
from netsim.comm.worker import Fork, Handle, Worker
from netsim.experiment.configuration import Experiment
from netsim.network.cross_traffic import Sizes
from netsim.simulator.analytic import Star
from netsim.simulator.engines import Training, closed_form, run
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.rehearsal import rehearse
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.training.costs import AssumedCosts
from netsim.training.loop import TimingOnly, Trained, train
from netsim.training.workloads import WORKLOADS
from topologies import STARS
from topologies.builder import BANDWIDTH_BPS, LATENCY_S

MESSAGES_PER_SECOND = {"messages": 15_000, "batched": 5_000_000}
"""Simulated messages a second: one by one, and all messages of a round at once."""
EXCHANGE_S, WORKER_S, GRADIENT_S, POINT_S = 40e-6, 30e-6, 50e-6, 3e-3
"""The least seconds of laying out an exchange, of a worker's round, of a gradient, and of a point of a study."""
FORMULA_S = 0.5e-6
"""Seconds a worker and a round that formulas take."""
SLOW_S, LONGEST_S = 20, 2 * 86400
"""Seconds from which a simulation is announced, and from which it is refused."""
PLAYED_S = 0.1
"""Seconds of playing a round from which formulas are tried first."""
MOST_LAID_OUT, MOST_RUN = 1024, 64
"""Workers beyond which an estimate extrapolates from fewer: from layouts, or from coroutines that run in memory."""
UNKNOWN_ELEMENTS = 10_000
"""The elements of a gradient in an estimate, if they show only when it runs."""
FEWER = "take fewer workers or rounds"


class Estimate(NamedTuple):
    """The number of messages of a simulation, cross traffic included, and the seconds that it takes to run."""

    messages: float
    seconds: float
    one_by_one: bool

    def in_words(self) -> str:
        """Return the number of messages as text."""
        return f"{round(self.messages):,} messages{' one by one' if self.one_by_one else ''}"


class _Round(NamedTuple):
    """The exchanges and messages of a round, and whether its collectives have schedules and run beside computations."""

    exchanges: float
    messages: float
    has_schedule: bool = True
    concurrent: bool = False


def check_duration(what: str, seconds: float, instead: str = FEWER) -> None:
    """Log a warning if `what` takes long; raise InfeasibleError if it takes more than two days."""
    if seconds <= SLOW_S:
        return
    said = f"{what}, which take about {format_wait(seconds)}"
    if seconds > LONGEST_S:
        raise InfeasibleError(f"{said}; {instead}")
    logging.getLogger(__name__).warning("netsim: %s", said)


def check_experiment(experiment: Experiment, *, watched: bool = False, times: int = 1) -> None:
    """Apply :func:`check_duration` to an experiment that is simulated so many `times`.

    If it is `watched`, by metrics or a trace for example, messages are simulated one by one.
    """
    estimates = [estimate(experiment, name, watched=watched) for name in experiment.algorithms]
    whole = Estimate(
        times * sum(part.messages for part in estimates),
        times * sum(part.seconds for part in estimates),
        all(part.one_by_one for part in estimates),
    )
    check_duration(f"{', '.join(experiment.algorithms)}: {whole.in_words()}", whole.seconds)


def check_experiments(experiments: Iterable[Experiment], jobs: int) -> None:
    """Apply :func:`check_duration` to the points of a study; `jobs` of them run at once."""
    count, seconds = 0, 0.0
    for experiment in experiments:
        count += 1
        seconds += POINT_S + sum(estimate(experiment, name).seconds for name in experiment.algorithms)
    check_duration(
        f"{count:,} simulations, {jobs} at once", seconds / jobs, "vary less, or take fewer workers or rounds"
    )


def estimate(experiment: Experiment, name: str, *, watched: bool = False) -> Estimate:
    """Return the estimated lower bound for one algorithm, by the engine that simulates it."""
    rehearse(experiment)
    played = _played(experiment, name, watched=watched)
    if _has_formulas(experiment, played):
        return Estimate(0, experiment.round_count * experiment.workers * FORMULA_S, False)
    return played


def worth_formulas(experiment: Experiment, name: str) -> bool:
    """Return whether an algorithm is to be solved by formulas rather than played round by round."""
    return _has_formulas(experiment, _played(experiment, name))


def check_played(experiment: Experiment, name: str, why: str) -> None:
    """Check the duration of an algorithm that was to be solved by formulas, which do not hold: `why`."""
    played = _played(experiment, name)
    check_duration(f"{name}: {played.in_words()} (no formula: {why})", played.seconds)


def check_one_by_one(experiment: Experiment, name: str, why: str) -> None:
    """Check the duration of an algorithm whose messages are simulated one by one after all: `why`."""
    if not _played(experiment, name).one_by_one:  # others were announced
        one_by_one = _played(experiment, name, watched=True)
        check_duration(f"{name}: {one_by_one.in_words()} ({why})", one_by_one.seconds)


def all_scheduled(experiment: Experiment, name: str, elements: int) -> bool:
    """Return whether all messages of an algorithm belong to collectives that have schedules."""
    messages_of_round = _of_a_round(name, experiment.workers, elements, _selected(experiment, elements))
    return messages_of_round.has_schedule and not messages_of_round.concurrent


def _selected(experiment: Experiment, elements: int) -> int:
    return experiment.k_of(elements) if experiment.k is None else min(experiment.k, elements)


def _has_formulas(experiment: Experiment, played: Estimate) -> bool:
    """Return whether the network is an idle star, and playing one round takes longer than :data:`PLAYED_S`."""
    if not experiment.timing_only:
        return False
    round_s = experiment.workers * WORKER_S + played.messages / MESSAGES_PER_SECOND["batched"]
    return experiment.topology in STARS and not played.one_by_one and round_s > PLAYED_S


def _played(experiment: Experiment, name: str, *, watched: bool = False) -> Estimate:
    """Return the estimated lower bound for an algorithm whose messages are all simulated."""
    workers, rounds = experiment.workers, experiment.round_count
    elements = _elements(experiment) or UNKNOWN_ELEMENTS
    of_a_round = _all_exchanges(experiment, name, elements)
    servers = experiment.servers if class_of(name).uses_server else 0
    messages = of_a_round.messages * max(1, servers)
    one_by_one = (
        watched
        or not of_a_round.has_schedule
        or servers > 1
        or experiment.overlap is not None
        or experiment.sends == "eager"
        or experiment.engine == "event"
        or experiment.effects.any
    )
    seconds = rounds * workers * (WORKER_S if experiment.timing_only else GRADIENT_S)
    if one_by_one:
        messages = rounds * (messages + _cross_traffic(experiment, name))
        seconds += messages / MESSAGES_PER_SECOND["messages"]
    else:  # a step that equals the one before is solved with it
        messages *= 1 if class_of(name).period(settings_of(name)) == 1 else rounds
        seconds += rounds * of_a_round.exchanges * EXCHANGE_S
        seconds += messages / MESSAGES_PER_SECOND["batched"]
    return Estimate(messages, seconds, one_by_one)


def _all_exchanges(experiment: Experiment, name: str, elements: int) -> _Round:
    """Return the exchanges and messages of a round: with overlap, those of all buckets."""
    sizes = [elements]
    if experiment.overlap is not None and (tensors := experiment.known_tensors()):
        sizes = [piece.last - piece.first for piece in experiment.pieces(tensors)]
    parts = [_of_a_round(name, experiment.workers, size, _selected(experiment, size)) for size in sizes]
    exchanges, messages = sum(part.exchanges for part in parts), sum(part.messages for part in parts)
    return _Round(exchanges, messages, all(part.has_schedule for part in parts))


@functools.lru_cache(maxsize=4096)
def _of_a_round(name: str, workers: int, elements: int, k: int) -> _Round:
    """Return the exchanges and messages of a round: counted, or extrapolated."""
    if class_of(name).grouped:
        # Its groups take the network to find. Without groups it sends about as many messages.
        name = with_options("gtopk" if class_of(name).sparse else "dense", **settings_of(name))
    return _extrapolated(partial(_laid_out, name), workers, elements, k, MOST_LAID_OUT)


def _extrapolated(count: Callable[[int, int, int], _Round], workers: int, elements: int, k: int, most: int) -> _Round:
    """Return ``count(workers, elements, k)``; beyond `most` workers, extrapolate from two counts by a power law.

    The two are for P divided by powers of two, because some algorithms do otherwise where P is none. Fewer workers get
    shorter vectors, whose chunks are as long, because chunks may be forwarded in slices.
    """
    if workers <= most:
        return count(workers, elements, k)
    fewer = workers
    while fewer > most:
        fewer //= 2
    sizes = [(few, max(1, elements * few // workers)) for few in (fewer // 2, fewer)]
    half, full = (count(few, shorter, min(k, shorter)) for few, shorter in sizes)
    exchanges, messages = (
        larger * (workers / fewer) ** (math.log(larger / smaller) / math.log(fewer / (fewer // 2)))
        if smaller
        else larger
        for smaller, larger in zip(half[:2], full[:2], strict=True)
    )
    return _Round(exchanges, messages, full.has_schedule, full.concurrent)


class ForkedCoroutine(Handle[Any]):
    """A coroutine that runs when it is awaited, as a part of the one that awaits it."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


class MessageCounter(SymmetryRecorder):
    """Records coroutines that run side by side one after another: their messages are counted, and never played."""

    def __init__(self, world: RoleMap) -> None:
        super().__init__(world, AssumedCosts({}))
        self.forked: list[Coroutine[Any, Any, Any]] = []

    def fork(self, request: Fork[Any]) -> Handle[Any]:
        """Return the handle of a coroutine that runs when it is awaited."""
        self.forked.append(request.coroutine)
        return ForkedCoroutine(request.coroutine)


def _laid_out(name: str, workers: int, elements: int, k: int) -> _Round:
    """Return the exchanges and messages of a round from the layouts of its collectives, or of what coroutines send."""
    small = Experiment(workers=workers, algorithms=(name,), timing_only=True, elements=elements, k=k)
    algorithm, period = small.algorithm(name, (elements,)), small.round_count
    counter = MessageCounter(RoleMap(workers, 0))
    try:
        try:
            run(counter, Training(algorithm, TimingOnly(elements), small.recipe(name), period))
        except NoScheduleError:
            return _extrapolated(partial(_sent, name), workers, elements, k, MOST_RUN)
    except Exception:
        # A function of the user's may have no size rule: values are exchanged, but sizes alone count nothing.
        if not is_users(name):
            raise
        return _Round(2.0, 2.0 * workers, has_schedule=False)  # to a server and back, or so
    finally:
        for coroutine in counter.forked:
            coroutine.close()
    parts = [part for step in counter.steps for part in step]
    exchanges, messages = sum(len(part.rounds) for part in parts), sum(part.messages for part in parts)
    concurrent = bool(algorithm.concurrent)
    return _Round(exchanges / period, messages / period, concurrent or not counter.forked, concurrent)


def _sent(name: str, workers: int, elements: int, k: int) -> _Round:
    """Return the messages of a round that the coroutines of all workers send, in memory."""
    small = Experiment(workers=workers, algorithms=(name,), timing_only=True, elements=elements, k=k)
    algorithm, period, recipe = small.algorithm(name, (elements,)), small.round_count, small.recipe(name)
    ranks = [Worker(rank, workers) for rank in range(workers)]
    task = TimingOnly(elements)
    RankScheduler[Trained](InMemoryTransport()).run(
        ranks, lambda worker: train(worker, algorithm, task, period, recipe)
    )
    return _Round(2.0, sum(worker.traffic.messages_up for worker in ranks) / period, has_schedule=False)


def _elements(experiment: Experiment) -> int | None:
    """Return the elements of a gradient; None for a user's own workload, which shows them when it runs."""
    if experiment.known_tensors():
        return sum(experiment.known_tensors())
    if experiment.workload in WORKLOADS:
        return WORKLOADS[experiment.workload].elements(experiment.data)
    return None


def _cross_traffic(experiment: Experiment, name: str) -> float:
    """Return the number of cross-traffic flows in a round, from its time on an idle star whose links are all loaded.

    The load λ = ρ B / (8 E[size]) arrives at each link, and a round takes 1 / (1 - ρ) times as long.
    """
    load = experiment.effects.load
    if load is None:
        return 0.0
    if (elements := _elements(experiment)) is None:
        return 0.0
    workers = experiment.workers
    bandwidth_bps = experiment.bandwidth_bps or BANDWIDTH_BPS
    star = Star(round(2 * (experiment.latency_s or LATENCY_S) * PICOSECONDS), bandwidth_bps)
    algorithm = experiment.algorithm(name, (elements,))
    training = Training(algorithm, TimingOnly(elements), experiment.recipe(name), 1)
    try:
        round_s = closed_form(
            training, RoleMap(workers, 0), star, AssumedCosts(experiment.assumed_costs())
        ).timing.round_s
    except (NoScheduleError, UsageError):
        round_s = 2 * 32 * elements / bandwidth_bps
    arrivals = load * bandwidth_bps / (8 * Sizes.of(experiment.effects.background_size).mean)
    return 2 * workers * arrivals * round_s / (1 - load)
