"""The hierarchical all-reduce: its sums are NumPy's, its time on machines is a closed form; it beats a flat ring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim._util.errors import InfeasibleError
from tests.engines import results_of
from tests.strategies import gradients
from tests.test_batched import same_but_for_rounding
from tests.test_real import assert_three_worlds_agree

SEGMENTS = st.sampled_from(["auto", "none", "4B", "20B"])


@settings(max_examples=80, deadline=None)
@given(gradients(), SEGMENTS, st.data())
def test_it_sums_over_groups_of_any_sizes(vectors: np.ndarray, segment: str, data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(vectors), max_size=len(vectors)))
    done = netsim.exchange(f"dense-hier:segment={segment}", vectors, groups=groups)
    np.testing.assert_array_equal(done.aggregated.numpy(), vectors.sum(0))
    assert sum(done.bytes_sent) == sum(done.bytes_received)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_bytes_are_those_of_rings_in_groups_and_across(ranks: int, groups: int, part: int) -> None:
    """2 (m-1)/m S in the group and 2 (g-1)/g S/m across it, sent and received by every rank."""
    size = part * ranks * groups
    done = netsim.exchange("dense-hier", np.ones((ranks * groups, size), np.float32), groups=ranks)
    expected = 2 * (ranks - 1) * 4 * size // ranks + 2 * (groups - 1) * 4 * size // (groups * ranks)
    assert done.bytes_sent == done.bytes_received == [expected] * (ranks * groups)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 50), st.integers(0, 2**32), SEGMENTS, st.data())
def test_slices_change_no_bit(workers: int, size: int, seed: int, segment: str, data: st.DataObject) -> None:
    vectors = np.random.default_rng(seed).standard_normal((workers, size)).astype(np.float32)
    groups = data.draw(st.lists(st.integers(0, 2), min_size=workers, max_size=workers))
    names = [f"dense-hier:segment={each}" for each in ("none", segment)]
    whole, sliced = (netsim.exchange(name, vectors, groups=groups) for name in names)
    np.testing.assert_array_equal(whole.aggregated.numpy(), sliced.aggregated.numpy())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 50), st.integers(0, 2**32), st.booleans())
def test_one_group_or_groups_of_one_rank_are_the_ring(workers: int, size: int, seed: int, one: bool) -> None:
    vectors = np.random.default_rng(seed).standard_normal((workers, size)).astype(np.float32)
    ring = netsim.exchange("dense", vectors)
    grouped = netsim.exchange("dense-hier", vectors, groups=workers if one else 1)
    np.testing.assert_array_equal(ring.aggregated.numpy(), grouped.aggregated.numpy())
    assert (ring.bytes_sent, ring.bytes_received) == (grouped.bytes_sent, grouped.bytes_received)


TOPOLOGY = "machines:gpus={},inside=1GB/s,network=1Gbps,network-latency=30us"


def result_of(algorithm: str, gpus: int, workers: int, elements: int, **options: Any) -> netsim.Result:
    return netsim.simulate(
        topology=TOPOLOGY.format(gpus),
        algorithm=algorithm,
        workers=workers,
        elements=elements,
        timing_only=True,
        **options,
    ).results[0]


@settings(max_examples=30, deadline=None)
@given(
    gpus=st.integers(1, 5),
    machines=st.integers(1, 5),
    part=st.integers(1, 10**4),
    engine=st.sampled_from(["event", "vectorized"]),
    placement=st.sampled_from(["rank-order", "locality", "cyclic", "random"]),
)
def test_time_is_the_closed_form_on_machines(gpus: int, machines: int, part: int, engine: str, placement: str) -> None:
    """2(m-1)(α₁ + S/(mB₁)) + 2(g-1)(α₂ + S/(gB₂)): m rings share a machine's link, each with a chunk of S/m."""
    if gpus * machines == 1:
        return
    size = part * gpus * machines
    inside = 2 * (gpus - 1) * (5e-6 + 32 * size / gpus / 8e9)
    across = 2 * (machines - 1) * (35e-6 + 32 * size / machines / 1e9)
    options: dict[str, Any] = {"engine": engine, "placement": placement}
    found = result_of("dense-hier:segment=none", gpus, gpus * machines, size, **options)
    assert found.round_time_s == pytest.approx(inside + across, rel=1e-9, abs=1e-11)


@settings(max_examples=20, deadline=None)
@given(
    gpus=st.integers(1, 4),
    machines=st.integers(1, 4),
    size=st.integers(1, 10**5),
    merge_time=st.sampled_from(["0s", "3us", "1ms"]),
    placement=st.sampled_from(["rank-order", "cyclic"]),
)
def test_both_engines_agree_also_on_uneven_chunks_and_additions(
    gpus: int, machines: int, size: int, **options: Any
) -> None:
    both = {"workers": gpus * machines, "elements": size, "algorithm": "dense-hier:segment=none"} | options
    topology = f"machines:gpus={gpus},network=1Gbps"
    (one,), (other,) = (results_of(engine, topology=topology, **both) for engine in ("event", "vectorized"))
    same_but_for_rounding(one, other)


def test_slices_hide_the_latency_of_all_steps_but_the_first() -> None:
    """Chunks of 4 MB in a machine and of 8 MB in a ring across it, as rings that never wait: α + (P-1) S/(PB) each."""
    size = 8 * 10**6
    inside = 2 * (5e-6 + 3 * 32 * size / 4 / 8e9)
    across = 2 * (35e-6 + 3 * 32 * size / 4 / 1e9)
    assert result_of("dense-hier", 4, 16, size).round_time_s == pytest.approx(inside + across, rel=1e-3)


def test_a_flat_ring_takes_longer_over_machines() -> None:
    """2(P-1)/P S/B over the machines' links against 2(g-1)/g S/B, and more steps."""
    flat, grouped = (result_of(name, 8, 32, 10**7).round_time_s for name in ("dense", "dense-hier"))
    assert flat > 2 * 31 / 32 * 32 * 10**7 / 1e9
    assert grouped < 0.9 * flat


def test_groups_of_different_sizes_need_the_event_engine() -> None:
    assert result_of("dense-hier", 4, 10, 10**4).way == "messages"
    with pytest.raises(InfeasibleError, match="its program depends on the rank"):
        result_of("dense-hier", 4, 10, 10**4, engine="vectorized")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("workers", "placement"), [(4, "rank-order"), (5, "cyclic")])
def test_real_ranks_get_the_same_parameters_and_send_the_same_bytes(workers: int, placement: str) -> None:
    """Machines of two GPUs, the last one half empty for an odd number of ranks; test_real has one machine."""
    options: dict[str, Any] = {"topology": "machines:gpus=2", "placement": placement, "rounds": 3}
    assert_three_worlds_agree({"algorithm": "dense-hier:segment=100KiB,dense-hier:segment=none"} | options, workers)
