"""The conclusion of an experiment: the fastest algorithm, its lead, and how the order changes with P.

To find where the order changes, one round of each algorithm is simulated at other numbers of workers P. These rounds
exchange sizes only and use the compute, select and merge times of the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

from algorithms import is_dense_sgd
from netsim._util.errors import InfeasibleError, or_why_not
from netsim._util.units import format_duration, format_factor, is_tie
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import LossTimes, Result
from netsim.report.text import listed
from netsim.simulator.rehearsal import rehearse
from netsim.simulator.session import Session
from netsim.training.loop import TimingOnly

LARGEST = 64
"""Largest P simulated for the conclusion; a ring of P workers takes 2P(P-1) messages."""
LARGEST_IN_BUCKETS = 32
"""The same limit with --overlap, where each bucket has messages of its own, unless the experiment has more workers."""
LARGEST_AT_ONCE = 1024
"""The same limit where the experiment itself has more workers and simulates all ranks of a round at once."""


class Scaling:
    """Round times of the algorithms at other numbers of workers, simulated on first use and then cached.

    Parameters
    ----------
    session
        The session of the experiment, whose tensors and costs are used.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rounds: dict[tuple[str, int], float] = {}

    def round_time(self, algorithm: str, workers: int) -> float:
        """Return the simulated seconds of one round of `algorithm`; the mean of several if rounds repeat only then."""
        key = (algorithm, workers)
        if key not in self._rounds:
            tensors, costs = self._session.tensors, self._session.costs
            experiment = replace(self._session.experiment, workers=workers, algorithms=(algorithm,))
            one_round = replace(experiment, timing_only=True, rounds=None, engine="auto")
            session = Session(one_round, TimingOnly(sum(tensors)), tensors, costs)
            self._rounds[key] = session.simulate(algorithm).round_time_s
        return self._rounds[key]

    def fastest(self, algorithms: Sequence[str], workers: int) -> tuple[str, ...]:
        """Return all algorithms with the shortest round; several if they take the same time, to within 1 %."""
        rounds = {algorithm: self.round_time(algorithm, workers) for algorithm in algorithms}
        return tuple(algorithm for algorithm, seconds in rounds.items() if is_tie(seconds, min(rounds.values())))

    def is_finite(self, algorithms: Sequence[str], workers: int) -> bool:
        """Return whether each algorithm ends its round with `workers` workers within the simulator's time limit."""
        try:
            self.fastest(algorithms, workers)
        except InfeasibleError:
            return False
        return True

    def crossovers(self, algorithms: Sequence[str], workers: Sequence[int]) -> list[tuple[int, tuple[str, ...]]]:
        """Return where the fastest algorithm changes.

        Parameters
        ----------
        algorithms
            The algorithms to compare.
        workers
            Increasing numbers of workers to simulate.

        Returns
        -------
        list of (int, tuple of str)
            (P, algorithms): from P workers on, `algorithms` are fastest. Between two neighbouring entries of `workers`
            with different winners, bisection finds the least P at which the later winner wins.
        """
        changes: list[tuple[int, tuple[str, ...]]] = []
        for before, now in zip((0, *workers), workers, strict=False):
            winner = self.fastest(algorithms, now)
            if not changes:
                changes.append((now, winner))
            elif winner != changes[-1][1]:
                changes.append((self._first_won(algorithms, winner, before, now), winner))
        return changes

    def _first_won(self, algorithms: Sequence[str], winner: tuple[str, ...], lost: int, won: int) -> int:
        while won - lost > 1:
            middle = (lost + won) // 2
            if self.fastest(algorithms, middle) == winner:
                won = middle
            else:
                lost = middle
        return won


def conclude(results: Sequence[Result], session: Session | None, time_to_loss: LossTimes | None = None) -> list[str]:
    """Return the conclusion in sentences.

    Parameters
    ----------
    results
        One result per algorithm.
    session
        The session that simulated them, for predictions at other numbers of workers; None for a real run.
    time_to_loss
        How long each algorithm took to a training loss that all reached, if that is known.
    """
    ranked = sorted(results, key=lambda result: result.round_time_s)
    # An algorithm that exchanged nothing so far does so in longer runs, so its rounds here are no example.
    exchanging = [result for result in ranked if result.uploads]
    compared = [result for result in ranked if result.uploads or not result.round_time_s]
    sentences = [*_fastest(compared or ranked), *_progress(results), *_to_loss(results, time_to_loss)]
    if session is not None and len(exchanging) > 1 and not session.experiment.effects.local:
        sentences += or_why_not("order at other numbers of workers", lambda: [_order(exchanging, session)])
    return sentences


def _fastest(ranked: Sequence[Result]) -> list[str]:
    """Return who is fastest among the algorithms that take time, and which of several take none."""
    workers = f"{ranked[0].workers} worker{'s' if ranked[0].workers != 1 else ''}"
    timed = [result for result in ranked if result.round_time_s > 0]
    if len(ranked) > 1 and not timed:
        return [f"With {workers} no algorithm takes any time: nothing is computed or sent."]
    if len(ranked) == 1 or len(timed) == len(ranked):
        return [_best(ranked, workers)]
    idle = listed([result.title for result in ranked[: len(ranked) - len(timed)]])
    return [_best(timed, workers), f"Nothing is computed or sent with {idle}, which therefore has no round time."]


def _best(ranked: Sequence[Result], workers: str) -> str:
    best = ranked[0]
    took = f"{format_duration(best.round_time_s)} (bottleneck: {best.bound_by})"
    if len(ranked) == 1:
        return f"A round of {best.title} with {workers} takes {took}."
    tied = _tied(ranked)
    if any(result.bound_by != best.bound_by for result in tied):
        took = format_duration(best.round_time_s)
    others = ", ".join(
        f"{result.title} takes {format_factor(result.round_time_s / best.round_time_s)} as long"
        for result in ranked[len(tied) :]
    )
    who = listed([result.title for result in tied])
    has = "have the shortest rounds, equal within 1%" if len(tied) > 1 else "has the shortest round"
    return f"With {workers} {who} {has}: {took}" + (f"; {others}." if others else ".")


def _tied(ranked: Sequence[Result]) -> list[Result]:
    """Return the results with the shortest round time, to within 1 %."""
    return [result for result in ranked if is_tie(result.round_time_s, ranked[0].round_time_s)]


def _progress(results: Sequence[Result]) -> list[str]:
    """Return what several algorithms have reached after their rounds; a short round alone is no progress."""
    trained = [(result.final_loss, result) for result in results if result.final_loss is not None]
    if len(results) < 2:
        return []
    if not trained:
        other = [result.title for result in results if not is_dense_sgd(result.algorithm)]
        if not other:
            return []
        unknown = f"Without data netsim cannot say how many rounds {listed(other)} need{'s' if len(other) == 1 else ''}"
        return [f"{unknown}; the time of a round is not the time to an accuracy."]
    rounds = trained[0][1].rounds
    reached = ", ".join(
        f"{result.title} {loss:.4f} in {format_duration(rounds * result.round_time_s)}"
        for loss, result in sorted(trained, key=lambda each: each[0])
    )
    return [f"Training loss after {rounds} round{'s' if rounds != 1 else ''} each, and their time: {reached}."]


def _to_loss(results: Sequence[Result], time_to_loss: LossTimes | None) -> list[str]:
    """Return how long each algorithm took to a loss that all reached, the fastest first."""
    if time_to_loss is None:
        return []
    seconds = time_to_loss.seconds
    ranked = sorted(results, key=lambda result: seconds[result.algorithm])
    times = ", ".join(f"{result.title} {format_duration(seconds[result.algorithm])}" for result in ranked)
    loss = f"{time_to_loss.loss:.4f}, the highest of the final losses"
    return [f"Simulated time until the training loss is {loss}: {times}."]


def _sizes(experiment: Experiment, largest: int) -> list[int]:
    """Return the powers of two from 2 to `largest`; a network with fewer hosts ends the list with its own number."""
    most = min(largest, len(experiment.graph(largest).hosts))
    return [2**power for power in range(1, most.bit_length())] + ([most] if most & (most - 1) else [])


def _order(ranked: Sequence[Result], session: Session) -> str:
    """Return a sentence on the fastest algorithm at other numbers of workers.

    The sentence rests on one round of sizes only. Algorithms that skip uploads do so in later rounds, so the first
    round may have another winner than the whole run. The sentence then says that no conclusion is possible.
    """
    rehearse(replace(session.experiment, timing_only=True, rounds=None, engine="auto"))  # own algorithms with sizes
    titles = {result.algorithm: result.title for result in ranked}
    workers, largest = ranked[0].workers, LARGEST
    if session.experiment.overlap is not None:
        largest = max(LARGEST_IN_BUCKETS, min(workers, LARGEST))
    if all(result.way in ("batched", "memoised") for result in ranked):
        largest = max(LARGEST, min(workers, LARGEST_AT_ONCE))
    scaling = Scaling(session)
    sizes = list(takewhile(partial(scaling.is_finite, list(titles)), _sizes(session.experiment, largest)))
    if len(sizes) < 2:
        return "This network has no room for another number of workers."
    if 2 <= workers <= sizes[-1]:
        sizes = sorted({*sizes, workers})
        here = scaling.fastest(list(titles), workers)
        if not set(here) & {result.algorithm for result in _tied(ranked)}:
            first_round = listed([titles[name] for name in here])
            return f"The first round alone is shortest with {first_round}; it does not predict the order at other P."
    crossovers = scaling.crossovers(list(titles), sizes)
    (_, always), *later = crossovers
    if not later:
        first = {result.algorithm for result in _tied([each for each in ranked if each.round_time_s > 0])}
        also, has = ("also " if first.issuperset(always) else "", "has") if len(always) == 1 else ("", "have")
        who = listed([titles[name] for name in always])
        rounds = "the shortest round" if len(always) == 1 else "the shortest rounds, equal within 1%,"
        others = [size for size in sizes if size != workers]
        return f"{who} {also}{has} {rounds} with P = {', '.join(map(str, others))} workers on this network."
    parts = [f"{_winners(titles, always)} at P = {sizes[0]}"]
    for since, names in later:
        before = max(size for size in sizes if size < since)
        after = min(size for size in sizes if size >= since)
        between = f" (computed between {before} and {after})" if since not in sizes else ""
        parts.append(f"{_winners(titles, names)} from P = {since}{between}")
    return f"Fastest: {'; '.join(parts)}."


def _winners(titles: Mapping[str, str], names: Sequence[str]) -> str:
    return listed([titles[name] for name in names]) + (" (tie)" if len(names) > 1 else "")
