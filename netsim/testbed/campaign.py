"""Validation campaigns: exchanges and rounds are measured on a real cluster, predicted, and compared."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from algorithms import class_of
from netsim._util.checksummed_file import STRANGE
from netsim._util.errors import NetsimError, reason_of
from netsim._util.storage import write_atomically
from netsim._util.system import busy_share, inhibit_cpu_idle, processor_ticks
from netsim._util.units import format_bandwidth
from netsim.cluster.framing import IDEAL_CABLE, Wire
from netsim.cluster.plan import Cluster
from netsim.comm.worker import EARLIER_SENDS
from netsim.distributed.launch import join_work, launch_work
from netsim.experiment.profile import Profile
from netsim.network.fabric import Fabric
from netsim.testbed.cells import TASK, Cell
from netsim.testbed.comparison import Comparison
from netsim.testbed.host_model import HostTerms
from netsim.testbed.p2p_fits import measured_bandwidth
from netsim.testbed.p2p_measurements import REQUIRED_KEYS, P2PMeasurements
from netsim.testbed.predict import ClusterModel, predicted_exchange
from netsim.testbed.validation import Validation

LARGE_S = 0.1
LARGE_BYTES = 2 * 10**6
"""The large point-to-point message occupies its link for about LARGE_S seconds, and has at most LARGE_BYTES."""
TYPICAL = HostTerms(
    wake_warm_s=2e-4,
    wake_cold_s=4e-4,
    cpu_per_message_s=2e-4,
    delivery_lag_s_per_byte=1e-9,
    cores=2,
)
"""Typical terms of a machine with two cores, for the estimate of how long a campaign takes."""

OnProgress = Callable[[str, float, float], None]
"""Called with the cell that is measured, the estimated seconds of finished measurements, and those of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A shaped cluster on this machine, and the cells that are measured in it.

    Parameters
    ----------
    cluster
        The shaped cluster.
    cells
        Exchanges and rounds of training.
    timeout_s
        Seconds after which an operation that waits fails.
    """

    cluster: Cluster
    cells: tuple[Cell, ...]
    timeout_s: float = 30.0

    @property
    def network(self) -> str:
        """Name of the network in words."""
        cluster = self.cluster
        trunk = ""
        if cluster.trunk_bps is not None:
            trunk = f", two racks {cluster.placement}, trunk {format_bandwidth(cluster.trunk_bps)}"
        latency = f", {cluster.latency_s * 1e3:g} ms" if cluster.latency_s else ""
        return f"{cluster.shaping} {format_bandwidth(cluster.bandwidth_bps)}{latency}{trunk}"

    @property
    def key(self) -> str:
        """The digest that names this setting's file; it contains the names of EARLIER_SENDS, as in earlier versions."""
        fields = asdict(self)
        for cell in fields["cells"]:
            cell["sends"] = next((old for old, new in EARLIER_SENDS.items() if new == cell["sends"]), cell["sends"])
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def file(self, folder: Path | None) -> Path | None:
        """Return the file of this setting's measurements in a folder; None without a folder."""
        return None if folder is None else folder / f"{self.key}.json"

    def seconds(self) -> list[float]:
        """Return the estimated seconds of one repeat of each cell."""
        fabric, wire = Fabric(self.cluster.graph()), self.cluster.wire
        estimates: list[float] = []
        for cell in self.cells:
            similar, times = (cell, 1) if cell.experiment is None else _similar_exchange(cell)
            seconds = predicted_exchange(similar.name, similar.bytes, similar.sends, fabric, wire, TYPICAL)
            estimates.append(times * max(seconds) + 0.05)
        return estimates


def _similar_exchange(cell: Cell) -> tuple[Cell, int]:
    """Return an exchange that takes about as long as an exchange of a cell's algorithm, and the number of exchanges."""
    assert cell.experiment is not None
    algorithm, rounds = class_of(cell.name), int(cell.experiment["rounds"])
    name = "ps-in" if algorithm.uses_server else "gtopk-tree" if algorithm.sparse else "ring-all-reduce"
    return replace(cell, name=name, experiment=None), 2 * rounds if algorithm.uses_server else rounds


def validate(
    settings: Sequence[Setting],
    tolerance: float,
    on_progress: OnProgress,
    folder: Path | None = None,
    profile: Profile | None = None,
) -> Validation:
    """Measure and predict every setting.

    Parameters
    ----------
    settings
        Clusters and cells.
    tolerance
        Largest relative error at which a prediction agrees.
    on_progress
        Called as measurements proceed.
    folder
        Folder of stored measurements; a setting with a file here is not measured again, and others are stored here.
    profile
        Profile with the hosts' terms; None to derive the terms from the measurements beside each cell.
    """
    records: list[dict[str, Any]] = []
    comparison: list[Comparison] = []
    costs = [
        [seconds * (cell.repeats + 1) for seconds, cell in zip(setting.seconds(), setting.cells, strict=True)]
        for setting in settings
    ]
    total, done = sum(map(sum, costs)), 0.0
    for setting, cost in zip(settings, costs, strict=True):

        def repeated(
            cell_index: str, repeat: int, cost: list[float] = cost, setting: Setting = setting, before: float = done
        ) -> None:
            index = int(cell_index)
            cell = setting.cells[index]
            part = sum(cost[:index]) + cost[index] * (repeat + 1) / (cell.repeats + 1)
            on_progress(f"{cell.title}, P = {setting.cluster.ranks}, {setting.network}", before + part, total)

        on_progress(f"P = {setting.cluster.ranks}, {setting.network}", done, total)
        predict = partial(_compared, setting, profile=profile, tolerance=tolerance)
        record, compared = _stored_or_measured(setting, setting.file(folder), predict, repeated)
        records.append(_without_cells(record))
        comparison += compared
        done += sum(cost)
    return Validation(comparison, records)


def _stored_or_measured(
    setting: Setting,
    file: Path | None,
    predict: Callable[[dict[str, Any]], list[Comparison]],
    on_repeat: Callable[[str, int], None],
) -> tuple[dict[str, Any], list[Comparison]]:
    """Return the record of a setting, and the comparison that ``predict(record)`` makes of it.

    A record in `file` is used unless netsim did not write it, or no simulation can take its values. Otherwise the
    setting is measured, and the file written.
    """
    if (stored := stored_record(file)) is not None:
        with suppress(*STRANGE, NetsimError):
            return stored, predict(stored)
    record = _measure(setting, on_repeat)
    if file is not None:
        _store(record, file)
    return record, predict(record)


def join(
    cells: tuple[Cell, ...], network: ClusterNetwork, backend: str, timeout_s: float, tolerance: float
) -> Validation:
    """Measure and predict as one rank of torchrun's job; rank 0 gets the comparison, other ranks an empty one.

    The network is assumed to be a star.

    Parameters
    ----------
    cells
        Exchanges and rounds of training.
    network
        The known properties of the links.
    backend, timeout_s
        Backend of torch.distributed, and the seconds after which an operation that waits fails.
    tolerance
        Largest relative error at which a prediction agrees.
    """
    machine = MachineRecord()
    results = join_work(_details(cells, LARGE_BYTES, backend, timeout_s))
    if not results:
        return Validation(())
    p2p_json, *measured_cells = results
    p2p = P2PMeasurements.from_json(p2p_json)
    ranks = int(os.environ["WORLD_SIZE"])
    record = machine.record(f"{backend}, {network.words(p2p)}", p2p_json, cells, measured_cells)
    record["cores"] = record["cores"] if p2p.hosts == 1 else None
    bandwidth_bps = network.bandwidth_of(p2p)
    fabric = Fabric(Cluster(ranks=ranks, bandwidth_bps=round(bandwidth_bps)).graph())
    model = ClusterModel(fabric, network.wire, bandwidth_bps, record["cores"], network.profile)
    return Validation(compare(cells, record, model, tolerance), [_without_cells(record)])


def _without_cells(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "cells"}


@dataclass(frozen=True, slots=True)
class ClusterNetwork:
    """The known properties of the real network under torchrun.

    Parameters
    ----------
    bandwidth_bps
        Nominal bandwidth of the links in bit/s; None to take the payload rate from the profile or a measurement.
    profile
        Profile with the hosts' terms; None to measure the terms.
    """

    bandwidth_bps: int | None = None
    profile: Profile | None = None

    @property
    def wire(self) -> Wire:
        """Framing of a cable; no framing if the bandwidth is a payload rate."""
        return IDEAL_CABLE if self.bandwidth_bps is not None else Wire(header_bytes=0, ack_bytes=0)

    def bandwidth_of(self, measured: P2PMeasurements) -> float:
        """Return the links' bandwidth in bit/s: the nominal one, or the payload rate of the profile or measurement."""
        if self.bandwidth_bps is not None:
            return self.bandwidth_bps
        return measured_bandwidth(measured) if self.profile is None else self.profile.link.bandwidth_bps

    def words(self, measured: P2PMeasurements) -> str:
        """Return the name of the network in words."""
        provenance = "" if self.bandwidth_bps is not None else " MEASURED"
        return f"links {format_bandwidth(self.bandwidth_of(measured))}{provenance}"


def _details(cells: tuple[Cell, ...], large_bytes: int, backend: str, timeout_s: float) -> dict[str, Any]:
    """Return the job of every rank (:func:`netsim.testbed.cells.measure_as_rank`)."""
    return {
        "work": TASK,
        "cells": [asdict(cell) for cell in cells],
        "large_bytes": large_bytes,
        "backend": backend,
        "timeout_s": timeout_s,
    }


class MachineRecord:
    """The load of this machine before and during a measurement that starts with the construction of this object."""

    def __init__(self) -> None:
        self._load, self._began, self._ticks = os.getloadavg()[0], time.time(), processor_ticks()

    def record(
        self, network: str, p2p: dict[str, Any], cells: Sequence[Cell], measured_cells: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the stored form of a measurement that has just ended.

        Parameters
        ----------
        network
            Name of the network in words.
        p2p, measured_cells
            Results of :func:`netsim.testbed.cells.measure_as_rank`.
        cells
            The measured cells; the record holds each with its results.
        """
        return {
            "network": network,
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._began)),
            "seconds": time.time() - self._began,
            "load_before": self._load,
            "processors_busy": busy_share((self._ticks, processor_ticks())),
            "points": p2p,
            "cores": len(os.sched_getaffinity(0)),
            "cells": [measured | {"cell": asdict(cell)} for cell, measured in zip(cells, measured_cells, strict=True)],
        }


def _store(record: dict[str, Any], file: Path) -> None:
    try:
        write_atomically(file, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise NetsimError(f"out {str(file)!r} could not be written: {reason_of(error)}") from error


def stored_record(file: Path | None) -> dict[str, Any] | None:
    """Return the record in a file; None if the file is missing or damaged, or lacks measurements."""
    if file is None or not file.is_file():
        return None
    with suppress(*STRANGE):
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        json.dumps(record, allow_nan=False)
        cores = record.get("cores")
        whole = record["points"].keys() >= REQUIRED_KEYS and all("points" in measured for measured in record["cells"])
        if whole and (cores is None or (type(cores) is int and cores >= 1)):
            return record
    return None


def _compared(setting: Setting, record: dict[str, Any], profile: Profile | None, tolerance: float) -> list[Comparison]:
    """Predict the cells of a setting, and compare the predictions with the record."""
    comparison = compare(setting.cells, record, model_of(setting.cluster, record["cores"], profile), tolerance)
    json.dumps([row.as_json() for row in comparison], allow_nan=False)  # as the document will be written
    return comparison


def _measure(setting: Setting, on_repeat: Callable[[str, int], None]) -> dict[str, Any]:
    """Build the cluster of a setting, and measure all cells in it."""
    cluster = setting.cluster
    large = min(LARGE_BYTES, int(LARGE_S * cluster.bandwidth_bps / 8))
    machine = MachineRecord()
    details = _details(setting.cells, large, "gloo", setting.timeout_s)
    with inhibit_cpu_idle() as inhibited:
        p2p, *measured_cells = launch_work(details, cluster.ranks, on_repeat, cluster)
    record = machine.record(setting.network, p2p, setting.cells, measured_cells)
    return record | {"cluster": asdict(cluster), "processors_awake": inhibited}


def model_of(cluster: Cluster, cores: int | None, profile: Profile | None = None) -> ClusterModel:
    """Return the model of a shaped cluster whose ranks share `cores` cores; with None each rank has its own core."""
    return ClusterModel(Fabric(cluster.graph()), cluster.wire, cluster.bandwidth_bps, cores, profile)


def compare(cells: Sequence[Cell], record: dict[str, Any], model: ClusterModel, tolerance: float) -> list[Comparison]:
    """Predict all cells of a record, and compare the predictions with the measurements.

    Parameters
    ----------
    cells
        The measured cells.
    record
        The stored measurements of the cells.
    model
        The model that predicts them.
    tolerance
        Largest relative error at which a prediction agrees.
    """
    ranks = len(model.fabric.hosts)
    rows: list[Comparison] = []
    for cell, measured in zip(cells, record["cells"], strict=True):
        p2p = P2PMeasurements.from_json(record["points"] | measured["points"])
        seconds, sha256 = model.predicted(cell, p2p, measured.get("local", {}))
        compared = [(cell.title, max(seconds), measured["times"])]
        if cell.is_flows:
            flows = zip(seconds, measured["by_rank"], strict=True)
            compared = [(cell.flow(rank, ranks), *flow) for rank, flow in enumerate(flows)]
        rows += [
            Comparison.of(
                *(predicted_s, times, tolerance),
                kind=cell.kind,
                algorithm=cell.name,
                title=title,
                workers=ranks,
                bytes=cell.bytes,
                sends=cell.sends,
                network=record["network"],
                processors_busy=measured.get("processors_busy"),
                same_parameters=None if sha256 is None else measured["sha256"] == [sha256],
            )
            for title, predicted_s, times in compared
        ]
    return rows
