"""What the ranks of a job can be asked to do, by name."""

from __future__ import annotations

from importlib import import_module

from netsim.distributed.job import RankTask

TASKS = {
    "train": "netsim.distributed.rank_main:train_as_rank",
    "validate": "netsim.testbed.cells:measure_as_rank",
    "calibrate": "netsim.testbed.calibrate:measure_as_rank",
}
"""The function behind each name, as ``module:function``: rooms above this one may add tasks without being imported."""


def rank_task(name: str) -> RankTask:
    """Return the function that every rank of a job runs.

    Parameters
    ----------
    name
        A key of :data:`TASKS`.
    """
    module, _, function = TASKS[name].partition(":")
    task: RankTask = getattr(import_module(module), function)
    return task
