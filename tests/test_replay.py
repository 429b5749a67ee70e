"""``netsim flows``: any traffic on any network."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.analysis.replay import replay
from netsim.experiment.configuration import Experiment
from netsim.network.flowfile import GivenFlow
from tests.command import run
from tests.progressive import Wanted, finish

PS = 10**12
HEADER = "src,dst,bytes,start_s\n"


def flows_file(folder: Path, text: str) -> Path:
    path = folder / "flows.csv"
    path.write_text(text)
    return path


def documented(capsys: pytest.CaptureFixture[str], arguments: str) -> dict[str, Any]:
    ran = run(capsys, f"flows {arguments} --json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_flows_share_and_end_as_computed_by_hand(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """At 1 MB/s two flows of 1 MB into worker 2 have half each from 1 ms on, so they end at 2.001 s.

    The third drains from 0.501 s at the half that worker 0's link has left, and the last 0.25 MB at full speed.
    """
    path = flows_file(
        tmp_path, HEADER + "worker0,worker2,1000000,0\nworker1,worker2,1000000,0\nworker0,worker1,1000000,0.5\n"
    )
    done = documented(capsys, f"--topology star --workers 3 --bandwidth 8Mbps --latency 1ms --flows {path}")
    assert [flow["finish_s"] for flow in done["flows"]] == pytest.approx([2.001, 2.001, 2.251], rel=1e-12)
    assert [flow["duration_s"] for flow in done["flows"]] == pytest.approx([2.001, 2.001, 1.751], rel=1e-12)
    links = {link["name"]: link for link in done["links"]}
    assert links["switch→worker2"]["bytes"] == 2_000_000
    assert links["switch→worker2"]["utilisation"] == pytest.approx(2 / 2.251, rel=1e-12)
    assert links["worker1→switch"]["utilisation"] == pytest.approx(1 / 2.251, rel=1e-12)
    assert done["makespan_s"] == pytest.approx(2.251, rel=1e-12)
    assert "worker0→switch" in done["conclusion"][0]


FORMS = [
    "star",
    "tree:fan-out=2",
    "racks:size=3,oversubscription=2",
    "fat-tree",
    "torus",
    "dragonfly",
    "wan:latency=1ms",
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMS), st.integers(0, 2**32), st.integers(1, 30))
def test_on_every_topology_flows_end_when_the_reference_says(form: str, seed: int, count: int) -> None:
    """The reference knows links and routes only; its flows enter when their latency is over."""
    drawn = random.Random(seed)
    fabric = Experiment.of(workers=12, topology=form, bandwidth="10Mbps").fabric()
    flows = []
    for _ in range(count):
        source, target = drawn.sample(fabric.workers, 2)
        flows.append(GivenFlow(source, target, drawn.randint(1, 10**6), drawn.choice([0, 0.25, 0.5])))
    done = replay(fabric, flows)
    wanted = []
    for outcome in done.flows:
        latency = round(PS * sum(link.latency_s for link in outcome.route))
        start = round(PS * outcome.given.start_s) + latency
        wanted.append(Wanted(tuple(link.index for link in outcome.route), 8 * outcome.given.nbytes, start))
    used = sorted({link for flow in wanted for link in flow.links})  # the reference is slow: others don't matter
    wanted = [replace(flow, links=tuple(map(used.index, flow.links))) for flow in wanted]
    ends = finish(wanted, [int(fabric.bandwidth_bps[link]) for link in used])
    expected = [float(end / PS) for end in ends]
    assert [outcome.finish_s for outcome in done.flows] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert sum(use.nbytes for use in done.links) == sum(
        outcome.given.nbytes * len(outcome.route) for outcome in done.flows
    )
    assert all(0 < use.utilisation <= 1 + 1e-9 for use in done.links)


def test_flows_of_one_pair_may_take_several_of_equal_routes() -> None:
    fabric = Experiment.of(workers=16, topology="fat-tree:k=4").fabric()
    done = replay(fabric, [GivenFlow("worker0", "worker15", 10**6, 0.0)] * 40)
    assert len({outcome.route for outcome in done.flows}) == 4


def test_the_table_ends_with_the_busiest_link(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = flows_file(tmp_path, HEADER + "".join(f"worker{i},worker8,1000,0\n" for i in range(1, 8)) * 5)
    ran = run(capsys, f"flows --topology racks:size=4,uplink=500Mbps --workers 12 --flows {path}")
    assert (ran.code, ran.err) == (0, "")
    assert "and 11 more flows" in ran.out
    *_, busiest, rule = ran.out.splitlines()
    assert busiest.startswith("The busiest link is core→rack2: it carries 35 kB of 35 flows")
    assert rule == "SIMULATED; links are shared by max-min fairness (--sharing maxmin)."


def test_out_is_the_same_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, out = flows_file(tmp_path, HEADER + "worker0,worker1,1000,0\n"), tmp_path / "done.json"
    ran = run(capsys, f"flows --topology star --flows {path} --json --out {out}")
    assert out.read_text() == ran.out
    assert json.loads(ran.out)["schema"] == "netsim.flows/1"


WRONG = [
    ("src,dst,bytes\n", "has no column 'start_s'"),
    ("", "has no column 'src'"),
    (HEADER, "has no flows"),
    (
        HEADER + "worker0,worker1,1000,0\nworker0,wroker1,1000,0\n",
        "line 3, column dst: 'wroker1' is not a host (did you mean",
    ),
    (HEADER + "worker99,worker1,1000,0\n", "line 2, column src: 'worker99' is not a host"),
    (HEADER + "worker1,worker1,1000,0\n", "line 2, column dst: 'worker1' is the sender itself"),
    (HEADER + "worker0,worker1,-5,0\n", "line 2, column bytes: '-5'"),
    (HEADER + "worker0,worker1,1.5,0\n", "line 2, column bytes: '1.5'"),
    (HEADER + "worker0,worker1,1e-999,0\n", "line 2, column bytes: '1e-999'"),
    (HEADER + "worker0,worker1,1e999999999,0\n", "line 2, column bytes: '1e999999999'"),
    (HEADER + 'worker0,worker1,"1,048,576",0\n', "line 2, column bytes: '1,048,576'"),
    (HEADER + "worker0,worker1,1_000,0\n", "line 2, column bytes: '1_000'"),
    (HEADER + "worker0,worker1,1000,1_0\n", "line 2, column start_s: '1_0'"),
    ("src;dst;bytes;start_s\nworker0;worker1;1000;0,5\n", "line 2, column start_s: '0,5'"),
    ("src,dst,bytes,bytes,start_s\nworker0,worker1,1,2,0\n", "has 2 columns 'bytes'"),
    ("src,dst,bytes,start_s,\nworker0,worker1,1,0,a,b\n", "line 2: ['b'] is one value too many"),
    (HEADER + "worker0,worker1," + "9" * 5000 + ",0\n", "line 2, column bytes: "),
    (HEADER + "worker0,worker1,1000,nan\n", "line 2, column start_s: 'nan'"),
    (HEADER + "worker0,worker1,1000,-1\n", "line 2, column start_s: '-1'"),
    (HEADER + "worker0,worker1,1000,\n", "line 2, column start_s: ''"),
    (HEADER + "worker0,worker1,1000\n", "line 2, column start_s: ''"),
    (HEADER + "worker0,worker1,1000,0,5\n", "line 2: ['5'] is one value too many"),
    (HEADER + '"worker0,worker1,1000,0\n', "cannot be read"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, said: str) -> None:
    path = flows_file(tmp_path, text)
    ran = run(capsys, f"flows --topology star --flows {path}")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"netsim: [^\n]+\n", ran.err)
    assert said in ran.err
    assert repr(str(path)) in ran.err


@pytest.mark.parametrize(
    "content",
    [
        b"src,dst,bytes,start_s\nworker1,worker4,1048576.0,0.0\n",
        b"src,dst,bytes,start_s\r\nworker1,worker4,1.048576E6,0e0\r\n\r\n",
        b"\xef\xbb\xbfsrc,dst,bytes,start_s\nworker1,worker4,1048576,0\n",
        "src,dst,bytes,start_s\nworker1,worker4,1048576,0\n".encode("utf-16"),
        "src\tdst\tbytes\tstart_s\nworker1\tworker4\t1048576\t0\n".encode("utf-16"),
        b"src;dst;bytes;start_s\nworker1;worker4;1048576;0\n",
        b",src,dst,bytes,start_s\n0,worker1,worker4,1048576.0,0.0\n",
        b"start_s, bytes, dst, src, note\n0, 1048576, worker4, worker1,\n",
    ],
)
def test_flows_as_other_programs_write_them(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "flows.csv"
    path.write_bytes(content)
    (flow,) = documented(capsys, f"--topology star --bandwidth 8Mbps --latency 1ms --flows {path}")["flows"]
    assert (flow["src"], flow["dst"], flow["bytes"]) == ("worker1", "worker4", 1048576)
    assert flow["finish_s"] == pytest.approx(1e-3 + 1048576 / 1e6, rel=1e-12)


def idle(folder: Path, bandwidth_bps: float) -> Path:
    """Write a network of two hosts whose links have no latency."""
    nodes = [{"id": "a", "kind": "host"}, {"id": "b", "kind": "host"}]
    edges = [{"source": "a", "target": "b", "bandwidth_bps": bandwidth_bps, "latency_s": 0}]
    path = folder / "idle.json"
    path.write_text(json.dumps({"nodes": nodes, "edges": edges}))
    return path


@pytest.mark.parametrize("nbytes", [1, 3, 9_000_000])
def test_a_flow_that_takes_no_time_uses_its_link_fully(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, nbytes: int
) -> None:
    """At 9 · 10¹⁵ bit/s a byte takes 9 · 10⁻¹⁶ s, of which no whole picosecond is left."""
    path = flows_file(tmp_path, HEADER + f"a,b,{nbytes},0\n")
    arguments = f"--topology {idle(tmp_path, 9e15)} --flows {path}"
    done = documented(capsys, arguments)
    assert done["flows"][0]["finish_s"] == pytest.approx(8 * nbytes / 9e15, abs=0.51e-12)
    assert [link["utilisation"] for link in done["links"]] == pytest.approx([1.0])
    assert "100.0% of its capacity in " in run(capsys, f"flows {arguments}").out


@pytest.mark.parametrize(
    "command",
    [
        "flows --flows {flows}",
        *(f"simulate --workers 2 --timing-only --elements 10 --algorithm dense --engine {engine}"
          for engine in ("auto", "event", "vectorized")),
        "simulate --workers 2 --timing-only --elements 10 --algorithm dense --protocol tcp",
        "simulate --workers 2 --timing-only --elements 10 --algorithm dense --background 0.1",
        "simulate --workers 2 --timing-only --elements 10 --algorithm dense --send-mode eager",
    ],
)  # fmt: skip
def test_shares_by_latency_where_there_is_none_are_refused_in_every_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    path = flows_file(tmp_path, HEADER + "a,b,1000,0\n")
    ran = run(capsys, f"{command.format(flows=path)} --topology {idle(tmp_path, 1e9)} --sharing rtt")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"netsim: --sharing 'rtt' on the route [ab]→[ab], which has no latency [^\n]+\n", ran.err)


def test_a_file_in_another_encoding(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "flows.csv"
    path.write_bytes(HEADER.encode() + "wörker0,worker1,1,0\n".encode("latin-1"))
    ran = run(capsys, f"flows --topology star --flows {path}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"netsim: --flows {str(path)!r} is not utf-8 text at byte 23; save it as UTF-8\n"


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "flows --topology star --flows nowhere.csv")
    assert (ran.code, ran.err) == (
        2,
        "netsim: --flows 'nowhere.csv' cannot be read: No such file or directory; "
        "give the path of a file that is there\n",
    )
