"""The measurement of studies that train: one algorithm on real data, with its curves over the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from netsim._util.errors import UsageError
from netsim.experiment.configuration import Experiment
from netsim.simulator.opening import open_session
from netsim.study_engine.kinds import Outcome, Point

COUNTED = ("uploads", "value_bits_up", "index_bits_up", "bits_down")
EVERY_STEP = ("time_s", "uploads", "delta", "leak")
JUDGED = ("step", "time_s", *COUNTED, "test_loss", "test_accuracy")


def train_point(point: Point) -> Outcome:
    """Train with one algorithm.

    Parameters
    ----------
    point
        Options of ``netsim simulate`` with one algorithm. Compute, select and merge times must be given, because
        measured times differ from run to run.

    Returns
    -------
    dict
        The attributes of :class:`~netsim.experiment.results.Result`. ``curve`` holds counters and test metrics at each
        evaluation, and ``steps`` the metrics of each step.

    Raises
    ------
    UsageError
        If a compute, select or merge time is missing.
    """
    experiment = Experiment.of(**point)
    if len(experiment.assumed_costs()) < 4:
        raise UsageError("compute, select and merge time must all be given to a study: measured times would vary")
    (name,) = experiment.algorithms
    rows: list[dict[str, Any]] = []
    with open_session(experiment) as session:
        result = asdict(session.simulate(name, emit=rows.append, gradient_norm=False))
    del result["bytes_sent_by_rank"]
    return result | {"curve": curve(rows), "steps": {key: [row[key] for row in rows] for key in EVERY_STEP}}


def curve(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return one list per quantity over the steps with a test evaluation; counters are summed from the start."""
    points: dict[str, list[Any]] = {key: [] for key in JUDGED}
    counted = dict.fromkeys(COUNTED, 0)
    for row in rows:
        counted = {key: counted[key] + row[key] for key in COUNTED}
        if row["test_accuracy"] is not None:
            for key in JUDGED:
                points[key].append(counted.get(key, row[key]))
    return points
