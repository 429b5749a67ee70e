"""Studies: many simulated points, kept one by one, and what they say together.

:class:`Study` says what varies and what is concluded; :func:`run_study` measures the points that are not yet kept,
on the cores of this machine or on a Dask cluster, and writes what follows from them into one folder.
"""

from netsim.study.kinds import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study.runner import Plan, Ran, plan_study, run_study

__all__ = [
    "Conclusion",
    "Finding",
    "Outcome",
    "Plan",
    "Point",
    "Ran",
    "Settings",
    "Study",
    "plan_study",
    "run_study",
]
