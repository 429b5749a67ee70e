"""SGD around an exchange is torch's own: ``torch.optim.SGD``, its schedulers and ``clip_grad_norm_`` on one machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import netsim
from algorithms import ALGORITHMS, with_options
from netsim._util.errors import UsageError
from netsim._util.system import one_thread_each
from netsim.cli.main import main
from netsim.comm.payload import Dense, Vector
from netsim.experiment.configuration import Experiment
from netsim.simulator.scheduler import InMemoryTransport, RankScheduler
from netsim.simulator.workers import make_workers
from netsim.training.algorithm import Convergence
from netsim.training.loop import Task, Trained, train
from netsim.training.sgd import SGDConfig

FEATURES, CLASSES, BATCH, STEPS = 6, 3, 5, 24
TENSORS = (FEATURES * CLASSES, CLASSES)
DENSE, LAZY = (
    [name for name, kind in ALGORITHMS.items() if kind.convergence is convergence]
    for convergence in (Convergence.EXACT, Convergence.STALE)
)
SPARSE = [
    name
    for name, kind in ALGORITHMS.items()
    if kind.sparse and kind.convergence is Convergence.FEEDBACK and not kind.always_corrects
]
EVERYTHING: dict[str, Any] = {
    "lr": 0.4, "lr_warmup": 6, "lr_decay": 0.2, "lr_decay_at": (10, 17), "momentum": 0.9, "weight_decay": 0.02,
    "clip": 0.5,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"lr": 0.4},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "momentum and decay": {"lr": 0.1, "momentum": 0.9, "lr_decay": 0.1, "lr_decay_at": (8, 16)},
    "momentum and warm-up": {"lr": 0.1, "momentum": 0.9, "lr_warmup": 12},
    "a decay in the warm-up": {"lr": 0.1, "momentum": 0.9, "lr_warmup": 12, "lr_decay": 0.5, "lr_decay_at": (5, 5)},
    "clip": {"lr": 0.4, "clip": 0.3},
    "clip and weight decay": {"lr": 0.4, "clip": 0.3, "weight_decay": 0.1},
    "clip to next to nothing": {"lr": 0.4, "clip": 1e-6, "weight_decay": 0.1},
    "everything": EVERYTHING,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with one_thread_each():
        yield


def model() -> nn.Linear:
    """The same parameters each time, in double precision."""
    made = nn.Linear(FEATURES, CLASSES).double()
    drawn = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn, dtype=torch.float64))
    return made


def loss(of: nn.Linear, rank: int, step: int) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1000 * rank + step)
    inputs = torch.randn(BATCH, FEATURES, generator=drawn, dtype=torch.float64)
    return nn.functional.cross_entropy(of(inputs), torch.randint(CLASSES, (BATCH,), generator=drawn))


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


class Regression(Task):
    """Softmax regression, whose gradients are autograd's."""

    def initial_parameters(self) -> Dense:
        return Dense(flat(model().parameters()))

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        assert isinstance(parameters, Dense)
        at = model()
        torch.nn.utils.vector_to_parameters(parameters.values, at.parameters())
        return Dense(flat(torch.autograd.grad(loss(at, rank, step), list(at.parameters()))))


def by_torch(workers: int, recipe: dict[str, Any], aggregate: str = "mean") -> list[torch.Tensor]:
    """The parameters after every step, as somebody writes them who accumulates gradients of many workers by hand."""
    trained = model()
    parameters = list(trained.parameters())
    # Each of P workers decays the parameters, and a sum adds that up P times.
    decays = 1 if aggregate == "mean" else workers
    optimizer = torch.optim.SGD(
        parameters,
        lr=recipe["lr"],
        momentum=recipe.get("momentum", 0.0),
        weight_decay=decays * recipe.get("weight_decay", 0.0),
    )
    schedulers: list[torch.optim.lr_scheduler.LRScheduler] = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe.get("lr_decay_at", ()), recipe.get("lr_decay", 0.1))
    ]
    if warmup := recipe.get("lr_warmup", 0):
        schedulers.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1))
    after = []
    for step in range(STEPS):
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for rank in range(workers):
            optimizer.zero_grad()
            loss(trained, rank, step).backward()
            if recipe.get("clip"):
                nn.utils.clip_grad_norm_(parameters, recipe["clip"])
            for summed, parameter in zip(total, parameters, strict=True):
                summed += parameter.grad
        for summed, parameter in zip(total, parameters, strict=True):
            parameter.grad = summed / workers if aggregate == "mean" else summed
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        after.append(flat(parameters))
    return after


def by_netsim(name: str, workers: int, **options: Any) -> list[torch.Tensor]:
    """The parameters after every step; sparse algorithms select every entry."""
    experiment = Experiment.of(workers=workers, algorithm=name, rounds=STEPS, density=1.0, **options)
    algorithm, recipe = experiment.algorithm(name, TENSORS), experiment.recipe(name)
    after: list[torch.Tensor] = []

    def look(worker: Any, now: Trained) -> None:
        if worker.rank == 0:
            assert isinstance(now.parameters, Dense)
            after.append(now.parameters.values.clone())

    RankScheduler[Trained](InMemoryTransport()).run(
        make_workers(algorithm, workers, 0),
        lambda worker: train(worker, algorithm, Regression(), STEPS, recipe, look),
    )
    return after


def agree(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12, msg=lambda said, at=step: f"step {at}: {said}")


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_worker_is_torch(recipe: str) -> None:
    agree(by_netsim("dense", 1, **RECIPES[recipe]), by_torch(1, RECIPES[recipe]))


@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@pytest.mark.parametrize("name", DENSE)
def test_several_workers_are_torch(name: str, aggregate: str) -> None:
    scale = 1 if aggregate == "mean" else 3
    recipe = EVERYTHING | {"lr": EVERYTHING["lr"] / scale}
    agree(by_netsim(name, 3, aggregate=aggregate, **recipe), by_torch(3, recipe, aggregate))


def test_a_sum_with_a_rate_p_times_smaller_is_the_mean() -> None:
    summed = by_netsim("dense", 4, aggregate="sum", **EVERYTHING | {"lr": EVERYTHING["lr"] / 4})
    agree(summed, by_torch(4, EVERYTHING))


@pytest.mark.parametrize("name", ["dense", "ps", "gtopk"])
def test_buckets_are_torch(name: str) -> None:
    recipe = EVERYTHING | {"clip": None}
    agree(by_netsim(name, 3, overlap="tensor", **recipe), by_torch(3, recipe))


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_algorithms_that_send_everything_are_torch(name: str) -> None:
    """Ok-Topk sends everything if its threshold is that of this step."""
    agree(by_netsim(with_options(name, threshold_period=1), 3, **EVERYTHING), by_torch(3, EVERYTHING))


@pytest.mark.parametrize("name", LAZY)
def test_lazy_algorithms_that_never_skip_are_torch(name: str) -> None:
    agree(by_netsim(with_options(name, history=STEPS), 3, **EVERYTHING), by_torch(3, EVERYTHING))


# Momentum correction


def ends(name: str, **options: Any) -> netsim.experiment.results.Result:
    (result,) = netsim.simulate(
        algorithm=with_options(name, history=3, h=4, start=2, inner="sgd"),
        workers=3,
        workload="tests.tiny:tiny",
        rounds=20,
        density=0.3,
        lr=0.05,
        **options,
    ).results
    return result


CORRECTED = [name for name, algorithm in ALGORITHMS.items() if algorithm.corrects_momentum]
LOSSY = [name for name, algorithm in ALGORITHMS.items() if algorithm.lossy]
REFUSED = ["sasg"]
LOCAL = [name for name, algorithm in ALGORITHMS.items() if algorithm.steps_locally]


@pytest.mark.parametrize("name", DENSE)
def test_who_selects_nothing_has_ordinary_momentum_under_correction(name: str) -> None:
    agree(by_netsim(name, 3, momentum_correction=True, **EVERYTHING), by_torch(3, EVERYTHING))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("dense", "gtopk", "dgc", "local-sgd", "lag") else pytest.mark.slow)
        for name in ALGORITHMS
        if name not in REFUSED
    ],
)
def test_momentum_never_vanishes(name: str) -> None:
    without, on_sum = ends(name), ends(name, momentum=0.9)
    corrected = ends(name, momentum=0.9, momentum_correction=True)
    assert without.momentum is None
    assert on_sum.momentum == ("workers" if name in (*LOCAL, "dgc") else "sum")
    assert corrected.momentum == ("workers" if name in (*CORRECTED, *LOCAL) else "sum")
    assert without.parameters_sha256 not in (on_sum.parameters_sha256, corrected.parameters_sha256)
    assert (on_sum.parameters_sha256 == corrected.parameters_sha256) == (name not in CORRECTED or name == "dgc")


def test_every_algorithm_was_looked_at() -> None:
    assert {*CORRECTED, *DENSE, *LOSSY, "lag", "lasg-wk1", "lasg-wk2", "lasg-ps", *REFUSED, *LOCAL} == set(ALGORITHMS)


def test_where_momentum_correction_is_not_defined_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--algorithm", "dense,sasg", "--momentum", "0.9", "--momentum-correction"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "momentum-correction" in line
    assert "sasg" in line


def test_the_table_and_the_document_say_what_momentum_is_applied_to(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "simulate --workers 2 --workload tests.tiny:tiny --algorithm dense,gtopk,lag --rounds 2 --momentum 0.9"
    assert main(arguments.split()) == 0
    assert "momentum 0.9   on the sum\n" in capsys.readouterr().out
    assert main([*arguments.split(), "--momentum-correction"]) == 0
    out = capsys.readouterr().out
    assert "momentum 0.9   on the sum: dense, LAG   at each worker, before selection: gTop-k\n" in out
    assert main([*arguments.split(), "--momentum-correction", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [each["momentum"] for each in results] == ["sum", "workers", "sum"]


# What cannot be


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"momentum_correction": True}, "momentum-correction was given, but momentum is 0"),
        ({"lr_decay": 0.5}, "lr-decay 0.5 was given, but not when"),
        ({"lr_decay_at": "10,"}, "lr-decay-at '10,' must be whole numbers"),
        ({"lr_decay_at": ""}, "lr-decay-at '' must be whole numbers"),
        ({"lr_decay_at": "-5"}, "lr-decay-at -5 must be a whole number"),
        ({"lr_decay_at": "1.5"}, "lr-decay-at '1.5' must be whole numbers"),
        ({"lr_decay_at": "9" * 4301}, "must be whole numbers"),
        ({"lr_decay_at": "²"}, "must be whole numbers"),
        ({"lr_decay_at": (10, -1)}, "lr-decay-at -1 must be a whole number"),
        ({"lr_decay_at": [2.5]}, "lr-decay-at 2.5 must be a whole number"),
        ({"lr_decay_at": True}, "lr-decay-at True must be a whole number"),
        ({"momentum": 0.9, "momentum_correction": "no"}, "momentum-correction 'no' must be True or False"),
        ({"per_tensor": "no"}, "per-tensor 'no' must be True or False"),
        ({"algorithm": "ps:serial-server=no"}, "'no' must be true or false"),
        ({"algorithm": "gtopk", "residual": "index-intersection"}, "algorithm gtopk:residual=index-intersection"),
    ],
)
def test_options_that_would_do_nothing_or_cannot_be_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Experiment.of(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize("given", ["7", "7, 9", 7, [7], (7, 9), range(7, 11, 2), np.array([7, 9]), np.int64(7)])
def test_rounds_of_a_decay_are_read_however_they_are_given(given: Any) -> None:
    assert Experiment.of(lr_decay_at=given).lr_decay_at in ((7,), (7, 9))


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 5e-324, "warmup_rounds": 10},
        {"learning_rate": 1e-300, "decay": 1e-10, "warmup_rounds": 10**9, "decay_at": (0, 1)},
        {"learning_rate": 1e-300, "decay": 1e10, "warmup_rounds": 10**30, "decay_at": (0, 1)},
    ],
)
def test_a_rate_that_vanishes_on_the_way_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="learning rate"):
        SGDConfig(**options)


# Options that are given and change nothing

TIMING: dict[str, Any] = {"timing_only": True, "elements": 1000, "workers": 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithm": "dense,lag", "density": 0.01}, "--density 0.01 changed nothing: it applies to algorithms"),
        ({"algorithm": "dense", "k": 3}, "--k 3 changed nothing"),
        ({"algorithm": "dense", "density_warmup": 3}, "--density-warmup 3 changed nothing"),
        ({"algorithm": "gtopk", "density_warmup": 3, "density": 0.5}, "--density-warmup 3 changed nothing: a warm-up"),
        ({"algorithm": "gtopk", "density_warmup": 3, "k": 250}, "--density-warmup 3 changed nothing: a warm-up starts"),
        ({"algorithm": "randk", "select": "sampled"},
         "--select sampled changed nothing: it applies to topk, gtopk, gtopk-naive, gtopk-hier, dgc, scalecom, oktopk, "
         "ssar, dsar, ps-topk, sasg."),
        ({"algorithm": "gtopk", "momentum": 0.9, "clip": 1.0, "lr_decay_at": (3, 4)},
         "--lr-decay-at 3,4, --momentum 0.9, --clip 1.0 changed nothing: with --timing-only no gradient is computed."),
        ({"algorithm": "gtopk", "eval_every": 2}, "--eval-every changed nothing"),
        ({"algorithm": "gtopk", "fan_out": 2}, "--fan-out 2 changed nothing: only a tree"),
        ({"algorithm": "gtopk", "placement": "cyclic"}, "--placement cyclic changed nothing: all hosts of a star"),
        ({"algorithm": "gtopk", "select": "sampled", "batch_size": 7, "workload": "fc-mnist"},
         "--batch-size 7, --workload fc-mnist, --select sampled changed nothing: with --timing-only no gradient"),
        ({"algorithm": "gtopk", "seed": 3}, "--seed 3 changed nothing"),
        ({"algorithm": "dense,sasg:delay=5,alpha=0.3"},
         "delay 5 of sasg, alpha 0.3 of sasg changed nothing: with --timing-only no gradient is computed."),
    ],
)  # fmt: skip
def test_an_option_that_changes_nothing_is_named(options: dict[str, Any], words: str) -> None:
    """And it does change nothing: the results are those without it."""
    report = netsim.simulate(**TIMING, **options)
    told = [note for note in report.notes if note.startswith(words)]
    assert len(told) == len(report.notes) == 1, report.notes
    kept = {
        name: options[name] for name in ("algorithm", "density", "k") if name in options and f"--{name} " not in words
    }
    assert netsim.simulate(**TIMING, **kept | {"algorithm": options["algorithm"]}).results == report.results


TRAINING: dict[str, Any] = {
    "workers": 2, "rounds": 1, "algorithm": "gtopk", "compute_time": "1ms", "select_time": "1ms", "merge_time": "1ms",
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr_warmup": 1}, "--lr-warmup 1 changed nothing"),
        ({"data_dir": "data"}, "--data-dir data changed nothing: the data digits come with netsim."),
    ],
)
def test_an_option_that_changes_no_training_is_named(options: dict[str, Any], words: str) -> None:
    report = netsim.simulate(**TRAINING, **options)
    assert [note[: len(words)] for note in report.notes] == [words]
    assert netsim.simulate(**TRAINING).results == report.results


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "dense,gtopk:residual=index-intersection", "density": 0.01, "density_warmup": 2},
        {"algorithm": "topk:gather=bruck,randk", "density": 0.01},
        {"algorithm": "ps,sasg:history=5,serial-server=true"},
        {"algorithm": "gtopk-hier:group-size=2", "k": 5},
        {"algorithm": "dense", "topology": "tree:uplink=1Gbps", "fan_out": 2},
    ],
)
def test_an_option_of_one_of_the_algorithms_is_no_news(options: dict[str, Any]) -> None:
    assert netsim.simulate(**TIMING, **options).notes == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithm": "dense", "rounds": 4, "lr_decay_at": (2, 4, 9)},
         "--lr-decay-at 4,9 changed nothing: rounds are numbered 0 to 3."),
        ({"algorithm": "dense,lag,sasg"},
         "lag, sasg skipped no upload: all workers upload during the first 10 rounds (history), and this run has 5."),
        ({"algorithm": "dense,topk", "momentum": 0.9, "momentum_correction": True, "density": 1.0},
         "--momentum changed nothing for Top-k: momentum correction clears the velocity of every sent entry, "
         "and all entries were sent."),
        ({"algorithm": "dense", "eval_every": 2},
         "--eval-every changed nothing: evaluations are written to the --metrics file, and no --metrics was given."),
        ({"algorithm": "lag:history=3,delay=1,alpha=0.3", "rounds": 4, "lr_decay_at": 3}, None),
        ({"algorithm": "topk", "momentum": 0.9, "momentum_correction": True, "density": 0.5}, None),
    ],
)  # fmt: skip
def test_what_training_does_not_reach_is_named(options: dict[str, Any], words: str | None) -> None:
    assert netsim.simulate(workload="tests.tiny:tiny", workers=2, **options).notes == ([] if words is None else [words])


def test_notes_come_above_either_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "--timing-only", "--elements", "1000", "--algorithm", "ps", "--density", "0.5"]
    for more in ([], ["--accounting", "paper"]):
        assert main([*arguments, *more]) == 0
        header = capsys.readouterr().out.partition("\nalgorithm ")[0].splitlines()
        assert "note     --density 0.5 changed nothing: it applies to algorithms that select entries." in header


def test_momentum_correction_is_not_charged_as_selections() -> None:
    """One selection a round, as the user said; the velocity is part of the update, which the compute time holds."""
    charges: dict[str, Any] = {"compute_time": "2ms", "select_time": "5ms", "merge_time": "0s"}
    charges |= {"momentum": 0.9, "momentum_correction": True}
    (result,) = netsim.simulate(
        algorithm="topk",
        workers=2,
        workload="tests.tiny:tiny",
        rounds=3,
        density=0.1,
        **charges,
    ).results
    assert result.select_time_s == pytest.approx(0.005)
    assert result.compute_time_s == pytest.approx(0.002)
