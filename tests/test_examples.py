"""The examples in docstrings are run, and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = ("netsim", "netsim.api", "netsim.report.drawing", "netsim.report.page", "studies.fits")


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_say(module: str) -> None:
    outcome = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0, f"{module} has no example"
    assert outcome.failed == 0
