"""Networks from files: what they mean, and that whatever is wrong in one is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

import netsim
from netsim._util.errors import UsageError
from netsim._util.options import several
from netsim.network.fabric import Fabric
from tests.command import run
from topologies import build
from topologies.builder import Shape

SHAPE = Shape(2, 10**9, 50e-6)


def dumbbell() -> dict[str, Any]:
    """Two hosts on each of two switches, with a slow cable between the switches; in the file they take turns."""
    nodes = [{"id": name, "kind": "host"} for name in ("a0", "b0", "a1", "b1")]
    nodes += [{"id": name, "kind": "switch"} for name in ("left", "right")]
    hosts = [("a0", "left"), ("a1", "left"), ("b0", "right"), ("b1", "right")]
    edges = [{"source": host, "target": switch, "bandwidth_bps": 1e9, "latency_s": 25e-6} for host, switch in hosts]
    edges.append({"source": "left", "target": "right", "bandwidth_bps": 1e8, "latency_s": 25e-6})
    return {"directed": False, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges}


def saved(folder: Path, document: object, name: str = "net.json") -> str:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_a_file_is_the_network_that_it_describes(tmp_path: Path) -> None:
    fabric = Fabric(build(saved(tmp_path, dumbbell()), SHAPE))
    route = fabric.route("a0", "b1")
    assert [link.name for link in route.links] == ["a0→left", "left→right", "right→b1"]
    assert [link.bandwidth_bps for link in route.links] == [10**9, 10**8, 10**9]
    assert route.latency_ps == 75 * 10**6
    assert fabric.groups.tolist() == [0, 1, 0, 1]


def test_node_link_json_of_networkx_and_graphml_say_the_same(tmp_path: Path) -> None:
    graph = nx.node_link_graph(dumbbell(), edges="edges")
    plain = saved(tmp_path, nx.node_link_data(graph, edges="edges"))
    older = saved(tmp_path, nx.node_link_data(graph, edges="links"), "older.json")
    nx.write_graphml(graph, tmp_path / "net.graphml")
    options = {"workers": 4, "timing_only": True, "elements": 10**6, "algorithm": "dense,gtopk,gtopk-hier"}
    times = {
        path: [result.round_time_s for result in netsim.simulate(topology=path, **options).results]
        for path in (plain, older, str(tmp_path / "net.graphml"))
    }
    assert len({tuple(each) for each in times.values()}) == 1


def test_a_directed_file_has_different_ways(tmp_path: Path) -> None:
    document = {"directed": True, "nodes": [{"id": name, "kind": "host"} for name in "ab"], "edges": []}
    for source, target, bandwidth in (("a", "b", 10**6), ("b", "a", 8 * 10**6)):
        document["edges"].append({"source": source, "target": target, "bandwidth_bps": bandwidth, "latency_s": 0})
    fabric = Fabric(build(saved(tmp_path, document), SHAPE))
    assert fabric.route("a", "b").links[0].bandwidth_bps == 10**6
    assert fabric.route("b", "a").links[0].bandwidth_bps == 8 * 10**6


def test_a_file_may_say_who_serves_and_who_belongs_together(tmp_path: Path) -> None:
    document = dumbbell()
    document["nodes"][0]["role"] = "server"
    for node, group in zip(document["nodes"][1:4], "xyx", strict=True):
        node["group"] = group
    fabric = Fabric(build(saved(tmp_path, document), SHAPE))
    assert fabric.server_host == "a0"
    assert fabric.workers == ["b0", "a1", "b1"]
    assert fabric.groups.tolist() == [0, 1, 0]


def altered(change: Any) -> dict[str, Any]:
    document = dumbbell()
    change(document)
    return document


EDGE = r"link a0→left: "
WRONG: list[tuple[Any, str]] = [
    (lambda d: d["edges"][0].update(bandwidth_bps=-5), EDGE + "bandwidth_bps -5"),
    (lambda d: d["edges"][0].update(bandwidth_bps="1Gbps"), EDGE + "bandwidth_bps '1Gbps'"),
    (lambda d: d["edges"][0].update(bandwidth_bps=True), EDGE + "bandwidth_bps True"),
    (lambda d: d["edges"][0].update(bandwidth_bps=10**19), EDGE + "bandwidth_bps 1"),
    (lambda d: d["edges"][0].update(latency_s=-1e-9), EDGE + "latency_s -1e-09"),
    (lambda d: d["edges"][0].update(latency_s=None), EDGE + "latency_s None"),
    (lambda d: d["edges"][0].pop("latency_s"), EDGE + "latency_s None"),
    (lambda d: d["edges"].append(dict(d["edges"][0])), "link a0→left is there twice"),
    (lambda d: d["edges"].append(d["edges"][0] | {"source": "left", "target": "a0"}), "link left→a0 is there twice"),
    (lambda d: d["edges"].append(d["edges"][0] | {"target": "a0"}), "link a0→a0: a node is not linked to itself"),
    (lambda d: d["edges"].append(d["edges"][0] | {"target": "nowhere"}), "link a0→nowhere: there is no node 'nowhere'"),
    (lambda d: d["edges"].append("a0-left"), "edge number 5 'a0-left'"),
    (lambda d: d["edges"].pop(), "no path from host 'a0' to host 'b0'"),
    (lambda d: d["nodes"].append({"id": "a0", "kind": "host"}), "node 'a0' is there twice"),
    (lambda d: d["nodes"][0].update(kind="hots"), "node 'a0': kind 'hots' must be 'host' or 'switch'"),
    (lambda d: d["nodes"][0].update(role="boss"), "node 'a0': role 'boss'"),
    (lambda d: d["nodes"].append({"kind": "host"}), "node number 6"),
    (lambda d: d["nodes"].append({"id": "x\ny", "kind": "host"}), r"node 'x\\ny'"),
    (lambda d: [node.update(kind="switch") for node in d["nodes"]], "there is no host"),
    (lambda d: d.pop("nodes"), "expected an object with 'nodes'"),
    (lambda d: d.update(edges={}), "'edges' {} must be a list"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, change: Any, said: str) -> None:
    path = saved(tmp_path, altered(change))
    with pytest.raises(UsageError) as error:
        build(path, SHAPE)
    assert str(error.value).startswith(f"topology {path!r}: ")
    assert re.search(said, str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ('{"nodes": [], "nodes": [], "edges": []}', "the key 'nodes' is there twice"),
        ('{"nodes": [{"id": "a", "kind": "host", "x": NaN}], "edges": []}', r"node 'a': x nan is not finite"),
        ("[]", "expected an object"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_json(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(saved(tmp_path, content), SHAPE)


BOMB = '<?xml version="1.0"?><!DOCTYPE g [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{BOMB}<graphml><graph><node id='&b;'/></graph></graphml>", "declares a document type or entities"),
        ('<!DOCTYPE g SYSTEM "file:///etc/passwd"><graphml/>', "declares a document type or entities"),
        ("<graphml", "not GraphML"),
        ("<html></html>", "not GraphML"),
        ("<graphml><key id='d0' for='node' attr.name='kind'/><graph/></graphml>", "not GraphML: No key type for id d0"),
    ],
)
def test_xml_that_could_do_harm_is_not_read(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(saved(tmp_path, content, "net.graphml"), SHAPE)


def test_duplicates_in_graphml_are_found(tmp_path: Path) -> None:
    graph = nx.node_link_graph(dumbbell(), edges="edges")
    text = "\n".join(nx.generate_graphml(graph))
    node = re.search(r'<node id="a0">.*?</node>', text, re.S)
    edge = re.search(r"<edge source.*?</edge>", text, re.S)
    assert node is not None
    assert edge is not None
    for part, said in ((node[0], "node 'a0' is there twice"), (edge[0], "is there twice")):
        with pytest.raises(UsageError, match=said):
            build(saved(tmp_path, text.replace(part, part + part), "net.graphml"), SHAPE)


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("nowhere.json", "topology 'nowhere.json' cannot be read: No such file"),
        ("./net.dot", "expected a file that ends in one of .json, .graphml"),
        ("fat-tree:k=3", "k 3 must be even"),
        ("fat-tree:kk=4", "unknown key of topology fat-tree: 'kk' (did you mean 'k'?)"),
        ("fat-tree:k", "'k' must be key=value"),
        ("fat-tree:k=four", "k: 'four' must be a whole number"),
        ("fat-tree:k=4,k=6", "k was given twice"),
        ("racks:uplink=4Gpbs", "did you mean 'Gbps'?"),
        ("racks:uplink=4Gbps,oversubscription=2", "both uplink"),
        ("racks:oversubscription=nan", "'nan' must be a number of more than 0"),
        ("torus:sides=4by4", "'4by4' must be two or three sides"),
        ("tree:fan-out=1", "fan-out 1 must be at least 2"),
        ("dragonfly:routing=shortest", "unknown routing 'shortest'"),
        ("wan:matrix=nowhere.csv", "nowhere.csv' cannot be read"),
    ],
)
def test_wrong_topologies_are_one_line(capsys: pytest.CaptureFixture[str], topology: str, said: str) -> None:
    ran = run(capsys, f"simulate --timing-only --elements 10 --topology {topology}")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"netsim: [^\n]+\n", ran.err)
    assert said in ran.err


@pytest.mark.parametrize("topology", ["fat-tree:k=2", "torus:sides=2x2", "dragonfly:a=1,p=1,h=1", "net.json"])
def test_too_many_workers_are_infeasible(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, topology: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, dumbbell())
    ran = run(capsys, f"simulate --timing-only --elements 10 --workers 5 --topology {topology}")
    assert (ran.code, ran.out) == (3, "")
    assert re.fullmatch(rf"netsim: topology '{topology}' has \d hosts, and 5 workers need as many; [^\n]*\n", ran.err)


MATRIX = ",paris,tokyo\nparis,,110ms\ntokyo,120ms,"


def test_a_latency_matrix_is_read_both_ways(tmp_path: Path) -> None:
    path = saved(tmp_path, MATRIX, "matrix.csv")
    fabric = Fabric(build(f"wan:matrix={path},wan=100Mbps", Shape(4, 10**9, 1e-3)))
    assert fabric.route("worker0", "worker3").latency_ps == 111 * 10**9
    assert fabric.route("worker3", "worker0").latency_ps == 121 * 10**9
    assert fabric.route("worker0", "worker1").latency_ps == 10**9
    assert [link.name for link in fabric.route("worker0", "worker3").links][1] == "paris→tokyo"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("110ms", "-1ms"), "row 'paris', column 'tokyo': latency '-1ms' must be more than zero"),
        (("110ms", "110"), "row 'paris', column 'tokyo': latency '110' has no unit"),
        (("tokyo,120ms,", "tokyo,120ms"), "row 'tokyo' has 1 latencies, and there are 2 sites"),
        (("tokyo,120ms", "kyoto,120ms"), "rows must begin with the names of the header"),
        ((",paris,tokyo", ",paris,paris"), "the names of two or more sites"),
    ],
)
def test_a_wrong_matrix_names_row_and_column(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = saved(tmp_path, MATRIX.replace(*change), "matrix.csv")
    with pytest.raises(UsageError, match=re.escape(said)):
        build(f"wan:matrix={path}", SHAPE)


def test_lists_of_topologies_keep_their_keys() -> None:
    text = "star,racks:size=16,uplink=4Gbps,fat-tree:k=8, ring"
    assert several(text) == ["star", "racks:size=16,uplink=4Gbps", "fat-tree:k=8", "ring"]
