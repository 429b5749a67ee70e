"""Methods with local steps, against transcriptions of their papers' algorithms, torch's optimisers and closed forms."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from algorithms import ALGORITHMS, build_algorithm
from algorithms.e3m0 import add_e3m0, to_e3m0
from algorithms.local import Fragment, Inner, Outer, adamw_step, outer_step
from netsim._util.errors import UsageError
from netsim.comm.payload import Dense, SizeOnly, Vector
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.training.loop import Task, Trained, train
from netsim.training.sgd import SGDConfig
from tests.command import run
from tests.engines import results_of, without_the_way

PS = 10**12
SIZE, STEPS = 11, 50
TINY: dict[str, Any] = {
    "workload": "tests.tiny:tiny",
    "workers": 3,
    "batch_size": 4,
    "rounds": 6,
    "compute_time": "3ms",
}
WORKERS = [1, 2, 3, *(pytest.param(workers, marks=pytest.mark.slow) for workers in (5, 8))]
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Quadratics(Task):
    """Each worker m has the gradient A_m y - b_m + noise, in float64, so that only the order of sums differs."""

    def __init__(self, workers: int) -> None:
        random = np.random.default_rng(workers)
        roots = random.standard_normal((workers, SIZE, SIZE)) / np.sqrt(SIZE)
        self.matrices = roots @ roots.transpose(0, 2, 1)
        self.noise = random.standard_normal((workers, STEPS, SIZE))
        self.start = random.standard_normal(SIZE)

    def initial_parameters(self) -> Dense:
        return Dense(torch.from_numpy(self.start.copy()))

    def slope(self, parameters: np.ndarray, rank: int, step: int) -> np.ndarray:
        slope: np.ndarray = self.matrices[rank] @ parameters + self.noise[rank, step]
        return slope

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        assert isinstance(parameters, Dense)
        return Dense(torch.from_numpy(self.slope(parameters.values.numpy(), rank, step)))


def trained(algorithm: str, task: Quadratics, workers: int, steps: int = STEPS, **recipe: Any) -> np.ndarray:
    """Return the parameters after a number of steps, computed in memory; all ranks have the same."""
    built = build_algorithm(algorithm, {})
    ranks = RankScheduler[Trained](InMemoryTransport()).run(
        [Worker(rank, workers) for rank in range(workers)],
        lambda worker: train(worker, built, task, steps, SGDConfig(**recipe)),
    )
    results = [rank.result.parameters for rank in ranks if rank.result is not None]
    values = [parameters.values.numpy() for parameters in results if isinstance(parameters, Dense)]
    assert all(np.array_equal(other, values[0]) for other in values)
    return values[0]


def paper_local_sgd(task: Quadratics, workers: int, h: int, rate: float, momentum: float, start: int) -> np.ndarray:
    """Stich, algorithm 1, with the local momentum of Lin et al.; synchronous up to step `start`."""
    own = [task.start.copy() for _ in range(workers)]
    velocity = [np.zeros(SIZE) for _ in range(workers)]
    mean = task.start
    for t in range(1, STEPS + 1):
        for m in range(workers):
            velocity[m] = momentum * velocity[m] + task.slope(own[m], m, t - 1)
            own[m] = own[m] - rate * velocity[m]
        if t <= start or (t - start) % h == 0:
            mean = sum(own) / workers  # type: ignore[assignment]
            own = [mean.copy() for _ in range(workers)]
    return mean


class AdamW:
    """Loshchilov and Hutter, algorithm 2, with η_t α = rate."""

    def __init__(self, rate: float, decay: float) -> None:
        self.rate, self.decay = rate, decay
        self.t, self.m, self.v = 0, np.zeros(SIZE), np.zeros(SIZE)

    def step(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        self.t += 1
        self.m = BETAS[0] * self.m + (1 - BETAS[0]) * g
        self.v = BETAS[1] * self.v + (1 - BETAS[1]) * g * g
        m_hat, v_hat = self.m / (1 - BETAS[0] ** self.t), self.v / (1 - BETAS[1] ** self.t)
        stepped: np.ndarray = x - self.rate * (m_hat / (np.sqrt(v_hat) + EPSILON) + self.decay * x)
        return stepped


def paper_diloco(task: Quadratics, workers: int, h: int, rate: float, decay: float, outer: Outer) -> np.ndarray:
    """DiLoCo, algorithm 1: H inner steps, the outer gradient, and Nesterov's method as in torch."""
    theta, velocity, t = task.start, np.zeros(SIZE), 0
    inner = [AdamW(rate, decay) for _ in range(workers)]
    while t + h <= STEPS:
        ends = []
        for m in range(workers):
            own = theta
            for step in range(t, t + h):
                own = inner[m].step(own, task.slope(own, m, step))
            ends.append(own)
        delta = sum(theta - end for end in ends) / workers
        velocity = outer.momentum * velocity + delta
        theta = theta - outer.rate * (delta + outer.momentum * velocity)
        t += h
    return theta


def paper_streaming(
    task: Quadratics, workers: int, h: int, fragments: int, tau: int, alpha: float, rate: float, *, fp4: bool
) -> np.ndarray:
    """Streaming DiLoCo, algorithm 2, with the parameters of each replica; fragments are of consecutive elements."""
    shared, velocity = task.start.copy(), np.zeros(SIZE)
    own, inner = [task.start.copy() for _ in range(workers)], [AdamW(rate, 0.0) for _ in range(workers)]
    parts = [slice(SIZE * p // fragments, SIZE * (p + 1) // fragments) for p in range(fragments)]
    offsets = [p * h // fragments for p in range(fragments)]
    sent: dict[tuple[int, int], np.ndarray] = {}
    for t in range(1, STEPS + 1):
        for m in range(workers):
            own[m] = inner[m].step(own[m], task.slope(own[m], m, t - 1))
        for p, part in enumerate(parts):
            if (t - offsets[p]) % h == 0:
                deltas = [shared[part] - own[m][part] for m in range(workers)]
                sent[p, t] = sum(nearest_e3m0(delta) if fp4 else delta for delta in deltas) / workers
        for p, part in enumerate(parts):
            if (p, t - tau) in sent:
                delta = sent[p, t - tau]
                velocity[part] = 0.9 * velocity[part] + delta
                shared[part] = shared[part] - 0.4 * (delta + 0.9 * velocity[part])
                for m in range(workers):
                    own[m][part] = alpha * own[m][part] + (1 - alpha) * shared[part]
    return shared


def nearest_e3m0(vector: np.ndarray) -> np.ndarray:
    """Each value becomes the nearest of 0 and ± s 2^-6 to s, s the largest magnitude as float32."""
    scale = np.float32(np.abs(vector).max(initial=0))
    levels = np.array([0.0, *(2.0**-power for power in range(6, -1, -1))])
    ratios = np.abs(vector) / np.abs(vector).max(initial=0) if scale else np.abs(vector)
    nearest: np.ndarray = np.sign(vector) * levels[np.abs(ratios[:, None] - levels).argmin(1)] * scale
    return nearest


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    ("h", "fragments", "tau", "alpha", "fp4"),
    [(6, 3, 0, 0.0, False), (6, 3, 1, 0.5, False), (7, 2, 5, 0.25, False), (8, 4, 3, 0.5, True)],
)
def test_streaming_diloco_is_that_of_the_paper(
    workers: int, h: int, fragments: int, tau: int, alpha: float, fp4: bool
) -> None:
    task = Quadratics(workers)
    name = f"streaming-diloco:h={h},fragments={fragments},tau={tau},mixing={alpha},fp4={str(fp4).lower()}"
    found = trained(name, task, workers, learning_rate=0.02)
    expected = paper_streaming(task, workers, h, fragments, tau, alpha, 0.02, fp4=fp4)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=0, max_size=30))
def test_e3m0_takes_the_nearest_level_in_half_a_byte(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    message = to_e3m0(Dense(torch.from_numpy(vector.copy())))
    assert message.value_bytes == 4 + -(-len(values) // 2) == to_e3m0(SizeOnly(len(values))).value_bytes  # type: ignore[arg-type]
    found = add_e3m0(Dense(torch.zeros(len(values))), message)
    error = np.abs(found.values.numpy() - vector)
    # Between two levels there may be a tie; the nearest level is as near then.
    np.testing.assert_allclose(error, np.abs(nearest_e3m0(vector.astype(np.float64)) - vector), rtol=1e-5, atol=1e-30)


def test_with_one_fragment_and_no_delay_streaming_diloco_is_diloco() -> None:
    same = "streaming-diloco:h=3,fragments=1,tau=0,mixing=0,outer-lr=0.7"
    report = netsim.simulate(algorithm=["diloco:h=3", same], **TINY)
    assert len({result.parameters_sha256 for result in report.results}) == 1


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(("h", "momentum", "start"), [(1, 0.0, 0), (4, 0.0, 0), (7, 0.9, 0), (3, 0.5, 20)])
def test_local_sgd_is_that_of_the_papers(workers: int, h: int, momentum: float, start: int) -> None:
    task = Quadratics(workers)
    name = f"post-local-sgd:h={h},start={start}" if start else f"local-sgd:h={h}"
    found = trained(name, task, workers, learning_rate=0.05, momentum=momentum)
    np.testing.assert_allclose(found, paper_local_sgd(task, workers, h, 0.05, momentum, start), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("h", [1, 6, 25])
def test_diloco_is_that_of_the_paper(workers: int, h: int) -> None:
    task = Quadratics(workers)
    found = trained(f"diloco:h={h}", task, workers, learning_rate=0.02, weight_decay=0.1)
    np.testing.assert_allclose(
        found, paper_diloco(task, workers, h, 0.02, 0.1, Outer(0.7, 0.9)), rtol=1e-11, atol=1e-12
    )


def test_the_optimisers_are_torchs() -> None:
    """A check from outside: ten steps of torch's AdamW, and of its SGD with Nesterov momentum."""
    random = torch.Generator().manual_seed(0)
    slopes = torch.randn(10, SIZE, generator=random, dtype=torch.float64)
    start = torch.randn(SIZE, generator=random, dtype=torch.float64)
    inner, outer = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    adamw = torch.optim.AdamW([inner], lr=0.01, weight_decay=0.1, betas=BETAS, eps=EPSILON)
    nesterov = torch.optim.SGD([outer], lr=0.7, momentum=0.9, nesterov=True)
    moved, state = None, Inner()
    shared, velocity = Dense(start.clone()), None
    for step, slope in enumerate(slopes):
        inner.grad = outer.grad = slope.clone()
        adamw.step()
        nesterov.step()
        own = Dense(start if moved is None else start - moved.values)
        stepped = adamw_step(Dense(slope.clone()), own, moved, state, SGDConfig(0.01, weight_decay=0.1), step)
        assert isinstance(stepped.moved, Dense)
        moved, state = stepped.moved, stepped.inner
        after = outer_step(shared, Dense(4 * slope), velocity, Outer(0.7, 0.9), 4, Fragment(0, SIZE))
        assert isinstance(after.parameters, Dense)
        assert isinstance(after.velocity, Dense)
        shared, velocity = after.parameters, after.velocity
    assert moved is not None
    torch.testing.assert_close(start - moved.values, inner.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(shared.values, outer.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.01, "clip": 0.5, "lr_warmup": 2, "lr_decay_at": "4"},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in ({"accumulate": 2}, {"dtype": "bf16"}, {"aggregate": "sum", "lr": 0.02})
        ),
    ],
)
def test_with_h_1_local_sgd_is_dense_sgd_to_the_last_bit(options: dict[str, Any]) -> None:
    same = "local-sgd:h=1", "post-local-sgd:h=9,start=9", "diloco:h=1,inner=sgd,outer-lr=1,outer-momentum=0"
    report = netsim.simulate(algorithm=["dense", *same], **TINY | options)
    assert len({result.parameters_sha256 for result in report.results}) == 1
    assert len({tuple(result.bytes_sent_by_rank) for result in report.results}) == 1


@pytest.mark.parametrize("workers", WORKERS)
def test_with_h_1_the_mean_of_local_momenta_is_the_momentum_of_the_mean(workers: int) -> None:
    task = Quadratics(workers)
    dense, local = (
        trained(name, task, workers, learning_rate=0.05, momentum=0.9) for name in ("dense", "local-sgd:h=1")
    )
    np.testing.assert_allclose(local, dense, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("way", ["event", "batched", "closed-form"])
@settings(max_examples=12, deadline=None)
@given(
    workers=st.integers(2, 24),
    chunk=st.integers(1, 10**5),
    h=st.integers(1, 9),
    periods=st.integers(1, 3),
    latency_ps=st.integers(1, 10**9),
)
def test_a_step_takes_an_hth_of_a_ring(
    way: str, workers: int, chunk: int, h: int, periods: int, latency_ps: int
) -> None:
    """(2(P-1)(α + d/P β)) / H, beside the time of the gradients; and bytes, uploads and messages likewise."""
    compute_ps, beta = 3 * 10**9, Fraction(32 * PS, 10**9)
    (result,) = results_of(
        way,
        algorithm=f"local-sgd:h={h},segment=none",
        workers=workers,
        elements=chunk * workers,
        latency=latency_ps / PS,
        compute_time=compute_ps / PS,
        rounds=h * periods,
    )
    ring = 2 * (workers - 1) * (latency_ps + chunk * beta)
    assert result.round_time_s == pytest.approx(float((compute_ps + ring / h) / PS), rel=1e-12)
    assert result.bytes_sent_by_rank == [periods * 2 * (workers - 1) * 4 * chunk] * workers
    assert result.value_bytes_up == pytest.approx(2 * (workers - 1) * 4 * chunk / h)
    assert result.uploads == periods * workers


@pytest.mark.parametrize("way", ["event", "batched", "closed-form"])
@settings(max_examples=12, deadline=None)
@given(
    workers=st.integers(2, 6),
    part=st.integers(1, 10**5),
    fragments=st.integers(1, 3),
    turn=st.integers(1, 4),
    compute_ps=st.integers(1, 2 * 10**10),
    data=st.data(),
)
def test_a_fragment_costs_what_tau_steps_do_not_hide(
    way: str, workers: int, part: int, fragments: int, turn: int, compute_ps: int, data: st.DataObject
) -> None:
    """A fragment of t = 2(P-1)(α + d/(FP) β) delays its turn of H/F steps by max(0, t - τ c); the last one by t.

    τ is less than H/F, so that exchanges do not share links.
    """
    tau = data.draw(st.integers(0, turn - 1))
    alpha, beta, h, periods = 10**8, Fraction(32 * PS, 10**9), fragments * turn, 2
    (result,) = results_of(
        way,
        algorithm=f"streaming-diloco:h={h},fragments={fragments},tau={tau},segment=none",
        workers=workers,
        elements=part * workers * fragments,
        latency=alpha / PS,
        compute_time=compute_ps / PS,
        rounds=h * periods,
    )
    exchange = 2 * (workers - 1) * (alpha + part * beta)
    delays = (fragments * periods - 1) * max(0, exchange - tau * compute_ps) + exchange
    assert result.round_time_s * h * periods == pytest.approx(float((h * periods * compute_ps + delays) / PS), rel=1e-9)
    assert result.compute_time_s == pytest.approx(compute_ps / PS)
    hidden = (fragments * periods - 1) * min(exchange, tau * compute_ps)
    assert result.hidden_comm_time_s * h * periods == pytest.approx(float(hidden / PS), rel=1e-9, abs=1e-15)
    assert result.bytes_sent_by_rank == [periods * fragments * 2 * (workers - 1) * 4 * part] * workers


@pytest.mark.parametrize("topology", ["star", "racks:size=2", "ring"])
@pytest.mark.parametrize("options", ["tau=1", "tau=3,fp4=true", "tau=4,fragments=2"])
def test_engines_agree_on_exchanges_beside_computations(topology: str, options: str) -> None:
    """Also where chunks are of different sizes, and where exchanges share links: then message by message."""
    (event,), (auto,) = (
        results_of(
            engine,
            algorithm=f"streaming-diloco:h=8,{options}",
            workers=5,
            elements=10_007,
            topology=topology,
            latency=1e-5,
            compute_time=2e-4,
            rounds=17,
        )
        for engine in ("event", "auto")
    )
    one, other = without_the_way(event), without_the_way(auto)
    assert {name: value for name, value in one.items() if not isinstance(value, float)} == {
        name: value for name, value in other.items() if not isinstance(value, float)
    }
    for name, value in one.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, rel=1e-9, abs=1e-15), name


def test_sizes_only_have_as_many_rounds_as_repeat() -> None:
    def rounds(*names: str) -> int:
        return Experiment.of(algorithm=list(names), timing_only=True, elements=100).round_count

    assert rounds("dense") == 1
    assert rounds("local-sgd", "dense") == 16
    assert rounds("local-sgd:h=4", "diloco:h=6") == 12
    assert rounds("post-local-sgd:h=4,start=10") == 14


def test_65_536_workers_are_solved_by_formulas() -> None:
    (many,) = results_of("auto", algorithm="diloco:h=20,segment=none", workers=2**16, elements=2**20, latency=1e-6)
    ring = 2 * (2**16 - 1) * (1e-6 + 16 * 32e-9)
    assert many.way == "closed-form"
    assert many.round_time_s == pytest.approx(ring / 20, rel=1e-12)


def test_rows_of_metrics_have_uploads_where_something_is_exchanged(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    report = netsim.simulate(
        algorithm="local-sgd:h=3", metrics=rows, eval_every=1, **TINY | {"workers": 2, "rounds": 7}
    )
    found = [(row["uploads"], row["value_bytes_up"] > 0) for row in map(json.loads, rows.read_text().splitlines())]
    assert found == [(2, True) if step % 3 == 2 else (0, False) for step in range(7)]
    assert report.results[0].uploads == 4


LOCAL = [name for name, kind in ALGORITHMS.items() if kind.steps_locally]


@pytest.mark.parametrize("name", LOCAL)
def test_what_does_not_fit_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} was asked for with --overlap, but it sends nothing before"):
        Experiment.of(algorithm=name, overlap="25MB")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"algorithm": "streaming-diloco:h=4,tau=4"}, "tau 4 of streaming-diloco must be less than h 4"),
        ({"algorithm": "streaming-diloco:fp4=true", "dtype": "bf16"}, "have 4 bits with fp4=true; leave one out"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        netsim.simulate(timing_only=True, elements=100, **options)


def test_momentum_is_reported_where_it_is_applied() -> None:
    experiment = Experiment.of(algorithm="dense,local-sgd,diloco,diloco:inner=sgd", momentum=0.9)
    places = [experiment.momentum_of(name) for name in experiment.algorithms]
    assert places == ["sum", "workers", None, "workers"]
    assert {experiment.recipe(name).momentum for name in experiment.algorithms} == {0.9}


def test_a_run_without_an_exchange_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "simulate --algorithm diloco --workers 2 --rounds 2 --workload tests.tiny:tiny")
    said = "DiLoCo exchanged nothing: it does so every h = 500 rounds, and this run has 2. Its loss is that of the "
    assert f"{said}untrained model. Give --rounds 500 or more, or a smaller h: diloco:h=2." in ran.out


def test_a_round_without_an_exchange_is_not_called_the_shortest(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--workers 8 --timing-only --elements 1000000 --compute-time 1ms --rounds 1"
    said = run(capsys, f"simulate --algorithm diloco,dense,gtopk {sizes}").out
    assert "With 8 workers gTop-k has the shortest round" in said
    assert "A round of dense with 8 workers takes" in run(capsys, f"simulate --algorithm diloco,dense {sizes}").out
