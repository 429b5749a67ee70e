"""The ablation of the testbed's host model: what leaving a term out does, and which terms stay."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from netsim.cluster.plan import Cluster
from netsim.testbed.campaign import model_of
from netsim.testbed.cells import Cell
from netsim.testbed.host_model import HostTerms
from netsim.testbed.p2p_measurements import P2PMeasurements

ablation: Any = pytest.importorskip("benchmarks.ablation", reason="the benchmarks are in the checkout only")

CLUSTER = Cluster(ranks=4, bandwidth_bps=100_000_000)
MEASURED = P2PMeasurements(
    idle_small_s=6e-4,
    idle_large_s=0.0522,
    warm_small_s=2e-4,
    concurrent_small_s=3e-4,
    concurrent_header_s=5e-4,
    large_bytes=625_000,
    ranks=4,
    start_delay_s=0.02,
    merge_s=1e-4,
)
CELLS = [
    Cell(name=name, bytes=size, sends="eager", repeats=1)
    for name in ("ring-all-reduce", "gtopk-tree", "ps-in", "all-gather")
    for size in (10_000, 200_000)
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in which every exchange took just what the full model predicts."""
    model = model_of(CLUSTER, 2)
    cells = []
    for cell in CELLS:
        seconds, _ = model.predicted(cell, MEASURED, {})
        cells.append({"cell": asdict(cell), "times": [max(seconds)], "points": MEASURED.cpu_speed_json()})
    record = {"network": "any", "points": MEASURED.as_json(), "cores": 2, "cells": cells, "cluster": asdict(CLUSTER)}
    (tmp_path / "piece" / "points").mkdir(parents=True)
    (tmp_path / "piece" / "points" / "record.json").write_text(json.dumps(record))
    return tmp_path


def test_the_full_model_predicts_what_it_has_predicted(run: Path) -> None:
    errors = ablation.errors_of(run, ablation.FULL)
    assert len(errors.believed) == len(errors.small) == len(CELLS) / 2
    assert [*errors.believed, *errors.small] == pytest.approx([0.0] * len(CELLS), abs=1e-9)


@pytest.mark.parametrize("left_out", ablation.ABLATIONS, ids=lambda each: each.term)
def test_every_term_makes_a_difference_where_it_is_left_out(run: Path, left_out: Any) -> None:
    errors = ablation.errors_of(run, left_out)
    assert max(map(abs, [*errors.believed, *errors.small])) > 1e-4


@pytest.mark.parametrize(
    ("term", "gone", "absorbing"),
    # What two messages differ by is a term of its own; without it, what else explains that grows or stays.
    [
        ("CPU per message", {"cpu_per_message_s"}, {"wake_cold_s", "wake_warm_s"}),
        ("CPU of a header", {"header_cpu_s"}, set()),
        ("delivery lag", {"delivery_lag_s_per_byte"}, set()),
        ("calls", {"call_s"}, set()),
    ],
)
def test_a_term_that_is_left_out_is_zero_and_only_its_message_explains_the_rest(
    term: str, gone: set[str], absorbing: set[str]
) -> None:
    (left_out,) = [each for each in ablation.ABLATIONS if each.term == term]
    record = {"cluster": asdict(CLUSTER), "cores": 2}
    full, without = (
        asdict(ablation.AblatedModel.of(record, each).terms(each.measured(MEASURED)))
        for each in (ablation.FULL, left_out)
    )
    differing = {name for name in full if full[name] != pytest.approx(without[name], rel=1e-9)}
    assert differing == gone | absorbing
    assert {without[name] for name in gone} == {0.0}
    assert all(without[name] > full[name] for name in absorbing)


@pytest.mark.parametrize("name", [field.name for field in fields(HostTerms)])
def test_every_host_term_is_left_out_by_some_ablation(name: str) -> None:
    record = {"cluster": asdict(CLUSTER), "cores": 2}
    values = [
        getattr(ablation.AblatedModel.of(record, each).terms(each.measured(MEASURED)), name)
        for each in (ablation.FULL, *ablation.ABLATIONS)
    ]
    assert any(value != values[0] for value in values)


def test_a_term_stays_if_the_median_rises_by_more_than_two_runs_differ() -> None:
    def errors(ring: float, tree: float) -> Any:
        return ablation.Errors({"ring": [ring] * 3, "tree": [tree] * 4}, [])

    runs = [errors(0.02, 0.010), errors(0.05, 0.012)]
    spread, full = ablation.Spread.of(runs), ablation.pooled(runs)
    assert spread.of_all == pytest.approx(0.002)
    assert ablation.verdict(full, errors(0.035, 0.015), spread) == "stays"
    assert ablation.verdict(full, errors(0.035, 0.0115), spread) == "goes"
    assert ablation.verdict(full, errors(0.070, 0.0125), spread) == "stays for ring"
    assert ablation.verdict(full, errors(0.9, 0.9), ablation.Spread.of(runs[:1])) == "one run"


def test_terms_that_go_are_left_out_together() -> None:
    both = ablation.together([each for each in ablation.ABLATIONS if each.term in ("calls", "delivery lag")], "both")
    terms = ablation.AblatedModel.of({"cluster": asdict(CLUSTER), "cores": 2}, both).terms(both.measured(MEASURED))
    assert (terms.call_s, terms.delivery_lag_s_per_byte) == (0.0, 0.0)


def test_a_run_without_measurements_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no measurements"):
        ablation.records_of(tmp_path)
