"""Rounds of all ranks at once give what a message at a time gives: the same messages, instants and reasons."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from algorithms import ALGORITHMS
from netsim._util.errors import InfeasibleError
from netsim.comm.collectives import ring_all_gather
from netsim.comm.payload import SizeOnly
from netsim.comm.schedule import size_of
from netsim.comm.worker import Recv, Send, Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.simulator import engines
from netsim.simulator.analytic import after_ring
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.simulator.vectorized import RankClocks
from netsim.simulator.workers import make_workers
from netsim.training.costs import AssumedCosts
from netsim.training.loop import TimingOnly, train
from netsim.training.sgd import SGDConfig
from tests.engines import NUMBA, results_of
from tests.named import named

Sent = dict[int, list[tuple[int, tuple[int, int, int]]]]


APART = ("dense-double-tree", "dense-hier", "scalecom", "ssar")
"""The first exchanges in two coroutines at a time; the second depends on the rank where groups differ in size. Another
rank leads each step of the third, and in the fourth the ranks beyond a power of two do not take part."""
ALIKE = [name for name in ALGORITHMS if name not in APART]


class Watched(InMemoryTransport):
    """Delivers at once, and writes down who sends what to whom, and who is ready to receive from whom."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: Sent = defaultdict(list)
        self.expected: dict[int, list[int]] = defaultdict(list)

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Any, arrived: Any) -> None:
        self.sent[worker.rank].append((request.dst, size_of(request.payload)))
        super().carry(worker, request, path, sent, arrived)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        self.expected[worker.rank].append(request.src)


def algorithm_of(name: str, workers: int, **options: Any) -> Any:
    name = named(name, **options)
    experiment = Experiment.of(workers=workers, algorithm=name, timing_only=True, elements=100, k=7)
    return experiment.algorithm(name, (100,))


@pytest.mark.parametrize("options", [{}, {"gather": "bruck", "serial_server": True, "group_size": 3}], ids=str)
@pytest.mark.parametrize("dedicated", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("name", ALIKE)
def test_schedules_are_the_messages_of_the_coroutines(
    name: str, workers: int, dedicated: bool, options: dict[str, Any]
) -> None:
    """Per rank, in order: what is sent to whom, and who is awaited."""
    algorithm = algorithm_of(name, workers, **options)
    ranks = make_workers(algorithm, workers, dedicated)
    transport, task, recipe = Watched(), TimingOnly(100), SGDConfig(0.1)
    RankScheduler[Any](transport).run(ranks, lambda worker: train(worker, algorithm, task, 2, recipe))

    recorder = SymmetryRecorder(RoleMap(workers, ranks[0].server), AssumedCosts({}))
    recorder.run(lambda worker: train(worker, algorithm, task, 2, recipe, lambda worker, _: recorder.end(worker)))
    sent: Sent = defaultdict(list)
    expected: dict[int, list[int]] = defaultdict(list)
    for part in (part for step in recorder.steps for part in step):
        for round_ in part.rounds:
            for src, dst, which in zip(round_.pairs.src, round_.pairs.dst, round_.which, strict=True):
                sent[int(src)].append((int(dst), tuple(round_.sizes[which].tolist())))
                expected[int(dst)].append(int(src))
    assert sent == transport.sent
    assert expected == transport.expected


def same_but_for_the_way(one: Result, other: Result) -> None:
    ways = {"way": None, "way_reason": None}
    assert asdict(one) | ways == asdict(other) | ways


def same_but_for_rounding(one: Result, other: Result) -> None:
    """All the same, but for what follows from instants that lie half-way between two picoseconds.

    Where flows share links, rates are sums in another order: such an instant rounds up in one way and down in the
    other. That may add up along the events of a round, and of links that bind alike another one is named.
    What kind of thing binds is the same.
    """
    (mine, times), (theirs, others) = without_way_and_times(one), without_way_and_times(other)
    assert mine == theirs
    assert times == pytest.approx(others, rel=1e-9, abs=20e-12)


def without_way_and_times(result: Result) -> tuple[dict[str, Any], dict[str, float]]:
    kind = re.sub(r"\S+→\S+", "LINK", result.bound_by)
    fields = asdict(replace(result, way=None, way_reason=None, bound_by=kind))
    times = {
        name: value
        for name, value in fields.items()
        if name.endswith("_time_s") or (name == "scaling_efficiency" and value is not None)
    }
    return {name: value for name, value in fields.items() if name not in times}, times


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("topology", ["star", "ps"])
def test_every_algorithm_is_batched_where_no_link_is_shared_by_rounds(name: str, topology: str) -> None:
    options = {"workers": 32, "elements": 10_007, "algorithm": name, "topology": topology}
    (one,), (other,) = results_of("event", **options), results_of("batched", **options)
    repeats = ALGORITHMS[name].steps_locally  # rounds without an exchange
    assert (one.way, other.way) == ("messages", "memoised" if repeats else "batched")
    same_but_for_the_way(one, other)


times = st.sampled_from([None, "1us", "300us", "7ms"])


@settings(max_examples=80, deadline=None)
@given(
    workers=st.integers(1, 20),
    elements=st.integers(1, 10**6),
    algorithm=st.sampled_from(ALIKE),
    topology=st.sampled_from(
        ["star", "star:up=300Mbps", "ps", "ps:up=2Gbps", "ring", "torus", "tree", "racks", "fat-tree", "dragonfly"]
    ),
    latency=st.sampled_from(["1ns", "50us", "3ms"]),
    bandwidth=st.sampled_from(["1Mbps", "1Gbps", "70.3Gbps"]),
    placement=st.sampled_from(["rank-order", "cyclic", "random"]),
    rounds=st.integers(1, 4),
    gather=st.sampled_from(["ring", "bruck"]),
    serial_server=st.booleans(),
    density_warmup=st.integers(0, 2),
    compute_time=times,
    select_time=times,
    merge_time=times,
    sharing=st.sampled_from(["maxmin", "rtt"]),
)
@pytest.mark.slow
def test_the_faster_ways_say_what_a_message_at_a_time_says(**options: Any) -> None:
    """To the picosecond and with the same reason where rounds share no link; to what rounding leaves where they do."""
    (one,), (other,) = results_of("event", **options), results_of("auto", **options)
    (same_but_for_rounding if other.way == "compiled" else same_but_for_the_way)(one, other)
    if NUMBA:
        same_but_for_rounding(one, results_of("compiled", **options)[0])


@pytest.mark.skipif(not NUMBA, reason="numba is not installed")
def test_compiled_code_takes_over_where_rounds_share_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is solved once as long as ranks are level after it; where they are not, all steps are one."""
    monkeypatch.setattr(engines, "WORTH_COMPILING", 0)
    options = {"elements": 1000, "algorithm": "gtopk", "merge_time": "3us", "rounds": 6, "density_warmup": 2}
    for workers, way in ((11, "compiled"), (8, "memoised")):
        (one,), (other,) = (results_of(way, workers=workers, **options) for way in ("event", "auto"))
        assert other.way == way
        same_but_for_the_way(one, other)
    server = {"workers": 9, "elements": 1000, "algorithm": "dense-tree", "topology": "ps", "rounds": 6}
    (one,), (other,) = (results_of(way, **server) for way in ("event", "auto"))
    same_but_for_the_way(one, other)


def test_without_a_compiler_messages_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "netsim.simulator.compiled_loop", None)  # importing it fails
    monkeypatch.setattr(engines, "WORTH_COMPILING", 0)
    options = {"workers": 11, "elements": 1000, "algorithm": "gtopk"}
    (result,) = results_of("auto", **options)
    assert result.way == "messages"
    same_but_for_the_way(result, results_of("event", **options)[0])
    with pytest.raises(InfeasibleError, match="numba is not installed, or does not compile"):
        results_of("compiled", **options)


def nearly_the_same(one: Result, other: Result) -> None:
    """To 1e-9: a share of a link is a float where messages are simulated, and a formula's fraction is rounded once."""
    timed = [name for name in asdict(one) if name.endswith("time_s")]
    for name in timed:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9, abs=2e-12), name
    # Of many links alike, a formula does not know which is the first.
    one, other = (replace(each, bound_by=each.bound_by.split(", e.g.")[0]) for each in (one, other))
    untimed = dict.fromkeys([*timed, "way", "way_reason", "scaling_efficiency"])
    assert asdict(one) | untimed == asdict(other) | untimed


# Other exchanges follow Ok-Topk's tree, and start out of step if the workers are no power of two. PowerSGD is below.
@pytest.mark.parametrize("name", [name for name in ALIKE if name not in ("powersgd", "oktopk")])
@pytest.mark.parametrize("topology", ["star", "ps"])
@settings(max_examples=15, deadline=None)
@given(
    workers=st.integers(1, 40),
    chunk=st.integers(1, 10**4),
    k=st.integers(1, 40),
    latency=st.sampled_from(["1ns", "50us", "3ms"]),
    bandwidth=st.sampled_from(["1Mbps", "1Gbps", "70.3Gbps"]),
    serial_server=st.booleans(),
    compute_time=times,
    select_time=times,
    merge_time=times,
)
def test_formulas_hold_on_an_idle_star(name: str, topology: str, workers: int, chunk: int, **options: Any) -> None:
    """For any number of workers; with chunks of one size, also for several rounds of powers of two.

    Chunks are less than a segment; tests/test_posted_ahead.py has longer ones.
    """
    elements = 40 + chunk * workers * 8
    even = elements % workers == options["k"] % workers == workers & (workers - 1) == 0
    rounds = 2 if even and not options["serial_server"] else 1
    options |= {"workers": workers, "algorithm": name, "topology": topology, "rounds": rounds, "elements": elements}
    (one,), (other,) = (results_of(way, **options) for way in ("event", "closed-form"))
    assert other.way == "closed-form"
    if options["serial_server"]:  # the server's link, out, and the workers', in, are then half of the time each
        one, other = (replace(each, bound_by="") for each in (one, other))
    nearly_the_same(one, other)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["dense", "randk", "powersgd", "powersgd:rank=1", "scalecom", "local-sgd:h=1", "dense-hier"]),
    workers=st.integers(1, 12),
    elements=st.integers(30, 3000),
    k=st.integers(1, 30),
    rounds=st.integers(1, 3),
    latency=st.sampled_from(["1ns", "50us"]),
    bandwidth=st.sampled_from(["1Mbps", "70.3Gbps"]),
    compute_time=times,
    merge_time=times,
)
def test_formulas_hold_for_rings_that_begin_while_ranks_are_apart(name: str, rounds: int, **options: Any) -> None:
    """Chunks of two sizes leave the ranks apart, and so does the broadcast of ScaleCom's first leader."""
    rounds = 1 if name == "scalecom" else rounds
    (one,), (other,) = (results_of(way, algorithm=name, rounds=rounds, **options) for way in ("event", "closed-form"))
    assert other.way == "closed-form"
    nearly_the_same(one, replace(other, bound_by=one.bound_by))


@pytest.mark.parametrize(("fragments", "compute_time"), [(1, "300us"), (1, "20ms"), (4, "20ms")])
@settings(max_examples=10, deadline=None)
@given(
    workers=st.integers(1, 8),
    elements=st.integers(4, 3000),
    bandwidth=st.sampled_from(["10Mbps", "1Gbps"]),
)
def test_formulas_hold_for_uneven_chunks_beside_computations(fragments: int, compute_time: str, **options: Any) -> None:
    """The first exchange takes longer than the computation, or shorter; the others are all hidden."""
    options |= {"algorithm": f"streaming-diloco:h=8,fragments={fragments},tau=1", "compute_time": compute_time}
    options["rounds"] = 9 if fragments == 1 else 24
    (one,), (other,) = (results_of(way, **options) for way in ("event", "closed-form"))
    assert other.way == "closed-form"
    nearly_the_same(one, replace(other, bound_by=one.bound_by))


@given(st.data())
def test_a_ring_from_any_begin_ends_as_its_hops_say(data: st.DataObject) -> None:
    """Hop by hop: rank r goes on when it has sent its chunk, and has received the chunk of rank r - 1."""
    workers = data.draw(st.integers(2, 9))
    large, short, more = (
        data.draw(st.integers(1, workers - 1)),
        data.draw(st.integers(0, 9)),
        data.draw(st.integers(0, 9)),
    )
    earlier = data.draw(
        st.lists(st.integers(0, 99), min_size=workers - 1, max_size=workers - 1).map(lambda rest: [0, *rest])
    )
    earlier = data.draw(st.permutations(earlier))
    clocks = [-each for each in earlier]
    for behind in (1, 0):  # reduce-scatter, all-gather
        for step in range(workers - 1):
            hops = [short + more * ((rank - step - behind) % workers < large) for rank in range(workers)]
            sent = [clock + hop for clock, hop in zip(clocks, hops, strict=True)]
            clocks = [max(sent[rank], sent[rank - 1]) for rank in range(workers)]
    latest = 2 * (workers - 1) * (short + more)
    assert after_ring(np.array(earlier), large, more).tolist() == [latest - clock for clock in clocks]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"topology": "fat-tree"}, "formulas are for a star whose links are all alike, not for fat-tree"),
        ({"topology": "star:up=1Mbps"}, "formulas are for a star"),
        ({"algorithm": "gtopk", "workers": 6, "rounds": 2}, "ranks are not in step"),
        ({"algorithm": "gtopk-hier", "workers": 6, "group_size": 4}, "groups have different sizes, such as 2 and 4"),
    ],
)
def test_formulas_are_refused_where_they_do_not_hold(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InfeasibleError, match=why):
        results_of("closed-form", **({"algorithm": "topk", "workers": 4, "elements": 1000} | options))


def test_an_early_sender_shares_its_targets_link() -> None:
    """Three workers, by hand: ranks 1 and 2 send to rank 0 at once, so both take α + 2mβ; then down twice."""
    alpha, message = 50e-6, 8 * 80 / 1e6
    (result,) = results_of("closed-form", workers=3, elements=100, k=10, algorithm="gtopk", bandwidth="1Mbps")
    assert result.round_time_s == pytest.approx(alpha + 2 * message + 2 * (alpha + message), rel=1e-12)


@pytest.mark.slow
def test_a_great_many_workers_are_solved_by_formulas_whatever_the_algorithm() -> None:
    """Without a server, all bytes that are sent are received by workers."""
    workers = 65_536
    for name in ALGORITHMS:
        if name != "dense-double-tree":  # two coroutines at a time
            (result,) = results_of("auto", workers=workers, elements=25_000_000, algorithm=name)
            assert result.way == "closed-form", name
            if not ALGORITHMS[name].uses_server:
                sent = sum(result.bytes_sent_by_rank) / result.rounds
                assert result.bytes_down * workers == pytest.approx(sent, rel=1e-12), name


@pytest.mark.slow
def test_a_million_workers() -> None:
    """2 log₂P (α + mβ), 2(P-1)(α + ⌈d/P⌉β) and 2(α + (P-1) d β): worked out by hand."""
    options = {"workers": 2**20, "elements": 2**20, "k": 1000, "algorithm": "gtopk,dense,ps"}
    found = {result.algorithm: result.round_time_s for result in results_of("closed-form", **options)}
    assert found["gtopk"] == pytest.approx(40 * (50e-6 + 64e-6), rel=1e-12)
    assert found["dense"] == pytest.approx(2 * (2**20 - 1) * (50e-6 + 32e-9), rel=1e-12)
    assert found["ps"] == pytest.approx(2 * (50e-6 + (2**20 - 1) * 2**20 * 32e-9), rel=1e-12)


def test_the_order_is_looked_at_as_far_as_rounds_make_it_cheap() -> None:
    """Rings of 256 workers are 130,560 messages, too many to be simulated one by one for a sentence."""
    options = {"elements": 2000, "algorithm": "dense,dense-tree", "bandwidth": "100Mbps", "latency": "10us"}
    for workers, largest in ((32, 64), (256, 128)):  # the run itself has 256
        sentence = netsim.simulate(workers=workers, timing_only=True, **options).conclusion[-1]
        assert f", {largest} workers on this network" in sentence
    one_by_one = netsim.simulate(workers=100, timing_only=True, engine="event", **options).conclusion[-1]
    assert ", 64 workers on this network" in one_by_one


def test_a_step_that_repeats_is_played_once() -> None:
    options = {"workers": 8, "elements": 1000, "algorithm": "gtopk", "compute_time": "1ms", "merge_time": "10us"}
    (one,), (other,) = results_of("event", rounds=50, **options), results_of("auto", rounds=50, **options)
    assert other.way == "memoised"
    same_but_for_the_way(one, other)
    (warming,) = results_of("auto", rounds=50, density_warmup=10, **options)
    assert warming.way == "memoised"
    same_but_for_the_way(warming, results_of("event", rounds=50, density_warmup=10, **options)[0])


def test_ranks_out_of_step_are_not_taken_for_a_step_that_repeats() -> None:
    """With 7 workers a ring of uneven chunks ends at different instants, and the next round begins at those."""
    options = {"workers": 7, "elements": 10, "algorithm": "dense", "latency": "1ns", "bandwidth": "1Mbps", "rounds": 9}
    same_but_for_the_way(results_of("event", **options)[0], results_of("auto", **options)[0])


def test_one_worker_begins_an_exchange_without_messages_beside_its_steps() -> None:
    options = {"workers": 1, "elements": 100, "algorithm": "streaming-diloco:h=4,fragments=2", "compute_time": "1ms"}
    same_but_for_the_way(results_of("event", **options)[0], results_of("batched", **options)[0])


def record(program: Callable[[Worker], Any], workers: int = 4) -> SymmetryRecorder:
    recorder = SymmetryRecorder(RoleMap(workers), AssumedCosts({"merge": 1e-6}))
    recorder.run(program)
    return recorder


async def by_rank(worker: Worker) -> None:
    if worker.rank % 2:
        await ring_all_gather(worker, SizeOnly(5))


async def by_itself(worker: Worker) -> None:
    await worker.send(1, SizeOnly(5))


async def apart(worker: Worker) -> None:
    if worker.rank == 0:
        await ring_all_gather(worker, SizeOnly(5))


async def of_different_sizes(worker: Worker) -> None:
    await ring_all_gather(worker, SizeOnly(5 if worker.rank == 0 else 6))


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (by_rank, "depends on the rank"),
        (by_itself, "messages outside of schedules"),
        (apart, "the same collectives"),
        (of_different_sizes, "different sizes"),
    ],
)
def test_what_cannot_be_known_from_a_few_ranks_is_refused(program: Callable[[Worker], Any], why: str) -> None:
    with pytest.raises(NoScheduleError, match=why):
        record(program)


def test_an_engine_that_cannot_be_taken_says_why() -> None:
    with pytest.raises(InfeasibleError, match="links carry flows of different rounds"):
        results_of("batched", workers=3, elements=100, algorithm="gtopk")
    slowed = {"workers": 3, "elements": 100, "algorithm": "gtopk", "straggler": "1:2", "compute_time": "1ms"}
    with pytest.raises(
        InfeasibleError, match=r"'vectorized' cannot be taken for gtopk: effects were asked for; .*auto"
    ):
        results_of("vectorized", **slowed)
    (result,) = results_of("auto", **slowed)
    assert (result.way, result.way_reason) == ("messages", "effects were asked for")


@pytest.mark.parametrize(
    ("way", "engine"),
    [("messages", "event"), ("batched", "vectorized"), ("compiled", "vectorized"), ("closed-form", "vectorized")],
)
def test_a_config_that_names_a_way_is_read_as_its_engine(way: str, engine: str) -> None:
    config = Experiment(timing_only=True).config()
    del config["engine"]
    assert Experiment.from_config(config | {"way": way}).engine == engine
    assert Experiment.of(**config | {"way": way}).engine == engine


def test_rounds_that_share_links_with_each_other_are_noticed() -> None:
    """Rank 2 of three sends to rank 0 at once, while rank 1 still does."""
    experiment = Experiment(workers=3, timing_only=True, elements=1000, k=10)
    fabric, algorithm = experiment.fabric(), experiment.algorithm("gtopk", (1000,))
    recorder = SymmetryRecorder(RoleMap(3), AssumedCosts({}))
    recorder.run(
        lambda worker: train(
            worker, algorithm, TimingOnly(1000), 1, SGDConfig(0.1), lambda worker, _: recorder.end(worker)
        )
    )
    with pytest.raises(NoScheduleError, match="different rounds"):
        engines.StepPlayer(RankClocks(fabric, RoleMap(3)), recorder.steps)
