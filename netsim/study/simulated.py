"""The measurement that most studies make: one algorithm, simulated."""

from __future__ import annotations

from dataclasses import asdict

from netsim.experiment.configuration import Experiment
from netsim.simulator.session import open_session
from netsim.study.kinds import Outcome, Point


def simulate_point(point: Point) -> Outcome:
    """Return the result of the one algorithm that `point` names, which holds options of ``netsim simulate``.

    What every rank sent by itself is left out: at P = 65,536 it would be most of the file.
    """
    experiment = Experiment.of(**point)
    (name,) = experiment.algorithms
    with open_session(experiment) as lab:
        result = asdict(lab.simulate(name))
    del result["bytes_sent_by_rank"]
    return result
