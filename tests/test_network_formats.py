"""Networks and flows in the formats of other programs.

Each small file is of our own making. What it must give is worked out by hand from the format's own definition, which a
comment or a name states. :data:`PUBLISHED` has what was read from files that others published. Those files are not in
the repository, so no test compares the counts with them; only the kind of a format is compared, on the small files.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim._util.errors import InfeasibleError, UsageError
from netsim.experiment.configuration import Experiment
from netsim.network.fabric import Fabric
from netsim.network.flowfile import GivenFlow, read_flows
from netsim.network.graph import Graph
from tests.command import run
from topologies import build, file_of, taken
from topologies.builder import Shape
from topologies.formats.draft import fibre_s, great_circle_km

SHAPE = Shape(2, 10**9, 50e-6)


def saved(folder: Path, name: str, content: str) -> str:
    path = folder / name
    path.write_text(content)
    return str(path)


def link(graph: Graph, source: str, target: str) -> tuple[int, float]:
    """Return the bandwidth and the latency of a link, by the names of its nodes."""
    ends = graph.names.index(source), graph.names.index(target)
    at = next(at for at in range(len(graph.sources)) if (graph.sources[at], graph.targets[at]) == ends)
    return int(graph.bandwidth_bps[at]), float(graph.latency_s[at])


ZOO_GRAPHML = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key attr.name="LinkSpeedRaw" attr.type="double" for="edge" id="d3"/>
<key attr.name="LinkLabel" attr.type="string" for="edge" id="d4"/>
<key attr.name="label" attr.type="string" for="node" id="d2"/>
<key attr.name="Longitude" attr.type="double" for="node" id="d1"/>
<key attr.name="Latitude" attr.type="double" for="node" id="d0"/>
<key attr.name="Internal" attr.type="int" for="node" id="d5"/>
<graph edgedefault="undirected">
<node id="0"><data key="d0">0</data><data key="d1">0</data><data key="d2">Here</data><data key="d5">1</data></node>
<node id="1"><data key="d0">0</data><data key="d1">90</data><data key="d2">There</data><data key="d5">1</data></node>
<node id="2"><data key="d2">Elsewhere</data><data key="d5">0</data></node>
<node id="3"><data key="d2">Island</data><data key="d5">1</data></node>
<edge source="0" target="1"><data key="d3">2500000000.0</data></edge>
<edge source="0" target="1"><data key="d4">10 Gbps</data></edge>
<edge source="0" target="1"/>
<edge source="1" target="2"><data key="d4">OC-3</data></edge>
</graph></graphml>"""


def test_links_of_the_topology_zoo_are_read_added_up_and_completed(tmp_path: Path) -> None:
    graph = build(saved(tmp_path, "zoo.graphml", ZOO_GRAPHML), Shape(2, 10**8, 1e-3))
    # 2.5 Gbit/s, a label of 10 Gbit/s, and a link without a speed, which takes that of the shape.
    quarter_s = math.pi / 2 * 6371 / (2 / 3 * 299792.458)  # a quarter of the equator, in fibre
    assert link(graph, "Here router", "There router") == (12_600_000_000, pytest.approx(quarter_s))
    assert link(graph, "There router", "Elsewhere router") == (155_520_000, 0.5e-3)  # OC-3, and no place
    assert link(graph, "There", "There router") == (10**8, 0.5e-3)
    # A node outside has no host, and one without links is left out.
    assert [graph.names[host] for host in graph.hosts] == ["Here", "There"]
    assert "Island router" not in graph.names
    assert graph.notes == (
        "GraphML of routers: 4 nodes, 4 links, 3 with a speed; 2 links parallel to others, added up; "
        "1 not connected to the largest part, left out (Island)",
        "ASSUMED: a host at every router inside on a link of 100 Mbit/s and 500 µs (--bandwidth, half of --latency)",
        "ASSUMED: 100 Mbit/s (--bandwidth) for 1 link without a speed",
        "ASSUMED: light in fibre, 2/3 c, for the latency of 1 link with a distance",
        "ASSUMED: 500 µs (half of --latency) for 1 link without a latency",
    )


def test_several_hosts_at_every_router(tmp_path: Path) -> None:
    path = saved(tmp_path, "zoo.graphml", ZOO_GRAPHML)
    graph = build(f"{path}:hosts=3", SHAPE)
    assert [graph.names[host] for host in graph.hosts] == [f"{at}.{n}" for at in ("Here", "There") for n in range(3)]
    assert graph.groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert taken(path) == (True, True)
    experiment = Experiment.of(topology=path, workers=3, timing_only=True, elements=1)
    with pytest.raises(InfeasibleError, match="take fewer workers or several hosts a router, FILE:hosts=2"):
        experiment.fabric()
    own = saved(tmp_path, "own.json", '{"nodes": [{"id": "a", "kind": "host"}], "edges": []}')
    with pytest.raises(UsageError, match="hosts=3 was given, but the file has hosts of its own"):
        build(f"{own}:hosts=3", SHAPE)


# Two nodes have the same label, parallel links are not announced, and a value is quoted or not: networkx reads none.
ZOO_GML = """Creator "a tool"
graph [
  Network "A &amp; B" # of two
  node [ id 0 label "None" Latitude 10.0 Longitude 20.0 graphics [ x 1 y 2 ] ]
  node [ id 1 label "None" Latitude 10.0 Longitude 20.0 ]
  edge [ source 0 target 1 LinkSpeedRaw 1000000000.0 ]
  edge [ source 1 target 0 LinkSpeedRaw "2e9" ]
]"""


def test_gml_with_equal_labels_and_parallel_links(tmp_path: Path) -> None:
    graph = build(saved(tmp_path, "zoo.gml", ZOO_GML), SHAPE)
    assert graph.names == ["0", "1", "0 router", "1 router"]
    assert link(graph, "0 router", "1 router") == (3 * 10**9, 0.0)


def test_only_a_graph_with_all_links_both_ways_is_directed(tmp_path: Path) -> None:
    directed = ZOO_GML.replace("graph [", "graph [ directed 1", 1)
    graph = build(saved(tmp_path, "both.gml", directed), SHAPE)
    assert link(graph, "0 router", "1 router")[0] == 10**9
    assert link(graph, "1 router", "0 router")[0] == 2 * 10**9
    one_way = directed.replace("source 1 target 0", "source 0 target 1")
    assert link(build(saved(tmp_path, "one.gml", one_way), SHAPE), "1 router", "0 router")[0] == 3 * 10**9


def test_topohub_json_has_places_and_distances(tmp_path: Path) -> None:
    nodes = [
        {"id": 0, "name": "a", "pos": [0.0, 0.0]},
        {"id": 1, "name": "b", "pos": [90.0, 0.0]},
        {"id": 2, "pos": [9, 9], "type": "Seacable Waypoint", "name": "c"},
    ]
    edges = [{"source": 0, "target": 1}, {"source": 1, "target": 2, "dist": 1000.0, "ecmp_fwd": {"uni": 1.0}}]
    document = {"directed": False, "multigraph": False, "graph": {"demands": {}}, "nodes": nodes, "edges": edges}
    graph = build(saved(tmp_path, "hub.json", json.dumps(document)), SHAPE)
    assert link(graph, "b router", "c router") == (10**9, pytest.approx(1000 / (2 / 3 * 299792.458)))
    assert link(graph, "a router", "b router")[1] == pytest.approx(math.pi / 2 * 6371 / (2 / 3 * 299792.458))
    assert [graph.names[host] for host in graph.hosts] == ["a", "b"]


@given(*[st.tuples(st.floats(-90, 90), st.floats(-180, 180))] * 3)
def test_distances_on_the_earth_are_a_metric(first, second, third) -> None:  # type: ignore[no-untyped-def]
    there = great_circle_km(first, second)
    assert 0 <= there <= math.pi * 6371 * (1 + 1e-9)
    assert there == pytest.approx(great_circle_km(second, first), abs=1e-3)
    assert there <= great_circle_km(first, third) + great_circle_km(third, second) + 1e-3
    assert fibre_s(there) >= there / 299792.458


SNDLIB = """<network xmlns="http://sndlib.zib.de/network" version="1.0"><networkStructure>
<nodes coordinatesType="geographical">
<node id="A"><coordinates><x>0.0</x><y>0.0</y></coordinates></node>
<node id="B"><coordinates><x>0.0</x><y>90.0</y></coordinates></node></nodes>
<links><link id="L"><source>B</source><target>A</target><additionalModules><addModule><capacity>155.0</capacity>
</addModule></additionalModules></link></links></networkStructure><demands/></network>"""


def test_xml_of_sndlib_has_places(tmp_path: Path) -> None:
    graph = build(saved(tmp_path, "net.xml", SNDLIB), SHAPE)
    quarter_s = math.pi / 2 * 6371 / (2 / 3 * 299792.458)
    assert link(graph, "A router", "B router") == (10**9, pytest.approx(quarter_s))
    assert graph.notes[0] == "SNDlib network of routers: 2 nodes, 1 link, none with a speed"
    pixels = build(saved(tmp_path, "pixel.xml", SNDLIB.replace("geographical", "pixel")), SHAPE)
    assert link(pixels, "A router", "B router") == (10**9, 25e-6)


def test_graphml_may_end_in_xml(tmp_path: Path) -> None:
    here, there = (build(saved(tmp_path, name, ZOO_GRAPHML), SHAPE) for name in ("zoo.graphml", "zoo.xml"))
    assert (here.names, here.notes) == (there.names, there.notes)


HPCC = (
    "5 2 4\n3 4\n0 3 100Gbps 1us 0\n1 3 25Gb/s 1000ns 0.01\n2 4 100Gbps 0.001ms 0\n3 4 400Gbps 1us 0\n0 4 1Gbps 1us 0\n"
)


def test_an_hpcc_topology(tmp_path: Path) -> None:
    graph = build(saved(tmp_path, "topology.txt", HPCC), SHAPE)
    assert [graph.names[host] for host in graph.hosts] == ["0", "1", "2"]
    assert [graph.names[switch] for switch in graph.switches] == ["3", "4"]
    assert link(graph, "1", "3") == (25 * 10**9, 1e-6)
    assert len(graph.sources) == 2 * 4  # the fifth line is beyond the number of links
    assert Fabric(graph).route("0", "2").latency_ps == 3 * 10**6
    assert graph.notes == (
        "HPCC topology: 5 nodes, 2 of them switches, 4 links; 1 lines beyond these not read; "
        "the error rates of 1 link not simulated (--loss has one for all)",
    )


ASTRA = """# a comment
topology: [ Ring, FullyConnected, Switch ]
npus_count: [ 4, 3, 2 ]
bandwidth: [ 200.0, 100.0, 50.0 ]  # GB/s
latency: [ 50.0, 500, 2000.0 ]  # ns
"""


def test_an_astra_sim_network(tmp_path: Path) -> None:
    graph = build(saved(tmp_path, "network.yml", ASTRA), SHAPE)
    assert (len(graph.hosts), len(graph.switches)) == (24, 12)  # 4 · 3 · 2 NPUs, and 12 switches that join pairs
    # A ring of 4 has 4 cables and a triangle 3; each switch has 2.
    assert len(graph.sources) == 2 * (6 * 4 + 8 * 3 + 12 * 2)
    assert link(graph, "npu0", "npu3") == (1_600_000_000_000, pytest.approx(50e-9))
    assert link(graph, "npu0", "npu8") == (800_000_000_000, pytest.approx(500e-9))
    assert Fabric(graph).route("npu0", "npu12").latency_ps == 4_000_000  # a switch takes two links
    assert len(set(graph.groups.tolist())) == 6  # the NPUs of a ring


def test_a_ring_of_two_is_one_cable(tmp_path: Path) -> None:
    text = "topology: [Ring]\nnpus_count: [2]\nbandwidth: [1]\nlatency: [0]"
    assert len(build(saved(tmp_path, "network.yaml", text), SHAPE).sources) == 2


SIMGRID = """<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1"><zone id="world" routing="Full">
<host id="a" speed="1Gf"><prop id="p" value="q"/></host><host id="b" speed="1Gf"/><host id="c" speed="1Gf"/>
<link id="slow" bandwidth="1MBps" latency="1ms"/>
<link id="wide" bandwidth="1Gbps" latency="10us" sharing_policy="SPLITDUPLEX"/>
<link id="pipe" bandwidth="125000000" latency="0.002" sharing_policy="FATPIPE"/>
<route src="a" dst="b"><link_ctn id="slow"/><link_ctn id="wide" direction="UP"/></route>
<route src="a" dst="c"><link_ctn id="pipe"/></route>
<route src="b" dst="c" symmetrical="NO">
<link_ctn id="wide" direction="DOWN"/><link_ctn id="slow"/><link_ctn id="pipe"/></route>
<route src="c" dst="b" symmetrical="NO"><link_ctn id="pipe"/></route>
</zone></platform>"""


def test_a_simgrid_platform_takes_its_own_routes(tmp_path: Path) -> None:
    path = saved(tmp_path, "platform.xml", SIMGRID)
    fabric = Fabric(build(path, SHAPE))
    latency_us = {pair: fabric.route(*pair).latency_ps / 10**6 for pair in ("ab", "ba", "ac", "bc", "cb")}
    assert latency_us == {"ab": 1010, "ba": 1010, "ac": 2000, "bc": 3010, "cb": 2000}
    # In both directions a shared link has 1 MB/s together: each of two flows of 1 MB takes 2 s.
    flows = saved(tmp_path, "flows.csv", "src,dst,bytes,start_s\na,b,1000000,0\nb,a,1000000,0\n")
    assert finishes(path, flows) == [pytest.approx(2.00101), pytest.approx(2.00101)]
    # A link with a bandwidth in each direction, and one that every host has for itself, do not slow others down.
    flows = saved(tmp_path, "pipe.csv", "src,dst,bytes,start_s\na,c,125000000,0\nc,b,125000000,0\n")
    assert finishes(path, flows) == [pytest.approx(1.002), pytest.approx(1.002)]


def finishes(topology: str, flows: str) -> list[float]:
    from netsim.analysis.replay import replay

    fabric = Fabric(build(topology, SHAPE))
    done = replay(fabric, read_flows(Path(flows), fabric.nodes_of_hosts), "maxmin")
    return [flow.finish_s for flow in done.flows]


def test_simgrid_clusters_with_a_backbone_and_a_route_between(tmp_path: Path) -> None:
    text = """<platform version="4.1"><AS id="all" routing="Full">
    <cluster id="one" prefix="n" suffix=".x" radical="0-1,5" speed="1Gf" bw="125MBps" lat="50us"
     bb_bw="1GBps" bb_lat="1ms"/>
    <cluster id="two" prefix="m" suffix="" radical="0-1" speed="1Gf" bw="125MBps" lat="50us" router_id="gate"/>
    <link id="between" bandwidth="1GBps" latency="10ms"/>
    <ASroute src="one" dst="two" gw_src="none_router.x" gw_dst="gate"><link_ctn id="between"/></ASroute>
    </AS></platform>"""
    graph = build(saved(tmp_path, "clusters.xml", text), SHAPE)
    fabric = Fabric(graph)
    assert [graph.names[host] for host in graph.hosts] == ["n0.x", "n1.x", "n5.x", "m0", "m1"]
    assert graph.groups.tolist() == [0, 0, 0, 1, 1]
    assert fabric.route("n0.x", "n5.x").latency_ps == 1_100_000_000  # up, backbone, down
    assert fabric.route("m0", "m1").latency_ps == 100_000_000
    assert fabric.route("n0.x", "m1").latency_ps == 11_100_000_000


def test_a_platform_that_netsim_wrote_comes_back(tmp_path: Path) -> None:
    from topologies.export import to_simgrid

    for topology in ("racks:size=2", "fat-tree:k=2"):
        here = Experiment.of(topology=topology, workers=2, timing_only=True, elements=1).fabric(everywhere=True)
        back = Fabric(build(saved(tmp_path, "back.xml", "".join(to_simgrid(here))), SHAPE))
        for source in here.hosts:
            for target in here.hosts:
                assert back.route(source, target).latency_ps == here.route(source, target).latency_ps


MATRIX = ",paris,tokyo\nparis,,110ms 500Mbps\ntokyo,1 Gbps 120 ms,\n"


def test_a_matrix_has_latency_and_bandwidth(tmp_path: Path) -> None:
    path = saved(tmp_path, "sites.csv", MATRIX)
    graph = build(path, Shape(4, 10**9, 1e-3))
    assert link(graph, "paris", "tokyo") == (5 * 10**8, 0.110)
    assert link(graph, "tokyo", "paris") == (10**9, 0.120)
    assert len(graph.hosts) == 4
    assert taken(path) == (True, True)  # the workers' links
    assert file_of(path) == Path(path)
    again = build(f"wan:matrix={path}", Shape(4, 10**9, 1e-3))
    assert (again.bandwidth_bps.tolist(), again.notes) == (graph.bandwidth_bps.tolist(), graph.notes)
    assert graph.notes[0] == "matrix: 2 sites, 2 latencies, 2 bandwidths"


def test_bandwidths_may_have_a_matrix_of_their_own(tmp_path: Path) -> None:
    latencies = saved(tmp_path, "ms.csv", ",a,b\na,,1ms\nb,2ms,\n")
    rates = saved(tmp_path, "rates.csv", ",a,b\na,,3Gbps\nb,4Gbps,\n")
    graph = build(f"wan:matrix={latencies},bandwidths={rates}", SHAPE)
    assert (link(graph, "a", "b"), link(graph, "b", "a")) == ((3 * 10**9, 0.001), (4 * 10**9, 0.002))
    other = saved(tmp_path, "other.csv", ",a,c\na,,3Gbps\nc,4Gbps,\n")
    with pytest.raises(UsageError, match="its sites must be those of the latency matrix, in order: a, b"):
        build(f"wan:matrix={latencies},bandwidths={other}", SHAPE)
    with pytest.raises(UsageError, match=r"row 'a', column 'b': bandwidth '1ms' has an unknown unit 'ms'"):
        build(f"wan:matrix={latencies},bandwidths={latencies}", SHAPE)


WRONG = [
    ("net.gml", "graph [ node [ id 0", "not GML: it ends before"),
    ("net.gml", "graph [ ] ]", "a bracket ] that no key"),
    ("net.gml", 'graph [ node [ id "0 ] ]', "the text that begins with"),
    ("net.gml", "graph [ node [ label 1 ] ]", "node number 0 must have an id"),
    ("net.gml", "graph [ node [ id 0 ] node [ id 0 ] ]", "node '0' is there twice"),
    ("net.gml", "graph [ node [ id 0 ] edge [ source 0 target 1 ] ]", "link 0→1: there is no node '1'"),
    ("net.gml", "hello 1", "not GML: expected graph"),
    ("net.gml", "graph [ node [ id 0 Internal 0 ] ]", "all nodes are outside"),
    ("net.gml", ZOO_GML.replace("1000000000.0", "0.5"), "LinkSpeedRaw: '0.5' must be at least 1 bit/s"),
    ("net.txt", "", "the first line must have the numbers of nodes"),
    ("net.txt", HPCC.replace("5 2 4", "5 2 9"), "the first line says 9 links, and there are 5"),
    ("net.txt", HPCC.replace("3 4\n", "3 9\n"), "the second line must have the 2 switches"),
    ("net.txt", HPCC.replace("100Gbps", "fast"), "line 3: rate 'fast' is not a number"),
    ("net.txt", HPCC.replace("0 3 ", "0 8 "), "line 3: there is no node '8'"),
    ("net.yml", ASTRA.replace("200.0", "tbd"), "dimension 0: bandwidth 'tbd' must be a number of GB/s"),
    ("net.yml", ASTRA.replace("Switch", "Mesh"), "topology 'Mesh' must be Ring, FullyConnected or Switch"),
    (
        "net.yml",
        ASTRA.replace(", 2 ]", " ]"),
        "must have an entry per dimension each, and have topology 3, npus_count 2",
    ),
    ("net.yml", "[", "not YAML"),
    ("net.yml", "!!python/object/apply:os.system ['true']", "not YAML: could not determine a constructor"),
    ("net.yml", "topology: 1", "topology 1 must be a list"),
    ("net.xml", "<html/>", "its root is 'html'; expected a platform of SimGrid, a network of SNDlib, or graphml"),
    ("net.xml", "<graphml/>", "not GraphML"),
    ("net.xml", "<network/>", "no node in networkStructure/nodes"),
    ("net.xml", SNDLIB.replace("<target>A", "<target>C"), "link B→C: there is no node 'C'"),
    ("net.xml", SNDLIB.replace('id="B"', 'id="A"'), "node 'A' is there twice"),
    ("net.xml", '<!DOCTYPE p [<!ENTITY a "b">]><platform>&a;</platform>', "it declares entities"),
    ("net.xml", '<!DOCTYPE p [<!ENTITY a SYSTEM "file:///etc/passwd">]><platform>&a;</platform>', "declares entities"),
    ("net.xml", SIMGRID.replace('version="4.1"', 'version="3"'), "version 3 is older than 4"),
    ("net.xml", SIMGRID.replace('link_ctn id="pipe"', 'link_ctn id="hose"'), "route a→c: there is no link 'hose'"),
    ("net.xml", SIMGRID.replace('dst="c"', 'dst="d"'), "route a→d: there is no host or router 'd'"),
    ("net.xml", SIMGRID.replace('"1MBps"', '"1MB"'), "link 'slow': bandwidth '1MB' must be at least 1 bit/s"),
    ("net.xml", SIMGRID.replace("<route", "<peer/><route", 1), "peer is not read"),
    ("net.xml", '<platform><cluster id="x" topology="TORUS"/></platform>', "only a flat cluster is read"),
    (
        "sites.csv",
        MATRIX.replace("500Mbps", "fast"),
        "row 'paris', column 'tokyo': latency '110ms fast' has an unknown unit",
    ),
    ("net.json", '{"nodes": [{"id": 0}], "edges": [{"source": 0, "target": "\\n"}]}', "link '0'→'\\n'"),
    ("sites.csv", MATRIX.replace("110ms", "1e30ms"), "row 'paris', column 'tokyo': latency 1e+27 s must be at most"),
    ("sites.csv", MATRIX.replace("110ms ", ""), "'500Mbps' must be a latency, or a latency and a bandwidth"),
]


@pytest.mark.parametrize(("name", "content", "said"), WRONG, ids=[f"{name} {said[:25]}" for name, _, said in WRONG])
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        build(saved(tmp_path, name, content), SHAPE)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.yml", "topology: [FullyConnected]\nnpus_count: [99999]\nbandwidth: [1]\nlatency: [1]"),
        ("net.txt", "900000 0 0\n"),
        ("net.xml", '<platform><cluster id="x" radical="0-999999" bw="1Bps" lat="0"/></platform>'),
    ],
)
def test_a_few_lines_that_describe_too_much_are_infeasible(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(InfeasibleError, match=r"the file describes [\d,]+ nodes and [\d,]+ cables"):
        build(saved(tmp_path, name, content), SHAPE)


def test_the_header_says_what_was_read_and_assumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, "zoo.gml", ZOO_GML)
    notes = list(build(path, Shape(2, 2 * 10**9, 50e-6)).notes)
    assert notes[0].startswith("GML of routers: 2 nodes, 2 links, 2 with a speed")
    shown = run(capsys, f"topology show {path} --bandwidth 2Gbps")
    assert [line for line in shown.out.splitlines() if line.startswith("file ")] == [f"file       {x}" for x in notes]
    assert json.loads(run(capsys, f"topology show {path} --bandwidth 2Gbps --json").out)["network_notes"] == notes
    simulate = f"simulate --topology {path} --bandwidth 2Gbps --workers 2 --timing-only --elements 10 --algorithm dense"
    out = run(capsys, simulate).out
    assert all(f"file     {note}\n" in out for note in notes)
    assert json.loads(run(capsys, f"{simulate} --json").out)["network_notes"] == notes
    assert json.loads(run(capsys, "simulate --timing-only --elements 10 --json").out)["network_notes"] == []


@pytest.mark.slow
def test_a_recommendation_says_what_was_assumed_of_its_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, "zoo.gml", ZOO_GML)
    chosen = f"recommend --topology {path} --workers 2 --compute-time 1ms --elements 9 --jobs 1"
    out = run(capsys, f"{chosen} --algorithm dense,gtopk --density 0.5").out
    assert f"{path}: {'; '.join(build(path, SHAPE).notes)}.\n" in out


FLOWS = [GivenFlow("worker0", "worker1", 2**20, 0.0), GivenFlow("worker1", "worker2", 10**6, 0.5)]
HOSTS = ["worker0", "worker1", "worker2"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("index", [True, False])
def test_flows_as_pandas_writes_them(tmp_path: Path, separator: str, index: bool) -> None:
    import pandas as pd

    table = pd.DataFrame(
        {
            "Src": ["worker0", "worker1"],
            "DST": ["worker1", "worker2"],
            "Bytes": [1048576.0, 1e6],
            "note": [None, f"a{separator} b"],
            "start_s": [0, 0.5],
        }
    )
    path = tmp_path / "flows.csv"
    text = table.to_csv(sep=separator, index=index)
    path.write_text(f'# traffic of "monday, tuesday; 3\n\n{text}# the end')
    assert read_flows(path, HOSTS) == FLOWS


def test_hosts_with_numbers_may_be_floats(tmp_path: Path) -> None:
    path = saved(tmp_path, "flows.csv", "src,dst,bytes,start_s\n0.0,1.0,1.048576e6,0\n")
    assert read_flows(Path(path), ["0", "1"]) == [GivenFlow("0", "1", 2**20, 0.0)]


def test_flows_of_hpcc_end_at_their_number(tmp_path: Path) -> None:
    path = saved(tmp_path, "flow.txt", "2\n0 1 3 100 1048576 0\n1 2 3 100 1000000 0.5\n2 0 3 100 7 9\n")
    expected = [GivenFlow("0", "1", 2**20, 0.0), GivenFlow("1", "2", 10**6, 0.5)]
    assert read_flows(Path(path), ["0", "1", "2"]) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("3\n0 1 3 100 5 0\n", "the first line says 3 flows, and there are 1"),
        ("1\n0 1 3 100 5\n", "line 2: '0 1 3 100 5' must be a flow of HPCC: src dst pg dport bytes start_s"),
        ("0\n", "has no flows"),
        ("2e1\n", "the first line says 20 flows, and there are 0"),
        ("-1\n", "the first line says -1 flows"),
    ],
)
def test_wrong_flows_of_hpcc_are_one_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_flows(Path(saved(tmp_path, "flow.txt", content)), ["0", "1"])


class Published(NamedTuple):
    """A file that others published, and what was read from it: the notes of its first line, and its links' ranges."""

    name: str
    source: str
    commit: str
    read: str
    links: str
    small: str


ZOO, HUB, LI = "sk2/topologyzoo", "piotrjurkiewicz/topohub", "alibaba-edu/High-Precision-Congestion-Control"
PUBLISHED = [
    Published(
        "sources/Abilene.graphml", ZOO, "e278b1b", "GraphML of routers: 11 nodes, 14 links, 14 with a speed",
        "1 to 9.95 Gbit/s   25 µs a link", "zoo.graphml",
    ),
    Published(
        "src/topologies/topzoo/Geant2012.gml", "Hebbe1234/ExpectAll", "d556203",
        "GML of routers: 40 nodes, 122 links one way, 78 with a speed",
        "155 Mbit/s to 10 Gbit/s   25 µs to 16.1 ms a link", "zoo.gml",
    ),
    Published(
        "data/sndlib/germany50.json", HUB, "db1a312",
        "node-link JSON of routers: 50 nodes, 88 links, none with a speed",
        "1 Gbit/s   25 µs to 1.26 ms a link", "hub.json",
    ),
    Published(
        "data/sndlib/polska.gml", HUB, "db1a312", "GML of routers: 12 nodes, 18 links, none with a speed",
        "1 Gbit/s   25 µs to 1.77 ms a link", "zoo.gml",
    ),
    Published(
        "polska.xml", "uminety/Network-disjointed-paths-calculator", "6b8a89f",
        "SNDlib network of routers: 12 nodes, 18 links, none with a speed", "1 Gbit/s   25 µs to 1.77 ms a link",
        "sndlib.xml",
    ),
    Published(
        "problems/polska.xml", "arekolek/MaxIST", "6a8b491",
        "GraphML of routers: 12 nodes, 18 links, none with a speed", "1 Gbit/s   25 µs a link", "zoo.graphml",
    ),
    Published(
        "simulation/mix/fat.txt", LI, "9f4be2a", "HPCC topology: 376 nodes, 56 of them switches, 480 links",
        "100 to 400 Gbit/s   1 µs a link", "topology.txt",
    ),
    Published(
        "simulation/mix/topology.txt", LI, "9f4be2a",
        "HPCC topology: 66 nodes, 1 of them switches, 65 links; 196 lines beyond these not read",
        "100 Gbit/s   1 µs a link", "topology.txt",
    ),
    Published(
        "simulation/mix/flow.txt", LI, "9f4be2a",
        "2 flows of 200 MB from nodes 2 and 3 to node 1 at 2 s", "", "flow.txt",
    ),
    Published(
        "examples/platforms/small_platform.xml", "simgrid/simgrid", "12a63c7",
        "SimGrid platform: 7 hosts, 24 links, 26 routes", "20.7 to 949 Mbit/s   0 to 35.1 ms a link", "platform.xml",
    ),
    Published(
        "examples/platforms/griffon.xml", "simgrid/simgrid", "12a63c7",
        "SimGrid platform: 92 hosts, 96 links, 3 routes", "1 to 10 Gbit/s   0 to 24 µs a link", "platform.xml",
    ),
    Published(
        "examples/network/analytical/HGX-H100-validated.yml", "astra-sim/astra-sim", "518bd51",
        "ASTRA-sim network: switch of 8, 8 NPUs, 8 links of GB/s and ns", "3.2 Tbit/s   936 ns a link", "network.yml",
    ),
    Published(
        "inputs/network/hgx_h100_32gpu.yml", "astra-sim/astra-sim", "518bd51",
        "ASTRA-sim network: switch of 8 × ring of 4, 32 NPUs, 64 links of GB/s and ns",
        "400 Gbit/s to 3.2 Tbit/s   936 ns to 1 µs a link", "network.yml",
    ),
]  # fmt: skip
"""Read on 28 November 2026 with ``netsim topology show`` and ``netsim flows``; none of them is kept here."""
SMALL = {
    "zoo.graphml": ZOO_GRAPHML,
    "zoo.gml": ZOO_GML,
    "hub.json": '{"nodes": [{"id": 0, "pos": [1, 2]}, {"id": 1}], "edges": [{"source": 0, "target": 1, "dist": 9.5}]}',
    "sndlib.xml": SNDLIB,
    "topology.txt": HPCC,
    "platform.xml": SIMGRID,
    "network.yml": ASTRA,
}


@pytest.mark.parametrize("name", SMALL)
def test_our_small_file_of_each_published_format_reads_as_published_ones_do(tmp_path: Path, name: str) -> None:
    graph = build(saved(tmp_path, name, SMALL[name]), SHAPE)
    for each in (each for each in PUBLISHED if each.small == name):
        assert graph.notes[0].partition(":")[0] == each.read.partition(":")[0], each.name
        assert graph.ranges() is not None


def test_ten_published_files_were_read() -> None:
    assert len({(each.source, each.name) for each in PUBLISHED}) >= 10
    assert {each.small for each in PUBLISHED} == {*SMALL, "flow.txt"}
