"""The user's own workloads: what is trained and sent, what cannot be reproduced, and errors of the user's code."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netsim
from netsim._util.errors import NetsimError, UsageError
from netsim.cli.main import main
from netsim.comm.payload import Dense
from netsim.training.workloads import load_workload
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.task import DataParallelTask
from netsim.training.workloads.trial import try_out
from netsim.training.workloads.workload import Workload
from tests import own
from tests.own import IRREPRODUCIBLE, WRONG

CHARGES = {"compute_time": "1ms", "select_time": "0s", "merge_time": "0s"}


@pytest.mark.parametrize("name", IRREPRODUCIBLE)
def test_a_gradient_that_depends_on_more_than_parameters_and_batch_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        netsim.simulate(workers=2, algorithm="dense", rounds=2, workload=f"tests.own:{name}", **CHARGES)
    assert IRREPRODUCIBLE[name][1] in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_users_workload_is_said_in_one_line_before_the_run(name: str) -> None:
    batch = 1 if name == "one-sample" else 16
    options = CHARGES | {"workload": f"tests.own:{name}", "batch_size": batch}
    with pytest.raises(NetsimError) as raised:
        netsim.simulate(workers=2, algorithm="dense", rounds=2, **options)
    assert WRONG[name][1] in str(raised.value)
    assert str(raised.value).startswith(("workload ", "worker "))
    assert "\n" not in str(raised.value)


def test_a_file_serves_as_a_module_does() -> None:
    file = load_workload(f"{own.__file__}:sparse", 3)
    assert file.parts_sha256() == load_workload("tests.own:sparse", 3).parts_sha256()
    with pytest.raises(UsageError, match=r"file my/train\.py was not found; give the path of a Python file$"):
        load_workload("./my/train.py:make", 0)


def test_inputs_that_need_a_gradient_are_taken_as_they_are() -> None:
    samples = own.points(0)
    needing = Samples(samples.inputs.clone().requires_grad_(), samples.labels)
    tasks = [DataParallelTask(own.workload(own.linear(), each), 2, 8, 0, "cpu") for each in (samples, needing)]
    plain, found = (task.gradient(task.initial_parameters(), 0, 0).values for task in tasks)
    assert torch.equal(plain, found)
    assert tasks[1].workload.data_sha256() == tasks[0].workload.data_sha256()


def test_what_a_users_code_prints_is_no_part_of_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--workers", "2", "--algorithm", "dense", "--rounds", "2", "--workload", "tests.own:talkative"]
    assert main(["simulate", *options, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["results"][0]["elements"] == 21
    assert set(said.err.split()) == {"made", "forward"}


@pytest.mark.real
@pytest.mark.slow
def test_what_ranks_print_is_no_part_of_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--nproc", "2", "--algorithm", "dense", "--rounds", "2", "--workload", "tests.own:talkative"]
    assert main(["run", *options, "--json"]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["results"][0]["elements"] == 21
    assert "forward" in said.err


@pytest.mark.parametrize(("name", "line"), [("raises", "raise KeyError"), ("forward-raises", "module.no_such_thing")])
def test_the_line_of_the_users_code_is_named(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    with pytest.raises(UsageError) as raised:
        netsim.simulate(workers=2, algorithm="dense", rounds=2, workload=f"tests.own:{name}", **CHARGES)
    number = next(n for n, text in enumerate(Path(own.__file__).read_text().splitlines(), 1) if line in text)
    assert str(raised.value).endswith(f", at tests/own.py:{number}")


# What is trained.


def by_hand(workload: Workload, model: nn.Module, start: torch.Tensor, samples: torch.Tensor) -> list[torch.Tensor]:
    """Return the gradients of the trainable parameters of `model`, by plain autograd, zeros where there is none."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter, values in zip(trained, start.split([each.numel() for each in trained]), strict=True):
            parameter.copy_(values.view(parameter.shape))
    inputs, labels = workload.training.inputs[samples], workload.training.labels[samples]
    scores = model(inputs)
    nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1)).backward()  # type: ignore[no-untyped-call]
    return [torch.zeros_like(each) if each.grad is None else each.grad.to_dense() for each in trained]


def assert_gradient_by_hand(name: str, elements: int) -> DataParallelTask:
    torch.set_num_threads(1)
    workload = load_workload(f"tests.own:{name}", 3)
    task = DataParallelTask(workload, 2, 8, 3, "cpu")
    try_out(task)
    start = task.initial_parameters()
    assert task.elements == start.size == elements
    expected = by_hand(workload, workload.model, start.values, torch.from_numpy(task.batch(1, 2)))
    found = task.gradient(start, 1, 2).values
    assert torch.equal(found, torch.cat([each.flatten() for each in expected]))
    gradual = task.gradual(lambda vector, number: None, start, 1, 2)
    assert isinstance(gradual, Dense)
    assert torch.equal(gradual.values, found)
    return task


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("frozen", 8 * 3 + 3),
        ("partly_frozen_mlp", 6 * 4 + 4 + 4 * 3),
        ("sparse", 7 * 5 + 5 * 7 + 7),
        ("unused", 6 * 3 + 3 + 4),
        ("masked", 6 * 3 + 3),
        ("tied_and_frozen", 6 * 6 + 6 * 3),
        ("quantised", 4 * 3 + 3),
        ("frozen_norm", 6 * 3 + 3),
        ("tracked_norm", 6 * 8 + 8 + 2 * 8 + 8 * 3 + 3),
        ("replaced_mlp", 6 * 4 + 4 + 4 * 3 + 3),
    ],
)
def test_only_trainable_parameters_are_in_the_vector_and_their_gradient_is_autograds(name: str, elements: int) -> None:
    assert_gradient_by_hand(name, elements)


def test_a_mask_of_the_users_on_a_gradient_holds_in_netsims_copies() -> None:
    task = assert_gradient_by_hand("masked", 21)
    weight = task.gradient(task.initial_parameters(), 0, 0).values[:18].view(3, 6)
    assert not weight[1].any()
    assert weight[0].all()


def test_a_frozen_part_stays_in_the_evaluation() -> None:
    task = assert_gradient_by_hand("frozen", 27)
    workload, start = task.workload, task.initial_parameters()
    by_hand(workload, workload.model, start.values, torch.arange(3))
    with torch.no_grad():
        scores = workload.model(workload.test.inputs)
    expected = nn.functional.cross_entropy(scores, workload.test.labels)
    assert task.evaluate(start).loss == pytest.approx(float(expected), rel=1e-6)


def test_running_statistics_change_no_gradient_and_the_users_model_keeps_its_own() -> None:
    """Convolutions of both are in the channels-last layout, which rounds otherwise."""
    torch.set_num_threads(1)
    workload = load_workload("tests.own:residual", 3)
    before = {name: tensor.clone() for name, tensor in workload.model.state_dict().items()}
    task = DataParallelTask(workload, 2, 8, 3, "cpu")
    try_out(task)
    start, samples = task.initial_parameters(), torch.from_numpy(task.batch(1, 2))
    found = task.gradient(start, 1, 2).values
    task.evaluate(start)
    assert all(torch.equal(tensor, before[name]) for name, tensor in workload.model.state_dict().items())
    assert int(before["norm.num_batches_tracked"]) == 0

    model = copy.deepcopy(workload.model).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    inputs = workload.training.inputs.contiguous(memory_format=torch.channels_last)
    last = Workload("last", model, Samples(inputs, workload.training.labels), workload.test)
    expected = by_hand(last, model, start.values, samples)
    assert torch.equal(found, torch.cat([each.flatten() for each in expected]))
    assert int(model.norm.num_batches_tracked) == 1  # the plain model has kept statistics


def test_a_model_that_keeps_running_statistics_is_trained_and_judged_as_one_that_does_not() -> None:
    options: dict[str, Any] = {"workers": 2, "algorithm": "dense,gtopk", "rounds": 3, "density": 0.1, "lr": 0.1}
    kept, other = (
        netsim.simulate(workload=f"tests.own:{name}", **options, **CHARGES).results
        for name in ("residual", "residual_untracked")
    )
    for one, two in zip(kept, other, strict=True):
        assert one.parameters_sha256 == two.parameters_sha256
        assert (one.final_loss, one.final_accuracy) == (two.final_loss, two.final_accuracy)
    [model, changed] = (load_workload("tests.own:residual", 3) for _ in range(2))
    changed.model.norm.running_mean.fill_(5.0)  # type: ignore[union-attr, operator]
    assert model.parts_sha256() == changed.parts_sha256()


def test_an_instance_norm_with_running_statistics_is_judged_by_the_population() -> None:
    """With one chunk, its statistics are the means over samples of the mean and unbiased variance of each sample."""
    samples = own.images(0)
    model = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.Flatten(), nn.Linear(108, 3))
    task = DataParallelTask(own.workload(model, samples), 2, 8, 0, "cpu")
    at = task.initial_parameters()
    mean = samples.inputs.mean((2, 3)).mean(0)[:, None, None]
    variance = samples.inputs.var((2, 3)).mean(0)[:, None, None]
    normal = ((samples.inputs - mean) / (variance + 1e-5).sqrt()).flatten(1)
    scores = normal @ at.values[: 3 * 108].view(3, 108).T + at.values[3 * 108 :]
    assert task.evaluate(at).loss == pytest.approx(float(nn.functional.cross_entropy(scores, samples.labels)), rel=1e-5)


def test_frozen_parameters_are_neither_selected_nor_sent() -> None:
    """Two workers exchange 27 float32 by a ring: each sends half of them in both of its phases."""
    report = netsim.simulate(
        workers=2, algorithm="dense,topk", density=0.3, rounds=2, workload="tests.own:frozen", **CHARGES
    )
    dense, topk = report.results
    assert dense.elements == topk.elements == 27
    assert sum(dense.bytes_sent_by_rank) == 2 * (2 * 27 * 4)  # P ranks send 2 (P-1)/P d values of 4 bytes a round
    assert topk.k == 8  # 0.3 · 27, rounded down


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["frozen", "sparse", "masked", "residual"])
def test_a_users_workload_ends_in_the_same_bits_simulated_and_real(name: str) -> None:
    options: dict[str, Any] = {
        "algorithm": "dense,gtopk",
        "rounds": 5,
        "workload": f"tests.own:{name}",
        "k": 6,
        "lr": 0.1,
    }
    simulated = netsim.simulate(workers=3, **options, **CHARGES).results
    for one, other in zip(simulated, netsim.run(workers=3, **options).results, strict=True):
        assert one.parameters_sha256 == other.parameters_sha256
        assert one.bytes_sent_by_rank == other.bytes_sent_by_rank


DRAWN = """
import numpy as np, torch
from torch import nn
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.workload import Workload

print("loading")
inputs = torch.randn(40, 6)
unseeded = torch.from_numpy(np.random.default_rng().normal(size=(40, 6)).astype(np.float32))

def drawn(seed):
    samples = Samples(inputs, torch.arange(40) % 3)
    return Workload("drawn", nn.Linear(6, 3), samples, samples)

def other(seed):
    samples = Samples(unseeded, torch.arange(40) % 3)
    return Workload("other", nn.Linear(6, 3), samples, samples)
"""


def netsim_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "drawn.py").write_text(DRAWN)
    options = ["--algorithm", "dense", "--rounds", "3", *arguments]
    command = [sys.executable, "-m", "netsim", *options[4:5], *options[:4], *options[5:]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.real
@pytest.mark.slow
def test_what_a_module_draws_when_it_is_imported_is_the_same_in_every_process(tmp_path: Path) -> None:
    simulated = netsim_command(tmp_path, "simulate", "--workers", "2", "--workload", "drawn:drawn", "--json")
    real = netsim_command(tmp_path, "run", "--nproc", "2", "--workload", "drawn:drawn", "--json")
    one, other = (json.loads(done.stdout)["results"][0]["parameters_sha256"] for done in (simulated, real))
    assert one == other
    assert "loading" in simulated.stderr


@pytest.mark.real
@pytest.mark.slow
def test_a_forward_that_looks_at_its_process_is_stopped() -> None:
    options: dict[str, Any] = {"algorithm": "dense", "rounds": 2, "workload": "tests.own:by_rank"}
    netsim.simulate(workers=2, **options, **CHARGES)
    with pytest.raises(NetsimError, match=r"^workload own: first gradient of rank \d differs from that of other"):
        netsim.run(workers=2, **options)


@pytest.mark.real
@pytest.mark.slow
def test_ranks_whose_data_differ_are_stopped(tmp_path: Path) -> None:
    done = netsim_command(tmp_path, "run", "--nproc", "2", "--workload", "drawn:other")
    assert done.returncode == 2
    assert "training data of rank 0 differs from that of other processes" in done.stderr
    assert len(done.stderr.replace("loading\n", "").splitlines()) == 1
