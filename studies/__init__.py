"""Studies: one file per study, with the points it measures and the conclusion it draws.

To add a study, write a file that defines ``STUDY``, a :class:`netsim.study_engine.Study`, and add a line to
:data:`STUDIES`. A study is imported when it is loaded by name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from netsim._util.errors import check_choice

if TYPE_CHECKING:
    from netsim.study_engine import Study

STUDIES = {
    "gtopk-paper": "studies.gtopk_paper",
    "methods": "studies.methods",
    "published": "studies.published",
    "sasg-paper": "studies.sasg_paper",
    "scaling": "studies.scaling",
    "sweep": "studies.sweep",
    "time-to-accuracy": "studies.time_to_accuracy",
    "utilisation": "studies.utilisation",
}


def load_study(name: str) -> Study[Any]:
    """Return the study of that name; raise UsageError for an unknown name."""
    check_choice("study", name, STUDIES)
    study: Study[Any] = import_module(STUDIES[name]).STUDY
    return study
