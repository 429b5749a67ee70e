"""The pool of processes that measure points: on the cores of this machine, or on a Dask cluster."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from netsim._util.errors import InfeasibleError, NetsimError, UsageError, in_one_line, shown
from netsim._util.interrupts import held, is_interrupt
from netsim._util.system import safe_children
from netsim._util.units import read_whole
from netsim.study_engine.environment import trains
from netsim.study_engine.kinds import Outcome, Point
from netsim.study_engine.sources import Version, digest_of_files, version_of, version_where_measured

CLUSTER = re.compile(r"dask://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
PR_SET_PDEATHSIG = 1
MOST_JOBS = 4096
CORES = "LOKY_MAX_CPU_COUNT"
"""Environment variable by which joblib limits the number of processes."""
LONGEST = 200
"""Characters of an option's value that an error shows."""


def cluster_address(cluster: str) -> str:
    """Return the address of a Dask scheduler from ``dask://host:port``; raise UsageError for any other text."""
    match = CLUSTER.fullmatch(cluster)
    if match is None:
        raise UsageError(f"cluster {cluster!r} is not an address; write it like dask://127.0.0.1:8786")
    return f"tcp://{match['host']}:{match['port']}"


def check_jobs(jobs: int) -> int:
    """Return the number of points to measure at the same time; 0 stands for one per core."""
    if not 0 <= jobs <= MOST_JOBS:
        raise UsageError(f"jobs {jobs} must be from 0 (as many as there are cores) to {MOST_JOBS:,}")
    return jobs or len(os.sched_getaffinity(0))


@contextmanager
def backend(cluster: str | None) -> Iterator[None]:
    """Make joblib use the cluster at an address, or the cores of this machine if `cluster` is None."""
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
    measure: Callable[[Point], Outcome],
    points: Sequence[Point],
    jobs: int,
    data_dir: str | None = None,
    *,
    stored: bool = True,
) -> Iterator[tuple[Point, Outcome]]:
    """Measure points in parallel.

    Parameters
    ----------
    measure
        Measures a point.
    points
        The points.
    jobs
        How many points are measured at the same time.
    data_dir
        The folder of data sets, for points that train.
    stored
        Whether outcomes are stored. The measuring processes must then have the code of this process, whose version
        names the outcomes; to hash the code takes each process seconds.

    Yields
    ------
    point, outcome
        Each point as soon as it is measured.

    Raises
    ------
    NetsimError
        If a point fails; the error names the point. An InfeasibleError stays an InfeasibleError.
    """
    import joblib

    # Normal events: loky replaces a process that grew; after a failed point the others are cancelled.
    for message in ("A worker stopped while some jobs", ".*tasks which were still being processed"):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    # One point per batch, so that a process that ends loses one point only.
    parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
    task = joblib.delayed(_measure_one)
    place = {} if data_dir is None else {"data_dir": data_dir}
    placed = ((place if trains(point) else {}) | dict(point) for point in points)
    version = (version_of(measure), digest_of_files()) if stored else None
    tasks = (task(measure, index, point, version) for index, point in enumerate(placed))
    with _manager_quiet(), ExitStack() as cancelled:
        with _interrupts_held():
            outcomes = parallel(tasks)  # starts the processes
            cancelled.callback(_cancel, outcomes)
        with _pool_errors():
            for index, outcome, failure in outcomes:
                if outcome is None:
                    raise failure.error(points[index])
                yield points[index], outcome


@contextmanager
def _manager_quiet() -> Iterator[None]:
    """Hide the KeyError with which loky's manager thread may end when tasks are cancelled that no process took yet.

    The thread then looks for a task that it has dropped itself. The processes are ended all the same.
    """
    shown_by = threading.excepthook

    def quiet(failure: threading.ExceptHookArgs) -> None:
        of_manager = failure.thread is not None and failure.thread.name == "ExecutorManagerThread"
        if not (of_manager and failure.exc_type is KeyError):
            shown_by(failure)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = shown_by


def _cancel(outcomes: Generator[Any, None, None]) -> None:
    """Cancel the remaining outcomes now; joblib would do so at garbage collection, and may fail then."""
    with suppress(Exception):
        outcomes.close()


@contextmanager
def _pool_errors() -> Iterator[None]:
    """Turn a failure of a measuring process, as opposed to a failed point, into a NetsimError of one line."""
    try:
        yield
    except (NetsimError, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        raise NetsimError(
            f"a process that measured points ended ({in_one_line(error)}); finished points are stored: give "
            "--resume, and fewer --jobs if memory is short"
        ) from error


class Failure(NamedTuple):
    """Why a point failed; `infeasible` if it needs more memory or time than allowed."""

    why: str = ""
    infeasible: bool = False

    def error(self, point: Point) -> NetsimError:
        """Return the error that names the point."""
        kind = InfeasibleError if self.infeasible else NetsimError
        return kind(f"point {in_words(point)} failed: {self.why}")


def measured_here(measure: Callable[[Point], Outcome], points: Sequence[Point]) -> Iterator[tuple[Point, Outcome]]:
    """Measure points one after another in this process; otherwise like :func:`measured`."""
    for point in points:
        outcome, failure = _attempt(measure, point)
        if outcome is None:
            raise failure.error(point)
        yield point, outcome


def _attempt(measure: Callable[[Point], Outcome], point: Point) -> tuple[Outcome | None, Failure]:
    """Return the outcome of the point, or the reason of its failure."""
    try:
        return measure(point), Failure()
    except NetsimError as error:
        return None, Failure(str(error), isinstance(error, InfeasibleError))
    except Exception as error:  # an error has one line; the traceback of another process would not help
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        return None, Failure(in_one_line(error))


def _measure_one(
    measure: Callable[[Point], Outcome], index: int, point: Point, version: tuple[Version, str] | None
) -> tuple[int, Outcome | None, Failure]:
    """Return the index of the point, and its outcome or the reason of its failure."""
    if version is not None and (difference := _difference(version_where_measured(measure, *version), version[0])):
        return index, None, Failure(f"{difference}; install the same version on both")
    return index, *_attempt(measure, point)


def _difference(here: Version, asked: Version) -> str:
    """Return the differences between the code of the measuring and the requesting process; empty if there are none."""
    if here.code != asked.code:
        return f"the cluster runs netsim {here.code}, but this machine {asked.code}"
    wrong = next((name for name in asked.libraries if here.libraries.get(name) != asked.libraries[name]), None)
    return (
        ""
        if wrong is None
        else f"the cluster has {wrong} {here.libraries.get(wrong)}, but this machine {asked.libraries[wrong]}"
    )


def _begin_worker(parent: int) -> None:
    """Ignore interrupts, which the parent handles, and let the kernel kill this process when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the call
            os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let processes start with interrupts blocked; deliver a pending interrupt to this process at the end.

    Ctrl-C interrupts all processes, and a process that is still starting would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as of_loky

    for tracker in (resource_tracker, of_loky):
        tracker.ensure_running()  # starting a tracker later would unblock interrupts
    # joblib unblocks signals at times, and an interrupt inside joblib may surface as another error.
    with held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def in_words(point: Point) -> str:
    """Return the options of a point as text."""
    return ", ".join(f"{name} {value!s:.{LONGEST}}" for name, value in point.items())
