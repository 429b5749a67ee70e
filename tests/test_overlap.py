"""Exchanges that begin while backward goes on: their laws, their times, and the same parameters for real."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from algorithms import ALGORITHMS
from algorithms.gtopk import GTopK
from algorithms.selection import Selector
from algorithms.topk import TopK
from netsim._util.errors import DeadlockError, InfeasibleError, UsageError
from netsim.comm.payload import Dense, SizeOnly, Sparse, Vector, joined
from netsim.comm.pieces import Piece
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.network.fabric import Fabric
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.observer import Computation, Observers, RunObserver
from netsim.simulator.opening import load_task
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.timeline import Timeline, covered
from netsim.simulator.workers import make_workers
from netsim.training.algorithm import Algorithm
from netsim.training.costs import AssumedCosts
from netsim.training.loop import Task, TimingOnly, train
from netsim.training.overlap import Bucket, Overlapped, Ready, even, pieces_of, ready_by_elements
from netsim.training.sgd import SGDConfig
from tests.test_real import SMALL, assert_three_worlds_agree
from topologies import TOPOLOGIES
from topologies.builder import Shape

PS = 10**12
BITS = 32
OVERLAPPING = [name for name in ALGORITHMS if ALGORITHMS[name].overlaps]
EXACT = [name for name in OVERLAPPING if not ALGORITHMS[name].lossy]
"""Those whose sums of small whole numbers are exact; the others have laws in their own tests."""
CHARGES = {"compute_time": "5ms", "select_time": "1ms", "merge_time": "200us"}


def one_of(name: str, k: int) -> Algorithm:
    return ALGORITHMS[name](Selector(k)) if ALGORITHMS[name].sparse else ALGORITHMS[name]()


# In buckets.


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 60), st.floats(0, 0.99))
def test_buckets_cover_the_vector_from_its_end_and_hold_no_more_than_asked(
    tensors: list[int], most: int, forward: float
) -> None:
    pieces = pieces_of(tensors, f"{4 * most}B", ready_by_elements(tensors, forward))
    assert [piece.first for piece in pieces[:-1]] == [piece.last for piece in pieces[1:]]
    assert (pieces[0].last, pieces[-1].first) == (sum(tensors), 0)
    starts = [sum(tensors[:n]) for n in range(len(tensors) + 1)]
    for piece in pieces:
        first, last = piece.tensors
        assert (starts[first], starts[last]) == (piece.first, piece.last)
        assert piece.last - piece.first <= most or last - first == 1
    for one, after in itertools.pairwise(pieces):
        assert one.last - one.first + tensors[after.tensors[1] - 1] > most, "there was room for one more"
    ready = [piece.ready for piece in pieces]
    assert ready == sorted(ready)
    assert ready[-1] == 1.0
    done = sum(tensors) - pieces[0].first
    assert len(pieces) == 1 or ready[0] == pytest.approx(forward + (1 - forward) * done / sum(tensors))


def test_each_tensor_by_itself_and_a_vector_of_unknown_tensors() -> None:
    assert [piece.tensors for piece in pieces_of([3, 1, 2], "tensor", [1, 0.6, 0.5])] == [(2, 3), (1, 2), (0, 1)]
    assert even(10, "16B") == (3, 3, 4)
    assert even(4, "16B") == (4,)


@pytest.mark.parametrize("text", ["", "maybe", "0.5,0.4,1", "0.5,0.9", "-0.1,1", "elements:1", "elements:x", "nan,1"])
def test_wrong_shares_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"ready .* must be measured"):
        Ready.of(text)


# Timelines.

intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)).map(lambda x: (x[0], x[0] + x[1])), max_size=8)


@settings(max_examples=200, deadline=None)
@given(intervals, intervals, intervals)
def test_a_timeline_adds_up_tick_by_tick(computing: Any, selecting: Any, communicating: Any) -> None:
    timeline = Timeline()
    for start, end in computing:
        timeline.computed("gradient", start, end)
    for start, end in selecting:
        timeline.computed("merge", start, end)
    for start, end in communicating:
        timeline.communicated(start, end)

    def ticks(spans: Any) -> set[int]:
        return {tick for start, end in spans for tick in range(start, end)}

    compute, select, communication = ticks(computing), ticks(selecting), ticks(communicating)
    expected = (compute, select - compute, communication, communication & (compute | select))
    assert timeline.spent() == tuple(map(len, expected))
    assert timeline.spent() == (0, 0, 0, 0)
    assert covered(computing) == len(compute)


# Laws of time.


class FillsTimelines(RunObserver):
    """Keeps every rank's computations and waits, and ends no step: the tests do that themselves."""

    def __init__(self, timelines: list[Timeline]) -> None:
        self._timelines = timelines

    def computed(self, computation: Computation) -> None:
        self._timelines[computation.rank].computed(computation.work, computation.start, computation.end)

    def waited(self, rank: int, start: int, end: int) -> None:
        self._timelines[rank].communicated(start, end)


def simulated(algorithm: Algorithm, task: Task, ranks: int, rounds: int = 2, **others: Any) -> tuple[Any, ...]:
    """Return every rank's end, what it spent, and its result."""
    fabric = Fabric(TOPOLOGIES[others.get("topology", "star")](Shape(ranks, 10**9, others.get("latency", 50e-6))))
    charges = others.get("charges", {"gradient": 3e-3, "update": 1e-4, "select": 2e-4, "merge": 3e-5})
    timelines = [Timeline() for _ in range(len(fabric.hosts))]
    observers = Observers([FillsTimelines(timelines)])
    transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts(charges), observers=observers)
    workers = make_workers(algorithm, ranks, fabric.server_host is not None)
    spent: dict[int, list[Any]] = {worker.rank: [] for worker in workers}

    def ended(worker: Worker, _: Any) -> None:
        spent[worker.rank].append((transport.now, timelines[worker.rank].spent()))

    tasks = RankScheduler[Any](transport, observers).run(
        workers, lambda worker: train(worker, algorithm, task, rounds, SGDConfig(0.5), ended)
    )
    return tasks, spent


def chains(tasks: Any) -> list[dict[str, int]]:
    """Return the picoseconds of the chain of events that led to every rank's end."""
    return [{getattr(what, "name", what): time for what, time in task.path.totals().items()} for task in tasks]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(OVERLAPPING),
    st.integers(2, 6),
    st.lists(st.integers(50, 40_000), min_size=1, max_size=5),
    st.sampled_from(["star", "tree", "ring", "ps"]),
    st.data(),
)
def test_exposed_and_hidden_are_all_communication_and_bound_the_round(
    name: str, ranks: int, tensors: list[int], topology: str, data: Any
) -> None:
    """Per rank and round: what is not computing or selecting is waiting for messages, so
    max(busy, communication) ≤ round ≤ busy + communication."""
    pieces = pieces_of(tensors, "tensor", ready_by_elements(tensors))
    algorithm = Overlapped([Bucket(piece, one_of(name, data.draw(st.integers(1, 50)))) for piece in pieces])
    tasks, spent = simulated(algorithm, TimingOnly(sum(tensors)), ranks, topology=topology)
    for task in tasks:
        before = 0
        assert task.path.totals().total() == spent[task.worker.rank][-1][0]
        for now, (compute, select, communication, hidden) in spent[task.worker.rank]:
            busy = compute + select
            exposed = now - before - busy
            assert exposed + hidden == communication
            assert max(busy, communication) <= now - before <= busy + communication
            before = now


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(OVERLAPPING), st.integers(1, 6), st.integers(1, 5000), st.sampled_from(["star", "tree", "ps"]))
def test_one_bucket_is_no_overlap_to_the_picosecond(name: str, ranks: int, size: int, topology: str) -> None:
    whole = one_of(name, max(1, size // 10))
    same = Overlapped([Bucket(Piece(0, size, (0, 1), 1.0), whole)])
    tasks, plain = [simulated(each, TimingOnly(size), ranks, topology=topology)[0] for each in (same, whole)]
    assert chains(tasks) == chains(plain)
    assert [task.worker.traffic for task in tasks] == [task.worker.traffic for task in plain]
    assert [task.worker.tally for task in tasks] == [task.worker.tally for task in plain]


@pytest.mark.parametrize("name", OVERLAPPING)
def test_one_bucket_is_no_overlap_bit_for_bit(name: str) -> None:
    random = np.random.default_rng(7).standard_normal((3, 4, 60)).astype(np.float32)
    whole = one_of(name, 7)
    same = Overlapped([Bucket(Piece(0, 60, (0, 1), 1.0), whole)])
    one, other = (simulated(each, Given(random), 4, rounds=3)[0] for each in (same, whole))
    for task, plain in zip(one, other, strict=True):
        assert torch.equal(task.result.parameters.values, plain.result.parameters.values)
    assert chains(one) == chains(other)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(1, 2000), min_size=1, max_size=4), st.integers(0, 10**9))
def test_while_backward_takes_longest_only_the_last_bucket_is_exposed(
    power: int, chunks: list[int], spare: int
) -> None:
    """A chain of buckets on an idle star: round = T + 2(P-1)α + 2((P-1)/P) n β, for the n elements of the last."""
    ranks, alpha, beta = 2**power, 50_000_000, BITS * PS // 10**9
    costs = [2 * (ranks - 1) * (alpha + chunk * beta) for chunk in chunks]
    until_next = max(costs) + spare
    pieces, last = [], sum(chunks) * ranks
    for number, chunk in enumerate(chunks):
        ready = (number + 1) / len(chunks)
        pieces.append(Piece(last - chunk * ranks, last, (number, number + 1), ready))
        last -= chunk * ranks
    algorithm = Overlapped([Bucket(piece, one_of("dense", 1)) for piece in pieces])
    whole = len(chunks) * until_next
    tasks, spent = simulated(algorithm, TimingOnly(sum(chunks) * ranks), ranks, 1, charges={"gradient": whole / PS})
    assert {task.path.totals().total() for task in tasks} == {whole + costs[-1]}
    assert {each[-1][1].hidden for each in spent.values()} == {sum(costs[:-1])}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6),
    st.lists(st.integers(1, 20_000), min_size=1, max_size=5),
    st.integers(0, 3 * 10**9),
    st.sampled_from([0.0, 1 / 3, 0.8]),
)
def test_buckets_that_share_their_links_end_as_from_one_queue(
    ranks: int, chunks: list[int], whole: int, forward: float
) -> None:
    """Latency apart, links that never rest while a bucket is there end when a queue of them would:
    max over n of (ready_n + Σ of what is ready from n on), whoever shares with whom in between."""
    tensors = [chunk * ranks for chunk in chunks]
    pieces = pieces_of(tensors, "tensor", ready_by_elements(tensors, forward))
    algorithm = Overlapped([Bucket(piece, one_of("dense", 1)) for piece in pieces])
    tasks, _ = simulated(
        algorithm, TimingOnly(sum(tensors)), ranks, 1, charges={"gradient": whole / PS}, latency=1 / PS
    )
    costs = [2 * (ranks - 1) * chunk * (BITS * PS // 10**9) for chunk in chunks[::-1]]
    ready = [round(whole * piece.ready) for piece in pieces]
    expected = max(at + sum(costs[number:]) for number, at in enumerate(ready))
    end = max(task.path.totals().total() for task in tasks)
    assert expected - 1 <= end <= expected + 4 * 2 * ranks * len(chunks)


def test_buckets_that_are_there_at_once_are_pipelined() -> None:
    """Equal buckets drain one after another: α of all hops but the first hides behind the other buckets.

    A chunk of a bucket is 1000 elements, t = 32 µs at 1 Gbit/s, and α = 50 µs < 3 t. The whole takes 14 (α + 4 t), and
    four buckets α + 14 · 4 t.
    """
    options: dict[str, Any] = {"workers": 8, "timing_only": True, "elements": 8 * 1000 * 4, "algorithm": "dense"}
    whole = netsim.simulate(**options).results[0]
    buckets = netsim.simulate(**options, overlap="32kB").results[0]
    assert buckets.buckets is not None
    assert [each["elements"] for each in buckets.buckets] == [8000] * 4
    assert whole.round_time_s == pytest.approx(14 * (50e-6 + 4 * 32e-6), rel=1e-12)
    assert buckets.round_time_s == pytest.approx(50e-6 + 14 * 4 * 32e-6, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6),
    st.lists(st.integers(1, 20_000), min_size=2, max_size=6),
    st.integers(0, 3 * 10**9),
    st.sampled_from([0.0, 1 / 3, 0.8]),
)
def test_a_serial_communicator_is_a_queue(ranks: int, chunks: list[int], whole: int, forward: float) -> None:
    """On an idle star an exchange takes 2(P-1)(α + chunk β); the next begins when it has ended and its bucket is ready.

    Latencies add up: concurrent exchanges of the same buckets never end later.
    """
    tensors = [chunk * ranks for chunk in chunks]
    pieces = pieces_of(tensors, "tensor", ready_by_elements(tensors, forward))
    buckets = [Bucket(piece, one_of("dense", 1)) for piece in pieces]
    charges = {"gradient": whole / PS}
    ends = {}
    for serial in (True, False):
        tasks, _ = simulated(Overlapped(buckets, serial), TimingOnly(sum(tensors)), ranks, 1, charges=charges)
        ends[serial] = max(task.path.totals().total() for task in tasks)
    free = 0
    for piece, chunk in zip(pieces, chunks[::-1], strict=True):
        free = max(free, round(whole * piece.ready)) + 2 * (ranks - 1) * (50_000_000 + chunk * (BITS * PS // 10**9))
    assert abs(ends[True] - max(whole, free)) <= len(chunks)
    assert ends[False] <= ends[True] + 4 * 2 * ranks * len(chunks)  # picoseconds, to which every message is rounded


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_serial_communicator_changes_no_bit(name: str) -> None:
    random = np.random.default_rng(8).standard_normal((3, 4, 60)).astype(np.float32)
    pieces = pieces_of([20, 30, 10], "tensor", [1, 0.6, 0.5])
    buckets = [Bucket(piece, one_of(name, 4)) for piece in pieces]
    one, other = (simulated(Overlapped(buckets, serial), Given(random), 4, rounds=3)[0] for serial in (True, False))
    for task, concurrent in zip(one, other, strict=True):
        assert torch.equal(task.result.parameters.values, concurrent.result.parameters.values)
        assert task.worker.traffic == concurrent.worker.traffic


def test_a_serial_communicator_needs_buckets() -> None:
    with pytest.raises(UsageError, match="communicator 'serial' was given, but there is one exchange only"):
        Experiment.of(communicator="serial")


def test_the_last_bucket_of_gtopk_is_exposed_with_its_own_k() -> None:
    """2 log₂P (α + 2k β), with the k of one bucket: max(1, floor(density n))."""
    report = netsim.simulate(
        workers=8, timing_only=True, elements=400_000, density=0.01, algorithm="gtopk", overlap="400kB",
        compute_time="1s", bandwidth="1Gbps", latency="50us",
    )  # fmt: skip
    (result,) = report.results
    assert result.k == 4 * 1000
    assert result.comm_time_s == pytest.approx(6 * (50e-6 + 2 * 1000 * 32e-9), rel=1e-12)
    assert result.hidden_comm_time_s == pytest.approx(3 * result.comm_time_s, rel=1e-12)
    assert result.round_time_s == result.compute_time_s + result.select_time_s + result.comm_time_s


def test_selections_and_merges_wait_for_the_host_while_backward_computes_on_it() -> None:
    """A host does one thing after another, so the round has room for all of it, and overlap hides none of it."""
    options: dict[str, Any] = {"workers": 4, "timing_only": True, "elements": 10_000, "algorithm": "gtopk", **CHARGES}
    apart = netsim.simulate(**options).results[0]
    result = netsim.simulate(**options, overlap="10kB").results[0]
    assert result.compute_time_s == pytest.approx(5e-3)
    # All four end at once. Each selects for 1 ms; they merge, or restore, 3, 1, 2 and 1 times for 0.2 ms.
    assert result.select_time_s == pytest.approx(1e-3 + (3 + 1 + 2 + 1) / 4 * 0.2e-3)
    assert 5e-3 + 1e-3 + 3 * 0.2e-3 <= result.round_time_s < apart.round_time_s
    assert result.hidden_comm_time_s > 0


# Mass.


class Given(Task):
    """A task whose gradients are given: (steps, P, d)."""

    def __init__(self, gradients: np.ndarray) -> None:
        self._gradients = gradients

    def initial_parameters(self) -> Dense:
        return Dense(torch.zeros(self._gradients.shape[2], dtype=torch.float32))

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        return Dense(torch.from_numpy(self._gradients[step, rank].copy()))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(EXACT), st.integers(1, 6), st.lists(st.integers(1, 30), min_size=1, max_size=4), st.data())
def test_mass_is_conserved_bucket_by_bucket(name: str, ranks: int, tensors: list[int], data: Any) -> None:
    """Σ over steps and workers of g = what was applied + Σ of residuals, exactly, in every bucket by itself."""
    steps, size = 3, sum(tensors)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    gradients = random.integers(-512, 512, (steps, ranks, size)).astype(np.float32)
    pieces = pieces_of(tensors, "tensor", ready_by_elements(tensors))
    algorithm = Overlapped([Bucket(piece, one_of(name, data.draw(st.integers(1, 5)))) for piece in pieces])
    recipe = SGDConfig(1.0, aggregate="sum")
    tasks = RankScheduler[Any](InMemoryTransport()).run(
        make_workers(algorithm, ranks, False),
        lambda worker: train(worker, algorithm, Given(gradients), steps, recipe),
    )
    applied = -tasks[0].result.parameters.values.numpy()
    for number, (piece, own, _) in enumerate(algorithm.buckets):
        residuals = [own.residual(task.result.state.memory[number]) for task in tasks]
        held = sum(residual.values.numpy() for residual in residuals if residual is not None)
        expected = gradients[:, :, piece.first : piece.last].sum((0, 1))
        np.testing.assert_array_equal(applied[piece.first : piece.last] + held, expected)


def test_every_bucket_selects_its_own_k() -> None:
    gradients = np.tile(np.arange(1.0, 101.0, dtype=np.float32), (1, 2, 1))
    pieces = pieces_of([60, 40], "tensor", [1, 0.5])
    algorithm = Overlapped([Bucket(piece, TopK(Selector(3))) for piece in pieces])
    tasks = RankScheduler[Any](InMemoryTransport()).run(
        make_workers(algorithm, 2, False), lambda worker: train(worker, algorithm, Given(gradients), 1, SGDConfig(1.0))
    )
    moved = np.flatnonzero(tasks[0].result.parameters.values.numpy())
    assert moved.tolist() == [57, 58, 59, 97, 98, 99]


def test_sums_of_buckets_that_are_dense_and_sparse_are_joined_to_a_dense_one() -> None:
    """As SSAR's, whose sum in a small bucket has more entries than half of its elements."""
    dense = Dense(torch.tensor([1.0, 2.0]))
    sparse = Sparse(torch.tensor([1], dtype=torch.int32), torch.tensor([5.0]), 3)
    for pieces, values in (((dense, sparse), [1, 2, 0, 5, 0]), ((sparse, dense), [0, 5, 0, 1, 2])):
        whole = joined(*pieces)
        assert isinstance(whole, Dense)
        assert whole.values.tolist() == values
    both = joined(sparse, sparse)
    assert isinstance(both, Sparse)
    assert (both.indices.tolist(), both.values.tolist(), both.size) == ([1, 4], [5, 5], 6)
    sizes = joined(SizeOnly(2), SizeOnly(3, 1))
    assert isinstance(sizes, SizeOnly)
    assert (sizes.size, sizes.entries) == (5, None)


def test_metrics_see_whole_vectors(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    netsim.simulate(
        workers=3, algorithm="gtopk,ps-topk,topk", rounds=3, overlap="2MB", metrics=rows, density=0.01, **CHARGES
    )
    read = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(read) == 9
    for row in read:
        assert row["leak"] < 1e-5
        assert row["uploads"] == 3
        assert 0 < row["delta"] < 1
        assert row["residual_norm"] > 0


# Gradients that come piece by piece.


@pytest.mark.parametrize(
    ("workload", "data"),
    [("digits-mlp", None), ("fc-mnist", "synthetic"), ("resnet20", "synthetic"), ("char-lstm", None)],
)
def test_a_gradient_that_comes_by_tensors_is_the_gradient_and_what_came_stays(workload: str, data: str | None) -> None:
    from netsim._util.system import one_thread_each

    with one_thread_each():
        task, tensors, _ = load_task(Experiment.of(workers=2, workload=workload, data=data, batch_size=4), "cpu")
        came: dict[int, torch.Tensor] = {}

        def written(vector: Vector, number: int) -> None:
            assert isinstance(vector, Dense)
            assert number not in came
            came[number] = vector.values.split(tensors)[number].clone()

        parameters = task.initial_parameters()
        gradient = task.gradual(written, parameters, 1, 2)
        assert torch.equal(gradient.values, task.gradient(parameters, 1, 2).values)
    assert sorted(came) == list(range(len(tensors)))
    for number, piece in enumerate(gradient.values.split(tensors)):
        assert torch.equal(came[number], piece)
    # The last layers' come first: the classifier before the first layer.
    order = list(came)
    assert order.index(len(tensors) - 1) < order.index(0)


def test_measured_shares_are_told_apart_from_assumed_ones() -> None:
    options: dict[str, Any] = {"workers": 2, "algorithm": "dense", "rounds": 1, "overlap": "tensor"}
    choices: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "MEASURED"),
        ({"compute_time": "5ms"}, "ASSUMED"),
        ({"compute_time": "5ms", "ready": "measured"}, "MEASURED"),
        ({"ready": "elements"}, "ASSUMED"),
        ({"ready": "0.2,0.2,0.4,0.5,0.6,1"}, "ASSUMED"),
    )
    for choice, provenance in choices:
        (result,) = netsim.simulate(**options, **choice).results
        assert result.ready_provenance == provenance
        assert result.buckets is not None
        ready = [each["ready"] for each in result.buckets]
        assert ready == sorted(ready)
        assert ready[-1] == 1
        if "," in choice.get("ready", ""):
            assert ready == [0.2, 0.2, 0.4, 0.5, 0.6, 1]


# For real.


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("workers", [3, 4])
def test_parameters_and_bytes_are_equal_in_memory_simulated_and_real(workers: int) -> None:
    names = ",".join(OVERLAPPING)
    assert_three_worlds_agree(SMALL | {"algorithm": names, "rounds": 4, "seed": workers, "overlap": "tensor"}, workers)


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "gtopk,dense", "overlap": "2MB", "momentum": 0.9, "weight_decay": 1e-3},
        {"algorithm": "gtopk,dense,ps", "overlap": "tensor", "communicator": "serial"},
        {"algorithm": "topk", "overlap": "tensor", "momentum": 0.9, "momentum_correction": True},
        {"algorithm": "ps,ps-topk", "overlap": "2MB", "topology": "ps"},
        {"algorithm": "ps:serial-server=true", "overlap": "2MB"},
    ],
)
def test_options_change_both_worlds_alike(options: dict[str, Any]) -> None:
    assert_three_worlds_agree(options | {"rounds": 4}, 3)


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
def test_a_real_run_tells_exposed_from_hidden() -> None:
    (result,) = netsim.run(workers=2, algorithm="dense", rounds=4, overlap="2MB").results
    assert result.buckets is not None
    assert [each["ready"] for each in result.buckets] == [None] * len(result.buckets)
    assert result.hidden_comm_time_s > 0
    assert result.comm_time_s > 0
    assert result.round_time_s == pytest.approx(result.compute_time_s + result.select_time_s + result.comm_time_s)


# Beside others.


@pytest.mark.slow
def test_a_checkpoint_holds_every_buckets_memory(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "workers": 3, "algorithm": "gtopk,dense", "rounds": 6, "overlap": "2MB", "ready": "elements", **CHARGES
    }  # fmt: skip
    whole = netsim.simulate(**options, checkpoint=tmp_path / "whole", checkpoint_every=2)

    class StopError(Exception):
        """Out in the middle."""

    def stop(_: str, step: int) -> None:
        if step == 4:
            raise StopError

    with pytest.raises(StopError):
        netsim.simulate(**options, checkpoint=tmp_path / "broken", checkpoint_every=2, on_round=stop)
    resumed = netsim.simulate(**options, checkpoint=tmp_path / "broken", resume=True)
    assert resumed.results == whole.results


def test_a_trace_and_jitter_go_with_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "workers": 4, "algorithm": "gtopk", "timing_only": True, "model": "resnet18", "overlap": "10MB",
        "latency_jitter": "lognormal:0.5", "straggler": "1:2", "protocol": "tcp", **CHARGES,
    }  # fmt: skip
    traced = netsim.simulate(**options, trace=tmp_path / "trace.json")
    assert traced.results == netsim.simulate(**options).results
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "gradient" for event in events)


def test_a_message_that_a_forked_coroutine_waits_for_is_named() -> None:
    async def waits(branch: Worker) -> Vector:
        return await branch.recv(0, template=SizeOnly(1))

    async def program(worker: Worker) -> None:
        if worker.rank == 1:
            branch = worker.branch(3, (0.0, 1.0))
            await (await worker.fork(branch, waits(branch)))

    with pytest.raises(DeadlockError) as error:
        RankScheduler[None](InMemoryTransport()).run([Worker(0, 2), Worker(1, 2)], program)
    assert str(error.value).count("waits for") == 1
    assert "rank 1 waits for a message from rank 0" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "sasg"}, "sasg was asked for with --overlap, but it sends nothing before the whole gradient"),
        ({"clip": 1.0}, "clip 1.0 was given with --overlap"),
        ({"overlap": "25"}, "overlap '25' has no unit"),
        ({"overlap": "layer"}, "overlap 'layer' .*tensor"),
        ({"overlap": "tensor", "elements": 100}, "--elements does not define tensors"),
        ({"overlap": None, "ready": "0.5,1"}, "nothing overlaps; add --overlap 25MB"),
        ({"ready": "measured"}, "ready 'measured' was given with --timing-only"),
        ({"ready": "0.5,1"}, "ready has 2 fractions, but there are 5 buckets"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"workers": 2, "algorithm": "dense", "timing_only": True, "overlap": "25MB"}
    if "elements" not in options:
        usual["model"] = "resnet50"
    with pytest.raises(UsageError, match=message):
        netsim.simulate(**usual | options)


def test_nothing_is_said_of_buckets_where_there_is_but_one() -> None:
    options: dict[str, Any] = {"workers": 2, "algorithm": "dense", "timing_only": True, "elements": 1000}
    plain, one = netsim.simulate(**options).results[0], netsim.simulate(**options, overlap="1GB").results[0]
    assert one == plain
    assert one.buckets is None


def test_gtopk_keeps_a_residual_for_each_bucket() -> None:
    algorithm = Overlapped([Bucket(piece, GTopK(Selector(1))) for piece in pieces_of([3, 2], "tensor", [1, 0.5])])
    memory = algorithm.initial_memory(Dense(torch.zeros(5)))
    assert [own.residual.size for own in memory] == [2, 3]
    whole = algorithm.residual(memory)
    assert whole is not None
    assert whole.size == 5


# Several parameter servers.


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 10**5), st.sampled_from([10**8, 10**9, 10**10]))
def test_servers_share_the_gradient_out(workers: int, servers: int, part: int, bandwidth: int) -> None:
    """Each of S servers takes in d/S from every worker, and sends it back: 2 (α + n d β / S), or a worker's own link
    is the narrow place: 2 (α + d β)."""
    alpha, beta = 50_000_000, BITS * PS // bandwidth
    (result,) = netsim.simulate(
        workers=workers, timing_only=True, elements=part * servers, algorithm="ps", topology=f"ps:servers={servers}",
        bandwidth=bandwidth, latency=alpha / PS,
    ).results  # fmt: skip
    expected = 2 * (alpha + max(workers, servers) * part * beta)
    # Shares of a link by several are not whole bits a second, and are rounded to picoseconds now and then.
    assert result.round_time_s * PS == pytest.approx(expected, abs=2 * servers, rel=1e-12)
    assert result.uploads == workers
    assert result.value_bytes_up == 4 * part * servers
    assert len(result.bytes_sent_by_rank) == workers + servers
    if servers < workers and part > 10**4:
        assert result.bound_by.startswith("server NIC (server")


@pytest.mark.parametrize("options", [{"overlap": "25MB"}, {"topology": "ps:servers=2"}])
def test_only_gloo_keeps_buckets_apart(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"would mix up messages .* use --backend gloo"):
        netsim.run(workers=2, algorithm="dense", backend="nccl", **options)


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("overlap", [None, "2MB"])
def test_several_servers_for_real(overlap: str | None) -> None:
    options = {"algorithm": "ps,ps-topk,gtopk", "topology": "ps:servers=2", "overlap": overlap, "rounds": 4}
    assert_three_worlds_agree(options, 3)


def test_a_sum_over_several_servers_is_that_over_one() -> None:
    """Every element is summed in the same order, so the parameters have the same bits."""
    options: dict[str, Any] = {"workers": 3, "algorithm": "ps", "rounds": 4, "momentum": 0.9, **CHARGES}
    (one,) = netsim.simulate(**options, topology="ps").results
    (several,) = netsim.simulate(**options, topology="ps:servers=3").results
    assert several.parameters_sha256 == one.parameters_sha256
    assert several.round_time_s < one.round_time_s
    assert [each["server"] for each in several.buckets or []] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "sasg"}, "has 2 servers: sasg looks at the whole gradient"),
        ({"algorithm": "ps", "clip": 1.0}, "clip 1.0 is of the whole gradient"),
        ({"algorithm": "ps-topk", "per_tensor": True}, "servers share the gradient out evenly"),
    ],
)
def test_what_several_servers_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        netsim.simulate(workers=2, topology="ps:servers=2", **options)


@pytest.mark.parametrize(("size", "bucket"), [(10, "1B"), (10, "4B"), (7, "3B"), (100, "8B"), (101, "12B")])
def test_no_bucket_is_empty_and_none_is_larger_than_asked(size: int, bucket: str) -> None:
    """An element takes 4 bytes, and a bucket holds one at least."""
    parts = even(size, bucket)
    assert sum(parts) == size
    assert min(parts) >= 1
    assert max(parts) <= max(1, int(bucket[:-1]) // 4)


def test_more_buckets_than_anybody_waits_for_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="overlap '1B' cuts 1,000,000,000 elements into 1,000,000,000 buckets"):
        even(10**9, "1B")


def test_overlap_none_is_the_default() -> None:
    """As for recommend, whose candidates without overlap are asked for by the same word."""
    assert Experiment.of(overlap="none") == Experiment.of()


def test_no_link_among_equals_is_the_bottleneck() -> None:
    """Chunks of a bucket differ by one element, so that one of 64 ranks ends last, by the time of that element."""
    options = {"workers": 64, "algorithm": "dense", "timing_only": True, "model": "resnet50"}
    (alike,) = netsim.simulate(**options, overlap="25MB", compute_time="100ms").results
    assert alike.bound_by.startswith("worker links, e.g. ")
