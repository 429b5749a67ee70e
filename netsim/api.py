"""netsim from Python: simulate, run for real, and look inside one exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from netsim.checkpoint import Checkpoint, checkpoint_of
from netsim.errors import DivergedError, NetsimError, NonFiniteGradientError, UnwrittenError, UsageError
from netsim.experiment import Experiment, build_algorithm, files_of
from netsim.results import Report, Result
from netsim.simulation import Laboratory, OnRound, ignore, laboratory
from netsim.storage import check_outputs
from netsim.system import environment
from netsim.trace import Trace
from netsim.units import in_python

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

    Options are those of ``netsim simulate``, with underscores: ``workers=64, bandwidth="1Gbps",
    algorithm="gtopk,topk", density=1e-3``. Quantities are text with a unit, or numbers in SI units.
    `metrics` names a file for a row a step (:mod:`netsim.metrics`). A file `checkpoint` is written every
    `checkpoint_every` rounds, and to `resume` is to go on from it, to the very results that the run would
    have had without the interruption (:mod:`netsim.checkpoint`). `trace` names a file for what went on, instant by
    instant, in Chrome's format (:mod:`netsim.chrome`).
    Raises UsageError for a value that cannot be used, InfeasibleError where data or machine fall short, and
    UnwrittenError or DivergedError, whose ``report`` has what came out, where a file could not be written on the way
    or the training of an algorithm diverged.
    """
    experiment = Experiment.of(**options)
    check_outputs({"metrics": metrics, "checkpoint": checkpoint, "trace": trace}, files_of(options))
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
    """Simulate every algorithm of `experiment` and conclude.

    A row a step goes into the file `metrics`, what went on into the file `trace`. Where a file can no longer be
    written, the run goes on without it; then UnwrittenError has the report. Where the training of an algorithm
    diverges, the others are simulated; then DivergedError has their report.
    """
    from netsim.chrome import write_chrome_trace
    from netsim.metrics import metrics_file

    failed: list[str] = []
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory(experiment))
        emit = None if metrics is None else stack.enter_context(metrics_file(metrics, failed))
        found = environment(lab.device) | {"data": experiment.data_name()}
        if checkpoint is not None:
            stack.enter_context(checkpoint.going_on())
            found |= checkpoint.begin(lab.costs, found)
        traces = {name: Trace(name) for name in experiment.algorithms} if trace is not None else {}
        results: list[Result] = []
        diverged: dict[str, str] = {}
        for name in experiment.algorithms:
            try:
                results.append(lab.simulate(name, on_round, emit, checkpoint, traces.get(name)))
            except NonFiniteGradientError as error:
                diverged[name] = str(error)
                traces.pop(name, None)
        report = _report(experiment, results, diverged, found, lab, watched=emit is not None)
        if trace is not None:
            try:
                write_chrome_trace(list(traces.values()), trace, found | {"config": experiment.config()})
            except NetsimError as error:
                failed.append(str(error))
    if checkpoint is not None and checkpoint.failure is not None:
        failed.append(checkpoint.failure)
    return _complete(report, diverged, failed)


def _report(
    experiment: Experiment,
    results: list[Result],
    diverged: Mapping[str, str],
    environment: Mapping[str, Any],
    lab: Laboratory | None,
    *,
    watched: bool = False,
) -> Report | None:
    """Return the report of the algorithms that ended, None if none did."""
    from netsim.conclusion import conclude
    from netsim.notes import idle_options

    if not results:
        return None
    lost = [f"No result for {name}: its training diverged." for name in diverged]
    effects, links = ({}, None) if lab is None else (experiment.shown(), experiment.links())
    notes = idle_options(experiment, results, watched=watched)
    return Report(experiment.config(), results, conclude(results, lab) + lost, environment, effects, links, notes)


def _complete(report: Report | None, diverged: Mapping[str, str], unwritten: Sequence[str] = ()) -> Report:
    """Return the report if nothing is missing; otherwise raise the error that says what is, and has the report."""
    if diverged or report is None:
        raise DivergedError("; ".join([*(f"{name}: {why}" for name, why in diverged.items()), *unwritten]), report)
    if unwritten:
        raise UnwrittenError("; ".join(unwritten), report)
    return report


def run(
    *,
    workers: int,
    backend: str = "gloo",
    timeout: float = 30.0,
    on_round: OnRound = ignore,
    **options: Any,
) -> Report:
    """Run algorithms on real ranks of this machine, `workers` of them, over loopback.

    Options are as for :func:`simulate`. Raises NetsimError when a rank fails, naming it; operations
    that wait longer than `timeout` seconds fail. Raises DivergedError as :func:`simulate` does.
    """
    from netsim.jobs.launch import launch
    from netsim.jobs.real import check_backend

    experiment = Experiment.of(workers=workers, **options)
    check_real(experiment)
    check_backend(backend, experiment)
    return real_report(experiment, *launch(experiment, backend, timeout, on_round), backend)


def check_real(experiment: Experiment) -> None:
    """Raise UsageError for options that only a simulation can honour."""
    if experiment.timing_only:
        raise UsageError("timing-only was given, but a real run exchanges real gradients; use netsim simulate")
    if experiment.assumed_costs():
        raise UsageError("an assumed compute, select or merge time was given, but a real run measures; leave it out")
    if experiment.ready is not None:
        raise UsageError(f"ready {experiment.ready!r} was given, but a real run's buckets are there when they are")
    for name in experiment.effects.shown():
        raise UsageError(f"{name} was given, but a real run has the effects of its own network; use netsim simulate")


def real_report(experiment: Experiment, results: list[Result], diverged: Mapping[str, str], backend: str) -> Report:
    """Return the report of a real run; raise DivergedError, with what there is, if some algorithms diverged."""
    from netsim.device import resolve_device

    found = environment(resolve_device(experiment.device)) | {"backend": backend, "data": experiment.data_name()}
    return _complete(_report(experiment, results, diverged, found, None), diverged)


class Exchange(NamedTuple):
    """What one exchange did. ``aggregated`` (d,) is the sum over ranks of what was not held back,
    ``residuals`` (P, d) what each rank holds back; bytes are values and indices, a number a rank.
    """

    aggregated: torch.Tensor
    residuals: torch.Tensor
    bytes_sent: list[int]
    bytes_received: list[int]


def exchange(algorithm: str, vectors: torch.Tensor | np.ndarray, k: int | None = None, **options: Any) -> Exchange:
    """Make one exchange of P given vectors, shape (P, d), in memory, starting without residuals.

    `k` is how many entries a sparse algorithm selects; `options` are the algorithm's own, such as
    ``residual="index-intersection"`` for gtopk or ``gather="doubling"`` for topk.
    """
    import numpy as np
    import torch

    from algorithms import ALGORITHMS
    from algorithms.compression import total as dense_sum
    from algorithms.selection import Selector
    from netsim.backends.cooperative import Cooperative
    from netsim.backends.local import Instant
    from netsim.payload import Dense
    from netsim.simulation import make_workers
    from netsim.worker import Worker

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
    k = in_python(k)
    sparse = algorithm in ALGORITHMS and ALGORITHMS[algorithm].sparse
    if sparse and k is None:
        raise UsageError(f"{algorithm} needs k, how many entries it selects")
    if k is not None:
        Experiment(timing_only=True, elements=rows.shape[1], k=k)
    chosen = build_algorithm(algorithm, options | ({"selector": Selector(k)} if k is not None and sparse else {}))

    async def program(worker: Worker) -> tuple[torch.Tensor, torch.Tensor]:
        own = Dense(rows[worker.rank].clone())
        total, memory = await chosen.exchange(worker, own, chosen.initial_memory(own), own)
        left, summed = chosen.residual(memory), dense_sum(total)
        assert isinstance(summed, Dense)
        return summed.values, left.values if isinstance(left, Dense) else torch.zeros_like(own.values)

    tasks = Cooperative[tuple[torch.Tensor, torch.Tensor]](Instant()).run(
        make_workers(chosen, len(rows), False), program
    )
    held = [task.result for task in tasks if task.result is not None]
    return Exchange(
        held[0][0],
        torch.stack([residual for _, residual in held]),
        [task.worker.traffic.bytes_up for task in tasks],
        [task.worker.traffic.bytes_down for task in tasks],
    )
