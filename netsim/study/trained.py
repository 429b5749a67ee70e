"""The measurement of studies that train: one algorithm on real data, with what it reached along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from netsim._util.errors import UsageError
from netsim.experiment.configuration import Experiment
from netsim.simulator.session import open_session
from netsim.study.kinds import Outcome, Point

COUNTED = ("uploads", "value_bits_up", "index_bits_up", "bits_down")
EVERY_STEP = ("time_s", "uploads", "delta", "leak")
JUDGED = ("step", "time_s", *COUNTED, "test_loss", "test_accuracy")


def train_point(point: Point) -> Outcome:
    """Return the result of the one algorithm that `point` names, its curves, and what every step says.

    ``curve`` holds, at every evaluation, what was counted until then and what the test set says; ``steps`` what
    each step says by itself. Computing must be charged, not measured: measured times differ from run to run.
    """
    experiment = Experiment.of(**point)
    if len(experiment.assumed_costs()) < 4:
        raise UsageError("compute, select and merge time must all be given to a study: measured times would vary")
    (name,) = experiment.algorithms
    rows: list[dict[str, Any]] = []
    with open_session(experiment) as lab:
        result = asdict(lab.simulate(name, emit=rows.append))
    del result["bytes_sent_by_rank"]
    return result | {"curve": curve(rows), "steps": {key: [row[key] for row in rows] for key in EVERY_STEP}}


def curve(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return, for the steps that were judged on the test set, a list a quantity; counts are those until then."""
    found: dict[str, list[Any]] = {key: [] for key in JUDGED}
    counted = dict.fromkeys(COUNTED, 0)
    for row in rows:
        counted = {key: counted[key] + row[key] for key in COUNTED}
        if row["test_accuracy"] is not None:
            for key in JUDGED:
                found[key].append(counted.get(key, row[key]))
    return found
