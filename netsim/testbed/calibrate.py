"""A calibration from end to end: what it will cost, what each rank measures, and the profile that comes of it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, Literal

from netsim._util.errors import UsageError
from netsim._util.system import processor, version
from netsim.experiment.profile import Line, LinkLine, Profile, ProfileProvenance, Step
from netsim.testbed.line_fits import line, link, work
from netsim.testbed.pingpong import PAIR, Trips, ping_pong
from netsim.testbed.work_timings import ELEMENTS, step_samples, work_samples

TASK = f"{__name__}:measure_as_rank"
"""The task of ranks that calibrate, as :func:`netsim.distributed.job.task_of` takes it."""
MESSAGES_S = 12.0
OTHERS_S = 28.0
"""For the rest: to start, to select and merge (at most twelve seconds, whatever the machine), and to train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationPlan:
    """What is to be measured: messages for `messages_s`, work on vectors of so many `elements`, a workload's step."""

    where: Literal["loopback", "shaped cluster", "torchrun"]
    command: str
    backend: str = "gloo"
    nominal_bps: int | None = None
    workload: str = "digits-mlp"
    batch_size: int = 16
    messages_s: float = MESSAGES_S
    elements: tuple[int, ...] = ELEMENTS

    def cost(self) -> str:
        """Say beforehand what it will take."""
        return (
            f"calibrating takes about {self.messages_s + OTHERS_S:.0f} s: {self.messages_s:.0f} s of messages between "
            f"ranks {PAIR[0]} and {PAIR[1]} ({self.where}), the rest on one core to start, select, merge and train"
        )


def measure_as_rank(details: Mapping[str, Any], rank: int, stage: Any) -> list[dict[str, Any]]:
    """Measure as one rank of the joined group; rank 0 returns what it found: messages, work and a step.

    ``stage(what, 0)`` is called as rank 0 begins a part.
    """
    import torch.distributed as dist

    from netsim._util.device import one_thread_each
    from netsim.comm.worker import Worker
    from netsim.distributed.interpreter import RankInterpreter

    calibration = CalibrationPlan(**details["calibration"])
    world = dist.get_world_size()
    if world < len(PAIR):
        raise UsageError(f"a world of {world} has nobody to send messages to; calibrating needs 2 ranks or more")
    with one_thread_each():
        if rank == 0:
            stage("messages", 0)
        load = os.getloadavg()[0]
        worker = Worker(rank, world)
        worker.operation = "ping-pong"
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if calibration.backend == "nccl" else "cpu"
        real = RankInterpreter(worker, device, calibration.backend)
        trips = real.run(ping_pong(worker, time.perf_counter, lambda: real.packing_s, calibration.messages_s))
        if rank != 0:
            return []
        stage("selecting and merging", 0)
        worked = [[*given, seconds] for given, seconds in work_samples(calibration.elements).items()]
        stage("a step of training", 0)
        elements, steps = step_samples(calibration.workload, calibration.batch_size)
    found = {"trips": [asdict(each) for each in trips], "work": worked, "elements": elements, "steps": steps}
    return [found | {"load": load, "ranks": world}]


def profile_of(calibration: CalibrationPlan, found: Mapping[str, Any]) -> Profile:
    """Return the profile that measurements make."""
    measured, message = lines_of([Trips(**each) for each in found["trips"]], calibration.nominal_bps)
    samples: dict[str, dict[tuple[int, int], float]] = {}
    for function, entries, elements, seconds in found["work"]:
        samples.setdefault(function, {})[entries, elements] = seconds
    return Profile(
        format=1,
        provenance=_provenance(calibration, found),
        link=measured,
        message=message,
        work={function: work(samples[function]) for function in sorted(samples)},
        step=Step(
            workload=calibration.workload,
            batch_size=calibration.batch_size,
            elements=found["elements"],
            seconds=median(found["steps"]),
            repeats=len(found["steps"]),
        ),
    )


def lines_of(trips: list[Trips], nominal_bps: float | None = None) -> tuple[LinkLine, Line]:
    """Return the link, and the line of what one host does to a message: once and twice that are a trip one way."""
    sizes = [each.size for each in trips]
    on_the_wire = [
        [whole - packing for whole, packing in zip(each.one_way_s, each.packing_s, strict=True)] for each in trips
    ]
    return link(sizes, on_the_wire, nominal_bps), line(
        sizes, [[value / 2 for value in each.packing_s] for each in trips]
    )


def _provenance(calibration: CalibrationPlan, found: Mapping[str, Any]) -> ProfileProvenance:
    import torch

    return ProfileProvenance(
        kind="MEASURED",
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=calibration.command,
        where=calibration.where,
        backend=calibration.backend,
        ranks=found["ranks"],
        netsim=version(),
        python=platform.python_version(),
        torch=torch.__version__,
        kernel=f"{platform.system()} {platform.release()}",
        machine=processor(),
        cores=os.cpu_count() or 1,
        load=found["load"],
    )
