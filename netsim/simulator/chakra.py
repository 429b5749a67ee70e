"""Writes execution graphs as execution traces of MLCommons Chakra, which ASTRA-sim and other simulators replay.

Each rank has a file, ``NAME.{rank}.et``. It holds messages of Protocol Buffers, each after its length: first a
GlobalMetadata, then Nodes. They are those of Chakra's published schema, ``schema/protobuf/et_def.proto``.

The feeder of ASTRA-sim matches sends and receives by sender, receiver, tag and size in the order in which it issues
them, which need not be the order of this simulation. Therefore no two messages of a pair of ranks have the same tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from netsim._util.errors import NetsimError, UsageError, reason_of, shown
from netsim._util.storage import check_folder, made_folder, whole_file
from netsim._util.system import version
from netsim.experiment.results import Result
from netsim.simulator.checkpoint import Checkpoint
from netsim.simulator.execution_graph import ExecutionGraph, GraphNode

SCHEMA = "0.0.4"
"""The version of the schema that ASTRA-sim's own examples name."""
TYPES = {"compute": 4, "send": 5, "receive": 6}
"""The values of the schema's NodeType: COMP_NODE, COMM_SEND_NODE and COMM_RECV_NODE."""
BOOL, INT32, INT64, STRING = 27, 7, 9, 29
"""The fields of the schema's AttributeProto that hold a value."""
MICROSECOND_PS = 10**6


def check_chakra(folder: object, algorithms: Sequence[str], checkpoint: Checkpoint | None) -> None:
    """Check before a run that its execution traces can be written to a folder.

    Raises
    ------
    UsageError
        If no folder can be there, if two algorithms had the same files, or if there is a checkpoint: a run that goes on
        from one does not make its earlier rounds again.
    """
    if checkpoint is not None:
        raise UsageError("chakra was given with checkpoint, but an execution trace begins at round 0; leave one out")
    if not isinstance(folder, str | Path) or not str(folder):
        raise UsageError(f"chakra {shown(folder)} must be the path of a folder")
    check_folder("chakra", Path(folder))
    names: dict[str, str] = {}
    for algorithm in algorithms:
        if (other := names.setdefault(file_name(algorithm), algorithm)) != algorithm:
            raise UsageError(
                f"chakra: algorithms {other!r} and {algorithm!r} both write {file_name(algorithm)}.0.et; "
                "simulate them one after another into two folders"
            )


def file_name(algorithm: str) -> str:
    """Return the first part of the names of an algorithm's files.

    >>> file_name("gtopk"), file_name("topk:gather=bruck"), file_name("./my/mine.py:Mine")
    ('gtopk', 'topk-gather=bruck', 'mine.py-Mine')
    """
    return re.sub(r"[^\w.=]+", "-", algorithm.rsplit("/", 1)[-1])


def write_chakra(graph: ExecutionGraph, folder: Path, result: Result) -> None:
    """Write the execution trace of each rank to a folder, which is made if it does not exist.

    Parameters
    ----------
    result
        The result of the same run. The attributes of each file's GlobalMetadata say where its durations come from.

    Raises
    ------
    NetsimError
        If a file cannot be written.
    """
    made_folder("chakra", folder)
    about = {
        "netsim": version(),
        "algorithm": graph.algorithm,
        "compute_provenance": result.compute_provenance,
        "select_provenance": result.select_provenance,
    }
    for rank, nodes in enumerate(graph.ranks):
        path = folder / f"{file_name(graph.algorithm)}.{rank}.et"
        try:
            with whole_file(path) as file:
                file.writelines(_messages(nodes, about))
        except OSError as error:
            raise NetsimError(f"execution trace {str(path)!r} could not be written: {reason_of(error)}") from error


def _messages(nodes: Sequence[GraphNode], about: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the messages of a file, each after its length."""
    attributes = [_bytes_field(2, _attribute(name, STRING, text)) for name, text in about.items()]
    metadata = _bytes_field(1, SCHEMA.encode()) + b"".join(attributes)
    yield _varint(len(metadata)) + metadata
    computed_ps = written_us = 0
    for position, node in enumerate(nodes):
        computed_ps += node.duration_ps
        duration_us = round(computed_ps / MICROSECOND_PS) - written_us  # so that their sum is right, however many
        written_us += duration_us
        message = _node(position, node, duration_us)
        yield _varint(len(message)) + message


def _node(position: int, node: GraphNode, duration_us: int) -> bytes:
    """Return a Node. It runs on the accelerator, because ASTRA-sim accepts no messages of CPUs."""
    attributes: list[tuple[str, int, int]] = [("is_cpu_op", BOOL, 0)]
    name = f"{node.work} {node.step}"
    if (message := node.message) is not None:
        name = f"{node.work} {node.step} {node.kind} {message.src} {message.dst}"
        attributes += [
            ("comm_src", INT32, message.src),
            ("comm_dst", INT32, message.dst),
            ("comm_tag", INT32, message.number),
            ("comm_size", INT64, max(1, message.nbytes)),  # ASTRA-sim accepts no empty message
        ]
    waits_for = b"".join(_varint(earlier) for earlier in node.waits_for)
    return b"".join(
        [
            _varint_field(1, position) if position else b"",  # the default value of a field is not written
            _bytes_field(2, name.encode()),
            _varint_field(3, TYPES[node.kind]),
            _bytes_field(5, waits_for) if waits_for else b"",
            _varint_field(7, duration_us) if duration_us else b"",
            *(_bytes_field(10, _attribute(*attribute)) for attribute in attributes),
        ]
    )


def _attribute(name: str, field: int, value: int | str) -> bytes:
    """Return an AttributeProto; one of several possible fields holds its value, which is written even if it is 0."""
    written = _varint_field(field, value) if isinstance(value, int) else _bytes_field(field, value.encode())
    return _bytes_field(1, name.encode()) + written


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return a number ≥ 0 as bytes of seven bits, the lowest first; all bytes but the last have their high bit set."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)
