"""netsim trains as the papers say: 50 steps of every algorithm against a transcription in plain NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from algorithms import ALGORITHMS
from algorithms.randk import RandomKey, random_positions
from algorithms.selection import Selector
from netsim.comm.payload import Dense, Vector
from netsim.comm.worker import Worker
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.training.algorithm import Algorithm
from netsim.training.loop import Task, Trained, train
from netsim.training.sgd import SGDConfig
from tests import papers
from tests.papers import Array, Rule, Sgd, TopK

STEPS = 50
WORKERS = (1, 2, 3, 5, 8)
TENSORS = (12, 20, 8)
D = 40
CLASSES = 4


# The problem: softmax regression, on which the two sides compute the same gradients.


@cache
def batch(worker: int, t: int) -> tuple[Array, Array]:
    """Six samples of ten features of unequal scale, whose mean differs from worker to worker; labels one-hot."""
    random = np.random.default_rng((2024, worker, t))
    teacher = np.random.default_rng(7).standard_normal((D // CLASSES, CLASSES))
    inputs = random.standard_normal((6, D // CLASSES)) + 0.3 * np.sin(worker + np.arange(D // CLASSES))
    inputs *= np.linspace(0.4, 1.6, D // CLASSES)
    labels = (inputs @ teacher + random.gumbel(size=(6, CLASSES))).argmax(axis=1)
    return inputs, np.eye(CLASSES)[labels]


def start() -> Array:
    return 0.1 * np.random.default_rng(11).standard_normal(D)


def gradient(parameters: Array, worker: int, t: int) -> Array:
    inputs, labels = batch(worker, t)
    scores = inputs @ parameters.reshape(-1, CLASSES)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    wrong = odds / odds.sum(axis=1, keepdims=True) - labels
    return np.asarray((inputs.T @ wrong / len(inputs)).reshape(-1))


class Classification(Task):
    """The same as a netsim task."""

    def initial_parameters(self) -> Dense:
        return Dense(torch.from_numpy(start()))

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        assert isinstance(parameters, Dense)
        return Dense(torch.from_numpy(gradient(parameters.values.numpy(), rank, step)))


# Hyper-parameters, said to both sides.


def recipe_of(sgd: Sgd) -> SGDConfig:
    return SGDConfig(
        learning_rate=sgd.learning_rate,
        momentum=sgd.momentum,
        weight_decay=sgd.weight_decay,
        clip=None if sgd.clip == float("inf") else sgd.clip,
        warmup_rounds=sgd.warmup,
        decay=sgd.decay,
        decay_at=sgd.decay_at,
        aggregate="mean" if sgd.mean else "sum",
    )


MEAN = Sgd(0.3)
SUM = Sgd(0.07, mean=False)
RECIPES = {
    "mean": MEAN,
    "sum": SUM,
    "momentum": replace(MEAN, learning_rate=0.1, momentum=0.9),
    "weight-decay": replace(MEAN, weight_decay=0.05),
    "clip": replace(MEAN, clip=0.9),
    "schedule": replace(MEAN, warmup=12, decay_at=(25, 40), decay=0.3),
    "all": Sgd(0.05, 0.8, 0.05, 0.9, 12, (25, 40), 0.3, mean=False),
}

WHOLE = TopK(((D, 5),))
PER_TENSOR = TopK(((12, 1), (20, 2), (8, 1)))  # floor(0.12 n), at least 1
WARMING = TopK(((D, 2),), warmup=20)
WARMING_PER_TENSOR = replace(PER_TENSOR, warmup=20)


def selector_of(select: TopK) -> Selector:
    if select.tensors == PER_TENSOR.tensors:
        return replace(Selector.per_tensor(0.12, TENSORS), warmup_rounds=select.warmup)
    return Selector(sum(k for _, k in select.tensors), warmup_rounds=select.warmup)


# The algorithms, on both sides.


@dataclass(frozen=True)
class Both:
    """An algorithm of netsim, and the papers'."""

    netsim: Algorithm
    papers: papers.Method


def positions(select: TopK) -> papers.Positions:
    """What netsim draws at step t is a definition; of how many, the papers' side says itself."""

    def drawn(size: int, t: int) -> np.ndarray:
        ks = [select.k(t, *tensor) for tensor in select.tensors]
        blocks = tuple((of, k) for (of, _), k in zip(select.tensors, ks, strict=True))
        selector = Selector(sum(ks), blocks if len(ks) > 1 else ())
        entries = random_positions(size, RandomKey(selector, seed=0, bucket=0, step=t)).numpy()
        ends = np.cumsum([of for of, _ in select.tensors])
        assert [len(set(own)) for own in np.split(entries, np.searchsorted(entries, ends[:-1]))] == ks
        return entries

    return drawn


def sparse(name: str, workers: int, sgd: Sgd, select: TopK = WHOLE, correction: float = 0.0, **options: Any) -> Both:
    setup = (workers, D, sgd, select, correction)
    method: papers.Method
    if name == "randk":
        method = papers.RandK(*setup, positions(select))
    elif name == "gtopk" and options.get("residual") == "index-intersection":
        method = papers.GTopKIndexIntersection(*setup)
    else:
        types: dict[str, type[papers.ErrorFeedback]] = {
            "topk": papers.TopKAllGather,
            "gtopk": papers.GTopK,
            "gtopk-naive": papers.GTopKNaive,
            "ps-topk": papers.ParameterServerTopK,
            "dgc": papers.TopKAllGather,
            "scalecom": papers.ScaleCom,
            "oktopk": papers.OkTopk,
            "ssar": papers.TopKAllGather,
            "dsar": papers.TopKAllGather,
        }
        method = types[name](*setup)
    corrected = replace(recipe_of(sgd), momentum=correction)
    return Both(make(name, selector=selector_of(select), momentum_correction=corrected, **options), method)


def dense(name: str, workers: int, sgd: Sgd, **options: Any) -> Both:
    method = papers.ParameterServer if name == "ps" else papers.Dense
    return Both(make(name, **options), method(workers, D, sgd))


LAZY: dict[str, type[papers.Lazy]] = {
    "lag": papers.LAG,
    "lasg-wk1": papers.LASGWK1,
    "lasg-wk2": papers.LASGWK2,
    "lasg-ps": papers.LASGPS,
}


def lazy(name: str, workers: int, sgd: Sgd, rule: Rule, select: TopK = WHOLE, **options: Any) -> Both:
    options |= {"history": rule.history, "delay": rule.delay, "alpha": rule.c}
    if name == "sasg":
        method: papers.Lazy = papers.SASG(workers, D, sgd, rule, select)
        return Both(make(name, selector=selector_of(select), **options), method)
    return Both(make(name, **options), LAZY[name](workers, D, sgd, rule))


def make(name: str, **options: Any) -> Algorithm:
    algorithm: Callable[..., Algorithm] = ALGORITHMS[name]
    return algorithm(**options)


# Running them.


@dataclass(frozen=True)
class Seen:
    """What netsim shows of one rank after one step."""

    parameters: Array
    residual: Array | None
    tally: Counter[str]


def run_netsim(algorithm: Algorithm, workers: int, sgd: Sgd, dedicated: bool = False) -> list[list[Seen]]:
    """[rank][step] for as many ranks as there are."""
    server = workers if dedicated else 0
    ranks = [Worker(rank, workers, server) for rank in range(workers + dedicated)]
    seen: list[list[Seen]] = [[] for _ in ranks]

    def look(worker: Worker, now: Trained) -> None:
        assert isinstance(now.parameters, Dense)
        residual = algorithm.residual(now.state.memory)
        left = residual.values.numpy().copy() if isinstance(residual, Dense) else None
        seen[worker.rank].append(Seen(now.parameters.values.numpy().copy(), left, worker.tally.copy()))

    async def program(worker: Worker) -> Trained:
        return await train(worker, algorithm, Classification(), STEPS, recipe_of(sgd), look)

    RankScheduler[Trained](InMemoryTransport()).run(ranks, program)
    return seen


def hold(both: Both, dedicated: bool = False, atol: float = 1e-12) -> None:
    """Compare what every rank holds after every step."""
    method = both.papers
    theirs = list(papers.train(method, start(), gradient, STEPS))
    for rank, ours in enumerate(run_netsim(both.netsim, method.workers, method.sgd, dedicated)):
        agree("parameters", rank, [now.parameters for now in ours], [step.parameters for step in theirs], atol)
        if rank == method.workers:  # a dedicated server
            assert all(not now.tally[what] for now in ours for what in ("uploads", "value_bits", "index_bits"))
            continue
        residuals = [now.residual for now in ours]
        if method.residuals is None:
            assert residuals == [None] * STEPS
        else:
            expected = [step.residuals[rank] for step in theirs if step.residuals is not None]
            agree("residual", rank, residuals, expected, atol)
        values = [step.uploaded_values[rank] for step in theirs]
        indices = values if both.netsim.sparse else [0] * STEPS
        agree("uploads", rank, [now.tally["uploads"] for now in ours], [step.uploads[rank] for step in theirs])
        agree("bits of values", rank, [now.tally["value_bits"] for now in ours], [64 * n for n in values])
        agree("bits of indices", rank, [now.tally["index_bits"] for now in ours], [32 * n for n in indices])


def agree(what: str, rank: int, ours: Sequence[Any], theirs: Sequence[Any], atol: float = 1e-12) -> None:
    same = np.isclose(np.array(ours), np.array(theirs), rtol=1e-9, atol=atol).reshape(STEPS, -1).all(axis=1)
    if not same.all():
        t = int(same.argmin())
        raise AssertionError(f"{what} of rank {rank} after step {t}: netsim {ours[t]}, the papers {theirs[t]}")


# The tests.

every_p = pytest.mark.parametrize("workers", WORKERS)
SPARSE: dict[str, tuple[str, dict[str, Any]]] = {
    "topk": ("topk", {}),
    "topk-bruck": ("topk", {"gather": "bruck"}),
    "gtopk": ("gtopk", {}),
    "gtopk-intersection": ("gtopk", {"residual": "index-intersection"}),
    "gtopk-naive": ("gtopk-naive", {}),
    "randk": ("randk", {}),
    "ps-topk": ("ps-topk", {}),
    "dgc": ("dgc", {}),
    "scalecom": ("scalecom", {}),
    "ssar": ("ssar", {}),
    "dsar": ("dsar", {}),
    "oktopk": ("oktopk", {"threshold_period": 7, "region_period": 7}),
}
LAZY_NAMES = [*LAZY, "sasg"]
EVERY = ["dense", "dense-tree", "ps", *SPARSE, *LAZY_NAMES]
AT_SERVER = ["ps", "ps-topk", *LAZY_NAMES]


def both(name: str, workers: int, sgd: Sgd, select: TopK = WHOLE, **options: Any) -> Both:
    """Any algorithm; the rule of a lazy one is set so that it both uploads and skips."""
    if name in SPARSE:
        registered, more = SPARSE[name]
        return sparse(registered, workers, sgd, select, **more, **options)
    if name in LAZY_NAMES:
        c = (2.0 * workers if name == "lag" else 0.08) * workers * (0.2 if sgd.momentum else 1)
        return lazy(name, workers, sgd, Rule(history=4, delay=8, c=c), select, **options)
    return dense(name, workers, sgd, **options)


def hold_lazy(pair: Both, dedicated: bool = False) -> None:
    """Compare, and see that there was something to compare: the rule was asked, and said both yes and no."""
    hold(pair, dedicated)
    if isinstance(pair.papers, papers.Lazy):
        assert pair.papers.asked.uploads > 1
        assert pair.papers.asked.skips > 1


@every_p
@pytest.mark.parametrize("name", EVERY)
def test_every_algorithm(name: str, workers: int) -> None:
    hold_lazy(both(name, workers, MEAN))


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "mean"])
@pytest.mark.parametrize("name", EVERY)
def test_every_recipe(name: str, recipe: str) -> None:
    hold_lazy(both(name, 3, RECIPES[recipe]))


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("name", [*SPARSE, "sasg"])
def test_k_of_every_tensor(name: str, workers: int) -> None:
    hold_lazy(both(name, workers, MEAN, PER_TENSOR))


@pytest.mark.parametrize("select", [WARMING, WARMING_PER_TENSOR], ids=["whole", "per-tensor"])
@pytest.mark.parametrize("name", [*SPARSE, "sasg"])
def test_density_warm_up(name: str, select: TopK) -> None:
    hold_lazy(both(name, 3, MEAN, select))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("name", SPARSE)
def test_momentum_correction(name: str, workers: int) -> None:
    hold(both(name, workers, replace(MEAN, learning_rate=0.1), correction=0.7))


@pytest.mark.parametrize("name", SPARSE)
def test_everything_at_once(name: str) -> None:
    hold(both(name, 8, RECIPES["all"], WARMING_PER_TENSOR, correction=0.5))


@pytest.mark.parametrize(("threshold_period", "region_period"), [(4, 6), (9, 5)])
def test_oktopk_with_different_periods_of_thresholds_and_regions(threshold_period: int, region_period: int) -> None:
    method = papers.OkTopk(5, D, MEAN, WHOLE)
    method.threshold_period, method.region_period = threshold_period, region_period
    periods = {"threshold_period": threshold_period, "region_period": region_period}
    hold(Both(make("oktopk", selector=selector_of(WHOLE), **periods), method))


@pytest.mark.parametrize(("dedicated", "serial"), [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", AT_SERVER)
def test_where_the_server_is_and_how_it_receives_changes_nothing(
    name: str, workers: int, dedicated: bool, serial: bool
) -> None:
    hold_lazy(both(name, workers, RECIPES["momentum"], serial_server=serial), dedicated)


@pytest.mark.parametrize("workers", [3, 8])
@pytest.mark.parametrize("name", LAZY_NAMES)
def test_lazy_defaults(name: str, workers: int) -> None:
    """D = 10 terms and skips; α_d = 1/(2γ) for SASG, 1/(10 γ²) for the others."""
    rule, sgd = Rule(10, 10, 0.5 if name == "sasg" else None), Sgd(0.2, 0.8) if name == "lag" else MEAN
    if name == "sasg":
        pair = Both(make(name, selector=selector_of(PER_TENSOR)), papers.SASG(workers, D, sgd, rule, PER_TENSOR))
    else:
        pair = Both(make(name), LAZY[name](workers, D, sgd, rule))
    hold_lazy(pair)


@pytest.mark.parametrize(("history", "delay"), [(1, 1), (4, 4), (3, 10), (10, 3)])
@pytest.mark.parametrize("name", LAZY_NAMES)
def test_who_would_always_skip_uploads_when_it_must(name: str, history: int, delay: int) -> None:
    pair = lazy(name, 2, MEAN, Rule(history, delay, c=1e12))
    hold(pair)
    due = [*range(history), *range(history + delay, STEPS, delay + 1)]
    assert pair.papers.uploads == [due, due]


@pytest.mark.parametrize(("workers", "recipe"), [(1, "mean"), (5, "all")])
@pytest.mark.parametrize("name", LAZY_NAMES)
def test_who_never_skips_is_not_lazy(name: str, workers: int, recipe: str) -> None:
    """SASG is then PS top-k, and the others are the parameter server."""
    sgd = RECIPES[recipe]
    pair = lazy(name, workers, sgd, Rule(history=2, delay=5, c=1e-12), PER_TENSOR)
    eager = sparse("ps-topk", workers, sgd, PER_TENSOR) if name == "sasg" else dense("ps", workers, sgd)
    hold(Both(pair.netsim, eager.papers))


def test_the_distributed_code_of_sasg_refreshes_the_old_model_at_every_step() -> None:
    """That reading stays in a benchmark; netsim and the authors' notebooks refresh it only at an upload."""
    readings = pytest.importorskip("benchmarks.sasg_readings", reason="the benchmarks are in the checkout only")
    rule = Rule(history=4, delay=8, c=0.06)
    options = {"selector": selector_of(PER_TENSOR), "history": rule.history, "delay": rule.delay, "alpha": rule.c}
    refreshed: Callable[..., Algorithm] = readings.SASGRefreshed
    hold_lazy(Both(refreshed(**options), papers.SASGOfDistributedCode(3, D, MEAN, rule, PER_TENSOR)))
    own = papers.SASG(3, D, MEAN, rule, PER_TENSOR)
    hold_lazy(Both(make("sasg", **options), own))
    other = papers.SASGOfDistributedCode(3, D, MEAN, rule, PER_TENSOR)
    list(papers.train(other, start(), gradient, STEPS))
    assert own.uploads != other.uploads


def test_the_variants_differ() -> None:
    """What is compared above is not one thing under many names."""
    pairs = {
        name: both(name, 3, MEAN)
        for name in EVERY
        if name not in ("dense-tree", "ps", "topk-bruck", "ps-topk", "dgc", "ssar", "dsar")
    }
    for recipe in [recipe for recipe in RECIPES if recipe != "mean"]:
        pairs |= {f"{name} {recipe}": both(name, 3, RECIPES[recipe]) for name in ("dense", "gtopk", "sasg")}
    for select in (PER_TENSOR, WARMING, WARMING_PER_TENSOR):
        pairs |= {f"{name} {select}": both(name, 3, MEAN, select) for name in ("topk", "gtopk", "gtopk-naive", "sasg")}
    pairs |= {f"{name} correction": both(name, 3, MEAN, correction=0.5) for name in ("topk", "gtopk", "randk")}
    ends = {name: list(papers.train(pair.papers, start(), gradient, STEPS))[-1] for name, pair in pairs.items()}
    for (one, end), (other, another) in combinations(ends.items(), 2):
        assert np.abs(end.parameters - another.parameters).max() > 1e-4, f"{one} and {other}"
