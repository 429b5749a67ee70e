"""What can be known of points before any of them is measured."""

from __future__ import annotations

from collections.abc import Sequence

from netsim.errors import UsageError, unreadable
from netsim.experiment import Experiment
from netsim.study.kinds import Point
from netsim.workloads import is_own


def checked(points: Sequence[Point]) -> list[Point]:
    """Return `points`, which hold options of ``netsim simulate``; raise UsageError for one that it would refuse.

    Of each topology the largest number of workers must have room.
    """
    largest: dict[str, Experiment] = {}
    for experiment in map(experiment_of, points):
        known = largest.setdefault(experiment.topology, experiment)
        if experiment.workers > known.workers:
            largest[experiment.topology] = experiment
    for experiment in largest.values():
        experiment.check_room()
    return list(points)


def experiment_of(point: Point) -> Experiment:
    """Return the experiment that a point's options are; raise UsageError, also for flows that cannot be read.

    Code of the user's own is refused: settings may come from a file, and files hold values only.
    """
    if is_own(str(point.get("workload", ""))):
        raise UsageError(f"workload {point['workload']!r} is code of your own, which a study does not run")
    experiment = Experiment.of(**point)
    if (flows := experiment.effects.flows_file) is not None:
        try:
            flows.open("rb").close()
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL
            raise unreadable(f"background {str(flows)!r}", error) from None
    return experiment
