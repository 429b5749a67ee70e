"""A new collective runs in memory, by both engines and over gloo from one definition."""

from __future__ import annotations


import pytest
import torch

import netsim
from tests.engines import results_of


def test_in_memory() -> None:
    vectors = torch.randn(5, 103)
    assert torch.allclose(netsim.exchange("dense-chain", vectors).aggregated, vectors.sum(0), atol=1e-5)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_both_engines_take_the_closed_form(workers: int) -> None:
    alpha, beta, elements = 50e-6, 32e-9, 8000
    tree = (workers.bit_length() - 1) * (alpha + elements * beta)
    chain = (workers - 2 + 8) * (alpha + elements / 8 * beta) if workers > 1 else 0
    for engine in ("event", "vectorized"):
        (result,) = results_of(engine, workers=workers, elements=elements, algorithm="dense-chain")
        assert result.round_time_s == pytest.approx(tree + chain, rel=1e-9)
    (one,), (other,) = (
        results_of(engine, workers=7, elements=103, algorithm="dense-chain") for engine in ("event", "auto")
    )
    assert one.round_time_s == pytest.approx(other.round_time_s, rel=1e-9)


@pytest.mark.real
def test_over_gloo() -> None:
    options = {"algorithm": "dense-chain", "rounds": 2, "workers": 3}
    (real,), (simulated,) = netsim.run(**options).results, netsim.simulate(**options).results
    assert real.parameters_sha256 == simulated.parameters_sha256
    assert real.value_bytes_up == simulated.value_bytes_up
