"""Kinds of input, and how many of each are tried: one process a kind, which another watches."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz import commands, files, processes, texts
from tests.fuzz.law import ROOT, SHOWN, Case, guard, judged, warm_up

MOST_MEMORY = 16 * 2**30
"""Bytes of address space of a process; an input that wants more is a fault, not the machine's end."""
MOST_ENDINGS = 20


class Kind(NamedTuple):
    """How an input is drawn, and how many there are in the suite and in the long run of a million."""

    draw: Callable[[Random, Path], Case]
    quick: int
    long: int
    watched: bool = True
    """Whether what is written is watched; processes of their own are not."""


KINDS = {
    "units": Kind(texts.units, 30_000, 760_000),
    "options": Kind(texts.options, 3_000, 100_000),
    "keys": Kind(texts.keys, 1_500, 40_000),
    "networks": Kind(files.networks, 300, 12_000),
    "formats": Kind(files.formats, 600, 24_000),
    "traces": Kind(files.profiler_traces, 300, 12_000),
    "flows": Kind(files.flows, 300, 12_000),
    "background": Kind(files.background, 300, 12_000),
    "studies": Kind(files.studies, 300, 12_000),
    "profiles": Kind(files.profiles, 300, 12_000),
    "tables": Kind(files.tables, 300, 12_000),
    "validations": Kind(files.validations, 100, 4_000),
    "points": Kind(files.points, 60, 3_000),
    "checkpoints": Kind(files.checkpoints, 200, 8_000),
    "data": Kind(files.data, 400, 12_000),
    "commands": Kind(commands.options, 300, 12_000),
    "processes": Kind(processes.processes, 12, 1_000, watched=False),
}


@dataclass
class Tally:
    """What came of a kind: `faults` has each fault once, with the index of the first input that showed it."""

    kind: str
    inputs: int = 0
    worst_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def note(self, what: str, where: str, told: str) -> None:
        """Count a fault, and keep the first of its kind."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.faults.setdefault(f"{what}: {where}", told)


def drawn(kind: str, seed: int, index: int, folder: Path) -> Case:
    """Return one input; the same for the same seed and index."""
    return KINDS[kind].draw(Random(f"{kind} {seed} {index}"), folder)


def work(kind: str, seed: int, first: int, last: int, seconds: float) -> int:
    """Try inputs in this process, and print the tally; on stderr, the number of the input that is tried."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    warnings.simplefilter("error")
    tally = Tally(kind)
    place = tempfile.TemporaryDirectory(prefix="fuzz-")
    with place as name, contextlib.chdir(name), Path(os.environ[PROGRESS]).open("r+b", buffering=0) as progress:
        folder = Path(name).resolve()
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        if KINDS[kind].watched:
            if kind not in ("units", "options"):
                warm_up()
            guard(folder)
        end = time.monotonic() + seconds  # a slow machine takes longer to import netsim, and tries as many
        for index in range(first, last):
            if time.monotonic() > end:
                break
            progress.seek(0)
            progress.write(b"%d\n" % index)
            began = time.perf_counter()
            fault = judged(drawn(kind, seed, index, folder))
            tally.worst_s = max(tally.worst_s, time.perf_counter() - began)
            tally.inputs += 1
            if fault is not None:
                shown = short(drawn(kind, seed, index, folder).shown)
                tally.note(fault.what, fault.where, f"{fault.said}\n    {again(kind, seed, index)}\n    {shown}")
    print(json.dumps(asdict(tally)))  # noqa: T201
    return 0


def short(text: str) -> str:
    """Return a text without its middle, if it is long."""
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]} … {text[-SHOWN:]}"


PROGRESS = "NETSIM_FUZZ_PROGRESS"


def again(kind: str, seed: int, index: int) -> str:
    """Return what tries one input again."""
    return f"python -m tests.fuzz --kind {kind} --seed {seed} --index {index}"


def tried(kind: str, seed: int, first: int, last: int, seconds: float) -> Tally:
    """Try the inputs in processes of their own, a new one after each input that ends its process.

    A process tries inputs for so many seconds. It ends early after :data:`MOST_ENDINGS` that ended a process.
    """
    whole, endings = Tally(kind), 0
    while first < last and endings < MOST_ENDINGS:
        with tempfile.NamedTemporaryFile(prefix="fuzz-progress-") as progress:
            command = [sys.executable, "-m", "tests.fuzz", "--work", "--kind", kind, "--seed", str(seed), "--first",
                       str(first), "--last", str(last), "--seconds", str(seconds)]  # fmt: skip
            ended = subprocess.run(
                command, cwd=ROOT, env=os.environ | {PROGRESS: progress.name}, capture_output=True, text=True
            )
            if ended.returncode == 0:
                _add(whole, json.loads(ended.stdout.splitlines()[-1]))
                return whole
            index = int(progress.read().split(b"\n")[0] or first)
        whole.inputs += index + 1 - first
        what = "hang" if "Timeout" in ended.stderr else "crash"
        whole.note(what, f"status {ended.returncode}", f"{ended.stderr[-3000:]}\n    {again(kind, seed, index)}")
        first, endings = index + 1, endings + 1
    return whole


def _add(whole: Tally, part: dict[str, object]) -> None:
    found = Tally(**part)  # type: ignore[arg-type]
    whole.inputs += found.inputs
    whole.worst_s = max(whole.worst_s, found.worst_s)
    for what, count in found.counts.items():
        whole.counts[what] = whole.counts.get(what, 0) + count
    whole.faults = found.faults | whole.faults


def table(tallies: Sequence[Tally]) -> str:
    """Return the counts of all kinds, as text."""
    columns = ["kind", "inputs", "tracebacks", "hangs", "exits", "others", "worst (s)"]
    rows = [columns]
    for each in tallies:
        known = [each.counts.get(what, 0) for what in ("traceback", "hang", "exit")]
        others = sum(each.counts.values()) - sum(known)
        rows.append([each.kind, f"{each.inputs:,}", *map(str, known), str(others), f"{each.worst_s:.2f}"])
    sums = [sum(int(row[column]) for row in rows[1:]) for column in range(2, 6)]
    total = f"{sum(each.inputs for each in tallies):,}"
    rows.append(["all", total, *map(str, sums), f"{max(each.worst_s for each in tallies):.2f}"])
    return "\n".join("  ".join(f"{cell:>12}" for cell in row) for row in rows)
