"""Inputs drawn from a seed, by the thousand: no traceback, no hang, no exit status that is not documented.

The seed is always the same here. ``python -m tests.fuzz --long`` tries a million, and ``--seed`` others.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz.battery import KINDS, tried
from tests.fuzz.law import Ran, of_ending

SECONDS = float(os.environ.get("NETSIM_FUZZ_SECONDS", "2"))
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


@pytest.mark.parametrize(
    ("ran", "what"),
    [
        (Ran(0, '{"time_s": 0.5}', ""), None),
        (Ran(2, "", "netsim: k 0 must be at least 1\n"), None),
        (Ran(0, '{"time_s": NaN}', ""), "json"),
        (Ran(0, '{"time_s": -0.5}', ""), "json"),
        (Ran(0, '{"rows": [{"loss": 1e999}]}', ""), "json"),
        (Ran(7, "", "netsim: k\n"), "exit"),
        (Ran(1, "", "Traceback (most recent call last):\nValueError: k\n"), "traceback"),
        (Ran(2, "", "netsim: k 0\nmust be more\n"), "message"),
        (Ran(2, "", ""), "message"),
        (Ran(2, "", "netsim: something is wrong\n"), "message"),
    ],
)
def test_the_law_notices_what_breaks_it(ran: Ran, what: str | None) -> None:
    fault = of_ending(ran, ["k"])
    assert (None if fault is None else fault.what) == what
