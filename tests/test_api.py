"""netsim from Python: what comes back, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import numpy as np
import pytest
import torch

import netsim
from netsim.cli import main

SMALL: dict[str, Any] = {"timing_only": True, "elements": 1000, "workers": 4, "k": 10}
DENSE = ["dense", "dense-tree", "ps"]
SPARSE = ["topk", "gtopk"]


@pytest.fixture
def report() -> netsim.Report:
    return netsim.simulate(**SMALL, algorithm="dense,gtopk")


def test_results_are_read_by_attribute_and_by_key(report: netsim.Report) -> None:
    dense, gtopk = report.results
    assert (dense.algorithm, gtopk["algorithm"]) == ("dense", "gtopk")
    assert (dense.k, gtopk["k"]) == (None, 10)
    for result in report.results:
        assert result.workers == result["workers"] == 4
        assert result.round_time_s == result["round_time_s"] > 0
    for wrong in ("round_time", "__class__", "to_json"):
        with pytest.raises(KeyError, match=wrong):
            dense[wrong]


def test_json_dict_and_table_say_the_same(report: netsim.Report) -> None:
    parsed = json.loads(report.to_json())
    assert parsed == report.to_dict()
    assert parsed["schema"].startswith("netsim.report/")
    table = report.to_pandas()
    assert list(table["algorithm"]) == ["dense", "gtopk"]
    assert list(table.columns) == [name for name in parsed["results"][0] if name != "paper_accounting"]
    assert list(table["round_time_s"]) == [result["round_time_s"] for result in parsed["results"]]


def test_python_and_the_command_line_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """Also that a quantity may be text or a number in SI units, and algorithms a list or text."""
    arguments = "--workers 4 --bandwidth 25MB/s --latency 50us --algorithm ps,topk --gather doubling --compute-time 2ms"
    assert main(shlex.split(f"simulate --timing-only --elements 1000 --k 10 --json {arguments}")) == 0
    shown = capsys.readouterr().out
    options = SMALL | {"gather": "doubling"}
    as_text = {"bandwidth": "25MB/s", "latency": "50us", "algorithm": "ps,topk", "compute_time": "2ms"}
    as_numbers = {"bandwidth": 200e6, "latency": 50e-6, "algorithm": ["ps", "topk"], "compute_time": 0.002}
    assert netsim.simulate(**options, **as_text).to_json() == shown.rstrip("\n")
    assert netsim.simulate(**options, **as_numbers).to_json() == shown.rstrip("\n")


@pytest.mark.parametrize(("way", "steps"), [("messages", [0, 1, 2]), ("auto", [2])])
def test_progress_is_told_of_every_round_that_is_simulated(way: str, steps: list[int]) -> None:
    """Where a step is solved once, all rounds are over at once."""
    told: list[tuple[str, int]] = []
    netsim.simulate(
        **SMALL,
        algorithm="dense,gtopk",
        rounds=3,
        way=way,
        on_round=lambda algorithm, step: told.append((algorithm, step)),
    )
    assert told == [(algorithm, step) for algorithm in ("dense", "gtopk") for step in steps]


def test_density_rounds_down_but_not_to_nothing() -> None:
    """0.29 · 100 is 28.999999999999996 in binary and 29 to people."""
    selected = {density: _k_of(density, 100) for density in (0.29, 0.295, 0.001, 1.0)}
    assert selected == {0.29: 29, 0.295: 29, 0.001: 1, 1.0: 100}


def _k_of(density: float, elements: int) -> int | None:
    report = netsim.simulate(timing_only=True, elements=elements, workers=2, algorithm="topk", density=density)
    return report.results[0].k


def test_the_package_lists_what_it_has() -> None:
    assert {"simulate", "run", "exchange", "UsageError", "NetsimError", "Report", "__version__"} <= set(dir(netsim))
    for name in dir(netsim):
        assert getattr(netsim, name) is not None
    with pytest.raises(AttributeError, match="simulat"):
        _ = netsim.simulat


TWO = np.array([[5, 0, 3, 1], [0, 4, -2, 1]], np.float32)
"""With k = 2 the ranks select {0: 5, 2: 3} and {1: 4, 2: -2}, whose sum is {0: 5, 1: 4, 2: 1}."""


@pytest.mark.parametrize(
    ("algorithm", "options", "aggregated", "residuals"),
    [
        ("topk", {}, [5, 4, 1, 0], [[0, 0, 0, 1], [0, 0, 0, 1]]),
        ("topk", {"gather": "doubling"}, [5, 4, 1, 0], [[0, 0, 0, 1], [0, 0, 0, 1]]),
        ("gtopk", {}, [5, 4, 0, 0], [[0, 0, 1, 1], [0, 0, 0, 1]]),
        ("gtopk", {"residual": "index-intersection"}, [5, 4, 0, 0], [[0, 0, 3, 1], [0, 0, -2, 1]]),
    ],
)
def test_an_exchange_worked_by_hand(
    algorithm: str, options: dict[str, str], aggregated: list[int], residuals: list[list[int]]
) -> None:
    done = netsim.exchange(algorithm, TWO, k=2, **options)
    assert done.aggregated.tolist() == aggregated
    assert done.residuals.tolist() == residuals
    assert done.bytes_sent == done.bytes_received == [16, 16]


@pytest.mark.parametrize("algorithm", DENSE)
def test_dense_exchanges_hold_nothing_back(algorithm: str) -> None:
    aggregated, residuals, sent, received = netsim.exchange(algorithm, TWO)
    assert aggregated.tolist() == [5, 4, 1, 2]
    assert residuals.tolist() == [[0] * 4] * 2
    # Whatever the algorithm, of two ranks each sends the other 4 values of 4 bytes.
    assert sent == received == [16, 16]


def test_bytes_of_a_tree_of_four() -> None:
    """Up go 1→0, 3→2 and then 2→0, down 0→2 and then 0→1 and 2→3: three values and three indices each."""
    done = netsim.exchange("gtopk", np.eye(4, 12, dtype=np.float32) + 1, k=3)
    assert done.bytes_sent == [48, 24, 48, 24]
    assert done.bytes_received == [48, 24, 48, 24]


@pytest.mark.parametrize(
    "vectors",
    [
        torch.from_numpy(TWO),
        torch.from_numpy(TWO).double(),
        torch.from_numpy(TWO).requires_grad_(),
        TWO.astype(np.float64),
        np.asfortranarray(TWO),
        np.repeat(TWO, 2, axis=1)[:, ::2],
        TWO[::-1].copy()[::-1],
        np.broadcast_to(TWO, (1, 2, 4))[0],
    ],
    ids=["torch", "double", "grad", "float64", "fortran", "strided", "reversed", "read-only"],
)
def test_vectors_of_any_kind_and_layout(vectors: torch.Tensor | np.ndarray) -> None:
    done = netsim.exchange("gtopk", vectors, k=2)
    assert done.aggregated.tolist() == [5, 4, 0, 0]
    assert done.residuals.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    assert not done.aggregated.requires_grad


@pytest.mark.parametrize("algorithm", [*DENSE, *SPARSE])
def test_one_rank_exchanges_nothing(algorithm: str) -> None:
    done = netsim.exchange(algorithm, TWO[:1], k=2)
    assert (done.bytes_sent, done.bytes_received) == ([0], [0])
    assert (done.aggregated + done.residuals[0]).tolist() == [5, 0, 3, 1]


def with_value(value: float) -> np.ndarray:
    vectors = TWO.copy()
    vectors[1, 2] = value
    return vectors


@pytest.mark.parametrize(
    ("algorithm", "vectors", "options", "said"),
    [
        ("gtopk", TWO, {}, "gtopk needs k"),
        ("topk", TWO, {}, "topk needs k"),
        ("gtopk", TWO, {"k": 5}, "k 5 is more than the 4 elements"),
        ("gtopk", TWO, {"k": 0}, "k 0 must be a whole number of at least 1"),
        ("gtopk", TWO, {"k": 2.0}, "k 2.0 must be a whole number"),
        ("gtopk", TWO, {"k": True}, "k True must be a whole number"),
        ("gtopkk", TWO, {"k": 2}, "unknown algorithm 'gtopkk' (did you mean 'gtopk'?)"),
        ("gtopk", TWO, {"k": 2, "residul": "keep-at-merge"}, "did you mean 'residual'?"),
        ("gtopk", TWO, {"k": 2, "gather": "ring"}, "'gather'"),
        ("topk", TWO, {"k": 2, "residual": "keep-at-merge"}, "'residual'"),
        ("dense", TWO, {"gather": "ring"}, "'gather'"),
        ("gtopk", TWO, {"k": 2, "residual": "keep-at-merg"}, "did you mean 'keep-at-merge'?"),
        ("topk", TWO, {"k": 2, "gather": "doublng"}, "did you mean 'doubling'?"),
        ("dense", with_value(float("nan")), {}, "NaN or infinity"),
        ("gtopk", with_value(float("-inf")), {"k": 2}, "NaN or infinity"),
        ("dense", TWO[0], {}, "shape (4,)"),
        ("dense", TWO[None], {}, "shape (1, 2, 4)"),
        ("dense", TWO[:0], {}, "shape (0, 4)"),
        ("dense", TWO[:, :0], {}, "shape (2, 0)"),
        ("dense", TWO.astype(np.int32), {}, "must be floating-point"),
        ("dense", TWO.astype(np.complex64), {}, "must be floating-point"),
        ("dense", "vectors", {}, "vectors"),
        ("dense", [[1.0, 2.0], [3.0]], {}, "vectors"),
    ],
)
def test_exchanges_that_are_refused(algorithm: str, vectors: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(netsim.UsageError, match=re.escape(said)):
        netsim.exchange(algorithm, vectors, **options)
