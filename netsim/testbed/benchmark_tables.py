"""Reads the tables that nccl-tests and the OSU micro-benchmarks print, and the JSON of nccl-tests.

A table is found in the whole output of a job: a line whose first word is a whole number is a row, the header names its
columns, and all other lines are ignored. Tags of ``mpirun --tag-output`` are removed. The layouts are those of
nccl-tests 2.0 to 2.18 and of OSU 3 to 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsim._util.errors import UsageError, shown
from netsim._util.storage import content_of
from netsim._util.units import read_number, read_whole

LARGEST_FILE = 50_000_000
"""Greatest size in bytes; the output of a job with thousands of ranks has some megabytes."""
LONGEST_S = 1e6
"""The longest time of a row, in seconds."""
LARGEST = 2**53
"""The largest size of a row, in bytes."""
OF_NCCL_TESTS = (
    *("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "sendrecv"),
    *("alltoall", "alltoallv", "gather", "scatter", "hypercube"),
)
OF_OSU = {
    "Latency": "latency",
    "Bandwidth": "bandwidth",
    "Allreduce Latency": "all-reduce",
}
"""Operations by the title of an OSU benchmark."""

_TAG = re.compile(r"\[\d+,\d+\]<std(?:out|err)>:")
_STARTED = re.compile(rf"Collective test starting: ({'|'.join(OF_NCCL_TESTS)})_perf")
_NAMED = re.compile(rf"\b({'|'.join(OF_NCCL_TESTS)})_perf")
_RANK = re.compile(r"#\s*Rank\s+(\d+)\s+(?:Group\s+(\d+)\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s*(.*)")
_OSU = re.compile(r"\bOSU [A-Z]\S* (.+?) Test\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkTable:
    """Times of one operation by size, as another program measured them.

    Parameters
    ----------
    program
        Name of the program.
    operation
        What was timed, by its name in nccl-tests with hyphens, or OSU's ``latency`` and ``bandwidth``; None if the file
        does not say.
    workers, machines
        Number of ranks and of machines; None if the file does not say.
    devices
        Names of the GPUs.
    seconds
        Times in seconds by size in bytes: of the out-of-place and the in-place exchange, and of repeated runs.
    """

    program: str
    operation: str | None
    workers: int | None
    machines: int | None
    devices: str
    seconds: Mapping[int, Sequence[float]]

    @property
    def kind(self) -> Literal["MEASURED", "SIMULATED"]:
        """Whether the times were measured, or are in a file that netsim wrote."""
        return "SIMULATED" if self.devices == "SIMULATED" else "MEASURED"


def read_table(path: Path, operation: str | None = None) -> BenchmarkTable:
    """Read the output of nccl-tests or of an OSU benchmark.

    Parameters
    ----------
    path
        The file.
    operation
        The operation whose table is read, where the file has tables of several.

    Raises
    ------
    UsageError
        With the line and the value, if the file is no such output.
    """
    where = f"table {str(path)!r}"
    content = content_of(path, where, "give the output of nccl-tests or of an OSU benchmark", most=LARGEST_FILE)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text at byte {error.start:,}; save it as UTF-8") from None
    if text.lstrip().startswith("{"):
        return _of_json(text, where)
    lines = [_TAG.sub("", line).strip() for line in text.split("\n")]
    titles = dict.fromkeys(title for line in lines for title in _OSU.findall(line))
    if titles:
        return _of_osu(lines, list(titles), where)
    return _of_nccl_tests(lines if operation is None else _only_of(operation, lines), where)


def _only_of(operation: str, lines: Sequence[str]) -> Sequence[str]:
    """Return the lines, those of other operations blank; all of them if no program of `operation` was started."""
    kept, found, blocks = True, False, []
    for line in lines:
        if started := _STARTED.search(line):
            kept = started[1].replace("_", "-") == operation
            found |= kept
        blocks.append(line if kept else "")
    return blocks if found else lines


def _of_nccl_tests(lines: Sequence[str], where: str) -> BenchmarkTable:
    header: list[str] | None = None
    rows: list[tuple[int, float]] = []
    exceeds = False
    for number, line in enumerate(lines, 1):
        words = line.replace("#", " ").split()
        if {"size", "count"} <= set(words):
            header = words
        elif line[:1].isdecimal() and read_whole(words[0]) is not None:
            place = f"{where}, line {number}"
            if header is None:
                raise UsageError(f"{place} has no header above it; keep the line with the columns size, count and time")
            cells = _cells(header, words, place)
            rows += [
                (_size(cells[0][1], place), _microseconds(value, place)) for name, value in cells if name == "time"
            ]
            exceeds |= _exceeds(cells)
    ranks = [match.groups() for line in lines if (match := _RANK.match(line))]
    group = [each for each in ranks if each[1] == ranks[0][1]]
    return BenchmarkTable(
        program="nccl-tests",
        operation=_operation(lines, where) or ("all-reduce" if exceeds else None),
        workers=len({rank for rank, *_ in group}) or None,
        machines=len({host for _, _, host, _ in group}) or None,
        devices=_names(device for *_, device in group),
        seconds=_by_size(rows, where),
    )


def _operation(lines: Sequence[str], where: str) -> str | None:
    """Return the operation that the lines name: the one that was started, or else any in a command."""
    for pattern in (_STARTED, _NAMED):
        if found := dict.fromkeys(name for line in lines for name in pattern.findall(line)):
            return _only(list(found), where).replace("_", "-")
    return None


def _only(found: Sequence[str], where: str) -> str:
    if len(found) > 1:
        names = [each.replace("_", "-") for each in found]
        raise UsageError(f"{where} has tables of {', '.join(names)}; add --collective {names[-1]}, or give one table")
    return found[0]


def _cells(header: Sequence[str], words: Sequence[str], place: str) -> list[tuple[str, str]]:
    """Return the values of a row with the names of their columns.

    Where an operation has no reduction or no root, some versions print blanks instead.
    """
    columns = list(header)
    if "timestamp" in columns:  # the last column, of two words
        columns, words = columns[:-1], words[:-2]
    if "time" not in columns:
        raise UsageError(f"{place} has no column time, but {' '.join(columns)}; run nccl-tests without -C")
    missing = len(columns) - len(words)
    blank = [name for name in ("redop", "root") if name in columns][: max(0, missing)]
    columns = [name for name in columns if name not in blank]
    if len(words) < len(columns):
        raise UsageError(f"{place} has {len(words)} values, but {len(columns)} columns: {' '.join(columns)}")
    return list(zip(columns, words, strict=False))


def _exceeds(cells: Sequence[tuple[str, str]]) -> bool:
    """Return whether busbw exceeds algbw, as it does for an all-reduce of three ranks or more only."""
    values = {name: read_number(value) for name, value in cells}
    return (values.get("busbw") or 0.0) > (values.get("algbw") or 0.0)


def _of_osu(lines: Sequence[str], titles: Sequence[str], where: str) -> BenchmarkTable:
    title = _only(titles, where)
    if title not in OF_OSU:
        raise UsageError(f"{where} is OSU's {title} Test, which is not simulated; known: {', '.join(OF_OSU)}")
    rows: list[tuple[int, float]] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if line[:1].isdecimal() and read_whole(words[0]) is not None:
            place = f"{where}, line {number}"
            if len(words) < 2:
                raise UsageError(f"{place} has one value, expected a size and a time or rate")
            size = _size(words[0], place)
            if OF_OSU[title] == "bandwidth":
                rate = read_number(words[1])
                if rate is None or rate < 0:
                    raise UsageError(f"{place}: rate {shown(words[1])} must be MB/s, zero or more")
                rows += [(size, size / (1e6 * rate))] if rate * LONGEST_S > size / 1e6 else []  # 0.00 is no rate
            else:
                rows.append((size, _microseconds(words[1], place)))
    return BenchmarkTable(
        program="OSU micro-benchmarks",
        operation=OF_OSU[title],
        workers=2 if OF_OSU[title] in ("latency", "bandwidth") else None,
        machines=None,
        devices="",
        seconds=_by_size(rows, where),
    )


class _JsonPart(BaseModel):
    """A part of the JSON file; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Device(_JsonPart):
    group: int = 0
    hostname: str | None = None
    device_info: str | None = None


class _Run(_JsonPart):
    nthreads: Annotated[int, Field(ge=1, le=10**6)] = 1
    ngpus: Annotated[int, Field(ge=1, le=10**6)] = 1
    devices: tuple[_Device, ...] = ()


class _TimedExchange(_JsonPart):
    time: float = Field(gt=0, le=1e6 * LONGEST_S)


class _Row(_JsonPart):
    size: int = Field(ge=0, le=LARGEST)
    out_of_place: _TimedExchange | None = None
    in_place: _TimedExchange | None = None


class _NcclTestsFile(_JsonPart):
    args: tuple[str, ...] = ()
    config: _Run = _Run()
    devices: tuple[_Device, ...] = ()
    results: tuple[_Row, ...]


def _of_json(text: str, where: str) -> BenchmarkTable:
    try:
        file = _NcclTestsFile.model_validate_json(text)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = " ".join(str(part) for part in wrong["loc"])
        raise UsageError(
            f"{where} is not the JSON of nccl-tests: {place or 'the file'}: {wrong['msg']}; give what -J wrote"
        ) from None
    # A process reports one of its nthreads · ngpus devices.
    devices = file.config.devices or file.devices
    group = [each for each in devices if each.group == devices[0].group]
    rows = [
        (row.size, 1e-6 * timed.time) for row in file.results for timed in (row.out_of_place, row.in_place) if timed
    ]
    return BenchmarkTable(
        program="nccl-tests",
        operation=_operation(file.args, where),
        workers=len(group) * file.config.nthreads * file.config.ngpus or None,
        machines=len({each.hostname for each in group if each.hostname}) or None,
        devices=_names(each.device_info or "" for each in group),
        seconds=_by_size(rows, where),
    )


def _size(text: str, place: str) -> int:
    size = read_whole(text)
    if size is None or size > LARGEST:
        raise UsageError(f"{place}: size {shown(text)} must be bytes, a whole number up to 2⁵³")
    return size


def _microseconds(text: str, place: str) -> float:
    """Return the seconds of a time in microseconds."""
    time = read_number(text)
    if time is None or not 0 < time <= 1e6 * LONGEST_S:
        raise UsageError(
            f"{place}: time {shown(text)} must be microseconds, more than 0 and at most {1e6 * LONGEST_S:g}"
        )
    return 1e-6 * time


def _by_size(rows: Iterable[tuple[int, float]], where: str) -> dict[int, list[float]]:
    """Return the times by size; an exchange of 0 bytes exchanges nothing, and is left out."""
    seconds: dict[int, list[float]] = {}
    for size, time in rows:
        if size:
            seconds.setdefault(size, []).append(time)
    if not seconds:
        raise UsageError(
            f"{where} has no row with a size and a time; give the output of nccl-tests or of an OSU benchmark"
        )
    return dict(sorted(seconds.items()))


def _names(devices: Iterable[Any]) -> str:
    """Return the distinct names of devices, without characters that no profile takes."""
    return ", ".join(sorted({"".join(filter(str.isprintable, each)).strip() for each in devices} - {""}))[:200]
