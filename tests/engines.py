"""One result by each of what simulates: the event engine, and what the vectorised engine may use inside."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any, cast, get_args

from netsim._util.errors import InfeasibleError
from netsim.experiment.configuration import Experiment
from netsim.experiment.options import ENGINES
from netsim.experiment.results import Result
from netsim.simulator.engines import VectorizedMethod
from netsim.simulator.layout import NoScheduleError
from netsim.simulator.opening import open_session
from tests.named import with_own

NUMBA = find_spec("numba") is not None
INSIDES: tuple[VectorizedMethod, ...] = get_args(VectorizedMethod)
ALL = (*ENGINES, *INSIDES)


def without_the_way(result: Result) -> dict[str, Any]:
    """Return all of a result but how its times were found."""
    return asdict(replace(result, way=None, way_reason=None))


def results_of(engine: str, **options: Any) -> list[Result]:
    """Return a timing-only result of each algorithm by an engine, or by what the vectorised one uses inside."""
    named = engine if engine in ENGINES else "vectorized"
    with open_session(Experiment.of(timing_only=True, engine=named, **with_own(options))) as session:
        names = session.experiment.algorithms
        if engine in ENGINES:
            return [session.simulate(name) for name in names]
        algorithms = [session.experiment.algorithm(name, session.tensors) for name in names]
        try:
            return [session.vectorized(algorithm, cast(VectorizedMethod, engine)) for algorithm in algorithms]
        except NoScheduleError as error:
            raise InfeasibleError(f"engine {engine!r} cannot be taken: {error}") from None
