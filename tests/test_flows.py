"""The network model: fair shares, capacity, and times, against an independent reference."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim._util.errors import UsageError
from netsim.network.fabric import Fabric, Link, Route
from netsim.network.flows import Flow, Network, Solver, max_min
from tests import oracles, progressive
from tests.progressive import Wanted

PS = 10**12


@st.composite
def traffics(draw: st.DrawFn) -> tuple[list[int], list[tuple[list[int], int, int]]]:
    """Link capacities in bit/s, and flows as (links, bytes, start in ps)."""
    links = draw(st.integers(1, 8))
    capacities = draw(st.lists(st.sampled_from([10**6, 25 * 10**5, 10**7, 10**9]), min_size=links, max_size=links))
    route = st.lists(st.integers(0, links - 1), min_size=1, max_size=4, unique=True)
    flow = st.tuples(route, st.integers(0, 10**6), st.integers(0, 3).map(lambda half: half * PS // 2))
    return capacities, draw(st.lists(flow, min_size=1, max_size=12))


def make_links(capacities: list[int]) -> list[Link]:
    return [Link(index, f"a{index}", f"b{index}", capacity, 0.0) for index, capacity in enumerate(capacities)]


@settings(max_examples=300, deadline=None)
@given(traffics())
def test_rates_are_max_min_fair(traffic: tuple[list[int], list[tuple[list[int], int, int]]]) -> None:
    capacities, wanted = traffic
    links = make_links(capacities)
    flows = [Flow(Route(tuple(links[i] for i in route), 0), 8, lambda _: None) for route, _, _ in wanted]
    fair = max_min(flows)
    expected = oracles.max_min([route for route, _, _ in wanted], [float(capacity) for capacity in capacities])
    np.testing.assert_allclose([fair[flow][0] for flow in flows], expected, rtol=1e-9)
    for flow in flows:
        assert fair[flow][1] in flow.route.links


SOLVERS = [
    "python",
    pytest.param("compiled", marks=pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")),
]


def check_ends(solver: Solver, traffic: tuple[list[int], list[Wanted]]) -> None:
    """Run traffic through a network; hold every end to the reference, and every instant to the laws of links."""
    capacities, wanted = traffic
    links = make_links(capacities)
    environment = simpy.Environment(initial_time=0)
    network = Network(environment, solver=solver)
    finish = [-1] * len(wanted)
    carried = [0.0] * len(wanted)
    numbers: dict[Flow, int] = {}

    def begin(number: int) -> None:
        flow = wanted[number]

        def done(_: Flow) -> None:
            finish[number] = environment.now

        route = Route(tuple(links[i] for i in flow.links), 0)
        options = {"weight": float(flow.weight), "cap_bps": flow.cap}
        numbers[network.start(route, flow.bits // 8, done, **options)] = number

    for number, flow in enumerate(wanted):
        environment.timeout(flow.at).callbacks.append(lambda _, number=number: begin(number))
    while environment.peek() != float("inf"):
        environment.step()
        used: dict[Link, float] = {}
        ahead = environment.peek() - environment.now
        for flow, rate in network.rates().items():
            assert rate > 0, "a flow starves"
            carried[numbers[flow]] += rate * ahead / PS
            for link in flow.route.links:
                used[link] = used.get(link, 0.0) + rate
        for link, rate in used.items():
            assert rate <= link.bandwidth_bps * (1 + 1e-9), "a link carries more than it can"
    expected = [float(end) for end in progressive.finish(wanted, capacities)]
    # Each end is rounded to a picosecond, and may be late by as much as those before it were.
    np.testing.assert_allclose(finish, expected, rtol=1e-6, atol=len(wanted))
    np.testing.assert_allclose(carried, [flow.bits for flow in wanted], rtol=1e-9, atol=0.01 * len(wanted))


@pytest.mark.parametrize("kind", ["plain", "weighted", "capped", "both"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_flows_end_when_the_reference_says(solver: Solver, kind: str) -> None:
    @settings(max_examples=50, deadline=None)
    @given(progressive.traffics(kind))
    def check(traffic: tuple[list[int], list[Wanted]]) -> None:
        check_ends(solver, traffic)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_flows_end_when_the_reference_says_in_a_thousand_networks(solver: Solver) -> None:
    @settings(max_examples=1000, deadline=None)
    @given(progressive.traffics())
    def check(traffic: tuple[list[int], list[Wanted]]) -> None:
        check_ends(solver, traffic)

    check()


def racks(solver: Solver, hosts: int, flows: int) -> tuple[list[int], list[list[tuple[object, int]]], Network]:
    """Send `flows` between hosts in racks of 8; return when each was over, what held it back, and the network."""
    random = np.random.default_rng(7)
    # All bandwidths differ, so that no two links are ever full at one level.
    bandwidths = [10**9] * (2 * hosts) + [2 * 10**9] * (hosts // 4)
    links = make_links([bandwidth + 10007 * number for number, bandwidth in enumerate(bandwidths)])
    environment = simpy.Environment(initial_time=0)
    network = Network(environment, solver=solver)
    ends, held = [-1] * flows, [[] for _ in range(flows)]
    for number in range(flows):
        src, dst = (int(host) for host in random.integers(0, hosts, 2))
        route = [src, 2 * hosts + src // 8, 2 * hosts + hosts // 8 + dst // 8, hosts + dst]
        nbytes = int(random.lognormal(12, 1.5))

        def done(flow: Flow, number: int = number) -> None:
            ends[number], held[number] = environment.now, [(str(at), time) for at, time in flow.bottlenecks]

        latency = int(random.integers(0, PS // 1000))
        network.start(Route(tuple(links[link] for link in route), latency), nbytes, done)
    environment.run()
    return ends, held, network


@pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
def test_plain_python_compiled_code_and_changing_over_agree() -> None:
    slow, held, _ = racks("python", 32, 300)
    fast, held_fast, _ = racks("compiled", 32, 300)
    mixed, held_mixed, network = racks("auto", 32, 300)
    assert not network._may_change_over, "it never changed over"
    np.testing.assert_allclose(fast, slow, rtol=1e-9)
    np.testing.assert_allclose(mixed, slow, rtol=1e-9)
    for one, two, three in zip(held, held_fast, held_mixed, strict=True):
        assert sum(time for _, time in one) == pytest.approx(sum(time for _, time in two), rel=1e-9, abs=3)
        assert {at for at, time in one if time > 10} == {at for at, time in two if time > 10}
        assert {at for at, time in one if time > 10} == {at for at, time in three if time > 10}


@pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
def test_where_numba_does_not_compile_it_stays_with_plain_python() -> None:
    script = (
        "import sys; from tests.test_flows import racks; _, _, network = racks('auto', 32, 300);"
        "print(type(network._solver).__name__, 'netsim.network.compiled' in sys.modules)"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (ran.stdout, ran.stderr) == ("ProgressiveFilling False\n", "")


@pytest.mark.slow
def test_without_numba_it_stays_with_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = racks("python", 32, 300)[:2]
    monkeypatch.setattr("netsim.network.flows.find_spec", lambda name: None)
    assert racks("auto", 32, 300)[:2] == expected


def test_a_flow_alone_takes_exactly_latency_and_bits_over_bandwidth() -> None:
    environment = simpy.Environment(initial_time=0)
    ended: list[int] = []
    link = Link(0, "a", "b", 3 * 10**9, 7e-6)
    Network(environment).start(Route((link,), 7 * 10**6), 10**12 + 1, lambda _: ended.append(environment.now))
    environment.run()
    exact = 7 * 10**6 + 8 * (10**12 + 1) * PS / (3 * 10**9)
    assert abs(ended[0] - exact) <= 1


def test_time_stays_an_integer() -> None:
    environment = simpy.Environment(initial_time=0)
    link = Link(0, "a", "b", 10**9, 0.0)
    network = Network(environment)
    for size in (10, 11, 13):
        network.start(Route((link,), 5), size, lambda _: None)
    while environment.peek() != float("inf"):
        environment.step()
        assert isinstance(environment.now, int)


def test_equal_shortest_paths_always_give_the_same_route() -> None:
    graph: nx.Graph[str] = nx.cycle_graph(["a", "b", "c", "d"])
    nx.set_node_attributes(graph, "host", "kind")
    nx.set_edge_attributes(graph, 10**6, "bandwidth_bps")
    nx.set_edge_attributes(graph, 0.0, "latency_s")
    names = {tuple(link.name for link in Fabric(graph).route("a", "c").links) for _ in range(5)}
    assert len(names) == 1


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"bandwidth_bps": 0, "latency_s": 0.0}, "bandwidth_bps 0"),
        ({"bandwidth_bps": float("nan"), "latency_s": 0.0}, "bandwidth_bps nan"),
        ({"bandwidth_bps": 10**9, "latency_s": -1.0}, "latency_s -1.0"),
        ({"latency_s": 0.0}, "bandwidth_bps None"),
    ],
)
def test_a_link_that_makes_no_sense_is_refused_by_name(attributes: dict[str, float], named: str) -> None:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(["left", "right"], kind="host")
    graph.add_edge("left", "right", **attributes)
    with pytest.raises(UsageError, match=f"left→right: {named}"):
        Fabric(graph)


def test_hosts_that_are_not_connected_are_named() -> None:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(["here", "there"], kind="host")
    with pytest.raises(UsageError, match="'here' to host 'there'"):
        Fabric(graph).route("here", "there")
