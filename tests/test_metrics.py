"""Rows of metrics against the definitions they quote."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import netsim
from algorithms import ALGORITHMS
from algorithms.selection import Selector
from netsim.comm.payload import Dense, Vector
from netsim.experiment.configuration import Experiment
from netsim.simulator.opening import load_task
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.workers import make_workers
from netsim.training.loop import Task, train
from netsim.training.metrics import COLUMNS, MetricsRecorder, metrics_file
from netsim.training.sgd import SGDConfig
from tests.oracles import gtop_k

SASG = "sasg:history=2,delay=3,alpha=1e9"
CHARGES = {"compute_time": "5ms", "select_time": "1ms", "merge_time": "0s"}


class Given(Task):
    """A task whose gradients are given: (steps, P, d)."""

    def __init__(self, gradients: np.ndarray) -> None:
        self._gradients = gradients

    def initial_parameters(self) -> Dense:
        return Dense(torch.zeros(self._gradients.shape[2], dtype=torch.float64))

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        return Dense(torch.from_numpy(self._gradients[step, rank].copy()))


def rows_of(name: str, gradients: np.ndarray, k: int, rate: float = 1.0, **options: Any) -> list[dict[str, Any]]:
    selected: Any = (Selector(k),) if ALGORITHMS[name].sparse else ()
    algorithm = ALGORITHMS[name](*selected, **options)
    workers = make_workers(algorithm, gradients.shape[1], servers=0)
    rows: list[dict[str, Any]] = []
    recorder = MetricsRecorder(algorithm, workers, lambda: 0.0, rows.append)
    for worker in workers:
        worker.observer = recorder.observe
    task = Given(gradients)
    RankScheduler[Any](InMemoryTransport()).run(
        workers, lambda worker: train(worker, algorithm, task, len(gradients), SGDConfig(rate), recorder.finished)
    )
    return rows


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
def test_delta_is_that_of_assumption_1(ranks: int) -> None:
    """Against the tree of merges written from the paper, with its own residuals, over six steps."""
    size, k, rate = 50, 4, 0.25
    gradients = np.random.default_rng(ranks).standard_normal((6, ranks, size))
    residuals = np.zeros((ranks, size))
    for row, fresh in zip(rows_of("gtopk", gradients, k, rate), gradients, strict=True):
        accumulated = residuals + rate * fresh
        total, dropped = gtop_k(accumulated, k)
        mean = accumulated.mean(0)
        expected = ((mean - total / ranks) ** 2).sum() / ((1 - k / size) * (mean**2).sum())
        assert row["delta"] == pytest.approx(expected, rel=1e-9)
        kept = np.stack([np.where(_selected(vector, k), 0, vector) for vector in accumulated])
        residuals = kept + np.stack(dropped)
        assert row["leak"] < 1e-12
        assert row["residual_norm"] == pytest.approx(np.linalg.norm(residuals, axis=1).mean(), rel=1e-9)
        assert row["batch_gradient_norm_sq"] == pytest.approx((fresh.mean(0) ** 2).sum(), rel=1e-9)


def _selected(vector: np.ndarray, k: int) -> np.ndarray:
    chosen = np.zeros(len(vector), bool)
    chosen[np.argsort(-np.abs(vector), kind="stable")[:k]] = True
    return chosen


def test_the_leak_of_index_intersection_is_what_is_missing() -> None:
    """As in test_exchange: of 5 + 2 + 4 + 4, the 2 is dropped in mid-tree and forgotten."""
    gradients = np.array([[[5, 0, 0], [0, 2, 0], [0, 4, 0], [0, 4, 0]]], float)
    (row,) = rows_of("gtopk", gradients, 1, residual="index-intersection")
    assert row["leak"] == pytest.approx(2 / 15)


def test_random_k_has_a_delta_of_one_on_average() -> None:
    gradients = np.random.default_rng(0).standard_normal((400, 2, 40))
    deltas = [row["delta"] for row in rows_of("randk", gradients, 10)]
    assert np.mean(deltas) == pytest.approx(1, abs=0.05)


def test_dense_algorithms_have_no_delta_and_no_residual() -> None:
    (row,) = rows_of("dense", np.ones((1, 3, 7)), 1)
    assert row["delta"] is None
    assert row["residual_norm"] is None


@pytest.fixture(scope="module", params=["csv", "jsonl"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("metrics") / f"rows.{request.param}"
    names = f"{SASG},ps,gtopk"
    options = {"workers": 3, "algorithm": names, "rounds": 8, **CHARGES}
    report = netsim.simulate(metrics=path, **options)
    text = path.read_text()
    if request.param == "csv":
        rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    assert list(path.parent.iterdir()) == [path]
    return report, rows


def test_a_row_a_step_whose_counts_sum_to_the_result(recorded: Any) -> None:
    report, rows = recorded
    for result in report.results:
        own = [row for row in rows if row["algorithm"] == result.algorithm]
        assert [int(row["step"]) for row in own] == list(range(8))
        for what in ("uploads", "value_bits_up", "index_bits_up", "bits_down"):
            assert sum(int(row[what]) for row in own) == result[what], (result.algorithm, what)
        times = [float(row["time_s"]) for row in own]
        assert times == sorted(times)
        assert times[-1] == pytest.approx(8 * result.round_time_s, rel=1e-9)


def test_staleness_follows_skips(recorded: Any) -> None:
    """History 2: steps 0 and 1 upload; then a limit nobody exceeds: three skips, a forced upload, three skips."""
    _, rows = recorded
    sasg = [row for row in rows if row["algorithm"] == SASG]
    assert [int(row["uploads"]) for row in sasg] == [3, 3, 0, 0, 0, 3, 0, 0]
    assert [int(row["staleness_max"]) for row in sasg] == [0, 0, 1, 2, 3, 0, 1, 2]
    assert [float(row["skip_rate"]) for row in sasg] == [0, 0, 1, 1, 1, 0, 1, 1]


def test_watching_changes_nothing(recorded: Any) -> None:
    report, _ = recorded
    options = {"workers": 3, "algorithm": f"{SASG},ps,gtopk", "rounds": 8}
    unwatched = netsim.simulate(**options, **CHARGES)
    assert [each.parameters_sha256 for each in unwatched.results] == [each.parameters_sha256 for each in report.results]
    assert [each.round_time_s for each in unwatched.results] == [each.round_time_s for each in report.results]


def test_rows_survive_a_run_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"

    def interrupted() -> None:
        with metrics_file(path, []) as emit:
            emit(dict.fromkeys(COLUMNS, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(("algorithm", "accumulate"), [("dense", 1), ("dense", 2), ("ps", 1)])
def test_the_training_loss_of_every_step_is_that_of_its_mini_batches(
    tmp_path: Path, algorithm: str, accumulate: int
) -> None:
    """Against SGD over the sum of the workers' mini-batches, written with autograd: dense algorithms do the same."""
    path = tmp_path / "rows.csv"
    topology = "ps" if algorithm == "ps" else "star"
    options = {"workers": 3, "algorithm": algorithm, "rounds": 5, "lr": 0.25, "topology": topology, **CHARGES}
    options |= {"eval_every": 2, "accumulate": accumulate}
    netsim.simulate(metrics=path, **options)
    table = pd.read_csv(path)
    assert table["test_loss"].isna().tolist() == [False, True, False, True, False]
    assert "nan" not in path.read_text().lower()

    task, _, _ = load_task(Experiment.of(**options), "cpu")
    model = task.workload.model.to_empty(device="cpu")
    torch.nn.utils.vector_to_parameters(task.initial_parameters().values.clone(), model.parameters())
    expected = []
    for step in range(5):
        numbers = range(accumulate * step, accumulate * (step + 1))
        batches = [task.samples(rank, number) for rank in range(3) for number in numbers]
        losses = [torch.nn.functional.cross_entropy(model(inputs), labels) for inputs, labels in batches]
        loss = torch.stack(losses).mean()
        expected.append(float(loss.detach()))
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.25 * parameter.grad
    assert table["train_loss"].tolist() == pytest.approx(expected, rel=1e-4)
    axes = table.plot(x="time_s", y="train_loss", ax=Figure().subplots())
    assert len(axes.lines[0].get_xdata()) == 5


def test_bytes_stand_beside_the_bits_of_the_papers(recorded: Any) -> None:
    _, rows = recorded
    for row in rows:
        for name in ("value_bytes_up", "index_bytes_up", "bytes_down"):
            assert 8 * int(row[name]) == int(row[name.replace("bytes", "bits")])


def test_the_gradient_of_the_training_loss_is_measured_where_it_is_evaluated(tmp_path: Path) -> None:
    """Against autograd over all samples at once; the mean so far stands beside it."""
    path = tmp_path / "rows.jsonl"
    options = {"workers": 3, "algorithm": "gtopk", "rounds": 5, "eval_every": 2, **CHARGES}
    netsim.simulate(metrics=path, **options)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    norms = [row["gradient_norm_sq"] for row in rows]
    assert [norm is None for norm in norms] == [False, True, False, True, False]
    known = [norm for norm in norms if norm is not None]
    means = [row["gradient_norm_sq_mean"] for row in rows if row["gradient_norm_sq_mean"] is not None]
    assert means == pytest.approx([np.mean(known[: n + 1]) for n in range(3)])

    task, _, _ = load_task(Experiment.of(**options | {"rounds": 1}), "cpu")
    parameters = task.initial_parameters()
    inputs, labels = task.workload.training.take(torch.arange(len(task.workload.training)))
    model = task.workload.model.to_empty(device="cpu")
    torch.nn.utils.vector_to_parameters(parameters.values, model.parameters())
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    expected = sum(float(each.grad.double().square().sum()) for each in model.parameters())
    assert task.gradient_norm_sq(parameters) == pytest.approx(expected, rel=1e-4)
