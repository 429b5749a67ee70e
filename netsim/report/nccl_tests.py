"""Simulated exchanges in the columns of nccl-tests, for programs that plot its output.

A table has the lines of a program of nccl-tests 2.18: the ranks, a header, a row per size, and the mean bus bandwidth.
As in nccl-tests, a table holds one collective for one number of ranks. The columns of the out-of-place and of the
in-place exchange are equal. ``#wrong`` is 0, because programs that read the table expect a number; ``validation: 0``
says that no data were checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from algorithms import class_of, name_of
from netsim._util.errors import UsageError
from netsim._util.system import version
from netsim.comm.payload import INDEX_BYTES, PRECISION_BYTES, Precision


class NcclTestsOperation(NamedTuple):
    """An operation of nccl-tests.

    Attributes
    ----------
    bus_factor
        ``bus_factor(ranks)`` is busbw / algbw: the bytes that a link carries at least, divided by the size.
    redop
        Column ``redop``.
    parts
        Whether ``count`` is a rank's part of the size, as in an all-gather.
    """

    bus_factor: Callable[[int], float]
    redop: str
    parts: bool = False


OPERATIONS: Mapping[str, NcclTestsOperation] = {
    "all_reduce": NcclTestsOperation(lambda ranks: 2 * (ranks - 1) / ranks, "sum"),
    "all_gather": NcclTestsOperation(lambda ranks: (ranks - 1) / ranks, "none", parts=True),
    "sendrecv": NcclTestsOperation(lambda ranks: 1.0, "none"),
}
TYPES: Mapping[Precision, str] = {"fp32": "float", "bf16": "bfloat16", "fp16": "half"}
"""What nccl-tests calls the types of values."""
COLUMNS = ("time", "algbw", "busbw", "#wrong")


@dataclass(frozen=True, slots=True, kw_only=True)
class NcclTestsRun:
    """Simulated exchanges of one operation.

    Parameters
    ----------
    operation
        A name in :data:`OPERATIONS`; ``sendrecv`` for single flows.
    title
        What was simulated, in words.
    ranks
        Number of ranks.
    seconds
        Bytes and seconds of exchanges. The bytes are those of a rank's vector; in an all-gather, of all ranks' vectors.
    dtype
        The type of the vectors' values; None for single flows, of bytes.
    """

    operation: str
    title: str
    ranks: int
    seconds: Sequence[tuple[int, float]]
    dtype: Precision | None = None


COMMUNICATION = ("comm_time_s", "hidden_comm_time_s")
"""Attributes of a result that add up to the time of its messages."""
NEEDED = {"algorithm", "workers", "elements", "k", "select_time_s", *COMMUNICATION}


def operation_of(algorithm: str) -> str:
    """Return the operation of nccl-tests by which an algorithm exchanges.

    Raises
    ------
    UsageError
        If nccl-tests has no such operation.
    """
    kind = class_of(algorithm)
    if name_of(algorithm) == "topk":
        return "all_gather"
    if name_of(algorithm) == "randk" or not (kind.sparse or kind.lossy or kind.uses_server):
        return "all_reduce"
    raise UsageError(
        f"algorithm {algorithm!r} exchanges by no collective of nccl-tests, so its table cannot be written; leave out "
        "--nccl-tests, or give dense (all_reduce) or topk (all_gather)"
    )


def collective_runs(results: Iterable[tuple[str, Mapping[str, Any]]]) -> list[NcclTestsRun]:
    """Return exchanges as the collectives of nccl-tests that they are: one run per title and number of ranks.

    The time of an all-reduce of dense gradients includes its additions. Where entries are selected, the time is that of
    the messages alone: selecting is no part of a collective.

    Parameters
    ----------
    results
        Titles, each with the attributes of a :class:`~netsim.experiment.results.Result`. A result without times of an
        exchange is left out.

    Raises
    ------
    UsageError
        If an algorithm exchanges by no collective of nccl-tests.
    """
    runs: dict[tuple[str, str, int, Precision], dict[int, float]] = {}
    for title, result in results:
        if result.keys() >= NEEDED:
            operation, ranks, entries = operation_of(result["algorithm"]), result["workers"], result["k"]
            dtype = result.get("dtype", "fp32")
            width, seconds = PRECISION_BYTES[dtype], sum(result[part] for part in COMMUNICATION)
            size = width * (entries or result["elements"])
            if operation == "all_gather":
                size = ranks * (width + INDEX_BYTES) * entries
            elif entries is None:
                seconds += result["select_time_s"]
            runs.setdefault((operation, title, ranks, dtype), {})[size] = seconds
    return [
        NcclTestsRun(operation=operation, title=title, ranks=ranks, seconds=sorted(sizes.items()), dtype=dtype)
        for (operation, title, ranks, dtype), sizes in runs.items()
    ]


def check_one_table(file: Path, algorithms: Sequence[str]) -> None:
    """Raise UsageError if algorithms are several, or exchange by no collective of nccl-tests."""
    if len(algorithms) > 1:
        raise UsageError(
            f"nccl-tests {str(file)!r} is one table, of one algorithm; give one of {', '.join(algorithms)} at a time"
        )
    operation_of(algorithms[0])


def nccl_tests_text(run: NcclTestsRun) -> str:
    """Return the table of a run."""
    return "\n".join(_lines(run))


def _lines(run: NcclTestsRun) -> Iterator[str]:
    sizes = [size for size, _ in run.seconds]
    yield f"# netsim {version()}, in the columns of nccl-tests 2.18: {run.title}. SIMULATED"
    yield f"# Collective test starting: {run.operation}_perf"
    yield (
        f"# nThread 1 nGpus 1 minBytes {min(sizes)} maxBytes {max(sizes)} step: 0(bytes) warmup iters: 0 iters: 1 "
        "agg iters: 1 validation: 0 graph: 0"
    )
    yield "#"
    yield "# Using devices"
    for rank in range(run.ranks):
        yield f"#  Rank {rank:2d} Group  0 Pid      0 on worker{rank} device  0 [0000:00:00] SIMULATED"
    yield "#"
    yield f"# {'':>10}  {'':>12}  {'':>8}  {'':>6}  {'':>6}           out-of-place                       in-place"
    for first, group in (
        (("size", "count", "type", "redop", "root"), COLUMNS),
        (("(B)", "(elements)", "", "", ""), ("(us)", "(GB/s)", "(GB/s)", "")),
    ):
        yield f"# {first[0]:>10}  {first[1]:>12}  {first[2]:>8}  {first[3]:>6}  {first[4]:>6}" + 2 * _cells(group)
    bus_factor, redop, parts = OPERATIONS[run.operation]
    kind, width = ("uint8", 1) if run.dtype is None else (TYPES[run.dtype], PRECISION_BYTES[run.dtype])
    rates = []
    for size, seconds in run.seconds:
        algorithm_rate = size / seconds / 1e9 if seconds else 0.0
        rates.append(bus_factor(run.ranks) * algorithm_rate)
        cells = (fixed(1e6 * seconds, 7), fixed(algorithm_rate, 6), fixed(rates[-1], 6), "0")
        count = size // width // (run.ranks if parts else 1)
        yield f"{size:12d}  {count:12d}  {kind:>8}  {redop:>6}  {-1:6d}" + 2 * _cells(cells)
    yield f"# {'Out of bounds values':<20} : 0 OK"
    yield f"# {'Avg bus bandwidth':<20} : {fmean(rates):g} "
    yield "#"
    yield f"# Collective test concluded: {run.operation}_perf"
    yield "#"


def _cells(cells: Sequence[str]) -> str:
    time, algorithm, bus, wrong = cells
    return f"  {time:>7}  {algorithm:>6}  {bus:>6}  {wrong:>6}"


def fixed(value: float, width: int) -> str:
    """Return a number as nccl-tests prints it: two decimals, or fewer where it would be wider than `width`."""
    digits = len(f"{value:.0f}")
    if digits > width:
        return f"{value:.1e}"
    return f"{value:.{min(2, max(0, width - 1 - digits))}f}"
