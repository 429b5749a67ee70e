"""The trainable parameters of a model and their initial values, and checks of models and samples.

Workers exchange a vector of the *trainable* parameters, those with ``requires_grad``, in the order of
``model.named_parameters()``. A parameter that several layers share occurs once. Frozen parameters and buffers keep the
values of the given model. Running statistics of norm layers are not used (:func:`tracking`). Initial values are drawn
with NumPy, because torch's generators give different numbers on different CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from netsim._util.errors import UsageError
from netsim._util.random_streams import Stream, generator

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
"""The layers of torch that can keep running statistics."""

EMBEDDING_DEVIATION = 0.1
"""Standard deviation of embeddings; torch has 1, language models usually 0.1."""


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return names and parameters that are trained, in the order of the flat vector."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def fixed(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return frozen parameters and buffers, each with a description; running statistics that are not used apart."""
    frozen = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    unused = {id(buffer) for layer in tracking(model) for buffer in layer.buffers(recurse=False)}
    return [
        *((f"frozen parameter {name!r}", parameter) for name, parameter in frozen),
        *((f"buffer {name!r}", buffer) for name, buffer in model.named_buffers() if id(buffer) not in unused),
    ]


def tracking(model: nn.Module) -> list[Any]:
    """Return the norm layers in training mode that keep running statistics.

    A forward in training mode normalises by the statistics of its mini-batch, so that no gradient depends on the
    running ones.
    """
    return [
        layer for layer in model.modules() if isinstance(layer, NORMS) and layer.training and layer.track_running_stats
    ]


def initial_values(model: nn.Module, seed: int) -> np.ndarray:
    """Return initial values (d,) float32 of the trainable parameters, in the order of ``model.named_parameters()``.

    Raises
    ------
    UsageError
        For a layer with parameters and without a rule.

    Notes
    -----
    The rules are those of torch, except for embeddings. Weights and biases are uniform in ±1/√fan_in for Linear and
    Conv2d, and in ±1/√hidden for LSTM. BatchNorm and LayerNorm have ones, and zeros as bias. Embeddings are normal with
    standard deviation 0.1.
    """
    random = generator(seed, Stream.INITIAL_VALUES)
    values: list[np.ndarray] = []
    seen: set[int] = set()  # a shared parameter is drawn once
    for module in model.modules():
        parameters: Mapping[str, nn.Parameter] = dict(module.named_parameters(recurse=False))
        fresh = {
            name: parameter
            for name, parameter in parameters.items()
            if parameter.requires_grad and id(parameter) not in seen
        }
        if not fresh:
            continue
        seen.update(id(parameter) for parameter in fresh.values())
        draw = next((rule(module) for kinds, rule in RULES if isinstance(module, kinds)), None)
        if draw is None:
            raise UsageError(f"no rule to initialise {type(module).__name__}: give its Workload initial values")
        values += [draw(random, name, parameter.numel()).astype(np.float32) for name, parameter in fresh.items()]
    return np.concatenate(values)


def present_values(model: nn.Module) -> np.ndarray:
    """Return the values (d,) that the trainable parameters of a model have."""
    return torch.cat([parameter.detach().flatten().cpu() for _, parameter in trainable(model)]).numpy()


DrawValues = Callable[[np.random.Generator, str, int], np.ndarray]


def _uniform(bound: float) -> DrawValues:
    return lambda random, name, size: random.uniform(-bound, bound, size)


def _fan_in(module: Any) -> DrawValues:
    return _uniform(1 / math.sqrt(module.weight.shape[1:].numel()))


def _recurrent(module: Any) -> DrawValues:
    return _uniform(1 / math.sqrt(module.hidden_size))


def _norm(module: Any) -> DrawValues:
    return lambda random, name, size: np.full(size, float(name == "weight"))


def _embedding(module: Any) -> DrawValues:
    return lambda random, name, size: random.normal(0, EMBEDDING_DEVIATION, size)


RULES: tuple[tuple[tuple[type[nn.Module], ...], Callable[[Any], DrawValues]], ...] = (
    ((nn.Linear, nn.Conv1d, nn.Conv2d), _fan_in),
    ((nn.RNNBase,), _recurrent),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm), _norm),
    ((nn.Embedding,), _embedding),
)
"""The rule for initial values, by the kind of layer."""


def check_model(workload: str, model: nn.Module) -> None:
    """Raise UsageError for a model that netsim cannot train.

    Trainable parameters must be float32, of known size, and in separate memory. Frozen parameters and buffers must have
    values. Layers with dropout, with running statistics that are not torch's, or with statistics of all workers are
    refused by name; :mod:`netsim.training.workloads.trial` finds other sources of irreproducible gradients. The model
    is in training mode.
    """
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in tensors:
            if nn.parameter.is_lazy(tensor):
                raise UsageError(f"workload {workload}: {kind} {name!r} has no shape yet; call the model once before")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(f"workload {workload}: module {name!r} is TorchScript, expected the plain torch.nn.Module")
        if not module.training:
            continue
        where = f"workload {workload}: {type(module).__name__} {name!r}"
        if isinstance(module, nn.SyncBatchNorm):
            raise UsageError(
                f"{where} normalises by statistics of all workers; give it BatchNorm, which uses those of one worker"
            )
        if getattr(module, "track_running_stats", False) and not isinstance(module, NORMS):
            raise UsageError(f"{where} keeps running statistics; give it track_running_stats=False")
        dropout = module.p if isinstance(module, DROPOUTS) else getattr(module, "dropout", 0)
        if isinstance(dropout, int | float) and dropout > 0:
            raise UsageError(f"{where} drops out at random; give it a probability of 0")
    trained = trainable(model)
    if not sum(parameter.numel() for _, parameter in trained):
        raise UsageError(
            f"workload {workload}: the model has no trainable parameter; expected at least one with requires_grad"
        )
    for name, parameter in trained:
        _check_trainable(f"workload {workload}: parameter {name!r}", parameter)
    _check_apart(workload, trained)
    for name, tensor in fixed(model):
        if tensor.is_meta:
            raise UsageError(f"workload {workload}: {name} is on the meta device, which holds no values")


def _check_trainable(where: str, parameter: nn.Parameter) -> None:
    if parameter.dtype != torch.float32:
        raise UsageError(
            f"{where} is {kind_of(parameter)}, expected float32, the one type that netsim trains and sends; "
            "call .float() on the model, or freeze the parameter with requires_grad_(False)"
        )
    if parameter.layout != torch.strided:
        raise UsageError(f"{where} is {parameter.layout}, expected a dense parameter")
    if getattr(parameter, "_post_accumulate_grad_hooks", None):
        raise UsageError(f"{where} has a hook that runs after its gradient is accumulated; use register_hook instead")


def _check_apart(workload: str, trained: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Raise UsageError for two parameters in the same memory, which netsim would train separately."""
    seen: dict[int, str] = {}
    for name, parameter in trained:
        if parameter.is_meta or not parameter.numel():
            continue
        other = seen.setdefault(parameter.data_ptr(), name)
        if other != name:
            raise UsageError(
                f"workload {workload}: parameters {other!r} and {name!r} are two that share one memory; "
                "assign one nn.Parameter to both layers instead"
            )


def check_samples(workload: str, kind: str, inputs: object, labels: object, *, are_classes: bool = True) -> None:
    """Raise UsageError unless `inputs` and `labels` are finite tensors of valid types with one label per input.

    Labels that `are_classes` are whole numbers from 0.
    """
    where = f"workload {workload}"
    for name, tensor in (("inputs", inputs), ("labels", labels)):
        if not isinstance(tensor, torch.Tensor):
            raise UsageError(f"{where}: {kind} {name} are {type(tensor).__name__}, expected a torch.Tensor")
    assert isinstance(inputs, torch.Tensor)
    assert isinstance(labels, torch.Tensor)
    if not inputs.dim() or not labels.dim() or not len(labels) or len(inputs) != len(labels):
        counts = " and ".join(
            f"{len(tensor) if tensor.dim() else 0} {name}" for name, tensor in (("inputs", inputs), ("labels", labels))
        )
        raise UsageError(f"{where}: {counts} for {kind}; expected as many, and at least one")
    if are_classes and labels.dtype != torch.int64:
        raise UsageError(f"{where}: {kind} labels are {kind_of(labels)}, expected int64")
    if (inputs.is_floating_point() and inputs.dtype != torch.float32) or inputs.is_complex():
        raise UsageError(f"{where}: {kind} inputs are {kind_of(inputs)}, expected float32; call .float() on them")
    if are_classes and int(labels.min()) < 0:
        number = int(labels.argmin()) // labels[0].numel()
        raise UsageError(
            f"{where}: {kind} sample {number} has label {int(labels.min())}, expected 0 or more; "
            "labels that a loss would ignore have to be left out"
        )
    if inputs.layout != torch.strided or labels.layout != torch.strided:
        raise UsageError(f"{where}: {kind} samples are {inputs.layout} and {labels.layout}, expected dense tensors")
    check_finite(where, kind, inputs)


def check_moments(workload: str, kind: str, mean: torch.Tensor | None, deviation: torch.Tensor | None) -> None:
    """Raise UsageError if `mean` and `deviation` are given but cannot standardise inputs."""
    if (mean is None) != (deviation is None):
        raise UsageError(f"workload {workload}: {kind} samples have only one of mean and deviation; give both, or none")
    if mean is not None and deviation is not None and not bool((mean / deviation).isfinite().all()):
        raise UsageError(
            f"workload {workload}: {kind} samples have a mean that is not finite, or a deviation of 0; a constant "
            "channel needs a deviation of 1"
        )


def check_finite(where: str, kind: str, inputs: torch.Tensor) -> None:
    """Raise UsageError if a sample contains NaN or infinity; the error names the first such sample."""
    if not inputs.is_floating_point() or bool(
        inputs.sum().isfinite()
    ):  # the quick test: a sum of finite values can overflow, so the exact test follows
        return
    bad = (~inputs.isfinite().flatten(1).all(1) if inputs.dim() > 1 else ~inputs.isfinite()).nonzero().flatten()
    if len(bad):
        number = int(bad[0])
        value = next(value for value in inputs[number].flatten().tolist() if not math.isfinite(value))
        others = f", and {len(bad) - 1} more samples do" if len(bad) > 1 else ""
        raise UsageError(f"{where}: {kind} sample {number} holds {value}{others}; every input must be finite")


def check_initial(workload: str, initial: object, elements: int) -> None:
    """Raise UsageError unless `initial` is a finite real vector with one value per trainable element."""
    where = f"workload {workload}: initial"
    if not isinstance(initial, np.ndarray) or initial.dtype.kind not in "fiu":
        kind = initial.dtype if isinstance(initial, np.ndarray) else type(initial).__name__
        raise UsageError(f"{where} is {kind}, expected a NumPy array of real numbers")
    if initial.shape != (elements,):
        raise UsageError(f"{where} {initial.shape}, expected ({elements},), an element for each trainable parameter")
    if not np.isfinite(initial.astype(np.float32)).all():
        raise UsageError(f"{where} holds a value that is not finite in float32; every element must be")


def check_labels(workload: str, kind: str, labels: torch.Tensor, classes: int) -> None:
    """Raise UsageError for labels beyond the classes of the model."""
    if int(labels.max()) >= classes:
        number = int(labels.argmax()) // labels[0].numel()
        raise UsageError(
            f"workload {workload}: {kind} sample {number} has label {int(labels.max())}, expected 0 to {classes - 1}, "
            f"since the model returns {classes} scores"
        )


def kind_of(tensor: torch.Tensor) -> str:
    """Return the type of a tensor's elements without the prefix "torch.", such as float32."""
    return str(tensor.dtype).removeprefix("torch.")
