"""What a simulated round of gTop-k costs over the arithmetic of its gradients, on this machine.

For each model and number of workers P: seconds of a whole round (gradients, accumulation, exact selection,
merges, simulation, update), of (a) a plain Python loop of forward and backward over the workers, and of (b) the
bare arithmetic: one forward and backward over all workers' samples at once. Ratios are medians over interleaved
repeats. "Not gradients" is the share of a round in which no gradient is computed (with one thread). Peak memory is
of the rounds, in a process of its own, over what it held before them (libraries, data, one worker's round, whose
memory was given back), against P·d·4 bytes.

    python benchmarks/rounds.py --threads 1            # and: --threads 2 (a pool of two workers)
    python benchmarks/rounds.py --engines              # the simulator itself: event engine against vectorised engine

With --engines, random gradients of few elements are trained: processor time of a whole round of each algorithm by
either engine, taking turns with plain loops that call the same functions on the same vectors. The loops must end with
the same parameters, bit for bit. "Simulator" is what a round takes beyond the loops. Of it, "coroutines" is what the
algorithm's coroutines alone take, when all their requests are answered at once with the answers of a run before.
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
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from algorithms.compression import accumulate_and_select, merge, restore, sum_to_dense
from algorithms.selection import Selector
from netsim._util.system import keep_freed_memory, old_objects_set_aside
from netsim.comm.payload import Dense, Vector, add, concatenate, split
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import sha256_of
from netsim.simulator import session
from netsim.simulator.lock_step import LockStep
from netsim.simulator.opening import open_session
from netsim.simulator.rehearsal import RandomGradients
from netsim.simulator.session import Session
from netsim.training.costs import AssumedCosts
from netsim.training.loop import train
from netsim.training.sgd import descend, prepare, weigh, zeros

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
        batches = [task.training.take(torch.from_numpy(task.batch(rank, 0))) for rank in range(workers)]
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


class FixedGradients(RandomGradients):
    """A gradient a worker, drawn once."""

    def __init__(self, elements: int, workers: int) -> None:
        super().__init__(elements)
        self._initial = super().initial_parameters()
        self._drawn = [super(FixedGradients, self).gradient(self._initial, rank, 0) for rank in range(workers)]

    def initial_parameters(self) -> Dense:
        """Return zeros (d,), the same object for all workers."""
        return self._initial

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        """Return a copy of the worker's gradient (d,)."""
        return Dense(self._drawn[rank].values.clone())


class PlainLoops:
    """A round's computations, called one after another without a simulator, in the order of the algorithm's messages.

    Parameters
    ----------
    task
        The gradients and the initial parameters.
    options
        The algorithm, k, and the number of workers.
    """

    def __init__(self, task: FixedGradients, options: Experiment) -> None:
        self.task, self.workers, self.algorithm = task, options.workers, options.algorithms[0]
        self.parameters: Any = task.initial_parameters()
        self._recipe = options.recipe(self.algorithm)
        self._selector = Selector(options.k or 1)
        self._residuals: list[Any] = [zeros(self.parameters) for _ in range(self.workers)]

    def round(self, step: int) -> None:
        """Compute the round of a step."""
        gradients = [self.task.gradient(self.parameters, rank, step) for rank in range(self.workers)]
        exchange = {"gtopk": self._gtopk, "topk": self._topk, "dense": self._dense}[self.algorithm]
        total = exchange(gradients, step)
        self.parameters = descend(self.parameters, total, None, self._recipe, step, self.workers).parameters

    def _selected(self, gradients: list[Dense], step: int) -> list[Any]:
        weighed = (weigh(gradient, self.parameters, self._recipe, step) for gradient in gradients)
        found = [accumulate_and_select(*each, self._selector) for each in zip(self._residuals, weighed, strict=True)]
        self._residuals = [each.rest for each in found]
        return [each.local for each in found]

    def _topk(self, gradients: list[Dense], step: int) -> Any:
        return sum_to_dense(*self._selected(gradients, step))

    def _gtopk(self, gradients: list[Dense], step: int) -> Any:
        held, distance = self._selected(gradients, step), 1
        dropped: list[list[Any]] = [[] for _ in gradients]
        while distance < self.workers:
            for rank in range(0, self.workers - distance, 2 * distance):
                held[rank], lost = merge(held[rank], held[rank + distance], self._selector)
                dropped[rank].append(lost)
            distance *= 2
        self._residuals = [restore(rest, *lost) for rest, lost in zip(self._residuals, dropped, strict=True)]
        return held[0]

    def _dense(self, gradients: list[Dense], step: int) -> Any:
        prepared = [prepare(gradient, self.parameters, self._recipe, step) for gradient in gradients]
        chunks: Any = [split(vector, self.workers) for vector in prepared]
        sums = []
        for chunk in range(self.workers):  # begins at the next rank, and each rank adds its own
            total, *others = (chunks[(chunk + 1 + hop) % self.workers][chunk] for hop in range(self.workers))
            for own in others:
                total = add(total, own)
            sums.append(total)
        return concatenate(*sums)


class Recording:
    """A coroutine whose answers are noted."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], answers: list[Any]) -> None:
        self._coroutine, self._answers, self.close = coroutine, answers, coroutine.close

    def send(self, answer: Any) -> Any:
        """Note an answer, and return the next request."""
        self._answers.append(answer)
        return self._coroutine.send(answer)


def seconds_of_coroutines(task: FixedGradients, options: Experiment) -> float:
    """Return the seconds of processor time in which all ranks' coroutines run, without the time of their requests."""
    algorithm = options.algorithm(options.algorithms[0], (task.initial_parameters().size,))
    recipe = options.recipe(algorithm.name)
    workers = [Worker(rank, options.workers) for rank in range(options.workers)]
    answers: list[list[Any]] = [[] for _ in workers]
    ranks = LockStep(workers, AssumedCosts({}))

    def program(worker: Worker) -> Coroutine[Any, Any, Any]:
        return train(worker, algorithm, task, options.round_count, recipe, lambda worker, _: ranks.end(worker))

    ranks.run(lambda worker: cast(Any, Recording(program(worker), answers[worker.rank])))
    started = time.process_time()
    for worker in workers:
        coroutine = program(worker)
        with suppress(StopIteration):
            for answer in answers[worker.rank]:
                coroutine.send(answer)
    return time.process_time() - started


def by_engines(algorithm: str, workers: int, repeats: int, elements: int = 2048) -> dict[str, Any]:
    """Return the milliseconds of processor time of a round by each engine and by plain loops; medians of repeats.

    A round of an engine is a fifth of what six rounds take beyond one.
    """
    task, samples = (
        FixedGradients(elements, workers),
        dict[str, list[float]](event=[], auto=[], loops=[], coroutines=[]),
    )
    bits = set()

    def options(engine: str, rounds: int) -> Experiment:
        return Experiment.of(
            algorithm=algorithm, workers=workers, rounds=rounds, engine=engine, k=max(1, round(DENSITY * elements)),
            compute_time="1ms", select_time="0s", merge_time="0s",
        )  # fmt: skip

    def seconds(engine: str, rounds: int) -> float:
        asked = options(engine, rounds)
        lab = Session(asked, task, (elements,), AssumedCosts(asked.assumed_costs()), "cpu")
        started = time.process_time()
        found = lab.simulate(algorithm)
        ended = time.process_time()
        if rounds == 6:
            bits.add(found.parameters_sha256)
        return ended - started

    def seconds_of_loops() -> float:
        loops = PlainLoops(task, options("auto", 6))
        loops.round(0)
        started = time.process_time()
        for step in range(1, 6):
            loops.round(step)
        ended = time.process_time()
        bits.add(sha256_of(loops.parameters))
        return ended - started

    with old_objects_set_aside():
        for repeat in range(repeats + 1):
            taken = {engine: -seconds(engine, 1) + seconds(engine, 6) for engine in ("event", "auto")}
            taken["loops"] = seconds_of_loops()
            once, more = (seconds_of_coroutines(task, options("auto", rounds)) for rounds in (1, 6))
            taken["coroutines"] = more - once
            for name, found in taken.items():
                if repeat:  # the first warms up
                    samples[name].append(1e3 * found / 5)
    if len(bits) > 1:
        raise SystemExit(f"{algorithm} ends with different parameters: {bits}")
    row = {f"{name}_ms": statistics.median(found) for name, found in samples.items()}
    beyond = [whole - loops for whole, loops in zip(samples["auto"], samples["loops"], strict=True)]
    return {"algorithm": algorithm, "workers": workers, **row, "simulator_ms": statistics.median(beyond)}


def compare_engines(options: argparse.Namespace) -> None:
    """Print what a round takes by each engine."""
    torch.set_num_threads(1)
    session.judge = lambda task, parameters: {"final_loss": None, "final_accuracy": None}  # no data to judge by
    for workers in options.workers:
        for algorithm in ("gtopk", "topk", "dense"):
            row = by_engines(algorithm, workers, options.repeats)
            shown = (
                "{algorithm:6} P={workers:<4} event {event_ms:.2f} ms   vectorised {auto_ms:.2f} ms   "
                "plain loops {loops_ms:.2f} ms   simulator {simulator_ms:.2f} ms   coroutines {coroutines_ms:.2f} ms"
            )
            print(json.dumps(row) if options.json else shown.format(**row), flush=True)


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
    parser.add_argument("--engines", action="store_true", help="compare the two engines instead")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory(options.memory_of[0], int(options.memory_of[1]), options.batch_size)))
        return
    if options.engines:
        compare_engines(options)
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
