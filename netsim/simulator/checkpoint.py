"""Checkpoints of long runs: the state of a simulation at the end of a round, in one file.

An object that several ranks share is written once, and is shared again after reading. netsim relies on this: it
recognises work that all workers repeat by the identity of its arguments. A file contains only objects of the classes
that algorithms list in `remembers`.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from algorithms import ALGORITHMS
from algorithms.own import own_classes
from netsim._util.checksummed_file import STRANGE, as_written, sealed, write_sealed
from netsim._util.errors import NetsimError, UsageError, in_one_line, reason_of, shown
from netsim._util.system import version
from netsim._util.units import in_python
from netsim.comm.payload import Bundle, Dense, Flag, SizeOnly, Sparse
from netsim.comm.worker import Traffic, Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.given import option_of
from netsim.experiment.results import LossCurve, Result
from netsim.network.fabric import Link
from netsim.simulator.observer import RunObserver
from netsim.training.algorithm import Algorithm, State
from netsim.training.costs import ReportedCosts
from netsim.training.loop import Trained

if TYPE_CHECKING:
    from pydantic import BaseModel

logger = logging.getLogger(__name__)

SCHEMA = "netsim.checkpoint/1"
SEGMENTS = 10
"""The number of checkpoints of each algorithm, unless the user gives an interval."""


@dataclass(slots=True)
class CheckpointState:
    """The state of an algorithm when all ranks have ended a round and the network is idle.

    Parameters
    ----------
    step
        The next step.
    path
        Picoseconds of each event along the critical path so far.
    trained
        Parameters and state of each rank; a rank that resumes removes its entry.
    skipped
        Number of uploads that each worker has skipped since its last upload; empty unless metrics are written.
    norms
        The sum and the number of the values of ``gradient_norm_sq`` in the metrics so far.
    """

    step: int = 0
    path: Counter[Hashable] = field(default_factory=Counter)
    trained: dict[int, Trained] = field(default_factory=dict)
    skipped: dict[int, int] = field(default_factory=dict)
    norms: tuple[float, int] = 0.0, 0


class Checkpoint:
    """The checkpoint file of one run, written every `every` rounds of an algorithm and at the algorithm's end."""

    def __init__(self, path: Path, config: Mapping[str, Any], every: int) -> None:
        self.path = path
        self.every = every
        self._config: dict[str, Any] = json.loads(json.dumps(config))
        self._environments: list[dict[str, Any]] = []
        self._done: dict[str, int] = {}
        self._results: dict[str, Result] = {}
        self._running: dict[str, Any] | None = None
        self._measured: dict[str, dict[int, tuple[int, int]]] = {}
        self.losses: dict[str, LossCurve] = {}
        """The training loss of each algorithm during the run so far, which :meth:`Session.simulate` fills."""
        self._resumed = False
        self.failure: str | None = None
        """Why the last checkpoint could not be written; None if it was written."""

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {self.progress or 'nothing yet'})"

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Return the checkpoint in a file; raise NetsimError unless the file is exactly as it was written."""
        if not path.exists():
            raise UsageError(f"checkpoint {str(path)!r} was not found; leave --resume out to start a run")
        if not path.is_file():
            raise UsageError(f"checkpoint {str(path)!r} is not a file; give the one that the run wrote")
        with sealed(path, SCHEMA, "checkpoint") as (header, body):
            if header["netsim"] != version():
                raise NetsimError(
                    f"checkpoint {str(path)!r} was written by netsim {header['netsim']}, and this is {version()}, "
                    "which may go on otherwise; use that version, or start anew"
                )
            head, rest = _forms()
            _check_form(head, {name: value for name, value in header.items() if name not in ("schema", "sha256")})
            _check_form(rest, body)
            json.dumps([header, body["results"]], allow_nan=False)  # as the report will be written
            checkpoint = cls(path, header["config"], header["every"])
            checkpoint._environments, checkpoint._done = header["environments"], header["done"]
            checkpoint._results = {result["algorithm"]: Result(**result) for result in body["results"]}
            checkpoint._measured, checkpoint._running = body["measured"], body["running"]
            checkpoint.losses = {name: LossCurve(*curve) for name, curve in body["losses"].items()}
            checkpoint._resumed = True
            return checkpoint

    def check(self, config: Mapping[str, Any], every: int | None) -> None:
        """Raise UsageError unless these are the options of the saved run; None for `every` keeps its interval."""
        wanted = json.loads(json.dumps(config)) | {"checkpoint_every": self.every if every is None else every}
        saved = self._config | {"checkpoint_every": self.every}
        for name in wanted | saved:
            asked, kept = wanted.get(name), saved.get(name)
            if asked == kept:
                continue
            if isinstance(asked, dict) and isinstance(kept, dict):  # effects: only those that differ
                other = [key for key in asked | kept if asked.get(key) != kept.get(key)]
                asked, kept = ({key: each.get(key) for key in other} for each in (asked, kept))
            raise UsageError(
                f"{option_of(name).replace('_', '-')} {shown(asked)} was asked for, but checkpoint "
                f"{str(self.path)!r} is of a run with {shown(kept)}; give the same options, or another file"
            )

    @property
    def progress(self) -> str:
        """The rounds in the file as text, by algorithm; empty if the file was not written yet."""
        return ", ".join(f"{rounds} rounds of {name}" for name, rounds in self._done.items())

    def begin(self, costs: ReportedCosts, environment: Mapping[str, Any]) -> dict[str, Any]:
        """Give `costs` the measurements of the earlier run; return the environments of earlier parts of the run."""
        if (timed := costs.timed) is not None:
            timed.measured.update(self._measured)
            self._measured = timed.measured
        others = [other for other in self._environments if other != environment]
        self._environments = [*others, dict(environment)]
        return {"resumed_from": others} if others else {}

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Turn exceptions that forged contents cause after a resume into a NetsimError of one line."""
        try:
            yield
        except NetsimError:
            raise
        except STRANGE as error:
            if not self._resumed:
                raise
            raise NetsimError(
                f"the run could not go on from checkpoint {str(self.path)!r} ({in_one_line(error)}); restore it, or "
                "start anew"
            ) from error

    def result(self, algorithm: str) -> Result | None:
        """Return the result of an algorithm, None if it is not finished."""
        return self._results.get(algorithm)

    def state(self, algorithm: str, workers: Sequence[Worker], links: Sequence[Link], device: str) -> CheckpointState:
        """Return the saved state of an algorithm, and restore the counts of its `workers`.

        Without a saved state, return the initial state.
        """
        if self._running is None or self._running["algorithm"] != algorithm:
            return CheckpointState()
        running, self._running = self._running, None
        with as_written(f"checkpoint {str(self.path)!r}"):
            objects = _decoded(running["table"], device)
            path = {what if isinstance(what, str) else links[what]: time for what, time in running["path"]}
            state = CheckpointState(running["step"], Counter(path), skipped=running["skipped"], norms=running["norms"])
            if any(isinstance(what, int) and what < 0 for what, _ in running["path"]):
                raise ValueError("a link has a negative number")
            for worker, (tally, traffic, row) in zip(workers, running["ranks"], strict=True):
                worker.step = state.step - 1
                worker.tally.update(tally)
                worker.traffic = Traffic(**traffic)
                state.trained[worker.rank] = trained = objects[row]
                if not isinstance(trained, Trained) or not isinstance(trained.state, State):
                    raise TypeError(f"rank {worker.rank} has a {type(trained).__name__}")
            return state

    def save(self, algorithm: str, state: CheckpointState, workers: Sequence[Worker]) -> None:
        """Write the state of the algorithm that is running."""
        table = _Table()
        running = {
            "algorithm": algorithm,
            "step": state.step,
            "path": [(what.index if isinstance(what, Link) else what, time) for what, time in state.path.items()],
            "skipped": state.skipped,
            "norms": state.norms,
            "ranks": [
                (dict(worker.tally), asdict(worker.traffic), *table.put(state.trained[worker.rank]))
                for worker in workers
            ],
            "table": table.rows,
        }
        self._write(running, self._done | {algorithm: state.step})

    def finish(self, result: Result) -> None:
        """Write the result of a finished algorithm."""
        self._results[result.algorithm] = result
        self._write(None, self._done | {result.algorithm: result.rounds})

    def _write(self, running: dict[str, Any] | None, done: dict[str, int]) -> None:
        header = {
            "netsim": version(),
            "config": self._config,
            "every": self.every,
            "done": done,
            "environments": self._environments,
        }
        results = [asdict(result) for result in self._results.values()]
        losses = {name: (curve.losses, curve.ends_s) for name, curve in self.losses.items()}
        body = {"results": results, "measured": self._measured, "losses": losses, "running": running}
        try:
            write_sealed(self.path, SCHEMA, header, body)
        except OSError as error:  # the run goes on, since its results are worth more than its checkpoint
            self.failure = f"checkpoint {str(self.path)!r} could not be written: {reason_of(error)}"
        else:
            self._done, self.failure = done, None
            logger.info("checkpoint %s: %s", self.path, self.progress)


class CheckpointObserver(RunObserver):
    """Saves the state of one algorithm's `workers` whenever the run pauses."""

    def __init__(self, checkpoint: Checkpoint, algorithm: str, workers: Sequence[Worker]) -> None:
        self._checkpoint, self._algorithm, self._workers = checkpoint, algorithm, workers

    def paused(self, state: CheckpointState) -> None:
        """Write the state to the checkpoint's file."""
        self._checkpoint.save(self._algorithm, state, self._workers)


def checkpoint_of(
    experiment: Experiment, path: str | Path | None, every: int | None = None, resume: bool = False
) -> Checkpoint | None:
    """Return the checkpoint that a run's options name, None if they name none.

    Raises
    ------
    UsageError
        For options that contradict each other, and for a file that cannot be resumed or would be overwritten.
    """
    every, resume = in_python(every), in_python(resume)
    if not isinstance(resume, bool):
        raise UsageError(f"resume {shown(resume)} must be True or False")
    if every is not None and (type(every) is not int or every < 1):
        raise UsageError(f"checkpoint-every {shown(every)} must be a whole number of at least 1")
    if path is None:
        if every is not None or resume:
            given = "resume" if resume else f"checkpoint-every {shown(every)}"
            raise UsageError(f"{given} was given without the file; add --checkpoint FILE")
        return None
    path = Path(path)
    if resume:
        checkpoint = Checkpoint.read(path)
        checkpoint.check(experiment.config(), every)
        return checkpoint
    if path.exists():
        raise UsageError(
            f"checkpoint {str(path)!r} is there already and would be overwritten; "
            "add --resume to go on from it, or name another file"
        )
    return Checkpoint(path, experiment.config(), every or max(1, experiment.round_count // SEGMENTS))


def _check_form(form: type[BaseModel], value: Any) -> None:
    from pydantic import ValidationError

    try:
        form.model_validate(value)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None


@functools.cache
def _forms() -> tuple[type[BaseModel], type[BaseModel]]:
    """Return the pydantic models of the header and the body of a file."""
    from pydantic import ConfigDict, FiniteFloat, NonNegativeInt, PositiveInt, create_model

    strictly = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    def form(**kinds: Any) -> Any:
        wanted: dict[str, Any] = {name: (kind, ...) for name, kind in kinds.items()}
        return create_model("Form", __config__=strictly, **wanted)

    counts = {count.name: NonNegativeInt for count in fields(Traffic)}
    running = form(
        algorithm=str,
        step=PositiveInt,
        path=list[tuple[str | int, NonNegativeInt]],
        skipped=dict[int, NonNegativeInt],
        norms=tuple[FiniteFloat, NonNegativeInt],
        ranks=list[tuple[dict[str, int], form(**counts), NonNegativeInt]],  # type: ignore[misc]
        table=list[tuple[str, dict[str, Any] | list[Any]]],
    )
    result = form(**get_type_hints(Result))
    header = form(
        netsim=str,
        config=dict[str, Any],
        every=PositiveInt,
        done=dict[str, NonNegativeInt],
        environments=list[dict[str, Any]],
    )
    measured = dict[str, dict[int, tuple[NonNegativeInt, NonNegativeInt]]]
    losses = dict[str, tuple[list[tuple[NonNegativeInt, FiniteFloat]], list[FiniteFloat]]]
    return header, form(results=list[result], measured=measured, losses=losses, running=running | None)  # type: ignore[valid-type]


def _classes() -> dict[str, type]:
    """Return the classes whose objects a file may contain, by name."""
    return _classes_of((*ALGORITHMS.values(), *own_classes()))


@functools.lru_cache(maxsize=16)
def _classes_of(algorithms: tuple[type[Algorithm], ...]) -> dict[str, type]:
    remembered = [memory for algorithm in algorithms for memory in algorithm.remembers]
    return {
        f"{kind.__module__}.{kind.__qualname__}": kind
        for kind in (Trained, State, Dense, Sparse, SizeOnly, Flag, Bundle, tuple, *remembered)
    }


class _Table:
    """Objects as rows (class, fields), one row an object; a field that holds another object is (number of its row,)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Any]] = []
        self._numbers: dict[int, int] = {}

    def put(self, value: Any) -> Any:
        """Return a value as a field of a row: a plain value or tensor itself, an object as (number of its row,)."""
        import torch

        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, torch.Tensor):
            return value.detach().cpu()
        if id(value) not in self._numbers:
            name = f"{type(value).__module__}.{type(value).__qualname__}"
            if name not in _classes():
                raise NetsimError(f"a checkpoint cannot hold a {name}: no algorithm lists it as what it `remembers`")
            self.rows.append((name, self._parts(value)))
            self._numbers[id(value)] = len(self.rows) - 1
        return (self._numbers[id(value)],)

    def _parts(self, value: Any) -> Any:
        if type(value) is tuple:
            return [self.put(item) for item in value]
        names = value._fields if hasattr(value, "_fields") else [part.name for part in fields(value)]
        return {name: self.put(getattr(value, name)) for name in names}


def _decoded(rows: list[tuple[str, Any]], device: str) -> list[Any]:
    """Return the objects of a table, with dense vectors on `device`; raise an exception for forged rows."""
    import torch

    objects: list[Any] = []

    def get(value: Any, kind: type) -> Any:
        if isinstance(value, tuple):
            (row,) = value
            if not 0 <= row < len(objects):
                raise LookupError(f"there is no object {row} yet")
            return objects[row]
        if not isinstance(value, torch.Tensor):
            return value
        floats = (torch.float32, torch.bfloat16, torch.float16)
        if value.ndim != 1 or value.dtype not in (*floats, torch.int32) or not value.is_contiguous():
            raise TypeError(f"a tensor of shape {tuple(value.shape)} and {value.dtype} stands where a vector belongs")
        if not bool(torch.isfinite(value).all()):
            raise ValueError("a vector is not finite")
        return value if kind is Sparse else value.to(device)  # sparse vectors are in main memory

    for name, parts in rows:
        kind = _classes()[name]
        items = parts if kind is tuple else parts.values()
        found = [get(item, kind) for item in items]
        objects.append(tuple(found) if kind is tuple else kind(**dict(zip(parts, found, strict=True))))
    return objects
