"""Each algorithm's exchange, looked at from outside, against references written from the papers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from algorithms import ALGORITHMS
from tests.oracles import gtop_k, top_k
from tests.strategies import gradients

DENSE = sorted(name for name, algorithm in ALGORITHMS.items() if not (algorithm.sparse or algorithm.lossy))
SPARSE = sorted(name for name, algorithm in ALGORITHMS.items() if algorithm.sparse)


@pytest.mark.parametrize("name", SPARSE)
@settings(max_examples=60, deadline=None)
@given(vectors=gradients(), k=st.integers(1, 40))
def test_gradient_mass_is_conserved_bit_for_bit(name: str, vectors: np.ndarray, k: int) -> None:
    k = min(k, vectors.shape[1])
    done = netsim.exchange(name, vectors, k=k)
    np.testing.assert_array_equal((done.aggregated + done.residuals.sum(0)).numpy(), vectors.sum(0))


@pytest.mark.parametrize("name", DENSE)
@settings(max_examples=40, deadline=None)
@given(vectors=gradients())
def test_dense_exchanges_are_plain_sums(name: str, vectors: np.ndarray) -> None:
    done = netsim.exchange(name, vectors)
    np.testing.assert_array_equal(done.aggregated.numpy(), vectors.sum(0))
    assert not done.residuals.any()


@settings(max_examples=80, deadline=None)
@given(gradients(), st.integers(1, 40))
def test_gtopk_is_the_tree_of_merges_of_the_paper(vectors: np.ndarray, k: int) -> None:
    k = min(k, vectors.shape[1])
    expected, dropped = gtop_k(vectors, k)
    done = netsim.exchange("gtopk", vectors, k=k)
    np.testing.assert_array_equal(done.aggregated.numpy(), expected)
    for rank, vector in enumerate(vectors):
        np.testing.assert_array_equal(done.residuals[rank].numpy(), vector - top_k(vector, k) + dropped[rank])


@settings(max_examples=80, deadline=None)
@given(gradients(), st.integers(1, 40))
def test_index_intersection_forgets_what_the_authors_code_forgets(vectors: np.ndarray, k: int) -> None:
    k = min(k, vectors.shape[1])
    expected, _ = gtop_k(vectors, k)
    done = netsim.exchange("gtopk", vectors, k=k, residual="index-intersection")
    np.testing.assert_array_equal(done.aggregated.numpy(), expected)
    for rank, vector in enumerate(vectors):
        forgotten = (top_k(vector, k) != 0) & (expected != 0)
        np.testing.assert_array_equal(done.residuals[rank].numpy(), np.where(forgotten, 0, vector))


def test_index_intersection_leaks_where_keep_at_merge_does_not() -> None:
    """Rank 1's 2 is dropped by rank 0's merge; ranks 2 and 3 then bring the same index to the root."""
    vectors = np.array([[5, 0, 0], [0, 2, 0], [0, 4, 0], [0, 4, 0]], np.float32)
    kept = netsim.exchange("gtopk", vectors, k=1)
    leaky = netsim.exchange("gtopk", vectors, k=1, residual="index-intersection")
    assert kept.aggregated.tolist() == leaky.aggregated.tolist() == [0, 8, 0]
    assert (kept.aggregated + kept.residuals.sum(0)).tolist() == [5, 10, 0]
    assert (leaky.aggregated + leaky.residuals.sum(0)).tolist() == [5, 8, 0]


@pytest.mark.parametrize("gather", ["ring", "bruck"])
@settings(max_examples=40, deadline=None)
@given(vectors=gradients(largest_p=17), k=st.integers(1, 40))
def test_topk_sums_everyones_selection(gather: str, vectors: np.ndarray, k: int) -> None:
    k = min(k, vectors.shape[1])
    done = netsim.exchange("topk", vectors, k=k, gather=gather)
    np.testing.assert_array_equal(done.aggregated.numpy(), sum(top_k(vector, k) for vector in vectors))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16])
def test_bytes_of_every_rank(ranks: int) -> None:
    """What each algorithm must send, counted by hand: entries are 4 bytes of value and 4 of index."""
    size, k = 4 * 3 * 5 * 7 * 16, 10
    vectors = np.random.default_rng(0).standard_normal((ranks, size)).astype(np.float32)
    ring = [4 * size * 2 * (ranks - 1) // ranks] * ranks
    gathered = [8 * k * (ranks - 1)] * ranks
    # In the tree, everyone but the root sends once up; the messages down mirror those up.
    children = [sum(1 for s in range(5) if rank % 2 ** (s + 1) == 0 and rank + 2**s < ranks) for rank in range(ranks)]
    climbs = [(rank > 0) + down for rank, down in enumerate(children)]
    served = [4 * size * (ranks - 1)] + [4 * size] * (ranks - 1)
    if size % ranks == 0:
        assert netsim.exchange("dense", vectors).bytes_sent == ring
    assert netsim.exchange("topk", vectors, k=k).bytes_sent == gathered
    assert netsim.exchange("dense-tree", vectors).bytes_sent == [4 * size * messages for messages in climbs]
    assert netsim.exchange("gtopk", vectors, k=k).bytes_sent == [8 * k * messages for messages in climbs]
    assert netsim.exchange("ps", vectors).bytes_sent == served


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_every_byte_sent_is_received_and_inputs_are_left_alone(name: str, ranks: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(1).standard_normal((ranks, 50)).astype(np.float32))
    before = vectors.clone()
    done = netsim.exchange(name, vectors, k=5 if ALGORITHMS[name].sparse else None)
    assert sum(done.bytes_sent) == sum(done.bytes_received)
    assert torch.equal(vectors, before)


def test_more_workers_than_elements() -> None:
    vectors = np.arange(21, dtype=np.float32).reshape(7, 3)
    for name in DENSE:
        np.testing.assert_array_equal(netsim.exchange(name, vectors).aggregated.numpy(), vectors.sum(0))


def test_larger_k_brings_more_of_the_sum() -> None:
    vectors = np.random.default_rng(2).standard_normal((4, 100)).astype(np.float32)
    residuals = [float(netsim.exchange("topk", vectors, k=k).residuals.abs().sum()) for k in (1, 10, 50, 100)]
    assert all(more > less for more, less in pairwise(residuals))
    assert residuals[-1] == 0
