"""``netsim run``."""

from __future__ import annotations

import os
from contextlib import redirect_stdout, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from netsim._util.errors import NetsimError, UsageError
from netsim.api import RUN_CHANGES
from netsim.cli.common import deliver, progress, rest_delivered, stdout_is_for_results
from netsim.cli.options import COMMON, Json, Out, option, takes, whole

if TYPE_CHECKING:
    from netsim.experiment.configuration import Experiment
    from netsim.experiment.results import Result
    from netsim.report.run_report import Report


@takes(
    *("Algorithms", "Training", "topology", "placement", "send_mode"),
    without=("ready",),  # a bucket is exchanged once its gradient is computed
    changed=RUN_CHANGES,
)
def run(
    nproc: Annotated[
        int | None,
        option(
            "Number of ranks that train; under torchrun, torchrun's own number.",
            "--nproc",
            "--workers",
            panel=COMMON,
            parser=whole,
            metavar="N",
        ),
    ] = None,
    backend: Annotated[
        str, option("gloo, nccl (needs GPUs) or mpi (needs a torch built with it).", metavar="NAME")
    ] = "gloo",
    timeout: Annotated[str, option("Longest time that an operation waits before it fails.", metavar="TIME")] = "30s",
    as_json: Json = False,
    out: Out = None,
    **options: Any,
) -> None:
    """Run the same algorithms on real ranks with torch.distributed, and measure.

    Starts the ranks on this machine, over loopback; under torchrun, takes part as one of its ranks.
    """
    # What torch's own code has to say of lost peers, netsim says with rank, operation and step.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    from netsim._util.storage import check_outputs
    from netsim._util.units import parse_duration
    from netsim.api.real_run import check_real, real_report
    from netsim.distributed.launch import join, launch, under_launcher
    from netsim.distributed.rank_main import check_backend, on_faster_device
    from netsim.experiment.configuration import Experiment
    from netsim.experiment.given import input_files
    from topologies import STARS

    def experiment_of(workers: int) -> Experiment:
        if under_launcher() and nproc not in (None, workers):
            raise UsageError(f"nproc {nproc} was given, but torchrun started ranks for {workers} workers; leave it out")
        experiment = Experiment.of(workers=workers, **options)
        check_real(experiment)
        return experiment

    def show(experiment: Experiment, report: Report) -> None:
        deliver(report, experiment, as_json, out)

    timeout_s = parse_duration(timeout, "timeout")
    check_outputs({"out": out}, input_files(options))
    failed: dict[str, NetsimError] = {}
    if under_launcher():
        with stdout_is_for_results() as stdout:

            def rest(experiment: Experiment, results: list[Result], failed: dict[str, NetsimError]) -> None:
                with redirect_stdout(stdout), suppress(NetsimError), rest_delivered(partial(show, experiment)):
                    real_report(experiment, results, failed, backend)
                stdout.flush()

            experiment, results = join(experiment_of, options.get("topology", STARS[0]), backend, timeout_s, rest)
        if not results:
            return
    else:
        if nproc is None:
            raise UsageError("nproc is missing: say how many ranks to start, such as --nproc 4, or use torchrun")
        experiment = experiment_of(nproc)
        check_backend(backend, experiment)
        experiment = on_faster_device(experiment, backend)
        with stdout_is_for_results(), progress(experiment, "running on real ranks") as on_round:
            results, failed = launch(experiment, backend, timeout_s, on_round)

    with rest_delivered(partial(show, experiment)):
        report = real_report(experiment, results, failed, backend)
    show(experiment, report)
