"""Inputs drawn from a seed, by the thousand: no traceback, no hang, no exit status that is not documented.

The seed is always the same here. ``python -m tests.fuzz --long`` tries a million, and ``--seed`` others.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz.battery import KINDS, tried

SECONDS = float(os.environ.get("NETSIM_FUZZ_SECONDS", "60"))
"""Of each kind at most; more of it needs a number of inputs that is larger, too: NETSIM_FUZZ_TIMES."""
TIMES = float(os.environ.get("NETSIM_FUZZ_TIMES", "1"))
SEED = int(os.environ.get("NETSIM_FUZZ_SEED", "0"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_breaks_the_law(kind: str) -> None:
    tally = tried(kind, SEED, 0, round(KINDS[kind].quick * TIMES), SECONDS)
    told = [f"{name}\n    {said}" for name, said in tally.faults.items()]
    assert not told, "\n".join(told)
    assert tally.inputs > 0
