"""Traces: they change nothing, account for every byte and instant, and are in Chrome's format."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import netsim
from algorithms import ALGORITHMS
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.report.activity import draw_links, draw_round
from netsim.simulator.observer import Computation, TracedMessage
from netsim.simulator.opening import open_session
from netsim.simulator.trace import Activity, Trace
from tests.command import run
from tests.engines import without_the_way

MS = 10**9
"""Picoseconds."""
SMALL: dict[str, Any] = {
    "workers": 5, "timing_only": True, "elements": 1000, "k": 10, "rounds": 3, "bandwidth": "8Mbps", "latency": "1ms",
    "compute_time": "7ms", "select_time": "3ms", "merge_time": "1ms",
}  # fmt: skip


def traced(algorithm: str, **options: Any) -> tuple[Result, Trace]:
    """Return the result of one algorithm, and what went on."""
    trace = Trace(algorithm)
    with open_session(Experiment.of(algorithm=algorithm, **(SMALL | options))) as lab:
        return lab.simulate(algorithm, trace=trace), trace


def written(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace file."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    events: list[dict[str, Any]] = json.loads(text)["traceEvents"]
    return events


def test_what_two_workers_do_is_what_the_model_says() -> None:
    """gTop-k, P = 2: 80 bytes at 1 µs each after 1 ms, up to rank 0 and back down."""
    _, trace = traced("gtopk", workers=2, rounds=1)
    wire = 1_080_000_000
    first, second = ([each._replace(step=0) for each in of_rank] for of_rank in trace.activities())
    merged = 11 * MS + 80_000_000 + MS
    assert first[:5] == [
        Activity("gradient", 0, 0, 7 * MS),
        Activity("select", 0, 7 * MS, 10 * MS),
        Activity("receive", 0, 10 * MS, 10 * MS + wire),
        Activity("merge", 0, 10 * MS + wire, merged),
        Activity("send", 0, merged, merged + wire),
    ]
    assert second[:5] == [
        Activity("gradient", 0, 0, 7 * MS),
        Activity("select", 0, 7 * MS, 10 * MS),
        Activity("send", 0, 10 * MS, 10 * MS + wire),
        Activity("wait", 0, 10 * MS + wire, merged),
        Activity("receive", 0, merged, merged + wire),
    ]


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_trace_changes_no_result(algorithm: str) -> None:
    for topology in ("star", "ps"):
        (plain,) = netsim.simulate(algorithm=algorithm, topology=topology, **SMALL).results
        result, trace = traced(algorithm, topology=topology)
        way = {"way": "messages", "way_reason": result.way_reason}
        assert asdict(result) == asdict(plain) | way
        assert trace.end / 1e12 == pytest.approx(result.round_time_s * 3, rel=1e-12)


@pytest.mark.parametrize("algorithm", ["dense", "gtopk", "sasg"])
def test_a_trace_changes_no_training(algorithm: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "workers": 3, "rounds": 2, "algorithm": algorithm, "compute_time": "5ms", "select_time": 0, "merge_time": 0,
    }  # fmt: skip
    plain = netsim.simulate(**options)
    watched = netsim.simulate(**options, trace=tmp_path / "trace.json")
    assert list(map(without_the_way, watched.results)) == list(map(without_the_way, plain.results))
    assert watched.results[0].parameters_sha256


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_links_carry_the_bytes_that_workers_sent(algorithm: str) -> None:
    """On a star what a worker sends is what flows through its uplink: the integral of its level."""
    result, trace = traced(algorithm)
    for host, sent in zip(trace.hosts, result.bytes_sent_by_rank, strict=True):
        (share,) = trace.utilisation(f"{host}→switch", [0, trace.end])
        assert share * trace.end / 1e12 * 8e6 / 8 == pytest.approx(sent, abs=1e-3)
    assert sum(message.nbytes for message in trace.messages) == sum(result.bytes_sent_by_rank)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_rank_is_at_one_thing_at_every_instant(algorithm: str) -> None:
    _, trace = traced(algorithm, topology="tree", fan_out=2)
    for rank, activities in enumerate(trace.activities()):
        assert activities[0].start == 0
        for before, after in pairwise(activities):
            assert before.end == after.start
            assert before.start < before.end
        computed = sum(each.end - each.start for each in trace.computations if each.rank == rank)
        shown = sum(each.end - each.start for each in activities if each.kind in ("gradient", "select", "merge"))
        assert shown == computed


def test_nobody_watches_a_run_that_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(*_: object) -> None:
        raise AssertionError("a run without a trace was watched")

    monkeypatch.setattr("netsim.simulator.session.TraceObserver", watch)
    netsim.simulate(algorithm="dense", **SMALL)
    with pytest.raises(AssertionError):
        traced("dense")


@pytest.fixture(scope="module", params=["star", "ps"])
def events(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("trace") / "trace.json.gz"
    netsim.simulate(algorithm="dense,gtopk,ps,sasg", topology=request.param, trace=path, **SMALL)
    return written(path)


def tracks(events: list[dict[str, Any]]) -> Iterator[list[tuple[float, float]]]:
    """Yield the slices of each track, as (start, end) in µs."""
    slices = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    yield from slices.values()


def test_events_have_what_the_format_asks_for(events: list[dict[str, Any]]) -> None:
    """The trace-event format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU."""
    assert {event["ph"] for event in events} == {"M", "X", "C", "s", "f"}
    for event in events:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["name"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "process_sort_index", "thread_name")
            continue
        assert isinstance(event["ts"], int | float)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "C":
            assert all(0 <= value <= 100.001 for value in event["args"].values())
    named = {event["pid"] for event in events if event["name"] == "process_name"}
    threads = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert {event["pid"] for event in events} <= named
    assert {(event["pid"], event["tid"]) for event in events if event["ph"] == "X"} <= threads


def test_slices_of_a_track_do_not_overlap(events: list[dict[str, Any]]) -> None:
    """As readers keep them, in whole nanoseconds."""
    found = list(tracks(events))
    assert len(found) > 12
    for slices in found:
        for (_, end), (start, _) in pairwise(sorted(slices)):
            assert round(start * 1000) >= round(end * 1000)


def test_arrows_lead_from_inside_a_slice_into_another(events: list[dict[str, Any]]) -> None:
    arrows = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            arrows[event["id"]].append(event)
    assert arrows
    spans = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            spans[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for pair in arrows.values():
        assert [event["ph"] for event in pair] == ["s", "f"]
        assert pair[0]["ts"] <= pair[1]["ts"]
        assert pair[0]["pid"] != pair[1]["pid"]
        for event in pair:
            assert any(start <= event["ts"] < end for start, end in spans[event["pid"], event["tid"]])


def test_every_worker_has_a_track_and_every_link_a_counter(events: list[dict[str, Any]]) -> None:
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert [name for name in names if name.startswith("gtopk: rank")] == [
        f"gtopk: rank {rank} on worker{rank}" for rank in range(5)
    ]
    kinds = {event["name"] for event in events if event["ph"] == "X"}
    assert kinds >= {"gradient", "select", "merge", "send", "receive", "wait"}
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert {"worker0→switch", "switch→worker4"} <= counters


def test_the_command_writes_the_same_file_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = "simulate --timing-only --elements 1000 --workers 3 --algorithm gtopk --trace"
    for name in ("a.json.gz", "b.json.gz", "c.json"):
        assert run(capsys, f"{command} {tmp_path / name}").code == 0
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert written(tmp_path / "a.json.gz") == written(tmp_path / "c.json")
    ran = run(capsys, f"{command} {tmp_path / 'missing' / 'a.json'}")
    assert ran.code == 2
    assert "trace" in ran.err


def test_too_many_records_are_counted_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = traced("dense")[1]
    monkeypatch.setattr("netsim.simulator.trace.MOST_RECORDS", 40)
    trace = traced("dense")[1]
    assert len(trace.computations) + len(trace.messages) == 40
    assert trace.left_out == len(whole.computations) + len(whole.messages) - 40
    netsim.simulate(algorithm="dense", trace=tmp_path / "trace.json", **SMALL)
    about = json.loads((tmp_path / "trace.json").read_text())["otherData"]
    assert about["records_left_out"] == {"dense": trace.left_out}


def test_a_trace_survives_json() -> None:
    _, trace = traced("gtopk")
    assert asdict(Trace.from_dict(json.loads(json.dumps(asdict(trace))))) == asdict(trace)


def test_a_picture_begins_shortly_before_the_first_message() -> None:
    """Computing takes 7 ms, selecting 3 ms, and the exchange less: the axis has an eighth of the exchange before 0."""
    _, trace = traced("gtopk", workers=2, rounds=1)
    first = min(message.start for message in trace.messages)
    assert first == 10 * MS
    round_, links = draw_round(trace), draw_links(trace)
    assert ">compute<" not in round_  # it ended long before
    assert ">select<" in round_
    assert ">0 s<" in round_
    assert ">0 s<" in links


def test_links_that_are_as_busy_stand_in_order_of_their_numbers() -> None:
    trace = Trace(
        "dense", levels={f"w{n}": [(0, 0.5)] for n in (10, 9, 1)}, messages=[TracedMessage(0, 1, 1, "", 0, 0, 0, 1, 2)]
    )
    trace.levels["w2"] = [(0, 0.75)]
    assert trace.busiest(4) == ["w2", "w1", "w9", "w10"]


def test_a_round_and_its_links_can_be_drawn() -> None:
    _, trace = traced("gtopk")
    assert "time since the first message" in draw_round(trace, 1)
    assert "switch→worker0" in draw_links(trace)
    empty = Trace("none", ["a"], [Computation(0, "gradient", 0, 0, 1)], [TracedMessage(0, 0, 0, "x", 0, 0, 0, 0, 0)])
    assert "rank 0" in draw_round(empty)
