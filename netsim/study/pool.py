"""Many measurements at once: on this machine's cores, or on a Dask cluster; the same code on both."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from netsim._util.errors import InfeasibleError, NetsimError, UsageError, in_one_line, shown
from netsim._util.interrupts import held
from netsim._util.system import safe_children
from netsim._util.units import read_whole
from netsim.study.environment import trains
from netsim.study.kinds import Outcome, Point
from netsim.study.sources import Version, version_of

CLUSTER = re.compile(r"dask://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
PR_SET_PDEATHSIG = 1
MOST_JOBS = 4096
CORES = "LOKY_MAX_CPU_COUNT"
"""The variable that joblib reads."""
LONGEST = 200
"""Characters of a value in an error."""


def cluster_address(cluster: str) -> str:
    """Return the scheduler's address for Dask from ``dask://host:port``."""
    match = CLUSTER.fullmatch(cluster)
    if match is None:
        raise UsageError(f"cluster {cluster!r} is not an address; write it like dask://127.0.0.1:8786")
    return f"tcp://{match['host']}:{match['port']}"


def check_jobs(jobs: int) -> int:
    """Return how many points are measured at once; 0 means as many as there are cores."""
    if not 0 <= jobs <= MOST_JOBS:
        raise UsageError(f"jobs {jobs} must be from 0 (as many as there are cores) to {MOST_JOBS:,}")
    return jobs or len(os.sched_getaffinity(0))


@contextmanager
def backend(cluster: str | None) -> Iterator[None]:
    """Have joblib use the cluster at an address, or this machine's cores."""
    import joblib

    cores = os.environ.get(CORES, "1")
    if (read_whole(cores) or 0) < 1:
        raise UsageError(f"{CORES} {shown(cores)} must be how many cores joblib may use, such as 4; or unset it")
    if cluster is None:
        with (
            safe_children(),
            joblib.parallel_config(backend="loky", initializer=_begin_worker, initargs=(os.getpid(),)),
        ):
            yield
        return
    address = cluster_address(cluster)
    try:
        from distributed import Client
    except ImportError:
        raise InfeasibleError(
            f"cluster {cluster!r} needs Dask: install it with pip install -c constraints.txt '.[cluster]'"
        ) from None
    try:
        client: Any = Client(address, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise NetsimError(f"cluster {cluster!r} does not answer ({error}); is its scheduler running there?") from None
    with client, joblib.parallel_config(backend="dask", client=client):
        yield


def measured(
    measure: Callable[[Point], Outcome], points: Sequence[Point], jobs: int, data_dir: str | None = None
) -> Iterator[tuple[Point, Outcome]]:
    """Measure `points`, `jobs` at once, and yield each with what was found, as it comes.

    Those that name data have it in `data_dir`. Where a point fails, raises NetsimError naming it.
    """
    import joblib

    # Of no concern to a user: a process that grew is replaced; where a point fails, the others are given up.
    for said in ("A worker stopped while some jobs", ".*tasks which were still being processed"):
        warnings.filterwarnings("ignore", message=said, category=UserWarning)
    # One point a batch: a batch that is lost would be several points lost.
    parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
    task = joblib.delayed(_measure_one)
    place = {} if data_dir is None else {"data_dir": data_dir}
    placed = ((place if trains(point) else {}) | dict(point) for point in points)
    asked = (task(measure, number, point, version_of(measure)) for number, point in enumerate(placed))
    with _interrupts_held():
        outcomes = parallel(asked)  # starts the processes
    with _pool_errors(outcomes):
        for number, outcome, failure in outcomes:
            if outcome is None:
                kind = InfeasibleError if failure.infeasible else NetsimError
                raise kind(f"point {_words(points[number])} failed: {failure.why}")
            yield points[number], outcome


@contextmanager
def _pool_errors(outcomes: Generator[Any, None, None]) -> Iterator[None]:
    """Say in a line what went wrong with the processes that measure, rather than with a point.

    What is left of `outcomes` is given up here: joblib would do so whenever it is collected, and may fail then.
    """
    try:
        yield
    except (NetsimError, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        raise NetsimError(
            f"a process that measured points ended ({in_one_line(error)}); points that were ready are kept: give "
            "--resume, and fewer --jobs if memory is short"
        ) from error
    finally:
        with suppress(Exception):
            outcomes.close()


class Failure(NamedTuple):
    """What went wrong with a point, and whether the point asks for what cannot be simulated."""

    why: str = ""
    infeasible: bool = False


def _measure_one(
    measure: Callable[[Point], Outcome], number: int, point: Point, version: Version
) -> tuple[int, Outcome | None, Failure]:
    """Return the number of the point, and what was found there or what went wrong."""
    if differing := _differing(version_of(measure), version):
        return number, None, Failure(f"{differing}; install the same on both")
    try:
        return number, measure(point), Failure()
    except NetsimError as error:
        return number, None, Failure(str(error), isinstance(error, InfeasibleError))
    except Exception as error:  # one line, whatever a point leads to; a worker's traceback helps nobody
        return number, None, Failure(in_one_line(error))


def _differing(here: Version, asked: Version) -> str:
    """Return in what the code of a process that measures differs from that which asked, empty if in nothing."""
    if here.code != asked.code:
        return f"the cluster's netsim is {here.code}, but {asked.code} asked"
    wrong = next((name for name in asked.libraries if here.libraries.get(name) != asked.libraries[name]), None)
    return (
        ""
        if wrong is None
        else f"the cluster has {wrong} {here.libraries.get(wrong)}, but {asked.libraries[wrong]} asked"
    )


def _begin_worker(parent: int) -> None:
    """Have this process killed when the one that started it ends, however that ends; interrupts are for that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Have processes that are started meanwhile never get an interrupt; we get one that comes as soon as this ends.

    From the keyboard it goes to all processes, and one that is still starting would print what it was at.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as of_loky

    for tracker in (resource_tracker, of_loky):
        tracker.ensure_running()  # to start one later would let interrupts through again
    # joblib lifts the block now and then, and an interrupt amid its work may end as another error.
    with held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _words(point: Point) -> str:
    return ", ".join(f"{name} {value!s:.{LONGEST}}" for name, value in point.items())
