"""The memory of an algorithm, such as a residual, kept by parameter while buckets change.

DDP groups parameters into buckets, and groups them anew after the first step. A memory that belonged to a bucket would
then be lost. Here a memory stays in one piece as long as its bucket does, and is cut by parameter when it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeAlias

import torch

from netsim._util.errors import UsageError
from netsim.comm.payload import Dense
from netsim.training.algorithm import Algorithm

Leaves: TypeAlias = dict[str, torch.Tensor]
"""The vectors in a memory by their names, such as "residual"; all have the same number of elements."""

ParameterSizes: TypeAlias = Mapping[str, int]
"""The parameters of a bucket in the model's order, with the number of elements of each."""


def leaves(memory: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the vectors (d,) in a memory with their names; raise TypeError for anything else that it holds."""
    if isinstance(memory, Dense):
        yield name or "memory", memory.values
    elif isinstance(memory, tuple):
        fields = getattr(memory, "_fields", map(str, range(len(memory))))
        for field, part in zip(fields, memory, strict=True):
            yield from leaves(part, f"{name}.{field}" if name else field)
    elif memory is not None:
        raise TypeError(type(memory).__name__)


def check_divisible(algorithm: Algorithm) -> None:
    """Raise UsageError unless the memory of an algorithm can be divided among parameters, element by element."""
    template = Dense(torch.zeros(3))
    try:
        sizes = [values.numel() for _, values in leaves(algorithm.initial_memory(template))]
    except TypeError as error:
        sizes, holds = [], f"holds {error}"
    else:
        holds = f"holds vectors of {sizes} elements for a gradient of {template.size}"
        if all(size == template.size for size in sizes):
            return
    raise UsageError(
        f"algorithm {algorithm.name!r} as a DDP hook: no, because its memory {holds}; expected vectors with one "
        "element for each of the gradient, which can follow their parameters from bucket to bucket"
    )


class ParameterMemory:
    """The memory of one rank for all parameters of a model."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, ...], tuple[ParameterSizes, Any]] = {}
        self._loose: dict[str, Leaves] = {}

    def __repr__(self) -> str:
        return f"ParameterMemory({len(self._whole)} buckets, {len(self._loose)} parameters outside buckets)"

    def take(self, sizes: ParameterSizes, initial: Callable[[], Any]) -> Any:
        """Return the memory of a bucket, which the caller may overwrite.

        Parameters
        ----------
        sizes
            The bucket's parameters.
        initial
            Returns the memory of a bucket before the first exchange.
        """
        if (key := tuple(sizes)) in self._whole:
            return self._whole[key][1]
        self._cut_buckets_of(sizes)
        memory = initial()
        vectors, first = dict(leaves(memory)), 0
        for name, size in sizes.items():
            for leaf, values in self._loose.pop(name, {}).items():
                vectors[leaf][first : first + size] = values
            first += size
        self.keep(sizes, memory)
        return memory

    def keep(self, sizes: ParameterSizes, memory: Any) -> None:
        """Keep the memory of a bucket after an exchange."""
        self._whole[tuple(sizes)] = (sizes, memory)

    def by_parameter(self, names: Collection[str] | None = None) -> dict[str, Leaves]:
        """Return copies of the vectors of some or all parameters, by parameter and name."""
        views = dict(self._loose)
        for sizes, memory in self._whole.values():
            if names is None or not sizes.keys().isdisjoint(names):
                views |= _cut(sizes, memory)
        return _copied({name: of for name, of in views.items() if names is None or name in names})

    def put_back(self, by_parameter: Mapping[str, Leaves]) -> None:
        """Replace the vectors of some parameters by copies of these."""
        self._cut_buckets_of(by_parameter)
        self._loose |= _copied(by_parameter)

    def _cut_buckets_of(self, names: Collection[str]) -> None:
        """Cut all buckets that have one of these parameters."""
        for bucket in [bucket for bucket in self._whole if not set(names).isdisjoint(bucket)]:
            self._loose |= _cut(*self._whole.pop(bucket))


def _copied(by_parameter: Mapping[str, Leaves]) -> dict[str, Leaves]:
    return {name: {leaf: values.clone() for leaf, values in of.items()} for name, of in by_parameter.items()}


def _cut(sizes: ParameterSizes, memory: Any) -> dict[str, Leaves]:
    """Return the vectors of a bucket's memory by parameter, as views."""
    cut: dict[str, Leaves] = {name: {} for name in sizes}
    for leaf, values in leaves(memory):
        for name, piece in zip(sizes, values.split_with_sizes(list(sizes.values())), strict=True):
            cut[name][leaf] = piece
    return cut
