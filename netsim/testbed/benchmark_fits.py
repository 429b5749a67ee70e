"""A profile from another program's benchmark: α and β of the links that explain its times.

On its critical path an exchange spends a number of latencies and a number of bytes, so that it takes
latencies · α + bytes · β, and a known time on links that have a bandwidth of their own, such as those inside a machine.
A simulation says how many: it plays the exchange over an idle network. Where an exchange is pipelined, the numbers
depend on α and β, and the fit is repeated until they no longer change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from algorithms import build_algorithm, class_of, own_options
from netsim._util.errors import NetsimError, UsageError, check_choice
from netsim._util.system import version
from netsim._util.units import FASTEST_BPS
from netsim.comm.collectives import Pipeline, chain_broadcast, chain_reduce, ring_all_gather, ring_reduce_scatter
from netsim.comm.payload import VALUE_BYTES, SizeOnly, nbytes, split
from netsim.comm.worker import Worker
from netsim.experiment.profile import Line, LinkLine, Profile, ProfilePoint, ProfileProvenance
from netsim.network.fabric import Fabric
from netsim.simulator.exchange_time import exchange_time
from netsim.testbed.benchmark_tables import BenchmarkTable
from netsim.testbed.line_fits import exchange_line
from topologies import STARS, build, taken
from topologies.builder import Shape

LARGEST_CHUNK = 2**23
"""Bytes of a chunk, 16 slices of NCCL and twice its window, beyond which an exchange is not played but extrapolated."""
WINDOW = 64
"""Messages that osu_bw sends before it waits for an answer, by default."""
MOST_RANKS = 4096
MOST_FITS = 30
SAME = 1e-3
"""Relative change of α and β below which a fit is not repeated."""
STEP = 1e-3
"""Relative change of α that shows how many latencies are on a critical path."""


class CriticalTerms(NamedTuple):
    """The critical path of an exchange: it takes latencies · α + bytes · β + other_s."""

    latencies: float
    nbytes: float
    other_s: float = 0.0


class Trial(NamedTuple):
    """Links with which an exchange is simulated: α in seconds, and β in seconds per byte, of those not given."""

    topology: str
    workers: int
    alpha_s: float
    byte_s: float


Counting = Callable[[int, Trial], CriticalTerms]
"""Returns the terms of an exchange of so many bytes."""
CollectiveProgram = Callable[[Worker, SizeOnly], Awaitable[Any]]


def window_terms(nbytes: int, trial: Trial) -> CriticalTerms:
    """Return the terms of one of WINDOW messages sent one after another, which one short answer acknowledges."""
    return CriticalTerms(2 / WINDOW, nbytes)


def simulated_terms(program: CollectiveProgram, *, parts: bool = False, chunked: bool = True) -> Counting:
    """Return what counts the terms of a collective by simulating it.

    A time is the longest of many sums of latencies, bytes and known times, so that its derivatives by α and β are the
    latencies and bytes of the critical path. Beyond LARGEST_CHUNK pipelines are full, and all terms grow linearly.

    Parameters
    ----------
    program
        The collective.
    parts
        Whether a rank has a P-th of the benchmark's bytes, as in an all-gather.
    chunked
        Whether the collective cuts a vector into a chunk for each rank.
    """

    @lru_cache(maxsize=64)
    def played(nbytes: int, trial: Trial) -> CriticalTerms:
        elements = max(1, round(nbytes / VALUE_BYTES / (trial.workers if parts else 1)))

        def seconds(alpha_s: float, bandwidth_bps: int) -> float:
            shape = Shape(trial.workers, bandwidth_bps, alpha_s)
            return exchange_time(program, elements, Fabric(build(trial.topology, shape)))

        bandwidth_bps = min(FASTEST_BPS, max(1, round(8 / trial.byte_s)))
        slower_bps = max(1, round(bandwidth_bps / (1 + STEP)))
        taken = seconds(trial.alpha_s, bandwidth_bps)
        later = seconds(trial.alpha_s * (1 + STEP), bandwidth_bps) - taken
        slower = seconds(trial.alpha_s, slower_bps) - taken
        latencies = later / (STEP * trial.alpha_s)
        paid = slower / (8 / slower_bps - 8 / bandwidth_bps) if slower_bps < bandwidth_bps else 0.0
        return CriticalTerms(latencies, paid, taken - latencies * trial.alpha_s - paid * 8 / bandwidth_bps)

    def count(nbytes: int, trial: Trial) -> CriticalTerms:
        largest = LARGEST_CHUNK * (trial.workers if chunked else 1)
        if nbytes <= largest:
            return played(nbytes, trial)
        half, whole = (played(size, trial) for size in (largest // 2, largest))
        more = (nbytes - largest) / (largest / 2)
        return CriticalTerms(*(after + more * (after - before) for before, after in zip(half, whole, strict=True)))

    return count


async def _to_the_next(worker: Worker, vector: SizeOnly) -> None:
    before, after = ((worker.rank + step) % worker.workers for step in (-1, 1))
    await worker.sendrecv(after, vector, before, template=vector)


async def _to_the_last(worker: Worker, vector: SizeOnly) -> None:
    if worker.rank == 0:
        await worker.send(worker.workers - 1, vector)
    elif worker.rank == worker.workers - 1:
        await worker.recv(0, template=vector)


async def _all_gather(worker: Worker, vector: SizeOnly) -> None:
    pipeline = Pipeline()
    await ring_all_gather(worker, *split(vector, pipeline.slices(nbytes(vector))), pipeline=pipeline)


SIMULATED: Mapping[str, Counting] = {
    "all-gather": simulated_terms(_all_gather, parts=True),
    "reduce-scatter": simulated_terms(partial(ring_reduce_scatter, pipeline=Pipeline())),
    "broadcast": simulated_terms(partial(chain_broadcast, pipeline=Pipeline()), chunked=False),
    "reduce": simulated_terms(partial(chain_reduce, pipeline=Pipeline()), chunked=False),
    "sendrecv": simulated_terms(_to_the_next),
    "latency": simulated_terms(_to_the_last),
    "bandwidth": window_terms,
}
"""By names of operations in nccl-tests and OSU, how NCCL and OSU make them. An all-reduce has several algorithms."""


def all_reduce_terms(algorithm: str, topology: str, workers: int) -> Counting:
    """Return what counts the terms of an all-reduce, as one of the dense algorithms makes it on a topology."""
    made_of = class_of(algorithm)
    if made_of.sparse or made_of.lossy or made_of.uses_server:
        raise UsageError(f"algorithm {algorithm!r} makes no dense all-reduce; give one such as dense or dense-tree")
    grouped = made_of.grouped and "group_size" not in own_options(algorithm)
    groups = tuple(Fabric(build(topology, Shape(workers, 10**9, 1e-6))).groups.tolist()) if grouped else None
    made = build_algorithm(algorithm, {"groups": groups} if grouped else {})

    async def program(worker: Worker, vector: SizeOnly) -> None:
        await made.exchange(worker, vector, None, vector)

    return simulated_terms(program)


Answer = TypeVar("Answer", str, int)


def profile_of_table(
    table: BenchmarkTable,
    path: Path,
    *,
    command: str,
    collective: str | None = None,
    workers: int | None = None,
    algorithm: str | None = None,
    topology: str = STARS[0],
    nominal_bps: float | None = None,
) -> Profile:
    """Return the profile of a benchmark's table: α and β of links, and no cost of hosts.

    Parameters
    ----------
    table
        The times.
    path, command
        The file they are from, and the command that asked for the profile.
    collective, workers
        The operation and the number of ranks, where the table does not say.
    algorithm
        The dense algorithm that made an all-reduce; dense, a ring, if None.
    topology
        The network; α and β are those of its links that the topology leaves open.
    nominal_bps
        Nominal bandwidth of the links in bit/s; None if it is not given.

    Raises
    ------
    UsageError
        If operation or ranks are missing, contradict the table, or are not simulated.
    NetsimError
        If no α and β explain the times.
    """
    where = f"table {str(path)!r}"
    operation = _said(where, "collective", table.operation, collective, "all-reduce")
    known = ["all-reduce", *SIMULATED]
    if table.operation not in (None, *known):
        raise UsageError(f"{where} has times of {table.operation}, which is not simulated; known: {', '.join(known)}")
    check_choice("collective", operation, known)
    ranks = _said(where, "workers", table.workers, workers, "8")
    if not 2 <= ranks <= MOST_RANKS:
        raise UsageError(f"workers {ranks} must be 2 to {MOST_RANKS:,}: one rank uses no link, and more take long")
    if operation == "all-reduce":
        counting = all_reduce_terms(algorithm or "dense", topology, ranks)
    elif algorithm is None:
        counting = SIMULATED[operation]
    else:
        raise UsageError(f"algorithm {algorithm!r} was given, but {where} has times of {operation}; leave it out")
    points = [ProfilePoint.of(size, seconds) for size, seconds in table.seconds.items()]
    if len(points) < 2:
        raise UsageError(
            f"{where} has times of one size, {points[0].size:,} bytes; α and β need two or more, from a few bytes to "
            "many megabytes"
        )
    if not (taken(topology).bandwidth and taken(topology).latency):
        raise UsageError(
            f"topology {topology!r} decides the bandwidth or latency of all links, so none are "
            "left to fit; leave those between machines open, as machines:gpus=8,inside=300GB/s does"
        )
    fitted = _fitted(points, counting, topology, ranks, where)
    efficiency = None if nominal_bps is None else 8 / fitted.each_s / nominal_bps
    how = f" by {algorithm or 'dense'}" if operation == "all-reduce" else ""
    where_run = f" on {table.machines} machine{'s' if table.machines > 1 else ''}" if table.machines else ""
    return Profile(
        format=1,
        provenance=ProfileProvenance(
            kind=table.kind,
            date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            command=command,
            where="file",
            measured=f"{operation}{how}{where_run}, fitted over {topology}",
            backend=table.program,
            ranks=ranks,
            netsim=version(),
            machine=table.devices or "a machine that is not named",
        ),
        link=LinkLine(**dict(fitted), nominal_bps=nominal_bps, efficiency=efficiency),
        message=Line(fixed_s=0.0, each_s=0.0, residual_median=0.0, residual_worst=0.0),
        work={},
    )


def _said(where: str, name: str, found: Answer | None, given: Answer | None, example: str) -> Answer:
    """Return a value that the file or else an option says; raise UsageError if none does, or they differ."""
    value = given if found is None else found
    if value is None:
        raise UsageError(f"{where} does not say the {name}; add --{name} {example}")
    if given not in (None, value):
        raise UsageError(f"{name} {given} was given, but {where} has {value}; leave it out")
    return value


def _fitted(points: Sequence[ProfilePoint], counting: Counting, topology: str, ranks: int, where: str) -> Line:
    """Return α and β with the residual of every point."""
    sizes, seconds = [point.size for point in points], [point.seconds for point in points]
    alpha_s, byte_s, fits = min(seconds), max(seconds) / max(sizes), 0
    while True:
        trial = Trial(topology, ranks, alpha_s, byte_s)
        line = exchange_line(points, *zip(*(counting(size, trial) for size in sizes), strict=True))
        if not (line.fixed_s > 0 and line.each_s > 0):
            raise NetsimError(
                f"{where}: times of {sizes[0]} to {sizes[-1]} bytes make no α and β: large exchanges took no longer, "
                "or small ones no time; measure sizes from a few bytes to many megabytes"
            )
        change = max(abs(line.fixed_s / alpha_s - 1), abs(line.each_s / byte_s - 1))
        alpha_s, byte_s, fits = line.fixed_s, line.each_s, fits + 1
        if change < SAME or fits == MOST_FITS:
            return line
