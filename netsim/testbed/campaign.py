"""Validation: settings that are measured on a real cluster and predicted, and what comes out."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from algorithms import ALGORITHMS
from netsim._util.checksummed_file import STRANGE
from netsim._util.errors import NetsimError, reason_of
from netsim._util.storage import write_atomically
from netsim._util.system import busy_share, environment, processor_ticks, processors_awake, surroundings
from netsim._util.units import format_bandwidth
from netsim.cluster.framing import IDEAL_CABLE, Wire
from netsim.cluster.plan import Cluster
from netsim.distributed.launch import join_work, launch_work
from netsim.experiment.profile import Profile
from netsim.network.fabric import Fabric
from netsim.testbed.cells import Cell, predicted
from netsim.testbed.comparison import Comparison, summary
from netsim.testbed.duplex_losses import with_losses
from netsim.testbed.host_model import HostTerms
from netsim.testbed.p2p_fits import NEEDED, host_terms, measured_bandwidth, profile_terms

SCHEMA = "netsim.validation/1"
LARGE_S = 0.1
LARGE_BYTES = 2 * 10**6
"""The large message of the point-to-point measurements takes about so long, and has at most so many bytes."""
TYPICAL = HostTerms(busy_s=2e-4, wake_s=4e-4, work_s=2e-4, byte_s=1e-9, frame_s=2e-8, cores=2)
"""Of a machine of two cores: for guessing, before anything is measured, how long measuring takes."""

CROWDED = 0.85
"""From this share of the processors' time on, what is measured is how fast they are, as much as the links."""

OnProgress = Callable[[str, float, float], None]
"""Called with what is being measured, the seconds of measuring done, and those there are in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A cluster on this machine, and what is measured in it."""

    cluster: Cluster
    cells: tuple[Cell, ...]
    timeout_s: float = 30.0

    @property
    def network(self) -> str:
        """The network in words."""
        cluster = self.cluster
        trunk = ""
        if cluster.trunk_bps is not None:
            trunk = f", two racks {cluster.placement}, trunk {format_bandwidth(cluster.trunk_bps)}"
        latency = f", {cluster.latency_s * 1e3:g} ms" if cluster.latency_s else ""
        return f"{cluster.shaping} {format_bandwidth(cluster.bandwidth_bps)}{latency}{trunk}"

    @property
    def key(self) -> str:
        """A name that tells this setting from all others."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def file(self, folder: Path | None) -> Path | None:
        """Return where in a folder stands what is measured, None without one."""
        return None if folder is None else folder / f"{self.key}.json"

    def seconds(self) -> list[float]:
        """Return about how long a repeat of every cell takes."""
        fabric, wire = Fabric(self.cluster.graph()), self.cluster.wire
        guesses: list[float] = []
        for cell in self.cells:
            exchange, times = (cell, 1) if cell.experiment is None else _like_rounds(cell)
            guesses.append(times * max(predicted(exchange, fabric, wire, TYPICAL, 0.0, {})[0]) + 0.05)
        return guesses


def _like_rounds(cell: Cell) -> tuple[Cell, int]:
    """Return an exchange that takes about as long as one of an algorithm's, and how many there are."""
    assert cell.experiment is not None
    algorithm, rounds = ALGORITHMS[cell.name], int(cell.experiment["rounds"])
    name = "ps-in" if algorithm.uses_server else "gtopk-tree" if algorithm.sparse else "ring-all-reduce"
    return replace(cell, name=name, experiment=None), 2 * rounds if algorithm.uses_server else rounds


@dataclass(slots=True)
class Validation:
    """All comparisons, with what point-to-point messages said at each setting, and how busy the machine was."""

    comparison: list[Comparison] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self, config: dict[str, Any], sentences: Sequence[str]) -> str:
        document = {
            "schema": SCHEMA,
            "config": config,
            "environment": environment("cpu") | surroundings() | {"kernel": platform.release()},
            "conclusion": list(sentences),
            "settings": self.settings,
            "comparison": [each.as_json() for each in self.comparison],
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def validate(
    settings: Sequence[Setting],
    tolerance: float,
    on_progress: OnProgress,
    folder: Path | None = None,
    profile: Profile | None = None,
) -> Validation:
    """Measure and predict every setting; what is in `folder` already is taken from there, and what is new put there."""
    found = Validation()
    costs = [[guess * (cell.repeats + 1) for guess, cell in zip(each.seconds(), each.cells, strict=True)]
             for each in settings]  # fmt: skip
    total, done = sum(map(sum, costs)), 0.0
    for setting, cost in zip(settings, costs, strict=True):

        def measuring(
            number: str, repeat: int, cost: list[float] = cost, setting: Setting = setting, before: float = done
        ) -> None:
            cell = setting.cells[int(number)]
            part = sum(cost[: int(number)]) + cost[int(number)] * (repeat + 1) / (cell.repeats + 1)
            on_progress(f"{cell.title}, P = {setting.cluster.ranks}, {setting.network}", before + part, total)

        on_progress(f"P = {setting.cluster.ranks}, {setting.network}", done, total)
        file = setting.file(folder)
        record, comparison = measured_before(file), None
        if record is not None:
            with suppress(*STRANGE):  # what no netsim wrote is measured again
                comparison = _compared(setting, record, profile, tolerance)
        if record is None or comparison is None:
            record = _measure(setting, measuring)
            if file is not None:
                _keep(record, file)
            comparison = _compared(setting, record, profile, tolerance)
        found.settings.append({name: record[name] for name in record if name != "cells"})
        found.comparison += comparison
        done += sum(cost)
    return found


def join(
    cells: tuple[Cell, ...], network: ClusterNetwork, backend: str, timeout_s: float, tolerance: float
) -> Validation:
    """Take part as one rank of torchrun's job; rank 0 gets what was compared, the others nothing.

    The network is a star whose links carry `network.bandwidth_bps`, or, if nobody says, what a large message
    between two ranks got.
    """
    machine = MachineRecord()
    found = join_work(_details(cells, LARGE_BYTES, backend, timeout_s))
    if not found:
        return Validation()
    points, *measured = found
    ranks = int(os.environ["WORLD_SIZE"])
    record = machine.record(f"{backend}, {network.words(points)}", points, measured)
    record["cores"] = record["cores"] if points["hosts"] == 1 else None
    carried = network.payload_or_nominal(points)
    fabric = Fabric(Cluster(ranks=ranks, bandwidth_bps=round(carried)).graph())
    model = Model(fabric, network.wire, carried, record["cores"], network.profile)
    comparison = compare(cells, record, ranks, model, tolerance)
    return Validation(comparison, [{name: record[name] for name in record if name != "cells"}])


@dataclass(frozen=True, slots=True)
class ClusterNetwork:
    """What is known of the real network under torchrun: what its links carry, and a profile."""

    bandwidth_bps: int | None = None
    profile: Profile | None = None

    @property
    def wire(self) -> Wire:
        """Frames of a cable; none, where the bandwidth was measured as payload."""
        return IDEAL_CABLE if self.bandwidth_bps is not None else Wire(header_bytes=0, ack_bytes=0)

    def payload_or_nominal(self, points: dict[str, Any]) -> float:
        """Return what links carry: as said, or in payload as the profile has it or as was measured."""
        if self.bandwidth_bps is not None:
            return self.bandwidth_bps
        return measured_bandwidth(points) if self.profile is None else self.profile.link.bandwidth_bps

    def words(self, points: dict[str, Any]) -> str:
        said = "" if self.bandwidth_bps is not None else " MEASURED"
        return f"links {format_bandwidth(self.payload_or_nominal(points))}{said}"


def _details(cells: tuple[Cell, ...], large_bytes: int, backend: str, timeout_s: float) -> dict[str, Any]:
    return {
        "work": "validate",
        "cells": [asdict(cell) for cell in cells],
        "large_bytes": large_bytes,
        "backend": backend,
        "timeout_s": timeout_s,
    }


class MachineRecord:
    """How busy this machine was before and while something was measured."""

    def __init__(self) -> None:
        self._load, self._began, self._ticks = os.getloadavg()[0], time.time(), processor_ticks()

    def record(self, network: str, points: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what was measured, with when that was and how busy the machine."""
        return {
            "network": network,
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._began)),
            "seconds": time.time() - self._began,
            "load_before": self._load,
            "processors_busy": busy_share((self._ticks, processor_ticks())),
            "points": points,
            "cores": len(os.sched_getaffinity(0)),
            "cells": cells,
        }


def _keep(record: dict[str, Any], file: Path) -> None:
    try:
        write_atomically(file, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise NetsimError(f"out {str(file)!r} could not be written: {reason_of(error)}") from error


def measured_before(file: Path | None) -> dict[str, Any] | None:
    """Return what `file` says was measured: None if there is none, or a damaged or an earlier one, which says less."""
    if file is None or not file.is_file():
        return None
    with suppress(*STRANGE):
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        json.dumps(record, allow_nan=False)
        if record["points"].keys() >= NEEDED and all("points" in cell for cell in record["cells"]):
            return record
    return None


def _compared(setting: Setting, record: dict[str, Any], profile: Profile | None, tolerance: float) -> list[Comparison]:
    """Predict what was measured at a setting, and compare."""
    model = _model(setting, record, profile)
    comparison = compare(setting.cells, record, setting.cluster.ranks, model, tolerance)
    json.dumps([each.as_json() for each in comparison], allow_nan=False)  # as the document will be written
    return comparison


def _measure(setting: Setting, on_repeat: Callable[[str, int], None]) -> dict[str, Any]:
    """Measure all cells of a setting."""
    cluster = setting.cluster
    large = min(LARGE_BYTES, int(LARGE_S * cluster.bandwidth_bps / 8))
    machine = MachineRecord()
    details = _details(setting.cells, large, "gloo", setting.timeout_s)
    with processors_awake() as awake:
        points, *cells = launch_work(details, cluster.ranks, on_repeat, cluster)
    record = machine.record(setting.network, points, cells)
    return record | {"cluster": asdict(cluster), "processors_awake": awake}


@dataclass(frozen=True, slots=True)
class Model:
    """What predictions are made with: a network whose links carry `bandwidth_bps`, and terms of its hosts.

    They come from points, as these were measured beside a cell, or from a profile. `cores` are what all ranks share.
    """

    fabric: Fabric
    wire: Wire
    bandwidth_bps: float
    cores: int | None
    profile: Profile | None = None

    def terms(self, points: dict[str, Any]) -> HostTerms:
        if self.profile is not None:
            return profile_terms(self.profile, self.cores)
        terms = host_terms(points, self.wire, self.bandwidth_bps, self.cores)
        return with_losses(terms, points["crowd_some_bytes"], points["crowd_some_s"], self.fabric, self.wire)


def _model(setting: Setting, record: dict[str, Any], profile: Profile | None) -> Model:
    cluster = setting.cluster
    return Model(Fabric(cluster.graph()), cluster.wire, cluster.bandwidth_bps, record["cores"], profile)


def compare(
    cells: tuple[Cell, ...], record: dict[str, Any], ranks: int, model: Model, tolerance: float
) -> list[Comparison]:
    """Predict all cells of a record, and compare."""
    rows: list[Comparison] = []
    for cell, out in zip(cells, record["cells"], strict=True):
        points, local = record["points"] | out["points"], out.get("local", {})
        terms, merging = model.terms(points), points["merge_s_per_byte"]
        seconds, sha256 = predicted(cell, model.fabric, model.wire, terms, merging, local)
        compared = [(cell.title, max(seconds), out["times"])]
        if cell.is_flows:
            flows = zip(seconds, out["by_rank"], strict=True)
            compared = [(cell.flow(rank, ranks), *flow) for rank, flow in enumerate(flows)]
        rows += [
            Comparison.of(
                *(one, times, tolerance),
                kind=cell.kind,
                algorithm=cell.name,
                title=title,
                workers=ranks,
                bytes=cell.bytes,
                sends=cell.sends,
                network=record["network"],
                processors_busy=out.get("processors_busy"),
                same_parameters=None if sha256 is None else out["sha256"] == [sha256],
            )
            for title, one, times in compared
        ]
    return rows


def conclude(validation: Validation, tolerance: float) -> list[str]:
    """Return in sentences how well predictions agree."""
    rows = validation.comparison
    exchanges = [each for each in rows if each.kind == "exchange"]
    groups = {
        "messages of 400 kB and more": [each for each in exchanges if each.bytes >= 400_000],
        "messages of 100 to 400 kB": [each for each in exchanges if 100_000 <= each.bytes < 400_000],
        "messages below 100 kB": [each for each in exchanges if each.bytes < 100_000],
        "rounds of training": [each for each in rows if each.kind == "round"],
    }
    sentences = []
    for name, group in groups.items():
        if group:
            median, most = summary([each.error for each in group])
            sentences.append(f"Of {name}, {len(group)}: |error| {median:.1%} in the median, {most:.1%} at the worst.")
    if crowded := [each for each in rows if (each.processors_busy or 0.0) >= CROWDED]:
        most_busy = max(crowded, key=lambda each: each.processors_busy or 0.0)
        sentences.append(
            f"In {len(crowded)} of {len(rows)} the processors were {CROWDED:.0%} busy or more, up to "
            f"{most_busy.processors_busy:.0%} busy during {most_busy.title}, P = {most_busy.workers}, "
            f"{most_busy.network}: there this machine limits what is measured, not the links alone. "
            "Take fewer ranks, less bandwidth or more processors."
        )
    if trained := [each for each in rows if each.same_parameters is not None]:
        same = sum(bool(each.same_parameters) for each in trained)
        sentences.append(f"Parameters after the real run equal the simulated ones in {same} of {len(trained)} runs.")
    off = [each for each in rows if each.verdict == "off"]
    worst = max(rows, key=lambda each: abs(each.error))
    sentences.append(
        f"{f'All {len(rows)} predictions are' if len(rows) > 1 else 'The prediction is'} within {tolerance:.0%}."
        if not off
        else f"{len(off)} of {len(rows)} predictions are off by more than {tolerance:.0%}, the worst by "
        f"{worst.error:+.1%}: {worst.title}, P = {worst.workers}, {worst.network}."
    )
    return sentences
