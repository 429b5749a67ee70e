"""Checks of all points of a study before the first one is measured."""

from __future__ import annotations

from collections.abc import Sequence

import topologies
from algorithms import name_of
from netsim._util.errors import UsageError
from netsim._util.options import several
from netsim._util.storage import content_of
from netsim.experiment.configuration import Experiment
from netsim.study_engine.kinds import Point
from netsim.training.workloads import is_own


def checked(points: Sequence[Point]) -> list[Point]:
    """Return `points` of options of ``netsim simulate``; raise UsageError for options that it refuses."""
    experiments_of(points)
    return list(points)


def experiments_of(points: Sequence[Point]) -> list[Experiment]:
    """Return one experiment per point.

    Raises
    ------
    UsageError
        For options that ``netsim simulate`` refuses.
    InfeasibleError
        For a topology with fewer hosts than its largest number of workers.
    """
    experiments = [_experiment_of(point) for point in points]
    by_workers = sorted(experiments, key=lambda experiment: experiment.workers)
    largest = {experiment.topology: experiment for experiment in by_workers}
    for experiment in largest.values():
        experiment.check_room()
    return experiments


def check_no_code(point: Point) -> None:
    """Raise UsageError for user code: settings may come from a file, and a file must run no code."""
    for option in ("algorithm", "topology", "workload"):
        for text in several(str(point.get(option, ""))):
            if names_code(option, text):
                raise UsageError(
                    f"{option} {text!r} is your own code, which a study does not run; name a built-in {option}"
                )


def names_code(option: str, text: str) -> bool:
    """Return whether the value of an option names a user's own code."""
    if option == "algorithm":
        return ":" in name_of(text)
    return is_own(text) if option == "workload" else topologies.is_own(text)


def _experiment_of(point: Point) -> Experiment:
    check_no_code(point)
    experiment = Experiment.of(**point)
    if (flows := experiment.effects.flows_file) is not None:
        content_of(flows, f"background {str(flows)!r}")
    return experiment
