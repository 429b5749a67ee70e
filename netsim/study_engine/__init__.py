"""The engine of studies: many measurements over a grid of settings, and one conclusion from all of them.

A :class:`Study` defines the points to measure, how to measure a point, and how to conclude. :func:`run_study` measures
the points on the cores of this machine or on a Dask cluster. :func:`run_shard` measures one part of them, as one of
many jobs. Each measured point is stored in a separate file, so an interrupted study resumes where it stopped. The
report and the conclusion are written into the same folder.
"""

from netsim.study_engine.kinds import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study_engine.runner import Plan, Ran, RanShard, plan_study, run_shard, run_study
from netsim.study_engine.shards import Shard

__all__ = [
    "Conclusion",
    "Finding",
    "Outcome",
    "Plan",
    "Point",
    "Ran",
    "RanShard",
    "Settings",
    "Shard",
    "Study",
    "plan_study",
    "run_shard",
    "run_study",
]
