"""Record what this checkout answers, and compare two records: a redesign must not change an answer.

    python benchmarks/answers.py record before.json      # in the old checkout, or `record --quick`
    python benchmarks/answers.py record after.json       # in the new one
    python benchmarks/answers.py compare before.json after.json

A record holds three things: the times and bytes of every algorithm on four topologies without data; the SHA-256 of the
parameters that every algorithm trains, and its bytes; and when each of 2,000 flows of random traffic ends. It uses the
command line alone, so that it works in any version. Numbers with a fraction must agree to 1e-9, everything else
exactly; the exit status is 4 if something differs.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ALGORITHMS = ("dense", "dense-tree", "topk", "gtopk", "gtopk-naive", "gtopk-hier", "randk", "ps", "ps-topk", "lag",
              "lasg-wk1", "lasg-wk2", "lasg-ps", "sasg")  # fmt: skip
TOPOLOGIES = ("star", "ring", "racks", "fat-tree")
WORKERS = (2, 3, 8, 48, 64, 1024)
QUICK = (2, 3, 8)
TOLERANCE = 1e-9
"""Relative: sums of the same numbers in another order differ by less."""
UNCOMPARED = ("title", "way", "way_reason")
"""Words, which a redesign may change."""

Answers = dict[str, Any]


def netsim(*arguments: str) -> Any:
    """Return the JSON that a command prints; its error line, if it has one instead."""
    command = [sys.executable, "-m", "netsim", *arguments, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(ran.stdout) if ran.returncode == 0 else {"error": ran.stderr.strip()}


def results(name: str, *arguments: str) -> Iterator[tuple[str, Any]]:
    """Yield each algorithm's result of one simulation, under a name."""
    found = netsim("simulate", *arguments)
    for result in found.get("results", ()):
        yield f"{name} {result['algorithm']}", {key: result[key] for key in result if key not in UNCOMPARED}
    if "error" in found:
        yield name, found


def record(workers: tuple[int, ...]) -> Answers:
    """Return everything that this checkout answers."""
    answers: Answers = {}
    every = f"--algorithm={','.join(ALGORITHMS)}"
    for topology in TOPOLOGIES:
        for count in workers:
            sizes = ("--timing-only", "--elements=1000000", "--latency=50us", f"--workers={count}")
            answers |= dict(results(f"sizes {topology} {count}", *sizes, every, f"--topology={topology}"))
            print(f"{topology}, {count} workers", file=sys.stderr)
    for count in (3, 4):
        trained = ("--rounds=10", "--compute-time=1ms", "--select-time=0s", "--merge-time=0s", f"--workers={count}")
        answers |= dict(results(f"trained {count}", *trained, every))
    return answers | traffic()


def traffic(flows: int = 2000, hosts: int = 64) -> Answers:
    """Return when flows of random sizes between random hosts in racks end."""
    random = np.random.default_rng(7)
    sources = random.integers(0, hosts, flows)
    targets = (sources + random.integers(1, hosts, flows)) % hosts
    sizes, starts = random.lognormal(math.log(1e6), 1.5, flows), random.random(flows) * 2
    lines = [
        f"worker{source},worker{target},{max(1, round(size))},{start:.6f}"
        for source, target, size, start in zip(sources, targets, sizes, starts, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "flows.csv"
        file.write_text("src,dst,bytes,start_s\n" + "\n".join(lines) + "\n")
        found = netsim("flows", "--topology=racks", f"--workers={hosts}", f"--flows={file}")
    return {f"flow {number}": flow for number, flow in enumerate(found["flows"])}


def differences(before: Answers, after: Answers) -> Iterator[str]:
    """Yield a line for each answer that is not the same."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            yield f"{name}: only in the {'second' if old is None else 'first'} record"
            continue
        for key in sorted(old.keys() | new.keys()):
            was, now = old.get(key), new.get(key)
            numbers = isinstance(was, float) and isinstance(now, float)
            if was != now and not (numbers and math.isclose(was, now, rel_tol=TOLERANCE)):
                yield f"{name}: {key} was {was}, is {now}"


def main() -> int:
    """Record or compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    recording = commands.add_parser("record")
    recording.add_argument("file", type=Path)
    recording.add_argument("--quick", action="store_true", help="at most 8 workers")
    comparing = commands.add_parser("compare")
    comparing.add_argument("files", type=Path, nargs=2)
    asked = parser.parse_args()
    if asked.command == "record":
        answers = record(QUICK if asked.quick else WORKERS)
        asked.file.write_text(json.dumps(answers, indent=1))
        print(f"{len(answers)} answers recorded")
        return 0
    before, after = (json.loads(file.read_text()) for file in asked.files)
    found = list(differences(before, after))
    print("\n".join([*found, f"{len(before)} answers compared, {len(found)} differ"]))
    return 4 if found else 0


if __name__ == "__main__":
    sys.exit(main())
