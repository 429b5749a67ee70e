"""What docs/limits.md says that netsim does not do must stay true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from algorithms import ALGORITHMS, FEDERATED
from tests.command import run
from topologies import TOPOLOGIES

LIMITS = Path(__file__).parents[1] / "docs" / "limits.md"
needs_sources = pytest.mark.skipif(not LIMITS.exists(), reason="the tests run away from the sources, without docs")


@pytest.mark.parametrize("name", [*FEDERATED, "fed-avg", "Federated_Averaging"])
def test_federated_averaging_is_refused_in_one_sentence_that_says_what_there_is(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert name not in ALGORITHMS
    ran = run(capsys, f"simulate --algorithm {name}")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"netsim: [^\n]*no federated averaging; use local-sgd or diloco[^\n]*\n", ran.err)
    assert "samples no clients and weights all workers alike" in ran.err


@needs_sources
def test_what_the_page_of_limits_offers_instead_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Options, algorithms, topologies and pages."""
    text = LIMITS.read_text()
    options = set(re.findall(r"`(--[a-z-]+)", text))
    listed = set(re.findall(r"--[a-z-]+", run(capsys, "simulate --help").out))
    assert options <= listed
    assert set(re.findall(r"--topology ([a-z-]+)", text)) <= set(TOPOLOGIES)
    assert {"lag", "sasg", "local-sgd", "diloco"} <= set(ALGORITHMS)
    assert [page for page in re.findall(r"\]\(([\w-]+\.md)", text) if not (LIMITS.parent / page).exists()] == []
