"""Sweeps: one simulation for every combination of some options' values, with points stored as those of a study."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import topologies
from algorithms import text_of
from netsim._util.errors import InfeasibleError, UsageError, shown
from netsim._util.options import several
from netsim._util.progress import OnPoint
from netsim._util.storage import made_folder
from netsim._util.units import in_python
from netsim._util.user_code import own_parts
from netsim.experiment.configuration import Experiment
from netsim.experiment.options import DEFAULT_ALGORITHMS
from netsim.simulator.estimates import check_experiments
from netsim.study_engine.checks import names_code
from netsim.study_engine.environment import read_data
from netsim.study_engine.kinds import Outcome, Point
from netsim.study_engine.pool import backend, check_jobs, in_words, measured, measured_here
from netsim.study_engine.simulated import simulate_point
from netsim.study_engine.store import Store
from netsim.training import workloads

MOST_SIMULATIONS = 100_000
"""Simulations of a sweep, to stop a grid that grew by mistake."""
TEXTS = {"algorithm": text_of, "topology": topologies.text_of, "workload": workloads.text_of}
"""For each option that takes classes, functions or objects: the function that returns a text in their place."""

Axes: TypeAlias = Mapping[str, Sequence[Any]]


def axes_of(options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values of each option of a sweep; lists, ranges and arrays are axes, and a tuple is one value.

    The algorithms are always an axis: text with commas, or the default, names several.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "algorithm" not in given:
        given["algorithm"] = list(DEFAULT_ALGORITHMS)
    axes = {name: _values(name, value) for name, value in given.items()}
    if not given.get("timing_only") and "workload" not in axes:
        axes["workload"] = [workloads.DEFAULT]  # so that a stored point is known to depend on data
    size = int(np.prod([len(values) for values in axes.values()], dtype=object))
    if size > MOST_SIMULATIONS:
        raise UsageError(f"a sweep of {size:,} simulations is too large; vary less, at most {MOST_SIMULATIONS:,}")
    return axes


def _values(name: str, value: Any) -> list[Any]:
    if isinstance(value, list | range) or (isinstance(value, np.ndarray) and value.ndim == 1):
        values = [in_python(each) for each in value]
    elif name == "algorithm" and isinstance(value, tuple):
        values = list(value)
    else:
        values = [in_python(value)]
    if name in TEXTS:
        values = [TEXTS[name](each) for each in values]
    if name == "algorithm":
        for each in values:
            if not isinstance(each, str):
                raise UsageError(
                    f"algorithm {shown(each)} must be the name, class or object of one algorithm; a sweep simulates "
                    "each algorithm separately"
                )
        values = [part for each in values for part in several(each)]
    if not values:
        raise UsageError(f"{name} {shown(value)} has no values; give at least one")
    return values


def points_of(axes: Axes) -> list[Point]:
    """Return the points of a sweep, the last axis varying fastest; raise UsageError that names a wrong point."""
    points: list[Point] = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for point in points:
        try:
            Experiment.of(**point)
        except (UsageError, InfeasibleError) as error:
            varied = {name: value for name, value in point.items() if len(axes[name]) > 1}
            where = f"point {in_words(varied)}: " if varied else ""
            raise type(error)(f"{where}{error}") from None
    return points


def simulate_points(
    points: Sequence[Point], cache: str | Path | None, jobs: int, on_point: OnPoint
) -> Sequence[Outcome]:
    """Return the outcome of each point.

    Parameters
    ----------
    points
        Options of ``netsim simulate`` with one algorithm each.
    cache
        The folder in which outcomes are stored, by the hash of everything that determines them; None for none.
    jobs
        Points simulated at the same time: 1 in this process, more in as many processes, 0 for one per core.
    on_point
        Called with the number of points that are known and the number of all points.

    Raises
    ------
    UsageError
        For own code that cannot be stored, or that other processes cannot import.
    NetsimError
        If a point fails; the error names the point.
    """
    jobs = check_jobs(jobs)
    _check_code(points, stored=cache is not None, jobs=jobs)
    outcomes: dict[int, Outcome] = {}
    store = None
    if cache is not None:
        store = Store(made_folder("cache", Path(cache)), simulate_point, read_data(points, None))
        store.prepare(points)
        outcomes = {index: kept for index, point in enumerate(points) if (kept := store.load(point)) is not None}
    missing = {id(point): index for index, point in enumerate(points) if index not in outcomes}
    asked = [points[index] for index in missing.values()]
    check_experiments((Experiment.of(**point) for point in asked), jobs)
    on_point(len(outcomes), len(points))
    with nullcontext() if jobs == 1 else backend(None):
        if jobs == 1:
            found = measured_here(simulate_point, asked)
        else:
            found = measured(simulate_point, asked, jobs, stored=store is not None)
        for point, outcome in found:
            outcomes[missing[id(point)]] = outcome if store is None else store.save(point, outcome)
            on_point(len(outcomes), len(points))
    return [outcomes[index] for index in range(len(points))]


def _check_code(points: Sequence[Point], *, stored: bool, jobs: int) -> None:
    """Raise UsageError for own code that has no file, and so neither a hash nor a name in another process."""
    for option, text in dict.fromkeys(_own_code(points)):
        name, _ = own_parts(text) or (text, "")
        if stored and not name.partition(":")[0].endswith(".py"):
            raise UsageError(
                f"{option} {text!r} cannot be cached, because netsim does not know all of its source; name it as "
                "FILE.py:NAME, or leave cache out"
            )
        if jobs > 1 and (name.startswith(("__main__:", workloads.FROM_PYTHON)) or "<locals>" in name):
            raise UsageError(
                f"{option} {text!r} exists in this process only, and {jobs} jobs are other processes; name it as "
                "FILE.py:NAME, or leave jobs out"
            )


def _own_code(points: Sequence[Point]) -> Iterator[tuple[str, str]]:
    for point in points:
        for option in TEXTS:
            if option in point and names_code(option, point[option]):
                yield option, point[option]
