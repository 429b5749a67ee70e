"""Flows from a CSV file: who sends how many bytes to whom, from when on."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netsim.errors import UsageError, suggestion, unreadable

COLUMNS = ("src", "dst", "bytes", "start_s")
LONGEST_S = 10**6
MOST_BYTES = 10**15


@dataclass(frozen=True, slots=True)
class GivenFlow:
    """A flow from one host to another, by name."""

    source: str
    target: str
    nbytes: int
    start_s: float


def read_flows(path: Path, hosts: Iterable[str]) -> list[GivenFlow]:
    """Read a CSV file with the columns src, dst, bytes and start_s, in any order.

    Raises UsageError naming file, line, column and value.
    """
    known = set(hosts)
    where = f"flows {str(path)!r}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="surplus", strict=True)
            header = [column.strip() for column in reader.fieldnames or ()]
            if missing := [column for column in COLUMNS if column not in header]:
                raise UsageError(f"{where} has no column {missing[0]!r}; the first line must be {','.join(COLUMNS)}")
            reader.fieldnames = header
            flows = [_flow(row, f"{where}, line {reader.line_num}", known) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(where, error) from None
    if not flows:
        raise UsageError(f"{where} has no flows; add a line for each, such as worker0,worker1,1000000,0")
    return flows


def _flow(row: dict[str, str | None], where: str, hosts: set[str]) -> GivenFlow:
    if "surplus" in row:
        raise UsageError(f"{where}: {row['surplus']!r} is one value too many; give {','.join(COLUMNS)}")
    source, target, nbytes, start = ((row[column] or "").strip() for column in COLUMNS)
    for column, host in (("src", source), ("dst", target)):
        if host not in hosts:
            raise UsageError(f"{where}, column {column}: {host!r} is not a host{suggestion(host, hosts)}")
    if source == target:
        raise UsageError(f"{where}, column dst: {target!r} is the sender itself; name another host")
    if not nbytes.isdecimal() or len(nbytes) > 16 or not 1 <= int(nbytes) <= MOST_BYTES:
        raise UsageError(f"{where}, column bytes: {nbytes!r} must be a whole number from 1 to {MOST_BYTES:g}")
    try:
        start_s = float(start)
    except ValueError:
        start_s = math.nan
    if not 0 <= start_s <= LONGEST_S:
        raise UsageError(f"{where}, column start_s: {start!r} must be seconds from 0 to {LONGEST_S:g}")
    return GivenFlow(source, target, int(nbytes), start_s)
