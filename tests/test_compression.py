"""Selection and merging against a plain reference, and the laws that they keep."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import algorithms.compression
import algorithms.selection
from algorithms.compression import merge, outside, restore, select, sum_to_dense
from algorithms.selection import Selector, top_positions
from netsim.comm.payload import Dense, SizeOnly, Sparse
from tests.oracles import top_k
from tests.strategies import gradients


@pytest.fixture(autouse=True, params=["kernels", "torch"], scope="module")
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold both ways to the same references: compiled kernels, and torch's operators as on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(algorithms.compression, "on_kernels", lambda _: False)
            patch.setattr(algorithms.selection, "on_kernels", lambda _: False)
        yield


def written_out(vector: object) -> np.ndarray:
    assert isinstance(vector, Sparse)
    return sum_to_dense(vector).values.numpy()


@given(gradients(largest_p=1, largest_d=60), st.integers(1, 60))
def test_selects_exactly_the_largest_with_ties_to_the_lower_index(vectors: np.ndarray, k: int) -> None:
    selected = select(Dense(torch.from_numpy(vectors[0])), Selector(k))
    np.testing.assert_array_equal(written_out(selected.local), top_k(vectors[0], k))
    assert isinstance(selected.local, Sparse)
    assert selected.local.values.numel() == min(k, np.count_nonzero(vectors[0]))
    assert selected.local.indices.dtype == torch.int32
    assert isinstance(selected.rest, Dense)
    np.testing.assert_array_equal(written_out(selected.local) + selected.rest.values.numpy(), vectors[0])


@pytest.mark.parametrize("k", [1, 7, 100, 5_000, 99_999])
@pytest.mark.parametrize("kind", ["normal", "equal", "heavy-tailed", "mostly zero", "large at the stride"])
def test_the_sampled_guess_never_changes_the_selection(kind: str, k: int) -> None:
    size = 100_000
    random = np.random.default_rng(k)
    drawn = {
        "normal": random.standard_normal(size),
        "equal": np.full(size, 0.5),
        "heavy-tailed": random.standard_cauchy(size),
        "mostly zero": random.standard_normal(size) * (random.random(size) < 1e-3),
        # What the sample sees is larger than everything else, so the guess is far too high.
        "large at the stride": np.where(np.arange(size) % (size // 4096) == 0, 1e3, random.random(size)),
    }[kind].astype(np.float32)
    magnitudes = np.abs(drawn)
    expected = np.sort(np.lexsort((np.arange(size), -magnitudes))[: min(k, np.count_nonzero(magnitudes))])
    np.testing.assert_array_equal(top_positions(torch.from_numpy(magnitudes), k).numpy(), expected)


@given(gradients(largest_p=2), st.integers(1, 40))
def test_merging_keeps_the_k_largest_of_the_sum_and_loses_nothing(vectors: np.ndarray, k: int) -> None:
    left, right = (select(Dense(torch.from_numpy(row)), Selector(k)).local for row in (vectors[0], vectors[-1]))
    assert isinstance(left, Sparse)
    assert isinstance(right, Sparse)
    total = top_k(vectors[0], k) + top_k(vectors[-1], k)
    merged = merge(left, right, Selector(k))
    np.testing.assert_array_equal(written_out(merged.kept), top_k(total, k))
    np.testing.assert_array_equal(written_out(merged.kept) + written_out(merged.dropped), total)
    assert bool((merged.kept.indices[1:] > merged.kept.indices[:-1]).all())  # type: ignore[union-attr]


def test_signs_survive_selection_and_merging() -> None:
    """Eq. (6) writes |·|, which would turn a descent direction around."""
    left = Sparse(torch.tensor([0, 2], dtype=torch.int32), torch.tensor([-5.0, 1.0]), 4)
    right = Sparse(torch.tensor([0, 3], dtype=torch.int32), torch.tensor([-1.0, -4.0]), 4)
    np.testing.assert_array_equal(written_out(merge(left, right, Selector(2)).kept), [-6, 0, 0, -4])


def test_merging_is_not_associative_so_the_tree_is_part_of_the_algorithm() -> None:
    def entry(index: int, value: float) -> Sparse:
        return Sparse(torch.tensor([index], dtype=torch.int32), torch.tensor([value]), 2)

    one = Selector(1)
    a, b, c = entry(0, 2.0), entry(1, 1.5), entry(1, 1.0)
    from_left = merge(merge(a, b, one).kept, c, one).kept  # type: ignore[arg-type]
    from_right = merge(a, merge(b, c, one).kept, one).kept  # type: ignore[arg-type]
    assert written_out(from_left).tolist() == [2.0, 0.0]
    assert written_out(from_right).tolist() == [0.0, 2.5]


def test_restore_and_outside() -> None:
    local = Sparse(torch.tensor([1, 3], dtype=torch.int32), torch.tensor([1.0, 2.0]), 5)
    total = Sparse(torch.tensor([3, 4], dtype=torch.int32), torch.tensor([9.0, 9.0]), 5)
    left_out = outside(local, total)
    assert left_out.indices.tolist() == [1]
    residual = restore(Dense(torch.ones(5)), left_out, local)
    assert residual.values.tolist() == [1, 3, 1, 3, 1]


@settings(max_examples=50)
@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_size_only_payloads_are_as_large_as_real_ones_can_be(size: int, k: int) -> None:
    vector = SizeOnly(size)
    selected = select(vector, Selector(k))  # type: ignore[arg-type]
    assert (selected.local.value_bytes, selected.local.index_bytes) == (4 * min(k, size), 4 * min(k, size))
    assert selected.rest.value_bytes == 4 * size
