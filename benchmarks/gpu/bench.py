"""What netsim's path on a GPU costs, over floors (the work that nothing can do without) and anchors (other programs).

    python benchmarks/gpu/bench.py --device cuda:0 --seconds 150     # one JSON line a measurement, then the goals
    python benchmarks/gpu/bench.py --device cpu --small              # does it run at all

Seconds are medians of calls between two synchronisations, after a warm-up. The goals (goals.py) are ratios, for 64
workers with mini-batches of 16; docs/gpu.md explains them. Parts, by name with --only: ceilings, gradients, selection,
merging, charges, readiness, rounds. A part that fails is noted, and the others go on. No setting of the card changes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest import mock

import numpy as np
import torch
from goals import ADDED, GRADIENT_BITS, GRAPHS, MODELS, TRITON_BITS, judged
from torch import nn

from algorithms import fused_rows, kernels
from algorithms.compression import AT_ONCE, accumulate_and_select, accumulate_and_select_rows, merge, restore
from algorithms.rows import among
from algorithms.selection import Selector, entries, sampled_rank
from netsim._util.device import exact_arithmetic, gpu_facts, gpus_beside, is_gpu
from netsim.comm.payload import Dense, Sparse
from netsim.comm.worker import Compute
from netsim.experiment.configuration import Experiment
from netsim.simulator.compute_pool import TOGETHER
from netsim.simulator.opening import load_task, open_session
from netsim.training.costs import MeasuredCosts
from netsim.training.sgd import Scaled
from netsim.training.workloads.replica import Replica

BATCH = 16
DENSITY = 1e-3


class Bench:
    """The measurements of a device."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device: str = options.device
        self.small: bool = options.small
        self.workers = 4 if self.small else 64
        self.models = ("fc-mnist",) if self.small else MODELS
        self._ends = time.monotonic() + options.seconds
        self.found: dict[tuple[str, str], float] = {}

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._ends - time.monotonic()

    def note(self, what: str, model: str, value: float, **more: Any) -> None:
        """Print a measurement, and keep it for the goals."""
        self.found[what, model] = value
        print(json.dumps({"what": what, "model": model, "value": value, "workers": self.workers, **more}), flush=True)

    def seconds(self, call: Callable[[], Any], repeats: int = 9) -> float:
        """Return the median seconds of a call and of what it had the GPU do."""
        repeats, warm = (1, 1) if self.small else (repeats, 2)
        samples = []
        for _ in range(warm + repeats):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            samples.append(time.perf_counter() - started)
        return statistics.median(samples[warm:])

    def wait(self) -> None:
        """Wait until the GPU has done everything."""
        if is_gpu(self.device):
            torch.cuda.synchronize(self.device)

    def task(self, model: str, workers: int | None = None, beside: Sequence[str] = ()) -> Any:
        """Return a task on synthetic data, with further GPUs `beside` the device."""
        given = Experiment.of(workers=workers or self.workers, workload=model, batch_size=BATCH, data="synthetic")
        return load_task(given, self.device, beside=beside)[0]

    def rows(self, elements: int) -> torch.Tensor:
        """Return vectors like gradients (P, d): most elements small, a few large."""
        return torch.randn(self.workers, elements, device=self.device).pow_(3)


def ceilings(bench: Bench) -> None:
    """Measure bytes and operations a second, and what a launch and a wait take."""
    n = 2**20 if bench.small else 2**28
    one, other = torch.randn(n, device=bench.device), torch.empty(n, device=bench.device)
    bench.note("bytes/s of a copy", "", 8 * n / bench.seconds(lambda: other.copy_(one)))
    bench.note("bytes/s of add_", "", 12 * n / bench.seconds(lambda: other.add_(one)))
    side = 256 if bench.small else 8192
    left, right = torch.randn(2, side, side, device=bench.device)
    bench.note("operations/s of a product in fp32", "", 2 * side**3 / bench.seconds(lambda: left @ right))
    number = torch.zeros(1, device=bench.device)
    bench.note("s of a launch", "", bench.seconds(lambda: [number.add_(1) for _ in range(200)]) / 200)
    bench.note("s of a launch and a wait", "", bench.seconds(lambda: [float(number.add_(1)) for _ in range(100)]) / 100)


def equal(one: Dense, other: Dense) -> bool:
    """Return whether two vectors have the same bits."""
    return torch.equal(one.values, other.values)


def gradients(bench: Bench, model: str) -> None:
    """Measure the gradients of P workers, as netsim computes them and as a plain loop does."""
    task = bench.task(model)
    parameters, ranks = task.initial_parameters(), range(bench.workers)
    calls = [(parameters, rank, 0) for rank in ranks]
    started = time.perf_counter()
    same = [equal(one, task.gradient(*call)) for one, call in zip(task.gradients(calls), calls, strict=True)]
    bench.note("s of the capture and a comparison of P gradients", model, time.perf_counter() - started)
    bench.note(GRADIENT_BITS, model, sum(same) / len(same))
    if is_gpu(bench.device):
        bench.note(GRAPHS, model, len(task.graphs))
    bench.note("P gradients", model, bench.seconds(lambda: sum(1 for _ in task.gradients(calls)), 5))
    bench.note(
        "P gradients, one after another", model, bench.seconds(lambda: [task.gradient(*call) for call in calls], 3)
    )
    if beside := gpus_beside(bench.device, "cuda"):
        spread = bench.task(model, beside=beside)
        bench.note(
            f"P gradients on {1 + len(beside)} GPUs",
            model,
            bench.seconds(lambda: sum(1 for _ in spread.gradients(calls)), 5),
            same_bits=all(map(equal, task.gradients(calls), spread.gradients(calls))),
        )
    replica = Replica(task.workload.model, bench.device)
    replica.hold(parameters.values)
    batches = [task.samples(rank, 0) for rank in ranks]

    def loop(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for inputs, labels in batches:
            replica.model.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(replica.model(inputs), labels).backward()

    bench.note("plain loop", model, bench.seconds(lambda: loop(batches), 5))
    together = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    bench.note("one batch of all samples", model, bench.seconds(lambda: loop(together), 5))  # type: ignore[arg-type]
    replica.model.zero_grad(set_to_none=True)


def selection(bench: Bench, model: str) -> None:
    """Measure accumulation and exact selection of P rows, over one add_ of them and over GRACE's top-k."""
    task = bench.task(model, 2)
    d, k = task.elements, entries(DENSITY, task.elements)
    residuals, vectors = bench.rows(d), bench.rows(d)
    # For short vectors one add_ takes hardly longer than its launch and the wait for it.
    added = bench.seconds(lambda: [residuals.add_(vectors, alpha=1e-9) for _ in range(20)]) / 20
    bench.note(ADDED, model, added)
    bench.note("torch.topk of P rows", model, bench.seconds(lambda: residuals.abs().topk(k, dim=1)))
    addends = [Scaled(Dense(row.clone()), 1e-9) for row in vectors]
    found = {}
    for by in ("triton", "torch") if fused_rows.is_right_on(residuals.device) else ("torch",):
        held = [Dense(row.clone()) for row in residuals]
        with mock.patch.object(fused_rows, "is_right_on", return_value=by == "triton"):
            found[by] = select(held, addends, k)
            bench.note(f"select P rows by {by}", model, bench.seconds(lambda held=held: select(held, addends, k)))
    by = next(iter(found))
    bench.note("select P rows", model, bench.found[f"select P rows by {by}", model], by=by)
    if len(found) > 1:
        pairs = list(zip(*found.values(), strict=True))
        share = sum(torch.equal(*values) for values in pairs) / len(pairs)
        bench.note(TRITON_BITS, model, share)
    sizes = [size for _, size in task.tensors]
    bench.note("GRACE P steps", model, bench.workers * bench.seconds(grace_step(vectors[0], sizes)))


def select(held: list[Dense], addends: list[Scaled], k: int) -> list[torch.Tensor]:
    """Accumulate and select in the groups of a round, hold the new residuals, and return what was selected."""
    found = []
    for first in range(0, len(held), TOGETHER):
        group = slice(first, first + TOGETHER)
        calls = [(*pair, Selector(k)) for pair in zip(held[group], addends[group], strict=True)]
        selected = list(accumulate_and_select_rows(calls))
        held[group] = [each.rest for each in selected]  # type: ignore[misc]
        found += [torch.stack([each.local.indices, each.local.values.view(torch.int32)]) for each in selected]  # type: ignore[union-attr]
    return found


def grace_step(vector: torch.Tensor, sizes: list[int]) -> Callable[[], None]:
    """Return a step of one worker as GRACE's topk with residual memory makes it, tensor by tensor (Xu et al., 2021)."""
    tensors = vector.split(sizes)
    residuals = [torch.zeros_like(tensor) for tensor in tensors]

    def step() -> None:
        for index, tensor in enumerate(tensors):
            total = residuals[index] + tensor
            _, largest = torch.topk(total.abs(), max(1, int(total.numel() * DENSITY)), sorted=False)
            sent = torch.zeros_like(total).scatter_(0, largest, torch.gather(total, 0, largest))
            residuals[index] = total - sent

    return step


def merging(bench: Bench, model: str) -> None:
    """Measure a merge of two sparse vectors in main memory, and a residual's restoration on the device.

    Also in main memory, exact selection among as many candidates as a GPU usually finds in the rows of a group.
    """
    d = bench.task(model, 2).elements
    random, k = np.random.default_rng(0), entries(DENSITY, d)
    left, right = (
        Sparse(
            torch.from_numpy(np.sort(random.choice(d, k, replace=False)).astype(np.int32)),
            torch.from_numpy(random.standard_normal(k, np.float32)),
            d,
        )
        for _ in range(2)
    )
    rows = min(bench.workers, max(1, AT_ONCE // d))
    stride, rank = sampled_rank(d, k)
    places = (np.arange(rows)[:, None] * d + np.arange(rank * stride) * (d // (rank * stride))).ravel()
    values = random.standard_normal(places.size, np.float32)
    chosen = bench.seconds(lambda: among(places, values, rows, [0, d], [k]))
    bench.note("choice among candidates", model, chosen, rows=rows, candidates=rank * stride)
    bench.note("merge", model, bench.seconds(lambda: merge(left, right, Selector(k))))
    residual, dropped = Dense(torch.zeros(d, device=bench.device)), merge(left, right, Selector(k)).dropped
    assert isinstance(dropped, Sparse)
    bench.note("restore", model, bench.seconds(lambda: restore(residual, dropped)))


def charges(bench: Bench, model: str) -> None:
    """Compare the charge that netsim measures for a worker's selection with one timed by hand on fresh vectors."""
    d = bench.task(model, 2).elements
    selector = Selector(entries(DENSITY, d))
    vectors = bench.rows(d)[:2]

    def request() -> Compute[Any]:
        one, other = vectors.clone()
        return Compute("select", accumulate_and_select, (Dense(one), Scaled(Dense(other), 0.1), selector))

    charge = MeasuredCosts({}, bench.device).picoseconds(request(), lambda: None) / 1e12
    samples = []
    for _ in range(3 if bench.small else 15):
        fresh = request()
        bench.wait()
        started = time.perf_counter()
        fresh.function(*fresh.args)
        bench.wait()
        samples.append(time.perf_counter() - started)
    bench.note("charge", model, charge)
    bench.note("charge by hand", model, statistics.median(samples[1:]))


def readiness(bench: Bench, model: str) -> None:
    """Measure after which share of a gradient's time the last layer's tensor is complete, and the first layer's."""
    task = bench.task(model, 2)
    parameters = task.initial_parameters()
    shares = MeasuredCosts({}, bench.device).ready(lambda written: task.gradual(written, parameters, 0, 0))
    bench.note("ready, last tensor", model, shares[-1])
    bench.note("ready, first tensor", model, shares[0])


def rounds(bench: Bench, model: str) -> None:
    """Measure a whole simulated round of gTop-k after the first one, and the peaks of the GPU's memory."""
    given = Experiment.of(
        algorithm="gtopk", workload=model, data="synthetic", workers=bench.workers, rounds=4, batch_size=BATCH,
        density=DENSITY, device=bench.device, compute_time="1ms", select_time="0s", merge_time="0s",
    )  # fmt: skip
    stamps: list[float] = []
    peaks: list[float] = []

    def ended(*_: Any) -> None:
        stamps.append(time.perf_counter())
        if is_gpu(bench.device):
            peaks.append(float(torch.cuda.max_memory_allocated(bench.device) - before))
            torch.cuda.reset_peak_memory_stats(bench.device)

    with open_session(given) as session:
        before = torch.cuda.memory_allocated(bench.device) if is_gpu(bench.device) else 0
        session.simulate("gtopk", ended)
        bench.note("gtopk round", model, statistics.median(np.diff(stamps).tolist()))
        if peaks:
            bench.note("P·d·4 bytes", model, 4.0 * bench.workers * session.elements)
            bench.note("gtopk peak bytes", model, max(peaks[1:]), first_round=peaks[0])


PER_MODEL = (gradients, selection, merging, charges, readiness, rounds)


def environment(device: str) -> dict[str, Any]:
    """Return what the measurements depend on: versions, the GPU's settings, whether the CPU's kernels are compiled."""
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    for name in ("numba", "triton"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {**versions, "device": device, "compiled_on_cpu": kernels.available(), **gpu_facts(device)}


def main() -> None:
    """Measure what was asked for, and print the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=150.0, help="parts that would begin later are left out")
    parser.add_argument("--small", action="store_true", help="4 workers and one model, to try the script itself")
    parser.add_argument("--only", default="", help="names of parts, with commas")
    options = parser.parse_args()
    bench, only = Bench(options), options.only.split(",") if options.only else []
    torch.set_num_threads(1)
    with exact_arithmetic(bench.device):
        print(json.dumps({"environment": environment(bench.device)}), flush=True)
        for model in ("", *bench.models):
            for part in PER_MODEL if model else (ceilings,):
                if only and part.__name__ not in only:
                    continue
                if bench.left() < 0:
                    print(json.dumps({"what": part.__name__, "model": model, "left out": "no time left"}), flush=True)
                    continue
                try:
                    part(bench, model) if model else part(bench)  # type: ignore[call-arg, arg-type]
                except Exception as error:  # what a GPU does not do is part of the result
                    print(json.dumps({"what": part.__name__, "model": model, "failed": repr(error)[:300]}), flush=True)
                    traceback.print_exc(file=sys.stderr)
    if is_gpu(bench.device) and not bench.small and not only:
        print("\n".join(judged(bench.found)))


if __name__ == "__main__":
    main()
