"""What links really are, whoever decides it: options, keys or a file; options that no link takes are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

import netsim
from netsim._util.errors import UsageError
from netsim.experiment.configuration import Experiment
from tests.command import run
from tests.engines import results_of
from tests.test_recommend import ALPHA, BETA, ELEMENTS, closed_form
from topologies import taken

KEYS = "racks:size=2,inside=400Gbps,inside-latency=2us,uplink=10Gbps,uplink-latency=10us"
"""Keys that decide every link: 400 Gbit/s and 1 µs inside, 10 Gbit/s and 10 µs between the racks."""
SIZES = "--workers 4 --timing-only --elements 1000"


def star_file(folder: Path, hosts: int, bandwidth_bps: float = 1e9, latency_s: float = 25e-6) -> Path:
    """Write a star as a file; two of its cables make a route from host to host."""
    nodes = [{"id": f"h{number}", "kind": "host"} for number in range(hosts)] + [{"id": "s", "kind": "switch"}]
    cable = {"target": "s", "bandwidth_bps": bandwidth_bps, "latency_s": latency_s}
    edges = [{"source": f"h{number}"} | cable for number in range(hosts)]
    path = folder / "star.json"
    path.write_text(json.dumps({"nodes": nodes, "edges": edges}))
    return path


@pytest.mark.parametrize("decided", ["option", "keys", "file"])
def test_a_margin_is_of_the_links_whoever_decides_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, decided: str
) -> None:
    """The order at k = 454 turns with bandwidth and latency; the closed forms say in how many cases, and the ranges."""
    k = round(4 * ALPHA / (14 * BETA)) + 8
    links = {
        "option": "--bandwidth 1Gbps --latency 50us",
        "keys": "--topology star:up=1Gbps,down=1Gbps",
        "file": f"--topology {star_file(tmp_path, 16)}",
    }[decided]
    ran = run(
        capsys,
        f"recommend --elements {ELEMENTS} --workers 16 --compute-time 10ms --jobs 1 --algorithm topk,gtopk "
        f"--density {k / ELEMENTS} {links} --json",
    )
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    off = [tuple(share if at == input_ else 1 for at in range(3)) for input_ in range(3) for share in (0.8, 1.2)]
    names = [(each["candidate"]["algorithm"], k / ELEMENTS) for each in found["ranking"]]
    for number, each in enumerate(found["ranking"]):
        rounds = [closed_form(*names[number], scale) for scale in [(1, 1, 1), *off]]
        assert (each["low_s"], each["high_s"]) == (pytest.approx(min(rounds)), pytest.approx(max(rounds)))
        if number + 1 < len(names):
            following = [closed_form(*names[number + 1], scale) for scale in off]
            assert each["beats_next"] == sum(a < b for a, b in zip(rounds[1:], following, strict=True))
    assert found["ranking"][0]["beats_next"] < 6, "an order that no margin turns shows nothing"
    (ranges,) = found["config"]["link_ranges"].values()
    assert ranges == {"bandwidth_bps": [1e9, 1e9], "latency_s": [25e-6, 25e-6]}


COMMANDS = [
    f"simulate {SIZES}",
    "recommend --elements 1000 --workers 4 --compute-time 1ms --jobs 1",
    "flows --workers 4 --flows {flows}",
    "topology show",
    "topology export",
    "topology placement --workers 4 --elements 1000",
]


@pytest.mark.parametrize("option", ["--bandwidth 10Gbps", "--latency 1us"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "file"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_no_link_takes_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, keys: bool, option: str
) -> None:
    flows = tmp_path / "flows.csv"
    flows.write_text("src,dst,bytes,start_s\nh0,h1,1,0\n")
    topology = KEYS if keys else str(star_file(tmp_path, 4))
    arguments = f"{command.format(flows=flows)} {'' if command.startswith('topology') else '--topology '}{topology}"
    ran = run(capsys, f"{arguments} {option}")
    assert (ran.code, ran.out) == (2, "")
    what = option.split()[0].removeprefix("--")
    assert ran.err.startswith(f"netsim: --{what} ")
    assert ran.err.count("\n") == 1
    assert f"topology {topology!r} decides the {what} of every link itself" in ran.err
    if not (keys and "flows" in command):  # the flows are of the file's hosts
        assert run(capsys, arguments).code == 0


def test_so_it_is_from_python(tmp_path: Path) -> None:
    options: dict[str, Any] = {"workers": 4, "timing_only": True, "elements": 1000, "topology": KEYS}
    with pytest.raises(UsageError, match="decides the bandwidth of every link itself"):
        netsim.simulate(**options, bandwidth=10**10)
    with pytest.raises(UsageError, match="decides the latency of every link itself"):
        Experiment(latency_s=1e-6, **options)
    own = netsim.simulate(**options, bandwidth="own", latency="own")
    assert own.results == netsim.simulate(**options).results
    assert (own.config["bandwidth_bps"], own.config["latency_s"]) == (None, None)
    assert Experiment.from_config(json.loads(json.dumps(own.config))).config() == own.config


@pytest.mark.parametrize(
    ("topology", "takes"),
    [
        ("star", (True, True)),
        ("star:up=1Gbps", (True, True)),
        ("star:up=1Gbps,down=1Gbps", (False, True)),
        ("ps:up=1Gbps,down=1Gbps", (True, True)),
        ("racks:inside=1Gbps", (False, True)),
        ("racks:inside=1Gbps,inside-latency=1us", (False, True)),
        ("racks:inside-latency=1us,uplink-latency=1us", (True, False)),
        (KEYS, (False, False)),
        ("racks:uplink=1Gbps", (True, True)),
        ("wan:wan=1Gbps,latency=1ms", (True, True)),
        ("torus:sides=2x2", (True, True)),
        ("torus:sides=1", (True, True)),
    ],
)
def test_which_topologies_take_what(topology: str, takes: tuple[bool, bool]) -> None:
    """As docs/topologies.md says of the keys: a server's link of `ps` is not among those that up and down decide."""
    assert taken(topology) == takes


def test_a_topology_without_links_refuses_nothing() -> None:
    report = netsim.simulate(workers=1, topology="ring", bandwidth="1Gbps", timing_only=True, elements=10)
    assert report.link_ranges is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "star   4 workers   1 Gbit/s (default)   50 µs one way (default)"),
        ("--bandwidth 25Gbps --latency 2us", "25 Gbit/s   2 µs one way"),
        ("--bandwidth-scale 0.5 --latency-scale 2", "500 Mbit/s   100 µs one way"),
        ("--topology star:up=100Mbps", "100 Mbit/s to 1 Gbit/s   50 µs one way (default)"),
        (f"--topology {KEYS}", "10 to 400 Gbit/s   1 to 10 µs a link"),
        (f"--topology {KEYS} --bandwidth-scale 2", "20 to 800 Gbit/s   1 to 10 µs a link"),
        ("--topology racks:size=2", "500 Mbit/s to 1 Gbit/s   50 µs one way (default)"),
        ("--topology wan", "1 Gbit/s   25 µs to 25 ms a link"),
        ("--topology {file}", "1 Gbit/s   25 µs a link"),
    ],
)
def test_the_header_says_what_the_links_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: str, said: str
) -> None:
    """By the definitions of docs/topologies.md: a quarter of two hosts' bandwidth goes up from a rack of two."""
    ran = run(capsys, f"simulate {SIZES} --algorithm dense {options.format(file=star_file(tmp_path, 4))}")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1].endswith(f"{said}   SIMULATED")


def test_the_documents_say_what_the_links_are(capsys: pytest.CaptureFixture[str]) -> None:
    ranges = {"bandwidth_bps": [10e9, 400e9], "latency_s": [1e-6, 10e-6]}
    told = json.loads(run(capsys, f"simulate {SIZES} --topology {KEYS} --json").out)
    assert told["link_ranges"] == ranges
    assert (told["config"]["bandwidth_bps"], told["config"]["latency_s"]) == (None, None)
    shown = json.loads(run(capsys, f"topology show {KEYS} --json").out)
    assert shown["link_ranges"] == ranges
    assert (shown["config"]["bandwidth"], shown["config"]["latency"]) == (None, None)
    assert "links      10 to 400 Gbit/s   1 to 10 µs a link" in run(capsys, f"topology show {KEYS}").out


@pytest.mark.parametrize("way", ["event", "batched", "closed-form"])
def test_scaled_links_are_scaled_in_every_engine(way: str) -> None:
    """Dense in whole chunks on a star: 2 (P - 1) (α + d / P β), with half of α and a quarter of β."""
    workers, elements = 4, 10**6
    options: dict[str, Any] = {"workers": workers, "elements": elements, "algorithm": "dense:segment=none"}
    (result,) = results_of(way, **options, bandwidth="1Gbps", bandwidth_scale=4, latency_scale=0.5)
    expected = 2 * (workers - 1) * (25e-6 + elements / workers * 8e-9)
    assert result.round_time_s == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        "--bandwidth-scale 0",
        "--bandwidth-scale 1e-10",
        "--latency-scale nan",
        "--bandwidth 1Tbps --bandwidth-scale 1e9",
        "--latency-scale 1e12",
    ],
)
def test_scales_that_make_no_sense(capsys: pytest.CaptureFixture[str], options: str) -> None:
    ran = run(capsys, f"simulate {SIZES} {options}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(
        "netsim: --bandwidth-scale" if "--bandwidth-scale" in options else "netsim: --latency-scale"
    )
    assert ran.err.count("\n") == 1


def test_a_margin_that_no_link_could_have_is_refused_before_anything_is_simulated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = star_file(tmp_path, 4, bandwidth_bps=9e15)
    ran = run(capsys, f"recommend --topology {path} --elements 1000 --workers 4 --compute-time 1ms --jobs 1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("netsim: --bandwidth-scale 1.2 makes the bandwidth of a link more than 9e+15 bit/s")


def test_what_one_of_several_topologies_takes_is_for_that_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The ring of 10 Gbit/s and the file of 1: dense in whole chunks takes 2 (P - 1) (α + d / P β) on both."""
    path = star_file(tmp_path, 4)
    asked = "recommend --elements 1000000 --workers 4 --compute-time 1ms --jobs 1 --algorithm dense:segment=none --json"
    ran = run(capsys, f"{asked} --topology ring,{path} --bandwidth 10Gbps")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    rounds = {each["candidate"]["topology"]: each["round_time_s"] for each in found["ranking"]}
    assert rounds["ring"] == pytest.approx(1e-3 + 6 * (50e-6 + 250_000 * 3.2e-9))
    assert rounds[str(path)] == pytest.approx(1e-3 + 6 * (50e-6 + 250_000 * 32e-9))
    links = f"Links of ring: 10 Gbit/s 50 µs one way (default); {path}: 1 Gbit/s 25 µs a link"
    assert links in found["limits"][0]


def sweep(folder: Path, fixed: str, vary: str) -> Path:
    path = folder / "own.toml"
    path.write_text(
        f'study = "sweep"\n[settings.fixed]\ntiming_only = true\nelements = 1000\nworkers = 4\n{fixed}\n'
        f'[settings.vary]\nalgorithm = ["dense", "gtopk"]\n{vary}\n'
    )
    return path


@pytest.mark.parametrize(
    ("study", "sets"),
    [
        ("{toml}", ""),
        ("sweep", "--set fixed.topology={network}"),
        ("scaling", "--quick --set topologies={network} --set bandwidths=1Gbps,10Gbps --set latency=own"),
        ("scaling", "--quick --set topologies=star,{network}"),
        ("scaling", "--quick --set topologies={network} --set bandwidths=own,1Gbps --set latency=own"),
        ("scaling", "--quick --set topologies={network} --set bandwidths=own"),
        ("scaling", "--quick --set topologies=star --set bandwidths=1Gbps,own"),
    ],
)
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "file"])
def test_studies_of_what_no_link_takes_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, study: str, sets: str, keys: bool
) -> None:
    network = KEYS if keys else str(star_file(tmp_path, 4))
    own = sweep(tmp_path, f'topology = "{network}"', 'bandwidth = ["1Gbps", "10Gbps"]')
    ran = run(
        capsys, f"study {study.format(toml=own)} {sets.format(network=network)} --out {tmp_path / 'out'} --jobs 1"
    )
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "own" in ran.err


@pytest.mark.parametrize(
    "sets", ["bandwidths=1Gbps,1000Mbps", "topologies=star,ring,star", "densities=0.01,0.001,0.01"]
)
def test_a_scaling_study_has_no_point_twice(capsys: pytest.CaptureFixture[str], tmp_path: Path, sets: str) -> None:
    ran = run(capsys, f"study scaling --quick --set {sets} --out {tmp_path / 'out'} --jobs 1")
    assert (ran.code, ran.out) == (2, "")
    assert "contain a value twice" in ran.err


@pytest.mark.parametrize(
    "study",
    ["sweep --set fixed.topology={path} --set vary.bandwidth=own --set vary.workers=2,6",
     "scaling --set topologies={path} --set bandwidths=own --set latency=own --set workers=2,3,4,5,6"],
)  # fmt: skip
def test_a_study_finds_out_at_once_that_a_file_has_too_few_hosts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, study: str
) -> None:
    path = star_file(tmp_path, 4)
    ran = run(capsys, f"study {study.format(path=path)} --out {tmp_path / 'out'} --jobs 1")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == (
        f"netsim: topology {str(path)!r} has 4 hosts, and 6 workers need as many; take fewer workers or a larger "
        "topology\n"
    )
    assert not list(tmp_path.glob("out/points/*"))


def test_a_sweep_over_the_scale_of_a_files_links(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Dense: 2 (P - 1) (α + d / P β)."""
    own = sweep(tmp_path, f'topology = "{star_file(tmp_path, 4)}"', "bandwidth_scale = [1.0, 10.0]")
    ran = run(capsys, f"study {own} --out {tmp_path / 'out'} --jobs 1")
    assert (ran.code, ran.err) == (0, "")
    points = [json.loads(line) for line in (tmp_path / "out" / "points.jsonl").read_text().splitlines()]
    rounds = {each["bandwidth_scale"]: each["round_time_s"] for each in points if each["algorithm"] == "dense"}
    expected = {1.0: 6 * (50e-6 + 250 * 32e-9), 10.0: 6 * (50e-6 + 250 * 3.2e-9)}
    assert rounds == pytest.approx(expected)


def test_a_scaling_study_of_a_file_says_what_its_links_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = star_file(tmp_path, 16)
    sets = "workers=2,3,4,8,16", "algorithms=dense,gtopk", "densities=0.01", "bandwidths=own", "latency=own"
    arguments = " ".join(f"--set {each}" for each in (f"topologies={path}", *sets))
    ran = run(capsys, f"study scaling {arguments} --out {tmp_path / 'out'} --jobs 1 --json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert {each["bandwidth"] for each in found["scaling"]} == {"1 Gbit/s"}
    assert f"({path}, 1 Gbit/s, density 0.01)" in found["conclusion"][1]
    assert "links of their own bandwidth and latency" in " ".join(found["limits"])
    points = (tmp_path / "out" / "points.jsonl").read_text().splitlines()
    assert len(points) == 5 * 2 + 2  # one of every P and algorithm, and the two rounds that are drawn


def test_other_numbers_of_workers_are_those_that_a_file_has_room_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By the closed forms: of dense, 2 (P - 1) (α + d / P β), and gTop-k, 2 ⌈log₂ P⌉ (α + 2 k β), at P = 2 to 12."""
    path = star_file(tmp_path, 12)
    ran = run(
        capsys, f"simulate --topology {path} --workers 12 --timing-only --elements 1000 --k 1 --algorithm dense,gtopk"
    )
    assert (ran.code, ran.err) == (0, "")
    dense = {workers: 2 * (workers - 1) * (50e-6 + 1000 / workers * 32e-9) for workers in range(2, 13)}
    gtopk = {workers: 2 * (workers - 1).bit_length() * (50e-6 + 64e-9) for workers in range(2, 13)}
    assert all(gtopk[workers] < dense[workers] for workers in range(2, 13))
    assert "gTop-k also has the shortest round with P = 2, 4, 8 workers on this network." in ran.out


def test_ranks_are_placed_in_racks_only_where_there_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "validate --local 4 --placement interleaved --exchange none --algorithm none")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "netsim: --placement 'interleaved' was given, but without a trunk there is one rack; add --trunk 50Mbps\n"
    )


@pytest.mark.parametrize("engine", ["event", "auto"])
@pytest.mark.parametrize("slow", [0, 2, 7])
def test_one_slow_cable_among_links_alike_is_the_bottleneck(slow: int, engine: str) -> None:
    """All traffic of worker `slow` passes, in both directions, a cable with a tenth of the others' bandwidth."""

    def star(shape: Any) -> Any:
        graph: nx.Graph[str] = nx.Graph()
        graph.add_node("switch", kind="switch")
        for rank in range(shape.workers):
            graph.add_node(f"worker{rank}", kind="host")
            bandwidth = shape.bandwidth_bps // (10 if rank == slow else 1)
            graph.add_edge(f"worker{rank}", "switch", bandwidth_bps=bandwidth, latency_s=shape.latency_s / 2)
        return graph

    options: dict[str, Any] = {"workers": 8, "timing_only": True, "elements": 10**6, "k": 10**5}
    algorithms = "dense,topk,gtopk,dense-tree,qsgd"
    report = netsim.simulate(topology=star, algorithm=algorithms, engine=engine, **options)
    for result in report.results:
        assert result.bound_by in (f"link worker{slow}→switch", f"link switch→worker{slow}"), result.algorithm
    for result in netsim.simulate(algorithm=algorithms, engine=engine, **options).results:
        assert result.bound_by.startswith("worker links, e.g. "), result.algorithm
