"""Machines of several GPUs that share a link, and limits of nodes, against closed forms and laws."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim._util.errors import UsageError
from netsim.network.fabric import Fabric
from netsim.network.summary import bisection
from netsim.report.network import draw_network
from tests.engines import NUMBA, results_of
from tests.test_routing import all_pairs, everyone
from tests.test_topology_command import facts
from topologies import build
from topologies.builder import Shape
from topologies.export import to_graphml, to_json
from topologies.placement import orders, place

PS = 10**12


def time_of(topology: str, engine: str = "auto", **options: Any) -> float:
    """Return the seconds of a round in which only messages take time."""
    options = {"timing_only": True, "engine": engine} | options
    return netsim.simulate(topology=topology, **options).results[0].round_time_s


def test_a_route_leaves_a_machine_by_its_link() -> None:
    fabric = Fabric(build("machines:gpus=2,inside=300GB/s,network=25Gbps,network-latency=30us", Shape(4)))
    inside, across = fabric.route("worker0", "worker1"), fabric.route("worker1", "worker2")
    assert [link.name for link in inside.links] == ["worker0→machine0", "machine0→worker1"]
    assert [link.bandwidth_bps for link in inside.links] == [24 * 10**11] * 2
    names = ["worker1→machine0", "machine0→network", "network→machine1", "machine1→worker2"]
    assert [link.name for link in across.links] == names
    assert min(link.bandwidth_bps for link in across.links) == 25 * 10**9
    assert (inside.latency_ps, across.latency_ps) == (5 * 10**6, 35 * 10**6)
    assert fabric.groups.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("placement", ["rank-order", "locality"])
@given(gpus=st.integers(1, 9), workers=st.integers(2, 60))
def test_a_flat_ring_crosses_each_machine_once_each_way(placement: str, gpus: int, workers: int) -> None:
    """A round of a ring is a message from each rank to the next. Neither way of a machine's link carries two."""
    graph = build(f"machines:gpus={gpus}", Shape(workers))
    fabric = Fabric(graph, workers, place(graph, workers, placement, seed=0))
    ranks = np.arange(workers)
    carried = Counter(fabric.links_of(ranks, (ranks + 1) % workers).links.tolist())
    expected = 0 if workers <= gpus else 2 * -(-workers // gpus)  # both ways of every machine's link
    ends = [(link.source, link.target, carried[link.index]) for link in fabric.links if "network" in link.ends]
    assert sum(count for _, _, count in ends) == expected
    assert max(count for _, _, count in ends) <= 1


def test_other_placements_cross_machines_with_every_message() -> None:
    graph = build("machines:gpus=4", Shape(16))
    fabric = Fabric(graph, 16, place(graph, 16, "cyclic", seed=0))
    carried = Counter(fabric.links_of(np.arange(16), (np.arange(16) + 1) % 16).links.tolist())
    assert {carried[link.index] for link in fabric.links if "network" in link.ends} == {4}


@settings(max_examples=30, deadline=None)
@given(machines=st.integers(2, 6), gpus=st.integers(1, 4), chunk=st.integers(1, 10**5))
def test_a_ring_over_machines_takes_as_long_as_over_single_hosts(machines: int, gpus: int, chunk: int) -> None:
    """2(P-1)(α + S/(PB)): the steps over the machines' links, 8 times slower, hide those inside."""
    workers = machines * gpus
    expected = 2 * (workers - 1) * (35e-6 + 32 * chunk / 10**9)
    topology = f"machines:gpus={gpus},inside=1GB/s,network=1Gbps,network-latency=30us"
    options = {"workers": workers, "elements": chunk * workers, "algorithm": "dense:segment=none"}
    assert time_of(topology, **options) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("engine", ["event", "vectorized"])
@pytest.mark.parametrize(("gpus", "limit"), [(2, "pcie"), (1, "ceiling")])
def test_both_directions_share_a_limit(engine: str, gpus: int, limit: str) -> None:
    """A ring of 2 ranks exchanges S/2 each way, twice; full duplex α + S/(2B) a time, else α + 2 S/(2C)."""
    keys = f"gpus={gpus},inside=1GB/s,inside-latency=10us,network=8Gbps,network-latency=10us"
    options = {"workers": 2, "elements": 10**5, "algorithm": "dense:segment=none"}
    latency, half = 10e-6 if gpus == 2 else 20e-6, 16 * 10**5
    for keyed, drained in (
        ("", half / 8e9),
        (f",{limit}=4Gbps", 2 * half / 4e9),
        (f",{limit}=12Gbps", 2 * half / 12e9),
    ):
        expected = 2 * (latency + drained)
        assert time_of(f"machines:{keys}{keyed}", engine, **options) == pytest.approx(expected, rel=1e-9), keyed


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_a_bus_carries_all_messages_of_a_ring(gpus: int) -> None:
    """m messages of S/m a step over one bus: 2(m-1)(α + S/C)."""
    expected = 2 * (gpus - 1) * (5e-6 + 32 * 10**6 / 100e9)
    options = {"workers": gpus, "elements": 10**6, "algorithm": "dense:segment=none"}
    assert time_of(f"machines:gpus={gpus},pcie=100Gbps", **options) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    gpus=st.integers(0, 3).map(lambda power: 2**power),
    machines=st.integers(0, 3).map(lambda power: 2**power),
    k=st.integers(1, 10**5),
    placement=st.sampled_from(["rank-order", "locality", "cyclic", "random"]),
)
def test_hierarchical_gtopk_takes_its_closed_form(gpus: int, machines: int, k: int, placement: str) -> None:
    """2 log₂m (α₁ + 2kβ₁) + 2 log₂g (α₂ + 2kβ₂), however ranks are placed."""
    expected = 2 * np.log2(gpus) * (5e-6 + 64 * k / 8e9) + 2 * np.log2(machines) * (35e-6 + 64 * k / 1e9)
    topology = f"machines:gpus={gpus},inside=1GB/s,network=1Gbps,network-latency=30us"
    options = {"workers": gpus * machines, "elements": 10 * k, "k": k, "placement": placement}
    found = time_of(topology, algorithm="gtopk-hier", **options)
    assert found == pytest.approx(expected, rel=1e-9, abs=2 / PS)


LIMITED = ["machines:gpus=2,pcie=5Gbps", "machines:gpus=2,network=7Gbps,ceiling=6Gbps,pcie=9Gbps"]


@pytest.mark.parametrize("form", LIMITED)
def test_a_route_has_the_limit_of_every_node_on_it_once(form: str) -> None:
    graph = build(form, Shape(6))
    fabric = everyone(graph)
    assert graph.limits is not None
    sources, targets, (first, links, latency_ps) = all_pairs(fabric)
    plain = graph.router.paths(graph.hosts[sources], graph.hosts[targets], np.zeros(len(sources), np.uint64))
    for pair in range(len(sources)):
        expected = []
        for link in plain.links[plain.first[pair] : plain.first[pair + 1]].tolist():
            limit = int(graph.limits[graph.targets[link]])
            expected += [link] if limit < 0 else [link, limit]
        route = links[first[pair] : first[pair + 1]].tolist()
        assert route == expected
        hosts = fabric.hosts[sources[pair]], fabric.hosts[targets[pair]]
        assert [link.index for link in fabric.route(*hosts).links] == route
        assert fabric.route(*hosts).latency_ps == latency_ps[pair]


@pytest.mark.skipif(not NUMBA, reason="numba is not installed")
@settings(max_examples=15, deadline=None)
@given(
    form=st.sampled_from(LIMITED),
    workers=st.integers(2, 9),
    algorithm=st.sampled_from(["dense:segment=4kB", "topk:segment=100B", "gtopk"]),
    placement=st.sampled_from(["rank-order", "random"]),
)
def test_engines_agree_on_limits_that_many_messages_share(
    form: str, workers: int, algorithm: str, **options: Any
) -> None:
    options |= {"workers": workers, "algorithm": algorithm, "topology": form, "elements": 20_000, "k": 200}
    times = [results_of(engine, **options)[0].round_time_s for engine in ("event", "compiled")]
    assert times[0] == pytest.approx(times[1], rel=1e-9, abs=20 / PS)


@pytest.mark.parametrize("form", LIMITED)
@pytest.mark.parametrize(("suffix", "write"), [("json", to_json), ("graphml", to_graphml)])
def test_an_exported_limit_comes_back(tmp_path: Path, form: str, suffix: str, write: Any) -> None:
    fabric = everyone(build(form, Shape(4)))
    path = tmp_path / f"net.{suffix}"
    path.write_text("".join(write(fabric)))
    again = Fabric(build(str(path), Shape(1)))
    assert facts(again) == facts(fabric)
    names = [[link.name for link in each.route("worker1", "worker2").links] for each in (fabric, again)]
    assert names[0] == names[1]
    assert "machine1" in names[0]
    assert draw_network(fabric, np.arange(4)).count("<svg") == 1


def test_a_limit_bounds_the_bisection_and_is_no_cable() -> None:
    """Half of two machines is one machine: 7 Gbit/s over its link, 6 by what it can move; 5 within one by its bus."""
    fabric = everyone(build(LIMITED[1], Shape(4)))
    assert bisection(fabric, orders(fabric.graph)) == 6 * 10**9
    bus = everyone(build(LIMITED[0], Shape(2)))
    assert bisection(bus, orders(bus.graph)) == 5 * 10**9
    ranges = fabric.graph.ranges()
    assert ranges is not None
    assert ranges.bandwidth_bps == (7 * 10**9, 24 * 10**11)


def hub(**node: Any) -> dict[str, Any]:
    """Three hosts around a switch, with cables of 1 Gbit/s, and what else is known about the switch."""
    nodes: list[dict[str, Any]] = [{"id": name, "kind": "host"} for name in "abc"]
    edges = [{"source": name, "target": "hub", "bandwidth_bps": 1e9, "latency_s": 1e-6} for name in "abc"]
    return {"nodes": [*nodes, {"id": "hub", "kind": "switch"} | node], "edges": edges}


def test_a_node_in_a_file_may_have_a_bandwidth(tmp_path: Path) -> None:
    """Three messages of S/3 a step pass the hub: 4 (α + S/C); without a limit 4 (α + S/(3B))."""
    path = tmp_path / "hub.json"
    options = {"workers": 3, "elements": 3 * 10**6, "algorithm": "dense:segment=none"}
    for node, rate in (({}, 3e9), ({"bandwidth_bps": 5e8}, 5e8)):
        path.write_text(json.dumps(hub(**node)))
        assert time_of(str(path), **options) == pytest.approx(4 * (2e-6 + 32 * 3 * 10**6 / rate), rel=1e-9)


@pytest.mark.parametrize("wrong", [0, -1, "fast", None, True, 1e17])
def test_a_wrong_bandwidth_of_a_node_names_the_node(tmp_path: Path, wrong: Any) -> None:
    path = tmp_path / "hub.json"
    path.write_text(json.dumps(hub(bandwidth_bps=wrong)))
    with pytest.raises(UsageError, match="node 'hub': bandwidth_bps"):
        build(str(path), Shape(3))


def test_a_node_is_limited_once() -> None:
    graph = build(LIMITED[0], Shape(4))
    with pytest.raises(UsageError, match="node 'machine0' was given a bandwidth twice"):
        graph.limited(graph.switches[:1], 10**9)
