"""What the results say: who is fastest, by how much, and from how many workers the order changes.

For the last, the same algorithms are simulated with sizes only, at other numbers of workers, and with
the same charges for computing.
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
"""Workers up to which other sizes are looked at; a ring of P workers is 2P(P-1) messages."""
LARGEST_AT_ONCE = 1024
"""The same, where those asked for are more than that, and were simulated in rounds of all at once."""


class Scaling:
    """Round times of the algorithms at other numbers of workers, simulated when first asked for."""

    def __init__(self, laboratory: Session) -> None:
        self._laboratory = laboratory
        self._rounds: dict[tuple[str, int], float] = {}

    def round_time(self, algorithm: str, workers: int) -> float:
        """Return the seconds of one round of `algorithm` with so many workers."""
        key = (algorithm, workers)
        if key not in self._rounds:
            tensors, costs = self._laboratory.tensors, self._laboratory.costs
            experiment = self._laboratory.experiment
            one = replace(experiment, workers=workers, timing_only=True, rounds=1, way="auto")
            sizes = Session(one, TimingOnly(sum(tensors)), tensors, costs)
            self._rounds[key] = sizes.simulate(algorithm).round_time_s
        return self._rounds[key]

    def fastest(self, algorithms: Sequence[str], workers: int) -> tuple[str, ...]:
        """Return the fastest of the algorithms: several, where they take the same time."""
        rounds = {algorithm: self.round_time(algorithm, workers) for algorithm in algorithms}
        return tuple(algorithm for algorithm, seconds in rounds.items() if seconds == min(rounds.values()))

    def is_finite(self, algorithms: Sequence[str], workers: int) -> bool:
        """Return whether a round of each algorithm with so many workers ends before the horizon."""
        try:
            self.fastest(algorithms, workers)
        except InfeasibleError:
            return False
        return True

    def crossovers(self, algorithms: Sequence[str], workers: Sequence[int]) -> list[tuple[int, tuple[str, ...]]]:
        """Return (P, algorithms): who is fastest from which P on, along increasing `workers`.

        Between two of `workers` with different winners, the least P at which the later one wins is
        found by bisection.
        """
        found: list[tuple[int, tuple[str, ...]]] = []
        for before, now in zip((0, *workers), workers, strict=False):
            winner = self.fastest(algorithms, now)
            if not found:
                found.append((now, winner))
            elif winner != found[-1][1]:
                found.append((self._first_won(algorithms, winner, before, now), winner))
        return found

    def _first_won(self, algorithms: Sequence[str], winner: tuple[str, ...], lost: int, won: int) -> int:
        while won - lost > 1:
            middle = (lost + won) // 2
            if self.fastest(algorithms, middle) == winner:
                won = middle
            else:
                lost = middle
        return won


def conclude(results: Sequence[Result], laboratory: Session | None) -> list[str]:
    """Return the conclusion in sentences; without a laboratory nothing is said about other sizes."""
    ranked = sorted(results, key=lambda result: result.round_time_s)
    best = ranked[0]
    sentences = [_best(best, ranked)]
    if laboratory is not None and len(results) > 1 and not laboratory.experiment.effects.local:
        sentences.append(_order(ranked, laboratory))
    return sentences


def _best(best: Result, ranked: Sequence[Result]) -> str:
    took = f"{format_duration(best.round_time_s)} a round, bound by {best.bound_by}"
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
    """Return the fastest of the results, and all that are as fast."""
    return [result for result in ranked if result.round_time_s == ranked[0].round_time_s]


def _longer(ratio: float) -> str:
    """Return how long something takes that takes longer: never the ratio 1, which would mean as long."""
    return f"{100 * (ratio - 1):.2g}% longer" if f"{ratio:.3g}" == "1" else f"{ratio:.3g}× as long"


def _and(titles: Sequence[str]) -> str:
    return " and ".join([", ".join(titles[:-1]), titles[-1]]) if len(titles) > 1 else titles[0]


def _sizes(experiment: Experiment, largest: int) -> list[int]:
    """Return the numbers of workers to look at: powers of two, and all hosts where the network has fewer."""
    most = min(largest, len(experiment.graph(largest).hosts))
    return [2**power for power in range(1, most.bit_length())] + ([most] if most & (most - 1) else [])


def _order(ranked: Sequence[Result], laboratory: Session) -> str:
    """Say who is fastest at other numbers of workers, where one round of sizes alone orders these results, too.

    It may not: rules that skip uploads do so in later rounds.
    """
    titles = {result.algorithm: result.title for result in ranked}
    workers, largest = ranked[0].workers, LARGEST
    if all(result.way in ("batched", "memoised") for result in ranked):
        largest = max(LARGEST, min(workers, LARGEST_AT_ONCE))
    scaling = Scaling(laboratory)
    sizes = list(takewhile(partial(scaling.is_finite, list(titles)), _sizes(laboratory.experiment, largest)))
    if len(sizes) < 2:
        return "No other number of workers fits on this network."
    if 2 <= workers <= sizes[-1]:
        sizes = sorted({*sizes, workers})
        here = scaling.fastest(list(titles), workers)
        if set(here) != {result.algorithm for result in _tied(ranked)}:
            told = _and([titles[name] for name in here])
            return f"A first round, of sizes alone, is shortest with {told}, so it says nothing of other P."
    crossovers = scaling.crossovers(list(titles), sizes)
    first, *later = [(since, _and([titles[name] for name in names])) for since, names in crossovers]
    span = f"P = {', '.join(map(str, sizes))} on this network"
    if not later:
        return f"The fastest stays {first[1]} at {span}."
    changes = ", ".join(f"{title} from P = {since}" for since, title in later)
    return f"The order changes with P: {first[1]} is fastest at P = {sizes[0]}, {changes} (of {span})."
