"""What exact top-k selection costs over one read of the same data, on one core of this machine.

Each contender goes over all rows in turn, and the contenders alternate; times are medians, ratios are medians of
ratios within a repeat. "One read" is the faster of NumPy's maximum and torch's, over the same rows. The selected
positions are compared with torch's before anything is timed.

    python benchmarks/selection.py                   # 64 rows of 407,050 float32 at density 0.001
    python benchmarks/selection.py --rows 8 --elements 11173962 --json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from algorithms import kernels
from netsim._util.system import environment, keep_freed_memory

TARGET = 2.5
"""How many reads of the data an exact selection may cost."""

READS = ("read: numpy max", "read: torch max")


def by_kernels(implementation: kernels.Kernels, residuals: np.ndarray, vectors: np.ndarray, k: int) -> dict[str, Any]:
    """Return the public functions, row by row, on one implementation."""

    def select() -> list[np.ndarray]:
        kernels._chosen = implementation
        return [kernels.top_positions(row, k) for row in vectors]

    def accumulate() -> None:
        kernels._chosen = implementation
        for residual, vector in zip(residuals, vectors, strict=True):
            kernels.accumulate_select(residual, vector, k)

    return {"select": select, "accumulate and select": accumulate}


def by_torch(residuals: np.ndarray, vectors: np.ndarray, k: int) -> dict[str, Any]:
    """Return the same in torch's own operators."""
    pairs = list(zip(torch.from_numpy(residuals), torch.from_numpy(vectors), strict=True))

    def select() -> list[np.ndarray]:
        return [row.abs().topk(k).indices.sort().values.numpy() for _, row in pairs]

    def accumulate() -> None:
        for residual, row in pairs:
            positions = residual.add_(row).abs().topk(k).indices.sort().values
            residual[positions].clone()
            residual[positions] = 0

    return {"select": select, "accumulate and select": accumulate}


def contenders(rows: int, elements: int, k: int) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name; everything that it works on is allocated and touched here."""
    vectors = np.random.default_rng(0).standard_normal((rows, elements)).astype(np.float32)
    residuals = np.zeros_like(vectors)
    residuals[:] = 0
    found: dict[str, Callable[[], Any]] = {
        READS[0]: lambda: [row.max() for row in vectors],
        READS[1]: lambda: [row.max() for row in torch.from_numpy(vectors)],
        "accumulate only: numpy": lambda: [np.add(a, b, out=a) for a, b in zip(residuals, vectors, strict=True)],
    }
    implementations = {"numpy": by_kernels(kernels.NumpyKernels(), residuals, vectors, k)}
    if kernels.available():
        implementations = {"numba": by_kernels(kernels.CompiledKernels(), residuals, vectors, k)} | implementations
    implementations["torch.topk"] = by_torch(residuals, vectors, k)
    for what in ("select", "accumulate and select"):
        found |= {f"{what}: {name}": functions[what] for name, functions in implementations.items()}
    expected = implementations["torch.topk"]["select"]()
    for name, functions in implementations.items():
        if not all(map(np.array_equal, functions["select"](), expected)):
            raise SystemExit(f"{name} does not select what torch.topk does")
    return found


def measure(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Return of each function the median seconds, page faults, and times one read; the first repeat warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    faults: dict[str, list[int]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            started = time.perf_counter()
            function()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
                faults[name].append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    read = [min(pair) for pair in zip(*(seconds[name] for name in READS), strict=True)]
    return {
        name: {
            "seconds": statistics.median(times),
            "reads": statistics.median(one / whole for one, whole in zip(times, read, strict=True)),
            "page_faults": statistics.median(faults[name]),
        }
        for name, times in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--elements", type=int, default=407_050)
    parser.add_argument("--density", type=float, default=0.001)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    k = max(1, int(options.density * options.elements))
    results = measure(contenders(options.rows, options.elements, k), options.repeats)
    if options.json:
        setting = vars(options) | {"k": k, "cpus": os.cpu_count(), "cores_used": 1, "target_reads": TARGET}
        print(json.dumps(setting | {"environment": environment("cpu"), "results": results}, indent=2))
        return
    size = options.rows * options.elements * 4
    print(f"{options.rows} × {options.elements:,} float32 ({size / 1e6:.0f} MB), k = {k} of each row")
    print(f"one of {os.cpu_count()} CPUs, medians of {options.repeats} interleaved repeats")
    print(f"\n{'':34}{'ms':>9}{'reads':>8}{'GB/s':>7}{'faults':>8}")
    for name, row in results.items():
        rate = size / row["seconds"] / 1e9
        print(f"{name:34}{row['seconds'] * 1e3:9.2f}{row['reads']:8.2f}{rate:7.1f}{row['page_faults']:8.0f}")
    best = results.get("select: numba", results["select: numpy"])["reads"]
    print(f"\nexact selection costs {best:.2f} reads; the target is {TARGET} ({'met' if best <= TARGET else 'missed'})")


if __name__ == "__main__":
    main()
