"""The network model beside SimGrid's, in C++ and in Python: the same work on the same links, in turns.

All links have 1 Gbit/s and 25 µs. Work, for P workers:

    W1   ring all-reduce of 100 MB                    W4   parameter server: 200 kB from each, then 100 MB to each
    W2   gTop-k tree, k = 25,000 (8 bytes an entry)   W5   one random permutation, log-normal sizes, racks of 16 with
    W3   ring all-gather of 200 kB a worker                4:1 uplinks; W5x: ten of them, random starts within 2 s

SimGrid runs benchmarks/simgrid/flows.cpp (and flows.py) with CM02, cross-traffic and TCP gamma off; netsim runs
benchmarks/network_ways.py, which says what its ways are. Each run is a process of its own, and all take turns.
A ratio is SimGrid's median time by netsim's: above 1 netsim is faster. *Loop* is the simulation, from links and
hosts being there to the last message, with the look-up of routes; *process* is all of it, from start to exit.

    python benchmarks/network.py --way events,batched                         # needs g++ and libsimgrid-dev
    python benchmarks/network.py --work W1 --workers 64 --binding python3     # a Python that has SimGrid's binding
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
WORK = ("W1", "W2", "W3", "W4", "W5", "W5x")
WAYS = ("events", "algorithms", "batched", "compiled")
RACKS = ("W5", "W5x")
CPP, BINDING = "SimGrid C++", "SimGrid Python"
CANNOT = {**dict.fromkeys(WAYS[1:], RACKS), BINDING: ("W2", "W4", *RACKS)}
"""What was not written for a side: no algorithm sends random traffic, and in Python the rings are enough."""


def compiled(folder: Path) -> list[str] | None:
    """Compile SimGrid's side; return its command, None where that cannot be had."""
    program = folder / "flows"
    if shutil.which("g++") is None:
        print("no SimGrid C++: there is no g++ (apt install g++ libsimgrid-dev)", file=sys.stderr)
        return None
    made = subprocess.run(
        ["g++", "-O3", "-std=c++17", str(HERE / "simgrid" / "flows.cpp"), "-o", str(program), "-lsimgrid"],
        capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode:
        reason = next((line for line in made.stderr.splitlines() if "error" in line), made.stderr)
        print(f"no SimGrid C++: {reason} (apt install libsimgrid-dev)", file=sys.stderr)
        return None
    return [str(program)]


def write_traffic(file: Path, work: str, workers: int) -> None:
    """Write W5's flows: sources with their targets, bytes of median 1 MB and σ 1.5, starts."""
    random = np.random.default_rng(5)
    lines = []
    for _ in range(10 if work == "W5x" else 1):
        targets = random.permutation(workers)
        nbytes = np.maximum(1, 1e6 * random.lognormal(0, 1.5, workers)).astype(np.int64)
        starts = random.random(workers) * (2 if work == "W5x" else 0)
        flows = zip(targets.tolist(), nbytes.tolist(), starts.tolist(), strict=True)
        lines += [f"{src} {dst} {size} {start!r}\n" for src, (dst, size, start) in enumerate(flows) if src != dst]
    file.write_text("".join(lines))


def closed_form(work: str, workers: int) -> float | None:
    """Return the seconds that the work takes by arithmetic; None for W5."""
    alpha, beta = 50e-6, 8e-9
    ring, levels = 100_000_000 // workers // 4 * 4, (workers - 1).bit_length()
    return {
        "W1": 2 * (workers - 1) * (alpha + ring * beta),
        "W2": 2 * levels * (alpha + 200_000 * beta),
        "W3": (workers - 1) * (alpha + 200_000 * beta),
        "W4": 2 * alpha + (workers - 1) * (200_000 + 100_000_000) * beta,
    }.get(work)


def run(command: list[str], seconds: float) -> dict[str, Any] | None:
    """Run one side; return what it printed and how long the process took, None if it did not end in time."""
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"process_s": took}


def measure(work: str, workers: int, sides: dict[str, list[str]], options: argparse.Namespace) -> dict[str, Any]:
    """Have all sides do the same work in turns; return the medians of each."""
    with tempfile.TemporaryDirectory() as folder:
        traffic = []
        if work in RACKS:
            traffic = [f"{folder}/traffic"]
            write_traffic(Path(traffic[0]), work, workers)
        runs: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(options.repeats):
            for side, command in sides.items():
                if work in CANNOT.get(side, ()):
                    continue
                name = "w5" if work in RACKS else work.lower()
                own = [name, str(workers)] + ([side] if side in WAYS else []) + traffic
                if (result := run(command + own, options.limit)) is not None:
                    runs[side].append(result)
    found: dict[str, Any] = {"work": work, "workers": workers, "sides": {}}
    for side, results in runs.items():
        last = results[-1]
        found["messages"] = last["messages"]
        found["sides"][side] = {
            "loop_s": statistics.median(result["loop_s"] for result in results),
            "process_s": statistics.median(result["process_s"] for result in results),
            "loop_cpu_s": statistics.median(result.get("loop_cpu_s", 0.0) for result in results),
            "loops_s": [result["loop_s"] for result in results],
            "end_s": last["end_s"],
            "off": off(work, workers, last, runs),
        }
    return found


def off(work: str, workers: int, result: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return how far simulated time is from the closed form, relatively, or W5's ends from SimGrid's at most."""
    if (exact := closed_form(work, workers)) is not None:
        return f"{abs(result['end_s'] / exact - 1):.0e}"
    if not runs.get(CPP):
        return "–"
    apart = np.subtract(result["finish_s"], runs[CPP][-1]["finish_s"])
    return f"{np.abs(apart).max() * 1e9:.1g} ns"


def show(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Print one line a side."""
    sides = found["sides"]
    for side, times in sides.items():
        ratios = [
            f"{sides[other][key] / times[key]:7.2f}" if other in sides and side in WAYS else " " * 7
            for other in (CPP, BINDING)
            for key in ("loop_s", "process_s")
        ]
        pace = found["messages"] / times["loop_s"]
        print(
            f"{found['work']:3} {found['workers']:5} {found['messages']:9,}  {side:15}"
            f"{times['loop_s']:9.4f}{times['process_s']:9.3f}{pace:12,.0f}  {' '.join(ratios)}  {times['off']:>8}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default=",".join(WORK), help="which, with commas")
    parser.add_argument("--workers", default="8,64,256,1024", help="P, with commas")
    parser.add_argument("--way", default="events", help=f"of {', '.join(WAYS)}, with commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a run is left out")
    parser.add_argument("--binding", metavar="PYTHON", help="a Python interpreter that can import simgrid")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all that was measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, list[str]] = {}
        if (cpp := compiled(Path(folder))) is not None:
            sides[CPP] = cpp
        if options.binding:
            sides[BINDING] = [options.binding, str(HERE / "simgrid" / "flows.py")]
        sides |= {way: [sys.executable, str(HERE / "network_ways.py")] for way in options.way.split(",")}
        print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {options.repeats} runs each")
        print(f"{'':36}{'loop s':>8}{'process s':>10}{'messages/s':>11}   by SimGrid C++  by its Python")
        print(f"{'work  P   messages  side':65}{'':3}   loop process   loop process  off")
        measured = []
        for workers in map(int, options.workers.split(",")):
            for work in options.work.split(","):
                measured.append(measure(work, workers, sides, options))
                show(measured[-1], options)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
