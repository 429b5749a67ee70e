"""On an idle full-duplex star, simulated times equal the closed forms of the papers."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from algorithms import BUILT_IN
from netsim.experiment.configuration import Experiment
from netsim.simulator.estimates import estimate
from tests.engines import results_of

PS = 10**12


WAYS = ["event", "batched", "closed-form"]
every_way = pytest.mark.parametrize("way", WAYS)


def simulated(algorithm: str, way: str = "auto", **options: object) -> float:
    (result,) = results_of(way, algorithm=algorithm, topology="star", **options)
    assert result.round_time_s == result.comm_time_s
    assert way in ("auto", "event", result.way)
    return result.round_time_s


def rounds_of_tree(workers: int) -> int:
    return ceil(log2(workers))


# Bandwidths whose bit time is a whole number of picoseconds, so that the closed forms are too.
bandwidths = st.sampled_from([10**6, 25 * 10**6, 10**8, 10**9, 10**10, 4 * 10**10, 10**11])
latencies = st.integers(1, 10**10).map(lambda picoseconds: picoseconds / PS)
powers = st.integers(0, 6).map(lambda power: 2**power)


@every_way
@settings(max_examples=40, deadline=None)
@given(powers, st.integers(1, 10**6), latencies, bandwidths)
def test_dense_ring(way: str, workers: int, chunk: int, latency: float, bandwidth: int) -> None:
    elements = chunk * workers
    alpha, beta = round(latency * PS), Fraction(32 * PS, bandwidth)
    expected = 2 * (workers - 1) * (alpha + chunk * beta)
    options = {"workers": workers, "elements": elements, "latency": latency, "bandwidth": bandwidth}
    time = simulated("dense:segment=none", way, **options)
    assert time == float(expected / PS)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 10**6), latencies, bandwidths)
def test_dense_ring_with_uneven_chunks_lies_between_even_ones(
    workers: int, elements: int, latency: float, bandwidth: int
) -> None:
    alpha, beta = round(latency * PS), Fraction(32 * PS, bandwidth)
    fewest, most = elements // workers, -(-elements // workers)
    time = simulated("dense:segment=none", workers=workers, elements=elements, latency=latency, bandwidth=bandwidth)
    assert 2 * (workers - 1) * (alpha + fewest * beta) <= Fraction(time) * PS * (1 + Fraction(1, 10**12))
    assert Fraction(time) * PS <= 2 * (workers - 1) * (alpha + most * beta) * (1 + Fraction(1, 10**12))


@every_way
@pytest.mark.parametrize("gather", ["ring", "bruck"])
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 10**6), latencies, bandwidths)
def test_topk(way: str, gather: str, workers: int, k: int, latency: float, bandwidth: int) -> None:
    """For any P: (P-1) (α + 2kβ) around a ring, ⌈log₂P⌉ α + 2 (P-1) k β by Bruck's all-gather."""
    alpha, beta = round(latency * PS), Fraction(32 * PS, bandwidth)
    rounds = workers - 1 if gather == "ring" else ceil(log2(workers))
    expected = rounds * alpha + 2 * (workers - 1) * k * beta
    options = {"workers": workers, "elements": 10 * k, "k": k, "latency": latency, "bandwidth": bandwidth}
    assert simulated(f"topk:gather={gather},segment=none", way, **options) == float(expected / PS)


@every_way
@pytest.mark.parametrize("algorithm", ["gtopk", "dense-tree"])
@settings(max_examples=40, deadline=None)
@given(powers, st.integers(1, 10**6), latencies, bandwidths)
def test_trees(way: str, algorithm: str, workers: int, size: int, latency: float, bandwidth: int) -> None:
    """2 log₂P (α + m β), where a message m is 2k or d elements."""
    alpha, beta = round(latency * PS), Fraction(32 * PS, bandwidth)
    expected = 2 * rounds_of_tree(workers) * (alpha + (2 if algorithm == "gtopk" else 1) * size * beta)
    options = {"k": size, "elements": 10 * size} if algorithm == "gtopk" else {"elements": size}
    time = simulated(algorithm, way, workers=workers, latency=latency, bandwidth=bandwidth, **options)
    assert time == float(expected / PS)


@pytest.mark.parametrize("way", ["event", "auto", "closed-form"])
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 70), st.integers(1, 10**6), latencies, bandwidths)
def test_gtopk_with_any_number_of_workers(way: str, workers: int, k: int, latency: float, bandwidth: int) -> None:
    """Where P is not a power of two, a rank without a partner sends early, and shares its target's link.

    That can only save time over the closed form; the way down still takes all its rounds.
    """
    message = round(latency * PS) + 2 * k * Fraction(32 * PS, bandwidth)
    rounds = rounds_of_tree(workers)
    time = simulated("gtopk", way, workers=workers, elements=10 * k, k=k, latency=latency, bandwidth=bandwidth)
    assert float((rounds + 1) * message / PS) <= time * (1 + 1e-12)
    assert time <= float(2 * rounds * message / PS) * (1 + 1e-12)


@every_way
@pytest.mark.parametrize(("topology", "elsewhere"), [("star", -1), ("ps", 0)])
@settings(max_examples=40, deadline=None)
@given(workers=st.integers(2, 70), elements=st.integers(1, 10**6), latency=latencies, bandwidth=bandwidths)
def test_parameter_server(
    way: str, topology: str, elsewhere: int, workers: int, elements: int, latency: float, bandwidth: int
) -> None:
    """All workers that are not the server's own share its link, up and then down."""
    alpha, beta = round(latency * PS), Fraction(32 * PS, bandwidth)
    expected = 2 * (alpha + (workers + elsewhere) * elements * beta)
    options = {"workers": workers, "elements": elements, "latency": latency, "bandwidth": bandwidth}
    (result,) = results_of(way, algorithm="ps", topology=topology, **options)
    assert result.round_time_s == pytest.approx(float(expected / PS), rel=1e-12, abs=1e-12)
    if workers > 2 and alpha < elements * beta:
        assert result.bound_by.startswith("server NIC")


@every_way
@pytest.mark.parametrize(
    ("algorithm", "seconds"),
    [("dense:segment=none", 1.5813), ("dense", 1.5751), ("topk", 0.10395), ("gtopk", 0.0198)],
)
def test_the_figures_of_the_issue(way: str, algorithm: str, seconds: float) -> None:
    """1 Gbit/s, 50 µs, 64 workers, 25,000,000 elements, k = 25,000: worked out by hand from the closed forms.

    Chunks of dense are 1.5625 MB, which is three slices. In slices, the latency of 2 messages remains of that of 126.
    """
    options = {"workers": 64, "elements": 25_000_000, "k": 25_000, "latency": "50us", "bandwidth": "1Gbps"}
    assert simulated(algorithm, way, **options) == pytest.approx(seconds, rel=1e-6)


@pytest.mark.parametrize("algorithm", ["dense-tree", "ps", "topk", "topk:gather=bruck", "gtopk"])
@settings(max_examples=15, deadline=None)
@given(workers=st.integers(2, 130))
def test_a_round_takes_no_longer_than_among_the_next_power_of_two(algorithm: str, workers: int) -> None:
    """Nothing is handed out and back for workers beyond a power of two, which would double a round's time."""
    options = {"elements": 100_000, "k": 1_000}
    most = simulated(algorithm, workers=1 << (workers - 1).bit_length(), **options)
    assert 0 < simulated(algorithm, workers=workers, **options) <= most * (1 + 1e-9)


def test_charges_for_computing_are_added_to_the_exchange() -> None:
    """Two workers, gTop-k: gradient, selection, one merge at rank 0, and one restoring at the end."""
    options = {"elements": 1_000, "k": 10, "latency": "1ms", "bandwidth": "1Mbps", "timing_only": True}
    charges = {"compute_time": "60ms", "select_time": "7ms", "merge_time": "5ms"}
    (result,) = netsim.simulate(workers=2, algorithm="gtopk", **options, **charges).results
    message = 1e-3 + 640e-6
    assert result.comm_time_s == pytest.approx(2 * message, rel=1e-12)
    assert result.compute_time_s == pytest.approx(60e-3, rel=1e-12)
    assert result.select_time_s == pytest.approx(7e-3 + 5e-3 + 5e-3, rel=1e-12)
    assert result.scaling_efficiency == pytest.approx(60 / (60 + 17 + 2e3 * message), rel=1e-12)
    assert result.compute_provenance == "ASSUMED"


def test_rounds_repeat_each_other() -> None:
    options = {"workers": 8, "elements": 10_000, "algorithm": "gtopk", "timing_only": True}
    once = netsim.simulate(**options).results[0]
    often = netsim.simulate(rounds=7, **options).results[0]
    assert often.round_time_s == pytest.approx(once.round_time_s, rel=1e-12)
    assert often.value_bytes_up == once.value_bytes_up


@pytest.mark.slow
def test_no_method_but_the_double_tree_needs_the_event_engine_for_many_workers() -> None:
    """On an idle star of 1,024 workers; the event engine takes a minute for the double tree."""
    options = {"workers": 1024, "elements": 25_000_000}
    ways = {name: results_of("auto", algorithm=name, **options)[0].way for name in BUILT_IN - {"dense-double-tree"}}
    assert {name for name, way in ways.items() if way == "event"} == set()
    assert set(ways.values()) <= {"closed-form", "batched"}
    tree = Experiment.of(algorithm="dense-double-tree", timing_only=True, **options)
    assert estimate(tree, "dense-double-tree").one_by_one
