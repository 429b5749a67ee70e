"""Workloads as users write them, right and wrong: ``--workload tests.own:frozen``, and so on."""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from netsim.training.workloads.fully_connected import FullyConnected
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.workload import Workload

SAMPLES, FEATURES, CLASSES = 60, 6, 3


def points(seed: int) -> Samples:
    drawn = np.random.default_rng(seed)
    labels = np.arange(SAMPLES) % CLASSES
    inputs = 2 * drawn.standard_normal((CLASSES, FEATURES))[labels] + drawn.standard_normal((SAMPLES, FEATURES))
    return Samples(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels))


def tokens(seed: int) -> Samples:
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(7, size=(SAMPLES, 4)))
    return Samples(drawn, drawn.roll(1, 1))


def workload(model: nn.Module, samples: Samples, **options: Any) -> Workload:
    size = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    initial = np.random.default_rng(1).normal(0, 0.3, size)
    return Workload("own", model, samples, samples, **({"initial": initial} | options))


def frozen_model() -> nn.Sequential:
    """Return a frozen layer of 6·8 + 8 parameters below a trained one of 8·3 + 3, and a bias of 3 that is frozen."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), Shift(3))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    return model


class Shift(nn.Module):
    """Adds a frozen vector and a buffer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.randn(width), requires_grad=False)
        self.register_buffer("too", torch.randn(width))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        too: torch.Tensor = self.too  # type: ignore[assignment]
        return inputs + self.by + too


def frozen(seed: int) -> Workload:
    """Draw what is frozen as torch does, from its global generator, which netsim seeds for the factory."""
    model = frozen_model()
    samples = points(seed)
    return Workload("frozen", model, samples, samples)


def partly_frozen_mlp(seed: int) -> Workload:
    """Freeze one bias of netsim's own fully connected network, whose passes by hand know of no frozen ones."""
    model = FullyConnected(FEATURES, 4, CLASSES)
    model[2].bias.requires_grad_(False)
    return workload(model, points(seed))


def talkative(seed: int) -> Workload:
    """Print in the factory and in each forward."""
    print("made")  # noqa: T201
    return workload(Applied(lambda _, scores: (print("forward"), scores)[1]), points(seed))  # noqa: T201


def replaced_mlp(seed: int) -> Workload:
    """Replace a layer of netsim's own fully connected network."""
    model = FullyConnected(FEATURES, 4, CLASSES)
    model[1] = nn.Tanh()
    return workload(model, points(seed))


def sparse(seed: int) -> Workload:
    return workload(Embedded(sparse=True), tokens(seed))


def unused(seed: int) -> Workload:
    return workload(Applied(lambda _, scores: scores, never=nn.Parameter(torch.ones(4))), points(seed))


def masked(seed: int) -> Workload:
    """Keep one row of a weight as it is, by a hook on its gradient."""
    model = linear()
    mask = torch.tensor([1.0, 0.0, 1.0])[:, None]
    model.weight.register_hook(lambda gradient: gradient * mask)  # type: ignore[no-untyped-call]
    return workload(model, points(seed))


def tied_and_frozen(seed: int) -> Workload:
    """Use one weight in two layers, with frozen biases."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), linear())
    model[2].weight = model[0].weight
    for layer in (model[0], model[2], model[3]):
        layer.bias.requires_grad_(False)
    return workload(model, points(seed))


def quantised(seed: int) -> Workload:
    """Put a frozen layer of whole numbers below a trained one."""
    eights = nn.Parameter(torch.arange(24).view(6, 4).to(torch.int8) - 12, requires_grad=False)
    model = nn.Sequential(Quantised(eights), nn.Linear(4, 3))
    return workload(model, points(seed))


def steep(seed: int) -> Workload:
    """Diverge as soon as an element of a vector is below zero, which has small gradients and starts at zero."""
    model = Applied(
        lambda module, scores: scores + 1e-3 * module.edge + torch.where(module.edge < 0, torch.nan, 0.0),
        edge=nn.Parameter(torch.zeros(CLASSES)),
    )
    size = FEATURES * CLASSES + 2 * CLASSES
    return workload(model, points(seed), initial=np.zeros(size))


def brittle(seed: int) -> Workload:
    """Fail as soon as an element of a vector is below zero, which a dense step moves."""
    model = Applied(
        lambda module, scores: scores + 1e-3 * module.edge * (1 // int(bool((module.edge >= 0).all()))),
        edge=nn.Parameter(torch.zeros(CLASSES)),
    )
    size = FEATURES * CLASSES + 2 * CLASSES
    return workload(model, points(seed), initial=np.zeros(size))


def by_rank(seed: int) -> Workload:
    return workload(Applied(lambda _, scores: scores * (2 + int(os.environ.get("RANK", "-1")))), points(seed))


class Quantised(nn.Module):
    """Multiplies by whole eighths."""

    def __init__(self, eights: nn.Parameter) -> None:
        super().__init__()
        self.eights = eights

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ (self.eights.float() / 8)


class Pretrained(nn.BatchNorm1d):
    """Batch norm that is frozen, with the statistics it came with."""

    def train(self, mode: bool = True) -> Pretrained:
        super().train(False)
        return self


def frozen_norm(seed: int) -> Workload:
    norm = Pretrained(FEATURES).requires_grad_(False)
    norm.running_mean, norm.running_var = torch.arange(6.0) / 7, torch.arange(1.0, 7.0)
    return workload(nn.Sequential(norm, linear()), points(seed))


def tracked_norm(seed: int) -> Workload:
    """Keep running statistics, as batch norm of torch does unless it is told otherwise."""
    norm = nn.BatchNorm1d(8, momentum=None)
    norm.running_mean = torch.arange(8.0)  # no gradient depends on it
    return workload(nn.Sequential(nn.Linear(FEATURES, 8), norm, nn.Tanh(), nn.Linear(8, CLASSES)), points(seed))


class Residual(nn.Module):
    """Images, convolutions, and norms that keep running statistics, as a ResNet of torchvision has them."""

    def __init__(self, track: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8, track_running_stats=track)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(8, track_running_stats=track)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = functional.relu(self.norm(self.stem(images)))
        inner = functional.relu(self.inner_norm(self.inner(stem)) + stem)
        scores: torch.Tensor = self.head(inner.mean((2, 3)))
        return scores


def images(seed: int) -> Samples:
    drawn = np.random.default_rng(seed)
    labels = np.arange(SAMPLES) % CLASSES
    pixels = 2 * drawn.standard_normal((CLASSES, 3, 6, 6))[labels] + drawn.standard_normal((SAMPLES, 3, 6, 6))
    return Samples(torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(labels))


def residual(seed: int) -> Workload:
    return workload(Residual(), images(seed))


def residual_untracked(seed: int) -> Workload:
    return workload(Residual(track=False), images(seed))


class Applied(nn.Module):
    """Applies ``function(module, scores)`` to the scores of a layer, as the wrong models below do."""

    def __init__(self, function: Callable[[Any, torch.Tensor], Any], **state: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)
        self.function = function
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.function(self, self.layer(inputs))


def _skipped(module: Any, scores: torch.Tensor) -> torch.Tensor:
    return scores * 2 if random.random() < 1e-9 else scores


def _counted(module: Any, scores: torch.Tensor) -> torch.Tensor:
    module.steps += 1
    return scores * module.steps


def _counted_for_later(module: Any, scores: torch.Tensor) -> torch.Tensor:
    module.steps += 1
    return scores * 2 if module.steps > 1000 else scores


GLOBAL = np.random.default_rng(0)


def _rarely_doubled(module: Any, scores: torch.Tensor) -> torch.Tensor:
    return scores * 2 if GLOBAL.random() < 1e-9 else scores


CALLS = [0]


def _counted_globally(module: Any, scores: torch.Tensor) -> torch.Tensor:
    CALLS[0] += 1
    return scores * CALLS[0]


def _seeded(module: Any, scores: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    return scores + torch.rand_like(scores)


def _first_seen(module: Any, scores: torch.Tensor) -> torch.Tensor:
    if module.mean is None:
        module.mean = scores.detach().mean(0)  # one mean a class: softmax would not notice the same for all
    return scores - module.mean


def _remembered(module: Any, scores: torch.Tensor) -> torch.Tensor:
    module.average = 0.9 * module.average + 0.1 * scores.detach().mean(0)
    return scores - module.average


IRREPRODUCIBLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (lambda: Applied(lambda _, scores: functional.dropout(scores)), "torch's global random generator"),
    "noise": (
        lambda: nn.Sequential(Applied(lambda _, scores: scores + torch.randn_like(scores))),
        "torch's global random generator, in Applied '0'",
    ),
    "rand": (lambda: Applied(lambda _, scores: scores * torch.rand(())), "torch's global random generator"),
    "permuted": (lambda: Applied(lambda _, scores: scores + scores[torch.randperm(len(scores))]), "torch's global"),
    "seeded": (lambda: Applied(_seeded), "torch's global random generator"),
    "numpy": (lambda: Applied(lambda _, scores: scores * np.random.rand()), "NumPy's global random generator"),
    "skipped": (lambda: Applied(_skipped), "Python's random module"),
    "rrelu": (lambda: nn.Sequential(nn.Linear(6, 3), nn.RReLU()), "torch's global random generator, in RReLU '1'"),
    "attention": (
        lambda: Applied(lambda _, x: functional.scaled_dot_product_attention(x[None], x[None], x[None], None, 0.5)[0]),
        "torch's global random generator",
    ),
    "own-generator": (
        lambda: Applied(
            lambda module, scores: scores + torch.rand(CLASSES, generator=module.own), own=torch.Generator()
        ),
        "changes 'own'",
    ),
    "numpy-generator": (
        lambda: Applied(lambda module, scores: scores * module.own.random(), own=np.random.default_rng(0)),
        "changes 'own'",
    ),
    "clock": (lambda: Applied(lambda _, scores: scores * (time.perf_counter_ns() % 10**6)), "not the same twice"),
    "clock-inside": (
        lambda: nn.Sequential(nn.Linear(6, 6), Applied(lambda _, scores: scores * (time.perf_counter_ns() % 10**6))),
        "not the same twice (a clock, random numbers, or earlier calls), in Applied '1'",
    ),
    "global": (lambda: Applied(_counted_globally), "not the same twice"),
    "counter": (lambda: Applied(_counted, steps=torch.zeros(())), "changes 'steps'"),
    "global-generator": (lambda: Applied(_rarely_doubled), "changes 'tests.own.GLOBAL'"),
    "attribute": (lambda: Applied(_counted, steps=0), "changes 'steps'"),
    "private": (lambda: nn.Sequential(Applied(_counted_for_later, steps=0)), "changes '0.steps'"),
    "average": (lambda: Applied(_remembered, average=torch.zeros(CLASSES)), "changes 'average'"),
    "first-seen": (lambda: Applied(_first_seen, mean=None), "not the same twice"),
    "spectral": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, CLASSES)),
        "changes 'parametrizations.weight.0._u'",
    ),
    "old-spectral": (lambda: nn.utils.spectral_norm(nn.Linear(FEATURES, CLASSES)), "changes 'weight'"),
    "data-in-place": (
        lambda: Applied(lambda module, scores: (module.layer.weight.data.mul_(0.9), scores)[1]),
        "changes its parameters in place",
    ),
    "teacher": (
        lambda: Applied(
            lambda module, scores: scores + module.teacher.mul_(0.9),
            teacher=nn.Parameter(torch.ones(CLASSES), requires_grad=False),
        ),
        "changes 'teacher'",
    ),
}


class Embedded(nn.Module):
    """Scores of a token are a linear function of its row in an embedding."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 5, **options), nn.Linear(5, 7)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.embedding(tokens))
        return scores


def linear() -> nn.Linear:
    return nn.Linear(FEATURES, CLASSES)


def changed(samples: Samples, number: int, **values: Any) -> Samples:
    """Return samples of which one has another input or label."""
    found = {"inputs": samples.inputs.clone(), "labels": samples.labels.clone()}
    for name, value in values.items():
        found[name][number] = value
    return Samples(**found)


def _raises(seed: int) -> Workload:
    raise KeyError("no\nsuch file")


def _exits(seed: int) -> Workload:
    raise SystemExit("usage: train.py")


def _without_argument() -> Workload:
    return workload(linear(), points(0))


def _nan_at_zero(module: Any, scores: torch.Tensor) -> torch.Tensor:
    return (scores - scores).sqrt() + scores  # the slope of a root at zero is infinite, times zero


def _lost_test(seed: int) -> Workload:
    samples = points(seed)
    return Workload("own", linear(), samples, changed(samples, 7, inputs=float("nan")))


def _other_test(seed: int) -> Workload:
    samples = points(seed)
    return Workload("own", linear(), samples, Samples(samples.inputs[:, :5], samples.labels))


def _shared_memory() -> nn.Module:
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES), linear())
    model[1].weight.data = model[0].weight.data
    return model


def _in_place(module: Any, scores: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        module.layer.weight.clamp_(-1, 1)
    return scores


def _complex() -> nn.Module:
    model = linear()
    model.weight = nn.Parameter(torch.zeros(3, 6, dtype=torch.complex64))
    return model


class Adding(nn.Module):
    """Adds a parameter at its first forward, or replaces one at each."""

    def __init__(self, replaces: bool) -> None:
        super().__init__()
        self.layer, self.replaces = linear(), replaces

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.replaces:
            self.layer.bias = nn.Parameter(self.layer.bias.detach().clone())
        elif not hasattr(self, "more"):
            self.more = nn.Parameter(torch.zeros(3))
        scores: torch.Tensor = self.layer(inputs)
        return scores if self.replaces else scores + self.more


def _bound() -> nn.Module:
    model = linear()
    model.forward = lambda inputs: functional.linear(inputs, model.weight, model.bias)  # type: ignore[method-assign]
    return model


def _scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        scripted: nn.Module = torch.jit.script(linear())
    return scripted


def _whole(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


def _retyped(kind: torch.dtype) -> Callable[[int], Workload]:
    return lambda seed: workload(linear().to(kind), points(seed))


def _of(model: Callable[[], nn.Module], samples: Callable[[int], Samples] = points) -> Callable[[int], Workload]:
    return lambda seed: workload(model(), samples(seed))


def _inputs(change: Callable[[torch.Tensor], Any]) -> Callable[[int], Workload]:
    def factory(seed: int) -> Workload:
        samples = points(seed)
        return Workload("own", linear(), Samples(change(samples.inputs), samples.labels), samples)

    return factory


def _labels(change: Callable[[torch.Tensor], Any]) -> Callable[[int], Workload]:
    def factory(seed: int) -> Workload:
        samples = points(seed)
        return Workload("own", linear(), samples, Samples(samples.inputs, change(samples.labels)))

    return factory


def _inputs_with(**moments: torch.Tensor) -> Callable[[int], Workload]:
    samples = points(0)
    return lambda seed: workload(linear(), Samples(samples.inputs, samples.labels, **moments))


def _sets_defaults(seed: int) -> Workload:
    made = workload(linear(), points(seed))
    torch.set_default_dtype(torch.float16)
    return made


UNSEEDED = np.random.default_rng()

WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "bf16": (_retyped(torch.bfloat16), "parameter 'weight' is bfloat16, expected float32"),
    "fp16": (_retyped(torch.float16), "parameter 'weight' is float16, expected float32"),
    "fp64": (_retyped(torch.float64), "parameter 'weight' is float64, expected float32"),
    "complex": (_of(_complex), "parameter 'weight' is complex64, expected float32"),
    "mixed": (_of(lambda: nn.Sequential(linear(), nn.Linear(3, 3).half())), "parameter '1.weight' is float16"),
    "all-frozen": (lambda seed: Workload("own", _whole(linear()), points(0), points(0)), "no trainable parameter"),
    "no-parameters": (lambda seed: Workload("own", nn.Flatten(), points(0), points(0)), "no trainable parameter"),
    "no-model": (lambda seed: Workload("own", len, points(0), points(0)), "model is builtin_function_or_method"),  # type: ignore[arg-type]
    "lazy": (lambda seed: Workload("own", nn.LazyLinear(3), points(0), points(0)), "'weight' has no shape yet"),
    "lazy-norm": (
        lambda seed: Workload("own", nn.LazyBatchNorm1d(), points(0), points(0)),
        "'weight' has no shape yet",
    ),
    "meta": (
        _of(lambda: nn.Sequential(linear(), Shift(3).to("meta"))),
        "frozen parameter '1.by' is on the meta device",
    ),
    "shared-memory": (_of(_shared_memory), "parameters '0.weight' and '1.weight' are two that share one memory"),
    "in-place": (_of(lambda: Applied(_in_place)), "its forward changes parameter 'layer.weight' in place"),
    "max-norm": (_of(lambda: Embedded(max_norm=1.0), tokens), "changes parameter 'embedding.weight' in place"),
    "tuple": (_of(lambda: Applied(lambda _, scores: (scores, 0))), "its forward returned tuple, expected a tensor"),
    "scalar": (_of(lambda: Applied(lambda _, scores: scores.mean())), "of shape (), expected floating-point scores"),
    "one-score": (_of(lambda: Applied(lambda _, x: x.sum(1))), "of shape (16,), expected floating-point scores of"),
    "integers": (_of(lambda: Applied(lambda _, x: x.long())), "its forward returned int64 of shape (16, 3)"),
    "length-first": (
        _of(lambda: nn.Sequential(Embedded(), Transposed()), tokens),
        "of shape (4, 16, 7), expected floating-point scores of shape (16, 4, classes) for labels of shape (16, 4)",
    ),
    "detached": (_of(lambda: Applied(lambda _, scores: scores.detach())), "RuntimeError (element 0 of tensors does"),
    "forward-raises": (
        _of(lambda: Applied(lambda module, scores: module.no_such_thing)),
        "has no attribute 'no_such_thing') in its forward, at ",
    ),
    "other-width": (_of(lambda: nn.Linear(5, 3)), "shapes cannot be multiplied (16x6 and 5x3)) in its forward"),
    "other-device": (_of(lambda: Applied(lambda _, x: x + torch.ones(3, device="meta"))), "in its forward, at "),
    "nan-model": (_of(lambda: Applied(_nan_at_zero)), "no step was taken yet, so check the model, not --lr"),
    "one-sample": (
        lambda seed: workload(nn.Sequential(linear(), nn.BatchNorm1d(3, track_running_stats=False)), points(seed)),
        "Expected more than 1 value per channel when training",
    ),
    "label": (
        lambda seed: workload(linear(), changed(points(seed), 9, labels=3)),
        "sample 9 has label 3, expected 0 to 2",
    ),
    "negative": (lambda seed: workload(linear(), changed(points(seed), 9, labels=-100)), "sample 9 has label -100"),
    "label-types": (_labels(lambda labels: labels.float()), "test labels are float32, expected int64"),
    "label-arrays": (_labels(lambda labels: labels.numpy()), "test labels are ndarray, expected a torch.Tensor"),
    "few-labels": (_labels(lambda labels: labels[:5]), "60 inputs and 5 labels for test; expected as many"),
    "nan-sample": (
        lambda seed: workload(linear(), changed(points(seed), 11, inputs=float("nan"))),
        "training sample 11 holds nan; every input must be finite",
    ),
    "infinite": (
        lambda seed: workload(linear(), changed(points(seed), 0, inputs=-float("inf"))),
        "sample 0 holds -inf",
    ),
    "nan-test": (_lost_test, "test sample 7 holds nan"),
    "float64": (
        _inputs(lambda inputs: inputs.double()),
        "training inputs are float64, expected float32; call .float()",
    ),
    "float16": (_inputs(lambda inputs: inputs.half()), "training inputs are float16, expected float32"),
    "lists": (_inputs(lambda inputs: inputs.tolist()), "training inputs are list, expected a torch.Tensor"),
    "no-samples": (
        lambda seed: Workload("own", linear(), [1], [2]),
        "training is list, expected Samples(inputs, labels)",
    ),  # type: ignore[arg-type]
    "other-test": (_other_test, "cannot be multiplied (60x5 and 6x3)) in its forward"),
    "initial": (lambda seed: workload(linear(), points(0), initial=np.zeros(3)), "initial (3,), expected (21,)"),
    "initial-nan": (
        lambda seed: workload(linear(), points(0), initial=np.full(21, np.nan)),
        "is not finite in float32",
    ),
    "initial-kind": (
        lambda seed: workload(linear(), points(0), initial=[0.0] * 21),
        "initial is list, expected a NumPy",
    ),
    "one-moment": (_inputs_with(mean=torch.zeros(1)), "have only one of mean and deviation"),
    "deviation": (_inputs_with(mean=torch.zeros(1), deviation=torch.zeros(1)), "or a deviation of 0; a constant"),
    "adds": (_of(lambda: Adding(False)), "its forward adds or replaces parameter 'more'"),
    "replaces": (_of(lambda: Adding(True)), "its forward adds or replaces parameter 'layer.bias'"),
    "bound": (_of(_bound), "its forward uses parameter 'weight' of the model that netsim has copied"),
    "scripted": (_of(_scripted), "module '' is TorchScript, expected the plain torch.nn.Module"),
    "lock": (
        _of(lambda: Applied(lambda _, scores: scores, lock=threading.Lock())),
        "in copying its model; netsim computes",
    ),
    "chunk": (lambda seed: workload(linear(), points(0), chunk=0), "chunk 0 must be a whole number of at least 1"),
    "sparse-inputs": (_inputs(lambda inputs: inputs.to_sparse()), "training samples are torch.sparse_coo and"),
    "defaults": (_sets_defaults, "sets torch's defaults to float16 on cpu, for netsim's"),
    "raises": (_raises, "KeyError ('no\\nsuch file') in its factory, called with seed 0, at tests/own.py:"),
    "exits": (_exits, "SystemExit (usage: train.py) in its factory, called with seed 0, at tests/own.py:"),
    "without-argument": (_without_argument, "takes 0 positional arguments but 1 was given) in its factory"),
    "returns-none": (lambda seed: None, "its factory returned NoneType, expected netsim's Workload"),
    "unseeded-data": (_inputs(lambda inputs: inputs + float(UNSEEDED.random())), "made other training data the second"),
    "unseeded-state": (
        _of(lambda: Applied(lambda m, x: x + m.by, by=torch.tensor(UNSEEDED.random(3), dtype=torch.float32))),
        "made other buffer 'by' the second time",
    ),
}


class Transposed(nn.Module):
    """Puts the length of a sequence first, as torch's recurrent layers do by default."""

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.transpose(0, 1)


def _irreproducible(name: str, seed: int) -> Workload:
    return workload(IRREPRODUCIBLE[name][0](), points(seed))


def __getattr__(name: str) -> Callable[[int], Workload]:
    """Return a factory of IRREPRODUCIBLE or WRONG by its name, such as ``tests.own:dropout``."""
    if name in IRREPRODUCIBLE:
        return partial(_irreproducible, name)
    if name in WRONG:
        return WRONG[name][0]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
