"""What a simulated round of gTop-k costs over the arithmetic of its gradients, on this machine.

For each model and number of workers P: seconds of a whole round (gradients, accumulation, exact selection,
merges, simulation, update), of (a) a plain Python loop of forward and backward over the workers, and of (b) the
bare arithmetic: one forward and backward over all workers' samples at once. Ratios are medians over interleaved
repeats. "Not gradients" is the share of a round in which no gradient is computed (with one thread). Peak memory is
of the rounds, in a process of its own, over what it held before them (libraries, data, one worker's round, whose
memory was given back), against P·d·4 bytes.

    python benchmarks/rounds.py --threads 1            # and: --threads 2 (a pool of two workers)
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netsim._util.system import keep_freed_memory
from netsim.experiment.configuration import Experiment
from netsim.simulator.session import Session, open_session

MODELS = ("digits-mlp", "fc-mnist", "resnet20")
DENSITY = 1e-3


def experiment(model: str, workers: int, rounds: int, batch_size: int) -> Experiment:
    """Return gTop-k on synthetic data, with charges assumed so that nothing is timed inside."""
    return Experiment.of(
        algorithm="gtopk", workload=model, data="synthetic", workers=workers, rounds=rounds, batch_size=batch_size,
        density=DENSITY, compute_time="1ms", select_time="0s", merge_time="0s",
    )  # fmt: skip


def module_of(task: Any) -> nn.Module:
    """Return the task's model as a user would hold it, with its initial parameters."""
    model: nn.Module = task.workload.model.to_empty(device="cpu")
    nn.utils.vector_to_parameters(task.initial_parameters().values, model.parameters())
    return model


def plain_loop(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return the seconds of forward and backward over each worker's batch."""
    started = time.perf_counter()
    for inputs, labels in batches:
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(inputs), labels).backward()
    return time.perf_counter() - started


def bare(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return the seconds of one forward and backward over all samples."""
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return plain_loop(model, [(inputs, labels)])


class Stopwatch:
    """Adds up the seconds in which a task computes gradients."""

    def __init__(self, task: Any) -> None:
        self.seconds = 0.0
        self._inside = False
        alone, many = task.gradient, task.gradients
        task.gradient = lambda *args: self._timed(lambda: alone(*args))
        task.gradients = lambda calls: self._each(many(calls))

    def _each(self, gradients: Iterator[Any]) -> Iterator[Any]:
        done = object()
        while (gradient := self._timed(lambda: next(gradients, done))) is not done:
            yield gradient

    def _timed(self, call: Callable[[], Any]) -> Any:
        if self._inside:
            return call()
        self._inside, started = True, time.perf_counter()
        try:
            return call()
        finally:
            self._inside = False
            self.seconds += time.perf_counter() - started


def measure(model: str, workers: int, repeats: int, batch_size: int, threads: int) -> dict[str, Any]:
    """Return the medians of interleaved repeats."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    with open_session(experiment(model, workers, 4, batch_size)) as lab:
        if threads == 1:
            lab._executor = None
        task: Any = lab.task
        plain = module_of(task)
        batches = [task._training.take(torch.from_numpy(task.batch(rank, 0))) for rank in range(workers)]
        watch = Stopwatch(task)
        samples: dict[str, list[float]] = {"round": [], "loop": [], "bare": [], "other": []}
        for repeat in range(repeats + 1):
            stamps: list[tuple[float, float]] = []
            lab.simulate("gtopk", lambda *_, stamps=stamps: stamps.append((time.perf_counter(), watch.seconds)))
            loop, arithmetic = plain_loop(plain, batches), bare(plain, batches)
            if repeat:  # the first warms up
                whole, gradients = (last - first for first, last in zip(stamps[0], stamps[-1], strict=True))
                samples["round"].append(whole / (len(stamps) - 1))
                samples["loop"].append(loop)
                samples["bare"].append(arithmetic)
                samples["other"].append(1 - gradients / whole)
    pairs = zip(samples["round"], samples["loop"], samples["bare"], strict=True)
    ratios = [(whole / loop, whole / arithmetic) for whole, loop, arithmetic in pairs]
    return {
        "model": model, "workers": workers, "batch_size": batch_size, "threads": threads, "repeats": repeats,
        **{f"{name}_s": statistics.median(samples[name]) for name in ("round", "loop", "bare")},
        "not_gradients": statistics.median(samples["other"]) if threads == 1 else None,
        "over_loop": statistics.median(ratio for ratio, _ in ratios),
        "over_bare": statistics.median(ratio for _, ratio in ratios),
    }  # fmt: skip


def memory(model: str, workers: int, batch_size: int) -> dict[str, Any]:
    """Return the peak memory of rounds in this process, over what it held before, as a ratio to P·d·4 bytes.

    The round of one worker before them loads and compiles what they need; what it alone needs is its activations.
    """
    keep_freed_memory()
    libc = ctypes.CDLL(None)
    peaks: list[int] = []

    def peak_of(lab: Session) -> int:
        lab._executor = None
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _status("VmRSS")
        lab.simulate("gtopk", lambda *_: peaks.append(_status("VmHWM") - before))
        return peaks[-1]

    with open_session(experiment(model, 1, 3, batch_size)) as lab:
        lab.simulate("gtopk")
        alone = peak_of(lab)
    with open_session(experiment(model, workers, 3, batch_size)) as lab:
        peak, residuals = peak_of(lab), 4 * workers * lab.elements
    return {"peak_bytes": peak, "peak_of_one_bytes": alone, "over_residuals": peak / residuals}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['model']:11} P={row['workers']:<4} round {row['round_s'] * 1e3:8.1f} ms   "
        f"{row['over_loop']:5.2f} × plain loop   {row['over_bare']:5.2f} × bare arithmetic   "
        f"{'–' if row['not_gradients'] is None else format(row['not_gradients'], '.1%')} not gradients   "
        f"peak {row['over_residuals']:.2f} × P·d·4 B (one worker's round {row['peak_of_one_bytes'] / 1e6:.0f} MB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory(options.memory_of[0], int(options.memory_of[1]), options.batch_size)))
        return
    rows = []
    for model in options.models:
        for workers in options.workers:
            row = measure(model, workers, options.repeats, options.batch_size, options.threads)
            command = [
                sys.executable,
                __file__,
                "--memory-of",
                model,
                str(workers),
                "--batch-size",
                str(options.batch_size),
            ]
            row |= json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
            rows.append(row)
            if not options.json:
                print(_line(row), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
