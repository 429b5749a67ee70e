"""The network model: fair shares, capacity, and times, against an independent reference."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.errors import UsageError
from netsim.network.fabric import Fabric, Link, Route
from netsim.network.flows import Flow, Network, max_min
from tests import oracles

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


def reference_finish(capacities: list[int], flows: list[tuple[list[int], int, int]]) -> list[float]:
    """Seconds at which each flow ends, by stepping from event to event with the reference's rates."""
    left = [8.0 * size for _, size, _ in flows]
    start = [begin / PS for _, _, begin in flows]
    finish = [begin if not size else -1.0 for (_, size, _), begin in zip(flows, start, strict=True)]
    now = 0.0
    while any(end < 0 for end in finish):
        active = [i for i, end in enumerate(finish) if end < 0 and start[i] <= now + 1e-12]
        later = [start[i] for i, end in enumerate(finish) if end < 0 and start[i] > now + 1e-12]
        rates = dict(
            zip(active, oracles.max_min([flows[i][0] for i in active], [*map(float, capacities)]), strict=True)
        )
        until = min([now + left[i] / rates[i] for i in active] + later)
        for i in active:
            left[i] -= rates[i] * (until - now)
            if left[i] <= 1e-6 * rates[i] * 1e-3:
                finish[i] = until
        now = until
    return finish


@settings(max_examples=300, deadline=None)
@given(traffics())
def test_flows_end_when_the_reference_says(traffic: tuple[list[int], list[tuple[list[int], int, int]]]) -> None:
    capacities, wanted = traffic
    links = make_links(capacities)
    environment = simpy.Environment(initial_time=0)
    network = Network(environment)
    finish = [-1.0] * len(wanted)

    def begin(number: int) -> None:
        route, size, _ = wanted[number]

        def done(_: Flow) -> None:
            finish[number] = environment.now / PS

        network.start(Route(tuple(links[i] for i in route), 0), size, done)

    for number, (_, _, start) in enumerate(wanted):
        environment.timeout(start).callbacks.append(lambda _, number=number: begin(number))
    while environment.peek() != float("inf"):
        environment.step()
        used: dict[Link, float] = {}
        for flow, rate in network.rates().items():
            assert rate > 0, "a flow starves"
            for link in flow.route.links:
                used[link] = used.get(link, 0.0) + rate
        for link, rate in used.items():
            assert rate <= link.bandwidth_bps * (1 + 1e-9), "a link carries more than it can"
    np.testing.assert_allclose(finish, reference_finish(capacities, wanted), rtol=1e-6, atol=1e-9)


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
