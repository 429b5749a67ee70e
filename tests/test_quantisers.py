"""Algorithms that send a few bits for each element: against the papers, their bytes, times and laws."""

from __future__ import annotations

from collections import Counter
from math import ceil, log, log2, sqrt
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import quantization_hooks
from torch.nn.parallel import DistributedDataParallel

import netsim
from algorithms.signsgd import majority, packed_signs, votes
from netsim.comm.payload import Dense
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import sha256_of
from netsim.simulator.opening import load_task
from netsim.training.sgd import SGDConfig
from tests import papers_quantised as papers
from tests.papers import Sgd, train
from tests.ranks import on_ranks
from tests.strategies import gradients
from tests.test_against_papers import MEAN, RECIPES, WORKERS, Both, D, agree, gradient, hold, make, run_netsim, start

every_p = pytest.mark.parametrize(
    "workers", [pytest.param(workers, marks=[pytest.mark.slow] * (workers > 3)) for workers in WORKERS]
)


def qsgd(workers: int, sgd: Sgd, bits: int = 4, bucket: int = 16, norm: str = "l2", **options: Any) -> Both:
    ours = make("qsgd", bits=bits, bucket_size=bucket, norm=norm, **options)
    return Both(ours, papers.QSGD(workers, D, sgd, bits, bucket, norm))


def terngrad(workers: int, sgd: Sgd, clip_sigmas: float = 1.5, block: int = 16, **options: Any) -> Both:
    ours = make("terngrad", clip_sigmas=clip_sigmas, block=block, **options)
    return Both(ours, papers.TernGrad(workers, D, sgd, clip_sigmas, block))


def signsgd(workers: int, sgd: Sgd, beta: float = 0.0, **options: Any) -> Both:
    ours = make("signsgd", momentum_correction=SGDConfig(1, momentum=beta), **options)
    return Both(ours, papers.SignSGD(workers, D, sgd, beta))


def ef_signsgd(workers: int, sgd: Sgd, block: int = 16, **options: Any) -> Both:
    return Both(make("ef-signsgd", block=block, **options), papers.EFSignSGD(workers, D, sgd, block))


def int8(workers: int, sgd: Sgd, **options: Any) -> Both:
    return Both(make("int8", **options), papers.Int8(workers, D, sgd))


# As the papers say, for 50 steps. Blocks of 16 elements do not divide the 40 elements.

GATHERED = {"qsgd": qsgd, "terngrad": terngrad, "signsgd": signsgd, "ef-signsgd": ef_signsgd, "int8": int8}


@every_p
@pytest.mark.parametrize("name", GATHERED)
def test_every_algorithm_is_the_papers(name: str, workers: int) -> None:
    hold(GATHERED[name](workers, MEAN))


@pytest.mark.parametrize("options", [{"gather": "bruck"}, {"segment": 5}], ids=str)
@pytest.mark.parametrize("name", GATHERED)
def test_every_recipe_is_the_papers(name: str, options: dict[str, Any]) -> None:
    hold(GATHERED[name](2, RECIPES["all"], **options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qsgd", {"bits": 2}),
        ("qsgd", {"bits": 8, "norm": "max", "bucket": 7}),
        ("terngrad", {"clip_sigmas": 0.0, "block": D}),
        ("signsgd", {"beta": 0.8}),
        ("ef-signsgd", {"block": D}),
    ],
    ids=str,
)
def test_options_are_the_papers(name: str, options: dict[str, Any]) -> None:
    hold(GATHERED[name](2, MEAN, **options))


@pytest.mark.parametrize(("workers", "dedicated", "serial"), [(1, False, False), (2, False, True), (3, True, False)])
def test_the_vote_of_a_server_is_the_vote_of_all(workers: int, dedicated: bool, serial: bool) -> None:
    (here, *_), (there, *_) = (
        run_netsim(make(name, momentum_correction=0.8, **options), workers, MEAN, at_server)
        for name, options, at_server in (("signsgd", {}, False), ("ps-signsgd", {"serial_server": serial}, dedicated))
    )
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.parameters, other.parameters)


# Bytes: what a rank sends to each of the others, counted from the papers.

SIZES = (1, 7, 1000)
MESSAGES = {
    "qsgd": lambda d: 4 * ceil(d / 512) + ceil(4 * d / 8),
    "qsgd:bits=8,bucket-size=100": lambda d: 4 * ceil(d / 100) + d,
    "qsgd:bits=3,norm=max": lambda d: 4 * ceil(d / 512) + ceil(3 * d / 8),
    "terngrad": lambda d: 4 + ceil(2 * d / 8),
    "terngrad:clip-sigmas=0,block=64": lambda d: 4 * ceil(d / 64) + ceil(2 * d / 8),
    "signsgd": lambda d: ceil(d / 8),
    "ef-signsgd": lambda d: 4 + ceil(d / 8),
    "ef-signsgd:block=64": lambda d: 4 * ceil(d / 64) + ceil(d / 8),
    "int8": lambda d: 8 + d,
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_bytes_of_every_rank_are_those_of_the_paper(name: str, workers: int) -> None:
    for size in SIZES:
        vectors = np.random.default_rng(size).standard_normal((workers, size)).astype(np.float32)
        sent = [(workers - 1) * MESSAGES[name](size)] * workers
        assert netsim.exchange(name, vectors).bytes_sent == sent
        (sized,) = netsim.simulate(algorithm=name, workers=workers, elements=size, timing_only=True).results
        assert sized.bytes_sent_by_rank == sent


@pytest.mark.parametrize(("gather", "engine", "workers"), [("ring", "event", 3), ("bruck", "vectorized", 8)])
@pytest.mark.parametrize("name", MESSAGES)
def test_times_on_an_idle_star_are_the_closed_form(name: str, workers: int, engine: str, gather: str) -> None:
    """(P-1)(α + mβ) around a ring of whole messages, α ⌈log₂P⌉ + (P-1) mβ by Bruck's; β is 8 ns a byte at 1 Gbit/s.

    int8 gathers twice.
    """
    size = 10_000
    algorithm = f"{name}{',' if ':' in name else ':'}gather={gather},segment=none"
    options: dict[str, Any] = {"workers": workers, "elements": size, "timing_only": True, "engine": engine}
    (result,) = netsim.simulate(algorithm=algorithm, latency="50us", bandwidth="1Gbps", **options).results
    hops = (workers - 1 if gather == "ring" else (workers - 1).bit_length()) * (1 + (name == "int8"))
    assert result.comm_time_s == pytest.approx(hops * 50e-6 + (workers - 1) * MESSAGES[name](size) * 8e-9, rel=1e-9)


@every_p
def test_ternary_values_at_a_server_are_the_papers(workers: int) -> None:
    method = papers.TernGradAtServer(workers, D, MEAN, 1.5, 16)
    theirs = [step.parameters for step in train(method, start(), gradient, 50)]
    for dedicated in (False, True):
        ours = run_netsim(make("ps-terngrad", clip_sigmas=1.5, block=16), workers, MEAN, dedicated)
        for rank, seen in enumerate(ours):
            agree("parameters", rank, [now.parameters for now in seen], theirs)
        scales = 3 * 32
        assert ours[0][-1].tally == Counter(uploads=50, value_bits=50 * (scales + 2 * D))


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 130])
def test_a_server_sends_sums_of_ternary_values_in_as_few_bits_as_they_need(workers: int) -> None:
    """4 ⌈d/64⌉ + ⌈d/4⌉ bytes up; 4 ⌈d/64⌉ bytes and ⌈log₂(2P + 1)⌉ bits for each element down."""
    vectors = np.random.default_rng(0).standard_normal((workers, 1001)).astype(np.float32)
    up, down = 4 * 16 + 251, 4 * 16 + ceil(1001 * ceil(log2(2 * workers + 1)) / 8)
    done = netsim.exchange("ps-terngrad:block=64,clip-sigmas=0", vectors)
    assert done.bytes_sent == [(workers - 1) * down] + [up] * (workers - 1)
    shared = np.concatenate([np.full(64, np.abs(vectors[:, i : i + 64]).max()) for i in range(0, 1001, 64)])[:1001]
    levels = done.aggregated.numpy() / shared
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-5 * workers)


@pytest.mark.parametrize("engine", ["event", "vectorized"])
@pytest.mark.parametrize(("topology", "clients"), [("star", 4), ("ps", 5)])
def test_a_server_counts_votes_in_the_bytes_and_the_time_of_its_formula(
    topology: str, clients: int, engine: str
) -> None:
    """2 (α + n ⌈d/8⌉ β), and ⌈d/8⌉ bytes up and down for each of n clients.

    Ternary values: 4α + n (8 + ⌈d/4⌉ + ⌈d 4/8⌉) β, because sums of five of them have 11 levels.
    """
    options: dict[str, Any] = {"workers": 5, "elements": 9_999, "timing_only": True, "topology": topology}
    (result, other) = netsim.simulate(algorithm="ps-signsgd,ps-terngrad", engine=engine, **options).results
    assert other.comm_time_s == pytest.approx(4 * 50e-6 + clients * (8 + 2500 + 5000) * 8e-9, rel=1e-9)
    assert result.comm_time_s == pytest.approx(2 * (50e-6 + clients * 1250 * 8e-9), rel=1e-9)
    assert sorted(result.bytes_sent_by_rank) == sorted([1250] * clients + [clients * 1250])


def test_a_great_many_workers_are_solved_by_the_formula() -> None:
    options: dict[str, Any] = {"workers": 65_536, "elements": 10_000, "timing_only": True, "compute_time": "0s"}
    for name, message in MESSAGES.items():
        (result,) = netsim.simulate(algorithm=name, **options).results
        assert result.way == "closed-form"
        assert result.value_bytes_up == 65_535 * message(10_000)


# Laws.

ERROR_PROBABILITY = 1e-9
"""The probability with which a test of a mean would fail although rounding is unbiased, if the seed were drawn."""
REPEATS = 5_000


@pytest.mark.parametrize(
    ("algorithm", "levels", "norm"),
    [
        ("terngrad:clip-sigmas=0,block=8", 1, "max"),
        ("qsgd:bucket-size=8,bits=2,norm=max", 1, "max"),
        ("qsgd:bucket-size=8", 7, "l2"),
        ("qsgd:bucket-size=8,norm=max", 7, "max"),
        ("qsgd:bucket-size=8,bits=8", 127, "l2"),
    ],
)
def test_the_expectation_of_random_rounding_is_the_vector(algorithm: str, levels: int, norm: str) -> None:
    """The mean of n roundings, each between two levels, is within Hoeffding's bound, for all elements together.

    Two levels are ‖v‖/s apart. So |mean - v_i| ≥ t has at most the probability 2 exp(-2 n t² s² / ‖v‖²).
    """
    v = np.array([1.0, -0.3, 0.01, -0.0004, 0.0, 0.5, -0.77, 0.2], np.float32)
    scale = float(np.abs(v).max() if norm == "max" else np.linalg.norm(v))
    bound = scale / levels * sqrt(log(2 * len(v) / ERROR_PROBABILITY) / (2 * REPEATS))
    rounded = netsim.exchange(algorithm, np.tile(v, REPEATS)[None], seed=1).aggregated.numpy()
    means = rounded.reshape(REPEATS, len(v)).mean(axis=0, dtype=np.float64)
    assert np.abs(means - v).max() < bound + 1e-6  # float32 levels are exact to 6e-8 of ‖v‖
    nearest = np.rint(v * levels / scale) * scale / levels
    assert np.abs(nearest - v).max() > 2 * bound, "rounding to the nearest level would be noticed"


@settings(max_examples=15, deadline=None)
@given(vectors=gradients(), gather=st.sampled_from(["ring", "bruck"]))
def test_every_element_moves_as_most_workers_say(vectors: np.ndarray, gather: str) -> None:
    """P times the vote of the first step, in which a zero votes for +1, and worker 0 decides a tie."""
    ranks = len(vectors)
    signs = np.where(vectors >= 0, 1, -1)
    expected = ranks * np.where(signs.sum(axis=0) == 0, signs[0], np.sign(signs.sum(axis=0)))
    for name in (f"signsgd:gather={gather}", "ps-signsgd"):
        done = netsim.exchange(name, vectors)
        np.testing.assert_array_equal(done.aggregated.numpy(), expected)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_a_vote_without_a_gradient_does_not_drift(workers: int) -> None:
    """Votes on noise have the mean 0, within Hoeffding's bound; votes on zeros alternate.

    Votes are ±1, so the mean of n has |mean| ≥ t with at most the probability 2 exp(-n t² / 2).
    """
    random = np.random.default_rng(0)
    size, steps, template = 5_000, 8, Dense(torch.zeros(5_000))
    total, of_zeros = np.zeros(size), np.zeros(size)
    for step in range(steps):
        noise = [Dense(torch.from_numpy(random.standard_normal(size, np.float32))) for _ in range(workers)]
        for vectors, into in ((noise, total), ([template] * workers, of_zeros)):
            vote = majority(template, workers, step, *(packed_signs(vector, step) for vector in vectors))
            into += votes(template, workers, vote).values.numpy() / workers
    assert abs(total.mean() / steps) < sqrt(2 * log(2 / ERROR_PROBABILITY) / (size * steps))
    assert not of_zeros.any()


@settings(max_examples=25, deadline=None)
@given(vectors=gradients(), block=st.integers(1, 50))
def test_error_feedback_loses_no_gradient_mass(vectors: np.ndarray, block: int) -> None:
    """What was sent and what is kept add up to the gradient, but for the roundings of two float32 operations each.

    A residual is p - Δ, rounded once, and the sum of P vectors is rounded P times; all are below 2^(P + 1).
    """
    done = netsim.exchange("ef-signsgd", vectors, block=block)
    held = done.aggregated.numpy().astype(np.float64) + done.residuals.numpy().astype(np.float64).sum(axis=0)
    ranks, largest = len(vectors), float(np.abs(vectors).max())
    assert np.abs(held - vectors.astype(np.float64).sum(axis=0)).max() <= 4 * ranks * ranks * largest * 2.0**-24


def test_ranks_steps_and_buckets_round_independently() -> None:
    """Halfway between two levels, two independent roundings differ in half of 1000 elements; σ is 16."""
    vectors = np.full((2, 1000), 2.5 / 7, np.float32)
    vectors[:, 0] = 1

    def levels(ranks: int, **options: int) -> np.ndarray:
        done = netsim.exchange("qsgd", vectors[:ranks], norm="max", bucket_size=1000, **options)
        return np.rint(7 * done.aggregated.numpy())

    one = levels(1)
    assert (one == levels(1)).all()
    for other in (levels(2) - one, levels(1, bucket=1), levels(1, seed=1)):
        assert 400 < (other != one).sum() < 600


# Real ranks.

LR, STEPS = 0.125, 10


def quantised_by_torch(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """``quantization_pertensor_hook``, from its own functions: torch's indexes what gloo gathers as nccl gathers it."""
    gradient = bucket.buffer()
    observer = torch.ao.quantization.MinMaxObserver()
    observer(gradient)
    scales = [torch.zeros(2) for _ in range(group.size())]
    dist.all_gather(scales, torch.FloatTensor([*observer.calculate_qparams()]), group)
    own = quantization_hooks._quantize_per_tensor_backend(gradient, *scales[group.rank()])
    gathered = [torch.zeros_like(own) for _ in scales]
    dist.all_gather(gathered, own, group)
    total = torch.zeros_like(gradient)
    for quantised, scale in zip(gathered, scales, strict=True):
        total += quantization_hooks._dequantize_per_tensor_backend(quantised, *scale)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(total / group.size())
    return done


def by_hook(rank: int, ranks: int) -> list[tuple[str, int]]:
    """Train digits-mlp by hooks; return the digest of the parameters after each, and the bytes of netsim's."""
    ended = []
    for name in ("torch", "int8", "qsgd", "ef-signsgd", "signsgd"):
        task, _, _ = load_task(Experiment.of(workers=ranks), "cpu")
        net = task.workload.model.to_empty(device="cpu")
        nn.utils.vector_to_parameters(task.initial_parameters().values.clone(), net.parameters())
        model = DistributedDataParallel(net, bucket_cap_mb=100)
        hook = None
        if name == "torch":
            model.register_comm_hook(dist.group.WORLD, lambda group, bucket: quantised_by_torch(group, bucket))
        else:
            hook = netsim.ddp.register(model, name)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for step in range(STEPS):
            inputs, labels = task.samples(rank, step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        parameters = nn.utils.parameters_to_vector(net.parameters()).detach()
        ended.append((str(sha256_of(Dense(parameters))), 0 if hook is None else hook.bytes_sent))
    return ended


@pytest.mark.real
@pytest.mark.slow
def test_hooks_and_torchs_functions_end_with_the_bits_and_bytes_of_a_simulation() -> None:
    """A rate that is a power of two scales all values exactly, so that its place changes no bit."""
    names = ["int8", "qsgd", "ef-signsgd", "signsgd"]
    simulated = netsim.simulate(workers=3, algorithm=names, lr=LR, rounds=STEPS, compute_time="1ms").results
    expected = [(result.parameters_sha256, result.bytes_sent_by_rank[0]) for result in simulated]
    for (torchs, _), *ours in on_ranks(by_hook, 3):
        assert ours == expected
        assert torchs == expected[0][0]
