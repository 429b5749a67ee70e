"""The measurement of most studies: the simulation of one algorithm."""

from __future__ import annotations

from dataclasses import asdict

from netsim.experiment.configuration import Experiment
from netsim.simulator.opening import open_session
from netsim.study_engine.kinds import Outcome, Point


def simulate_point(point: Point) -> Outcome:
    """Simulate one algorithm.

    Parameters
    ----------
    point
        Options of ``netsim simulate`` with one algorithm.

    Returns
    -------
    dict
        The attributes of :class:`~netsim.experiment.results.Result`, without ``bytes_sent_by_rank``: with 65,536 ranks
        it would be most of the stored file.
    """
    experiment = Experiment.of(**point)
    (name,) = experiment.algorithms
    with open_session(experiment) as session:
        result = asdict(session.simulate(name))
    del result["bytes_sent_by_rank"]
    return result
