"""What interpreters owe an algorithm: order, frozen payloads, deadlock reports, shared work, time."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.compression import accelerate, accumulate_and_select, restore
from algorithms.randk import RandomKey, pick
from algorithms.selection import Selector
from netsim._util.errors import DeadlockError, ProtocolError
from netsim.comm.collectives import bruck_all_gather, ring_all_gather, tree_broadcast
from netsim.comm.payload import Bundle, Dense, Flag, SizeOnly, Sparse, add, in_place
from netsim.comm.worker import Compute, Worker
from netsim.network.fabric import Fabric
from netsim.simulator import critical_path
from netsim.simulator.compute_pool import ReplicaMemo
from netsim.simulator.critical_path import LONGEST, CriticalPath, sum_of
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.scheduler import InMemoryTransport, Operation, RankScheduler
from netsim.training.costs import AssumedCosts, MeasuredCosts
from netsim.training.sgd import Scaled, SGDConfig, weigh
from topologies import TOPOLOGIES
from topologies.builder import Shape

Program = Callable[[Worker], Coroutine[Any, Any, Any]]


def media(ranks: int) -> dict[str, Any]:
    fabric = Fabric(TOPOLOGIES["star"](Shape(ranks, 10**9, 50e-6)))
    return {"memory": InMemoryTransport(), "simulated": SimulatedTransport(fabric, fabric.hosts, AssumedCosts({}))}


def run(program: Program, ranks: int, transport: str) -> list[Any]:
    workers = [Worker(rank, ranks) for rank in range(ranks)]
    return [task.result for task in RankScheduler[Any](media(ranks)[transport]).run(workers, program)]


def vector(*values: float) -> Dense:
    return Dense(torch.tensor(values))


both = pytest.mark.parametrize("transport", ["memory", "simulated"])


@both
def test_messages_arrive_in_the_order_sent_even_if_a_later_one_is_smaller(transport: str) -> None:
    async def program(worker: Worker) -> list[int]:
        if worker.rank == 0:
            large, small = SizeOnly(10**6), SizeOnly(1)
            started = [await worker.start_send(1, payload) for payload in (large, small)]
            for handle in started:
                await handle
            return []
        return [(await worker.recv(0, template=SizeOnly(size))).size for size in (10**6, 1)]

    assert run(program, 2, transport)[1] == [10**6, 1]


@both
def test_tags_keep_messages_apart(transport: str) -> None:
    async def program(worker: Worker) -> list[float]:
        if worker.rank == 0:
            await worker.send(1, vector(1.0), tag=1)
            await worker.send(1, vector(2.0), tag=2)
            return []
        second = await worker.recv(0, template=vector(0.0), tag=2)
        first = await worker.recv(0, template=vector(0.0), tag=1)
        return [float(first.values), float(second.values)]

    assert run(program, 2, transport)[1] == [1.0, 2.0]


@both
def test_a_receive_without_a_send_is_reported_with_rank_peer_tag_and_step(transport: str) -> None:
    async def program(worker: Worker) -> None:
        worker.step = 7
        if worker.rank == 2:
            await worker.recv(0, template=vector(0.0), tag=5)

    with pytest.raises(DeadlockError, match=r"rank 2 waits for a message from rank 0 \(tag 5, .*step 7\) since"):
        run(program, 3, transport)


@both
def test_a_circle_of_receives_names_everybody_in_it(transport: str) -> None:
    async def program(worker: Worker) -> None:
        await worker.recv((worker.rank + 1) % 3, template=vector(0.0))

    with pytest.raises(DeadlockError) as error:
        run(program, 3, transport)
    assert all(f"rank {rank} waits for a message from rank {(rank + 1) % 3}" in str(error.value) for rank in range(3))


@both
def test_a_message_that_nobody_receives_is_reported(transport: str) -> None:
    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            await worker.send(1, vector(1.0, 2.0), tag=3)

    with pytest.raises(DeadlockError, match=r"rank 0 sent rank 1 a dense vector of 2 elements.*tag 3.*nobody received"):
        run(program, 2, transport)


def test_a_sender_that_changes_what_it_sent_is_caught() -> None:
    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            payload = vector(1.0)
            handle = await worker.start_send(1, payload)
            payload.values.add_(1)
            await handle
        else:
            await worker.recv(0, template=vector(0.0))

    with pytest.raises(ProtocolError, match=r"rank 1, .* from rank 0: the sender changed"):
        run(program, 2, "simulated")


@both
@pytest.mark.parametrize("wrong", [vector(1.0, 2.0), SizeOnly(1), Dense(torch.zeros(1, dtype=torch.float64))])
def test_a_payload_unlike_what_was_asked_for_is_refused(transport: str, wrong: Any) -> None:
    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            await worker.send(1, wrong)
        else:
            await worker.recv(0, template=vector(0.0))

    with pytest.raises(ProtocolError, match="expected a dense vector of 1 elements of float32"):
        run(program, 2, transport)


PAIR = Bundle((Flag(True), vector(0.0)))


@both
@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        (PAIR, None),
        (Bundle((Flag(False),)), None),
        (Bundle(()), None),
        (Bundle((Flag(True), vector(1.0, 2.0))), "part 1 of a bundle: received a dense vector of 2 elements"),
        (Bundle((vector(1.0), vector(1.0))), "part 0 of a bundle: received a dense vector .* expected a flag"),
        (Bundle((*PAIR.parts, vector(1.0))), "received a bundle of 3, expected a bundle of 2 at the most"),
        (vector(1.0), "received a dense vector .* expected a bundle of 2"),
    ],
    ids=["whole", "ends early", "empty", "larger part", "other kind", "too long", "no bundle"],
)
def test_a_bundle_is_checked_part_by_part(transport: str, sent: Any, refused: str | None) -> None:
    async def program(worker: Worker) -> Any:
        if worker.rank == 0:
            return await worker.send(1, sent)
        return await worker.recv(0, template=PAIR)

    if refused is None:
        assert run(program, 2, transport)[1] is sent
        return
    with pytest.raises(ProtocolError, match=f"rank 1, .* from rank 0.*{refused}"):
        run(program, 2, transport)


@both
def test_awaiting_something_foreign_is_explained(transport: str) -> None:
    class Foreign:
        def __await__(self) -> Any:
            return (yield self)

    async def program(worker: Worker) -> None:
        await Foreign()

    with pytest.raises(ProtocolError, match=r"not a netsim request"):
        run(program, 1, transport)


def test_a_rank_cannot_address_itself_or_nobody() -> None:
    worker = Worker(1, 3)
    for peer in (1, 3, -1):
        with pytest.raises(ValueError, match="expected another rank from 0 to 2"):
            worker.send(peer, vector(1.0))


@pytest.mark.parametrize("gather", [ring_all_gather, bruck_all_gather])
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 33))
def test_gathers_return_everyones_vector_in_rank_order(gather: Any, ranks: int) -> None:
    async def program(worker: Worker) -> list[float]:
        return [float(part.values) for part in await gather(worker, vector(float(worker.rank)))]

    assert run(program, ranks, "memory") == [[float(rank) for rank in range(ranks)]] * ranks


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 33))
def test_broadcast_reaches_everybody(ranks: int) -> None:
    async def program(worker: Worker) -> float:
        own = vector(42.0) if worker.rank == 0 else None
        return float((await tree_broadcast(worker, own, template=vector(0.0))).values)

    assert run(program, ranks, "simulated") == [42.0] * ranks


def test_replicated_work_is_done_once_and_forgotten_with_its_arguments() -> None:
    memo, calls = ReplicaMemo(), []

    def once(left: Dense, right: Dense, factor: int) -> Dense:
        calls.append(factor)
        return add(left, right)

    one, other = vector(1.0), vector(2.0)
    assert memo.call(once, (one, other, 3)) is memo.call(once, (one, other, 3))
    assert memo.call(once, (one, vector(2.0), 3)) is not memo.call(once, (one, other, 4))
    assert calls == [3, 3, 4]
    del one
    gc.collect()
    assert len(memo) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**16), st.sampled_from(sorted(TOPOLOGIES)))
def test_the_parts_of_every_path_sum_to_the_clock(ranks: int, seed: int, topology: str) -> None:
    """Each rank computes, sends and receives at random; its path must account for every picosecond."""
    fabric = Fabric(TOPOLOGIES[topology](Shape(ranks, 10**8, 50e-6)))
    transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts({"merge": 123e-6, "select": 7e-6}))
    ends: dict[int, int] = {}

    async def program(worker: Worker) -> None:
        for round_ in range(4):
            if (seed >> (worker.rank + round_)) & 1:
                await worker.compute("merge", add, SizeOnly(1), SizeOnly(1))
            await ring_all_gather(
                worker,
                SizeOnly(1 + (seed * (worker.rank + 1)) % 999),
                templates=[SizeOnly(1 + (seed * (rank + 1)) % 999) for rank in range(worker.workers)],
            )
            await worker.compute("select", add, SizeOnly(1), SizeOnly(1))
        ends[worker.rank] = transport.now

    tasks = RankScheduler[None](transport).run([Worker(rank, ranks) for rank in range(ranks)], program)
    for task in tasks:
        assert task.path.totals().total() == ends[task.worker.rank]


def test_a_long_path_keeps_its_totals_and_a_bounded_length() -> None:
    path = CriticalPath.start(5)
    for step in range(3 * LONGEST):
        path = path.then(("odd", "even")[step % 2 == 0], 2)
    totals = path.totals()
    assert (totals["start"], totals["odd"], totals["even"]) == (5, 3 * LONGEST, 3 * LONGEST)
    length, link = 0, path
    while link is not None:
        length, link = length + 1, link._previous
    assert length <= LONGEST + 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("abc"), st.integers(0, 9)), max_size=60), st.data())
def test_the_sum_of_paths_that_share_beginnings(events: list[tuple[int, str, int]], data: st.DataObject) -> None:
    """The totals of each path are counted here as it grows; short chains are summed up every few events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(critical_path, "LONGEST", 5)
        paths, counted = [CriticalPath.start(3)], [Counter({"start": 3})]
        for before, what, duration in events:
            paths.append(paths[before % len(paths)].then(what, duration))
            counted.append(counted[before % len(counted)] + Counter({what: duration}))
    chosen = data.draw(st.lists(st.integers(0, len(paths) - 1), max_size=9))
    assert sum_of([paths[one] for one in chosen]) == sum((counted[one] for one in chosen), Counter())


def test_a_run_leaves_no_cycles_that_would_keep_payloads_until_the_collector_comes() -> None:
    async def program(worker: Worker) -> None:
        for _ in range(20):
            await ring_all_gather(worker, vector(float(worker.rank)))

    gc.collect()
    gc.disable()
    try:
        run(program, 8, "simulated")
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, Dense | CriticalPath | Operation)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left, f"{len(left)} objects of 1,120 messages wait for the garbage collector"


# What is made of what nobody has seen.


@both
def test_an_argument_may_be_a_computation_that_is_charged_for_itself(transport: str) -> None:
    async def program(worker: Worker) -> float:
        inner = worker.compute("gradient", lambda: vector(2.0))
        middle = worker.compute("update", add, inner, vector(1.0))
        total = await worker.compute("merge", add, vector(10.0), middle)
        return float(total.values)

    assert run(program, 1, transport) == [13.0]
    fabric = Fabric(TOPOLOGIES["star"](Shape(2, 10**9, 50e-6)))
    costs = AssumedCosts({"gradient": 5e-6, "update": 3e-6, "merge": 1e-6})
    simulated = SimulatedTransport(fabric, fabric.hosts, costs)
    (task, _) = RankScheduler[float](simulated).run([Worker(rank, 2) for rank in range(2)], program)
    assert task.path.totals() == {"start": 0, "gradient": 5 * 10**6, "update": 3 * 10**6, "merge": 10**6}


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_what_is_asked_for_together_is_made_together_and_answered_in_turn(threads: int | None) -> None:
    made: list[list[int]] = []

    def many(calls: Sequence[tuple[int]]) -> Iterator[Dense]:
        made.append([number for (number,) in calls])
        return (vector(float(number)) for (number,) in calls)

    async def program(worker: Worker) -> list[float]:
        answers = []
        for _ in range(2):
            number: Compute[Dense] = Compute("gradient", pytest.fail, (worker.rank,), many=many)
            own = await worker.compute("merge", add, number, vector(0.5))
            answers.append(float(own.values))
            await worker.sendrecv((worker.rank + 1) % 6, own, (worker.rank - 1) % 6, template=own)
        return answers

    fabric = Fabric(TOPOLOGIES["star"](Shape(6, 10**9, 50e-6)))
    with ExitStack() as stack:
        pool = None if threads is None else stack.enter_context(ThreadPoolExecutor(threads))
        transport = SimulatedTransport(fabric, fabric.hosts, AssumedCosts({"gradient": 1e-3}), pool)
        tasks = RankScheduler[list[float]](transport).run([Worker(rank, 6) for rank in range(6)], program)
    assert [task.result for task in tasks] == [[rank + 0.5] * 2 for rank in range(6)]
    assert sorted(map(len, made)) == ([2] * 6 if threads == 3 else [6] * 2)
    assert sorted(rank for some in made for rank in some) == sorted([*range(6)] * 2)


def test_a_vector_written_by_numpy_counts_as_changed() -> None:
    """So a sender that works on what it sent is caught, whatever it works with."""

    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            residual = Dense(torch.ones(5))
            handle = await worker.start_send(1, residual)
            await worker.compute("merge", restore, residual, Sparse(torch.tensor([1]).int(), torch.ones(1), 5))
            await handle
        else:
            await worker.recv(0, template=Dense(torch.ones(5)))

    with pytest.raises(ProtocolError, match="the sender changed"):
        run(program, 2, "simulated")


def test_timing_a_computation_leaves_what_it_overwrites_alone() -> None:
    async def program(worker: Worker) -> list[float]:
        residual = Dense(torch.ones(4))
        fresh = worker.compute("gradient", lambda: Dense(torch.tensor([1.0, 5.0, 2.0, 3.0])))
        selected = await worker.compute("select", accumulate_and_select, residual, fresh, Selector(1))
        assert isinstance(selected.rest, Dense)
        return [*selected.rest.values.tolist(), *selected.local.values.tolist()]  # type: ignore[union-attr]

    fabric = Fabric(TOPOLOGIES["star"](Shape(2, 10**9, 50e-6)))
    transport = SimulatedTransport(fabric, fabric.hosts, MeasuredCosts({}))
    (task, _) = RankScheduler[list[float]](transport).run([Worker(rank, 2) for rank in range(2)], program)
    assert task.result == [2.0, 0.0, 3.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("function", "own"),
    [
        (pick, RandomKey(Selector(2), 0, 0, 0)),
        (accumulate_and_select, Selector(2, how="sampled")),
        (accumulate_and_select, Selector(2)),
        (accelerate, 0.9),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_timed_call_gets_the_same_arguments(function: Callable[..., Any], own: Any) -> None:
    """A gradient that one call multiplied by γ would be γⁿ times itself in the n-th, and then 0: nothing to select."""
    gradient = torch.tensor([1.0, 5.0, 2.0, 3.0])
    seen: list[tuple[list[float], list[float]]] = []

    @in_place
    def watched(memory: Dense, vector: Scaled, own: Any) -> Any:
        seen.append((memory.values.tolist(), vector.vector.values.tolist()))
        return function(memory, vector, own)

    weighed = Compute("update", weigh, (Dense(gradient), Dense(torch.zeros(4)), SGDConfig(0.1), 0))
    MeasuredCosts({}).picoseconds(Compute("select", watched, (Dense(torch.ones(4)), weighed, own)), lambda: None)
    assert len(seen) > 5
    assert all(arguments == ([1.0] * 4, [1.0, 5.0, 2.0, 3.0]) for arguments in seen)
