"""Background flows from a file: CSV as people and pandas write it, or ``flow.txt`` of HPCC's simulator.

A line of CSV has a source, a target, a size and a start, in the order of the header. HPCC's first line is a number of
flows; each flow's line has its source, target, priority group, port, size in bytes and start in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from netsim._util.csv_file import csv_rows
from netsim._util.errors import UsageError, shown, suggestion
from netsim._util.units import read_number, read_whole

COLUMNS = ("src", "dst", "bytes", "start_s")
HPCC_COLUMNS = ("src", "dst", "pg", "dport", "bytes", "start_s")
LATEST_START_S = 10**6
LARGEST_FLOW = 10**15


@dataclass(frozen=True, slots=True)
class GivenFlow:
    """A flow of `nbytes` from one host to another, both by name, that starts at `start_s` seconds."""

    source: str
    target: str
    nbytes: int
    start_s: float


def read_flows(path: Path, hosts: Iterable[str]) -> list[GivenFlow]:
    """Read a CSV file with the columns src, dst, bytes and start_s, in any order and case, or an HPCC file of flows.

    Other columns are ignored, such as the index that pandas writes, and so are lines that begin with ``#``. Hosts may
    be written as whole floats, because pandas writes numbers so in a column with a gap.

    Raises
    ------
    UsageError
        For a value that cannot be used, with its file, line and column.
    """
    known = set(hosts)
    where = f"flows {str(path)!r}"
    rows = csv_rows(path, where)
    _, first = next(rows, (0, []))
    count = read_whole(first[0]) if len(first) == 1 else None
    if count is not None:
        header, lines = [*HPCC_COLUMNS], _of_hpcc(count, list(rows), where)
    else:
        header, lines = [name.lower() for name in first], list(rows)
        _check_header(header, where)
    flows = [_flow(header, row, f"{where}, line {number}", known) for number, row in lines]
    if not flows:
        raise UsageError(f"{where} has no flows; add a line for each, such as worker0,worker1,1000000,0")
    return flows


def _check_header(header: list[str], where: str) -> None:
    for column in COLUMNS:
        if header.count(column) != 1:
            many = f"{header.count(column)} columns" if column in header else "no column"
            raise UsageError(f"{where} has {many} {column!r}; the first line must be {','.join(COLUMNS)}")


def _of_hpcc(count: int, rows: list[tuple[int, list[str]]], where: str) -> list[tuple[int, list[str]]]:
    """Return the cells of the flows of an HPCC file; lines beyond their number are not read, as by the simulator."""
    if not 0 <= count <= len(rows):
        raise UsageError(f"{where}: the first line says {count:,} flows, and there are {len(rows):,}; correct it")
    lines = [(number, " ".join(row).split()) for number, row in rows[:count]]
    for number, words in lines:
        if len(words) != len(HPCC_COLUMNS):
            given = shown(" ".join(words))
            raise UsageError(f"{where}, line {number}: {given} must be a flow of HPCC: {' '.join(HPCC_COLUMNS)}")
    return lines


def _flow(header: list[str], row: list[str], where: str, hosts: set[str]) -> GivenFlow:
    if surplus := row[len(header) :]:
        raise UsageError(f"{where}: {surplus!r} is one value too many; give {','.join(COLUMNS)}")
    cells = dict(zip(header, row, strict=False))
    source, target, nbytes, start = (cells.get(column, "") for column in COLUMNS)
    source, target = _host(source, hosts), _host(target, hosts)
    for column, host in (("src", source), ("dst", target)):
        if host not in hosts:
            free = host.replace("worker", "host")
            hint = f" (did you mean {free!r}?)" if free in hosts else suggestion(host, hosts)
            raise UsageError(f"{where}, column {column}: {host!r} is not a host{hint}")
    if source == target:
        raise UsageError(f"{where}, column dst: {target!r} is the sender itself; name another host")
    size, start_s = _number(nbytes), _number(start)
    if size is None or not 1 <= size <= LARGEST_FLOW or size != size.to_integral_value():
        raise UsageError(f"{where}, column bytes: {shown(nbytes)} must be a whole number from 1 to {LARGEST_FLOW:g}")
    if start_s is None or not 0 <= start_s <= LATEST_START_S:
        raise UsageError(f"{where}, column start_s: {shown(start)} must be seconds from 0 to {LATEST_START_S:g}")
    return GivenFlow(source, target, int(size), abs(float(start_s)))  # -0.0 is 0


def _host(name: str, hosts: set[str]) -> str:
    """Return the name of a host, without the ``.0`` that pandas adds to a number."""
    whole = name.removesuffix(".0")
    return whole if name not in hosts and whole in hosts else name


def _number(text: str) -> Decimal | None:
    """Return the exact number in a cell; None if the cell has no plain number, such as 1,048,576 or nan."""
    return None if read_number(text) is None else Decimal(text)
