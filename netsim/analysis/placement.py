"""Comparison of placements: the predicted round time of every algorithm under every assignment of ranks to hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from netsim._util.units import format_duration, format_factor, is_tie
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.report.text import listed
from netsim.simulator.estimates import check_experiment
from netsim.simulator.opening import open_session
from topologies.placement import PLACEMENTS


@dataclass(frozen=True, slots=True)
class Gain:
    """The round time of an algorithm, in seconds, by placement."""

    algorithm: str
    title: str
    round_time_s: dict[str, float]

    @property
    def best(self) -> str:
        """The placement with the shortest round; the first one among equals."""
        return min(self.round_time_s, key=lambda placement: self.round_time_s[placement])


def simulate_placements(experiment: Experiment) -> dict[str, list[Result]]:
    """Simulate every algorithm of `experiment` under every placement.

    Parameters
    ----------
    experiment
        What to simulate; its own placement is ignored.

    Returns
    -------
    dict
        By placement, the results of all algorithms.
    """
    check_experiment(experiment, times=len(PLACEMENTS))
    results: dict[str, list[Result]] = {}
    for placement in PLACEMENTS:
        with open_session(replace(experiment, placement=placement)) as session:
            results[placement] = [session.simulate(name) for name in experiment.algorithms]
    return results


def compare(results: Mapping[str, Sequence[Result]]) -> list[Gain]:
    """Return the round times of each algorithm by placement."""
    return [
        Gain(
            each[0].algorithm, each[0].title, dict(zip(results, (result.round_time_s for result in each), strict=True))
        )
        for each in zip(*results.values(), strict=True)
    ]


def in_words(gain: Gain) -> str:
    """Return a sentence on the effect of placement on an algorithm."""
    times = gain.round_time_s
    worst = max(times, key=lambda placement: times[placement])
    if is_tie(times[worst], times[gain.best]):
        return f"{gain.title}: placement makes no difference."
    compared = [
        f"{placement} takes {format_factor(times[placement] / times[gain.best])} as long"
        for placement in times
        if not is_tie(times[placement], times[gain.best])
    ]
    alike = [placement for placement in times if is_tie(times[placement], times[gain.best])]
    return f"{gain.title}: {listed(alike)} {'is' if len(alike) == 1 else 'are'} best, " + (
        f"{format_duration(times[gain.best])} a round; {', '.join(compared)}."
    )
