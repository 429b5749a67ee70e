"""Reads published measurements: one row per measurement, in the columns of ``studies/published/measured.csv``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from netsim._util.csv_file import csv_rows
from netsim._util.errors import UsageError, shown, unknown
from netsim._util.units import read_number

PUBLISHED = Path(__file__).parent / "measured.csv"
"""The measurements that are part of netsim."""
QUALITIES = ("A", "B", "C", "S")


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A measurement by somebody else.

    Attributes
    ----------
    id, source
        Name of the row, and repository or page.
    what, backend, algorithm, bandwidth_kind, stat, notes
        What was measured and how, in the words of the source or of the file's editor.
    measured_s
        Seconds; None if the source gives another quantity.
    workers, nodes, gpus_per_node
        Ranks, machines, and ranks on a machine; None where not stated.
    bandwidth_bps, latency_s
        Bandwidth of a machine's link in each direction, and one-way latency; None where not stated.
    bytes_per_rank, elements, bytes_per_element
        Size of a rank's vector; None where not stated.
    k
        Entries that a sparse algorithm selects, as text.
    compute_s
        Seconds of computation in a step, where published.
    quality
        A: can be simulated as stated; B: with an assumption in the notes; C: a ratio or a shape; S: simulated.
    """

    id: str
    source: str
    what: str
    backend: str
    algorithm: str
    bandwidth_kind: str
    stat: str
    notes: str
    quality: str
    measured_s: float | None
    workers: int | None
    nodes: int | None
    gpus_per_node: int | None
    bandwidth_bps: int | None
    latency_s: float | None
    bytes_per_rank: int | None
    elements: int | None
    bytes_per_element: int | None
    k: str
    compute_s: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PublishedRow:
        """Return the row of :meth:`as_json`."""
        return cls(**values)


COLUMNS = {
    "workers": "P",
    "bandwidth_bps": "bandwidth_gbps",
    "latency_s": "one_way_latency_ms",
}
"""The column of an attribute, where their names differ."""
UNITS = {"bandwidth_bps": 1e9, "latency_s": 1e-3}
NUMBERS = {field.name: "int" in str(field.type) for field in fields(PublishedRow) if "None" in str(field.type)}
"""The attributes that hold numbers, and whether the numbers are whole."""
MAY_BE_TEXT = ("latency_s",)
"""Numbers in whose place a source may say in words why there is none."""
MAY_BE_ZERO = ("gpus_per_node", "compute_s", "latency_s")
NEEDED = ("id", "source", "measured_s", "P", "backend", "algorithm", "quality")
"""Columns without which no row can be predicted."""


def read_rows(path: Path) -> list[PublishedRow]:
    """Return the rows of a file.

    Raises
    ------
    UsageError
        For a file that cannot be read, a missing column, a value that does not fit its column, or an id that occurs
        twice. The message has one line and names the line of the file.
    """
    where = f"data {str(path)!r}"
    lines = csv_rows(path, where)
    _, header = next(lines, (0, []))
    for name in NEEDED:
        if name not in header:
            raise UsageError(f"{where} has no column {name}; its first line must name the columns of measured.csv")
    rows: dict[str, PublishedRow] = {}
    for number, cells in lines:
        place = f"{where}, line {number:,}"
        if len(cells) > len(header):
            raise UsageError(f"{place} has {len(cells)} cells, but the first line names {len(header)} columns")
        row = row_of(place, dict(zip(header, cells, strict=False)))
        if row.id in rows:
            raise UsageError(f"{place}: id {shown(row.id)} was used before; give every row an id of its own")
        rows[row.id] = row
    if not rows:
        raise UsageError(f"{where} has no rows; give one measurement per line after the first")
    return list(rows.values())


def row_of(place: str, cells: Mapping[str, str]) -> PublishedRow:
    """Return a row from its cells by column; `place` begins the message of an error."""
    values: dict[str, Any] = {}
    for field in fields(PublishedRow):
        text = cells.get(column := COLUMNS.get(field.name, field.name), "")
        values[field.name] = _number(f"{place}: {column}", field.name, text) if field.name in NUMBERS else text
    for name in ("id", "source"):
        if not values[name]:
            raise UsageError(f"{place}: {name} is empty; every row needs an id and a source")
    if values["quality"] not in QUALITIES:
        raise unknown(f"{place}: quality", values["quality"], QUALITIES)
    return PublishedRow(**values)


def _number(place: str, name: str, text: str) -> float | int | None:
    """Return a positive number, or 0 for a number of GPUs; None for an empty cell."""
    if not text:
        return None
    value = read_number(text)
    if value is None and name in MAY_BE_TEXT:
        return None
    value = None if value is None else value * UNITS.get(name, 1)
    least = 0.0 if name in MAY_BE_ZERO else math.ulp(0.0)
    if value is None or not least <= value < 1e18:
        raise UsageError(f"{place} {shown(text)} must be a positive number of at most 18 digits, or empty")
    if not NUMBERS[name]:
        return value
    if name != "bandwidth_bps" and value != int(value):
        raise UsageError(f"{place} {shown(text)} must be a whole number")
    return round(value)


def sample(rows: Sequence[PublishedRow], every: int) -> list[PublishedRow]:
    """Return every `every`-th row of each source and quality, from the first on."""
    counts: dict[tuple[str, str], int] = {}
    chosen = []
    for row in rows:
        key = row.source, row.quality
        counts[key] = counts.get(key, -1) + 1
        if counts[key] % every == 0:
            chosen.append(row)
    return chosen
