"""What every topology must have, and where each differs from the star."""

from __future__ import annotations

import numpy as np
import pytest

import netsim
from netsim.network.fabric import Fabric
from topologies import TOPOLOGIES, build
from topologies.builder import Shape


@pytest.mark.parametrize("name", sorted(TOPOLOGIES))
@pytest.mark.parametrize("workers", [1, 2, 3, 8, 9, 65])
def test_every_worker_reaches_every_other(name: str, workers: int) -> None:
    graph = TOPOLOGIES[name](Shape(workers, 10**9, 50e-6, fan_out=4))
    fabric = Fabric(graph)
    assert fabric.workers == [f"worker{rank}" for rank in range(workers)]
    assert (fabric.server_host == "server") == (name == "ps")
    for other in fabric.hosts[1:]:
        there, back = fabric.route(fabric.hosts[0], other), fabric.route(other, fabric.hosts[0])
        assert len(there.links) == len(back.links) > 0
        assert not set(there.links) & set(back.links), "full duplex: the ways there and back share no link"


@pytest.mark.parametrize(("topology", "far"), [("star", 50), ("ps", 50), ("ring", 4 * 50), ("tree", 100)])
def test_latency_is_one_way_across_one_switch(topology: str, far: int) -> None:
    """Workers 0 and 4 of 8: four cables apart on the ring, four half-latency links apart in a tree of fan-out 4."""
    fabric = Fabric(TOPOLOGIES[topology](Shape(8, 10**9, 50e-6, fan_out=4)))
    assert fabric.route("worker0", "worker4").latency_ps == far * 10**6


def test_a_switch_of_a_tree_has_at_most_fan_out_children() -> None:
    graph = TOPOLOGIES["tree"](Shape(50, 10**9, 1e-6, fan_out=3))
    ports = np.bincount(graph.sources, minlength=len(graph.names))
    assert ports[graph.switches].max() <= 4  # and one uplink
    assert len(graph.sources) == 2 * (len(graph.names) - 1), "a tree"


def time_of(algorithm: str, topology: str) -> float:
    options = {"workers": 64, "elements": 10**6, "timing_only": True, "algorithm": algorithm}
    return netsim.simulate(topology=topology, **options).results[0].round_time_s


@pytest.mark.parametrize(
    ("topology", "both_ways"),
    [
        ("star:up=100Mbps", (10**8, 10**9)),
        ("star:down=100Mbps", (10**9, 10**8)),
        ("ps:up=1Mbps,down=2Mbps", (10**6, 2 * 10**6)),
    ],
)
def test_a_star_may_differ_up_and_down(topology: str, both_ways: tuple[int, int]) -> None:
    fabric = Fabric(build(topology, Shape(2, 10**9, 50e-6)))
    there, back = fabric.route("worker0", "worker1").links
    assert (there.bandwidth_bps, back.bandwidth_bps) == both_ways


def test_a_topology_visibly_changes_the_result() -> None:
    """The tree's uplinks and the ring's cables are shared by the exchanges of distant workers."""
    assert time_of("gtopk", "ring") > 2 * time_of("gtopk", "star")
    assert time_of("dense-tree", "tree") > time_of("dense-tree", "star")
    assert time_of("dense", "ring") == pytest.approx(time_of("dense", "star"), rel=1e-3)


def test_bound_by_names_what_is_scarce() -> None:
    options = {"workers": 16, "timing_only": True, "bandwidth": "1Gbps"}
    fast = netsim.simulate(elements=100, k=1, algorithm="gtopk", **options).results[0]
    assert fast.bound_by == "latency"
    slow = netsim.simulate(elements=10**7, algorithm="ps", topology="ps", **options).results[0]
    assert slow.bound_by == "server NIC (server)"
    busy = netsim.simulate(elements=100, k=1, algorithm="gtopk", compute_time="1s", **options).results[0]
    assert busy.bound_by == "compute"
    trunk = netsim.simulate(elements=10**7, algorithm="ps", topology="tree", fan_out=8, **options).results[0]
    assert "worker0" in trunk.bound_by
