"""Hierarchical gTop-k: against a reference written from its definition, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim.experiment.configuration import Experiment
from tests.oracles import gtop_k, top_k
from tests.strategies import gradients

PS = 10**12


def hierarchical(vectors: np.ndarray, k: int, groups: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """gTop-k in every group, then gTop-k of the groups' results: (result, what each rank dropped while merging)."""
    dropped = [np.zeros_like(vector) for vector in vectors]
    results, leaders = [], []
    for group in dict.fromkeys(groups):
        ranks = [rank for rank, of in enumerate(groups) if of == group]
        result, lost = gtop_k(vectors[ranks], k)
        for rank, vector in zip(ranks, lost, strict=True):
            dropped[rank] += vector
        results.append(result)
        leaders.append(ranks[0])
    total, lost = gtop_k(np.stack(results), k)
    for rank, vector in zip(leaders, lost, strict=True):
        dropped[rank] += vector
    return total, dropped


@settings(max_examples=80, deadline=None)
@given(gradients(), st.integers(1, 40), st.data())
def test_it_is_gtopk_in_groups_and_gtopk_across_them(vectors: np.ndarray, k: int, data: st.DataObject) -> None:
    k = min(k, vectors.shape[1])
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(vectors), max_size=len(vectors)))
    expected, dropped = hierarchical(vectors, k, groups)
    done = netsim.exchange("gtopk-hier", vectors, k=k, groups=groups)
    np.testing.assert_array_equal(done.aggregated.numpy(), expected)
    for rank, vector in enumerate(vectors):
        np.testing.assert_array_equal(done.residuals[rank].numpy(), vector - top_k(vector, k) + dropped[rank])
    np.testing.assert_array_equal((done.aggregated + done.residuals.sum(0)).numpy(), vectors.sum(0))


@settings(max_examples=40, deadline=None)
@given(gradients(), st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 64]))
def test_consecutive_groups_of_a_power_of_two_are_the_plain_tree(vectors: np.ndarray, k: int, size: int) -> None:
    k = min(k, vectors.shape[1])
    plain, grouped = (
        netsim.exchange(name, vectors, k=k, **options)
        for name, options in (("gtopk", {}), ("gtopk-hier", {"groups": size}))
    )
    np.testing.assert_array_equal(plain.aggregated.numpy(), grouped.aggregated.numpy())
    np.testing.assert_array_equal(plain.residuals.numpy(), grouped.residuals.numpy())
    assert plain.bytes_sent == grouped.bytes_sent


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(0, 3).map(lambda power: 2**power),
    racks=st.integers(0, 3).map(lambda power: 2**power),
    k=st.integers(1, 10**5),
    placement=st.sampled_from(["rank-order", "locality", "cyclic", "random"]),
)
def test_time_is_the_closed_form_however_ranks_are_placed(size: int, racks: int, k: int, placement: str) -> None:
    """2 log₂m (α₁ + 2kβ₁) + 2 log₂g (α₂ + 2kβ₂): inside 1 Gbit/s and 10 µs, across 250 Mbit/s and 110 µs."""
    inside = 10e-6 + 64 * k / 1e9
    across = 110e-6 + 64 * k / 250e6
    expected = 2 * np.log2(size) * inside + 2 * np.log2(racks) * across
    report = netsim.simulate(
        workers=size * racks, algorithm="gtopk-hier", timing_only=True, elements=10 * k, k=k, latency="10us",
        bandwidth="1Gbps", topology=f"racks:size={size},uplink=250Mbps,uplink_latency=50us", placement=placement,
    )  # fmt: skip
    assert report.results[0].round_time_s == pytest.approx(expected, rel=1e-9, abs=2 / PS)


def test_groups_are_the_topologys_unless_a_size_is_given() -> None:
    options = {"workers": 8, "timing_only": True, "elements": 100, "topology": "racks:size=4", "placement": "cyclic"}
    assert Experiment.of(**options).algorithm("gtopk-hier", (100,)).groups == (0, 1) * 4
    assert Experiment.of(**options).algorithm("gtopk-hier:group-size=3", (100,)).groups == 3


def test_it_crosses_slow_links_once_a_group_where_ranks_are_scattered() -> None:
    """Scattered over 8 racks, the plain tree's first rounds all cross; the hierarchy's stay inside."""
    options = {"workers": 64, "timing_only": True, "elements": 10**7, "algorithm": "gtopk,gtopk-hier"}
    plain, grouped = netsim.simulate(topology="racks:size=8", placement="random", **options).results
    assert grouped.round_time_s < 0.75 * plain.round_time_s


@pytest.mark.parametrize(("groups", "said"), [([0, 1], r"groups \(0, 1\)"), (0, "groups 0")])
def test_groups_that_make_no_sense_are_refused(groups: object, said: str) -> None:
    with pytest.raises(netsim.UsageError, match=said):
        netsim.exchange("gtopk-hier", np.ones((3, 4), np.float32), k=1, groups=groups)
