"""Predicted against measured: the model of sends in closed form, statistics, and the command on a real cluster."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import simpy

import netsim
from netsim._util import system
from netsim._util.system import busy_share, inhibit_cpu_idle
from netsim._util.units import PICOSECONDS
from netsim.cli.main import main
from netsim.cluster import plan
from netsim.cluster.framing import Wire
from netsim.cluster.plan import Cluster, Shaping
from netsim.comm.payload import SizeOnly
from netsim.comm.worker import Sends, Worker
from netsim.network.fabric import Fabric, Link, Route
from netsim.simulator.scheduler import RankScheduler
from netsim.testbed.campaign import Setting, compare, stored_record
from netsim.testbed.cells import Cell
from netsim.testbed.comparison import Comparison, interval_of_median
from netsim.testbed.cpu_model import Processors
from netsim.testbed.exchanges import COLLECTIVES, EXCHANGES, permutation
from netsim.testbed.host_model import COOLING_S, START_DELAY_S, HostTerms, HostTransport
from netsim.testbed.local_work import TimedTransport
from netsim.testbed.p2p_fits import host_terms, profile_terms
from netsim.testbed.p2p_measurements import REQUIRED_KEYS, P2PMeasurements, averaged
from netsim.testbed.pingpong import Trips, ping_pong
from netsim.testbed.predict import ClusterModel, predicted_exchange
from netsim.testbed.shaped_links import ShapedNetwork
from netsim.testbed.simultaneous_start import IDLE_MARGIN_S, idle_until_all_done
from netsim.testbed.validation import conclude
from netsim.training.costs import AssumedCosts
from tests.cluster import why_no_cluster
from tests.test_calibration import profile
from tests.test_shaped import FRAME, RATE

NO_ACKS = Wire(header_bytes=66, ack_bytes=0)
IDEAL = HostTerms()


def predicted(exchange: str, size: int, ranks: int, sends: Sends, wire: Wire = NO_ACKS) -> float:
    fabric = Fabric(Cluster(ranks=ranks, bandwidth_bps=RATE).graph())
    return max(predicted_exchange(exchange, size, sends, fabric, wire, IDEAL))


def drain(nbytes: float, wire: Wire = NO_ACKS) -> float:
    return 8 * wire.bytes_of(math.ceil(nbytes)) / RATE


def test_a_message_is_frames_of_1448_bytes_with_66_of_headers_as_a_veth_counts_them() -> None:
    wire = Wire(header_bytes=66, ack_bytes=66)
    assert wire.bytes_of(1448 - 176) == 1514
    assert wire.bytes_of(1448 - 175) == 1449 + 2 * 66
    assert wire.ack_share == pytest.approx(33 / 1514)


@pytest.mark.parametrize("ranks", [4, 8, 16])
def test_exchanges_on_ideal_hosts_take_their_closed_forms(ranks: int) -> None:
    size, levels = 1_600_000, int(math.log2(ranks))
    chunk, whole = drain(size / ranks), drain(size)
    assert predicted("ring-all-reduce", size, ranks, "eager") == pytest.approx(2 * (ranks - 1) * chunk, rel=1e-9)
    assert predicted("all-gather", size, ranks, "eager") == pytest.approx((ranks - 1) * whole, rel=1e-9)
    assert predicted("ps-in", size, ranks, "eager") == pytest.approx((ranks - 1) * whole, rel=1e-9)
    assert predicted("ps-out", size, ranks, "eager") == pytest.approx((ranks - 1) * whole, rel=1e-9)
    assert predicted("gtopk-tree", size, ranks, "rendezvous") == pytest.approx(2 * levels * whole, rel=1e-9)


def test_eager_sends_of_a_tree_share_the_roots_link_and_make_it_slower() -> None:
    # Of four ranks, the root sends to 2 and to 1 at once: both take two messages' time, then 2 passes it on to 3.
    whole = drain(10**6)
    assert predicted("gtopk-tree", 10**6, 4, "eager") == pytest.approx((2 + 2 + 1) * whole, rel=1e-9)
    assert predicted("gtopk-tree", 10**6, 4, "rendezvous") == pytest.approx((2 + 1 + 1) * whole, rel=1e-9)


def test_acknowledgements_take_room_where_a_link_carries_data_both_ways() -> None:
    wire = Wire(header_bytes=66, ack_bytes=66)
    share = 33 / 1514
    # In a ring every link also carries the acknowledgements of the neighbour's data; one-way traffic loses nothing.
    ring = predicted("ring-all-reduce", 1_600_000, 4, "eager", wire)
    assert ring == pytest.approx(6 * drain(400_000) * (1 + share), rel=1e-6)
    assert predicted("ps-in", 10**6, 4, "eager", wire) == pytest.approx(3 * drain(10**6), rel=1e-9)


DENSE = SizeOnly(25_000)


def one_message(
    terms: HostTerms, sends: Sends, wire: Wire, late_s: float = 0.0, payload: SizeOnly = DENSE
) -> tuple[float, float]:
    """Return when one message of 100 kB is there, and when its sender goes on; its receiver comes `late_s`."""
    fabric = Fabric(Cluster(ranks=2, bandwidth_bps=RATE).graph())
    transport = HostTransport(fabric, wire, terms, AssumedCosts({"gradient": late_s}), sends)
    ends = [0.0, 0.0]

    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            await worker.send(1, payload)
        else:
            await worker.compute("gradient", lambda: None)
            await worker.recv(0, template=payload)
        ends[worker.rank] = transport.now / PICOSECONDS

    RankScheduler[None](transport).run([Worker(0, 2), Worker(1, 2)], program)
    return ends[1], ends[0]


def test_no_data_leaves_before_the_receiver_is_there() -> None:
    terms = HostTerms(wake_warm_s=3e-4, wake_cold_s=3e-4, cpu_per_message_s=3e-4, delivery_lag_s_per_byte=1e-9)
    taken_in = 1e-4 + 2 * 3e-4 + 1e-4  # its last byte is late, then two threads wake, and the receiver works
    there, sent = one_message(terms, "eager", NO_ACKS)
    assert sent == pytest.approx(1e-4 + 3e-4, rel=1e-6)  # the receiver expects it, and the sender hears of that
    assert there == pytest.approx(sent + drain(100_000) + taken_in, rel=1e-6)
    late, sent_late = one_message(terms, "eager", NO_ACKS, late_s=0.05)
    assert sent_late == pytest.approx(0.05 + sent, rel=1e-6)
    assert late == pytest.approx(sent_late + drain(100_000) + taken_in, rel=1e-6)
    assert one_message(terms, "rendezvous", NO_ACKS)[1] == pytest.approx(there + 2 * 3e-4, rel=1e-6)


def test_a_header_goes_before_what_only_its_sender_knows_the_size_of() -> None:
    terms = HostTerms(wake_warm_s=3e-4, wake_cold_s=3e-4, cpu_per_message_s=3e-4, header_cpu_s=5e-4)
    known, _ = one_message(terms, "eager", NO_ACKS)
    announced, _ = one_message(terms, "eager", NO_ACKS, payload=SizeOnly(10**6, 12_500))
    # The header wakes two threads of the receiver, which works, and says that it is ready, which wakes the sender's.
    assert announced - known == pytest.approx(2 * 3e-4 + 5e-4 + 3e-4, rel=1e-6)


def grown(at_once: float, at_last: float, still_s: float) -> float:
    return at_last - (at_last - at_once) * math.exp(-still_s / COOLING_S)


def test_a_computation_takes_more_than_its_bytes() -> None:
    fabric = Fabric(Cluster(ranks=2, bandwidth_bps=RATE).graph())
    transport = HostTransport(fabric, NO_ACKS, HostTerms(call_s=1e-4), AssumedCosts({"merge": 1e-3}))
    ends: list[float] = []

    async def program(worker: Worker) -> None:
        for _ in range(2):
            await worker.compute("merge", lambda: None)
            ends.append(transport.now / PICOSECONDS)

    RankScheduler[None](transport).run([Worker(0, 1)], program)
    assert ends == pytest.approx([1.1e-3, 2.2e-3], rel=1e-9)


def test_caches_forget_while_processors_do_something_else_than_messages() -> None:
    environment = simpy.Environment()
    processors = Processors(environment, 3, 2)
    ends: list[float] = []

    def ended() -> None:
        ends.append(environment.now / 1e12)

    # Three ranks share two cores, 2/3 of a core each, until the shorter work on a message ends.
    processors.run(0, 10**12, ended)
    processors.run(1, 5 * 10**11, ended)
    processors.run(2, 10**12, ended, on_message=False)
    environment.run()
    assert ends == pytest.approx([0.75, 1.25, 1.25])
    # Messages want two cores at first, and then one of two.
    assert processors.idle_ps(0) == pytest.approx(0.5 * 0.5 * 10**12)


def ends_of_two(terms: HostTerms, pause_s: float) -> list[float]:
    """Return when two small messages are there, of which one leaves so long after its sender is done with the other."""
    fabric = Fabric(Cluster(ranks=2, bandwidth_bps=RATE).graph())
    wire = Wire(header_bytes=66, ack_bytes=0, burst_bytes=4096)
    transport = HostTransport(fabric, wire, terms, AssumedCosts({"gradient": pause_s}))
    ends: list[float] = []

    async def program(worker: Worker) -> None:
        for _ in range(2):
            if worker.rank == 0:
                await worker.send(1, SizeOnly(1))
                await worker.compute("gradient", lambda: None)
            else:
                await worker.recv(0, template=SizeOnly(1))
                ends.append(transport.now / PICOSECONDS)

    RankScheduler[None](transport).run([Worker(0, 2), Worker(1, 2)], program)
    return ends


@pytest.mark.parametrize("pause_s", [0.002, 0.006, 0.05])
def test_threads_sleep_ever_deeper_while_processors_have_nothing_to_do_with_messages(pause_s: float) -> None:
    first, second = ends_of_two(HostTerms(wake_warm_s=1e-4, wake_cold_s=3e-4), pause_s)
    # The sender's thread hears that the first is expected; then the receiver's two wake, of which one just did that.
    assert first == pytest.approx(2 * grown(1e-4, 3e-4, START_DELAY_S) + 1e-4, rel=0.02)
    # The second has been expected for long when it leaves.
    left = grown(1e-4, 3e-4, START_DELAY_S) + pause_s
    assert second - left == pytest.approx(2 * grown(1e-4, 3e-4, pause_s), rel=0.1)


def test_an_idle_link_lets_its_credit_through_at_once_and_earns_it_back() -> None:
    wire = Wire(header_bytes=66, ack_bytes=0, burst_bytes=4096)
    there, _ = one_message(IDEAL, "eager", wire)
    assert there == pytest.approx(drain(100_000) - 8 * 4096 / RATE, rel=1e-9)
    environment = simpy.Environment()
    network = ShapedNetwork(environment, wire)
    link, back = Link(0, "a", "b", RATE, 0.0), Link(1, "b", "a", RATE, 0.0)
    ends: list[float] = []

    def send(nbytes: int) -> None:
        network.start(
            Route((link,), 0), Route((back,), 0), nbytes, lambda _: ends.append(environment.now / PICOSECONDS)
        )

    def feed() -> Iterator[Any]:
        send(4096)  # all credit
        yield environment.timeout(round(0.5 * 8 * 4096 / RATE * PICOSECONDS))  # half of it is earned back
        send(4096)

    environment.process(feed())
    environment.run()
    assert ends[0] == 0
    assert ends[1] == pytest.approx((0.5 + 0.5) * 8 * 4096 / RATE, rel=1e-9)


@pytest.mark.parametrize(
    ("ranks", "mbps", "shaping", "gso_segments"),
    # Up to 100 Mbit/s in all every frame by itself, beyond in proportion, and eight at the most.
    [
        *((4, 25, "fair", 1), (4, 50, "fair", 2), (8, 50, "fair", 4), (8, 100, "fair", 8), (16, 100, "fair", 8)),
        (16, 100, "tbf", 1),
    ],
)
def test_where_links_carry_much_in_all_frames_leave_together(
    ranks: int, mbps: int, shaping: Shaping, gso_segments: int
) -> None:
    cluster = Cluster(ranks=ranks, bandwidth_bps=mbps * 10**6, shaping=shaping)
    assert cluster.gso_segments == gso_segments
    assert cluster.wire.gso_segments == (gso_segments if shaping == "fair" else 0)
    assert f"gso_max_segs {gso_segments}\n" in plan.host(cluster, 0)
    assert plan.cables(cluster, ["1"] * ranks).count(f"gso_max_segs {gso_segments}\n") == ranks
    if shaping == "fair":
        assert f"quantum {gso_segments * FRAME}\n" in plan.host_shaping(cluster, 0)


def test_ranks_of_one_machine_share_its_cores() -> None:
    terms = HostTerms(cores=2)
    fabric = Fabric(Cluster(ranks=8, bandwidth_bps=RATE).graph())
    transport = HostTransport(fabric, NO_ACKS, terms, AssumedCosts({"gradient": 0.01}))

    async def program(worker: Worker) -> float:
        for _ in range(1 if worker.rank else 2):
            await worker.compute("gradient", lambda: None)
        return transport.now / PICOSECONDS

    tasks = RankScheduler[float](transport).run([Worker(rank, 8) for rank in range(8)], program)
    ends = [task.result for task in tasks]
    assert ends[1:] == [pytest.approx(0.04)] * 7  # eight computations on two cores
    assert ends[0] == pytest.approx(0.05)  # and one more, alone on one of them


def test_what_a_first_step_computes_is_not_charged_to_later_ones() -> None:
    transport = TimedTransport()

    async def program(worker: Worker) -> None:
        for step in range(4):
            worker.step = step
            await worker.compute("gradient", lambda: None)

    RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    assert [len(times) for times in transport.seconds.values()] == [2 * 3]


@pytest.mark.parametrize(
    ("values", "low", "high", "coverage"),
    # Of n values the extremes enclose the median unless all lie on one side of it: 1 - 2 / 2ⁿ.
    [([3, 1, 2], 1, 3, 0.75), (range(6), 0, 5, 1 - 2 / 64), (range(10), 1, 8, 1 - 2 * 11 / 1024), ([5], 5, 5, 0.0)],
)
def test_the_interval_of_the_median_is_that_of_order_statistics(
    values: list[float], low: float, high: float, coverage: float
) -> None:
    assert interval_of_median(values) == (low, high, pytest.approx(coverage))


def test_processors_are_busy_for_what_they_worked_of_all_spans_together() -> None:
    assert busy_share(((0, 0), (3, 4)), ((10, 100), (10, 106))) == 3 / 10
    assert busy_share(((5, 9), (5, 9))) is None
    assert busy_share() is None
    ticks = os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
    assert busy_share(((0, 0), (3, 4)), seconds=6 / ticks) == pytest.approx(3 / 6)  # of what was not keeping still
    assert busy_share(((0, 0), (3, 4)), seconds=2 / ticks) == 1.0  # ticks are coarse
    assert busy_share(((5, 9), (5, 9)), seconds=1.0) is None


def test_processors_are_kept_awake_while_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "latency"

    def held() -> bool:
        return any(number.resolve() == asked for number in Path("/proc/self/fd").iterdir())

    monkeypatch.setattr(system, "AWAKE", asked)
    with inhibit_cpu_idle() as awake:
        assert (awake, held(), asked.read_bytes()) == (True, True, bytes(4))  # microseconds, a number of 32 bits
    assert not held()
    monkeypatch.setattr(system, "AWAKE", tmp_path / "there is" / "no such file")
    with inhibit_cpu_idle() as awake:
        assert not awake


def test_who_is_done_keeps_still_until_the_last_should_be() -> None:
    began = time.monotonic()
    idle_until_all_done(began, 0.05)
    assert time.monotonic() >= began + 0.05 + IDLE_MARGIN_S
    idle_until_all_done(began - 1, 0.05)  # it is late already


@pytest.mark.parametrize(("busy", "told"), [(None, False), (0.84, False), (0.97, True)])
def test_who_measures_busy_processors_is_told_so(busy: float | None, told: bool) -> None:
    def row(title: str, share: float | None) -> Comparison:
        what: dict[str, Any] = {"kind": "exchange", "algorithm": "any", "title": title, "bytes": 400_000}
        where = {"workers": 16, "network": "fair 100 Mbit/s", "sends": "eager", "processors_busy": share}
        return Comparison.of(1.0, [1.5], 1.0, **what, **where)

    sentences = conclude([row("all-gather", busy), row("gTop-k tree", 0.3)], 1.0)
    said = [sentence for sentence in sentences if "busy" in sentence]
    assert len(said) == told
    assert all("In 1 of 2 " in each and "97% busy during all-gather, P = 16" in each for each in said)


CROWD, CORES, LARGE = 9, 2, 10**6
"""Ranks and cores of a simulated machine, and bytes of the large message."""


def simulated_results(
    terms: HostTerms, wire: Wire, program: Callable[[Worker, HostTransport], Coroutine[Any, Any, Any]]
) -> list[Any]:
    """Return what ``program(worker, transport)`` returns on each rank of a machine with these terms."""
    fabric = Fabric(Cluster(ranks=CROWD, bandwidth_bps=RATE).graph())
    transport = HostTransport(fabric, wire, terms, AssumedCosts({"gradient": START_DELAY_S}))
    workers = [Worker(rank, CROWD) for rank in range(CROWD)]
    tasks = RankScheduler[Any](transport).run(workers, lambda worker: program(worker, transport))
    return [task.result for task in tasks]


def simulated_p2p(terms: HostTerms, wire: Wire) -> P2PMeasurements:
    """Measure what :func:`netsim.testbed.p2p_measurements.measure_p2p` does, on a simulated machine."""

    def idle(payload: SizeOnly) -> tuple[float, float]:
        """Seconds of a message between two ranks that were idle, and of adding it."""

        async def program(worker: Worker, transport: HostTransport) -> list[int]:
            if worker.rank == 0:
                await worker.compute("gradient", lambda: None)  # idle: a computation is no work on a message
                began = transport.now
                await worker.send(1, payload)
                return [began]
            if worker.rank > 1:
                return []
            await worker.recv(0, template=payload)
            received = transport.now
            await worker.compute("merge", lambda: None)
            return [received, transport.now]

        (began,), (received, added), *_ = simulated_results(terms, wire, program)
        return (received - began) / PICOSECONDS, (added - received) / PICOSECONDS

    def concurrent(payload: SizeOnly) -> float:
        """Seconds of one of many messages that every rank sends and receives."""

        async def send(worker: Worker, messages: int) -> None:
            for _ in range(messages):
                await permutation(worker, payload)

        async def program(worker: Worker, transport: HostTransport) -> float:
            for _ in range(worker.rank):  # ranks start one after another; in step, all would wait for threads at once
                await worker.compute("update", lambda: None)
            await send(worker, 10)
            began = transport.now
            await send(worker, 40)
            return (transport.now - began) / PICOSECONDS / 40

        return statistics.median(simulated_results(terms, wire, program))

    async def to_and_fro(worker: Worker, transport: HostTransport) -> list[Trips]:
        return await ping_pong(worker, lambda: transport.now / PICOSECONDS, lambda: 0.0, 1.0, [4])

    (small_s, merge_s), (large_s, _) = idle(SizeOnly(1)), idle(SizeOnly(LARGE // 4))
    return P2PMeasurements(
        idle_small_s=small_s,
        idle_large_s=large_s,
        warm_small_s=statistics.median(simulated_results(terms, wire, to_and_fro)[0][0].one_way_s),
        concurrent_small_s=concurrent(SizeOnly(1)),
        concurrent_header_s=concurrent(SizeOnly(10, 1)),
        large_bytes=LARGE,
        ranks=CROWD,
        start_delay_s=START_DELAY_S,
        merge_s=merge_s,
    )


@pytest.mark.parametrize(("warm", "work"), [(1e-4, 2e-4), (0.0, 1e-4)])
def test_the_terms_of_a_simulated_machine_are_found_again(warm: float, work: float) -> None:
    terms = HostTerms(
        wake_warm_s=warm,
        wake_cold_s=3e-4,
        cpu_per_message_s=work,
        delivery_lag_s_per_byte=1e-9,
        cores=CORES,
        header_cpu_s=1.5e-4,
        call_s=1e-4,
    )
    wire = Wire(header_bytes=66, burst_bytes=4096, gso_segments=4)
    measured = simulated_p2p(terms, wire)
    found = host_terms(measured, wire, RATE, CORES)
    # Threads that were idle for 20 ms have cooled to 1 - exp(-20 / 6), 96 %; between two messages they cool a little.
    for name, value in asdict(terms).items():
        assert getattr(found, name) == pytest.approx(value, rel=0.05, abs=0.05 * 3e-4 if "wake" in name else 0.0), name
    # Where all have a core, as many at once take as long as one, and all that a message takes may be work.
    alone = host_terms(measured, wire, RATE, None)
    assert alone.cpu_per_message_s == min(measured.idle_small_s, measured.concurrent_small_s)


@pytest.mark.parametrize("crowd", [1e-4, 4e-4])
def test_where_processors_are_short_a_message_is_the_work_that_a_crowd_says(crowd: float) -> None:
    """Be it more than a message to and fro takes in all, of two ranks whose caches are warm."""
    points = dict.fromkeys(REQUIRED_KEYS, 0.0) | {
        "small_s": 5e-4,
        "busy_s": 1.5e-4,
        "ranks": 16,
        "crowd_s": crowd * 16 / 2,
    }
    measured = P2PMeasurements.from_json(points | {"large_bytes": 1})
    found = host_terms(measured, NO_ACKS, RATE, 2)
    assert found.cpu_per_message_s == pytest.approx(crowd)
    assert found.wake_warm_s == pytest.approx(max(0.0, 1.5e-4 - crowd * 2 / 3) / 2)


def test_what_an_earlier_netsim_measured_too_little_of_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    assert stored_record(None) is None
    assert stored_record(file) is None
    for missing in REQUIRED_KEYS:
        file.write_text(json.dumps({"points": dict.fromkeys(REQUIRED_KEYS - {missing}, 1.0)}))
        assert stored_record(file) is None
    whole = {"points": dict.fromkeys(REQUIRED_KEYS, 1.0), "cells": [{"times": [1.0], "points": {}}]}
    file.write_text(json.dumps(whole))
    assert stored_record(file) == whole
    file.write_text(json.dumps(whole | {"cells": [{"times": [1.0]}]}))  # what processors did beside it is not known
    assert stored_record(file) is None


def test_a_setting_has_the_file_that_earlier_versions_gave_it() -> None:
    """The version whose sends were "acknowledged" named its file so."""
    cells = [Cell(name="tree-all-reduce", bytes=20_000, sends=sends, repeats=1) for sends in ("eager", "rendezvous")]
    setting = Setting(cluster=Cluster(ranks=3, bandwidth_bps=100_000_000), cells=tuple(cells), timeout_s=60.0)
    assert setting.file(Path("folder")) == Path("folder/71a111f628d4928b.json")


def test_a_cell_is_predicted_with_what_processors_did_beside_it() -> None:
    """A ring of small messages is slower by as much as ranks' work, where they have one core."""
    points = dict.fromkeys(REQUIRED_KEYS, 0.0) | {"ranks": 4, "large_bytes": 1}
    cells = [Cell(name="ring-all-reduce", bytes=16, sends="eager", repeats=1)] * 2
    beside = [{"times": [1.0], "points": {"crowd_s": 4 * work, "small_s": work}} for work in (1e-3, 3e-3)]
    record = {"points": points, "cells": beside, "network": "any"}
    fabric = Fabric(Cluster(ranks=4, bandwidth_bps=10**9).graph())
    model = ClusterModel(fabric, NO_ACKS, 10**9, 1)
    slow, slower = compare(cells, record, model, 1.0)
    # Six steps, in which four ranks take turns at a core to expect, pack and take in a message.
    assert slow.predicted_s == pytest.approx(6 * 4 * 1e-3, rel=0.01)
    assert slower.predicted_s == pytest.approx(6 * 4 * 3e-3, rel=0.01)


def test_measurements_of_several_rounds_are_averaged() -> None:
    known = P2PMeasurements.from_json(dict.fromkeys(REQUIRED_KEYS, 0.0) | {"ranks": 16})
    rounds = [replace(known, concurrent_small_s=seconds) for seconds in (1.0, 2.0, 6.0)]
    assert averaged(statistics.median, rounds) == replace(known, concurrent_small_s=2.0)
    assert averaged(statistics.fmean, rounds[:2]) == replace(known, concurrent_small_s=1.5)


def test_measurements_are_stored_with_the_keys_of_earlier_records() -> None:
    stored = dict.fromkeys(REQUIRED_KEYS, 0.5) | {"hosts": 2, "rest_s": 0.03}
    measured = P2PMeasurements.from_json(stored | {"before_others": True, "rounds": 3})
    assert measured.as_json() == stored
    assert (measured.hosts, measured.idle_margin_s, measured.warm_small_s) == (2, 0.03, 0.5)
    assert all(key.startswith(("crowd_", "merge_")) for key in measured.cpu_speed_json())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--local", "1"], "local 1 must be a whole number of at least 2, such as 8"),
        (["--local", "4", "--bandwidth", "100"], "has no unit"),
        (
            ["--local", "4", "--exchange", "ring-all-reduse"],
            "unknown exchange 'ring-all-reduse' (did you mean 'ring-all-reduce'?)",
        ),
        (["--local", "4", "--tolerance", "-1%"], "tolerance '-1%' must be more than zero"),
        (["--local", "4", "--send-mode", "lazy"], "unknown send-mode 'lazy'"),
        (["--local", "4", "--shaping", "fq"], "unknown shaping 'fq'"),
    ],
)
def test_wrong_options_are_named_before_anything_is_built(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", *options]) == 2
    assert message in capsys.readouterr().err


def test_titles_tell_exchanges_apart() -> None:
    assert len({exchange.title for exchange in EXCHANGES.values()}) == len(EXCHANGES)


def test_flows_of_two_racks_share_the_trunk() -> None:
    racks = Cluster(ranks=8, bandwidth_bps=RATE, trunk_bps=RATE)
    seconds = predicted_exchange("permutation", 10**6, "eager", Fabric(racks.graph()), NO_ACKS, IDEAL)
    whole = drain(10**6)
    # Rank r receives from r - 3: 3 and 7 from their own rack, the others over the trunk, three each way.
    assert seconds == [pytest.approx((1 if rank in (3, 7) else 3) * whole, rel=1e-9) for rank in range(8)]


@pytest.mark.real
@pytest.mark.skipif(bool(why_no_cluster()), reason=why_no_cluster())
@pytest.mark.slow
def test_a_real_cluster_is_measured_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "algorithm", str(tmp_path / "mine.py")]) == 0
    capsys.readouterr()
    own = f"{tmp_path}/mine.py:Mine:fraction=0.1"
    options = ["validate", "--local", "3", "--bandwidth", "50Mbps", "--sizes", "20KB", "--repeats", "2", "--json"]
    options += ["--algorithm", f"gtopk,dense,{own}", "--rounds", "1", "--density", "0.001", "--out", str(tmp_path)]
    assert main([*options, "--tolerance", "100000%"]) == 0
    said = capsys.readouterr()
    assert "measuring takes about" in said.err
    document = json.loads(said.out)
    rows = document["comparison"]
    assert {row["algorithm"] for row in rows} == {*COLLECTIVES, "gtopk", "dense", own}
    for row in rows:
        low, high = row["measured_ci_s"]
        assert low <= row["measured_s"] <= high
        assert row["error"] == pytest.approx(row["predicted_s"] / row["measured_s"] - 1)
        # 20 kB need 3.2 ms of 50 Mbit/s, and no cluster is faster than its links but for 4 kB of credit.
        assert row["measured_s"] > 2 * 1.5e-3
        assert 0 <= (row["processors_busy"] or 0.0) <= 1  # None where the kernel's counters did not move
        assert row["kind"] == "exchange" or row["processors_busy"] is None
    assert [row["same_parameters"] for row in rows if row["kind"] == "round"] == [True] * 3
    (record,) = [json.loads(file.read_text()) for file in (tmp_path / "points").glob("*.json")]
    assert record["points"]["rounds"] >= 2  # before all, and after all
    assert all(cell["points"]["crowd_s"] > 0 for cell in record["cells"])
    assert {path.name for path in tmp_path.iterdir()} >= {"validation.svg", "validation.csv", "validation.json"}
    # What was measured is not measured again, and the verdict is that of the tolerance.
    assert main([*options, "--tolerance", "0.000001%"]) == 4
    said = capsys.readouterr()
    assert "measured before" in said.err
    assert "measuring takes" not in said.err
    again = json.loads(said.out)["comparison"]
    assert [row["measured_s"] for row in again] == [row["measured_s"] for row in rows]
    assert {row["verdict"] for row in again} == {"off"}
    # For people, what is the same in all rows stands above them once.
    options.remove("--json")
    assert main([*options, "--tolerance", "100000%"]) == 0
    above, header, *_ = capsys.readouterr().out.splitlines()
    assert above == "P: 3; network: fair 50 Mbit/s"
    assert header.split()[:4] == ["what", "size", "sends", "predicted"]


@pytest.mark.parametrize("effects", [{}, {"message_overhead": "1ns"}])
def test_simulated_sends_may_be_eager_too(effects: dict[str, str]) -> None:
    # Without data, and but for the nanosecond, gTop-k's tree of four: 4 messages' time, or 5, as above.
    def round_s(sends: str | None) -> float:
        options: dict[str, Any] = {"timing_only": True, "elements": 10**6, "k": 10**5, "latency": "1ps"} | effects
        report = netsim.simulate(workers=4, algorithm="gtopk", bandwidth="100Mbps", sends=sends, **options)
        return report.results[0].round_time_s

    message = 8 * 8 * 10**5 / RATE
    assert round_s(None) == round_s("rendezvous") == pytest.approx(4 * message, rel=1e-6)
    assert round_s("eager") == pytest.approx(5 * message, rel=1e-6)


@pytest.mark.real
@pytest.mark.parametrize("sends", ["eager", "rendezvous"])
@pytest.mark.slow
def test_parameters_do_not_depend_on_how_messages_are_sent(sends: str) -> None:
    options = {"algorithm": "gtopk,ps", "rounds": 2, "workers": 3}
    real = netsim.run(**options, sends=sends).results
    simulated = netsim.simulate(**options, sends=sends, compute_time="1ms", select_time="1ms", merge_time="0s").results
    assert [each.parameters_sha256 for each in real] == [each.parameters_sha256 for each in simulated]


def test_a_message_takes_what_a_profile_says_that_it_does() -> None:
    known = profile()
    nbytes = 10**6
    bandwidth = round(known.link.bandwidth_bps)
    fabric = Fabric(Cluster(ranks=2, bandwidth_bps=bandwidth).graph())
    terms = profile_terms(known, None)
    (_, there) = predicted_exchange("ps-out", nbytes, "eager", fabric, Wire(header_bytes=0, ack_bytes=0), terms)
    hosts = 2 * (known.message.fixed_s + known.message.each_s * nbytes)
    one_way = known.link.fixed_s + known.link.each_s * nbytes + hosts
    ready = known.link.fixed_s / 2 + known.message.fixed_s  # both begin at once, and one thread has to hear of it
    assert there == pytest.approx(ready + one_way + 8 * 176 / bandwidth, rel=1e-6)  # and 176 bytes of envelope
