"""The Python interface of netsim: simulate algorithms, run them on real ranks, and inspect a single exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from algorithms import ALGORITHMS, build_algorithm, class_of, declared_by, is_users, own_options, taken_by, text_of
from netsim._util.errors import (
    AlgorithmsFailedError,
    DivergedError,
    InterruptedRunError,
    NetsimError,
    NonFiniteGradientError,
    UnwrittenError,
    UsageError,
    check_digits,
    shown,
)
from netsim._util.options import Whole
from netsim._util.progress import OnRound, ignore
from netsim._util.storage import check_outputs
from netsim._util.system import environment
from netsim._util.units import in_python
from netsim._util.user_code import blaming, check_not_imported
from netsim.experiment.configuration import Experiment
from netsim.experiment.given import input_files, option_of
from netsim.experiment.results import Report, Result
from netsim.simulator.checkpoint import Checkpoint, checkpoint_of
from netsim.simulator.estimates import check_experiment
from netsim.simulator.session import Session, open_session
from netsim.simulator.trace import Trace
from netsim.training.algorithm import Algorithm

if TYPE_CHECKING:
    import numpy as np
    import torch


def simulate(
    *,
    on_round: OnRound = ignore,
    metrics: str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    trace: str | Path | None = None,
    **options: Any,
) -> Report:
    """Simulate algorithms on a network, with real gradients unless ``timing_only``.

    Parameters
    ----------
    on_round
        Called after each round with the name of the algorithm and the step.
    metrics
        File for one row of metrics per step (:mod:`netsim.training.metrics`), .csv or .jsonl.
    checkpoint, checkpoint_every, resume
        File that saves the run every `checkpoint_every` rounds; with `resume` the run continues from the file. The
        results are the same as without an interruption (:mod:`netsim.simulator.checkpoint`).
    trace
        File for a timeline in Chrome's trace format (:mod:`netsim.simulator.perfetto`).
    **options
        The options of ``netsim simulate``, with underscores: ``workers=64``, ``bandwidth="1Gbps"``,
        ``algorithm="gtopk,topk"``, ``density=1e-3``. Quantities are text with a unit, or numbers in SI units.

    Returns
    -------
    Report
        One result per algorithm, and the conclusion.

    Raises
    ------
    UsageError
        For a value that cannot be used.
    InfeasibleError
        If the machine or the data are not sufficient.
    UnwrittenError, DivergedError, AlgorithmsFailedError
        If a file could not be written, training diverged, or an algorithm failed for another reason, such as a link
        that stays down. The attribute ``report`` of the error holds the other results.

    Examples
    --------
    >>> import netsim
    >>> report = netsim.simulate(workers=64, algorithm="gtopk,topk", timing_only=True, elements=25_000_000)
    >>> [(result.title, result.round_time_s) for result in report.results]
    [('gTop-k', 0.0198), ('Top-k', 0.10395)]
    """
    _check_call("netsim.simulate", on_round)
    experiment = Experiment.of(**options)
    check_outputs({"metrics": metrics, "checkpoint": checkpoint, "trace": trace}, input_files(options))
    saved = checkpoint_of(experiment, checkpoint, checkpoint_every, resume)
    rows, events = (None if path is None else Path(path) for path in (metrics, trace))
    return simulate_experiment(experiment, on_round, rows, saved, events)


def simulate_experiment(
    experiment: Experiment,
    on_round: OnRound = ignore,
    metrics: Path | None = None,
    checkpoint: Checkpoint | None = None,
    trace: Path | None = None,
) -> Report:
    """Simulate every algorithm of `experiment`, and conclude.

    Parameters and errors are those of :func:`simulate`. If a file cannot be written, or an algorithm fails, the rest of
    the run continues; the error at the end holds the report.
    """
    from netsim.simulator.perfetto import write_chrome_trace
    from netsim.training.metrics import metrics_file

    unwritten: list[str] = []
    if experiment.timing_only or experiment.effects.load is not None:
        check_experiment(experiment, watched=any(file is not None for file in (metrics, checkpoint, trace)))
    with ExitStack() as stack:
        session = stack.enter_context(open_session(experiment))
        emit = None if metrics is None else stack.enter_context(metrics_file(metrics, unwritten))
        surroundings = environment(session.device) | {"data": experiment.data_name()}
        if checkpoint is not None:
            stack.enter_context(checkpoint.going_on())
            surroundings |= checkpoint.begin(session.costs, surroundings)
        traces = {name: Trace(name) for name in experiment.algorithms} if trace is not None else {}
        results: list[Result] = []
        failed: dict[str, NetsimError] = {}
        for name in experiment.algorithms:
            try:
                with blaming(f"algorithm {name!r}", "its exchange") if is_users(name) else nullcontext():
                    results.append(session.simulate(name, on_round, emit, checkpoint, traces.get(name)))
            except InterruptedRunError:
                raise
            except NetsimError as error:
                failed[name] = error
                traces.pop(name, None)
                if isinstance(error, UsageError):
                    break  # the user must correct the value first
        report = _report(experiment, results, failed, surroundings, session, watched=emit is not None)
        if trace is not None:
            try:
                write_chrome_trace(list(traces.values()), trace, surroundings | {"config": experiment.config()})
            except NetsimError as error:
                unwritten.append(str(error))
    if checkpoint is not None and checkpoint.failure is not None:
        unwritten.append(checkpoint.failure)
    return _complete(report, failed, unwritten)


def _report(
    experiment: Experiment,
    results: list[Result],
    failed: Mapping[str, NetsimError],
    environment: Mapping[str, Any],
    session: Session | None,
    *,
    watched: bool = False,
) -> Report | None:
    """Return the report of the algorithms that finished; None if no algorithm finished."""
    from netsim.analysis.conclusion import conclude
    from netsim.analysis.known_errors import error_question, known_errors, known_sentences
    from netsim.analysis.unused_options import idle_options

    if not results:
        return None
    ended = {result.algorithm for result in results}
    lost = [f"No result for {name}: {_why(failed.get(name))}." for name in experiment.algorithms if name not in ended]
    effects, links = ({}, None) if session is None else (experiment.shown(), experiment.links())
    notes = idle_options(experiment, results, watched=watched)
    config = experiment.config() | ({} if session is not None else dict.fromkeys(OF_SIMULATED_NETWORKS))
    questions = {each.title: error_question(experiment, links, each.algorithm, each.to_dict()) for each in results}
    asked = {title: question for title, question in questions.items() if question is not None}
    known = known_sentences(asked, known_errors())
    return Report(config, results, conclude(results, session) + lost, environment, effects, links, notes, known)


OF_SIMULATED_NETWORKS = (
    "bandwidth_bps",
    "latency_s",
    "bandwidth_scale",
    "latency_scale",
    "host_ceiling_bps",
    "sharing",
    "engine",
)
"""Options without meaning in a real run, whose report has None for them."""


def _why(error: NetsimError | None) -> str:
    """Return briefly why an algorithm has no result; the error is reported in full elsewhere."""
    if error is None:
        return "it was not run"
    return "its training diverged" if isinstance(error, NonFiniteGradientError) else "it failed"


def _complete(report: Report | None, failed: Mapping[str, NetsimError], unwritten: Sequence[str] = ()) -> Report:
    """Return the report if it is complete; otherwise raise an error that names what is missing and holds the report."""
    diverged = [name for name, error in failed.items() if isinstance(error, NonFiniteGradientError)]
    if report is None and not diverged:
        raise next(iter(failed.values()))  # usually all algorithms fail for one reason
    message = "; ".join([*(f"{name}: {error}" for name, error in failed.items()), *unwritten])
    if failed:
        raise (DivergedError if len(diverged) == len(failed) else AlgorithmsFailedError)(message, report, failed)
    if unwritten:
        raise UnwrittenError(message, report)
    assert report is not None
    return report


def run(
    *,
    workers: int,
    backend: str = "gloo",
    timeout: float = 30.0,
    on_round: OnRound = ignore,
    **options: Any,
) -> Report:
    """Run algorithms over torch.distributed, with one process per worker on this machine, connected over loopback.

    Parameters
    ----------
    workers
        Number of workers.
    backend
        Backend of torch.distributed: "gloo", "nccl" or "mpi".
    timeout
        Seconds that a communication may wait before the run fails.
    on_round
        Called after each round with the name of the algorithm and the step.
    **options
        Options as for :func:`simulate`, without those of a simulated network.

    Returns
    -------
    Report
        Measured results, one per algorithm, and the conclusion.

    Raises
    ------
    UsageError, InfeasibleError
        As for :func:`simulate`.
    NetsimError
        If a rank fails; the error names the rank.
    DivergedError, AlgorithmsFailedError
        As for :func:`simulate`; after a failure other than divergence no further algorithm runs.

    Examples
    --------
    >>> import netsim
    >>> report = netsim.run(workers=4, algorithm="gtopk", rounds=20)  # doctest: +SKIP
    """
    from netsim.distributed.launch import launch
    from netsim.distributed.rank_main import check_backend

    _check_call("netsim.run", on_round)
    experiment = Experiment.of(workers=workers, **options)
    check_real(experiment)
    check_backend(backend, experiment)
    return real_report(experiment, *launch(experiment, backend, timeout, on_round), backend)


def _check_call(call: str, on_round: OnRound) -> None:
    check_not_imported(call)
    if not callable(on_round):
        raise UsageError(f"on_round {shown(on_round)} must be a function of an algorithm's name and a step")


def check_real(experiment: Experiment) -> None:
    """Raise UsageError for options that only a simulation has."""
    if experiment.timing_only:
        raise UsageError("timing-only was given, but a real run exchanges real gradients; use netsim simulate")
    if experiment.assumed_costs():
        raise UsageError("an assumed compute, select or merge time was given, but a real run measures; leave it out")
    if experiment.ready is not None:
        raise UsageError(
            f"ready {experiment.ready!r} was given, but a real run exchanges a bucket once its gradient is computed; "
            "leave it out"
        )
    for name in experiment.effects.shown():
        raise UsageError(f"{name} was given, but a real run has the effects of its own network; use netsim simulate")
    usual = Experiment(workers=experiment.workers, topology=experiment.topology)
    for name in (*OF_SIMULATED_NETWORKS, "fan_out", "profile"):
        if getattr(experiment, name) != getattr(usual, name):
            raise UsageError(
                f"{option_of(name)} {shown(getattr(experiment, name))} was given, but a real run measures a real "
                "network; leave it out, or use netsim simulate"
            )
    hierarchical = " and ".join(name for name, kind in ALGORITHMS.items() if kind.grouped)
    grouped = any(class_of(name).grouped and "group_size" not in own_options(name) for name in experiment.algorithms)
    for name in ("topology", "placement"):
        value, applies = getattr(experiment, name), grouped or (name == "topology" and experiment.servers)
        if value != getattr(Experiment, name) and not applies:
            raise UsageError(
                f"{name} {value!r} was given, but a real run uses it only for parameter servers and the groups of "
                f"{hierarchical}; leave it out, or use netsim simulate"
            )


def real_report(
    experiment: Experiment, results: list[Result], failed: Mapping[str, NetsimError], backend: str
) -> Report:
    """Return the report of a real run; raise AlgorithmsFailedError with the other results if an algorithm failed."""
    from netsim._util.system import resolve_device

    found = environment(resolve_device(experiment.device)) | {"backend": backend, "data": experiment.data_name()}
    return _complete(_report(experiment, results, failed, found, None), failed)


class ExchangeResult(NamedTuple):
    """The outcome of one exchange.

    Attributes
    ----------
    aggregated
        The total that every rank obtains (d,): the sum of all vectors, or of the entries that the algorithm keeps.
    residuals
        The residual of each rank (P, d).
    bytes_sent, bytes_received
        Bytes of values and indices, one number per rank.
    """

    aggregated: torch.Tensor
    residuals: torch.Tensor
    bytes_sent: list[int]
    bytes_received: list[int]


OPTION_OF = {"momentum_correction": "momentum"}
"""Constructor parameters of algorithms whose option has another name."""


def _settled(algorithm: str, k: int | None, rows: torch.Tensor, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with values as Python types; raise UsageError for a value that the algorithm cannot use."""
    workers, elements = rows.shape
    settled = {name: in_python(value) for name, value in given.items()}
    own = {name: value for name, value in settled.items() if name in taken_by(algorithm) and value is not None}
    for name, value in own.items():
        check_digits(name, value)
    if isinstance(groups := own.get("groups"), tuple):
        del own["groups"]
        if len(groups) != workers or not all(type(group) is int and group >= 0 for group in groups):
            raise UsageError(f"groups {shown(groups)} must be the number of each rank's group, {workers} in all")
    if "selector" in own:
        raise UsageError(
            f"selector {shown(own['selector'])} was given; give k, the number of selected entries, instead"
        )
    bucket = own.pop("bucket", 0)
    if type(bucket) is not int or not 0 <= bucket < 2**32:
        raise UsageError(f"bucket {shown(bucket)} must be a whole number from 0 to {2**32 - 1}")
    if "groups" in own:
        Whole(1).read("groups", own.pop("groups"))
    for each in declared_by(algorithm):
        if each.name in own:
            each.read(own.pop(each.name))
    asked = {OPTION_OF.get(name, name): value for name, value in own.items()}
    Experiment.of(timing_only=True, workers=workers, elements=elements, k=k, algorithm=algorithm, **asked)
    return settled


def exchange(
    algorithm: str | type[Algorithm] | Algorithm,
    vectors: torch.Tensor | np.ndarray,
    k: int | None = None,
    **options: Any,
) -> ExchangeResult:
    """Make one exchange of given vectors in memory, starting without residuals.

    Parameters
    ----------
    algorithm
        The name of an algorithm, such as "gtopk", a class, or an object.
    vectors
        One vector per worker, shape (P, d), floating-point.
    k
        Number of entries that a sparse algorithm selects; None for a dense one.
    **options
        The algorithm's own options, such as ``residual="index-intersection"`` for gtopk or ``gather="bruck"`` for
        topk.

    Raises
    ------
    UsageError
        For vectors of another shape or type, and for values that the algorithm cannot use.

    Examples
    --------
    >>> import netsim, torch
    >>> vectors = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.5]])
    >>> result = netsim.exchange("gtopk", vectors, k=1)
    >>> result.aggregated
    tensor([3., 0., 0.])
    >>> result.residuals.tolist()
    [[0.0, 2.0, 1.0], [0.0, 0.0, 1.5]]
    >>> result.bytes_sent  # a value and an index of 4 bytes each
    [8, 8]
    """
    import numpy as np
    import torch

    from algorithms.compression import total as dense_sum
    from algorithms.selection import Selector
    from netsim.comm.payload import Dense
    from netsim.comm.worker import Worker
    from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
    from netsim.simulator.session import make_workers

    try:
        rows = vectors.detach() if isinstance(vectors, torch.Tensor) else torch.from_numpy(np.array(vectors))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"vectors of type {type(vectors).__name__} must be an array of shape (P, d): {error}"
        ) from None
    if rows.ndim != 2 or 0 in rows.shape or not rows.is_floating_point():
        raise UsageError(f"vectors of shape {tuple(rows.shape)}, {rows.dtype}, must be floating-point of shape (P, d)")
    if not bool(torch.isfinite(rows).all()):
        raise UsageError("vectors hold NaN or infinity; every element must be finite")
    name, k = text_of(in_python(algorithm)), in_python(k)
    sparse = class_of(name).sparse
    if sparse and k is None:
        raise UsageError(f"{name} needs k, the number of entries that it selects")
    if k is not None and not sparse:
        raise UsageError(f"k {shown(k)} was given, but {name} exchanges every entry; leave it out")
    settled = _settled(name, k, rows, options)
    chosen = build_algorithm(name, settled | ({"selector": Selector(k)} if k is not None else {}))

    async def program(worker: Worker) -> tuple[torch.Tensor, torch.Tensor]:
        vector = Dense(rows[worker.rank].clone())
        total, memory = await chosen.exchange(worker, vector, chosen.initial_memory(vector), vector)
        residual, summed = chosen.residual(memory), dense_sum(total)
        assert isinstance(summed, Dense)
        return summed.values, residual.values if isinstance(residual, Dense) else torch.zeros_like(vector.values)

    tasks = RankScheduler[tuple[torch.Tensor, torch.Tensor]](InMemoryTransport()).run(
        make_workers(chosen, len(rows), False), program
    )
    held = [task.result for task in tasks if task.result is not None]
    return ExchangeResult(
        held[0][0],
        torch.stack([residual for _, residual in held]),
        [task.worker.traffic.bytes_up for task in tasks],
        [task.worker.traffic.bytes_down for task in tasks],
    )
