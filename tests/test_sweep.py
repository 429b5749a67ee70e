"""Sweeps from Python: a row for each combination, the numbers of single simulations, and points stored by content."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netsim
from algorithms.dense_tree import DenseTree
from netsim.study_engine import sweep as sweeps

SIZES: dict[str, Any] = {"timing_only": True, "elements": 10_000}
OWN = """
from algorithms.dense_tree import DenseTree

class Own(DenseTree):
    title = "own"
"""


def test_a_row_for_each_combination_with_the_numbers_of_single_simulations() -> None:
    axes = {"workers": [2, 5], "bandwidth": ["1Gbps", 10e9], "algorithm": ["gtopk", "dense"]}
    table = netsim.sweep(**axes, **SIZES, k=10)
    assert list(zip(table["workers"], table["bandwidth"], table["algorithm"], strict=True)) == list(
        itertools.product(*axes.values())
    )
    for row in table.to_dict("records"):
        options = {name: row[name] for name in axes}
        (result,) = netsim.simulate(**options, **SIZES, k=10).results
        assert row["round_time_s"] == result.round_time_s
        assert row["title"] == result.title
    assert list(table.columns[:3]) == list(axes)
    assert "bytes_sent_by_rank" not in table


@pytest.mark.parametrize("axis", [range(2, 5), np.arange(2, 5), [2, np.int64(3), 4]])
def test_ranges_and_arrays_are_axes_and_a_tuple_is_one_value(axis: Any) -> None:
    table = netsim.sweep(workers=axis, algorithm="dense", **SIZES)
    assert table["workers"].tolist() == [2, 3, 4]
    assert sweeps.axes_of({"lr_decay_at": (1, 2)})["lr_decay_at"] == [(1, 2)]


def test_algorithms_are_always_an_axis() -> None:
    assert netsim.sweep(algorithm="dense,gtopk:residual=index-intersection", **SIZES)["algorithm"].tolist() == [
        "dense",
        "gtopk:residual=index-intersection",
    ]
    assert len(netsim.sweep(**SIZES)) == len(netsim.simulate(**SIZES).results)


def test_results_are_stored_by_content_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)
    asked: list[Any] = []
    simulate = sweeps.simulate_point

    def counted(point: Any) -> Any:
        asked.append(point)
        return simulate(point)

    counted.__module__, counted.__qualname__ = simulate.__module__, simulate.__qualname__
    monkeypatch.setattr(sweeps, "simulate_point", counted)

    def swept(**options: Any) -> Any:
        asked.clear()
        return netsim.sweep(**SIZES, cache=tmp_path / "cache", **options)

    first = swept(workers=[2, 4], algorithm=["dense", f"{own}:Own"])
    assert len(asked) == 4
    again = swept(workers=[4, 2, 8], algorithm=["dense", f"{own}:Own"])
    assert sorted(point["workers"] for point in asked) == [8, 8]
    assert first["round_time_s"].tolist()[:2] == again["round_time_s"].tolist()[2:4]
    own.write_text(OWN + "# another\n")
    swept(workers=[2, 4], algorithm=["dense", f"{own}:Own"])
    assert [point["algorithm"] for point in asked] == [f"{own}:Own"] * 2
    for damaged in (tmp_path / "cache").glob("*.json"):
        damaged.write_text("{}")
    swept(workers=[2], algorithm="dense")
    assert len(asked) == 1


@pytest.mark.slow
def test_several_processes_give_the_same_table() -> None:
    one, two = (netsim.sweep(workers=[2, 3], algorithm=["dense", "gtopk"], jobs=jobs, **SIZES) for jobs in (1, 2))
    assert one.to_json() == two.to_json()


class Own(DenseTree):
    """An algorithm of this test, with an option."""

    title = "own"

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor


def test_classes_and_objects_are_values_of_an_axis(tmp_path: Path) -> None:
    table = netsim.sweep(algorithm=[Own, Own(factor=2), "topk"], workers=[2, 4], **SIZES)
    assert table["title"].tolist()[::2] == ["own", "own (factor 2)", "Top-k"]
    with pytest.raises(netsim.UsageError, match=r"cannot be cached.*FILE\.py:NAME"):
        netsim.sweep(algorithm=[Own], cache=tmp_path, **SIZES)


def test_errors_name_the_point(tmp_path: Path) -> None:
    with pytest.raises(netsim.UsageError, match=r"^point workers 4, density 7: density 7 must be"):
        netsim.sweep(workers=[4, 8], density=[0.1, 7], algorithm="gtopk", **SIZES)
    with pytest.raises(netsim.NetsimError, match=r"workers 5.*2 hosts"):
        netsim.sweep(workers=[2, 5], topology="fat-tree:k=2", algorithm="dense", **SIZES)
    with pytest.raises(netsim.UsageError, match=r"workers .* has no values"):
        netsim.sweep(workers=[], **SIZES)
    with pytest.raises(
        netsim.UsageError, match=r"algorithm \('gtopk', 'dense'\) must be the name, class or object of one"
    ):
        netsim.sweep(algorithm=[("gtopk", "dense")], **SIZES)
    with pytest.raises(netsim.UsageError, match="too large"):
        netsim.sweep(workers=range(1, 1001), seed=range(1000), **SIZES)
    (tmp_path / "file").touch()
    with pytest.raises(netsim.UsageError, match="cache"):
        netsim.sweep(cache=tmp_path / "file", workers=[2], **SIZES)
    with pytest.raises(netsim.UsageError, match="on_point"):
        netsim.sweep(on_point=3, workers=[2], **SIZES)  # type: ignore[arg-type]


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    netsim.sweep(workers=[2, 3], algorithm="dense", on_point=lambda known, of: told.append((known, of)), **SIZES)
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_an_option_without_effect_at_any_point_is_warned_of() -> None:
    """Not one that some points use: the dense algorithm selects nothing."""
    options: dict[str, Any] = {"timing_only": True, "elements": 1000, "workers": [2, 3], "density": 0.01}
    with pytest.warns(UserWarning, match="--fan-out 3 changed nothing") as caught:
        netsim.sweep(**options, algorithm=["dense", "gtopk"], fan_out=3)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"--density 0\.01 changed nothing"):
        netsim.sweep(**options, algorithm="dense")
