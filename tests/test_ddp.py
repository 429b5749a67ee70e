"""Algorithms as communication hooks of DistributedDataParallel: the simulated training, and no gradient lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import netsim
from algorithms import ALGORITHMS
from algorithms.topk import TopK
from netsim._util.errors import UsageError
from netsim.comm.payload import Dense, Vector
from netsim.ddp.memory import ParameterMemory
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import sha256_of
from netsim.simulator.opening import load_task, open_session
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.session import Session
from netsim.simulator.workers import make_workers
from netsim.training.algorithm import Algorithm
from netsim.training.loop import Trained, train
from tests.ranks import on_ranks

SHAPES = {"first": (40, 3), "frozen": (5,), "second": (7, 11), "third": (50,), "last": (1,)}
TRAINED = [name for name in SHAPES if name != "frozen"]
TINY_MB = 2e-4
"""A size of buckets, 200 bytes, that makes a bucket of almost every parameter."""
TENSOR_MB = 1e-5
"""A size of buckets, 10 bytes, that makes a bucket of every parameter of at least three elements."""


class Weighted(nn.Module):
    """A model whose gradient is given: the loss is the sum of parameters times `gradients`."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=dtype), name != "frozen"))

    def forward(self, gradients: dict[str, torch.Tensor]) -> torch.Tensor:
        products = [(getattr(self, name) * gradient).sum() for name, gradient in gradients.items()]
        return torch.stack(products).sum()


def drawn(rank: int, step: int, names: Sequence[str] = TRAINED, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Return gradients of small whole numbers: sums of a few of them are exact in every type."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return {name: torch.randint(-3, 4, SHAPES[name], generator=generator).to(dtype) for name in names}


class Mass:
    """The sums of the gradients of this rank, and of what DDP has given back, times the number of ranks."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.given = {name: torch.zeros(SHAPES[name], dtype=torch.float64) for name in TRAINED}
        self.applied = {name: torch.zeros(SHAPES[name], dtype=torch.float64) for name in TRAINED}

    def give(self, model: DistributedDataParallel, gradients: dict[str, torch.Tensor], scale: float = 1.0) -> None:
        for name, gradient in gradients.items():
            self.given[name] += gradient.double()
        (model(gradients) * scale).backward()

    def apply(self, model: DistributedDataParallel, scale: float = 1.0) -> None:
        for name in TRAINED:
            gradient = model.module.get_parameter(name).grad
            if gradient is not None:
                self.applied[name] += self.ranks * gradient.double() / scale
        model.zero_grad()

    def balance(self, hook: netsim.ddp.ExchangeHook) -> dict[str, dict[str, torch.Tensor]]:
        memory = hook.state_dict()["memory"]
        residual = {name: memory.get(name, {}).get("residual", torch.zeros(1)) for name in TRAINED}
        return {"given": self.given, "applied": self.applied, "residual": residual}


def wrapped(algorithm: str, ranks: int, **options: Any) -> tuple[DistributedDataParallel, netsim.ddp.ExchangeHook]:
    dtype, cap_mb = options.pop("dtype", torch.float32), options.pop("cap_mb", 25)
    scaler, unused = options.pop("scaler", None), options.pop("find_unused_parameters", False)
    views = options.pop("gradient_as_bucket_view", False)
    model = DistributedDataParallel(
        Weighted(dtype), bucket_cap_mb=cap_mb, find_unused_parameters=unused, gradient_as_bucket_view=views
    )
    density = {} if algorithm.startswith("dense") else {"density": 0.05}
    return model, netsim.ddp.register(model, algorithm, scaler=scaler, **density, **options)


def assert_nothing_is_lost(balances: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    """Assert the law: what all ranks gave = what was applied + what their residuals hold; exact for whole numbers."""
    for name in TRAINED:
        given_in_all = sum(balance["given"][name] for balance in balances)
        held = sum(balance["residual"][name].double().reshape(-1) for balance in balances)
        for balance in balances:
            applied = balance["applied"][name]
            assert torch.equal(applied, balances[0]["applied"][name])  # DDP keeps ranks alike
            assert torch.equal(applied.reshape(-1) + held, given_in_all.reshape(-1)), name


def plain_steps(rank: int, ranks: int, algorithm: str, options: dict[str, Any]) -> Any:
    dtype = options.get("dtype", torch.float32)
    model, hook = wrapped(algorithm, ranks, **options)
    mass = Mass(ranks)
    for step in range(4):
        mass.give(model, drawn(rank, step, dtype=dtype))
        mass.apply(model)
    assert hook.step == 4
    return mass.balance(hook)


def varied_steps(rank: int, ranks: int, algorithm: str) -> Any:
    """Train with accumulation and with parameters that no rank or one rank uses; resume with other buckets."""
    options: dict[str, Any] = {"find_unused_parameters": True, "cap_mb": TINY_MB}
    model, hook = wrapped(algorithm, ranks, **options)
    mass = Mass(ranks)
    for step in range(3):
        with model.no_sync():
            mass.give(model, drawn(rank, 100 + step))
        mass.give(model, drawn(rank, step))
        mass.apply(model)
    mass.give(model, drawn(rank, 3, ["second", "third", "first"] if rank else ["second"]))
    mass.apply(model)
    mass.give(model, drawn(rank, 4, ["third"]))
    mass.apply(model)
    state = hook.state_dict()
    model, hook = wrapped(algorithm, ranks, **options | {"cap_mb": 25})
    hook.load_state_dict(state)
    assert hook.step == 5
    for step in range(5, 8):
        mass.give(model, drawn(rank, step))
        mass.apply(model)
    return mass.balance(hook)


def scaled_steps(rank: int, ranks: int) -> Any:
    """Train with a loss scaler; at steps 0 and 2 a gradient of rank 1 overflows."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, backoff_factor=0.25)
    model, hook = wrapped("gtopk", ranks, scaler=scaler, cap_mb=TINY_MB)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    mass = Mass(ranks)
    scales = []
    for step in range(5):
        scale = scaler.get_scale()
        scales.append(scale)
        if step in (0, 2):
            gradients = drawn(rank, step)
            if rank == 1:
                gradients["first"][0, 0] = math.inf  # in the last bucket, after others were exchanged
            scaler.scale(model(gradients)).backward()
        else:
            scaler.scale(torch.zeros(1))  # the scaler must have seen a loss before it steps
            mass.give(model, drawn(rank, step), scale)
            mass.apply(model, scale)
            for name in TRAINED:  # finite, for the scaler to look at
                model.module.get_parameter(name).grad = torch.zeros(SHAPES[name])
        before = model.module.second.detach().clone()
        scaler.step(optimizer)
        assert torch.equal(before, model.module.second)  # skipped, or zeros
        scaler.update()
        model.zero_grad()
    assert scales == [2.0**10, 2.0**8, 2.0**8, 2.0**6, 2.0**6]
    return mass.balance(hook)


def many(rank: int, ranks: int) -> list[Any]:
    """Run what the quick tests assert, all in one group of processes."""
    views = {"cap_mb": TINY_MB, "gradient_as_bucket_view": True}
    balances = [plain_steps(rank, ranks, "gtopk", options) for options in ({"cap_mb": TINY_MB}, views)]
    return [*balances, varied_steps(rank, ranks, "gtopk"), scaled_steps(rank, ranks)]


@pytest.mark.real
@pytest.mark.slow
def test_no_gradient_is_lost_in_buckets_accumulation_checkpoints_and_overflows() -> None:
    for balances in zip(*on_ranks(many, 2), strict=True):
        assert_nothing_is_lost(list(balances))


HOOKS = (
    *("dense", "topk", "randk", "gtopk", "gtopk-naive", "topk:gather=bruck", "gtopk-hier:group-size=2"),
    *("scalecom", "ssar", "dsar"),
)


def grid(rank: int, ranks: int) -> list[Any]:
    balances = [
        plain_steps(rank, ranks, algorithm, dict(options))
        for algorithm in HOOKS
        for options in ({}, {"cap_mb": TINY_MB}, {"per_tensor": True, "cap_mb": TINY_MB})
    ]
    balances += [varied_steps(rank, ranks, algorithm) for algorithm in HOOKS]
    types = (torch.bfloat16, torch.float16, torch.float64)
    return balances + [plain_steps(rank, ranks, "gtopk", {"dtype": dtype, "cap_mb": TINY_MB}) for dtype in types]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])  # dividing by another number would round
def test_no_gradient_is_lost_by_any_algorithm(ranks: int) -> None:
    for balances in zip(*on_ranks(grid, ranks), strict=True):
        assert_nothing_is_lost(list(balances))


POWER_SGD = "powersgd:rank=1"


def low_rank(rank: int, ranks: int) -> list[Any]:
    """Train with PowerSGD: what is lost in given gradients, and in digits-mlp with one bucket and with many."""
    balances = [plain_steps(rank, ranks, POWER_SGD, {"cap_mb": cap_mb}) for cap_mb in (25, TINY_MB)]
    balances.append(varied_steps(rank, ranks, POWER_SGD))
    trained = [digits(rank, ranks, POWER_SGD, 0.125, 10, cap_mb, False)[0] for cap_mb in (100, TENSOR_MB)]
    return [trained, *balances]


@pytest.mark.real
@pytest.mark.slow
def test_the_factors_of_powersgd_follow_their_matrices_through_buckets() -> None:
    """One bucket or many: the bits of a simulation. Nothing is lost but the rounding of float32."""
    by_rank = on_ranks(low_rank, 2)
    for trained, *balances in by_rank:
        assert trained == 2 * simulated([POWER_SGD], 2, 0.125, 10)
        assert len(balances) == 3
    for balances in zip(*(balances for _, *balances in by_rank), strict=True):
        for name in TRAINED:
            held = sum(balance["residual"][name].double().reshape(-1) for balance in balances)
            given_in_all = sum(balance["given"][name].reshape(-1) for balance in balances)
            for balance in balances:
                torch.testing.assert_close(balance["applied"][name].reshape(-1) + held, given_in_all, rtol=0, atol=1e-4)


def digits(rank: int, ranks: int, algorithm: str, lr: float, steps: int, cap_mb: float, per_tensor: bool) -> Any:
    """Train digits-mlp with a loop of plain PyTorch; return the digest of the parameters, and the parameters."""
    options: dict[str, Any] = {} if algorithm == "dense" else {"density": 0.01, "per_tensor": per_tensor}
    task, _, _ = load_task(Experiment.of(workers=ranks, algorithm=algorithm, **options), "cpu")
    net = task.workload.model.to_empty(device="cpu")
    nn.utils.vector_to_parameters(task.initial_parameters().values.clone(), net.parameters())
    model = DistributedDataParallel(net, bucket_cap_mb=cap_mb)
    netsim.ddp.register(model, algorithm, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        inputs, labels = task.samples(rank, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    parameters = nn.utils.parameters_to_vector(net.parameters()).detach()
    return sha256_of(Dense(parameters)), parameters


def several(rank: int, ranks: int, algorithms: Sequence[str], *args: Any) -> list[Any]:
    return [digits(rank, ranks, algorithm, *args) for algorithm in algorithms]


def in_buckets(rank: int, ranks: int, lr: float, steps: int) -> list[Any]:
    """Train with one bucket, and with many."""
    return [digits(rank, ranks, "dense", lr, steps, cap_mb, False) for cap_mb in (100, TENSOR_MB)]


WORLDS = ("dense", "topk", "gtopk", "randk")


def simulated(algorithms: Sequence[str], ranks: int, lr: float, steps: int, **options: Any) -> list[str]:
    results = netsim.simulate(
        workers=ranks, algorithm=algorithms, lr=lr, rounds=steps, density=0.01, compute_time="1ms", **options
    ).results
    return [str(result.parameters_sha256) for result in results]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "steps"), [(2, 50), (3, 10), (4, 10)])
def test_three_worlds_end_with_equal_parameters(ranks: int, steps: int) -> None:
    """A rate that is a power of two scales gradients exactly, so a residual of γ g is γ times a residual of g."""
    lr = 0.125
    by_rank = on_ranks(several, ranks, WORLDS, lr, steps, 100, False, timeout_s=480)  # on a busy machine
    real = netsim.run(workers=ranks, algorithm=WORLDS, lr=lr, rounds=steps, density=0.01).results
    expected = simulated(WORLDS, ranks, lr, steps)
    assert [result.parameters_sha256 for result in real] == expected
    for trained in by_rank:
        assert [sha256 for sha256, _ in trained] == expected


@pytest.mark.real
@pytest.mark.slow
def test_several_buckets_select_per_tensor_as_one_bucket_does() -> None:
    """Selection per tensor does not depend on buckets, nor does the order of a sum of two vectors."""
    algorithms = ("dense", "topk", "gtopk")
    (trained, _) = on_ranks(several, 2, algorithms, 0.125, 10, TENSOR_MB, True)
    assert [sha256 for sha256, _ in trained] == simulated(algorithms, 2, 0.125, 10, per_tensor=True)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "steps"), [("dense", 50), ("topk", 50), ("randk", 50), ("gtopk", 10)])
def test_at_a_rate_of_a_tenth_only_rounding_differs_in_these_steps(algorithm: str, steps: int) -> None:
    """γ times a residual of g is rounded otherwise than a residual of γ g; in gtopk that flips a selection later."""
    ((_, parameters), _) = on_ranks(digits, 2, algorithm, 0.1, steps, 100, False)
    options: dict[str, Any] = {} if algorithm == "dense" else {"density": 0.01}
    with open_session(Experiment.of(workers=2, algorithm=algorithm, lr=0.1, rounds=steps, **options)) as lab:
        expected = parameters_of(lab)
    assert (parameters - expected).abs().max() < 1e-6


@pytest.mark.real
@pytest.mark.slow
def test_with_several_buckets_dense_differs_by_rounding() -> None:
    """With P = 3 the sums of several buckets have another order."""
    lr, steps = 0.1, 10
    (one_and_many_buckets, *_) = on_ranks(in_buckets, 3, lr, steps)
    with open_session(Experiment.of(workers=3, algorithm="dense", lr=lr, rounds=steps)) as lab:
        expected = parameters_of(lab)
    for _, parameters in one_and_many_buckets:
        assert (parameters - expected).abs().max() < 1e-6


def parameters_of(lab: Session) -> torch.Tensor:
    """Return the parameters after a run in memory."""
    experiment = lab.experiment
    algorithm = experiment.algorithm(experiment.algorithms[0], lab.tensors)
    workers = make_workers(algorithm, experiment.workers, experiment.servers)
    recipe = experiment.recipe(algorithm.name)
    tasks = RankScheduler[Trained](InMemoryTransport()).run(
        workers, lambda worker: train(worker, algorithm, lab.task, experiment.round_count, recipe)
    )
    assert tasks[0].result is not None
    assert isinstance(tasks[0].result.parameters, Dense)
    return tasks[0].result.parameters.values


class Momentary(TopK):
    """Top-k of a user, who counts exchanges in the memory."""

    name = "momentary"
    title = "momentary"

    def initial_memory(self, template: Vector) -> Any:
        return (super().initial_memory(template), 0)


@pytest.mark.usefixtures("alone")
def test_an_algorithm_of_ones_own_is_a_hook_or_refused_by_its_memory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from algorithms.topk import TopK\n\nclass Mine(TopK):\n    title = 'mine'\n")
    hook = netsim.ddp.register(DistributedDataParallel(Weighted()), f"{tmp_path}/mine.py:Mine", density=0.1)
    assert "Mine" in repr(hook)
    with pytest.raises(UsageError, match="its memory holds int"):
        netsim.ddp.register(DistributedDataParallel(Weighted()), Momentary)


DENSITIES = (1.0, 0.05)


def shards(rank: int, ranks: int) -> list[list[float]]:
    return [shard_steps(rank, ranks, density) for density in DENSITIES]


def shard_steps(rank: int, ranks: int, density: float) -> list[float]:
    """Train two groups of two ranks, each of which shards the model; return the sums of all elements."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("groups", "shards"))
    model = fully_shard(Weighted(), mesh=mesh["shards"])
    hook = netsim.ddp.register(model, "gtopk", density=density, replicas=mesh["groups"].get_group())
    given = applied = 0.0
    for step in range(4):
        gradients = drawn(rank, step)
        given += sum(float(gradient.sum()) for gradient in gradients.values())
        model(gradients).backward()
        for name in TRAINED:
            applied += float(model.get_parameter(name).grad.full_tensor().sum())
        model.zero_grad()
    assert hook.step == 4
    held = sum(float(vectors["residual"].sum()) for vectors in hook.state_dict()["memory"].values())
    return [given, applied, held]


@pytest.mark.real
@pytest.mark.slow
def test_shards_of_fsdp_lose_no_gradient_between_groups() -> None:
    """FSDP gives the mean over its group of two, and the hook the mean over two groups; halves are exact."""
    for density, *sums in zip(DENSITIES, *on_ranks(shards, 4), strict=True):
        given, held = (sum(column) for column in list(zip(*sums, strict=True))[::2])
        assert (held == 0) == (density == 1)
        for _, applied, _ in sums:
            assert applied + held / 2 == given / 4


@pytest.mark.usefixtures("alone")
def test_fsdp_without_groups_is_refused() -> None:
    model = fully_shard(Weighted(), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(UsageError, match="no, because within a group that shards"):
        netsim.ddp.register(model, "gtopk")
    with pytest.raises(UsageError, match="k needs the tensors"):
        netsim.ddp.register(model, "gtopk", k=3, replicas=dist.group.WORLD)
    with pytest.raises(UsageError, match="powersgd needs matrices"):
        netsim.ddp.register(model, "powersgd", replicas=dist.group.WORLD)


def test_a_memory_follows_its_parameters_through_any_buckets() -> None:
    """Whatever the buckets, each parameter finds the values that it left."""

    @given(st.permutations(range(6)), st.sets(st.integers(1, 5)), st.permutations(range(6)), st.sets(st.integers(1, 5)))
    def check(first: list[int], cuts: set[int], second: list[int], other_cuts: set[int]) -> None:
        memory, expected = ParameterMemory(), {}
        for order, ends in ((first, cuts), (second, other_cuts), (first, cuts)):
            for bucket in _cut(order, ends):
                sizes = {f"p{index}": index + 1 for index in bucket}
                held = memory.take(sizes, Factored(sizes.values()), Dense(torch.zeros(sum(sizes.values()))))
                for leaf, own in (("0", list(sizes.values())), ("1", [size % 3 for size in sizes.values()])):
                    values = held[int(leaf)].values
                    for name, piece in zip(sizes, values.split(own), strict=True):
                        assert torch.equal(piece, expected.get((name, leaf), torch.zeros(len(piece))))
                    values += torch.arange(len(values)) + 1
                    for name, piece in zip(sizes, values.split(own), strict=True):
                        expected[name, leaf] = piece.clone()
                memory.keep(sizes, held)
        kept = memory.by_parameter()
        assert {
            (name, leaf): values.tolist() for name, vectors in kept.items() for leaf, values in vectors.items()
        } == {name: values.tolist() for name, values in expected.items()}

    check()


class Factored(Algorithm):
    """Remembers an element for each of the gradient, and of each tensor as many more as its size leaves modulo 3."""

    def __init__(self, sizes: Iterable[int] = ()) -> None:
        self.sizes = tuple(sizes)

    def memory_sizes(self) -> Mapping[str, tuple[int, ...]]:
        return {"1": tuple(size % 3 for size in self.sizes)}

    def initial_memory(self, template: Vector) -> Any:
        return Dense(torch.zeros(template.size)), Dense(torch.zeros(sum(self.memory_sizes()["1"]))), None


def _cut(order: list[int], ends: set[int]) -> list[list[int]]:
    places = [0, *sorted(ends), len(order)]
    return [order[first:last] for first, last in pairwise(places)]


@pytest.fixture
def alone() -> Iterator[None]:
    """Be the only rank of a group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("algorithm", "options", "says"),
    [
        ("ps", {}, "parameter server"),
        ("sasg", {}, "parameter server"),
        *((name, {}, "own steps moved") for name, kind in ALGORITHMS.items() if kind.steps_locally),
        ("gtopk-hier", {}, "group-size"),
        ("gtopk", {"momentum": 0.9}, "optimiser"),
        ("gtopk", {"lr": 0.1}, "option of a DDP hook"),
        ("gtopk", {"k": 10**6}, "more than the"),
        ("gtopq", {}, "gtopk"),
        ("gtopk,topk", {}, "gtopk"),
    ],
)
def test_a_wrong_combination_is_refused_in_one_line(
    algorithm: str, options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(UsageError, match=says) as raised:
        netsim.ddp.register(DistributedDataParallel(Weighted()), algorithm, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("alone")
def test_refusals_name_all_algorithms_that_register_accepts_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    accepted, named = [], {}
    for algorithm in ALGORITHMS:
        try:
            netsim.ddp.register(DistributedDataParallel(Weighted()), algorithm)
            accepted.append(algorithm)
        except UsageError as error:
            named[algorithm] = str(error).partition("; take one of ")[2].split(", ")
    assert {"ps", "local-sgd", "oktopk"} <= named.keys()
    assert named.keys().isdisjoint({"powersgd", "qsgd", "dgc", "scalecom", "ssar"})
    assert all(names == accepted for names in named.values())


def test_other_models_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="expected a DistributedDataParallel"):
        netsim.ddp.register(Weighted(), "gtopk")  # type: ignore[arg-type]


@pytest.mark.usefixtures("alone")
def test_sparse_gradients_and_second_hooks_are_refused() -> None:
    with pytest.raises(UsageError, match="sparse=True"):
        netsim.ddp.register(DistributedDataParallel(nn.Sequential(nn.Embedding(3, 2, sparse=True))), "gtopk")
    model = DistributedDataParallel(Weighted())
    netsim.ddp.register(model, "gtopk")
    with pytest.raises(UsageError, match="register one hook, once"):
        netsim.ddp.register(model, "gtopk")


@pytest.mark.usefixtures("alone")
def test_a_gradient_that_is_not_finite_fails_the_backward_pass() -> None:
    model = DistributedDataParallel(Weighted())
    netsim.ddp.register(model, "gtopk")
    with pytest.raises(RuntimeError, match="the gradient of third is not finite"):
        model(drawn(0, 0) | {"third": torch.full((50,), math.nan)}).backward()


@pytest.mark.usefixtures("alone")
def test_a_state_of_another_algorithm_or_model_is_refused() -> None:
    hook = netsim.ddp.register(DistributedDataParallel(Weighted()), "gtopk")
    other = netsim.ddp.register(DistributedDataParallel(Weighted()), "topk")
    with pytest.raises(UsageError, match="topk"):
        hook.load_state_dict(other.state_dict())
    model = DistributedDataParallel(nn.Linear(3, 2))
    another = netsim.ddp.register(model, "gtopk")
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(UsageError, match="same model"):
        hook.load_state_dict(another.state_dict())
