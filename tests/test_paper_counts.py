"""The bytes that a worker sends are those that the papers count, for every method."""

from __future__ import annotations

import pytest

from algorithms import BUILT_IN
from netsim.cli.paper_counts import COUNTS, ELEMENTS, ENTRIES, simulated


def test_every_method_has_a_count() -> None:
    assert set(COUNTS) == BUILT_IN


@pytest.mark.parametrize("workers", [4, 8, 16])
@pytest.mark.parametrize("name", COUNTS)
def test_a_worker_sends_what_the_paper_counts(name: str, workers: int) -> None:
    """k = 4,080 is a multiple of all P, and all P are powers of two, for which SparCML's paper counts."""
    expected = COUNTS[name].value(workers, ELEMENTS, ENTRIES)
    assert simulated(name, workers) == pytest.approx(expected, rel=1e-9)
