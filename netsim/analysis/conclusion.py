"""The conclusion of an experiment: the fastest algorithm, its lead, and how the order changes with P.

To find where the order changes, one round of each algorithm is simulated at other numbers of workers P. These rounds
exchange sizes only and use the compute, select and merge times of the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

from netsim._util.errors import InfeasibleError
from netsim._util.units import format_duration
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.simulator.session import Session
from netsim.training.loop import TimingOnly

LARGEST = 64
"""Largest P simulated for the conclusion; a ring of P workers takes 2P(P-1) messages."""
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
        """Return the simulated seconds of one round of `algorithm` with `workers` workers."""
        key = (algorithm, workers)
        if key not in self._rounds:
            tensors, costs = self._session.tensors, self._session.costs
            one_round = replace(self._session.experiment, workers=workers, timing_only=True, rounds=1, engine="auto")
            session = Session(one_round, TimingOnly(sum(tensors)), tensors, costs)
            self._rounds[key] = session.simulate(algorithm).round_time_s
        return self._rounds[key]

    def fastest(self, algorithms: Sequence[str], workers: int) -> tuple[str, ...]:
        """Return all algorithms with the shortest round; several if they take the same time."""
        rounds = {algorithm: self.round_time(algorithm, workers) for algorithm in algorithms}
        return tuple(algorithm for algorithm, seconds in rounds.items() if seconds == min(rounds.values()))

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


def conclude(results: Sequence[Result], session: Session | None) -> list[str]:
    """Return the conclusion in sentences.

    Parameters
    ----------
    results
        One result per algorithm.
    session
        The session that simulated them, for predictions at other numbers of workers; None for a real run.
    """
    ranked = sorted(results, key=lambda result: result.round_time_s)
    best = ranked[0]
    sentences = [_best(best, ranked)]
    if session is not None and len(results) > 1 and not session.experiment.effects.local:
        sentences.append(_order(ranked, session))
    return sentences


def _best(best: Result, ranked: Sequence[Result]) -> str:
    took = f"{format_duration(best.round_time_s)} a round (bottleneck: {best.bound_by})"
    workers = f"{best.workers} worker{'s' if best.workers != 1 else ''}"
    if len(ranked) == 1:
        return f"{best.title} with {workers} takes {took}."
    if best.round_time_s == 0:
        return f"With {workers} no algorithm takes any time: nothing is computed or sent."
    tied = _tied(ranked)
    if any(result.bound_by != best.bound_by for result in tied):
        took = f"{format_duration(best.round_time_s)} a round"
    others = ", ".join(
        f"{result.title} takes {_longer(result.round_time_s / best.round_time_s)}" for result in ranked[len(tied) :]
    )
    who = f"{_and([result.title for result in tied])} {'are' if len(tied) > 1 else 'is'}"
    return f"With {workers} {who} fastest: {took}" + (f"; {others}." if others else ".")


def _tied(ranked: Sequence[Result]) -> list[Result]:
    """Return the results with the shortest round time."""
    return [result for result in ranked if result.round_time_s == ranked[0].round_time_s]


def _longer(ratio: float) -> str:
    """Return a ratio above 1 in words: as a percentage where rounding would turn the ratio into 1."""
    return f"{100 * (ratio - 1):.2g}% longer" if f"{ratio:.3g}" == "1" else f"{ratio:.3g}× as long"


def _and(titles: Sequence[str]) -> str:
    return " and ".join([", ".join(titles[:-1]), titles[-1]]) if len(titles) > 1 else titles[0]


def _sizes(experiment: Experiment, largest: int) -> list[int]:
    """Return the powers of two from 2 to `largest`; a network with fewer hosts ends the list with its own number."""
    most = min(largest, len(experiment.graph(largest).hosts))
    return [2**power for power in range(1, most.bit_length())] + ([most] if most & (most - 1) else [])


def _order(ranked: Sequence[Result], session: Session) -> str:
    """Return a sentence on the fastest algorithm at other numbers of workers.

    The sentence rests on one round of sizes only. Algorithms that skip uploads do so in later rounds, so the first
    round may have another winner than the whole run. The sentence then says that no conclusion is possible.
    """
    titles = {result.algorithm: result.title for result in ranked}
    workers, largest = ranked[0].workers, LARGEST
    if all(result.way in ("batched", "memoised") for result in ranked):
        largest = max(LARGEST, min(workers, LARGEST_AT_ONCE))
    scaling = Scaling(session)
    sizes = list(takewhile(partial(scaling.is_finite, list(titles)), _sizes(session.experiment, largest)))
    if len(sizes) < 2:
        return "This network has no room for another number of workers."
    if 2 <= workers <= sizes[-1]:
        sizes = sorted({*sizes, workers})
        here = scaling.fastest(list(titles), workers)
        if set(here) != {result.algorithm for result in _tied(ranked)}:
            first_round = _and([titles[name] for name in here])
            return f"The first round alone is shortest with {first_round}; it does not predict the order at other P."
    crossovers = scaling.crossovers(list(titles), sizes)
    first, *later = [(since, _and([titles[name] for name in names])) for since, names in crossovers]
    span = f"P = {', '.join(map(str, sizes))} on this network"
    if not later:
        return f"The fastest stays {first[1]} at {span}."
    changes = ", ".join(f"{title} from P = {since}" for since, title in later)
    return f"The order changes with P: {first[1]} is fastest at P = {sizes[0]}, {changes} (of {span})."
