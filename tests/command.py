"""The command line called in this process."""

from __future__ import annotations

import shlex
from typing import NamedTuple

import pytest

from netsim.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], arguments: str) -> Ran:
    """Return the exit status of ``netsim arguments``, and what it printed."""
    code = main(shlex.split(arguments))
    captured = capsys.readouterr()
    return Ran(code, captured.out, captured.err)
