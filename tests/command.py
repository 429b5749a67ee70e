"""The command line called in this process."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

import pytest

from netsim.cli.main import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], arguments: str) -> Ran:
    """Return the exit status of ``netsim arguments``, and what it printed."""
    code = main(shlex.split(arguments))
    captured = capsys.readouterr()
    return Ran(code, captured.out, captured.err)


def without_announcements(stderr: str) -> str:
    """Return what was said on stderr, less what only a slow machine is told: how far it is, and how long it takes."""
    return re.sub(r"^netsim: [^\n]*(?:so far|to go|numbers of workers)\n", "", stderr, flags=re.MULTILINE)
