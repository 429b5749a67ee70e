"""Protection of a run from a user's code: errors are named, state is compared, random numbers are contained.

:func:`blaming` reports an error of user code in one line with file and line number. :func:`hashed` and
:func:`state_of` return digests, which are equal if two values are equal bit for bit. :func:`seeded` and
:func:`generators_kept` set and restore the global random generators from which user code may draw.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from netsim._util import user_code

DEPTH = 4
"""Levels of nested containers that a digest covers."""
LIBRARIES = ("torch", "netsim")
"""Packages whose global variables are not state of a user's model."""
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
INTERNAL = set(vars(nn.Module()))
"""Attributes of every torch module."""


def blaming(workload: str, what: str, hint: str = "") -> AbstractContextManager[None]:
    """Turn any error in the block into a UsageError with the workload, `what` failed, and the place in the code."""
    return user_code.blaming(f"workload {workload}", what, hint)


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
