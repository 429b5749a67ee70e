"""A process of a user who may do little: root may read and write whatever there is."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NOBODY = 65534
PR_CAPBSET_DROP = 24
LAST_CAPABILITY = 63


def _nobody_may_run_python() -> bool:
    """Return whether others may enter every folder that Python and netsim lie in."""
    places = {Path(sys.executable), Path(sys.executable).resolve(), Path(__file__).resolve(), Path(os.__file__)}
    return all(folder.stat().st_mode & 0o001 for place in places for folder in place.parents)


USER = os.getuid() if os.getuid() != 0 else NOBODY if _nobody_may_run_python() else 0
"""Whom such a process runs as: root without any privilege, where nobody else may run Python."""


def _demote() -> None:
    if os.getuid() != 0:
        return
    if USER == 0:
        for capability in range(LAST_CAPABILITY):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    else:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)


def run_unprivileged(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as :data:`USER`."""
    return subprocess.run(command, text=True, check=False, preexec_fn=_demote, **options)
