"""Laws of routes, and what is published about the topologies; the references know nothing of numbering."""

from __future__ import annotations

import itertools
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.network.fabric import Fabric, Routes
from netsim.network.graph import Graph, check_connected
from netsim.network.routing import ShortestPaths
from topologies import TOPOLOGIES, build
from topologies.builder import Shape

FORMS = [
    *(
        "star",
        "star:up=100Mbps,down=1Gbps",
        "ps",
        "ps:servers=3",
        "ring",
        "torus",
        "torus:sides=2x3",
        "torus:sides=4x4",
    ),
    *("torus:sides=3x2x4", "torus:sides=1x5x2", "tree", "tree:fan-out=3", "tree:fan-out=2,uplink=10Gbps", "racks"),
    *("racks:size=3", "racks:size=4,oversubscription=2", "fat-tree", "fat-tree:k=2", "fat-tree:k=4", "fat-tree:k=6"),
    *("dragonfly", "dragonfly:a=2,p=1,h=1", "dragonfly:a=4,p=2,h=2", "dragonfly:a=4,p=2,h=2,routing=valiant"),
    *("dragonfly:a=1,p=3,h=4", "wan", "wan:sites=3,latency=40ms", "machines", "machines:gpus=3,network=25Gbps"),
]
MINIMAL = [form for form in FORMS if not form.startswith("dragonfly")]
"""A dragonfly's minimal route crosses between groups once; crossing twice may take fewer links."""


def built(form: str, workers: int = 8) -> Graph:
    """Return a topology of that form; whether it has room for the workers is the fabric's to say."""
    return build(form, Shape(workers, 10**9, 50e-6))


def everyone(graph: Graph) -> Fabric:
    """Return the fabric of a network with a rank on every host."""
    return Fabric(graph, len(graph.hosts))


def all_pairs(fabric: Fabric) -> tuple[np.ndarray, np.ndarray, Routes]:
    ranks = range(len(fabric.hosts))
    sources, targets = np.array(list(itertools.product(ranks, ranks))).T
    return sources, targets, fabric.links_of(sources, targets)


def in_networkx(graph: Graph) -> nx.MultiDiGraph[int]:
    found: nx.MultiDiGraph[int] = nx.MultiDiGraph()
    found.add_nodes_from(range(len(graph.names)))
    found.add_edges_from(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [1, 2, 7, 20])
def test_every_route_is_a_path_that_connects_its_ends_without_a_loop(form: str, workers: int) -> None:
    graph = built(form, workers)
    fabric = everyone(graph)
    nodes = np.concatenate([graph.hosts, graph.servers])
    sources, targets, (first, links, latency_ps) = all_pairs(fabric)
    for pair, (source, target) in enumerate(zip(nodes[sources], nodes[targets], strict=True)):
        route = links[first[pair] : first[pair + 1]]
        visited = [source, *graph.targets[route].tolist()]
        assert visited[-1] == target
        assert [source, *visited[1:]][: len(route)] == graph.sources[route].tolist()
        assert len(set(visited)) == len(visited)
        assert latency_ps[pair] == pytest.approx(1e12 * graph.latency_s[route].sum(), abs=0.5)


@pytest.mark.parametrize("form", MINIMAL)
@pytest.mark.parametrize("workers", [5, 18])
def test_routes_have_the_fewest_links_that_a_search_finds(form: str, workers: int) -> None:
    graph = built(form, workers)
    nodes = np.concatenate([graph.hosts, graph.servers])
    distances = dict(nx.all_pairs_shortest_path_length(in_networkx(graph)))
    sources, targets, routes = all_pairs(everyone(graph))
    expected = [distances[a][b] for a, b in zip(nodes[sources].tolist(), nodes[targets].tolist(), strict=True)]
    assert np.diff(routes.first).tolist() == expected


@pytest.mark.parametrize("form", FORMS)
def test_the_general_router_finds_routes_of_the_same_length(form: str) -> None:
    """Or shorter ones, on a dragonfly."""
    graph = built(form, 18)
    general = ShortestPaths(len(graph.names), graph.sources, graph.targets)
    nodes = np.concatenate([graph.hosts, graph.servers])
    sources, targets, routes = all_pairs(everyone(graph))
    hashes = np.arange(len(sources)).astype(np.uint64)
    found = general.paths(nodes[sources], nodes[targets], hashes)
    assert (found.counts <= np.diff(routes.first)).all()
    if form in MINIMAL:
        assert (found.counts == np.diff(routes.first)).all()
    for pair in range(len(sources)):
        route = found.links[found.first[pair] : found.first[pair + 1]]
        visited = [nodes[sources][pair], *graph.targets[route].tolist()]
        assert visited[:-1] == graph.sources[route].tolist()
        assert visited[-1] == nodes[targets][pair]


@pytest.mark.parametrize("name", sorted(TOPOLOGIES))
@settings(max_examples=25, deadline=None)
@given(workers=st.integers(1, 200))
def test_any_number_of_workers_has_a_connected_network_of_distinct_links(name: str, workers: int) -> None:
    graph = build(name, Shape(workers, 10**9, 50e-6))
    assert len(graph.hosts) >= workers
    assert len(set(graph.names)) == len(graph.names)
    check_connected(graph)
    pairs = list(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert {(b, a) for a, b in pairs} == set(pairs), "every cable has two ways"
    assert sorted(graph.near.tolist()) == list(range(len(graph.hosts)))
    assert len(graph.groups) == len(graph.hosts)


@pytest.mark.parametrize("k", [2, 4, 6, 8, 16])
def test_a_fat_tree_has_the_published_numbers(k: int) -> None:
    """k³/4 hosts, 5k²/4 switches of k ports each (Al-Fares et al., section 3)."""
    graph = built(f"fat-tree:k={k}", 1)
    assert len(graph.hosts) == k**3 // 4
    assert len(graph.switches) == 5 * k**2 // 4
    assert len(graph.sources) == 2 * 3 * k**3 // 4
    ports = np.bincount(graph.sources, minlength=len(graph.names))
    assert set(ports[graph.switches].tolist()) == {k}
    assert set(ports[graph.hosts].tolist()) == {1}


@pytest.mark.parametrize(("a", "p", "h"), [(2, 1, 1), (4, 2, 2), (3, 2, 1), (1, 2, 3), (6, 3, 3)])
def test_a_dragonfly_has_the_published_numbers(a: int, p: int, h: int) -> None:
    """g = a h + 1 groups, N = a p g hosts, routers of p + h + a - 1 ports (Kim et al., section 3)."""
    graph = built(f"dragonfly:a={a},p={p},h={h}", 1)
    groups = a * h + 1
    assert len(graph.hosts) == a * p * groups
    assert len(graph.switches) == a * groups
    assert len(graph.sources) == 2 * (a * p * groups + groups * a * (a - 1) // 2 + groups * (groups - 1) // 2)
    ports = np.bincount(graph.sources, minlength=len(graph.names))
    assert set(ports[graph.switches].tolist()) == {p + h + a - 1}


@pytest.mark.parametrize("sides", [(5,), (4, 4), (3, 5, 4), (2, 2, 2), (1, 6), (2, 3, 4), (8, 1, 2)])
def test_a_torus_has_two_neighbours_along_every_side(sides: tuple[int, ...]) -> None:
    graph = built("torus:sides=" + "x".join(map(str, sides)), 1)
    degree = sum({1: 0, 2: 1}.get(side, 2) for side in sides)
    assert len(graph.hosts) == np.prod(sides)
    assert (np.bincount(graph.sources, minlength=len(graph.names)) == degree).all()
    assert len(graph.switches) == 0
    links = Counter(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True))
    near = graph.near.tolist()
    assert all(links[one, other] == 1 for one, other in itertools.pairwise(near)), "a snake visits neighbours"


@pytest.mark.parametrize(
    ("form", "pair", "choices"),
    [("fat-tree:k=8", (0, 127), 16), ("fat-tree:k=8", (0, 5), 4), ("torus:sides=8x8", (0, 36), 4)],
)
def test_ecmp_spreads_flows_evenly_over_all_equal_routes(form: str, pair: tuple[int, int], choices: int) -> None:
    """χ² of the counts of 1,000 flows a choice stays below its 99.99 % quantile (for at most 15 degrees of freedom)."""
    flows = 1000 * choices
    first, links, _ = everyone(built(form)).links_of([pair[0]] * flows, [pair[1]] * flows, np.arange(flows))
    used = Counter(tuple(links[first[flow] : first[flow + 1]].tolist()) for flow in range(flows))
    assert len(used) == choices
    assert sum((count - 1000) ** 2 / 1000 for count in used.values()) < 44.3


def test_ecmp_in_any_graph_spreads_too() -> None:
    graph = built("fat-tree:k=8")
    general = ShortestPaths(len(graph.names), graph.sources, graph.targets)
    flows = np.arange(16_000)
    ends = np.zeros_like(flows)
    found = general.paths(ends, ends + 127, np.random.default_rng(0).integers(0, 2**63, 16_000).astype(np.uint64))
    used = Counter(tuple(found.links[6 * flow : 6 * flow + 6].tolist()) for flow in flows)
    assert len(used) == 16
    assert sum((count - 1000) ** 2 / 1000 for count in used.values()) < 44.3


def test_valiant_routes_spread_the_traffic_of_two_groups() -> None:
    """All hosts of group 0 send to group 1: one link between groups carries it, or nearly all do."""
    shape = "dragonfly:a=4,p=2,h=2"
    loads = {}
    for routing in ("minimal", "valiant"):
        graph = built(f"{shape},routing={routing}")
        _, links, _ = everyone(graph).links_of(np.repeat(np.arange(8), 8), 8 + np.tile(np.arange(8), 8))
        between = graph.groups[0:1]  # of hosts; routers' groups follow from their names
        names = [graph.names[node].split(".")[0] for node in range(len(graph.names))]
        crossing = [link for link in links.tolist() if names[graph.sources[link]] != names[graph.targets[link]]]
        crossing = [link for link in crossing if "router" in names[graph.sources[link]] + names[graph.targets[link]]]
        crossing = [
            link for link in crossing if names[graph.sources[link]][:6] == names[graph.targets[link]][:6] == "router"
        ]
        loads[routing] = Counter(crossing)
        assert between.tolist() == [0]
    assert list(loads["minimal"].values()) == [64]
    assert max(loads["valiant"].values()) < 32
    assert len(loads["valiant"]) > 8


def test_routes_do_not_depend_on_how_many_are_asked_for_at_once() -> None:
    for form in ("fat-tree:k=4", "torus:sides=4x4", "dragonfly:a=4,p=2,h=2,routing=valiant"):
        fabric = everyone(built(form))
        sources, targets, routes = all_pairs(fabric)
        for pair in range(0, len(sources), 7):
            names = [fabric.hosts[sources[pair]], fabric.hosts[targets[pair]]]
            links = [link.index for link in fabric.route(*names).links]
            assert links == routes.links[routes.first[pair] : routes.first[pair + 1]].tolist()


def test_another_seed_hashes_otherwise() -> None:
    routes = set()
    for seed in range(8):
        routes.add(tuple(everyone(built(f"fat-tree:k=4,hash={seed}")).links_of([0] * 4, [4, 8, 12, 15]).links.tolist()))
    assert len(routes) > 1


@pytest.mark.parametrize("form", ["star", "ps", "tree:fan-out=3", "racks:size=4", "wan", "fat-tree", "torus"])
def test_one_route_is_what_many_at_once_are(form: str) -> None:
    fabric = everyone(built(form))
    hosts = range(len(fabric.hosts))
    sources, targets = np.array([(src, dst) for src in hosts for dst in hosts]).T
    first, links, latency_ps = fabric.links_of(sources, targets)
    for number, (src, dst) in enumerate(zip(sources.tolist(), targets.tolist(), strict=True)):
        route = fabric.route(fabric.hosts[src], fabric.hosts[dst])
        assert [link.index for link in route.links] == links[first[number] : first[number + 1]].tolist()
        assert route.latency_ps == latency_ps[number]
