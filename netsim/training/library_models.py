"""Names and shapes of the tensors of models in torchvision and transformers.

``torchvision:NAME`` takes each name of ``torchvision.models.list_models()``. ``hf:NAME`` takes a model type of
transformers, such as ``gpt2``; a class, such as ``GPT2LMHeadModel``; or ``FILE.json``, a configuration such as the
``config.json`` of a model on the hub. Types and classes have the default configuration of transformers.

A model is built without values, so that a model larger than the memory has shapes, too. Nothing is downloaded, and no
code that a configuration names is run.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from sys import stderr
from typing import TYPE_CHECKING, Any, NamedTuple

from netsim._util.errors import InfeasibleError, NetsimError, UsageError, in_one_line, shown
from netsim._util.storage import content_of

if TYPE_CHECKING:
    from torch import nn

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
NEAR = 5
"""The most near names that the error for an unknown name lists."""


class Library(NamedTuple):
    """A package with models: its name, the names that it takes in words, and what finds the builder of a model."""

    package: str
    takes: str
    builder: Callable[[Any, str], Callable[[], nn.Module]]


def library_of(model: str) -> Library | None:
    """Return the library that the prefix of a model names; None for a model without such a prefix."""
    prefix, colon, _ = model.partition(":")
    return LIBRARIES.get(prefix) if colon else None


def library_version(model: str) -> str | None:
    """Return the library of a model with its version, on which its tensors depend; None without a library."""
    library = library_of(model)
    if library is None or find_spec(library.package) is None:
        return None
    return f"{library.package} {importlib.metadata.version(library.package)}"


def file_of(model: str) -> Path | None:
    """Return the file of a configuration that a model names; None if it names none."""
    prefix, _, name = model.partition(":")
    return Path(name) if prefix == "hf" and name.endswith(".json") else None


def shapes_of(model: str) -> Shapes:
    """Return name and shape of each trained tensor of a library's model, in the order of its parameters.

    Raises
    ------
    UsageError
        If the library has no such model; the error lists near names.
    InfeasibleError
        If the library is not installed, or cannot build the model without values.
    """
    file = file_of(model)
    changed = file.stat().st_mtime_ns if file is not None and file.is_file() else 0
    return _shapes_of(model, changed)


@lru_cache(maxsize=64)
def _shapes_of(model: str, changed: int) -> Shapes:
    """Return the tensors of a model, whose file was `changed` at that time."""
    library = library_of(model)
    assert library is not None
    package = _imported(model, library.package)
    try:
        with _offline(), redirect_stdout(stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library, on defaults that netsim does not choose
            module = _without_values(library.builder(package, model))
    except NetsimError:
        raise
    except Exception as error:
        raise InfeasibleError(
            f"model {model!r}: {library.package} cannot build it without values ({in_one_line(error)}); take another "
            "model, or the number of its parameters with --elements"
        ) from error
    trained = module.named_parameters()
    return tuple((name, tuple(each.shape)) for name, each in trained if each.requires_grad and each.numel())


def _imported(model: str, package: str) -> Any:
    if find_spec(package) is None:
        raise InfeasibleError(f"model {model!r} needs {package}, which is not installed: pip install {package}")
    try:
        return importlib.import_module(package)
    except Exception as error:  # compiled operators of torchvision need a build of torch that fits
        import torch

        raise InfeasibleError(
            f"model {model!r}: {package} cannot be imported ({in_one_line(error)}); install the build of {package} "
            f"that belongs to torch {torch.__version__}"
        ) from error


def _without_values(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model whose parameters are on the meta device.

    A few models compute their widths with small tensors, whose values they need, and others try themselves out with an
    input of their parameters' device. So at first all tensors are on the meta device, and if that fails, only those of
    ``torch.empty``, in which layers keep their parameters.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class EmptyOnMeta(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            meta = {"device": "meta"} if func is torch.empty else {}
            return func(*args, **(kwargs or {}) | meta)

    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # "Cannot copy out of meta tensor; no data!"
        with EmptyOnMeta():
            return build()


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's client, if it is installed, fail at once instead of downloading."""
    if find_spec("huggingface_hub") is None:
        yield
        return
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _unknown(model: str, names: Iterable[str]) -> UsageError:
    prefix, _, name = model.partition(":")
    near = difflib.get_close_matches(name, list(names), n=NEAR, cutoff=0.5)
    hint = f"; near names: {', '.join(f'{prefix}:{each}' for each in near)}" if near else ""
    return UsageError(f"unknown model {model!r}{hint}; {prefix}: takes {LIBRARIES[prefix].takes}")


def _of_torchvision(torchvision: Any, model: str) -> Callable[[], nn.Module]:
    import inspect

    name = model.partition(":")[2]
    names = torchvision.models.list_models()
    if name not in names:
        raise _unknown(model, names)
    build = torchvision.models.get_model_builder(name)
    weights = {"weights", "weights_backbone"} & set(inspect.signature(build).parameters)
    return partial(build, **dict.fromkeys(weights))


def _of_transformers(transformers: Any, model: str) -> Callable[[], nn.Module]:
    name = model.partition(":")[2]
    if (file := file_of(model)) is not None:
        return _configured(transformers, model, file)
    types = _types(transformers)
    if name in types:
        return partial(_automatic, transformers, transformers.AutoConfig.for_model(name))
    if (kind := _class(transformers, name)) is not None:
        return partial(_built, kind, kind.config_class())
    if "/" in name:
        raise UsageError(
            f"model {model!r} is on a hub, from which netsim downloads nothing; save its config.json and give "
            "hf:config.json, or give a model type of transformers such as hf:gpt2"
        )
    classes = [each for each in dir(transformers) if each.endswith("Model") or "For" in each]
    raise _unknown(model, [*types, *classes])


def _configured(transformers: Any, model: str, file: Path) -> Callable[[], nn.Module]:
    try:
        values = json.loads(content_of(file, f"model {model!r}"))
        kind = values.pop("model_type", None)
        names = [each for each in values.get("architectures") or () if isinstance(each, str)]
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, NetsimError):
            raise
        raise UsageError(
            f"model {model!r} is not a JSON object ({in_one_line(error)}); give the config.json of a model"
        ) from error
    if kind not in _types(transformers):
        raise UsageError(f"model {model!r} has the model_type {shown(kind)}, which transformers does not know")
    config = transformers.AutoConfig.for_model(kind, **values)
    found = next(filter(None, (_class(transformers, name) for name in names)), None)
    return partial(_automatic, transformers, config) if found is None else partial(_built, found, config)


def _types(transformers: Any) -> Collection[str]:
    types: Collection[str] = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    return types


def _class(transformers: Any, name: str) -> Any:
    """Return the class of a model by its name; None if transformers has no class of that name with a configuration."""
    found = getattr(transformers, name, None) if name.isidentifier() else None
    return found if isinstance(found, type) and getattr(found, "config_class", None) is not None else None


def _automatic(transformers: Any, config: Any) -> nn.Module:
    """Return the model of a configuration's type, without a task's head."""
    return _built(transformers.AutoModel.from_config, config, trust_remote_code=False)


def _built(build: Callable[..., nn.Module], config: Any, **options: Any) -> nn.Module:
    if getattr(config, "use_pretrained_backbone", False):
        config.use_pretrained_backbone = False  # whose values would be downloaded
    return build(config, **options)


LIBRARIES = {
    "torchvision": Library("torchvision", "a name of torchvision.models.list_models()", _of_torchvision),
    "hf": Library(
        "transformers",
        "a model type of transformers such as gpt2, a class such as GPT2LMHeadModel (both with its default "
        "configuration), or FILE.json, a model's configuration",
        _of_transformers,
    ),
}
"""The libraries, by the prefix of their models."""
