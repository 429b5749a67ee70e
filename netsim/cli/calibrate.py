"""``netsim calibrate``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from netsim._util.errors import NetsimError, UsageError, reason_of, shown
from netsim.cli.common import all_done, say_json, say_lines
from netsim.cli.options import option, takes, whole

if TYPE_CHECKING:
    from netsim.experiment.profile import Profile, ProfilePoint

PROFILE = Path("profile.toml")
FITS_BADLY = 0.1
MEASURING: Mapping[str, Any] = {
    "local": None,
    "backend": "gloo",
    "timeout": "30s",
    "workload": "digits-mlp",
    "batch_size": 16,
    "device": "cpu",
}
"""Options of measuring that --from has no use for, with their defaults."""


@takes(workload=MEASURING["workload"], batch_size=MEASURING["batch_size"], device=MEASURING["device"])
def calibrate(
    out: Annotated[Path, option("File for the profile.", metavar="FILE")] = PROFILE,
    local: Annotated[
        int | None,
        option("Measure in a shaped cluster of P hosts on this machine, not over loopback.", metavar="P", parser=whole),
    ] = None,
    bandwidth: Annotated[
        str | None,
        option("Bandwidth to which --local shapes links; without --local, their nominal bandwidth.", metavar="RATE"),
    ] = None,
    backend: Annotated[str, option("Backend: gloo or, under torchrun, nccl or mpi.", metavar="NAME")] = "gloo",
    timeout: Annotated[str, option("Timeout of an operation that waits.", metavar="TIME")] = "30s",
    table: Annotated[
        Path | None,
        option(
            "Measure nothing, and read the table or JSON of nccl-tests, or the table of osu_allreduce, osu_latency or "
            "osu_bw, from this file.",
            "--from",
            metavar="FILE",
        ),
    ] = None,
    collective: Annotated[
        str | None,
        option(
            "With --from, what was timed, if the file does not say or has several: all-reduce, sendrecv.",
            metavar="NAME",
        ),
    ] = None,
    workers: Annotated[
        int | None, option("With --from, the number of ranks, if the file does not say.", metavar="P", parser=whole)
    ] = None,
    exchanged_by: Annotated[
        str | None,
        option(
            "With --from, the algorithm that made an all-reduce, like dense-tree. [default: dense, a ring]",
            "--algorithm",
            metavar="NAME",
        ),
    ] = None,
    topology: Annotated[
        str | None,
        option(
            "With --from, the network of the ranks, whose open bandwidth and latency are fitted. [default: star]",
            metavar="NAME",
        ),
    ] = None,
    as_json: Annotated[bool, option("Print the profile as JSON instead of a summary.", "--json")] = False,
    **training: Any,
) -> None:
    """Measure the costs of messages, selection, merging and a training step, and write them as a profile.

    Other commands read the profile with --profile. Two ranks exchange messages over loopback or in a shaped cluster;
    under torchrun, ranks 0 and 1 of the job do. No collective is measured. Calibration takes less than a minute. With
    --from, the profile has the links that explain the times of another program's benchmark.
    """
    from netsim._util.storage import check_outputs
    from netsim._util.units import parse_bandwidth
    from netsim.experiment.profile import save_profile

    check_outputs({"out": out}, {"from": table})
    nominal = None if bandwidth is None else parse_bandwidth(bandwidth)
    of_table = {"collective": collective, "workers": workers, "algorithm": exchanged_by, "topology": topology}
    profile: Profile | None
    if table is None:
        _refuse(of_table, dict.fromkeys(of_table), "but no file with --from")
        profile = _measured(local, nominal, backend, timeout, training)
    else:
        measuring = {"local": local, "backend": backend, "timeout": timeout, **training}
        _refuse(measuring, MEASURING, "but --from measures nothing")
        profile = _read(table, nominal, {name: value for name, value in of_table.items() if value is not None})
    if profile is None:
        return  # rank 0 reports
    found = profile
    saved: list[Path] = []

    def save() -> None:
        try:
            save_profile(found, out)
        except OSError as error:
            raise NetsimError(f"out {str(out)!r} could not be written: {reason_of(error)}") from error
        saved.append(out)

    def show() -> None:
        if as_json:
            say_json(found.model_dump_json(indent=2, exclude_none=True))
        else:
            say_lines(_summary(found, saved[0] if saved else None), indent=" " * 9)

    all_done([save, show])


def _refuse(given: Mapping[str, object], usual: Mapping[str, object], why: str) -> None:
    """Raise UsageError for an option that differs from its default."""
    for name, value in given.items():
        if value != usual[name]:
            raise UsageError(f"{name.replace('_', '-')} {shown(value)} was given, {why}; leave it out")


def _read(table: Path, nominal_bps: int | None, given: Mapping[str, Any]) -> Profile:
    from netsim.testbed.benchmark_fits import profile_of_table
    from netsim.testbed.benchmark_tables import read_table

    command = shlex.join(["netsim", *sys.argv[1:]])
    return profile_of_table(
        read_table(table, given.get("collective")), table, command=command, nominal_bps=nominal_bps, **given
    )


def _measured(
    local: int | None, nominal_bps: int | None, backend: str, timeout: str, training: Mapping[str, Any]
) -> Profile | None:
    """Return the measured profile; None on ranks other than 0 of a job."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    from netsim._util.device import resolve_device
    from netsim._util.units import parse_duration
    from netsim.distributed.launch import join_work, launch_work, under_launcher
    from netsim.experiment.configuration import Experiment
    from netsim.testbed.calibrate import TASK, CalibrationPlan, profile_of

    timed = Experiment.of(**training)
    if local is not None and under_launcher():
        raise UsageError(f"local {local} was given, but torchrun started the ranks; leave it out")
    cluster = _cluster(local, nominal_bps)
    calibration = CalibrationPlan(
        where="torchrun" if under_launcher() else "loopback" if local is None else "shaped cluster",
        command=shlex.join(["netsim", *sys.argv[1:]]),
        backend=backend,
        nominal_bps=nominal_bps,
        workload=timed.workload,
        batch_size=timed.batch_size,
        device="cpu" if resolve_device(timed.device) == "cpu" else timed.device,
    )
    details = {"work": TASK, "backend": backend, "timeout_s": parse_duration(timeout, "timeout")}
    details |= {"calibration": asdict(calibration)}
    if os.environ.get("RANK", "0") == "0":
        _say(calibration.cost())
    if under_launcher():
        records = join_work(details, _say_stage)
    else:
        records = launch_work(details, local or 2, _say_stage, cluster)
    return profile_of(calibration, records[0]) if records else None


def _cluster(local: int | None, bandwidth_bps: int | None) -> Any:
    if local is None:
        return None
    from netsim.cluster.plan import Cluster

    if bandwidth_bps is None:
        raise UsageError("local was given without a bandwidth to shape its links to; add --bandwidth 100Mbps")
    if local < 2:
        raise UsageError(f"local {local} must be at least 2: messages go from one host to another")
    return Cluster(ranks=local, bandwidth_bps=bandwidth_bps)


def _say(text: str) -> None:
    print(f"netsim: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _say_stage(what: str, step: int) -> None:
    _say(f"measuring {what}")


def _summary(profile: Profile, out: Path | None) -> list[str]:
    from netsim._util.units import format_bandwidth, format_bytes, format_duration

    link, message, source = profile.link, profile.message, profile.provenance
    efficiency = "" if link.efficiency is None else f", {link.efficiency:.1%} of the nominal bandwidth"
    burst = f"   the first {format_bytes(link.free_bytes)} at once" if link.free_bytes else ""
    texts = [
        f"link     α {format_duration(link.fixed_s)} a message   β {format_duration(link.each_s)} a byte "
        f"({format_bandwidth(link.bandwidth_bps)}{efficiency}){burst}   {_fit(link)}",
    ]
    if source.where == "file":
        texts += [f"         {_residual(point, source.kind)}" for point in link.points]
        written = "" if out is None else f" Written to {out}."
        texts.append(f"{profile.title()}: {source.measured}.{written}")
        if link.residual_median > FITS_BADLY:
            texts.append("One α and one β explain these times badly: leave out sizes, or name another --algorithm.")
        return texts
    texts.append(
        f"message  {format_duration(message.fixed_s)} and {format_duration(message.each_s)} a byte on each host, to "
        f"pack or unpack   {_fit(message)}"
    )
    texts += [
        f"work     {name}: {format_duration(work.fixed_s)}, {format_duration(work.entry_s)} an entry, "
        f"{format_duration(work.element_s)} an element   {_fit(work)}"
        for name, work in profile.work.items()
    ]
    if (step := profile.step) is not None:
        texts.append(f"step     {format_duration(step.seconds)} of {step.workload}, {step.batch_size} samples")
    assert source.load is not None
    assert source.cores is not None
    texts.append(
        f"MEASURED {source.date} on {source.where}, {source.ranks} ranks, {source.machine}, {source.cores} cores, "
        f"{'' if source.gpu is None else source.gpu + ', '}load "
        f"{source.load:.2f}{'' if out is None else f'; written to {out}'}."
    )
    if source.load > source.cores / 2 or link.residual_median > FITS_BADLY:
        texts.append("The machine was busy, or the line fits badly: measure again when nothing else runs.")
    return texts


def _residual(point: ProfilePoint, kind: str) -> str:
    from netsim._util.units import format_bytes, format_duration

    return (
        f"{format_bytes(point.size):>8} {format_duration(point.seconds):>9} {kind}   "
        f"{format_duration(point.seconds * (1 + point.residual)):>9} fitted   {point.residual:+.1%}"
    )


def _fit(line: Any) -> str:
    return f"(fit: {line.residual_median:.1%} off in the median, {line.residual_worst:.1%} at worst)"
