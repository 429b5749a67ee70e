"""Protection of a run from a user's code: errors are named, state is compared, random numbers are contained.

:func:`blaming` reports an error of user code in one line with file and line number. :func:`hashed` and
:func:`state_of` return digests, which are equal if two values are equal bit for bit. :func:`seeded` and
:func:`generators_kept` set and restore the global random generators from which user code may draw.
"""

from __future__ import annotations

import hashlib
import random
import sys
import sysconfig
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from netsim._util.errors import NetsimError, UsageError, text_of

DEPTH = 4
"""Levels of nested containers that a digest covers."""
LIBRARIES = ("torch", "netsim")
"""Packages whose global variables are not state of a user's model."""
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
INTERNAL = set(vars(nn.Module()))
"""Attributes of every torch module."""


@contextmanager
def blaming(workload: str, what: str, hint: str = "") -> Iterator[None]:
    """Turn any error in the block into a UsageError with the workload, `what` failed, and the place in the code."""
    try:
        yield
    except NetsimError:
        raise
    except (Exception, SystemExit) as error:  # an imported script may call sys.exit
        cause = f"{type(error).__name__} ({text_of(error)})"
        raise UsageError(f"workload {workload}: {cause} in {what}{where(error)}{hint}") from error


def where(error: BaseException) -> str:
    """Return ", at FILE:LINE" for the innermost line of user code in the traceback; empty text without one."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f", at {_short(error.filename)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<") and not _is_library(frame.filename):
            return f", at {_short(frame.filename)}:{frame.lineno}"
    return ""


def _short(filename: str) -> str:
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _is_library(filename: str) -> bool:
    path = Path(filename)
    packages, standard = _libraries()
    installed = "site-packages" in path.parts or "dist-packages" in path.parts
    return any(map(path.is_relative_to, packages)) or (path.is_relative_to(standard) and not installed)


@cache
def _libraries() -> tuple[list[Path], Path]:
    """Return the folders of netsim, torch and NumPy, and of the standard library."""
    specs = [find_spec(name) for name in ("netsim", "torch", "numpy")]
    packages = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
    return packages, Path(sysconfig.get_path("stdlib"))


def hashed(value: Any, depth: int = DEPTH) -> str:
    """Return a digest of the bits of a tensor, array, number, text, random generator, or a container of these.

    The digest of any other object covers its attributes. Values of trainable parameters are left out.
    """
    return hashlib.sha256(_bits(value, depth)).hexdigest()


def _bits(value: Any, depth: int) -> bytes:
    kind = type(value).__name__.encode()
    match value:
        case torch.Tensor():
            return kind if value.is_meta or _trained(value) else _bits_of_tensor(value.detach())
        case np.ndarray() | np.generic():
            return f"{value.dtype}{value.shape}".encode() + value.tobytes()
        case None | bool() | int() | float() | complex() | str() | bytes():
            return kind + repr(value).encode()
        case torch.Generator():
            return kind + _bits_of_tensor(value.get_state())
        case np.random.Generator():
            return kind + _bits(value.bit_generator.state, DEPTH)
        case np.random.RandomState():
            return kind + _bits(value.get_state(), DEPTH)
        case random.Random():
            return kind + repr(value.getstate()).encode()
        case Mapping() if depth:
            return kind + b"".join(hashed(item, depth - 1).encode() for pair in value.items() for item in pair)
        case list() | tuple() | set() | frozenset() | deque() if depth:
            return kind + b"".join(hashed(item, depth - 1).encode() for item in value)
        case nn.Module() | type() | FunctionType() | MethodType() | ModuleType():
            return kind
    return kind + (hashed(vars(value), depth - 1).encode() if depth and hasattr(value, "__dict__") else b"")


def _bits_of_tensor(tensor: torch.Tensor) -> bytes:
    dense = tensor if tensor.layout == torch.strided else tensor.to_dense()
    raw = dense.cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    return f"{tensor.dtype}{tuple(tensor.shape)}".encode() + raw.numpy().tobytes()


def state_of(model: nn.Module) -> dict[str, str]:
    """Return digests of the state of a model besides its trainable parameters, by name.

    The state includes numbers and random generators in global variables of the user's Python modules.
    """
    state: dict[str, str] = {}
    for module_name in {type(module).__module__ for module in model.modules()}:
        if module_name.partition(".")[0] not in LIBRARIES:
            variables = vars(sys.modules[module_name]) if module_name in sys.modules else {}
            kept = {name: value for name, value in variables.items() if isinstance(value, (int, float, *GENERATORS))}
            state |= {f"{module_name}.{name}": hashed(value) for name, value in kept.items()}
    for prefix, module in model.named_modules():
        attributes = {name: value for name, value in vars(module).items() if name not in INTERNAL}
        for name, value in (attributes | dict(module._buffers) | dict(module._parameters)).items():
            state[f"{prefix}.{name}".lstrip(".")] = hashed(value)
    return state


def _trained(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad


def generator_digests(device: str) -> dict[str, str]:
    """Return a digest of the state of each generator, by a name for error messages."""
    states = {
        "torch's global random generator": hashed(torch.get_rng_state()),
        "NumPy's global random generator": hashed(np.random.get_state()),
        "Python's random module": hashed(random.getstate()),
    }
    if device.startswith("cuda"):
        states["torch's random generator of the GPU"] = hashed(torch.cuda.get_rng_state(device))
    return states


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the states of the generators at the end of the block."""
    ours, theirs = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators inside the block, and restore their states at its end."""
    with generators_kept():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed % 2**63)
        yield
