"""Extreme rates, delays and sizes: every engine says the same, or all refuse with the same line.

``NETSIM_SETTINGS=1000`` draws so many settings for the agreement of the engines and half as many for the law; in the
suite it is a seeded share of them.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netsim._util.errors import InfeasibleError, UsageError
from netsim.cli.common import Forecast
from netsim.cli.main import main
from netsim.experiment.configuration import Experiment
from netsim.network.fabric import Fabric
from netsim.network.summary import summarise
from netsim.simulator.estimates import check_one_by_one, estimate
from tests.command import run
from tests.engines import ALL, results_of
from topologies import build, check_topology
from topologies.builder import Shape
from topologies.from_file import read_graph
from topologies.placement import orders
from topologies.spec import parts_of

SETTINGS = int(os.environ.get("NETSIM_SETTINGS", "24"))
HORIZON_S = 2**62 / 10**12
ALGORITHMS = ("dense", "dense-tree", "topk", "gtopk", "gtopk-naive", "gtopk-hier", "ps", "ps-topk")
LATE = "more than 53 days"


def between(draw: random.Random, low: float, high: float) -> float:
    """Draw so that every power of ten is as likely."""
    return 10 ** draw.uniform(math.log10(low), math.log10(high))


def rate(draw: random.Random) -> str:
    return f"{int(between(draw, 1, 9e15))}bps"


def delay(draw: random.Random, low: float = 1e-12, high: float = 1e6) -> str:
    return f"{between(draw, low, high):.3g}s"


def drawn(draw: random.Random) -> dict[str, Any]:
    """Return the options of one setting, with rates from 1 bit/s to 9 Pbit/s and delays from 1 ps to 12 days."""
    topologies = (
        *("star", "star", "star", "ring", "ps", "racks:size=4", "fat-tree", "tree:fan-out=2"),
        f"star:up={rate(draw)},down={rate(draw)}",
        f"racks:size=4,uplink={rate(draw)}",
        f"wan:sites=2,latency={delay(draw, 1e-6)}",
    )
    options = {
        "workers": draw.choice([1, 2, 3, 4, 5, 7, 8, 12, 16]),
        "bandwidth": f"{int(between(draw, 1, 2e15))}bps",
        "latency": delay(draw),
        "topology": draw.choice(topologies),
        "elements": int(between(draw, 1, 2**31 - 1)),
        "algorithm": draw.choice(ALGORITHMS),
        "rounds": draw.choice([1, 1, 2, 3]),
        "density": draw.choice([1e-3, 0.01, 0.5]),
    }
    for work in ("compute_time", "merge_time"):
        if draw.random() < 0.2:
            options[work] = delay(draw, 1e-9, 1e7)
    if options["topology"].startswith("star:"):
        del options["bandwidth"]
    return options


def round_time(way: str, options: dict[str, Any]) -> float | str | None:
    """Return the seconds of a round, or the line that refuses; None where this way is none for the setting."""
    try:
        return results_of(way, **options)[0].round_time_s
    except InfeasibleError as error:
        return None if "cannot be taken" in str(error) else str(error)


def test_engines_agree_or_refuse_alike() -> None:
    draw, refused = random.Random(20261128), 0
    for _ in range(SETTINGS):
        options = drawn(draw)
        told = {way: time for way in ALL if (time := round_time(way, options)) is not None}
        expected = told["event"]
        if isinstance(expected, str):
            refused += 1
            assert LATE in expected
            assert set(told.values()) == {expected}, options
        else:
            for way, time in told.items():
                # Instants are whole picoseconds, so that rates that differ in their last bit may round apart.
                assert time == pytest.approx(expected, rel=1e-9, abs=1e-11), (way, options)
    assert 0 < refused < SETTINGS / 2  # else the settings show little


def test_an_idle_star_takes_what_the_paper_says_or_is_refused() -> None:
    """Ring: 2(P-1)(α + ⌈d/P⌉β); parameter server beside a worker: 2(α + (P-1)dβ). To half a picosecond a message."""
    draw = random.Random(7)
    for _ in range(SETTINGS):
        workers, elements, bandwidth = (
            draw.randint(2, 16),
            int(between(draw, 1, 2**31 - 1)),
            int(between(draw, 1, 9e15)),
        )
        latency_ps = int(between(draw, 2, 1e18)) // 2 * 2
        common = {"workers": workers, "elements": elements, "bandwidth": f"{bandwidth}bps", "k": 1}
        element_s, alpha = 32 / bandwidth, latency_ps / 1e12
        steps = 2 * (workers - 1)
        for algorithm, seconds in (
            ("dense:segment=none", steps * (alpha + -(-elements // workers) * element_s)),
            ("ps", 2 * (alpha + (workers - 1) * elements * element_s)),
        ):
            if abs(seconds / HORIZON_S - 1) < 1e-6:
                continue
            for way in ALL:
                time = round_time(way, common | {"latency": f"{latency_ps}ps", "algorithm": algorithm})
                if time is None:
                    continue
                if seconds > HORIZON_S:
                    assert isinstance(time, str), (way, common)
                    assert LATE in time
                else:
                    assert time == pytest.approx(seconds, rel=1e-9, abs=steps * 1e-12), (way, common)


def test_times_never_fall_when_all_links_get_slower() -> None:
    """The law: all links are slowed by one factor, and latencies, placement and routes stay the same.

    Slowing one link alone gives other flows more of the links that they share with those that it holds back, which
    may shorten a round; so nothing is claimed of that.
    """
    draw = random.Random(4)
    for _ in range(SETTINGS // 2):
        options = drawn(draw) | {"topology": draw.choice(["star", "ps", "ring", "racks:size=4", "fat-tree", "tree"])}
        fast = int(between(draw, 100, 1e15))
        slow = int(fast / between(draw, 1.001, 100))
        way = draw.choice(ALL)
        times = [round_time(way, options | {"bandwidth": f"{bandwidth}bps"}) for bandwidth in (fast, slow)]
        if isinstance(times[0], str):
            assert times[1] == times[0], options
        elif isinstance(times[0], float) and isinstance(times[1], float):
            # A picosecond of rounding a message, of some hundred one after another.
            assert times[1] >= times[0] * (1 - 1e-9) - 1e-9, (way, fast, slow, options)


@pytest.mark.parametrize(
    "options",
    [
        "--bandwidth 1bps --elements 400000",
        "--bandwidth 1bps --elements 400000 --message-overhead 1us",
        "--compute-time 1e300s",
        "--latency 400000s",
        "--compute-time 1s --straggler 0:1e6 --rounds 20",
        "--message-overhead 1e300s",
        "--byte-cost 1e300s",
        "--link-event 'worker0<->switch@1us=1bps' --elements 4000000",
        "--bandwidth 1bps --elements 400000 --protocol tcp",
        "--latency 400000s --latency-jitter lognormal:1",
    ],
)
def test_what_takes_longer_than_instants_are_told_apart_is_one_line(
    capsys: pytest.CaptureFixture[str], options: str
) -> None:
    ran = run(capsys, f"simulate --timing-only --algorithm dense --workers 8 {options}")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("netsim: the simulation goes on for more than 53 days")
    assert ran.err.count("\n") == 1


def test_a_link_that_comes_back_after_the_horizon_is_no_deadlock(capsys: pytest.CaptureFixture[str]) -> None:
    events = "'worker0->switch@0s=down,worker0->switch@1e300s=up'"
    ran = run(capsys, f"simulate --timing-only --elements 100 --algorithm dense --link-event {events}")
    assert (ran.code, ran.out) == (2, "")
    assert "is later than 53 days, where every simulation ends" in ran.err
    assert ran.err.count("\n") == 1


def test_flows_end_before_the_horizon_or_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone on their links or not: 10⁶ bytes take 8·10⁶ s at 1 bit/s, and 2⁶² ps are 4.6·10⁶ s."""
    flows = tmp_path / "flows.csv"
    for bandwidth, code in (("1bps", 3), ("2bps", 0)):
        for rows in (["worker0,worker1,1000000,0"], ["worker0,worker1,500000,0", "worker2,worker1,500000,0"]):
            flows.write_text("\n".join(["src,dst,bytes,start_s", *rows, ""]))
            ran = run(capsys, f"flows --topology star --bandwidth {bandwidth} --flows {flows} --json")
            assert ran.code == code
            if code == 0:
                assert json.loads(ran.out)["makespan_s"] == pytest.approx(4e6, rel=1e-9)
            else:
                assert LATE in ran.err


@pytest.mark.parametrize("way", ALL)
def test_rates_given_as_keys_count_as_those_of_options_do(way: str) -> None:
    """48.3 ms is wrong by nobody: more than 9 Pbit/s is refused, and just that is computed."""
    with pytest.raises(UsageError, match=r"up: .*at most 9e\+15"):
        Experiment.of(topology="star:up=1e19bps", timing_only=True, elements=1000)
    options = {"workers": 4, "elements": 10**6, "topology": "star:up=9e15bps,down=1Gbps", "latency": "50us"}
    time = round_time(way, options | {"algorithm": "dense:segment=none"})
    assert time is None or time == pytest.approx(6 * (50e-6 + 250_000 * 32e-9), rel=1e-9)


def chain(hosts: int) -> dict[str, Any]:
    return {
        "nodes": [{"id": f"h{number}", "kind": "host"} for number in range(hosts)],
        "edges": [
            {"source": f"h{number}", "target": f"h{number + 1}", "bandwidth_bps": 10**9, "latency_s": 1e6}
            for number in range(hosts - 1)
        ],
    }


def test_a_diameter_is_the_sum_of_its_links(tmp_path: Path) -> None:
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(chain(12)))
    fabric = Fabric(read_graph(path))
    found = summarise(fabric, orders(fabric.graph))
    assert (found.diameter_links, found.diameter_s) == (11, 11e6)


@pytest.mark.parametrize(
    ("topology", "workers"),
    [
        ("fat-tree:k=1000", 8),
        ("fat-tree:k=999999999999999998", 8),
        ("ps:servers=1000000000", 8),
        ("torus:sides=100000x100000", 8),
        ("wan:sites=100000", 8),
        ("dragonfly:a=1,h=100000,p=1", 8),
        ("dragonfly:a=1,p=1", 10**9),
        *((name, 10**9) for name in ("star", "ring", "torus", "tree", "racks", "fat-tree", "dragonfly", "wan", "ps")),
    ],
)
def test_a_network_that_no_machine_holds_is_refused_before_it_is_built(topology: str, workers: int) -> None:
    with pytest.raises(InfeasibleError, match=r"would take about .*B; build one of at most 4,000,000 nodes"):
        build(topology, Shape(workers, 10**9, 1e-6))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--timing-only --elements 100 --workers 1000000000", "1,000,000,000 workers"),
        ("--timing-only --elements 100 --rounds 10000000", "10,000,000 rounds without data would take"),
        (
            "--timing-only --elements 100 --workers 1000000 --algorithm oktopk",
            "(no formula: ranks are not",
        ),
        ("--batch-size 100000000000", "a mini-batch of 100,000,000,000 samples would take"),
        ("--batch-size 100000", "a mini-batch of 100,000 samples would take more than"),
        ("--background 0.999 --background-size fixed:1B", "messages one by one, which take about"),
        ("--timing-only --elements 100 --workers 4000000 --topology ring --algorithm dense", "messages, which take"),
        (
            "--timing-only --elements 10000 --workers 100000 --algorithm dense --engine event",
            "messages one by one, which take about",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(
    capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    ran = run(capsys, f"simulate {options}")
    assert (ran.code, ran.out) == (3, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "topology",
    [
        "star:hash=18446744073709551616",
        "ps:servers=" + "9" * 4301,
        "star:up=1\N{ARABIC-INDIC DIGIT THREE}bps",
        "torus:sides=\N{SUPERSCRIPT TWO}x3",
        "racks:size=1_000",
        "wan:latency=1e300s",
        "racks:size=999999999999999999",
        "racks:oversubscription=nan",
    ],
)
def test_keys_that_are_no_numbers_or_too_large_are_one_short_line(topology: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(topology, Shape(8, 10**9, 1e-6))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["self", "node_for_adding", "attr", "u_of_edge", "v_of_edge", "name", "key"])
def test_attributes_of_files_may_have_any_name(tmp_path: Path, key: str) -> None:
    network = chain(2)
    network["edges"][0]["latency_s"] = 0.5
    for element in (*network["nodes"], *network["edges"]):
        element[key] = 1
    path = tmp_path / "net.json"
    path.write_text(json.dumps(network))
    graph = read_graph(path)
    assert graph.names == ["h0", "h1"]
    assert graph.latency_s.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("group", [[1], {"a": 1}, None])
def test_a_group_is_text_or_a_number(tmp_path: Path, group: object) -> None:
    network = chain(2)
    network["nodes"][0]["group"] = group
    path = tmp_path / "net.json"
    path.write_text(json.dumps(network))
    with pytest.raises(UsageError, match=r"node 'h0': group .* must be text or a number"):
        read_graph(path)


@pytest.mark.parametrize(("key", "value"), [("bandwidth_bps", 10**400), ("latency_s", 10**400), ("bandwidth_bps", [1])])
def test_links_of_files_are_numbers_that_can_be(tmp_path: Path, key: str, value: object) -> None:
    network = chain(2)
    network["edges"][0][key] = value
    path = tmp_path / "net.json"
    path.write_text(json.dumps(network))
    with pytest.raises(UsageError, match=f"link h0→h1: {key} ") as caught:
        read_graph(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("C:\\x.json", ("C:\\x.json", "")),
        ("C:\\x.json:hash=3", ("C:\\x.json", "hash=3")),
        ("./a:b.json", ("./a:b.json", "")),
        ("dir:1/net.json:hash=3", ("dir:1/net.json", "hash=3")),
        ("wan:matrix=/x/a:b.csv,wan=1Gbps", ("wan", "matrix=/x/a:b.csv,wan=1Gbps")),
        ("star:up=1Gbps", ("star", "up=1Gbps")),
        ("star:typo", ("star", "typo")),
    ],
)
def test_a_path_may_hold_colons(text: str, parts: tuple[str, str]) -> None:
    assert parts_of(text) == parts


def test_a_file_in_a_folder_with_a_colon_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "dir:1"
    folder.mkdir()
    (folder / "a:b.json").write_text(json.dumps(chain(2)))
    check_topology(f"{folder}/a:b.json")
    check_topology(f"{folder}/a:b.json:hash=3")


GRAPHML = """<?xml version="1.0"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="k" for="node" attr.name="kind" attr.type="string"/>
<key id="b" for="edge" attr.name="bandwidth_bps" attr.type="{}"/>
<key id="l" for="edge" attr.name="latency_s" attr.type="{}"/>
<graph edgedefault="undirected">
<node id="a"><data key="k">host</data></node><node id="b"><data key="k">host</data></node>
<edge source="a" target="b"><data key="b">{}</data><data key="l">{}</data></edge></graph></graphml>"""


@pytest.mark.parametrize("types", [("string", "string"), ("double", "string"), ("string", "double")])
def test_numbers_that_graphml_types_as_text_are_read(tmp_path: Path, types: tuple[str, str]) -> None:
    path = tmp_path / "net.graphml"
    path.write_text(GRAPHML.format(*types, "1e9", "0.5"))
    graph = read_graph(path)
    assert (graph.bandwidth_bps.tolist(), graph.latency_s.tolist()) == ([10**9, 10**9], [0.5, 0.5])


@pytest.mark.parametrize(
    ("types", "values"),
    [
        (("string", "double"), ("1Gbps", "0.5")),
        (("string", "double"), ("1_000", "0.5")),
        (("string", "double"), ("9" * 5000, "0.5")),
        (("int", "double"), ("9" * 5000, "0.5")),
        (("int", "double"), ("1.5e9", "0.5")),
        (("boolean", "double"), ("true", "0.5")),
        (("boolean", "double"), ("perhaps", "0.5")),
        (("double", "string"), ("1e9", "1us")),
        (("double", "double"), ("1e9", "nan")),
        (("quaternion", "double"), ("1e9", "0.5")),
    ],
)
def test_what_graphml_leaves_ambiguous_is_one_short_line(
    tmp_path: Path, types: tuple[str, str], values: tuple[str, str]
) -> None:
    path = tmp_path / "net.graphml"
    path.write_text(GRAPHML.format(*types, *values))
    with pytest.raises(UsageError) as caught:
        read_graph(path)
    assert len(str(caught.value).replace(str(path), "")) < 300


def test_a_forecast_leaves_out_the_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first round of 50 s, then 5 s each: after the third, 99 of 102 rounds are left, or 495 s."""
    instants = iter([50.0, 55.0, 60.0, 65.0])
    monkeypatch.setattr("netsim.cli.common.time", SimpleNamespace(monotonic=lambda: next(instants)))
    forecast = Forecast(102)
    told = []
    for done in (1, 2, 3, 4):
        forecast.note(done)
        told.append(forecast.left_s)
    assert told == [None, 500.0, 495.0, 490.0]
    assert forecast.in_words() == ", about 8 minutes to go"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("recommend --workers 400000 --elements 1000 --compute-time 1ms --topology ring", "simulations, "),
        ("topology placement ring --workers 2000000 --elements 1000", "messages, which take about"),
    ],
)
def test_many_simulations_are_refused_by_their_sum(
    capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    ran = run(capsys, arguments)
    assert (ran.code, ran.out) == (3, "")
    assert said in ran.err


@pytest.mark.slow
def test_a_study_that_takes_days_is_refused_and_makes_no_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, setting in (("sasg-paper", "rounds=1000000000"), ("gtopk-paper", "workers=4000000")):
        ran = run(capsys, f"study {name} --quick --set {setting} --out {tmp_path}/new")
        assert (ran.code, ran.out) == (3, ""), ran.err
        assert not (tmp_path / "new").exists()


def test_an_estimate_counts_the_messages_of_a_round() -> None:
    """A ring all-reduce has 2 (P - 1) exchanges of P messages each, at 15,000 messages a second."""
    experiment = Experiment.of(workers=100_000, algorithm="dense", elements=10**6, timing_only=True, engine="event")
    found = estimate(experiment, "dense")
    assert found.messages == pytest.approx(2 * 100_000 * 99_999, rel=0.02)
    assert found.seconds == pytest.approx(2 * 100_000 * 99_999 / 15_000, rel=0.02)


@pytest.mark.parametrize("elements", [4 * 10 * 2**17, 4 * 1000 * 2**17])
def test_an_estimate_counts_slices(elements: int) -> None:
    """Of P chunks of s slices of 512 KiB, a ring all-reduce sends 2 (P - 1) s P messages."""
    name = "dense:segment=512KiB"
    experiment = Experiment.of(workers=4, algorithm=name, elements=elements, timing_only=True)
    assert estimate(experiment, name).messages == pytest.approx(2 * 3 * 4 * elements / (4 * 2**17), rel=1e-9)


@pytest.mark.parametrize("workers", [48, 200])
def test_an_estimate_counts_messages_without_a_schedule(workers: int) -> None:
    """SSAR: the P - C workers beyond a power of two C send, C workers swap log₂C times, and P - C get the result."""
    core = 1 << (workers.bit_length() - 1)
    found = estimate(Experiment(workers=workers, algorithms=("ssar",), timing_only=True, elements=10**6), "ssar")
    assert found.one_by_one
    expected = 2 * (workers - core) + core * math.log2(core)
    assert found.messages == pytest.approx(expected, rel=0 if workers <= 64 else 0.25)


def test_messages_that_are_simulated_one_by_one_after_all_are_announced(caplog: pytest.LogCaptureFixture) -> None:
    """Ok-Topk sends P (P - 1) messages three times, all to all and around two rings, and few more over trees."""
    experiment = Experiment(workers=4000, algorithms=("oktopk",), timing_only=True, elements=10**6)
    check_one_by_one(experiment, "oktopk", "links are shared")
    (record,) = caplog.records
    said = re.search(r"oktopk: ([\d,]+) messages one by one \(links are shared\), which take", record.message)
    assert said is not None
    assert int(said[1].replace(",", "")) == pytest.approx(3 * 4000 * 3999, rel=0.02)


def test_an_estimate_counts_cross_traffic() -> None:
    """Of P links, each way, at load 1/2 for a round of T: P B / (8 size) · T / (1 - 1/2) flows arrive in all."""
    options = {"workers": 8, "algorithm": "dense", "elements": 10**8, "timing_only": True, "latency": "1us"}
    found = estimate(Experiment.of(**options, background="0.5", background_size="fixed:1kB"), "dense")
    round_s = 2 * 7 / 8 * 32e8 / 1e9
    assert found.messages == pytest.approx(8 * 2 * 1e9 / 8000 * round_s, rel=0.02)


def test_a_rack_whose_uplink_cannot_be_names_its_size() -> None:
    with pytest.raises(UsageError, match="take a smaller size or fan-out, or give uplink"):
        build("racks:size=1000000000", Shape(8, 10**9, 1e-6))


@pytest.mark.parametrize("arguments", [["--out", ""], ["--out="], ["--metrics", ""]])
def test_a_file_without_a_name_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code = main(["simulate", "--timing-only", "--elements", "10", "--k", "1", *arguments])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert "'' names no file" in said.err
