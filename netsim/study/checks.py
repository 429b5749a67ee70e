"""What can be known of points before any of them is measured."""

from __future__ import annotations

from collections.abc import Sequence

from netsim._util.errors import UsageError
from netsim._util.storage import content_of
from netsim.experiment.configuration import Experiment
from netsim.study.kinds import Point
from netsim.training.workloads import is_own


def checked(points: Sequence[Point]) -> list[Point]:
    """Return `points`, which hold options of ``netsim simulate``; raise UsageError for one that it would refuse."""
    experiments_of(points)
    return list(points)


def experiments_of(points: Sequence[Point]) -> list[Experiment]:
    """Return the experiments that the options of `points` are.

    Raises UsageError for options that ``netsim simulate`` would refuse, and InfeasibleError for a topology without
    room for the largest of its numbers of workers.
    """
    experiments = [_experiment_of(point) for point in points]
    largest = {each.topology: each for each in sorted(experiments, key=lambda each: each.workers)}
    for experiment in largest.values():
        experiment.check_room()
    return experiments


def check_no_code(point: Point) -> None:
    """Raise UsageError for a workload that is code: settings may come from a file, and files hold values only."""
    if is_own(str(point.get("workload", ""))):
        raise UsageError(f"workload {point['workload']!r} is code of your own, which a study does not run")


def _experiment_of(point: Point) -> Experiment:
    check_no_code(point)
    experiment = Experiment.of(**point)
    if (flows := experiment.effects.flows_file) is not None:
        content_of(flows, f"background {str(flows)!r}")
    return experiment
