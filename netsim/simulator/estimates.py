"""Estimates how long a simulation takes: a long one is announced before it begins, and a too long one is refused.

The constants are times of one core of a present server processor.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable
from typing import NamedTuple

from algorithms import class_of, settings_of, with_options
from netsim._util.errors import InfeasibleError, UsageError
from netsim._util.units import PICOSECONDS, format_wait
from netsim.experiment.configuration import Experiment
from netsim.network.cross_traffic import Sizes
from netsim.simulator.analytic import Star
from netsim.simulator.engines import Training, closed_form, run
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.training.costs import AssumedCosts
from netsim.training.loop import TimingOnly
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
SMALL = 512
"""Beyond twice as many workers, an estimate extrapolates from the layouts of this number and of twice as many."""
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
    """The exchanges and messages of one round, and whether its collectives all have schedules."""

    exchanges: float
    messages: float
    has_schedule: bool = True


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
    from netsim.simulator.rehearsal import rehearse  # which needs a session, which needs estimates

    rehearse(experiment)
    found = _played(experiment, name, watched=watched)
    if _has_formulas(experiment, found):
        return Estimate(0, experiment.round_count * experiment.workers * FORMULA_S, False)
    return found


def plays_too_long(experiment: Experiment, name: str) -> bool:
    """Return whether an algorithm is to be solved by formulas rather than played round by round."""
    return _has_formulas(experiment, _played(experiment, name))


def check_played(experiment: Experiment, name: str, why: str) -> None:
    """Check the duration of an algorithm that was to be solved by formulas, which do not hold: `why`."""
    played = _played(experiment, name)
    check_duration(f"{name}: {played.in_words()} (no formula: {why})", played.seconds)


def _has_formulas(experiment: Experiment, played: Estimate) -> bool:
    """Return whether the network is an idle star, and playing one round takes so long that it would be announced."""
    round_s = experiment.workers * WORKER_S + played.messages / MESSAGES_PER_SECOND["batched"]
    return experiment.topology in STARS and not played.one_by_one and round_s > SLOW_S


def _played(experiment: Experiment, name: str, *, watched: bool = False) -> Estimate:
    """Return the estimated lower bound for an algorithm whose messages are all simulated."""
    workers, rounds = experiment.workers, experiment.round_count
    elements = _elements(experiment) or UNKNOWN_ELEMENTS
    k = experiment.k_of(elements) if experiment.k is None else min(experiment.k, elements)
    of_a_round = _of_a_round(name, workers, elements, k)
    servers = experiment.servers if class_of(name).uses_server else 0
    messages = of_a_round.messages * max(1, servers)
    one_by_one = (
        watched
        or not experiment.timing_only
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
    else:  # a step that repeats is solved once
        seconds += rounds * of_a_round.exchanges * EXCHANGE_S
        seconds += messages / MESSAGES_PER_SECOND["batched"]
    return Estimate(messages, seconds, one_by_one)


@functools.lru_cache(maxsize=4096)
def _of_a_round(name: str, workers: int, elements: int, k: int) -> _Round:
    """Return the exchanges and messages of a round: counted, or extrapolated by a power law from two small layouts.

    Fewer workers get shorter vectors, whose chunks are as long, because chunks may be forwarded in slices.
    """
    if class_of(name).grouped:
        # Its groups take the network to find. Without groups it sends about as many messages.
        name = with_options("gtopk" if class_of(name).sparse else "dense", **settings_of(name))
    if workers <= 2 * SMALL:
        return _counted(name, workers, elements, k)
    sizes = [(small, max(1, elements * small // workers)) for small in (SMALL, 2 * SMALL)]
    one, two = (_counted(name, small, fewer, min(k, fewer)) for small, fewer in sizes)
    exchanges, messages = (
        larger * (workers / (2 * SMALL)) ** math.log2(larger / smaller) if smaller else larger
        for smaller, larger in zip(one[:2], two[:2], strict=True)
    )
    return _Round(exchanges, messages, two.has_schedule)


def _counted(name: str, workers: int, elements: int, k: int) -> _Round:
    small = Experiment(workers=workers, algorithms=(name,), timing_only=True, elements=elements, k=k)
    algorithm = small.algorithm(name, (elements,))
    recorder = SymmetryRecorder(RoleMap(workers, 0), AssumedCosts({}))
    try:
        run(recorder, Training(algorithm, TimingOnly(elements), small.recipe(name), 1))
    except NoScheduleError:
        return _Round(2.0, 2.0 * workers, has_schedule=False)  # to a server and back, or so
    parts = [part for step in recorder.steps for part in step]
    return _Round(sum(len(part.rounds) for part in parts), sum(part.messages for part in parts))


def _elements(experiment: Experiment) -> int | None:
    """Return the elements of a gradient; None for a user's own workload, which shows them when it runs."""
    if experiment.known_tensors():
        return sum(experiment.known_tensors())
    if experiment.workload in WORKLOADS:
        return sum(size for _, size in WORKLOADS[experiment.workload].tensors(experiment.data))
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
