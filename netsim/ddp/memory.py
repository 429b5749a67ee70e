"""The memory of an algorithm, such as a residual, kept by parameter while buckets change.

DDP groups parameters into buckets, and groups them anew after the first step. A memory that belonged to a bucket would
then be lost. Here a memory stays in one piece as long as its bucket does, and is cut by parameter when it does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch

from netsim.comm.payload import Dense
from netsim.training.algorithm import Algorithm

Leaves: TypeAlias = dict[str, torch.Tensor]
"""The vectors in a memory by their names, such as "residual"."""

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


def why_indivisible(algorithm: Algorithm) -> str | None:
    """Return why the memory of an algorithm cannot be divided among parameters, element by element; None if it can."""
    template = Dense(torch.zeros(3))
    try:
        vectors = dict(leaves(algorithm.initial_memory(template)))
    except TypeError as error:
        holds = str(error)
    else:
        own = {name: sum(sizes) for name, sizes in algorithm.memory_sizes().items()}
        other = [name for name, values in vectors.items() if values.numel() != own.get(name, template.size)]
        if not other:
            return None
        holds = f"{', '.join(other)} of no single parameter"
    return f"its memory holds {holds}, which cannot follow parameters to the other buckets that DDP forms"


class BucketMemory(NamedTuple):
    """The memory of a bucket, with its parameters and :meth:`~netsim.training.algorithm.Algorithm.memory_sizes`."""

    sizes: ParameterSizes
    own_sizes: Mapping[str, tuple[int, ...]]
    memory: Any

    def by_parameter(self) -> dict[str, Leaves]:
        """Return the vectors by parameter, as views."""
        cut: dict[str, Leaves] = {name: {} for name in self.sizes}
        for leaf, values in leaves(self.memory):
            sizes = list(self.own_sizes.get(leaf, self.sizes.values()))
            for name, piece in zip(self.sizes, values.split_with_sizes(sizes), strict=True):
                cut[name][leaf] = piece
        return cut


class ParameterMemory:
    """The memory of one rank for all parameters of a model."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, ...], BucketMemory] = {}
        self._loose: dict[str, Leaves] = {}

    def __repr__(self) -> str:
        return f"ParameterMemory({len(self._whole)} buckets, {len(self._loose)} parameters outside buckets)"

    def take(self, sizes: ParameterSizes, algorithm: Algorithm, template: Dense) -> Any:
        """Return the memory of a bucket, which the caller may overwrite.

        Parameters
        ----------
        sizes
            The bucket's parameters.
        algorithm, template
            The algorithm of the bucket, and any vector of its size, for the memory before the first exchange.
        """
        if (key := tuple(sizes)) in self._whole:
            return self._whole[key].memory
        self._cut_buckets_of(sizes)
        bucket = BucketMemory(sizes, algorithm.memory_sizes(), algorithm.initial_memory(template))
        for name, views in bucket.by_parameter().items():
            for leaf, values in self._loose.pop(name, {}).items():
                views[leaf].copy_(values)
        self._whole[key] = bucket
        return bucket.memory

    def keep(self, sizes: ParameterSizes, memory: Any) -> None:
        """Keep the memory of a bucket after an exchange."""
        key = tuple(sizes)
        self._whole[key] = self._whole[key]._replace(memory=memory)

    def by_parameter(self, names: Collection[str] | None = None) -> dict[str, Leaves]:
        """Return copies of the vectors of some or all parameters, by parameter and name."""
        views = dict(self._loose)
        for bucket in self._whole.values():
            if names is None or not bucket.sizes.keys().isdisjoint(names):
                views |= bucket.by_parameter()
        return _copied({name: of for name, of in views.items() if names is None or name in names})

    def put_back(self, by_parameter: Mapping[str, Leaves]) -> None:
        """Replace the vectors of some parameters by copies of these."""
        self._cut_buckets_of(by_parameter)
        self._loose |= _copied(by_parameter)

    def _cut_buckets_of(self, names: Collection[str]) -> None:
        """Cut all buckets that have one of these parameters."""
        for key in [key for key in self._whole if not set(names).isdisjoint(key)]:
            self._loose |= self._whole.pop(key).by_parameter()


def _copied(by_parameter: Mapping[str, Leaves]) -> dict[str, Leaves]:
    return {name: {leaf: values.clone() for leaf, values in of.items()} for name, of in by_parameter.items()}
