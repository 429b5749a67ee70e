"""The same on a GPU: ``pytest tests/test_cuda.py``. Tests that need one are skipped elsewhere, and among other tests.

Gradients of every kind of layer are compared with double precision on a CPU, too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import netsim
from algorithms import fused_rows
from algorithms.compression import accumulate_and_select, accumulate_and_select_rows
from algorithms.selection import Selector
from netsim._util.device import exact_arithmetic
from netsim.comm.payload import Dense
from netsim.experiment.configuration import Experiment
from netsim.simulator.opening import load_task
from netsim.training.costs import MeasuredCosts
from netsim.training.sgd import Scaled

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
needs_gpu = pytest.mark.skipif(not GPUS, reason="no CUDA GPU, or this file was not asked for by name")
DEVICES = ["cpu", pytest.param("cuda:0", marks=needs_gpu)]
MODELS = [
    pytest.param("digits-mlp", "digits", 1e-5, id="fully connected"),
    pytest.param("resnet20", "synthetic", 2e-2, id="convolutions and batch norm"),
    pytest.param("char-lstm", "python-docs", 1e-5, id="embedding and LSTM"),
    pytest.param("vgg16", "synthetic", 2e-2, id="long vector", marks=pytest.mark.slow),
]
"""Workload, data, and the largest ‖g - g₆₄‖ / ‖g₆₄‖ of a float32 gradient g and a float64 one.

Without ReLU behind batch norm or max pooling, rounding alone remains: 2e-7 on a CPU. With them, rounding decides which
activations near zero, and which of two nearly equal ones, pass: 4e-6 to 7e-3 on a CPU, by the order of additions.
"""


def task_of(workload: str, data: str, device: str) -> Any:
    """Return a task of two workers."""
    return load_task(Experiment.of(workers=2, workload=workload, data=data, batch_size=8), device, beside=())[0]


def in_double_precision(task: Any) -> torch.Tensor:
    """Return the first gradient of worker 0 (d,), computed by PyTorch alone in float64 on the CPU."""
    model = task.workload.model
    flat = task.initial_parameters().values.cpu().double()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    pieces = flat.split([parameter.numel() for _, parameter in trained])
    values = {
        name: piece.view(parameter.shape).requires_grad_()
        for (name, parameter), piece in zip(trained, pieces, strict=True)
    }
    inputs, labels = (each.cpu() for each in task.samples(0, 0))
    scores = functional_call(model, values, (inputs.double() if inputs.is_floating_point() else inputs,))
    loss = nn.functional.cross_entropy(scores.flatten(0, -2), labels.flatten())
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(values.values()))])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("workload", "data", "most"), MODELS)
def test_gradients_are_those_of_double_precision(workload: str, data: str, most: float, device: str) -> None:
    task = task_of(workload, data, device)
    expected = in_double_precision(task)
    with exact_arithmetic(device):
        found = task.gradient(task.initial_parameters(), 0, 0).values.cpu().double()
    assert float((found - expected).norm() / expected.norm()) < most


@needs_gpu
@pytest.mark.parametrize(("workload", "data", "_"), MODELS)
def test_a_gradient_has_the_same_bits_every_time_and_tensor_by_tensor(workload: str, data: str, _: float) -> None:
    task = task_of(workload, data, "cuda:0")
    parameters = task.initial_parameters()
    with exact_arithmetic("cuda:0"):
        first = task.gradient(parameters, 0, 0).values
        for _repeat in range(5):
            assert torch.equal(task.gradient(parameters, 0, 0).values, first)
        assert torch.equal(task.gradual(lambda *_: None, parameters, 0, 0).values, first)
        assert all(torch.equal(each.values, first) for each in task.gradients([(parameters, 0, 0)] * 9))
    assert task.graphs, "a CUDA graph of this model cannot be used; a warning says why"


@needs_gpu
def test_tritons_kernel_is_right(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("triton")
    for index in range(GPUS):
        with caplog.at_level(logging.WARNING):
            assert fused_rows._check(torch.device("cuda", index)), caplog.text
    assert not caplog.records


@needs_gpu
@pytest.mark.parametrize(
    ("by", "blocks", "size"),
    [
        ("triton", (), 400_000),
        ("triton", (), 400_003),
        ("triton", (), 2**22 + 1),
        ("torch", (), 400_003),
        ("torch", (100_000, 50, 300_000), 400_050),
    ],
    ids=str,
)
def test_rows_are_selected_as_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, by: str, blocks: tuple[int, ...], size: int
) -> None:
    if by == "triton":
        pytest.importorskip("triton")
        assert fused_rows.is_right_on(torch.device("cuda:0"))
    else:
        monkeypatch.setattr(fused_rows, "is_right_on", lambda _: False)
    rows = 8
    random = np.random.default_rng(0)
    residuals, gradients = (torch.from_numpy(random.standard_normal((rows, size), np.float32) ** 3) for _ in range(2))
    residuals[0, ::1000], residuals[1, ::7] = torch.nan, 0
    selector = Selector(400, tuple((of, max(1, of // 1000)) for of in blocks))

    def calls(device: str) -> Any:
        pairs = zip(residuals.clone(), gradients, strict=True)
        return [(Dense(one.to(device)), Scaled(Dense(other.to(device)), 0.1), selector) for one, other in pairs]

    of_gpu = accumulate_and_select_rows(calls("cuda:0"))
    for found, expected in zip(of_gpu, (accumulate_and_select(*call) for call in calls("cpu")), strict=True):
        for one, other in (
            (found.local.indices, expected.local.indices),  # type: ignore[union-attr]
            (found.local.values, expected.local.values),  # type: ignore[union-attr]
            (found.rest.values, expected.rest.values),  # type: ignore[union-attr]
        ):
            np.testing.assert_array_equal(one.cpu().numpy(), other.numpy())


@needs_gpu
def test_readiness_rises_from_the_last_tensor_to_the_first() -> None:
    task = task_of("resnet20", "synthetic", "cuda:0")
    shares = MeasuredCosts({}, "cuda:0").ready(lambda written: task.gradual(written, task.initial_parameters(), 0, 0))
    assert 0 < shares[-1] < shares[0] <= 1


@needs_gpu
def test_gradients_come_from_the_gpu() -> None:
    report = netsim.simulate(workers=3, algorithm="gtopk,dense", rounds=3, device="cuda:0")
    assert report.environment["device"] == "cuda:0"
    on_cpu = netsim.simulate(workers=3, algorithm="gtopk,dense", rounds=3, device="cpu")
    for gpu, cpu in zip(report.results, on_cpu.results, strict=True):
        assert gpu.compute_provenance == "MEASURED"
        assert gpu.bytes_sent_by_rank == cpu.bytes_sent_by_rank
        assert gpu.final_loss == pytest.approx(cpu.final_loss, rel=1e-3)


@needs_gpu
@pytest.mark.parametrize(
    "options", [{"workload": "resnet20", "data": "synthetic"}, {"workload": "char-lstm"}, {"overlap": "100kB"}], ids=str
)
def test_the_same_gpu_gives_the_same_parameters_twice(options: dict[str, Any]) -> None:
    hashes = {
        netsim.simulate(workers=2, algorithm="gtopk", rounds=2, device="cuda", **options).results[0].parameters_sha256
        for _ in range(2)
    }
    assert len(hashes) == 1


@pytest.mark.skipif(GPUS < 2, reason=f"needs several GPUs, and {GPUS} are here")
@pytest.mark.parametrize(
    "options", [{"workload": "digits-mlp"}, {"workload": "resnet20", "data": "synthetic"}], ids=str
)
def test_several_gpus_give_the_bits_of_one(options: dict[str, Any]) -> None:
    one, several = (
        netsim.simulate(workers=2 * GPUS, algorithm="dense,gtopk", rounds=2, device=device, **options)
        for device in ("cuda:0", "cuda")
    )
    if "gradient_devices" not in several.environment:
        pytest.skip("the GPUs are of different models")
    assert [each.parameters_sha256 for each in one.results] == [each.parameters_sha256 for each in several.results]


@needs_gpu
def test_a_resumed_run_ends_with_the_same_parameters(tmp_path: Path) -> None:
    options: dict[str, Any] = {"workers": 2, "algorithm": "sasg", "rounds": 4, "device": "cuda"}

    def interrupt(_: str, step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole = netsim.simulate(**options).results[0]
    saved: dict[str, Any] = {"checkpoint": tmp_path / "saved", "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        netsim.simulate(**options, **saved, on_round=interrupt)
    resumed = netsim.simulate(**options, **saved, resume=True).results[0]
    assert resumed.parameters_sha256 == whole.parameters_sha256


@needs_gpu
@pytest.mark.real
@pytest.mark.parametrize(
    ("backend", "workers", "options"),
    [
        ("gloo", 2, {"algorithm": "dense,dense-tree,ps,topk,gtopk"}),
        ("gloo", 2, {"algorithm": "gtopk", "workload": "resnet20", "data": "synthetic"}),
        ("gloo", 2, {"algorithm": "gtopk", "workload": "char-lstm"}),
        ("gloo", 2, {"algorithm": "gtopk,dense", "overlap": "1MB"}),
        ("nccl", 1, {"algorithm": "dense,gtopk"}),
        pytest.param(
            *("nccl", 2, {"algorithm": "dense,dense-tree,ps,topk,gtopk"}),
            marks=pytest.mark.skipif(GPUS < 2, reason=f"nccl needs a GPU a rank, and {GPUS} are here"),
        ),
    ],
    ids=str,
)
def test_real_ranks_agree_with_the_simulation(backend: str, workers: int, options: dict[str, Any]) -> None:
    simulated = netsim.simulate(workers=workers, rounds=3, device="cuda", **options).results
    real = netsim.run(workers=workers, rounds=3, device="cuda", backend=backend, **options).results
    assert [one.parameters_sha256 for one in simulated] == [other.parameters_sha256 for other in real]
