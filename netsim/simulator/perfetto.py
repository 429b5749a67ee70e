"""Writes traces in Chrome's trace-event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Every rank is a process with one track of activities and further tracks of messages. An arrow leads from the sender of a
message to its receiver. Every link is a counter of the share of its bandwidth in use.
"""

from __future__ import annotations

import gzip
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from netsim._util.errors import NetsimError, reason_of
from netsim._util.storage import whole_file
from netsim.simulator.trace import Trace

Event = dict[str, Any]
ACTIVITY, SENT, RECEIVED = "activity", "sent", "received"
LANES = 10_000
"""The most tracks of a rank in each direction; messages that overlap need one track each."""


def write_chrome_trace(traces: Sequence[Trace], path: Path, about: Mapping[str, Any]) -> None:
    """Write the traces of several algorithms, each of which begins at 0, to one file.

    Parameters
    ----------
    path
        The file; compressed by gzip if its name ends in .gz.
    about
        Written into the file as ``otherData``.

    Raises
    ------
    NetsimError
        If the file cannot be written.
    """
    try:
        with whole_file(path) as file:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                    _write(traces, packed, about)
            else:
                _write(traces, file, about)
    except OSError as error:
        raise NetsimError(f"trace {str(path)!r} could not be written: {reason_of(error)}") from error


def _write(traces: Sequence[Trace], file: IO[bytes] | gzip.GzipFile, about: Mapping[str, Any]) -> None:
    left_out = {trace.algorithm: trace.left_out for trace in traces if trace.left_out}
    head = {"displayTimeUnit": "ms", "otherData": dict(about) | ({"records_left_out": left_out} if left_out else {})}
    file.write(json.dumps(head, ensure_ascii=False)[:-1].encode() + b', "traceEvents": [\n')
    first, process = True, 0
    for trace in traces:
        for event in _events(trace, process):
            file.write(b"" if first else b",\n")
            file.write(json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())
            first = False
        process += len(trace.hosts) + 1
    file.write(b"\n]}\n")


def _events(trace: Trace, first: int) -> Iterator[Event]:
    """Yield the events of one algorithm. Its processes are numbered from `first`, and the last one is the network."""
    for rank, host in enumerate(trace.hosts):
        yield from _names(first + rank, f"{trace.algorithm}: rank {rank} on {host}")
        yield _thread(first + rank, 0, ACTIVITY)
    for rank, activities in enumerate(trace.activities()):
        for activity in activities:
            yield _slice(first + rank, 0, activity.kind, activity.start, activity.end, {"step": activity.step})
    yield from _messages(trace, first)
    network = first + len(trace.hosts)
    yield from _names(network, f"{trace.algorithm}: links")
    for link in sorted(trace.levels):
        for instant, level in trace.levels[link]:
            used = {"% of bandwidth": round(100 * level, 3)}
            yield {"ph": "C", "pid": network, "tid": 0, "name": link, "ts": _microseconds(instant), "args": used}


def _messages(trace: Trace, first: int) -> Iterator[Event]:
    """Yield every message twice, at its sender and at its receiver, with an arrow between the two."""
    sending = _lanes([(message.src, message.start, message.sent) for message in trace.messages])
    receiving = _lanes([(message.dst, message.start, message.end) for message in trace.messages])
    named: set[tuple[int, int]] = set()
    for identifier, (message, out, into) in enumerate(
        zip(trace.messages, sending, receiving, strict=True), first << 32
    ):
        about = {"bytes": message.nbytes, "step": message.step, "tag": message.tag}
        arrow = {"cat": "message", "name": message.operation, "id": identifier, "bp": "e"}
        src, dst, start = first + message.src, first + message.dst, message.start
        within = max(start, message.end - 1000)  # just before the end, so that the arrow ends in this slice
        for process, thread, track, name, end, phase, instant in (
            (src, 1 + out, SENT, f"{message.operation} to rank {message.dst}", message.sent, "s", start),
            (dst, 1 + LANES + into, RECEIVED, f"{message.operation} from rank {message.src}", message.end, "f", within),
        ):
            if (process, thread) not in named:
                named.add((process, thread))
                yield _thread(process, thread, track)
            yield _slice(process, thread, name, start, end, about)
            yield arrow | {"ph": phase, "pid": process, "tid": thread, "ts": _microseconds(instant)}


def _lanes(spans: Sequence[tuple[int, int, int]]) -> list[int]:
    """Return a track for each (rank, start, end): the lowest free track of the rank, so that no two spans overlap."""
    free: dict[int, list[int]] = {}
    busy: dict[int, list[tuple[int, int]]] = {}
    lanes = [0] * len(spans)
    for position in sorted(range(len(spans)), key=lambda position: (spans[position][1], position)):
        rank, start, end = spans[position]
        idle, taken = free.setdefault(rank, []), busy.setdefault(rank, [])
        while taken and taken[0][0] <= start:
            heapq.heappush(idle, heapq.heappop(taken)[1])
        lanes[position] = heapq.heappop(idle) if idle else len(taken)
        heapq.heappush(taken, (end, lanes[position]))
    return lanes


def _names(process: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "tid": 0, "name": "process_sort_index", "args": {"sort_index": process}}


def _thread(process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "pid": process, "tid": thread, "name": "thread_name", "args": {"name": name}}


def _slice(process: int, thread: int, name: str, start: int, end: int, about: Mapping[str, Any]) -> Event:
    duration = (end // 1000 - start // 1000) / 1000
    where = {"ph": "X", "pid": process, "tid": thread, "name": name}
    return where | {"ts": _microseconds(start), "dur": duration, "args": dict(about)}


def _microseconds(picoseconds: int) -> float:
    """Return µs, rounded down to whole nanoseconds as viewers keep them, so that no new overlaps arise."""
    return picoseconds // 1000 / 1000
