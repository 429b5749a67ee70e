"""What can be known of points before any of them is measured."""

from __future__ import annotations

from collections.abc import Sequence

from netsim.errors import unreadable
from netsim.experiment import Experiment
from netsim.study.kinds import Point


def checked(points: Sequence[Point]) -> list[Point]:
    """Return `points`, which hold options of ``netsim simulate``; raise UsageError for one that it would refuse."""
    for point in points:
        experiment_of(point)
    return list(points)


def experiment_of(point: Point) -> Experiment:
    """Return the experiment that a point's options are; raise UsageError, also for flows that cannot be read."""
    experiment = Experiment.of(**point)
    if (flows := experiment.effects.flows_file) is not None:
        try:
            flows.open("rb").close()
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL
            raise unreadable(f"background {str(flows)!r}", error) from None
    return experiment
