"""The double binary tree: laws of its two trees, NumPy's sums, and its closed form."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim._util.errors import InfeasibleError
from netsim.comm.collectives.double_trees import double_tree
from tests.engines import results_of
from tests.strategies import gradients
from tests.test_real import assert_three_worlds_agree


@given(st.integers(2, 300))
def test_every_rank_is_an_inner_node_of_one_tree_only(workers: int) -> None:
    """Both are binary trees of all ranks, of depth ⌈log₂P⌉; of an odd number, one rank is an inner node of both."""
    inner = []
    for parents, depths in double_tree(workers):
        (root,) = np.flatnonzero(parents == np.arange(workers))
        others = np.delete(np.arange(workers), root)
        assert depths[root] == 0
        assert (depths[others] == depths[parents[others]] + 1).all(), "so every rank reaches the root"
        assert depths.max() == ceil(log2(workers))
        assert np.bincount(parents[others]).max() <= 2
        inner.append(set(parents[others].tolist()))
    assert len(inner[0] & inner[1]) == workers % 2


SEGMENTS = st.sampled_from(["auto", "none", "4B", "20B"])


@settings(max_examples=40, deadline=None)
@given(gradients(), SEGMENTS)
def test_it_sums_and_no_rank_sends_more_than_two_vectors(vectors: np.ndarray, segment: str) -> None:
    """A tree carries its half over P - 1 edges up and down; a rank has at most 3 edges in one and 1 in the other."""
    workers, size = vectors.shape
    done = netsim.exchange(f"dense-double-tree:segment={segment}", vectors)
    np.testing.assert_array_equal(done.aggregated.numpy(), vectors.sum(0))
    assert sum(done.bytes_sent) == sum(done.bytes_received) == 2 * (workers - 1) * 4 * size
    half = 4 * -(-size // 2)
    assert max(done.bytes_sent + done.bytes_received) <= 4 * half


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 50), st.integers(0, 2**32), SEGMENTS)
def test_slices_change_no_bit(workers: int, size: int, seed: int, segment: str) -> None:
    vectors = np.random.default_rng(seed).standard_normal((workers, size)).astype(np.float32)
    whole, sliced = (netsim.exchange(f"dense-double-tree:segment={each}", vectors) for each in ("none", segment))
    np.testing.assert_array_equal(whole.aggregated.numpy(), sliced.aggregated.numpy())


def time_of(workers: int, slices: int, latency_s: float, **options: Any) -> float:
    """Return the round time for a number of slices in each half; a slice takes 800 µs at 1 Gbit/s."""
    result = netsim.simulate(
        algorithm="dense-double-tree:segment=100kB",
        timing_only=True,
        workers=workers,
        elements=2 * slices * 25_000,
        latency=latency_s,
        bandwidth="1Gbps",
        **options,
    ).results[0]
    return result.round_time_s


SLICE_S = 800e-6


def closed_form(workers: int, slices: int, latency_s: float) -> float:
    """Return 2 (L α + (2m + 2L - 3) t). A path has L hops; two slices share each link, except the links of a root."""
    levels = ceil(log2(workers))
    return 2 * (levels * latency_s + (2 * slices + 2 * levels - 3) * SLICE_S)


WINDOW = 8
many_slices = st.integers(1, 20)
# A window hides the latency of a hop if α ≤ 2 (w-1) t.
hidden = st.floats(1e-6, 1).map(lambda share: share * 2 * (WINDOW - 1) * SLICE_S)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([4, 8, 16]), st.one_of(st.just(1), st.integers(WINDOW, 20)), hidden)
def test_time_is_the_closed_form_for_a_power_of_two(workers: int, slices: int, latency_s: float) -> None:
    """With fewer slices than the window, all are in flight."""
    expected = closed_form(workers, slices, latency_s)
    assert time_of(workers, slices, latency_s) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 24), many_slices, hidden)
def test_other_numbers_of_ranks_are_as_fast_as_the_next_power_of_two(
    workers: int, slices: int, latency_s: float
) -> None:
    """The least: a slice up and down all levels, and the link of a rank with two children, which receives 4 halves."""
    levels = ceil(log2(workers))
    least = 2 * levels * (latency_s + SLICE_S)
    if workers > 3:
        least = max(least, latency_s + 4 * slices * SLICE_S)
    assert least * (1 - 1e-9) <= time_of(workers, slices, latency_s) <= closed_form(workers, slices, latency_s) + 1e-11


@pytest.mark.parametrize("latency", ["10us", "10ms", "1s"])
@pytest.mark.parametrize("workers", [4, 8])
def test_slices_by_default_are_never_slower_than_whole_halves(workers: int, latency: str) -> None:
    """For a power of two, by the closed form: 2m + 2L - 3 slices take at most the time of 2L - 1 halves of m slices."""
    names = "dense-double-tree,dense-double-tree:segment=none"
    auto, whole = results_of("event", workers=workers, elements=5 * 10**6, latency=latency, algorithm=names)
    assert auto.round_time_s <= whole.round_time_s


def test_two_ranks_exchange_halves() -> None:
    """Each is the root of one tree: α + S/(2B) up, and as long down, in both directions of the links."""
    assert time_of(2, 5, 1e-4) == pytest.approx(2 * (1e-4 + 5 * SLICE_S), rel=1e-9)


def test_it_has_the_latency_of_a_tree_and_the_bandwidth_of_a_ring() -> None:
    names = "dense:segment=auto,dense-tree,dense-double-tree:segment=auto"
    ring, tree, both = (each.round_time_s for each in results_of("event", workers=16, elements=100, algorithm=names))
    assert both == pytest.approx(tree, rel=0.01)
    assert both < ring / 3
    large = results_of("event", workers=16, elements=25 * 10**6, algorithm=names)
    ring, tree, both = (each.round_time_s for each in large)
    assert both == pytest.approx(ring, rel=0.1)
    assert both < tree / 3


def test_the_vectorised_engine_says_why_it_does_not_take_it() -> None:
    with pytest.raises(InfeasibleError, match="it exchanges in several coroutines at a time"):
        time_of(4, 1, 1e-4, engine="vectorized")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("workers", "send_mode"), [(2, "eager"), (3, "rendezvous"), (4, "rendezvous"), (5, "eager")])
def test_real_ranks_get_the_same_parameters_and_send_the_same_bytes(workers: int, send_mode: str) -> None:
    """Halves of 22 slices, of which eight are under way, and halves in one piece."""
    algorithms = "dense-double-tree:segment=100KiB,dense-double-tree:segment=none"
    assert_three_worlds_agree({"algorithm": algorithms, "rounds": 3, "send_mode": send_mode}, workers)
