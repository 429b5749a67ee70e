"""With values, the vectorised engine gives what the event engine gives: the same bits, bytes, instants and reasons."""

from __future__ import annotations

import weakref
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from algorithms import ALGORITHMS
from netsim._util.errors import InfeasibleError
from netsim.comm.collectives import bruck_all_gather
from netsim.comm.payload import Dense, Vector, add, add_all
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.simulator import session
from netsim.simulator.rehearsal import RandomGradients
from netsim.simulator.session import Session
from netsim.training.algorithm import Algorithm
from netsim.training.costs import AssumedCosts, Rate, RatedCosts, ReportedCosts
from tests.engines import without_the_way
from tests.named import with_own

TENSORS = (40, 7, 54)


class SomeGradients(RandomGradients):
    """Random gradients, of which every third element is 0, so that a vector may have fewer non-zeros than k."""

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        gradient = super().gradient(parameters, rank, step)
        gradient.values[(rank + step) % 3 :: 3] = 0
        return gradient


@pytest.fixture(autouse=True)
def without_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random gradients have no loss."""
    monkeypatch.setattr(session, "final_quality", lambda task, parameters: {"final_loss": None, "final_accuracy": None})


def session_of(engine: str, costs: ReportedCosts | None = None, **options: Any) -> Session:
    """Return a session with a task of random gradients."""
    experiment = Experiment.of(engine=engine, workload="digits-mlp", **with_own({"k": 9, "rounds": 3} | options))
    return Session(
        experiment, SomeGradients(sum(TENSORS)), TENSORS, costs or AssumedCosts(experiment.assumed_costs()), "cpu"
    )


def result_of(engine: str, costs: ReportedCosts | None = None, **options: Any) -> Result:
    """Return a result with values, on a task of random gradients."""
    made = session_of(engine, costs, **options)
    (name,) = made.experiment.algorithms
    return made.simulate(name)


class CountedGradients(SomeGradients):
    """Random gradients; `most` is the largest number of them that were in memory at the same time."""

    most = 0

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        gradient = super().gradient(parameters, rank, step)
        self._alive = {each for each in getattr(self, "_alive", set()) if each() is not None}
        self._alive.add(weakref.ref(gradient.values))
        self.most = max(self.most, len(self._alive))
        return gradient


def test_gradients_of_a_round_are_dropped_before_those_of_the_next_are_computed() -> None:
    made = session_of("auto", algorithm="dense", workers=5)
    made.task = counted = CountedGradients(sum(TENSORS))
    made.simulate("dense")
    assert counted.most == 5


CHARGES = {"compute_time": "1ms", "select_time": "100us", "merge_time": "7us"}


def same_from_both(**options: Any) -> Result:
    """Compare the two engines in everything but their names; return the result of `auto`."""
    one, other = (result_of(engine, **options) for engine in ("event", "auto"))
    assert without_the_way(one) == without_the_way(other)
    assert one.parameters_sha256 is not None
    return other


TOPOLOGIES = ("star", "racks:size=2", "ring")


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm(name: str, workers: int) -> None:
    topology = TOPOLOGIES[(workers + crc32(name.encode())) % 3]  # a new algorithm leaves the others where they are
    found = same_from_both(algorithm=name, workers=workers, topology=topology, momentum=0.9, **CHARGES)
    apart = name in ("dense-double-tree", "oktopk")  # with values, Ok-Topk balances by messages outside of schedules
    if not apart and (topology == "star" or name == "dense") and workers in (2, 8):
        assert found.way in ("batched", "memoised")


@pytest.mark.slow
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("workers", [3, 8])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_on_every_topology(name: str, workers: int, topology: str) -> None:
    """Of three workers and of a power of two; the test above has all pairs of algorithm, topology and workers."""
    same_from_both(algorithm=name, workers=workers, topology=topology, momentum=0.9, **CHARGES)


def test_steps_that_share_links_are_simulated_message_by_message() -> None:
    """Of three workers, rank 2 has no partner in the first round of a tree, and sends to rank 0 as rank 1 does."""
    found = same_from_both(algorithm="gtopk", workers=3, **CHARGES)
    assert (found.way, found.way_reason) == ("messages", "links carry flows of different rounds at a time")
    with pytest.raises(InfeasibleError, match="cannot be taken for dense-double-tree: messages are sent"):
        result_of("vectorized", algorithm="dense-double-tree", workers=3)


@pytest.mark.parametrize(("algorithm", "workers"), [("gtopk", 3), ("lasg-wk1", 4), ("dense", 4)])
def test_a_recording_is_timed_on_any_network_as_if_it_had_been_trained_there(algorithm: str, workers: int) -> None:
    """Also twice, and where the recording is played message by message (gtopk)."""
    options = {"algorithm": algorithm, "workers": workers, **CHARGES}
    made = session_of("auto", bandwidth="1Gbps", **options)
    recording = made.record(made.experiment.algorithm(algorithm, TENSORS))
    for bandwidth in ("1Mbps", "1Gbps", "1Mbps"):
        there = session_of("event", bandwidth=bandwidth, **options)
        found = made.time_recording(recording, there.experiment.fabric())
        assert without_the_way(found) == without_the_way(there.simulate(algorithm))


times = st.sampled_from([None, "1us", "300us", "7ms"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workers=st.integers(1, 9),
    algorithm=st.sampled_from(list(ALGORITHMS)),
    topology=st.sampled_from(["star", "star:up=300Mbps", "ps", "racks:size=3,uplink=500Mbps", "ring", "tree"]),
    latency=st.sampled_from(["1ns", "50us", "3ms"]),
    bandwidth=st.sampled_from(["1Mbps", "1Gbps"]),
    placement=st.sampled_from(["rank-order", "random"]),
    rounds=st.integers(1, 4),
    k=st.integers(1, 90),
    density_warmup=st.integers(0, 2),
    gather=st.sampled_from(["ring", "bruck"]),
    segment=st.sampled_from(["auto", "none", "16B"]),
    residual=st.sampled_from(["keep-at-merge", "index-intersection"]),
    serial_server=st.booleans(),
    history=st.integers(1, 3),
    compute_time=times,
    select_time=times,
    merge_time=times,
)
def test_both_engines_agree(**options: Any) -> None:
    same_from_both(**options)


def test_a_rate_an_entry_charges_ranks_differently() -> None:
    """The number of entries that a merge drops depends on the values; restoring them is charged by that number."""
    rates = {
        "restore": Rate(1e-6, 1e-6),
        "sparse_merge": Rate(2e-6, 3e-7),
        "accumulate_and_select": Rate(5e-6, 0, 1e-8),
    }
    costs = RatedCosts(rates, set(), AssumedCosts({"gradient": 1e-3}))
    one, other = (result_of(engine, costs, algorithm="gtopk", workers=8) for engine in ("event", "auto"))
    assert without_the_way(one) == without_the_way(other)
    assert other.way == "batched"  # no two steps take the same time


@pytest.mark.parametrize("algorithm", ["dense", "dense-tree", "topk", "gtopk", "randk", "ps"])
def test_values_of_half_precision(algorithm: str) -> None:
    assert same_from_both(algorithm=algorithm, workers=8, dtype="bf16", **CHARGES).way in ("batched", "memoised")


class ByHandLater(Algorithm):
    """Sums by a collective in the first step, and by messages of its own from then on."""

    name = "by-hand-later"

    async def exchange(self, worker: Worker, vector: Any, memory: None, template: Vector) -> tuple[Vector, None]:
        if worker.step == 0:
            return await worker.replicated("merge", add_all, *await bruck_all_gather(worker, vector)), None
        other = await worker.sendrecv(1 - worker.rank, vector, 1 - worker.rank, template)
        return await worker.compute("merge", add, vector, other), None


def test_a_message_of_its_own_in_a_later_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, ByHandLater.name, ByHandLater)
    found = same_from_both(algorithm=ByHandLater.name, workers=2, **CHARGES)
    assert (found.way, str(found.way_reason)[:42]) == ("messages", "it sends messages outside of schedules, or")
