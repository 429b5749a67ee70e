"""``netsim topology``: numbers against textbooks, files that come back the same, and what placement gains."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import netsim
from netsim.experiment.configuration import Experiment
from netsim.network.fabric import Fabric
from tests.command import run
from tests.test_routing import FORMS, built, everyone
from topologies import build
from topologies.builder import Shape
from topologies.export import to_graphml, to_json, to_simgrid
from topologies.placement import PLACEMENTS, place, tour


def shown(capsys: pytest.CaptureFixture[str], arguments: str) -> dict[str, Any]:
    ran = run(capsys, f"topology show {arguments} --json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


@pytest.mark.parametrize(
    ("topology", "hosts", "switches", "cables", "diameter", "bisection"),
    [
        ("star --workers 16", 16, 1, 16, 2, 8e9),
        ("ring --workers 16", 16, 0, 16, 8, 2e9),
        ("torus:sides=8x4 --workers 32", 32, 0, 64, 6, 8e9),
        ("fat-tree:k=8", 128, 80, 384, 6, 64e9),
        ("racks:size=8,oversubscription=4 --workers 32", 32, 5, 36, 4, 4e9),
        ("tree:fan-out=2 --workers 8", 8, 7, 14, 6, 1e9),
        ("dragonfly:a=2,p=1,h=1", 6, 6, 12, 5, None),
        ("wan:sites=2,wan=100Mbps --workers 8", 8, 2, 9, 3, 100e6),
    ],
)
def test_the_numbers_of_textbooks(
    capsys: pytest.CaptureFixture[str],
    topology: str,
    hosts: int,
    switches: int,
    cables: int,
    diameter: int,
    bisection: Any,
) -> None:
    """Bisections: N/2 links of star and fat-tree, 2 of a ring, 2 · 4 of a torus 8 × 4, 2 uplinks of 2 Gbit/s."""
    found = shown(capsys, topology)
    assert (found["hosts"], found["switches"], found["links"]) == (hosts, switches, 2 * cables)
    assert (found["diameter_links"], found["exact"]) == (diameter, True)
    if bisection is not None:
        assert found["bisection_bps"] == bisection


def test_bandwidths_of_no_common_measure_give_nearly_the_right_bisection(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "star:up=999999937,down=1Tbps --workers 64".replace("999999937", "999999937bps"))
    assert found["bisection_bps"] == pytest.approx(32 * 999999937, rel=1e-3)


def test_it_is_said_in_words_and_drawn_always_alike(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for form in ("fat-tree:k=4", "torus", "dragonfly", "ps", "racks:size=200"):
        pictures = []
        for name in ("one.svg", "other.svg"):
            ran = run(capsys, f"topology show {form} --out {tmp_path / name}")
            assert (ran.code, ran.err) == (0, "")
            assert "bisection" in ran.out
            pictures.append((tmp_path / name).read_text())
        assert pictures[0] == pictures[1]
        drawn = ElementTree.fromstring(pictures[0])
        assert drawn.tag.endswith("svg")
        assert "1 Gbit/s" in pictures[0]
    ran = run(capsys, f"topology show star --workers 1000 --out {tmp_path / 'large.svg'}")
    assert (ran.code, ran.out) == (2, "")
    assert "1001 nodes are too many to draw" in ran.err


def test_a_name_of_a_node_is_text_in_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nodes = [{"id": name, "kind": "host"} for name in ("$\\frac{$", "<script>", "_a")]
    edges = [{"source": nodes[0]["id"], "target": n["id"], "bandwidth_bps": 1e9, "latency_s": 0} for n in nodes[1:]]
    (tmp_path / "net.json").write_text(json.dumps({"nodes": nodes, "edges": edges}))
    ran = run(capsys, f"topology show {tmp_path / 'net.json'} --out {tmp_path / 'net.svg'}")
    assert (ran.code, ran.err) == (0, "")
    texts = [element.text for element in ElementTree.parse(tmp_path / "net.svg").iter() if element.text]
    assert any("<script>" in text for text in texts)


def facts(fabric: Fabric) -> tuple[Any, ...]:
    """What two networks must have in common to be the same."""
    links = sorted((link.name, link.bandwidth_bps, link.latency_s) for link in fabric.links)
    groups = [fabric.groups.tolist().index(group) for group in fabric.groups.tolist()]
    return links, fabric.hosts, groups, fabric.server_host


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["json", "graphml"])
def test_what_is_exported_comes_back_the_same(tmp_path: Path, form: str, suffix: str) -> None:
    fabric = everyone(built(form))
    path = tmp_path / f"net.{suffix}"
    path.write_text("".join({"json": to_json, "graphml": to_graphml}[suffix](fabric)))
    back = Fabric(build(str(path), Shape(1, 10**9, 1e-3)))
    assert facts(back) == facts(fabric)
    if not form.startswith("dragonfly"):
        ranks = np.arange(len(fabric.hosts))
        sources, targets = np.repeat(ranks, len(ranks)), np.tile(ranks, len(ranks))
        before, after = (each.links_of(sources, targets) for each in (fabric, back))
        np.testing.assert_array_equal(before.first, after.first)


def test_an_export_as_json_has_the_text_or_the_file_that_holds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "topology export ring --workers 3 --format graphml"
    text = run(capsys, command).out
    document = json.loads(run(capsys, f"{command} --json").out)
    assert (document["format"], document["out"], document["text"]) == ("graphml", None, text.removesuffix("\n"))
    assert (document["config"]["topology"], document["config"]["workers"]) == ("ring", 3)
    file = tmp_path / "ring.graphml"
    written = json.loads(run(capsys, f"{command} --json --out {file}").out)
    assert (written["out"], written["text"]) == (str(file), None)
    assert file.read_text() == text


@pytest.mark.parametrize("form", ["star", "fat-tree:k=4", "torus:sides=3x3", "star:up=1Mbps,down=9Mbps"])
def test_a_simgrid_platform_has_every_link_and_the_same_routes(capsys: pytest.CaptureFixture[str], form: str) -> None:
    ran = run(capsys, f"topology export {form} --format simgrid")
    assert (ran.code, ran.err) == (0, "")
    zone = ElementTree.fromstring(ran.out)[0]
    fabric = everyone(build(form, Shape(8, 10**9, 50e-6)))
    links = {link.get("id"): (link.get("bandwidth"), link.get("latency")) for link in zone.iter("link")}
    assert links == {
        f"{link.source}->{link.target}": (f"{link.bandwidth_bps}bps", f"{link.latency_s!r}s") for link in fabric.links
    }
    assert [host.get("id") for host in zone.iter("host")] == fabric.hosts
    for route in zone.iter("route"):
        crossed = [link.get("id") for link in route]
        assert set(crossed) <= set(links)
        if zone.get("routing") == "Full":
            expected = fabric.route(str(route.get("src")), str(route.get("dst"))).links
            assert crossed == [f"{link.source}->{link.target}" for link in expected]
    pairs = len(fabric.hosts) * (len(fabric.hosts) - 1)
    assert len(list(zone.iter("route"))) == (pairs if zone.get("routing") == "Full" else len(links))


ROUTES = """
#include <simgrid/s4u.hpp>
#include <cstdio>
int main(int argc, char** argv) {
  simgrid::s4u::Engine engine(&argc, argv);
  engine.load_platform(argv[1]);
  engine.get_netzone_root()->seal();  // as running a simulation does
  for (auto* one : engine.get_all_hosts())
    for (auto* other : engine.get_all_hosts()) {
      if (one == other) continue;
      std::vector<simgrid::s4u::Link*> links; double latency = 0;
      one->route_to(other, links, &latency);
      std::printf("%s\\t%s\\t%.17g", one->get_cname(), other->get_cname(), latency);
      for (auto* link : links) std::printf("\\t%s\\t%.17g", link->get_cname(), link->get_bandwidth());
      std::printf("\\n");
    }
}
"""


@pytest.mark.slow
def test_simgrid_itself_takes_the_same_routes(tmp_path: Path) -> None:
    """Where SimGrid and a compiler are installed: its bandwidths are bytes a second."""
    if shutil.which("g++") is None or not Path("/usr/include/simgrid/s4u.hpp").exists():
        pytest.skip("SimGrid's C++ headers are not installed")
    (tmp_path / "routes.cpp").write_text(ROUTES)
    subprocess.run(["g++", "-o", "routes", "routes.cpp", "-lsimgrid"], cwd=tmp_path, check=True)
    for form in ("racks:size=3", "fat-tree:k=4", "wan", "torus:sides=4x4", "dragonfly:a=2,p=1,h=1"):
        fabric = everyone(build(form, Shape(8, 10**9, 50e-6)))
        (tmp_path / "net.xml").write_text("".join(to_simgrid(fabric)))
        said = subprocess.run(["./routes", "net.xml"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        assert len(said.splitlines()) == len(fabric.hosts) * (len(fabric.hosts) - 1)
        for line in said.splitlines():
            source, target, latency, *links = line.split("\t")
            route = fabric.route(source, target)
            assert links[::2] == [f"{link.source}->{link.target}" for link in route.links]
            assert [float(each) for each in links[1::2]] == [link.bandwidth_bps / 8 for link in route.links]
            assert float(latency) == pytest.approx(route.latency_ps / 1e12, rel=1e-9)


def test_ring_all_reduce_pays_for_interleaved_racks() -> None:
    """4 racks of 8, 4:1 uplinks. Contiguous: one flow an uplink, at full speed. Interleaved: 8 flows on 2 Gbit/s."""
    options = {"workers": 32, "timing_only": True, "elements": 32 * 10**5, "algorithm": "dense", "latency": "1us"}
    times = {
        placement: netsim.simulate(topology="racks:size=8", placement=placement, **options).results[0].round_time_s
        for placement in PLACEMENTS
    }
    chunk = 32 * 10**5 / 1e9
    assert times["rank-order"] == times["locality"] == pytest.approx(62 * (2e-6 + chunk), rel=1e-9)
    assert times["cyclic"] == pytest.approx(62 * (2e-6 + 4 * chunk), rel=1e-9)
    assert times["rank-order"] < times["random"]


def test_locality_finds_the_racks_of_a_file_that_lists_hosts_in_turn(tmp_path: Path) -> None:
    fabric = Experiment.of(workers=32, topology="racks:size=8", placement="cyclic").fabric()
    path = tmp_path / "net.json"
    document = json.loads("".join(to_json(fabric)))
    document["nodes"].sort(key=lambda node: (node["kind"], int("".join(filter(str.isdigit, node["id"])) or 0)))
    path.write_text(json.dumps(document))
    options = {"workers": 32, "timing_only": True, "elements": 10**6, "algorithm": "dense", "topology": str(path)}
    given, near = (
        netsim.simulate(placement=placement, **options).results[0].round_time_s
        for placement in ("rank-order", "locality")
    )
    known = netsim.simulate(**options | {"topology": "racks:size=8"}).results[0].round_time_s
    assert near == pytest.approx(known, rel=1e-12)
    assert given > 3 * near


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_placement_puts_every_rank_on_a_host_of_its_own(form: str, placement: str) -> None:
    graph = built(form, 7)
    workers = min(7, len(graph.hosts))
    order = place(graph, workers, placement, seed=3)
    assert len(set(order.tolist())) == workers
    assert set(order.tolist()) <= set(range(len(graph.hosts)))
    fabric = Fabric(graph, workers, order)
    assert fabric.workers == [f"worker{rank}" for rank in range(workers)]
    assert [fabric.names[graph.hosts[host]] for host in order.tolist()] == fabric.workers


def test_cyclic_deals_ranks_to_racks_in_turn() -> None:
    fabric = Experiment.of(workers=12, topology="racks:size=4", placement="cyclic").fabric()
    assert fabric.groups.tolist() == [0, 1, 2] * 4


@pytest.mark.parametrize("form", ["torus:sides=4x6", "racks:size=4", "fat-tree:k=4", "tree:fan-out=3", "wan"])
def test_a_tour_of_the_nearest_keeps_groups_together_and_neighbours_near(form: str) -> None:
    """It is as short as the order that the topology itself knows, in links from each host to the next."""
    graph = built(form, 16)
    fabric = everyone(graph)

    def length(order: np.ndarray) -> int:
        return len(fabric.links_of(order[:-1], order[1:]).links)

    assert sorted(tour(graph).tolist()) == list(range(len(graph.hosts)))
    assert graph.near is not None
    assert length(tour(graph)) <= length(graph.near)
    assert np.count_nonzero(np.diff(graph.groups[tour(graph)])) == len(set(graph.groups.tolist())) - 1


def test_what_placement_gains_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = "topology placement racks:size=4 --workers 16 --elements 1000000 --algorithm dense,gtopk-hier"
    ran = run(capsys, f"{arguments} --json --out {tmp_path / 'gain.json'}")
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "gain.json").read_text() == ran.out
    dense, grouped = json.loads(ran.out)["placements"]
    assert set(dense["round_time_s"]) == set(PLACEMENTS)
    assert dense["round_time_s"]["cyclic"] > 2 * dense["round_time_s"]["locality"]
    assert len(set(grouped["round_time_s"].values())) == 1
    table = run(capsys, arguments).out
    assert table.startswith(
        "model    sizes only, no data   1,000,000 parameters   k 1,000 (density 0.001)\nnetwork  racks:"
    )
    assert "   16 workers   1 Gbit/s (default)   " in table
    assert "   SIMULATED\n" in table
    assert "dense: rank-order and locality are best" in table
    assert "gTop-k (hierarchical): placement makes no difference." in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("show fat-tre", "did you mean 'fat-tree'?"),
        ("export star --format jsn", "unknown format 'jsn' (did you mean 'json'?)"),
        ("placement star --algorithm gtopkk", "did you mean 'gtopk'?"),
        ("show star --out /no/such/folder/x.svg", "/no/such/folder"),
        ("shw star", "shw"),
    ],
)
def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], arguments: str, said: str) -> None:
    ran = run(capsys, f"topology {arguments}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert said in ran.err


@pytest.mark.parametrize("command", ["show", "placement --algorithm dense --elements 1000"])
def test_an_option_that_the_network_does_not_use_is_noted(capsys: pytest.CaptureFixture[str], command: str) -> None:
    verb, _, more = command.partition(" ")
    asked = f"topology {verb} tree:fan-out=4 --workers 8 {more}"
    note = "--fan-out 3 changed nothing: only a tree without the key fan-out uses it."
    assert note in run(capsys, f"{asked} --fan-out 3").out
    assert json.loads(run(capsys, f"{asked} --fan-out 3 --json").out)["notes"] == [note]
    assert json.loads(run(capsys, f"{asked} --json").out)["notes"] == []
