"""Each effect against a closed form, a published model or a packet-level reference; off by default."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim._util.errors import LinkDownError
from netsim.comm.payload import SizeOnly
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.network.effects import Effects
from netsim.network.fabric import Fabric, Link, Route
from netsim.network.switching import extra_ps
from netsim.simulator.critical_path import bound_by
from netsim.simulator.effects_engine import EffectsTransport
from netsim.simulator.scheduler import RankScheduler
from netsim.training.costs import AssumedCosts
from tests.command import run
from tests.packets import ACKNOWLEDGEMENT, cut, slow_start, through_switches

PS = 10**12
GIGABIT = 10**9


def round_time(algorithm: str, **options: Any) -> float:
    report = netsim.simulate(algorithm=algorithm, timing_only=True, **options)
    return report.results[0].round_time_s


def cable(bandwidth: int = GIGABIT, latency: float = 50e-6) -> Fabric:
    """Return two hosts and a cable between them."""
    graph: nx.Graph[str] = nx.Graph()
    for rank in range(2):
        graph.add_node(f"worker{rank}", kind="host")
    graph.add_edge("worker0", "worker1", bandwidth_bps=bandwidth, latency_s=latency)
    return Fabric(graph)


def one_message(effects: Effects, nbytes: int, seed: int = 0, fabric: Fabric | None = None) -> float:
    """Return the seconds that a message of `nbytes` takes from rank 0 to rank 1 over a cable."""
    fabric = fabric or cable()
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({}), effects=effects, seed=seed)
    ends: list[int] = []

    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            await worker.send(1, SizeOnly(nbytes // 4))
        else:
            await worker.recv(0, SizeOnly(nbytes // 4))
            ends.append(transport.now)

    tasks = RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    assert tasks[1].path.totals().total() == ends[0]
    return ends[0] / PS


# Off unless asked for.


def test_no_effect_is_on_by_default_and_none_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert not Experiment().effects.any
    assert json.loads(run(capsys, "simulate --timing-only --elements 1000 --json").out)["effects"] == {}
    assert "Effects" not in run(capsys, "simulate --timing-only --elements 1000").out


EVERYTHING = {
    "protocol": "tcp",
    "initial_window": 4,
    "connections": "per-pair",
    "mtu": 9001,
    "segments_per_ack": 2,
    "window": "64KiB",
    "streams": 4,
    "stream_rate": "200Mbps",
    "clear_to_send": True,
    "switching": "store-and-forward",
    "message_overhead": "20us",
    "byte_cost": "0.1ns",
    "compute_jitter": "lognormal:0.2",
    "straggler": "1:2.5,5%:4",
    "latency_jitter": "exponential:0.5",
    "background": 0.3,
    "background_size": "lognormal:100kB:1",
    "link_event": "worker1->switch@1ms=100Mbps,worker1<->switch@4ms=up",
}


def as_options(given: dict[str, Any]) -> list[str]:
    """Return options as on the command line, where one that is on has no value."""
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in given.items()]


def test_what_is_on_is_named_in_table_and_json_and_comes_back_from_a_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = Experiment.of(**EVERYTHING)
    assert Experiment.from_config(json.loads(json.dumps(experiment.config()))).effects == experiment.effects
    options = " ".join(f"'{option}'" for option in as_options(EVERYTHING))
    shown = json.loads(run(capsys, f"simulate --timing-only --elements 1000 --workers 4 --json {options}").out)
    named = {name.replace("_", "-") for name in EVERYTHING}
    named -= {"initial-window", "connections", "mtu", "background-size"}
    assert set(shown["effects"]) == named
    table = run(capsys, f"simulate --timing-only --elements 1000 --workers 4 {options}").out
    (line,) = (line for line in table.splitlines() if line.startswith("Effects: "))
    assert all(words in line for words in shown["effects"].values())


def test_sharing_by_round_trip_time_is_named_like_an_effect(capsys: pytest.CaptureFixture[str]) -> None:
    options = "simulate --timing-only --elements 1000 --workers 4 --sharing rtt --placement cyclic"
    assert set(json.loads(run(capsys, f"{options} --json").out)["effects"]) == {"sharing"}
    table = run(capsys, options).out
    assert "Effects: links shared by 1 / latency of routes (rtt)" in table
    assert "placement cyclic" in table


@pytest.mark.slow
def test_one_seed_gives_the_same_bytes_whatever_the_order_of_hashes() -> None:
    options = as_options(EVERYTHING)
    command = [sys.executable, "-m", "netsim", "simulate", "--timing-only", "--elements=20000", "--workers=5"]
    command += ["--rounds=3", "--compute-time=1ms", "--json", *options]
    outputs = {
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("0", "4711")
    }
    assert len(outputs) == 1
    assert json.loads(outputs.pop())["effects"]


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(0, 2**16), st.booleans())
def test_the_parts_of_every_path_still_sum_to_the_clock(ranks: int, seed: int, tcp: bool) -> None:
    of_tcp = {"protocol", "connections", "initial_window", "mtu", "segments_per_ack"}
    off = {"straggler", "link_event"} | (set() if tcp else of_tcp)
    options = {name: value for name, value in EVERYTHING.items() if name not in off}
    experiment = Experiment.of(workers=ranks, timing_only=True, elements=1000, **options)
    fabric = experiment.fabric()
    costs = AssumedCosts({"merge": 123e-6, "select": 7e-6})
    transport = EffectsTransport(fabric, fabric.hosts, costs, effects=experiment.effects, seed=seed)
    ends: dict[int, int] = {}

    async def program(worker: Worker) -> None:
        for step in range(3):
            worker.step = step
            if (seed >> (worker.rank + step)) & 1:
                await worker.compute("merge", max, 1, 2)
            for rank in range(worker.workers):
                if rank == worker.rank:
                    others = [other for other in range(worker.workers) if other != rank]
                    for handle in [await worker.start_send(other, SizeOnly(1 + seed % 9999)) for other in others]:
                        await handle
                else:
                    await worker.recv(rank, SizeOnly(1 + seed % 9999))
        ends[worker.rank] = transport.now

    for task in RankScheduler[None](transport).run([Worker(rank, ranks) for rank in range(ranks)], program):
        assert task.path.totals().total() == ends[task.worker.rank]


# TCP.

sizes = st.integers(1, 400_000).map(lambda elements: 4 * elements)


@settings(max_examples=60)
@given(sizes, st.integers(1, 10**10), st.sampled_from([10**8, 10**9, 10**10]), st.integers(1, 40))
def test_tcp_takes_what_a_packet_simulator_says(nbytes: int, latency_ps: int, bandwidth: int, window: int) -> None:
    latency = Fraction(latency_ps, PS)
    expected = slow_start(nbytes, latency, bandwidth, window)
    effects = Effects(protocol="tcp", initial_window=window)
    took = one_message(effects, nbytes, fabric=cable(bandwidth, float(latency)))
    assert took == pytest.approx(float(expected), rel=1e-9, abs=1e-10)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.sampled_from([10**8, 10**9, 10**10]))
def test_messages_right_behind_each_other_go_on_with_one_slow_start(segments: list[int], bandwidth: int) -> None:
    """They end when one message of their total ends in the packet simulator; after an idle time it begins anew."""
    fabric = cable(bandwidth, 1e-3)
    effects = Effects(protocol="tcp")
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({"merge": 1.0}), effects=effects, seed=0)
    transport.eager = True
    ends: list[int] = []

    async def program(worker: Worker) -> None:
        for _ in range(2):
            for count in segments:
                message = SizeOnly(1448 // 4 * count)
                await (worker.send(1, message) if worker.rank == 0 else worker.recv(0, message))
            ends.append(transport.now)
            await worker.compute("merge", max, 1, 2)

    RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    expected = float(slow_start(1448 * sum(segments), Fraction(1, 1000), bandwidth, 10))
    assert max(ends[:2]) / PS == pytest.approx(expected, rel=1e-9, abs=1e-11)
    assert ends[-1] / PS == pytest.approx(1.0 + expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("segments", [5, 10, 11, 30, 31, 70, 500, 1270])
def test_slow_start_takes_the_rounds_of_cardwell_savage_and_anderson(segments: int) -> None:
    """Modeling TCP latency (INFOCOM 2000), eq. (15) with γ = 2: d segments take log₂(d/w₁ + 1) round trips.

    Theirs ends with the last acknowledgement, half a round trip after ours, and does not round up.
    """
    latency, first = 10e-3, 10
    rounds = math.log2(segments / first + 1)
    took = one_message(Effects(protocol="tcp"), 1448 * segments, fabric=cable(10**13, latency))
    assert (took + latency) / (2 * latency) == pytest.approx(math.ceil(rounds - 1e-9), rel=1e-3)


def test_a_long_message_costs_its_headers_and_connections_a_round_trip() -> None:
    nbytes = 1448 * 100_000
    bulk = nbytes * 8 * 1538 / 1448 / GIGABIT
    for connections, opening in (("established", 0), ("per-pair", 100e-6), ("per-message", 100e-6)):
        took = one_message(Effects(protocol="tcp", connections=connections), nbytes)
        assert took == pytest.approx(opening + 50e-6 + bulk, rel=1e-6)
    options = {"workers": 2, "elements": 1000, "protocol": "tcp"}
    established = round_time("dense-tree", **options)  # two messages, one each way
    assert round_time("dense-tree", connections="per-pair", **options) == pytest.approx(established + 1e-4)
    assert round_time("dense-tree", connections="per-message", **options) == pytest.approx(established + 2e-4)


def test_the_gtopk_tree_is_near_a_packet_simulator_and_far_from_factors_made_for_bulk() -> None:
    """k = 25,000 on a star of 1 Gbit/s and 2 × 25 µs: log₂P messages of 200 kB up, and as many down.

    The reference sends every segment and acknowledgement through both links, and opens each connection with a round
    trip. LV08 of SimGrid multiplies the latency by 13.01 and the bandwidth by 0.97.
    """
    options = {"workers": 64, "elements": 25_000_000, "k": 25_000, "latency": "50us", "bandwidth": "1Gbps"}
    ideal = round_time("gtopk", **options)
    message = slow_start(200_000, Fraction(50, 10**6), GIGABIT, 10, hops=2, ack=ACKNOWLEDGEMENT)
    reference = float(12 * message + 6 * Fraction(100, 10**6))
    ours = round_time("gtopk", protocol="tcp", connections="per-pair", switching="store-and-forward", **options)
    bulk = 12 * (13.01 * 50e-6 + 1.6e-3 / 0.97)
    assert bulk / ideal == pytest.approx(1.39, abs=0.01)
    assert reference / ideal == pytest.approx(1.10, abs=0.01)
    assert ours / reference == pytest.approx(1, abs=0.005)


@settings(max_examples=40)
@given(sizes, st.integers(1, 500_000).map(lambda elements: 4 * elements), st.sampled_from([1500, 9001]))
def test_acknowledgements_take_their_part_of_a_link_that_carries_data_both_ways(
    there: int, back: int, mtu: int
) -> None:
    """A frame of 90 bytes for two segments. Of two messages that meet, the larger one ends with all bytes on its link.

    Those are its own and the acknowledgements of the other message, which ends first. A message alone has its link.
    """
    effects = Effects(protocol="tcp", initial_window=10**6, mtu=mtu, segments_per_ack=2)
    fabric = cable()
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({}), effects=effects, seed=0)
    ends: dict[int, int] = {}

    async def program(worker: Worker) -> None:
        sent, received = (there, back) if worker.rank == 0 else (back, there)
        await worker.sendrecv(1 - worker.rank, SizeOnly(sent // 4), 1 - worker.rank, SizeOnly(received // 4))
        ends[worker.rank] = transport.now

    RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    segments = [-(-size // (mtu - 52)) for size in (there, back)]
    on_wire = [size + 90 * count for size, count in zip((there, back), segments, strict=True)]
    larger = max(on_wire)
    acknowledged = 90 * -(-min(segments) // 2)
    assert max(ends.values()) / PS == pytest.approx(50e-6 + 8 * (larger + acknowledged) / GIGABIT, rel=1e-9)
    alone = one_message(effects, there, fabric=fabric)
    assert alone == pytest.approx(50e-6 + 8 * on_wire[0] / GIGABIT, rel=1e-9)


# Connections of a pair.


@settings(max_examples=60)
@given(sizes, st.integers(1, 10**6), st.integers(0, 10**10), st.integers(1, 8))
def test_a_window_leaves_at_once_and_the_rest_at_window_by_round_trip(
    nbytes: int, window: int, latency_ps: int, streams: int
) -> None:
    """L + M/B within a window W; beyond it L + W/B + (M - W) 2L/W, or as the link allows. n connections have n W."""
    latency = latency_ps / PS
    effects = Effects(window_bytes=window, streams=streams)
    of_all = streams * window
    expected = latency + 8 * min(nbytes, of_all) / GIGABIT
    expected += max(0, nbytes - of_all) * max(8 / GIGABIT, 2 * latency / of_all)
    took = one_message(effects, nbytes, fabric=cable(latency=latency))
    assert took == pytest.approx(expected, rel=1e-9, abs=5e-12)


@settings(max_examples=60)
@given(st.integers(1, 2000), st.integers(1, 20), st.integers(0, 4), st.sampled_from([10**8, 10**9, 10**10]))
def test_a_window_stops_the_growth_of_slow_start_as_in_a_packet_simulator(
    segments: int, first: int, doublings: int, bandwidth: int
) -> None:
    """Equal for whole windows, after which every window starts a round trip after the last. In between the packets wait
    for the acknowledgement of a window, while ours leave evenly: at most a round trip earlier.
    """
    latency, limit = Fraction(1, 1000), first * 2**doublings
    effects = Effects(protocol="tcp", initial_window=first, window_bytes=1448 * limit)
    growing = first * (2**doublings - 1)
    whole = growing + max(1, segments // limit) * limit
    for count, early in ((whole, Fraction(0)), (segments, 2 * latency)):
        expected = slow_start(1448 * count, latency, bandwidth, first, limit=limit)
        took = one_message(effects, 1448 * count, fabric=cable(bandwidth, float(latency)))
        assert float(expected - early) * (1 - 1e-9) <= took <= float(expected) * (1 + 1e-9)


def test_messages_of_a_pair_have_one_window_together() -> None:
    """Ten messages of half a window one after another take what one message of five windows takes."""
    effects = Effects(window_bytes=100_000)
    fabric = cable(latency=10e-3)
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({}), effects=effects, seed=0)
    transport.eager = True
    ends: list[int] = []

    async def program(worker: Worker) -> None:
        for _ in range(10):
            if worker.rank == 0:
                await worker.send(1, SizeOnly(12_500))
            else:
                await worker.recv(0, SizeOnly(12_500))
                ends.append(transport.now)

    RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    assert ends[0] / PS == pytest.approx(10e-3 + 0.4e-3)
    assert 10e-3 + 4 * 20e-3 <= ends[-1] / PS <= 10e-3 + 0.8e-3 + 4 * 20e-3 + 1e-9


def test_connections_have_a_rate_each_and_a_share_each(tmp_path: Path) -> None:
    """At most n r, and n / (n + 1) of a link on which others have one connection."""
    for streams, mbps in ((1, 200), (3, 600), (8, 1000)):
        took = one_message(Effects(streams=streams, stream_rate_bps=200 * 10**6), 1_000_000)
        assert took == pytest.approx(50e-6 + 8 / mbps, rel=1e-9)
    flows = tmp_path / "flows.csv"
    flows.write_text("src,dst,bytes,start_s\nworker0,worker1,1000000,0\n")
    took = one_message(Effects(streams=3, background=str(flows)), 1_000_000)
    assert took == pytest.approx(50e-6 + 8e-3 * 4 / 3, rel=1e-9)


# Receivers that are not ready.

CLEAR = Effects(clear_to_send=True)


@pytest.mark.parametrize(("sender_s", "receiver_s"), [(0, 0), (0, 7e-3), (7e-3, 0), (20e-6, 0)])
def test_a_message_leaves_when_it_is_there_and_its_receiver_has_said_that_it_is_ready(
    sender_s: float, receiver_s: float
) -> None:
    """max(sender, receiver + L) + L + M/B, where the two computed before they sent and received."""
    fabric = cable()
    transport = EffectsTransport(
        fabric, fabric.hosts, AssumedCosts({"merge": sender_s, "select": receiver_s}), effects=CLEAR, seed=0
    )
    ends: list[int] = []

    async def program(worker: Worker) -> None:
        if worker.rank == 0:
            await worker.compute("merge", max, 1, 2)
            await worker.send(1, SizeOnly(250_000))
        else:
            await worker.compute("select", max, 1, 2)
            await worker.recv(0, SizeOnly(250_000))
            ends.append(transport.now)

    RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    assert ends[0] / PS == pytest.approx(max(sender_s, receiver_s + 50e-6) + 50e-6 + 8e-3, rel=1e-9)


def test_a_notice_leaves_behind_what_its_host_is_sending() -> None:
    """Rank 1 is sending 1 MB to rank 0 when it becomes ready for 1 MB of rank 2: 8 ms for the one, then L + 8 ms."""
    graph: nx.Graph[str] = nx.star_graph(["switch", "worker0", "worker1", "worker2"])
    nx.set_node_attributes(graph, {name: "switch" if name == "switch" else "host" for name in graph}, "kind")
    nx.set_edge_attributes(graph, GIGABIT, "bandwidth_bps")
    nx.set_edge_attributes(graph, 25e-6, "latency_s")
    fabric = Fabric(graph)
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({"merge": 1e-3}), effects=CLEAR, seed=0)
    ends: dict[int, int] = {}

    async def program(worker: Worker) -> None:
        message = SizeOnly(250_000)
        if worker.rank == 0:
            await worker.recv(1, message)
        elif worker.rank == 1:
            sending = await worker.start_send(0, message)
            await worker.compute("merge", max, 1, 2)
            await worker.recv(2, message)
            await sending
        else:
            await worker.send(1, message)
        ends[worker.rank] = transport.now

    RankScheduler[None](transport).run([Worker(rank, 3) for rank in range(3)], program)
    sent = 2 * 50e-6 + 8e-3  # rank 0's notice, then the message
    assert ends[0] / PS == pytest.approx(sent, rel=1e-9)
    assert ends[1] / PS == pytest.approx(sent + 50e-6 + 8e-3, rel=1e-9)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_ring_waits_for_a_notice_in_every_step(workers: int) -> None:
    """2 (P - 1) (2L + S / (P B)): a rank is ready for a step's message when it has done the step before."""
    took = round_time("dense", workers=workers, elements=1000 * workers, clear_to_send=True)
    assert took == pytest.approx(2 * (workers - 1) * (2 * 50e-6 + 32e-6), rel=1e-9)


def test_senders_that_wait_for_receivers_that_wait_for_them_are_a_deadlock() -> None:
    fabric = cable()
    effects = Effects(clear_to_send=True, background="0.3")
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({}), effects=effects, seed=0)

    async def program(worker: Worker) -> None:
        await worker.sendrecv(1 - worker.rank, SizeOnly(10), 1 - worker.rank, SizeOnly(10))
        await worker.send(1 - worker.rank, SizeOnly(10))
        await worker.recv(1 - worker.rank, SizeOnly(10))

    with pytest.raises(netsim.NetsimError, match="deadlocks"):
        RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)


# Hosts.

overheads = st.integers(0, 10**8).map(lambda ps: ps / PS)


@settings(max_examples=40)
@given(sizes, overheads, st.integers(0, 1000).map(lambda ps: ps / PS))
def test_a_message_costs_both_hosts_as_in_loggp(nbytes: int, overhead: float, byte_cost: float) -> None:
    """Alexandrov et al. 1995, section 2: o + L + G n + o, here with a host's own time a byte beside o."""
    effects = Effects(message_overhead_s=overhead, byte_cost_s=byte_cost)
    expected = 2 * (overhead + byte_cost * nbytes) + 50e-6 + 8 * nbytes / GIGABIT
    assert one_message(effects, nbytes) == pytest.approx(expected, rel=1e-12, abs=5e-12)


@pytest.mark.parametrize("workers", [2, 8, 32])
def test_a_tree_pays_both_hosts_at_every_level(workers: int) -> None:
    took = round_time("dense-tree", workers=workers, elements=1000, message_overhead="20us", byte_cost="1ns")
    level = 50e-6 + 32e-6 + 2 * (20e-6 + 4000e-9)
    assert took == pytest.approx(2 * math.log2(workers) * level, rel=1e-9)


@pytest.mark.parametrize("workers", [2, 9, 33])
def test_a_server_takes_messages_in_and_out_one_after_another(workers: int) -> None:
    """With an overhead larger than a message's time on the wire, the server's processor is the bottleneck."""
    overhead, others = 1e-3, workers - 1
    took = round_time("ps", workers=workers, elements=1000, message_overhead="1ms")
    up = overhead + 50e-6 + others * 32e-6 + others * overhead
    down = others * overhead + 50e-6 + 32e-6 + overhead
    assert took == pytest.approx(up + down, rel=1e-9)


def test_a_host_computes_and_takes_messages_in_one_after_another() -> None:
    """Rank 0 computes for 1 ms from 0 on; a message that arrives meanwhile is taken in afterwards."""
    fabric = cable()
    effects = Effects(message_overhead_s=100e-6)
    transport = EffectsTransport(fabric, fabric.hosts, AssumedCosts({"merge": 1e-3}), effects=effects, seed=0)
    ends: dict[str, int] = {}

    async def program(worker: Worker) -> None:
        if worker.rank == 1:
            await worker.send(0, SizeOnly(1000))
            ends["sent"] = transport.now
            return
        await worker.compute("merge", max, 1, 2)
        ends["computed"] = transport.now
        await worker.recv(1, SizeOnly(1000))
        ends["received"] = transport.now

    RankScheduler[None](transport).run([Worker(rank, 2) for rank in range(2)], program)
    assert ends == {"sent": 182 * 10**6, "computed": 10**9, "received": 1_100 * 10**6}


@pytest.mark.parametrize("engine", ["event", "vectorized"])
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_host_moves_what_it_sends_and_receives_with_one_ceiling(engine: str, workers: int) -> None:
    """Every host of a ring sends and receives S/P a step: 2 (P - 1) (L + max(S / (P B), 2 S / (P C)))."""
    for ceiling, step in ((10**9, 2 * 32e-6), (3 * 10**9, 32e-6)):
        options = {"workers": workers, "elements": 1000 * workers, "engine": engine, "host_ceiling": ceiling}
        took = round_time("dense", **options)
        assert took == pytest.approx(2 * (workers - 1) * (50e-6 + step), rel=1e-9)


@pytest.mark.parametrize("engine", ["event", "auto"])
def test_a_ceiling_that_binds_is_the_bottleneck(engine: str) -> None:
    options = {"workers": 4, "timing_only": True, "elements": 10**6, "algorithm": "dense", "engine": engine}
    for ceiling, expected in (("1.5Gbps", "node limits, e.g. worker0"), ("3Gbps", "worker links, e.g. worker0→switch")):
        [result] = netsim.simulate(**options, bandwidth="1Gbps", host_ceiling=ceiling).results
        assert result.bound_by == expected
    link = Link(0, "nic0", "nic0", 10**9, 0.0)
    assert bound_by(Counter({link: 1}), ()) == "limit of nic0"


def test_a_ceiling_is_named_and_is_no_hop(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "simulate --timing-only --elements 1000 --algorithm dense --host-ceiling 600MB/s")
    assert "Effects: a host moves at most 4.8 Gbit/s, sent and received" in ran.out
    options = {"elements": 1000, "switching": "store-and-forward", "background": 0.2}
    assert round_time("dense", host_ceiling="1Tbps", **options) == pytest.approx(round_time("dense", **options))
    with pytest.raises(netsim.UsageError, match="host_ceiling 1000000000 was given, but a real run"):
        netsim.run(workers=2, host_ceiling="1Gbps")


# Switches.


@settings(max_examples=100)
@given(st.lists(st.integers(10**6, 10**10), min_size=1, max_size=6), st.integers(1, 10**5), st.integers(1, 9000))
@pytest.mark.slow
def test_store_and_forward_takes_what_the_packets_take_one_by_one(
    bandwidths: list[int], nbytes: int, packet: int
) -> None:
    links = tuple(Link(number, f"{number}", f"{number + 1}", rate, 0.0) for number, rate in enumerate(bandwidths))
    expected = through_switches(cut(nbytes, packet), bandwidths) - Fraction(8 * nbytes, min(bandwidths))
    assert extra_ps("store-and-forward", Route(links, 0), nbytes, packet) == round(expected * PS)


@pytest.mark.parametrize(("switching", "unit"), [("ideal", 0), ("cut-through", 22), ("store-and-forward", 1500)])
@pytest.mark.parametrize("fan_out", [2, 64])
def test_switches_add_their_unit_a_hop(switching: str, unit: int, fan_out: int) -> None:
    """Workers 0 and 32 of a tree of fan-out 2 are 12 links apart, on one switch 2: L + (M + (n - 1) u) β."""
    options = {"workers": 64, "elements": 3000, "topology": "tree", "fan_out": fan_out, "algorithm": "dense-tree"}
    ideal, switched = (
        netsim.simulate(timing_only=True, switching=how, **options).results[0].round_time_s
        for how in ("ideal", switching)
    )
    hops = [2] * 6 if fan_out == 64 else [2, 4, 6, 8, 10, 12]
    assert switched - ideal == pytest.approx(2 * sum(n - 1 for n in hops) * unit * 8e-9, rel=1e-9, abs=1e-15)


# Stragglers and jitter.


def mean_of_largest(quantile: Any, workers: int) -> float:
    """Return E[max of P] by integrating the quantile function over the density of the largest of P uniforms."""
    from scipy import integrate

    mean, _ = integrate.quad(lambda u: quantile(u) * workers * u ** (workers - 1), 0, 1, limit=200)
    return float(mean)


def lognormal(sigma: float) -> Any:
    from scipy import stats

    return stats.lognorm(sigma, scale=math.exp(-(sigma**2) / 2)).ppf


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("exponential:1", lambda p: sum(1 / n for n in range(1, p + 1))),
        ("exponential:0.3", lambda p: 0.7 + 0.3 * sum(1 / n for n in range(1, p + 1))),
        ("uniform:0.5", lambda p: 1 + 0.5 * (p - 1) / (p + 1)),
        ("lognormal:0.2", lambda p: mean_of_largest(lognormal(0.2), p)),
        ("lognormal:1", lambda p: mean_of_largest(lognormal(1.0), p)),
    ],
)
@pytest.mark.parametrize("workers", [1, 8])
def test_a_round_waits_for_the_slowest_of_its_workers(option: str, expected: Any, workers: int) -> None:
    rounds = 700
    options = {"workers": workers, "elements": 1, "compute_time": 1.0, "compute_jitter": option, "seed": 7}
    report = netsim.simulate(algorithm="dense-tree", timing_only=True, rounds=rounds, **options)
    mean = report.results[0].compute_time_s
    spread = 1.5 if option in ("exponential:1", "lognormal:1") else 0.5
    assert mean == pytest.approx(expected(workers), abs=4 * spread / math.sqrt(rounds))


def test_stragglers_by_name_and_by_chance() -> None:
    options = {"workers": 4, "elements": 1000, "compute_time": "100ms"}
    plain = round_time("gtopk", **options)
    assert round_time("gtopk", straggler="3:2.5", **options) == pytest.approx(plain + 150e-3, rel=1e-9)
    assert round_time("gtopk", straggler="3:2,3:3", **options) == pytest.approx(plain + 500e-3, rel=1e-9)
    by_chance = round_time("gtopk", straggler="10%:4", rounds=1000, **options)
    assert by_chance - plain == pytest.approx(0.3 * (1 - 0.9**4), abs=0.3 * 4 * 0.5 / math.sqrt(1000))


def test_a_factor_depends_on_seed_rank_and_step_and_nothing_else() -> None:
    speeds = Effects(compute_jitter="lognormal:0.2", straggler="5%:4").speeds(3)
    assert speeds is not None
    forwards = [speeds.factor(rank, step) for rank in range(5) for step in range(5)]
    backwards = [speeds.factor(rank, step) for rank in reversed(range(5)) for step in reversed(range(5))]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 25


def test_latencies_vary_around_their_mean() -> None:
    effects = Effects(latency_jitter="uniform:0.5")
    took = np.array([one_message(effects, 4, seed) for seed in range(800)]) - 32e-9
    assert took.min() >= 25e-6
    assert took.max() <= 75e-6
    assert took.mean() == pytest.approx(50e-6, abs=4 * 14.5e-6 / math.sqrt(800))


# Traffic of others.


@pytest.mark.parametrize("size", ["exponential:50kB", "fixed:50kB", "lognormal:50kB:1"])
@pytest.mark.parametrize("load", [0.3, 0.6])
def test_a_message_among_cross_traffic_takes_what_processor_sharing_says(size: str, load: float) -> None:
    """b / (B (1 - ρ)) in the mean, whatever the distribution of sizes (Kleinrock, Queueing Systems II, section 4.4)."""
    effects = Effects(background=str(load), background_size=size)
    nbytes, fabric = 100_000, cable(latency=1e-6)
    took = np.array([one_message(effects, nbytes, seed, fabric) for seed in range(500)]) - 1e-6
    error = took.std() / math.sqrt(len(took))
    assert error < 0.05 * took.mean()
    assert took.mean() == pytest.approx(8 * nbytes / GIGABIT / (1 - load), abs=4 * error)


def test_background_from_a_file_shares_links_as_messages_do(tmp_path: Path) -> None:
    """A flow on worker0's uplink from 0 on takes half of it from a message that begins then, until it ends."""
    flows = tmp_path / "flows.csv"
    flows.write_text("src,dst,bytes,start_s\nworker0,worker1,125000,0\n")
    took = one_message(Effects(background=str(flows)), 1_000_000)
    assert took == pytest.approx(50e-6 + 9e-3, rel=1e-9)


# Links that change.


def test_a_link_that_degrades_fails_and_comes_back_delays_what_is_on_it() -> None:
    """8 Mbit over 1 Gbit/s take 8 ms: 3 ms at full rate, 4 at a tenth, 2 at nothing, then the rest."""
    event = "worker0->worker1@3.05ms=100Mbps,worker0->worker1@7.05ms=down,worker0->worker1@9.05ms=up"
    took = one_message(Effects(link_event=event), 1_000_000)
    assert took == pytest.approx(50e-6 + 3e-3 + 4e-3 + 2e-3 + 4.6e-3, rel=1e-9)


def test_background_goes_between_hosts_without_workers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Workers a and b, others x and y, two switches with 1 Gbit/s between them.

    Dense sends half of 40 MB each way in each of two steps: 160 ms of that link. The 2.5 MB from x to y take their
    20 ms of it, on one way in one step.
    """
    ends = (("a", "l"), ("x", "l"), ("b", "r"), ("y", "r"))
    nodes = [{"id": name, "kind": "host" if name in "abxy" else "switch"} for name in "abxylr"]
    edges = [{"source": end, "target": at, "bandwidth_bps": 10**10, "latency_s": 0} for end, at in ends]
    edges.append({"source": "l", "target": "r", "bandwidth_bps": 10**9, "latency_s": 0})
    network, flows = tmp_path / "two.json", tmp_path / "others.csv"
    network.write_text(json.dumps({"nodes": nodes, "edges": edges}))
    command = f"simulate --topology {network} --workers 2 --timing-only --elements 10000000 --algorithm dense --json"
    took = {}
    for others in ("x,y", "y,x", "x,l"):
        flows.write_text(f"src,dst,bytes,start_s\n{others},2500000,0\n")
        ran = run(capsys, f"{command} --background {flows}")
        if ran.code == 0:
            took[others] = json.loads(ran.out)["results"][0]["round_time_s"]
    assert took == {"x,y": pytest.approx(0.34), "y,x": pytest.approx(0.34)}
    assert "column dst: 'l' is not a host" in ran.err  # it is a switch


def test_a_host_has_one_name_whoever_asks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Host 8 of 16 is worker8 to flows and to a run of four workers, whose routes it does not meet.

    worker8 sends 12.5 MB to worker0: 100 ms of the 1 Gbit/s that worker0 receives, and 150 µs of six links. Dense
    sends worker0 a quarter of 4 MB in each of 6 steps, 8 ms and 50 to 150 µs each: it gets half of the link, 6 · 16 ms.
    """
    flows = tmp_path / "others.csv"
    flows.write_text("src,dst,bytes,start_s\nworker8,worker0,12500000,0\n")
    alone = run(capsys, f"flows --topology fat-tree:k=4 --flows {flows} --json")
    assert json.loads(alone.out)["makespan_s"] == pytest.approx(0.1 + 150e-6, rel=1e-9)
    command = (
        f"simulate --workers 4 --topology fat-tree:k=4 --timing-only --elements 1000000 --background {flows} --json"
    )
    ran = run(capsys, f"{command} --algorithm dense")
    assert json.loads(ran.out)["results"][0]["round_time_s"] == pytest.approx(6 * 16e-3, rel=0.01)
    moved = run(capsys, f"{command} --algorithm dense --placement random")
    assert "'worker8' is not a host (did you mean 'host8'?)" in moved.err
    flows.write_text(flows.read_text().replace("worker8", "host8"))
    assert run(capsys, f"{command} --algorithm dense --placement random").code == 0


def test_background_of_named_hosts_says_nothing_of_other_numbers_of_workers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With two workers there is no worker 7."""
    flows = tmp_path / "others.csv"
    flows.write_text("src,dst,bytes,start_s\nworker6,worker7,1000000,0\n")
    ran = run(capsys, f"simulate --timing-only --elements 1000 --k 1 --algorithm dense,gtopk --background {flows}")
    assert (ran.code, ran.err) == (0, "")
    said = ran.out.partition("How wrong netsim was")[0].splitlines()
    assert said[-2].startswith("With 8 workers gTop-k has the shortest round")
    assert "other P" not in said[-1]


@pytest.mark.parametrize("background", ["", " --background 0.2", " --background 0.2 --clear-to-send"])
def test_a_run_that_can_never_finish_says_which_link_and_who_waits(
    capsys: pytest.CaptureFixture[str], background: str
) -> None:
    command = "simulate --workers 4 --timing-only --elements 100000 --algorithm gtopk,dense --link-event "
    ran = run(capsys, command + "'worker3->switch@10us=down'" + background)
    assert (ran.code, ran.out) == (1, "")
    for words in ("worker3→switch", "10 µs", "rank 3 to rank 2", "tree_reduce", "step 0", "=up"):
        assert words in ran.err
    again = run(capsys, command + "'worker3<->switch@10us=down,worker3<->switch@2s=up'" + background)
    assert again.code == 0


def test_a_link_down_that_nobody_needs_stops_nobody() -> None:
    took = one_message(Effects(link_event="worker1->worker0@0s=down"), 1_000_000)
    assert took == pytest.approx(50e-6 + 8e-3)
    with pytest.raises(LinkDownError):
        one_message(Effects(link_event="worker0->worker1@0s=down"), 1_000_000)


# Wrong input.

TIMED = "simulate --timing-only --elements 1000 "
WRONG = [
    ("--protocol tpc", ["unknown protocol 'tpc'", "did you mean 'tcp'?"]),
    ("--protocol tcp --initial-window 0", ["initial-window 0", "such as 10"]),
    ("--initial-window 4", ["protocol is ideal", "add --protocol tcp"]),
    ("--protocol tcp --connections perpair", ["unknown connections 'perpair'", "'per-pair'"]),
    ("--mtu 9001", ["protocol is ideal", "add --protocol tcp"]),
    ("--protocol tcp --mtu 60", ["mtu 60", "at least 68", "9001"]),
    ("--protocol tcp --segments-per-ack=-1", ["segments-per-ack -1", "at least 0"]),
    ("--window 2.5", ["window '2.5'", "no unit"]),
    ("--streams 0", ["streams 0", "such as 4"]),
    ("--streams 70000", ["streams 70000", "65535"]),
    ("--host-ceiling 5", ["host-ceiling '5'", "no unit"]),
    ("--stream-rate fast", ["stream-rate 'fast'", "1Gbps"]),
    ("--switching store", ["unknown switching 'store'"]),
    ("--message-overhead 20", ["message-overhead '20'", "no unit"]),
    ("--byte-cost=-1ns", ["byte-cost '-1ns'", "zero or more"]),
    ("--compute-jitter lognorm:0.2", ["unknown shape 'lognorm'", "did you mean 'lognormal'?"]),
    ("--compute-jitter lognormal", ["compute-jitter 'lognormal'", "lognormal:0.2"]),
    ("--compute-jitter lognormal:inf", ["'lognormal:inf'", "spread"]),
    ("--latency-jitter uniform:2", ["latency-jitter 'uniform:2'", "at most 1"]),
    ("--straggler 3", ["straggler '3'", "3:2.5"]),
    ("--straggler 8:2", ["straggler 8", "0 to 7"]),
    ("--straggler 0%:2", ["'0%:2'", "more than 0%"]),
    ("--straggler x:2", ["'x:2'", "number"]),
    ("--straggler 1:nan", ["'1:nan'", "how many times"]),
    ("--background 1.0", ["background '1.0'", "less than 1"]),
    ("--background nan", ["background 'nan'", "less than 1"]),
    ("--background nowhere.csv", ["nowhere.csv", "cannot be read"]),
    ("--background 0.3 --background-size exponentail:1MB", ["did you mean 'exponential'?"]),
    ("--background 0.3 --background-size fixed:1", ["'1' has no unit"]),
    ("--background-size fixed:1MB", ["without a load", "add --background 0.3"]),
    ("--link-event worker3->switch", ["'worker3->switch'", "LINK@TIME=BANDWIDTH"]),
    ("--link-event worker9->switch@1s=down", ["'worker9→switch'", "did you mean"]),
    ("--link-event worker3->switch@1s=dwon", ["unknown value 'dwon'", "did you mean 'down'?"]),
    ("--link-event worker3->switch@1s=10Mpbs", ["unknown unit 'Mpbs'"]),
    ("--link-event worker3->switch@soon=down", ["'soon'", "50us"]),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[options for options, _ in WRONG])
def test_a_wrong_effect_is_one_line(capsys: pytest.CaptureFixture[str], options: str, words: list[str]) -> None:
    ran = run(capsys, TIMED + options.replace("->", "'->'"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("netsim: ")
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err


def test_a_real_run_has_no_simulated_effects() -> None:
    with pytest.raises(netsim.UsageError, match="protocol was given, but a real run"):
        netsim.run(workers=2, protocol="tcp")
