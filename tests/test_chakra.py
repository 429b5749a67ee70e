"""Execution traces: a reader of Chakra's schema that knows no netsim, and a replay of what it read on an idle star."""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from algorithms import ALGORITHMS
from netsim.comm.payload import SizeOnly
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.simulator.chakra import check_chakra, file_name, write_chakra
from netsim.simulator.execution_graph import ExecutionGraph, GraphObserver
from netsim.simulator.observer import Observers
from netsim.simulator.opening import open_session
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from tests.command import run

ALPHA_S, BYTES_PER_S = 1e-3, 1e6
SMALL: dict[str, Any] = {
    "workers": 5, "timing_only": True, "elements": 1000, "k": 10, "rounds": 2, "bandwidth": "8Mbps", "latency": "1ms",
    "compute_time": "9ms", "select_time": "3ms", "merge_time": "1ms",
}  # fmt: skip

COMPUTE, SEND, RECEIVE = 4, 5, 6
"""COMP_NODE, COMM_SEND_NODE and COMM_RECV_NODE of the schema's NodeType."""
NODE = {1: "id", 2: "name", 3: "type", 5: "data_deps", 7: "duration_micros", 10: "attr"}
VALUES = {27: "bool_val", 7: "int32_val", 9: "int64_val", 29: "string_val"}
"""Fields of the messages Node and AttributeProto, from mlcommons/chakra, schema/protobuf/et_def.proto."""
KINDS = {
    "is_cpu_op": "bool_val", "comm_src": "int32_val", "comm_dst": "int32_val", "comm_tag": "int32_val",
    "comm_size": "int64_val",
}  # fmt: skip
"""The kind of value that Chakra's feeder reads of each attribute (src/feeder/et_feeder_node.cpp)."""


def varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number, and the position after it (protobuf.dev/programming-guides/encoding)."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not byte & 0x80:
            return value, at


def fields_of(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a message: an integer, or the bytes of a text, list or message."""
    at = 0
    while at < len(content):
        key, at = varint(content, at)
        value, at = varint(content, at)
        assert key & 7 in (0, 2), "only varints and length-delimited fields"
        if key & 7 == 2:
            value, at = content[at : at + value], at + value
            assert at <= len(content)
        yield key >> 3, value


def numbers(packed: bytes) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = varint(packed, at)
        yield value


def messages(path: Path) -> Iterator[bytes]:
    content, at = path.read_bytes(), 0
    while at < len(content):
        size, at = varint(content, at)
        assert at + size <= len(content)
        yield content[at : at + size]
        at += size


def attribute(content: bytes) -> tuple[str, str, Any]:
    """Return name, kind and value of an AttributeProto."""
    (_, name), (number, value) = fields_of(content)
    return name.decode(), VALUES[number], value


@dataclass
class Read:
    """A node as read from a file."""

    rank: int
    id: int = 0
    type: int = 0
    name: str = ""
    duration_micros: int = 0
    data_deps: list[int] = field(default_factory=list)
    attr: dict[str, int] = field(default_factory=dict)

    @property
    def message(self) -> tuple[int, ...]:
        return tuple(self.attr[name] for name in ("comm_src", "comm_dst", "comm_tag", "comm_size"))


def node_of(rank: int, content: bytes) -> Read:
    node = Read(rank)
    for number, value in fields_of(content):
        name = NODE[number]
        if name == "data_deps":
            node.data_deps = list(numbers(value))
        elif name == "attr":
            key, kind, number = attribute(value)
            assert kind == KINDS[key]
            node.attr[key] = number
        else:
            setattr(node, name, value.decode() if name == "name" else value)
    return node


def read(folder: Path, name: str) -> list[list[Read]]:
    """Return the nodes of each rank; check what holds of every file."""
    ranks = []
    while (path := folder / f"{name}.{len(ranks)}.et").exists():
        _, *nodes = messages(path)
        ranks.append([node_of(len(ranks), node) for node in nodes])
    for nodes in ranks:
        assert [node.id for node in nodes] == list(range(len(nodes)))
        for node in nodes:
            assert all(0 <= earlier < node.id for earlier in node.data_deps)  # so no rank waits for itself
            assert node.attr["is_cpu_op"] == 0
            end = {SEND: "comm_src", RECEIVE: "comm_dst"}.get(node.type)
            assert end is None or node.attr[end] == node.rank
    return ranks


def replay(ranks: list[list[Read]], *, eager: bool = False) -> float:
    """Return when the last node ends, on a network where every message has the whole bandwidth.

    A rank computes one thing at a time, first come, first served. A message takes α + n β from its send; one between
    the same two ranks begins to drain when those before it have drained. A send ends with its message, or at once.
    """
    waiting = {(node.rank, node.id): len(node.data_deps) for nodes in ranks for node in nodes}
    after = defaultdict(list)
    for nodes in ranks:
        for node in nodes:
            for earlier in node.data_deps:
                after[node.rank, earlier].append(node)
    events: list[tuple[float, int, int, str]] = []
    free: defaultdict[int, float] = defaultdict(float)
    drained: defaultdict[tuple[int, int], float] = defaultdict(float)
    arrived: dict[tuple[int, ...], float] = {}
    posted: dict[tuple[int, ...], Read] = {}
    ended, now = 0, 0.0

    def at(instant: float, node: Read, what: str) -> None:
        heapq.heappush(events, (instant, node.rank, node.id, what))

    for key, count in waiting.items():
        if not count:
            at(0.0, ranks[key[0]][key[1]], "ready")
    while events:
        now, rank, number, what = heapq.heappop(events)
        node = ranks[rank][number]
        if what == "ended":
            ended += 1
            for later in after[rank, number]:
                waiting[later.rank, later.id] -= 1
                if not waiting[later.rank, later.id]:
                    at(now, later, "ready")
        elif node.type == COMPUTE:
            free[rank] = max(now, free[rank]) + node.duration_micros / 1e6
            at(free[rank], node, "ended")
        elif node.type == SEND:
            src, dst, _, size = node.message
            drained[src, dst] = max(now + ALPHA_S, drained[src, dst]) + size / BYTES_PER_S
            arrived[node.message] = drained[src, dst]
            at(now if eager else drained[src, dst], node, "ended")
            if node.message in posted:
                at(drained[src, dst], posted.pop(node.message), "ended")
        elif node.message in arrived:
            at(max(now, arrived[node.message]), node, "ended")
        else:
            posted[node.message] = node
    assert ended == len(waiting), "the graph is a circle, or a receive has no send"
    return now


def traced(folder: Path, algorithm: str, **options: Any) -> tuple[Result, list[list[Read]]]:
    """Return the result of a simulation, and its execution trace."""
    graph = ExecutionGraph(algorithm)
    with open_session(Experiment.of(algorithm=algorithm, **(SMALL | options))) as session:
        result = session.simulate(algorithm, graph=graph)
    write_chakra(graph, folder, result)
    return result, read(folder, file_name(algorithm))


def check_against(result: Result, ranks: list[list[Read]]) -> None:
    """Check that sends and receives are pairs, and that they have the bytes that the report counts."""
    assert len(ranks) == len(result.bytes_sent_by_rank)
    sends = Counter(node.message for nodes in ranks for node in nodes if node.type == SEND)
    receives = Counter(node.message for nodes in ranks for node in nodes if node.type == RECEIVE)
    assert sends == receives
    assert set(sends.values()) <= {1}
    assert len({message[:3] for message in sends}) == len(sends)
    sent = Counter[int]()
    for src, _, _, size in sends:
        sent[src] += size
    assert [sent[rank] for rank in range(len(ranks))] == result.bytes_sent_by_rank


SERVERS = ("star", "ps", "ps:servers=2")


@pytest.mark.parametrize(
    ("algorithm", "topology"),
    [
        (name, topology)
        for name, kind in sorted(ALGORITHMS.items())
        for topology in (SERVERS if name in ("ps", "ps-topk") else SERVERS[:2] if kind.uses_server else SERVERS[:1])
    ],
)
def test_every_message_has_two_ends_and_the_bytes_of_the_report(algorithm: str, topology: str, tmp_path: Path) -> None:
    result, ranks = traced(tmp_path, algorithm, topology=topology)
    check_against(result, ranks)
    assert replay(ranks) <= 2 * result.round_time_s * (1 + 1e-9)  # what shares links only takes longer


@pytest.mark.parametrize("algorithm", ["dense", "lasg-wk2", "ps", "randk", "sasg", "topk"])
def test_traces_of_trained_rounds(algorithm: str, tmp_path: Path) -> None:
    """Sizes and skipped uploads depend on gradients; the run itself is as without a trace."""
    options = {"timing_only": False, "workload": "tests.tiny:tiny", "rounds": 6, "elements": None, "workers": 3}
    result, ranks = traced(tmp_path, algorithm, **options)
    check_against(result, ranks)
    with open_session(Experiment.of(algorithm=algorithm, **(SMALL | options))) as session:
        plain = session.simulate(algorithm)
    way = {"way": plain.way, "way_reason": plain.way_reason}
    assert asdict(plain) == asdict(result) | way


RINGS: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("dense:segment=200B", {}),
    ("topk", {}),
    ("topk:gather=bruck", {"workers": 8}),
    ("randk", {}),
    ("dense", {"overlap": "1kB", "communicator": "serial"}),
    ("dense", {"workers": 2, "overlap": "1kB"}),
]
TREES: list[tuple[str, dict[str, Any]]] = [
    ("gtopk", {"workers": 8}),
    ("gtopk-naive", {"workers": 4}),
    ("dense-tree", {"workers": 4}),
    ("ps", {"workers": 2}),
    ("gtopk", {"workers": 8, "overlap": "1kB", "communicator": "serial"}),
]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [*RINGS, *TREES, *((algorithm, options | {"sends": "eager"}) for algorithm, options in RINGS)],
    ids=str,
)
def test_a_replay_takes_the_time_of_the_simulation(algorithm: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Where no two messages share a link, α + n β and the graph determine the round; all durations are whole µs.

    The root of a tree does not wait for eager sends, which then share its link.
    """
    result, ranks = traced(tmp_path, algorithm, **options)
    assert replay(ranks, eager="sends" in options) == pytest.approx(2 * result.round_time_s, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 9), st.integers(20, 300), st.integers(0, 9), st.sampled_from(["none", "100B", "200B"]))
def test_a_ring_takes_the_time_of_its_replay(workers: int, elements: int, merge: int, segment: str) -> None:
    """In a ring, no link serves two pairs of ranks. A rank's computations are right to half a microsecond in all."""
    options: dict[str, Any] = {"workers": workers, "elements": elements, "k": 5, "merge_time": f"{merge}ms"}
    with tempfile.TemporaryDirectory() as folder:
        result, ranks = traced(Path(folder), f"dense:segment={segment}", **options)
    assert replay(ranks) == pytest.approx(2 * result.round_time_s, abs=1e-6 * workers)


def test_what_two_workers_of_gtopk_do(tmp_path: Path) -> None:
    """Rank 0 merges what rank 1 selected, and sends the result back: 10 values and indices of 4 bytes each."""
    _, (first, second) = traced(tmp_path, "gtopk", workers=2, rounds=1)
    to_first, to_second = (1, 0, 0, 80), (0, 1, 0, 80)
    assert [(node.name, node.type, node.data_deps) for node in first[:5]] == [
        ("gradient 0", COMPUTE, []),
        ("select 0", COMPUTE, [0]),
        ("tree_reduce 0 receive 1 0", RECEIVE, [1]),
        ("merge 0", COMPUTE, [2]),
        ("tree_broadcast 0 send 0 1", SEND, [3]),
    ]
    assert [node.duration_micros for node in first[:5]] == [9000, 3000, 0, 1000, 0]
    assert (first[2].message, first[4].message) == (to_first, to_second)
    assert [(node.type, node.data_deps) for node in second[:4]] == [
        (COMPUTE, []),
        (COMPUTE, [0]),
        (SEND, [1]),
        (RECEIVE, [2]),
    ]
    assert (second[2].message, second[3].message) == (to_first, to_second)


def graph_of(program: Any, *, eager: bool = False) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Return the kind of each node, and what it waits for, of two ranks that run a program in memory."""
    graph = ExecutionGraph("program")
    observers = Observers([GraphObserver(graph, 2, eager=eager)])
    RankScheduler[None](InMemoryTransport(), observers).run([Worker(rank, 2) for rank in range(2)], program)
    return [[(node.kind, node.waits_for) for node in nodes] for nodes in graph.ranks]


ONE = SizeOnly(1)


def test_what_is_not_awaited_delays_nothing() -> None:
    async def program(worker: Worker) -> None:
        if worker.rank:
            for tag in range(4):
                await worker.recv(0, ONE, tag)
            await worker.send(0, ONE)
            return
        first = await worker.start_send(1, ONE, 0)
        second = await worker.start_send(1, ONE, 1)
        await second
        await worker.send(1, ONE, 2)  # after the second alone
        await first
        await worker.send(1, ONE, 3)
        await worker.recv(1, ONE)

    sends = [("send", ()), ("send", ()), ("send", (1,)), ("send", (0, 2))]
    assert graph_of(program)[0] == [*sends, ("receive", (3,))]
    assert graph_of(program, eager=True)[0] == [("send", ())] * 4 + [("receive", ())]


def test_a_forked_coroutine_begins_after_its_parent_and_is_awaited_with_all_it_did() -> None:
    async def child(worker: Worker) -> None:
        await worker.recv(1 - worker.rank, ONE)
        await worker.send(1 - worker.rank, ONE)

    async def program(worker: Worker) -> None:
        other = 1 - worker.rank
        await worker.sendrecv(other, ONE, other, ONE)  # nodes 0 and 1
        branch = worker.branch(1, (0.0, 1.0))
        beside = child(branch) if worker.rank else mirrored(branch)
        handle = await worker.fork(branch, beside)  # begins node 2
        await worker.sendrecv(other, ONE, other, ONE, 5)
        await handle
        await worker.sendrecv(other, ONE, other, ONE, 6)

    async def mirrored(worker: Worker) -> None:
        await worker.send(1, ONE)
        await worker.recv(1, ONE)

    first, second = graph_of(program)
    for nodes, kinds in ((first, ["send", "receive"]), (second, ["receive", "send"])):
        assert nodes[:2] == [("receive", ()), ("send", ())]
        begun, done = ((kinds[0], (0, 1)), (kinds[1], (2,)))
        assert nodes[2] == begun
        assert done in nodes
        last = nodes.index(done)
        beside = [number for number in range(3, 6) if number != last]
        assert [nodes[number][1] for number in beside] == [(0, 1), (0, 1)]
        assert [waits_for for _, waits_for in nodes[6:]] == [tuple(sorted((*beside, last)))] * 2


def test_messages_are_matched_by_tag_in_the_order_of_posting() -> None:
    """Rank 0 sends tags 0, 7, 0; rank 1 receives 7, 0, 0. Numbers count the messages of the pair, whatever the tag."""

    async def program(worker: Worker) -> None:
        for tag in (7, 0, 0) if worker.rank else (0, 7, 0):
            if worker.rank:
                await worker.recv(0, SizeOnly(10 + tag), tag)
            else:
                await worker.send(1, SizeOnly(10 + tag), tag)

    graph = ExecutionGraph("program")
    observers = Observers([GraphObserver(graph, 2, eager=False)])
    RankScheduler[None](InMemoryTransport(), observers).run([Worker(rank, 2) for rank in range(2)], program)
    ends = [[(node.message.number, node.message.nbytes) for node in nodes if node.message] for nodes in graph.ranks]
    assert sorted(ends[0]) == sorted(ends[1])
    assert [size for _, size in ends[0]] == [40, 68, 40]
    assert [size for _, size in ends[1]] == [68, 40, 40]
    assert {number for number, _ in ends[0]} == {0, 1, 2}


def test_an_empty_message_has_one_byte(tmp_path: Path) -> None:
    """ASTRA-sim asserts that messages have at least one; three elements on five workers give empty chunks."""
    _, ranks = traced(tmp_path, "dense", elements=3, k=1)
    assert {node.message[3] for nodes in ranks for node in nodes if node.type == SEND} == {1, 4}


def test_64_workers_of_gtopk(tmp_path: Path) -> None:
    """Up a tree and back: 63 messages each way."""
    result, ranks = traced(tmp_path, "gtopk", workers=64, rounds=1)
    check_against(result, ranks)
    assert len(ranks) == 64
    assert sum(node.type == SEND for nodes in ranks for node in nodes) == 2 * 63
    assert replay(ranks) == pytest.approx(result.round_time_s, rel=1e-9)


def test_the_command_writes_the_same_files_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = f"simulate --workload tests.tiny:tiny --workers 3 --rounds 2 --algorithm sasg,topk:gather=bruck {COSTS}"
    for name in ("a", "b"):
        assert run(capsys, f"{command} --chakra {tmp_path / name}").code == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert sorted(written) == [f"{name}.{rank}.et" for name in ("sasg", "topk-gather=bruck") for rank in range(3)]
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    metadata, *_ = messages(tmp_path / "a" / "sasg.0.et")
    version, *attributes = [value for _, value in fields_of(metadata)]
    assert version == b"0.0.4"
    named = {name: value for name, _, value in map(attribute, attributes)}
    assert named["algorithm"] == b"sasg"
    assert (named["compute_provenance"], named["select_provenance"]) == (b"ASSUMED", b"ASSUMED")


COSTS = "--compute-time 1ms --select-time 1ms --merge-time 1ms"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--chakra {home}/file", "chakra '{home}/file' is a file, or in one; name a folder"),
        ("--chakra=", "chakra '' names no file or folder"),
        ("--chakra {home}/new --checkpoint {home}/ckpt", "begins at round 0; leave one out"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_run(
    given: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    command = "simulate --timing-only --elements 1000 --workers 3 --algorithm gtopk "
    ran = run(capsys, command + given.format(home=tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert said.format(home=tmp_path) in ran.err
    assert ran.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("folder", ["", 5, b"x", "a\0b"])
def test_a_folder_is_a_path(folder: Any) -> None:
    with pytest.raises(netsim.UsageError, match=r"^chakra [^\n]+$"):
        netsim.simulate(algorithm="dense", chakra=folder, **SMALL)


def test_two_algorithms_with_the_same_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(netsim.UsageError, match=r"both write mine.py-Mine\.0\.et"):
        check_chakra(tmp_path, ["a/mine.py:Mine", "b/mine.py:Mine"], None)


def test_a_graph_that_is_too_large_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("netsim.simulator.execution_graph.MOST_NODES", 40)
    with pytest.raises(
        netsim.NetsimError, match=r"more than 40 computations, sends and receives by round 0; take fewer"
    ):
        netsim.simulate(algorithm="dense", chakra=tmp_path / "new", **SMALL)
    assert not (tmp_path / "new").exists()


def test_nobody_watches_requests_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(*_: object, **__: object) -> None:
        raise AssertionError("a run without an execution trace was watched")

    monkeypatch.setattr("netsim.simulator.session.GraphObserver", watch)
    netsim.simulate(algorithm="dense", engine="event", **SMALL)
