"""The kernels, compiled and in NumPy, against references that share no code with them: bit for bit."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms import kernels
from tests.oracles import top_k
from tests.strategies import gradients

NASTY = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0**-149, -(2.0**-149), 2.0**-140, 2.0**-126, 3e38, -3e38, 1.0000001]
KINDS = [
    *("normal", "heavy-tailed", "denormal", "equal", "tied", "zeros", "mostly zero", "negative zeros"),
    *("ascending", "descending", "rising ties", "large in the sample", "large out of the sample", "small blocks apart"),
]

unhurried = settings(deadline=None)
"""The first example waits for the compiler."""
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@pytest.fixture(
    scope="module", autouse=True, params=[pytest.param("CompiledKernels", marks=needs_numba), "NumpyKernels"]
)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run every test with either implementation behind the public functions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_chosen", getattr(kernels, request.param)())
        patch.setattr(kernels, "SLAB", 2**14)
        yield request.param


def drawn(kind: str, size: int, dtype: Any, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng([seed, size])
    normal = random.standard_normal(size)
    sampled = np.arange(size) % kernels.STRIDE < kernels.GROUP
    return {
        "normal": lambda: normal,
        "heavy-tailed": lambda: random.standard_cauchy(size),
        "denormal": lambda: np.round(normal * 50) * np.finfo(dtype).smallest_subnormal,
        "equal": lambda: np.full(size, -0.5),
        "tied": lambda: random.choice([-2.0, -1.0, 0.0, 1.0, 2.0], size, p=[0.001, 0.3, 0.398, 0.3, 0.001]),
        "zeros": lambda: np.zeros(size),
        "mostly zero": lambda: normal * (random.random(size) < 1e-3),
        "negative zeros": lambda: np.where(random.random(size) < 0.01, normal, -0.0),
        "ascending": lambda: np.sort(np.abs(normal)),
        "descending": lambda: -np.sort(-np.abs(normal)),
        # The k-th largest is tied, again and again, while the floor rises.
        "rising ties": lambda: np.round(normal * np.linspace(0, 4, size)),
        # The guess is far too high, then far too low.
        "large in the sample": lambda: np.where(sampled, 1e3, 1) * normal,
        "large out of the sample": lambda: np.where(sampled, 0, 1) * normal,
        "small blocks apart": lambda: np.repeat(10.0 ** random.integers(-9, 9, size // 1000 + 1), 1000)[:size] * normal,
    }[kind]().astype(dtype)


def check_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Compare as integers: 0.0 is not -0.0 here."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(*(each.view(f"i{each.itemsize}") for each in (actual, expected)))


def by_torch(values: np.ndarray, *ks: int) -> list[np.ndarray]:
    """For every k the positions of the k largest magnitudes, by one stable sort in torch."""
    magnitudes = torch.from_numpy(values).abs()
    order = torch.sort(magnitudes, descending=True, stable=True).indices
    order = order[magnitudes[order] > 0]
    return [torch.sort(order[:k]).values.numpy() for k in ks]


def check_selection(residual: np.ndarray, vector: np.ndarray, *ks: int, factor: float = 1.0) -> None:
    """Accumulate and select, and compare everything with torch."""
    total = (torch.from_numpy(residual) + torch.from_numpy(vector) * factor).numpy()
    for k, positions in zip(ks, by_torch(total, *ks), strict=True):
        np.testing.assert_array_equal(kernels.top_positions(total, k), positions)
        left, added = residual.copy(), vector.copy()
        indices, values = kernels.accumulate_select(left, added, k, factor)
        assert indices.dtype == np.int32
        np.testing.assert_array_equal(indices, positions)
        check_bits(values, total[positions])
        expected = total.copy()
        expected[positions] = 0
        check_bits(left, expected)
        check_bits(added, vector)


@unhurried
@given(gradients(largest_p=2, largest_d=200), st.integers(0, 210))
def test_selects_what_the_oracle_selects(vectors: np.ndarray, k: int) -> None:
    residual, vector = vectors[0].copy(), vectors[-1]
    total = residual + vector
    indices, values = kernels.accumulate_select(residual, vector, k)
    written = np.zeros_like(total)
    written[indices] = values
    np.testing.assert_array_equal(written, top_k(total, k))
    np.testing.assert_array_equal(residual + written, total)
    np.testing.assert_array_equal(kernels.top_positions(total, k), np.flatnonzero(top_k(total, k)))


@unhurried
@given(st.lists(st.sampled_from(NASTY), max_size=200), st.integers(0, 210), st.sampled_from([np.float32, np.float64]))
def test_selects_what_torch_selects_of_ties_denormals_and_zeros(drawn: list[float], k: int, dtype: Any) -> None:
    values = np.array(drawn, dtype)
    check_selection(values, np.zeros_like(values), k)
    check_selection(values * dtype(0.5), values[::-1] * dtype(0.5), k)


@unhurried
@given(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from(KINDS), st.integers(0, 99))
def test_selects_what_torch_selects_of_any_length(size: int, k: int, kind: str, seed: int) -> None:
    check_selection(drawn(kind, size, np.float32, seed), drawn("normal", size, np.float32), k)
    check_selection(drawn(kind, size, np.float32, seed), drawn("normal", size, np.float32), k, factor=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_selects_what_torch_selects_of_long_vectors(kind: str, dtype: Any) -> None:
    vector, ks = drawn(kind, 70_001, dtype), (0, 1, 70, 3_000, 69_999, 80_000)
    check_selection(np.zeros_like(vector), vector, *ks)
    check_selection(drawn("normal", vector.size, dtype, 1), vector, *ks, factor=1 / 3)
    check_selection(drawn("normal", vector.size, dtype, 1), vector, *ks)


@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_of_error_feedback_are_those_of_torch(kind: str) -> None:
    residual, expected = np.zeros(40_000, np.float32), torch.zeros(40_000)
    for step in range(10):
        vector = drawn(kind, residual.size, np.float32, step)
        indices, values = kernels.accumulate_select(residual, vector, 40)
        expected += torch.from_numpy(vector)
        (positions,) = by_torch(expected.numpy(), 40)
        np.testing.assert_array_equal(indices, positions)
        check_bits(values, expected.numpy()[positions])
        expected[positions] = 0
        check_bits(residual, expected.numpy())


@unhurried
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 50)), max_size=6), st.sampled_from(KINDS))
def test_blocks_are_selected_one_by_one(blocks: list[tuple[int, int]], kind: str) -> None:
    bounds = np.cumsum([0, *(size for size, _ in blocks)])
    ks = [k for _, k in blocks]
    vector, residual = drawn(kind, bounds[-1], np.float32), drawn("normal", bounds[-1], np.float32, 1)
    total = residual + vector
    expected = [
        start + by_torch(total[start:stop], k)[0] for start, stop, k in zip(bounds[:-1], bounds[1:], ks, strict=True)
    ]
    positions = np.concatenate([np.empty(0, np.int64), *expected])
    np.testing.assert_array_equal(kernels.top_positions_blocks(total, bounds, ks), positions)
    indices, values = kernels.accumulate_select_blocks(residual, vector, bounds, ks)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(indices, positions)
    check_bits(values, total[positions])
    total[positions] = 0
    check_bits(residual, total)


def test_one_block_is_the_whole_vector() -> None:
    vector = drawn("normal", 100_000, np.float32)
    whole = kernels.accumulate_select(np.zeros_like(vector), vector, 100)
    block = kernels.accumulate_select_blocks(np.zeros_like(vector), vector, [0, vector.size], [100])
    np.testing.assert_array_equal(whole, block)


def sparse(vector: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    positions = by_torch(vector, k)[0].astype(np.int32)
    return positions, vector[positions]


def check_merge(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], size: int, k: int) -> None:
    """Merge, and compare with sums and a stable sort of the whole vectors in torch."""
    left, right = torch.zeros(2, size, dtype=torch.from_numpy(a[1]).dtype)
    left[a[0].astype(np.int64)], right[b[0].astype(np.int64)] = torch.from_numpy(a[1]), torch.from_numpy(b[1])
    total = (left + right).numpy()
    (positions,) = by_torch(total, k)
    others = np.setdiff1d(np.flatnonzero(total), positions)
    kept_indices, kept_values, dropped_indices, dropped_values = kernels.merge(*a, *b, k)
    assert kept_indices.dtype == dropped_indices.dtype == np.int32
    np.testing.assert_array_equal(kept_indices, positions)
    check_bits(kept_values, total[positions])
    np.testing.assert_array_equal(dropped_indices, others)
    check_bits(dropped_values, total[others])


@unhurried
@given(gradients(largest_p=2), st.integers(0, 45), st.integers(0, 45))
def test_merging_keeps_the_k_largest_of_the_sum_and_loses_nothing(vectors: np.ndarray, held: int, k: int) -> None:
    a, b = sparse(vectors[0], held), sparse(vectors[-1], held)
    check_merge(a, b, vectors.shape[1], k)
    total = top_k(vectors[0], held) + top_k(vectors[-1], held)
    kept_indices, kept_values, dropped_indices, dropped_values = kernels.merge(*a, *b, k)
    written = np.zeros_like(total)
    written[kept_indices] = kept_values
    np.testing.assert_array_equal(written, top_k(total, k))
    written[dropped_indices] = dropped_values
    np.testing.assert_array_equal(written, total)


@unhurried
@given(st.lists(st.tuples(st.sampled_from(NASTY), st.sampled_from(NASTY)), max_size=60), st.integers(0, 60))
def test_merging_ties_denormals_and_explicit_zeros(pairs: list[tuple[float, float]], k: int) -> None:
    both = np.array(pairs, np.float32).reshape(-1, 2) * np.float32(0.5)
    every = np.arange(len(pairs), dtype=np.int32)
    check_merge((every, both[:, 0].copy()), (every, both[:, 1].copy()), len(pairs), k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_long_vectors(kind: str, dtype: Any) -> None:
    a, b = sparse(drawn(kind, 20_000, dtype, 1), 1_000), sparse(drawn(kind, 20_000, dtype, 2), 1_000)
    for k in (1, 999, 3_000):
        check_merge(a, b, 20_000, k)
        check_merge(a, (a[0], -a[1]), 20_000, k)
        check_merge((a[0][:0], a[1][:0]), b, 20_000, k)


def test_equal_indices_are_summed_left_operand_first_and_signs_survive() -> None:
    def entries(indices: list[int], values: list[float]) -> tuple[np.ndarray, np.ndarray]:
        return np.array(indices, np.int32), np.array(values, np.float32)

    merged = kernels.merge(*entries([0, 2, 5], [-5, 1, 3]), *entries([0, 3, 5], [-1, -4, -3]), 2)
    assert [part.tolist() for part in merged] == [[0, 3], [-6, -4], [2], [1]]


@unhurried
@given(gradients(), st.integers(1, 40))
def test_the_dense_sum_is_taken_from_left_to_right(vectors: np.ndarray, k: int) -> None:
    # Thirds are not on the grid: another order of additions would give other bits.
    parts = [sparse(vector / np.float32(3), k) for vector in vectors]
    expected = np.zeros_like(vectors[0])
    for indices, values in parts:
        expected += top_k(np.bincount(indices, values, expected.size).astype(np.float32), expected.size)
    check_bits(kernels.sum_to_dense(parts, expected.size), expected)


def test_an_index_out_of_range_changes_nothing() -> None:
    total, values = np.ones(4, np.float32), np.ones(2, np.float32)
    for indices in ([0, 4], [-1, 0]):
        with pytest.raises(IndexError, match="4 elements"):
            kernels.add_at(total, np.array(indices, np.int32), values)
    assert total.tolist() == [1, 1, 1, 1]


def test_not_a_number_and_infinities_come_first() -> None:
    vector = drawn("normal", 100_000, np.float32)
    vector[[5, 70_000]] = np.nan, -np.nan
    vector[[6, 80_000]] = np.inf, -np.inf
    assert kernels.top_positions(vector, 2).tolist() == [5, 70_000]
    assert kernels.top_positions(vector, 4).tolist() == [5, 6, 70_000, 80_000]
    vector[:] = np.nan
    assert kernels.top_positions(vector, 400).tolist() == list(range(400))


def test_what_is_only_read_may_be_read_only() -> None:
    vector = drawn("normal", 1_000, np.float32)
    (expected,) = by_torch(vector, 10)
    vector.flags.writeable = False
    np.testing.assert_array_equal(kernels.top_positions(vector, 10), expected)
    residual = np.zeros_like(vector)
    indices, values = kernels.accumulate_select(residual, vector, 10)
    np.testing.assert_array_equal(indices, expected)
    indices.flags.writeable = values.flags.writeable = False
    kernels.merge(indices, values, indices, values, 5)
    kernels.add_at(residual, indices, values)
    check_bits(residual, vector)
    with pytest.raises(ValueError, match="read-only"):
        kernels.accumulate_select(vector, vector, 10)


def test_threads_do_not_disturb_each_other() -> None:
    vectors = [drawn("normal", 50_000, np.float32, seed) for seed in range(16)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda vector: kernels.accumulate_select(np.zeros_like(vector), vector, 50), vectors))
    for vector, (indices, values) in zip(vectors, found, strict=True):
        np.testing.assert_array_equal(indices, by_torch(vector, 50)[0])
        np.testing.assert_array_equal(values, vector[indices])


def test_wrong_arguments_are_named() -> None:
    ones, index = np.ones(4, np.float32), np.zeros(4, np.int32)
    with pytest.raises(TypeError, match="float16"):
        kernels.top_positions(ones.astype(np.float16), 1)
    with pytest.raises(TypeError, match="contiguous"):
        kernels.top_positions(ones[::2], 1)
    with pytest.raises(ValueError, match="k = -1"):
        kernels.top_positions(ones, -1)
    with pytest.raises(TypeError, match="as many"):
        kernels.accumulate_select(ones, ones[:3], 1)
    with pytest.raises(TypeError, match="float64"):
        kernels.accumulate_select(ones, ones.astype(np.float64), 1)
    for bounds in ([0, 3], [1, 4], [0, 2, 4], [0]):
        with pytest.raises(ValueError, match="bounds"):
            kernels.top_positions_blocks(ones, bounds, [1])
    with pytest.raises(ValueError, match="bounds"):
        kernels.top_positions_blocks(ones, [0, 9, 4], [1, 1])
    with pytest.raises(ValueError, match="k = -3"):
        kernels.top_positions_blocks(ones, [0, 4], [-3])
    with pytest.raises(TypeError, match="int32 index"):
        kernels.merge(index.astype(np.int64), ones, index, ones, 1)
    with pytest.raises(TypeError, match="merge float32"):
        kernels.merge(index, ones, index, ones.astype(np.float64), 1)
    with pytest.raises(TypeError, match="add float64"):
        kernels.add_at(ones, index, ones.astype(np.float64))
    with pytest.raises(ValueError, match="at least one"):
        kernels.sum_to_dense([], 4)


def test_without_numba_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_chosen", None)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not kernels.available()
    assert kernels.top_positions(np.array([1, 3, 2], np.float32), 2).tolist() == [1, 2]


@needs_numba
def test_where_nothing_can_be_cached_it_compiles_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    asked = []

    def refuses_to_cache(cache: bool, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compiles(**options)

    compiles = numba.njit
    monkeypatch.setattr(numba, "njit", refuses_to_cache)
    monkeypatch.setattr(kernels, "_chosen", None)
    assert kernels.available()
    assert asked[0]
    assert not asked[-1]
