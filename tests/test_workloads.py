"""Models by name: their sizes, and that a gradient is what plain autograd and arithmetic give."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from netsim._util.errors import NonFiniteGradientError, UsageError
from netsim.comm.payload import Dense
from netsim.training.workloads import WORKLOADS, check_workload, load_workload
from netsim.training.workloads.data import SampleShape
from netsim.training.workloads.fully_connected import LEAST
from netsim.training.workloads.lstm import FrameTagger
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.task import DataParallelTask
from netsim.training.workloads.trial import try_out
from netsim.training.workloads.workload import Workload

SMALL = ["digits-mlp", "fc-mnist", "resnet20", "char-lstm"]
LARGE = ["vgg16", "resnet18", "lstm-ptb", "lstm-an4"]
ALL = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_task(name: str, workers: int = 3, batch_size: int = 2, seed: int = 0) -> DataParallelTask:
    return DataParallelTask(load_workload(name, seed, "synthetic"), workers, batch_size, seed, "cpu")


def plain_model(workload: Workload, flat: torch.Tensor) -> nn.Module:
    """Return the bare module, with its parameters set by torch's own function."""
    model = copy.deepcopy(workload.model).to_empty(device="cpu").to(flat.dtype).train()
    vector_to_parameters(flat, model.parameters())
    return model


def plain_loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    scores = model(inputs)
    return nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1))


# Sizes, counted by hand from the architectures.


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def lstm(inputs: int, hidden: int) -> int:
    return 4 * (hidden * inputs + hidden * hidden + 2 * hidden)


def resnet20_size(channels: int, classes: int) -> int:
    stages = 6 * 9 * 16 * 16 + 9 * (16 * 32 + 5 * 32 * 32) + 9 * (32 * 64 + 5 * 64 * 64)
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    return 9 * channels * 16 + stages + norms + dense(64, classes)


def resnet18_size(channels: int, classes: int) -> int:
    size = 9 * channels * 64 + 2 * 64 + 4 * (9 * 64 * 64 + 2 * 64)
    for inputs, outputs in itertools.pairwise((64, 128, 256, 512)):
        size += 9 * inputs * outputs + 3 * 9 * outputs**2 + inputs * outputs + 5 * 2 * outputs
    return size + dense(512, classes)


def vgg16_size(channels: int, classes: int) -> int:
    widths = [channels, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    convolutions = sum(9 * inputs * outputs + 3 * outputs for inputs, outputs in itertools.pairwise(widths))
    return convolutions + dense(512, classes)


@pytest.mark.parametrize(
    ("name", "data", "size"),
    [
        ("digits-mlp", "digits", 1_126_410),
        ("digits-mlp", "mnist", dense(784, 1024) + dense(1024, 1024) + dense(1024, 10)),
        ("fc-mnist", "mnist", 407_050),  # SASG paper, k = 4,071 of it
        ("fc-mnist", "synthetic", 407_050),
        ("resnet20", "cifar10", 269_722),  # 0.27 M in He et al.
        ("resnet20", "cifar10", resnet20_size(3, 10)),
        ("resnet20", "fashion-mnist", resnet20_size(1, 10)),
        ("resnet20", "mnist+cifar100", resnet20_size(3, 100)),
        ("resnet18", "cifar10", 11_173_962),  # SASG paper
        ("resnet18", "cifar100", 11_220_132),  # SASG paper
        ("resnet18", "cifar10+mnist", 11_173_962),
        ("resnet18", "mnist", resnet18_size(1, 10)),
        ("resnet18", "cifar100", resnet18_size(3, 100)),
        ("vgg16", "cifar10", 14_728_266),  # as Ok-Topk (PPoPP 2022) has it
        ("vgg16", "cifar10", vgg16_size(3, 10)),
        ("vgg16", "digits", vgg16_size(1, 10)),
        ("lstm-ptb", "ptb", 10_000 * 1500 + 2 * lstm(1500, 1500) + dense(1500, 10_000)),
        ("lstm-ptb", "ptb", 66_034_000),
        ("lstm-an4", "synthetic", lstm(161, 800) + 4 * lstm(800, 800) + dense(800, 29)),
        ("char-lstm", "python-docs", 97 * 64 + lstm(64, 256) + dense(256, 97)),
    ],
)
def test_a_model_has_as_many_parameters_as_its_architecture_says(name: str, data: str, size: int) -> None:
    assert WORKLOADS[name].elements(data) == size
    assert sum(map(math.prod, WORKLOADS[name].shapes(data))) == size


def test_naming_and_checking_workloads_does_not_import_torch() -> None:
    program = (
        "import sys; from netsim.training.workloads import *; "
        "check_workload('resnet18', 'cifar10+mnist', 'dirichlet:0.5');"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# What the models compute, written once more from their papers, over the flat vector in its order.


class Layers:
    """Takes weights from a flat vector one after another."""

    def __init__(self, flat: torch.Tensor) -> None:
        self.rest = flat

    def take(self, *shape: int) -> torch.Tensor:
        size = int(np.prod(shape))
        taken, self.rest = self.rest[:size].view(shape), self.rest[size:]
        return taken

    def conv_norm(self, images: torch.Tensor, outputs: int, size: int, stride: int, bias: bool = False) -> torch.Tensor:
        weight = self.take(outputs, images.shape[1], size, size)
        shift = self.take(outputs) if bias else None
        images = nn.functional.conv2d(images, weight, shift, stride, padding=size // 2)
        mean, variance = images.mean((0, 2, 3), keepdim=True), images.var((0, 2, 3), keepdim=True, correction=0)
        scale, offset = self.take(outputs), self.take(outputs)
        return (images - mean) / (variance + 1e-5).sqrt() * scale.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)

    def head(self, images: torch.Tensor, classes: int) -> torch.Tensor:
        features = images.mean(3).mean(2)
        weight = self.take(classes, features.shape[1])
        scores = features @ weight.T + self.take(classes)
        assert not len(self.rest)
        return scores


def reference_resnet(flat: torch.Tensor, images: torch.Tensor, widths: tuple[int, ...], depth: int) -> torch.Tensor:
    layers = Layers(flat)
    images = layers.conv_norm(images, widths[0], 3, 1).relu()
    for width in widths:
        for _ in range(depth):
            stride = 1 if width == images.shape[1] else 2
            inner = layers.conv_norm(images, width, 3, stride).relu()
            inner = layers.conv_norm(inner, width, 3, 1)
            if stride == 2 and depth == 2:  # option B
                images = layers.conv_norm(images, width, 1, 2)
            elif stride == 2:  # option A: as many zero channels before as after
                smaller = images[:, :, ::2, ::2]
                zeros = torch.zeros_like(smaller)[:, : (width - smaller.shape[1]) // 2]
                images = torch.cat([zeros, smaller, zeros], dim=1)
            images = (inner + images).relu()
    return layers.head(images, 10)


def reference_vgg(flat: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    layers = Layers(flat)
    larger = torch.zeros(*images.shape[:2], 32, 32, dtype=images.dtype)
    edge = (32 - images.shape[2]) // 2
    larger[:, :, edge : edge + images.shape[2], edge : edge + images.shape[3]] = images
    for stage in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for width in stage:
            larger = layers.conv_norm(larger, width, 3, 1, bias=True).relu()
        larger = nn.functional.max_pool2d(larger, 2)
    return layers.head(larger, 10)


def reference_char_lstm(flat: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    layers = Layers(flat)
    inputs = layers.take(97, 64)[tokens]
    weights = [layers.take(*shape) for shape in ((1024, 64), (1024, 256), (1024,), (1024,), (97, 256), (97,))]
    hidden = cell = torch.zeros(len(tokens), 256, dtype=flat.dtype)
    scores = []
    for place in range(tokens.shape[1]):
        gates = inputs[:, place] @ weights[0].T + hidden @ weights[1].T + weights[2] + weights[3]
        enter, forget, new, leave = gates.split(256, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        scores.append(hidden @ weights[4].T + weights[5])
    return torch.stack(scores, dim=1)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("resnet20", lambda flat, images: reference_resnet(flat, images, (16, 32, 64), 3)),
        ("resnet18", lambda flat, images: reference_resnet(flat, images, (64, 128, 256, 512), 2)),
        ("vgg16", reference_vgg),
        ("char-lstm", reference_char_lstm),
    ],
)
def test_a_model_computes_what_its_paper_says(
    name: str, reference: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    task = DataParallelTask(load_workload(name, 0, "digits" if name == "vgg16" else "synthetic"), 1, 2, 0, "cpu")
    inputs = task.workload.training.inputs[:2]
    inputs = inputs.double() if name != "char-lstm" else inputs
    inputs = inputs[:, :, 2:30, 2:30] if "resnet" in name else inputs  # 28×28, as Fashion-MNIST has
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.01, task.elements))
    flat = task.initial_parameters().values.double() + noise  # so that batch norm's weights tell channels apart
    with torch.no_grad():
        torch.testing.assert_close(plain_model(task.workload, flat)(inputs), reference(flat, inputs))


# Initial values and batches.


@pytest.mark.parametrize("seed", [0, 7])
def test_digits_mlp_starts_from_uniform_values_and_draws_batches_as_documented(seed: int) -> None:
    task = DataParallelTask(load_workload("digits-mlp", seed), 5, 16, seed, "cpu")
    random = np.random.default_rng((seed, 0))
    expected = []
    for inputs, outputs in ((64, 1024), (1024, 1024), (1024, 10)):
        bound = inputs**-0.5
        expected += [random.uniform(-bound, bound, inputs * outputs), random.uniform(-bound, bound, outputs)]
    assert np.array_equal(task.initial_parameters().values.numpy(), np.concatenate(expected).astype(np.float32))
    shuffled = np.random.default_rng((seed, 1)).permutation(1438)
    shard = np.sort(shuffled[288 * 3 : 288 * 3 + 287])  # 1438 = 3 × 288 + 2 × 287
    drawn = np.random.default_rng((seed, 2, 3, 4)).choice(shard, 16, replace=False)
    assert np.array_equal(task.batch(3, 4), drawn)


@pytest.mark.parametrize("name", ALL)
def test_initial_values_are_in_the_range_that_each_kind_of_layer_has(name: str) -> None:
    task = make_task(name)
    assert task.elements == task.initial_parameters().size == task.workload.elements
    assert np.isfinite(task.initial_parameters().values.numpy()).all()
    model = plain_model(task.workload, task.initial_parameters().values)
    for module in model.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            values = parameter.detach()
            if isinstance(module, nn.BatchNorm2d):
                assert torch.equal(values, torch.full_like(values, 1.0 if kind == "weight" else 0.0))
            elif isinstance(module, nn.Embedding):
                assert float(values.std()) == pytest.approx(0.1, rel=0.05)  # the sample is of thousands
            else:
                fan_in = 800 if name == "lstm-an4" else 1500 if name == "lstm-ptb" else 256
                if not isinstance(module, nn.LSTM):
                    assert isinstance(module, nn.Linear | nn.Conv2d)
                    fan_in = module.weight[0].numel()
                assert float(values.abs().max()) <= fan_in**-0.5 * (1 + 1e-6)  # rounded to float32
                if values.numel() > 1000:
                    assert float(values.abs().max()) > 0.98 * fan_in**-0.5
                    assert float(values.mean().abs()) < 5 * (3 * fan_in * values.numel()) ** -0.5  # 5 σ of a mean


# Gradients.


@pytest.mark.parametrize("name", ALL)
def test_a_gradient_is_that_of_plain_autograd_through_the_module(name: str) -> None:
    task = make_task(name)
    start = task.initial_parameters()
    ours = task.gradient(start, 1, 4).values
    samples = torch.from_numpy(task.batch(1, 4))
    inputs, labels = task.workload.training.inputs[samples], task.workload.training.labels[samples]
    convolves = any(isinstance(module, nn.Conv2d) for module in task.workload.model.modules())
    model = plain_model(task.workload, start.values.double() if convolves else start.values)
    plain_loss(model, inputs.double() if convolves else inputs, labels).backward()
    theirs = parameters_to_vector([parameter.grad for parameter in model.parameters()])  # type: ignore[misc]
    if convolves:
        # A ReLU flips where its input is within rounding of zero: with batches of 2 and 8, plain float32 differs
        # from float64 by up to 0.005 here, and ours, whose convolutions sum in another order, by up to 0.008.
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02
    elif task.shares_passes:
        # Products of matrices have other rows besides, and may add in another order: 1e-5 is 100 roundings.
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5
    else:
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_is_the_slope_of_the_loss(name: str) -> None:
    task = make_task(name, batch_size=4)
    start = task.initial_parameters().values.double()
    ours = task.gradient(task.initial_parameters(), 2, 0).values.double()
    samples = torch.from_numpy(task.batch(2, 0))
    inputs, labels = task.workload.training.inputs[samples], task.workload.training.labels[samples]
    inputs = inputs.double() if inputs.is_floating_point() else inputs

    def loss(flat: torch.Tensor) -> float:
        with torch.no_grad():
            return float(plain_loss(plain_model(task.workload, flat), inputs, labels))

    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(len(start)))
    direction = ours / ours.norm() + noise / noise.norm()
    step = 1e-5
    slope = (loss(start + step * direction) - loss(start - step * direction)) / (2 * step)
    # In float64 the difference is good to 1e-5; ReLU's kinks between the two points and float32 account for the rest.
    assert slope == pytest.approx(float(ours @ direction), rel=1e-3)


def numpy_scores(flat: np.ndarray, images: np.ndarray, widths: list[int]) -> np.ndarray:
    values, at = images.reshape(len(images), -1).astype(np.float64), 0
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        weight = flat[at : (at := at + inputs * outputs)].reshape(outputs, inputs)
        bias = flat[at : (at := at + outputs)]
        values = (np.maximum(values, 0) if layer else values) @ weight.T + bias
    return values


def numpy_loss_and_accuracy(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return (
        float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        float((scores.argmax(axis=1) == labels).mean()),
    )


def test_loss_and_accuracy_are_those_of_plain_arithmetic() -> None:
    task = make_task("fc-mnist", batch_size=50)
    at = task.initial_parameters()
    for step in range(20):
        at = Dense(at.values - 0.1 * task.gradient(at, 0, step).values)
    flat = at.values.double().numpy()
    for samples, found in (
        (task.workload.training, (task.loss(at), None)),
        (task.workload.test, tuple(task.evaluate(at))),
    ):
        scores = numpy_scores(flat, samples.inputs.numpy(), [784, 512, 10])
        loss, accuracy = numpy_loss_and_accuracy(scores, samples.labels.numpy())
        assert found[0] == pytest.approx(loss, rel=1e-5)  # float32 against float64
        assert found[1] in (None, pytest.approx(accuracy, abs=1.01 / len(samples)))  # one near-tie may fall otherwise
        assert accuracy > 0.5
    first = numpy_scores(flat, task.workload.test.inputs[:7].numpy(), [784, 512, 10])
    expected = numpy_loss_and_accuracy(first, task.workload.test.labels[:7].numpy())
    assert tuple(task.evaluate(at, most=7))[:2] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "digits-mlp",
        "fc-mnist",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet20", "char-lstm")),
    ],
)
def test_training_on_synthetic_data_learns(name: str) -> None:
    rate, steps = {"char-lstm": (4.0, 30), "resnet20": (0.1, 15)}.get(name, (0.1, 15))
    task = make_task(name, workers=2, batch_size=16)
    first = at = task.initial_parameters()
    for step in range(steps):
        at = Dense(at.values - rate * (task.gradient(at, 0, step).values + task.gradient(at, 1, step).values) / 2)
    assert task.loss(at) < task.loss(first) - 0.02


def test_frames_of_synthetic_data_can_be_learnt() -> None:
    frames = load_workload("lstm-an4", 0)
    assert frames.source == "synthetic"
    model = FrameTagger(SampleShape("frames", (50, 161), 29), 32, 1)
    task = DataParallelTask(replace(frames, model=model), 2, 16, 0, "cpu")
    at = task.initial_parameters()
    for step in range(30):
        at = Dense(at.values - task.gradient(at, step % 2, step).values)
    assert task.evaluate(at).accuracy > 3 / 29


# Purity.


@pytest.mark.parametrize("name", SMALL)
def test_gradients_from_two_threads_have_the_bits_of_one_after_another(name: str) -> None:
    task = make_task(name, workers=4, batch_size=4)
    start = task.initial_parameters()
    jobs = [(at, rank, step) for at in (start, Dense(start.values * 0.9)) for rank in range(4) for step in range(2)]
    serial = [task.gradient(*job).values for job in jobs]
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parallel = list(pool.map(lambda job: task.gradient(*job).values, jobs * 2))
    for one, other in zip(serial * 2, parallel, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_several_workers_are_those_of_each(name: str) -> None:
    task = make_task(name, workers=6, batch_size=4)
    start = task.initial_parameters()
    moved = Dense(start.values * 0.5)
    calls = [(start, 4, 2), (moved, 0, 2), (start, 3, 2), (start, 1, 7), (moved, 5, 2), (start, 0, 2)]
    for _ in range(2):  # the first time they are computed in turn as well, to compare bits
        for call, gradient in zip(calls, task.gradients(calls), strict=True):
            assert torch.equal(gradient.values, task.gradient(*call).values)
    assert task.shares == ({3: True, 2: True} if task.shares_passes else {})
    poisoned = Dense(start.values.clone().index_fill_(0, torch.tensor([5]), torch.inf))
    with pytest.raises(NonFiniteGradientError, match=r"^worker [403], step 2: the gradient of "):
        list(task.gradients([(poisoned, rank, 2) for rank in (4, 0, 3)]))


def test_passes_are_not_shared_where_that_would_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of matrices that adds in another order for more rows: the gradients stay those of each alone.

    Half of the workers have as few rows as the product of one, and share a pass from the second time on.
    """
    task = make_task("fc-mnist", workers=8, batch_size=4)
    start = task.initial_parameters()
    expected = [task.gradient(start, rank, 0).values for rank in range(8)]
    plain = torch.addmm

    def backwards(bias: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return plain(bias, left, right) if len(left) == LEAST else plain(bias, left.flip(1), right.flip(0))

    monkeypatch.setattr(torch, "addmm", backwards)
    for shares in ({8: False}, {8: False, 4: True}, {8: False, 4: True}):
        found = [gradient.values for gradient in task.gradients([(start, rank, 0) for rank in range(8)])]
        assert task.shares == shares
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("name", ["fc-mnist", "resnet20", "char-lstm"])
def test_a_gradient_remembers_nothing_and_changes_nothing(name: str) -> None:
    workload = load_workload(name, 0, "synthetic")
    few = Samples(workload.training.inputs[:60], workload.training.labels[:60])
    task = DataParallelTask(replace(workload, training=few), 3, 2, 0, "cpu")
    start = task.initial_parameters()
    before = start.values.clone()
    first = task.gradient(start, 0, 0).values
    moved = Dense(start.values - first)
    task.gradient(moved, 1, 1)
    evaluated = task.evaluate(moved, most=8)
    task.evaluate(start, most=8)
    again = task.gradient(start, 0, 0).values
    assert torch.equal(first, again)
    assert again.data_ptr() != first.data_ptr()
    assert torch.equal(before, start.values)
    assert start.version() == 0
    assert task.evaluate(moved, most=8) == evaluated
    assert not again.requires_grad


def tiny(model: nn.Module, chunk: int = 2048) -> Workload:
    random = np.random.default_rng(5)
    inputs = (random.standard_normal((50, 3, 4, 4)) * 2 + 1).astype(np.float32)
    training = Samples(torch.from_numpy(inputs), torch.from_numpy(random.integers(4, size=50)))
    test = Samples(torch.from_numpy(inputs[:9] + 1), torch.from_numpy(random.integers(4, size=9)))
    return Workload("tiny", model, training, test, chunk=chunk)


def normalising_model() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(48, 4))


def test_batch_norm_trains_on_its_batch_and_is_judged_by_the_population() -> None:
    task = DataParallelTask(tiny(normalising_model()), 2, 4, 0, "cpu")
    at = task.initial_parameters()
    flat = at.values.double().numpy()
    weight, bias = flat[6:198].reshape(4, 48), flat[198:]
    training, test = task.workload.training, task.workload.test
    images, axes = training.inputs.double().numpy(), (0, 2, 3)
    mean = images.mean(axes, keepdims=True)
    variance = images.var(axes, keepdims=True, ddof=1)
    for samples, found in ((test, task.evaluate(at).loss), (training, task.loss(at))):
        normal = (samples.inputs.double().numpy() - mean) / np.sqrt(variance + 1e-5)
        scores = normal.reshape(-1, 48) @ weight.T + bias
        loss, _ = numpy_loss_and_accuracy(scores, samples.labels.numpy())
        assert found == pytest.approx(loss, rel=1e-5)


def test_population_statistics_are_averaged_over_whole_chunks() -> None:
    task = DataParallelTask(tiny(normalising_model(), chunk=20), 2, 4, 0, "cpu")
    at = task.initial_parameters()
    flat = at.values.double().numpy()
    order = np.random.default_rng((0, 4)).permutation(50)
    chunks = [task.workload.training.inputs.double().numpy()[order[start : start + 20]] for start in (0, 20)]
    mean = sum(chunk.mean((0, 2, 3), keepdims=True) for chunk in chunks) / 2
    variance = sum(chunk.var((0, 2, 3), keepdims=True, ddof=1) for chunk in chunks) / 2
    test = task.workload.test
    scores = ((test.inputs.double().numpy() - mean) / np.sqrt(variance + 1e-5)).reshape(-1, 48)
    expected = numpy_loss_and_accuracy(scores @ flat[6:198].reshape(4, 48).T + flat[198:], test.labels.numpy())
    assert task.evaluate(at).loss == pytest.approx(expected[0], rel=1e-5)


# What cannot be trained.


def test_a_gradient_that_is_not_finite_names_worker_step_and_tensor() -> None:
    task = make_task("fc-mnist")
    poisoned = task.initial_parameters().values.clone()
    poisoned[-1] = torch.inf
    with pytest.raises(NonFiniteGradientError, match=r"^worker 2, step 5: the gradient of 0\.weight is not finite"):
        task.gradient(Dense(poisoned), 2, 5)


def test_a_finite_gradient_whose_sum_overflows_is_a_gradient() -> None:
    samples = Samples(torch.full((2, 3072), 3e38), torch.tensor([3, 3]))
    task = DataParallelTask(Workload("vast", nn.Linear(3072, 4), samples, samples), 1, 1, 0, "cpu")
    gradient = task.gradient(Dense(torch.zeros(task.elements)), 0, 0).values
    assert bool(gradient.isfinite().all())
    assert not bool(gradient.sum().isfinite())


class OwnNorm(nn.Module):
    """A norm of the user's own, of which netsim cannot know whether its running statistics change a gradient."""

    track_running_stats = True


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (
            nn.Sequential(OwnNorm(), nn.Flatten(), nn.Linear(48, 4)),
            "OwnNorm '0' keeps running statistics; give",
        ),
        (
            nn.Sequential(nn.SyncBatchNorm(3), nn.Flatten(), nn.Linear(48, 4)),
            "'0' normalises by statistics of all",
        ),
        (
            nn.Sequential(nn.LazyBatchNorm2d(affine=False), nn.Flatten(), nn.Linear(48, 4)),
            "'0.running_mean' has no",
        ),
        (nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(48, 4)), "Dropout '1' drops out at random"),
        (nn.LSTM(4, 4, 2, dropout=0.5), "LSTM '' drops out at random"),
    ],
)
def test_a_model_with_hidden_state_is_refused(model: nn.Module, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        tiny(model)


def test_dropout_with_a_probability_of_zero_is_accepted() -> None:
    workload = tiny(nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(48, 4)))
    try_out(DataParallelTask(workload, 2, 4, 0, "cpu"))


def test_a_layer_without_a_rule_needs_initial_values() -> None:
    workload = tiny(nn.Sequential(nn.Flatten(), nn.Bilinear(48, 48, 4)))
    with pytest.raises(UsageError, match="no rule to initialise Bilinear"):
        DataParallelTask(workload, 1, 1, 0, "cpu")


# The user's own.

OWN = """
import numpy as np, torch
from torch import nn
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.trial import try_out
from netsim.training.workloads.workload import Workload

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("shift", torch.full((5,), 0.25))
    def forward(self, tokens):
        return self.head(self.embedding(tokens) + self.shift)

def tied(seed):
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(7, size=(40, 6)))
    samples = Samples(tokens, tokens.roll(1, 1))
    return Workload("tied", Tied(), samples, samples)

def given(seed):
    made = tied(seed)
    return Workload("given", made.model, made.training, made.test, initial=np.arange(35.0) / 35)

def broken(seed): raise ValueError(f"no such\\nthing as {seed}")
def wrong(seed): return 5
table = {}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_models", raising=False)


@pytest.mark.usefixtures("own")
def test_the_users_own_workload_trains_with_shared_parameters_and_buffers() -> None:
    workload = load_workload("my_models:tied", 3)
    task = DataParallelTask(workload, 2, 4, 3, "cpu")
    assert task.tensors == (("embedding.weight", 35),)
    start = task.initial_parameters()
    samples = torch.from_numpy(task.batch(1, 0))
    model = workload.model
    vector_to_parameters(start.values, model.parameters())
    plain_loss(model, workload.training.inputs[samples], workload.training.labels[samples]).backward()
    (theirs,) = (parameter.grad for parameter in model.parameters())
    assert theirs is not None
    assert torch.equal(task.gradient(start, 1, 0).values, theirs.flatten())
    own_start = DataParallelTask(load_workload("my_models:given", 3), 1, 1, 0, "cpu").initial_parameters().values
    assert torch.equal(own_start, torch.from_numpy((np.arange(35.0) / 35).astype(np.float32)))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("my_modles:tied", "ModuleNotFoundError (No module named 'my_modles')"),
        ("my_models:untied", "has no attribute 'untied'"),
        ("my_models:", "expected module:factory"),
        (":tied", "expected module:factory"),
        ("my_models:broken", "ValueError (no such thing as 3) in its factory, called with seed 3"),
        ("my_models:wrong", "its factory returned int, expected netsim's Workload"),
        ("my_models:table", "dict cannot be called"),
    ],
)
def test_what_is_wrong_with_the_users_own_workload_is_said_in_a_line(name: str, what: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_workload(name, 3)
    assert f"workload {name!r}: " in str(raised.value)
    assert what in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "data", "split", "sampling", "what"),
    [
        ("resnet21", None, "iid", "random", "unknown workload 'resnet21' (did you mean 'resnet20'?)"),
        ("resnet20", "cifar11", "iid", "random", "unknown data 'cifar11' (did you mean 'cifar10'?)"),
        ("resnet20", "cifar10+mnist+digits", "iid", "random", "one data set or two different ones"),
        ("resnet20", "mnist+mnist", "iid", "random", "one data set or two different ones"),
        ("resnet20", "python-docs", "iid", "random", "is trained on images, but data python-docs has tokens"),
        ("char-lstm", "ptb+python-docs", "iid", "random", "mixed where both are images; these are tokens"),
        ("lstm-an4", "digits", "iid", "random", "is trained on frames, but data digits has images; it takes synthetic"),
        ("some:where", "mnist", "iid", "random", "brings its own; leave out --data"),
        ("fc-mnist", None, "by-clas", "random", "unknown split 'by-clas' (did you mean 'by-class'?)"),
        ("fc-mnist", None, "dirichlet", "random", "dirichlet:ALPHA with 0 < ALPHA"),
        ("fc-mnist", None, "dirichlet:0", "random", "dirichlet:ALPHA with 0 < ALPHA"),
        ("fc-mnist", None, "dirichlet:nan", "random", "dirichlet:ALPHA with 0 < ALPHA"),
        ("fc-mnist", None, "dirichlet:inf", "random", "dirichlet:ALPHA with 0 < ALPHA"),
        ("fc-mnist", None, "iid:3", "random", "iid takes no value"),
        ("fc-mnist", None, "mix", "random", "split mix needs two data sets, such as --data cifar10+mnist"),
        ("char-lstm", None, "by-class", "random", "needs a class for each sample"),
        ("fc-mnist", None, "iid", "epoch", "unknown sampling 'epoch' (did you mean 'epochs'?)"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_data_is_read(
    name: str, data: str | None, split: str, sampling: str, what: str
) -> None:
    with pytest.raises(UsageError) as raised:
        check_workload(name, data, split, sampling)
    assert what in str(raised.value)
    assert "\n" not in str(raised.value)
