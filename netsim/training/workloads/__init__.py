"""Workloads: models with their data sets, by name.

To add one: a file with a function ``(shape) -> nn.Module``, and a line in SPECS. This module imports torch only when
a workload is built.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim._util.errors import UsageError, unknown
from netsim._util.user_code import imported, name_of_object, plugin_points
from netsim.training.workloads.data import DATA, IMAGES, SYNTHETIC, SampleShape, data_names, joint_shape

if TYPE_CHECKING:
    from torch import nn

    from netsim.training.workloads.workload import Workload


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """The specification of a workload; calling it builds the workload.

    Attributes
    ----------
    name
        The name on the command line.
    model
        ``module:function``; the function takes the shape of the data and returns the model.
    default
        The default data set.
    chunk
        Samples evaluated at once, which limits memory.
    loss_samples
        Training samples over which the training loss is computed, which limits time.
    made_up
        The shape of synthetic data, if it differs from that of the default data set.
    """

    name: str
    model: str
    default: str
    chunk: int = 2048
    loss_samples: int = 10_000
    made_up: SampleShape | None = None

    def __call__(self, seed: int, data: str | None = None, data_dir: Path | None = None) -> Workload:
        """Build the workload, which depends only on the data set and `seed`.

        Raises
        ------
        UsageError
            For a data set that the model cannot use.
        InfeasibleError
            For a data set that was not found.
        """
        from netsim.training.workloads.data.load import load
        from netsim.training.workloads.workload import Workload

        data = data or self.default
        shape = self.shape(data)
        loaded = load(data, shape, seed, data_dir)
        return Workload(
            self.name,
            self._build(shape),
            loaded.training,
            loaded.test,
            source=data,
            note=loaded.note,
            chunk=self.chunk,
            loss_samples=self.loss_samples,
        )

    def shapes(self, data: str | None = None) -> tuple[tuple[int, ...], ...]:
        """Return the shape of each parameter tensor, without reading data."""
        from netsim.training.workloads.parameters import trainable

        model = self._build(self.shape(data or self.default))
        return tuple(tuple(parameter.shape) for _, parameter in trainable(model))

    def elements(self, data: str | None = None) -> int:
        """Return the number of parameters, without reading data."""
        return sum(map(math.prod, self.shapes(data)))

    def shape(self, data: str) -> SampleShape:
        """Return the shape of the data sets named in `data`; raise UsageError if the model cannot use them."""
        default = self.made_up or DATA[self.default].shape
        names = data_names(data)
        shape = joint_shape([default if name == SYNTHETIC else DATA[name].shape for name in names])
        if shape.kind != default.kind:
            fitting = [SYNTHETIC] + [name for name, data_set in DATA.items() if data_set.shape.kind == default.kind]
            raise UsageError(
                f"workload {self.name} is trained on {default.kind}, but data {data} has {shape.kind}; "
                f"it takes {', '.join(fitting)}"
            )
        return shape

    def _build(self, shape: SampleShape) -> nn.Module:
        """Return the model on the meta device: parameter names and shapes without values."""
        import torch

        with torch.device("meta"):
            model: nn.Module = attribute(self.model)(shape)
        return model


SPECS = (
    WorkloadSpec("digits-mlp", "netsim.training.workloads.fully_connected:digits_mlp", "digits"),
    WorkloadSpec("fc-mnist", "netsim.training.workloads.fully_connected:fc_mnist", "mnist", loss_samples=60_000),
    WorkloadSpec("resnet20", "netsim.training.workloads.resnet:resnet20", "cifar10", chunk=256, loss_samples=2048),
    WorkloadSpec("vgg16", "netsim.training.workloads.vgg:vgg16", "cifar10", chunk=256, loss_samples=512),
    WorkloadSpec("resnet18", "netsim.training.workloads.resnet:resnet18", "cifar10", chunk=128, loss_samples=512),
    WorkloadSpec("lstm-ptb", "netsim.training.workloads.lstm:lstm_ptb", "ptb", chunk=32, loss_samples=64),
    WorkloadSpec(
        "lstm-an4",
        "netsim.training.workloads.lstm:lstm_an4",
        SYNTHETIC,
        chunk=64,
        loss_samples=128,
        made_up=SampleShape("frames", (50, 161), 29),
    ),
    WorkloadSpec("char-lstm", "netsim.training.workloads.lstm:char_lstm", "python-docs", chunk=256, loss_samples=1024),
)

WORKLOADS = {spec.name: spec for spec in SPECS}

DEFAULT = "digits-mlp"
"""Handwritten digits, which scikit-learn contains, and a model large enough that communication matters."""


PLUGINS = {point.name: point.value for point in plugin_points("netsim.workloads") if point.name not in WORKLOADS}
"""The factories of installed packages as ``module:factory``, by the names of their entry points."""
_from_python: dict[str, Workload] = {}
FROM_PYTHON = "python:"
"""The beginning of the name of a workload that was given as an object."""


def is_own(name: str) -> bool:
    """Return whether `name` is a user's ``module:factory`` and not a name in the registry."""
    return ":" in name


def text_of(workload: Any) -> Any:
    """Return the text that names a workload given from Python as an object or a factory; anything else as it is.

    An object without initial values starts from the values that its model has.
    """
    if isinstance(workload, str):
        return PLUGINS.get(workload, workload)
    if inspect.isfunction(workload):
        name = name_of_object(workload)
        _factories[name] = workload
        return name
    if not hasattr(workload, "parts_sha256"):
        return workload
    from netsim.training.workloads.parameters import present_values

    if workload.initial is None:
        workload = replace(workload, initial=present_values(workload.model))
    name = f"{FROM_PYTHON}{workload.name}"
    _from_python[name] = workload
    return name


_factories: dict[str, Callable[[int], Any]] = {}


def check_for_ranks(name: str) -> None:
    """Raise UsageError for a workload that no other process can import."""
    if name.startswith(FROM_PYTHON) or "<locals>" in name or name.startswith("__main__:"):
        raise UsageError(
            f"workload {name!r} cannot be imported by the ranks of a real run; write a function of the seed at the top "
            "level of a file that returns the Workload, and give FILE.py:FUNCTION"
        )


def check_workload(name: str, data: str | None = None, split: str = "iid", sampling: str = "random") -> None:
    """Raise UsageError for an unknown workload, or one that cannot be trained with `data`, `split` and `sampling`.

    The check imports no torch and reads no data.
    """
    from netsim.training.workloads.splits import BY_LABEL, MIX, SAMPLINGS, parse_split

    rule, _ = parse_split(split)
    if sampling not in SAMPLINGS:
        raise unknown("sampling", sampling, SAMPLINGS)
    if is_own(name):
        if data is not None:
            raise UsageError(f"data {data!r} was given, but workload {name!r} brings its own; leave out --data")
        return
    if name not in WORKLOADS:
        raise unknown("workload", name, [*WORKLOADS, *PLUGINS, "or your own: FILE.py:factory"])
    data = data or WORKLOADS[name].default
    shape = WORKLOADS[name].shape(data)
    if rule == MIX and len(data_names(data)) < 2:
        raise UsageError(f"split mix needs two data sets, such as --data cifar10+mnist; data {data!r} is one")
    if rule in BY_LABEL and shape.kind != IMAGES:
        raise UsageError(f"split {split} needs a class for each sample, but data {data} has {shape.kind}; use iid")


def load_workload(name: str, seed: int, data: str | None = None, data_dir: Path | None = None) -> Workload:
    """Return a workload by name, or the one that a user's ``module:factory`` returns for `seed`.

    A name with a colon runs the user's code, so it must come from the command line and never from a file.

    Raises
    ------
    UsageError
        If the user's code cannot be imported, fails, or does not return the same workload twice.
    """
    check_workload(name, data)
    if not is_own(name):
        return WORKLOADS[name](seed, data, data_dir)
    if name in _from_python:
        return _from_python[name]
    factory = _factories.get(name) or _imported(name)
    made = _made(name, factory, seed).parts_sha256()
    workload = _made(name, factory, seed)
    for part, digest in workload.parts_sha256().items():
        if made.get(part) != digest:
            raise UsageError(
                f"workload {name!r}: its factory, called twice with seed {seed}, made other {part} the second time; "
                "expected a function of the seed, such as one that draws from np.random.default_rng(seed)"
            )
    return workload


def _made(name: str, factory: Callable[[int], Any], seed: int) -> Workload:
    """Call the factory with global random generators seeded, and with its output on stderr."""
    from netsim.training.workloads.user_code import blaming, seeded
    from netsim.training.workloads.workload import Workload

    with (
        _defaults_kept(name),
        seeded(seed),
        redirect_stdout(sys.stderr),
        blaming(repr(name), f"its factory, called with seed {seed}"),
    ):
        workload = factory(seed)
    if not isinstance(workload, Workload):
        raise UsageError(
            f"workload {name!r}: its factory returned {type(workload).__name__}, expected netsim's Workload "
            "(netsim.Workload)"
        )
    return workload


@contextmanager
def _defaults_kept(name: str) -> Iterator[None]:
    """Restore torch's default dtype and device; raise UsageError if user code changed them."""
    import torch

    before = torch.get_default_dtype(), torch.get_default_device()
    try:
        yield
    finally:
        after = torch.get_default_dtype(), torch.get_default_device()
        if after != before:
            torch.set_default_dtype(before[0])
            torch.set_default_device(None if before[1].type == "cpu" else before[1])
    if after != before:
        kind = str(after[0]).removeprefix("torch.")
        raise UsageError(
            f"workload {name!r}: its code sets torch's defaults to {kind} on {after[1]}, for netsim's tensors, too; "
            "give the model its type, and --device its device"
        )


def _imported(name: str) -> Callable[[int], Any]:
    """Return the user's factory."""
    from netsim.training.workloads.user_code import seeded

    with _defaults_kept(name), seeded(0):
        factory = imported("workload", name, "module:factory or FILE.py:factory")
    if not callable(factory):
        raise UsageError(f"workload {name!r}: {type(factory).__name__} cannot be called; expected a function of a seed")
    return factory  # type: ignore[no-any-return]


def attribute(path: str) -> Any:
    """Import a module and return the attribute that ``module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


__all__ = ["DATA", "DEFAULT", "SYNTHETIC", "WORKLOADS", "WorkloadSpec", "check_workload", "load_workload"]
