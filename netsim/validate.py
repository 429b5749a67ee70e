"""Validation: settings that are measured on a real cluster and predicted, and what comes out."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from netsim.backends.kernel import HostTerms
from netsim.cluster.plan import Cluster
from netsim.launch import launch_work
from netsim.network.fabric import Fabric
from netsim.storage import write_atomically
from netsim.system import environment, surroundings
from netsim.units import format_bandwidth
from netsim.validation.cells import Cell, predicted
from netsim.validation.comparison import Comparison, summary
from netsim.validation.points import host_terms

SCHEMA = "netsim.validation/1"
LARGE_S = 0.1
LARGE_BYTES = 2 * 10**6
"""The large message of the point-to-point measurements takes about so long, and has at most so many bytes."""
TYPICAL = HostTerms(wake_s=4e-4, work_s=3e-4, byte_s=1e-9, cores=2)
"""Of a machine of two cores: for guessing, before anything is measured, how long measuring takes."""

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

    def seconds(self) -> list[float]:
        """Return about how long a repeat of every cell takes."""
        fabric, wire = Fabric(self.cluster.graph()), self.cluster.wire
        guesses: list[float] = []
        for cell in self.cells:
            exchange = cell if cell.experiment is None else _like_a_round(cell)
            rounds = 1 if cell.experiment is None else int(cell.experiment["rounds"])
            guesses.append(rounds * max(predicted(exchange, fabric, wire, TYPICAL, 0.0, {})[0]) + 0.05)
        return guesses


def _like_a_round(cell: Cell) -> Cell:
    """Return an exchange that takes about as long as a round."""
    return Cell(name="ps-in", bytes=cell.bytes, sends="eager", repeats=cell.repeats)


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
    settings: Sequence[Setting], tolerance: float, on_progress: OnProgress, folder: Path | None = None
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
        file = None if folder is None else folder / f"{setting.key}.json"
        record = json.loads(file.read_text()) if file is not None and file.exists() else _measure(setting, measuring)
        if file is not None and not file.exists():
            write_atomically(file, json.dumps(record, indent=1) + "\n")
        found.settings.append({name: record[name] for name in record if name != "cells"})
        found.comparison += _compare(setting, record, tolerance)
        done += sum(cost)
    return found


def _measure(setting: Setting, on_repeat: Callable[[str, int], None]) -> dict[str, Any]:
    """Measure all cells of a setting."""
    cluster = setting.cluster
    large = min(LARGE_BYTES, int(LARGE_S * cluster.bandwidth_bps / 8))
    details = {
        "work": "validate",
        "cells": [asdict(cell) for cell in setting.cells],
        "large_bytes": large,
        "backend": "gloo",
        "timeout_s": setting.timeout_s,
    }
    before, began = os.getloadavg()[0], time.time()
    points, *cells = launch_work(details, cluster.ranks, on_repeat, cluster)
    return {
        "network": setting.network,
        "cluster": asdict(cluster),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
        "seconds": time.time() - began,
        "load_before": before,
        "points": points,
        "cores": len(os.sched_getaffinity(0)),
        "cells": cells,
    }


def _compare(setting: Setting, record: dict[str, Any], tolerance: float) -> list[Comparison]:
    """Predict all cells of a setting from its points, and compare."""
    cluster, points = setting.cluster, record["points"]
    terms = host_terms(points, cluster.wire, cluster.bandwidth_bps, record["cores"])
    fabric = Fabric(cluster.graph())
    rows: list[Comparison] = []
    for cell, out in zip(setting.cells, record["cells"], strict=True):
        local = out.get("local", {})
        seconds, sha256 = predicted(cell, fabric, cluster.wire, terms, points["merge_s_per_byte"], local)
        same = None if sha256 is None else out["sha256"] == [sha256]
        compared = [(cell.title, max(seconds), out["times"])]
        if cell.is_flows:
            flows = zip(seconds, out["by_rank"], strict=True)
            compared = [(cell.flow(rank, cluster.ranks), *flow) for rank, flow in enumerate(flows)]
        rows += [
            Comparison.of(
                *(one, times, tolerance),
                kind=cell.kind,
                algorithm=cell.name,
                title=title,
                workers=cluster.ranks,
                bytes=cell.bytes,
                sends=cell.sends,
                network=setting.network,
                same_parameters=same,
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
    if trained := [each for each in rows if each.same_parameters is not None]:
        same = sum(bool(each.same_parameters) for each in trained)
        sentences.append(f"Parameters after the real run equal the simulated ones in {same} of {len(trained)} runs.")
    off = [each for each in rows if each.verdict == "off"]
    worst = max(rows, key=lambda each: abs(each.error))
    sentences.append(
        f"All {len(rows)} predictions are within {tolerance:.0%}."
        if not off
        else f"{len(off)} of {len(rows)} predictions are off by more than {tolerance:.0%}, the worst by "
        f"{worst.error:+.1%}: {worst.title}, P = {worst.workers}, {worst.network}."
    )
    return sentences
