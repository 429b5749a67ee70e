"""Whole commands at scale: how long each takes from start to exit, and the most memory that it holds.

    python benchmarks/batched.py

`benchmarks/methods.py` has every algorithm, in one process.
Messages a second of each way, beside SimGrid's, are had by

    python benchmarks/network.py --work W1,W2,W3,W4 --workers 1024 --way events,algorithms,batched,compiled
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date

REPEATS = 3
SIZE = ["--timing-only", "--elements", "25000000"]
COMMANDS = {
    "gTop-k, 65,536 workers, star": ["--workers", "65536", "--algorithm", "gtopk"],
    "gTop-k, 65,536 workers, fat-tree": ["--workers", "65536", "--algorithm", "gtopk", "--topology", "fat-tree"],
    "four algorithms, 1,000,000 workers": ["--workers", "1000000"],
    "dense, 4,096 workers, racks 4:1": ["--workers", "4096", "--algorithm", "dense", "--topology", "racks"],
    "Top-k, 1,024 workers at random in racks 4:1": [
        *("--workers", "1024", "--algorithm", "topk", "--topology", "racks", "--placement", "random"),
    ],
}


def measure(arguments: list[str]) -> tuple[float, int]:
    """Run netsim; return the seconds that it took, and the most kilobytes that it held."""
    command = [sys.executable, "-m", "netsim", "simulate", *SIZE, *arguments]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - began, usage.ru_maxrss


def main() -> None:
    print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, median of {REPEATS}")
    for what, arguments in COMMANDS.items():
        runs = [measure(arguments) for _ in range(REPEATS)]
        seconds, most = statistics.median(run[0] for run in runs), max(run[1] for run in runs)
        print(
            f"{what:50}{seconds:8.2f} s{most / 1024:8.0f} MiB   netsim simulate {' '.join(SIZE + arguments)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
