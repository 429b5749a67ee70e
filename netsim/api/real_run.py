"""``netsim.run``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from algorithms import ALGORITHMS, class_of, own_options
from netsim._util.errors import NetsimError, UsageError, shown
from netsim._util.progress import OnRound, ignore
from netsim._util.system import environment
from netsim.api import RUN_CHANGES
from netsim.api.calls import check_call, shown_rounds
from netsim.api.reports import OF_SIMULATED_NETWORKS, complete, concluded, unconcluded
from netsim.experiment.configuration import Experiment
from netsim.experiment.given import option_of
from netsim.experiment.option_docs import takes_options
from netsim.experiment.results import Result
from netsim.report.run_report import Report


@takes_options("Algorithms", "Training", "topology", "placement", "send_mode", without=("ready",), changed=RUN_CHANGES)
def run(
    *,
    workers: int,
    backend: str = "gloo",
    timeout: float = 30.0,
    on_round: OnRound = ignore,
    progress: bool | None = None,
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
    progress
        Whether to show a progress bar; None for a bar in notebooks only.
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
    from netsim.distributed.rank_main import check_backend, on_faster_device

    check_call("netsim.run", on_round)
    experiment = Experiment.of(workers=workers, **options)
    check_real(experiment)
    check_backend(backend, experiment)
    experiment = on_faster_device(experiment, backend)
    with shown_rounds(experiment, on_round, progress) as told:
        results, failed = launch(experiment, backend, timeout, told)
    return real_report(experiment, results, failed, backend)


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
    from netsim._util.device import exact_arithmetic, resolve_device

    device = resolve_device(experiment.device)
    with exact_arithmetic(device, experiment.tf32):  # as on the ranks
        found = environment(device) | {"backend": backend, "data": experiment.data_name()}
    report = unconcluded(experiment, results, failed, found, None)
    return complete(report and concluded(report, None), failed)
