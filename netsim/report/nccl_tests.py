"""Simulated exchanges in the columns of nccl-tests, for programs that plot its output.

Each run has the lines of a program of nccl-tests 2.18: the ranks, a header, a row per size, and the mean bus bandwidth.
The columns of the out-of-place and of the in-place exchange are equal. ``#wrong`` is 0, because programs that read the
table expect a number; ``validation: 0`` says that no data were checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from netsim._util.system import version
from netsim.comm.payload import VALUE_BYTES

BUS_FACTOR: Mapping[str, Callable[[int], float]] = {
    "all_reduce": lambda ranks: 2 * (ranks - 1) / ranks,
    "sendrecv": lambda ranks: 1.0,
}
"""busbw / algbw by operation: the bytes that a link carries at least, divided by the bytes of the vector."""
COLUMNS = ("time", "algbw", "busbw", "#wrong")


@dataclass(frozen=True, slots=True, kw_only=True)
class NcclTestsRun:
    """Simulated exchanges of one operation.

    Parameters
    ----------
    operation
        ``all_reduce``, or ``sendrecv`` for single flows.
    title
        What was simulated, in words.
    ranks
        Number of ranks.
    seconds
        Bytes of a rank's vector, and seconds of its exchange.
    """

    operation: str
    title: str
    ranks: int
    seconds: Sequence[tuple[int, float]]


EXCHANGE = ("select_time_s", "comm_time_s", "hidden_comm_time_s")
"""Attributes of a result that add up to the time of its exchange: all of a round but the gradient and the update."""


def all_reduce_runs(results: Iterable[tuple[str, Mapping[str, Any]]]) -> list[NcclTestsRun]:
    """Return exchanges as all-reduces of the dense gradient: one run per title and number of ranks.

    Parameters
    ----------
    results
        Titles, each with the attributes of a :class:`~netsim.experiment.results.Result`. A result without times of an
        exchange is left out.
    """
    runs: dict[tuple[str, int], dict[int, float]] = {}
    for title, result in results:
        if {"workers", "elements", *EXCHANGE} <= result.keys():
            sizes = runs.setdefault((title, result["workers"]), {})
            sizes[VALUE_BYTES * result["elements"]] = sum(result[part] for part in EXCHANGE)
    return [
        NcclTestsRun(operation="all_reduce", title=title, ranks=ranks, seconds=sorted(sizes.items()))
        for (title, ranks), sizes in runs.items()
    ]


def nccl_tests_text(runs: Sequence[NcclTestsRun]) -> str:
    """Return the text of all runs, one after another."""
    return "\n".join(line for run in runs for line in _lines(run))


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
    kind, redop, width = ("float", "sum", 4) if run.operation == "all_reduce" else ("uint8", "none", 1)
    rates = []
    for size, seconds in run.seconds:
        algorithm_rate = size / seconds / 1e9 if seconds else 0.0
        rates.append(BUS_FACTOR[run.operation](run.ranks) * algorithm_rate)
        cells = (fixed(1e6 * seconds, 7), fixed(algorithm_rate, 6), fixed(rates[-1], 6), "0")
        yield f"{size:12d}  {size // width:12d}  {kind:>8}  {redop:>6}  {-1:6d}" + 2 * _cells(cells)
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
