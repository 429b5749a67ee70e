"""Calibration: the plan and its duration, one rank's measurements, and the profile made from them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, Literal

from netsim._util.device import exact_arithmetic, gpu_facts, gpu_of_rank
from netsim._util.errors import UsageError
from netsim._util.system import processor, version
from netsim.experiment.profile import Line, LinkLine, Profile, ProfileProvenance, Step
from netsim.testbed.line_fits import line, link, work
from netsim.testbed.pingpong import PAIR, Trips, ping_pong
from netsim.testbed.work_timings import ELEMENTS, step_samples, work_samples

TASK = f"{__name__}:measure_as_rank"
"""The task of ranks that calibrate, as :func:`netsim.distributed.job.task_of` takes it."""
MESSAGES_S = 12.0
"""Seconds for messages."""
OTHERS_S = 28.0
"""Seconds for the rest: to start, to select and merge (at most 12 on any machine), and to train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationPlan:
    """The measurements of a calibration, and the place where they are made.

    Parameters
    ----------
    where, command
        The place of the measurements, and the command that asked for them.
    backend
        Backend of torch.distributed.
    nominal_bps
        Nominal bandwidth of the links in bit/s; None if it is not given.
    workload, batch_size
        Workload whose training step is timed, and the samples of its mini-batch.
    messages_s
        Seconds for messages.
    elements
        Sizes of the vectors on which selection and merging are timed.
    device
        Where gradients are computed and selected from.
    """

    where: Literal["loopback", "shaped cluster", "torchrun"]
    command: str
    backend: str = "gloo"
    nominal_bps: int | None = None
    workload: str = "digits-mlp"
    batch_size: int = 16
    messages_s: float = MESSAGES_S
    elements: tuple[int, ...] = ELEMENTS
    device: str = "cpu"

    def cost(self) -> str:
        """Return in words how long the calibration takes."""
        return (
            f"calibrating takes about {self.messages_s + OTHERS_S:.0f} s: {self.messages_s:.0f} s of messages between "
            f"ranks {PAIR[0]} and {PAIR[1]} ({self.where}), the rest on one core to start, select, merge and train"
        )


def measure_as_rank(details: Mapping[str, Any], rank: int, stage: Any) -> list[dict[str, Any]]:
    """Measure messages, selection and merging, and a training step: the task of a rank of ``netsim calibrate``.

    Parameters
    ----------
    details
        ``calibration``: the fields of a CalibrationPlan.
    rank
        This rank.
    stage
        Called as ``stage(name, 0)`` when rank 0 begins the part of that name.

    Returns
    -------
    list of dict
        On rank 0, one record of all measurements. On other ranks, an empty list.
    """
    import torch.distributed as dist

    from netsim._util.system import one_thread_each
    from netsim.comm.worker import Worker
    from netsim.distributed.interpreter import RankInterpreter

    calibration = CalibrationPlan(**details["calibration"])
    world = dist.get_world_size()
    if world < len(PAIR):
        raise UsageError(f"a world of {world} has no pair of ranks; calibrating needs 2 ranks or more")
    with one_thread_each():
        if rank == 0:
            stage("messages", 0)
        load = os.getloadavg()[0]
        worker = Worker(rank, world)
        worker.operation = "ping-pong"
        device = gpu_of_rank("cuda") if calibration.backend == "nccl" else "cpu"
        real = RankInterpreter(worker, device, calibration.backend)
        trips = real.run(ping_pong(worker, time.perf_counter, lambda: real.packing_s, calibration.messages_s))
        if rank != 0:
            return []
        device = gpu_of_rank(calibration.device)
        with exact_arithmetic(device):
            stage("selecting and merging", 0)
            worked = [[*sizes, seconds] for sizes, seconds in work_samples(calibration.elements, device=device).items()]
            stage("a step of training", 0)
            elements, steps = step_samples(calibration.workload, calibration.batch_size, device)
            facts = gpu_facts(device)
    record = {"trips": list(map(asdict, trips)), "work": worked, "elements": elements, "steps": steps}
    return [record | {"load": load, "ranks": world, "gpu": facts.get("device_name")}]


def profile_of(calibration: CalibrationPlan, record: Mapping[str, Any]) -> Profile:
    """Return the profile of a record of :func:`measure_as_rank`."""
    measured_link, message = lines_of([Trips(**trips) for trips in record["trips"]], calibration.nominal_bps)
    samples: dict[str, dict[tuple[int, int], float]] = {}
    for function, entries, elements, seconds in record["work"]:
        samples.setdefault(function, {})[entries, elements] = seconds
    return Profile(
        format=1,
        provenance=_provenance(calibration, record),
        link=measured_link,
        message=message,
        work={function: work(samples[function]) for function in sorted(samples)},
        step=Step(
            workload=calibration.workload,
            batch_size=calibration.batch_size,
            elements=record["elements"],
            seconds=median(record["steps"]),
            repeats=len(record["steps"]),
        ),
    )


def lines_of(trips: list[Trips], nominal_bps: float | None = None) -> tuple[LinkLine, Line]:
    """Return two fitted lines: seconds of a message on the link, and seconds to pack or unpack a message on one host.

    A one-way trip consists of packing, one passage of the link, and unpacking.

    Parameters
    ----------
    trips
        Round trips of all sizes.
    nominal_bps
        Nominal bandwidth of the link in bit/s; None if it is not given.
    """
    sizes = [of_size.size for of_size in trips]
    on_the_wire = [
        [one_way - packing for one_way, packing in zip(of_size.one_way_s, of_size.packing_s, strict=True)]
        for of_size in trips
    ]
    of_host = [[packing / 2 for packing in of_size.packing_s] for of_size in trips]
    return link(sizes, on_the_wire, nominal_bps), line(sizes, of_host)


def _provenance(calibration: CalibrationPlan, record: Mapping[str, Any]) -> ProfileProvenance:
    import torch

    return ProfileProvenance(
        kind="MEASURED",
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=calibration.command,
        where=calibration.where,
        backend=calibration.backend,
        ranks=record["ranks"],
        netsim=version(),
        python=platform.python_version(),
        torch=torch.__version__,
        kernel=f"{platform.system()} {platform.release()}",
        machine=processor(),
        gpu=record["gpu"],
        cores=os.cpu_count() or 1,
        load=record["load"],
    )
