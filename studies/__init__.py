"""Studies: one file a study, saying what it varies and what it concludes.

To add one: a file with a ``STUDY``, a :class:`netsim.study.Study`, and a line below. It is imported when
it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from netsim._util.errors import check_choice

if TYPE_CHECKING:
    from netsim.study import Study

STUDIES = {
    "gtopk-paper": "studies.gtopk_paper",
    "sasg-paper": "studies.sasg_paper",
    "scaling": "studies.scaling",
    "sweep": "studies.sweep",
    "time-to-accuracy": "studies.time_to_accuracy",
}


def load_study(name: str) -> Study[Any]:
    """Return the study of that name. Raises UsageError for one that there is not."""
    check_choice("study", name, STUDIES)
    study: Study[Any] = import_module(STUDIES[name]).STUDY
    return study
