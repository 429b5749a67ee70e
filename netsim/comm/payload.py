"""Payloads of messages: a dense vector, a sparse vector, a flag, a bundle of these, or only their sizes.

A payload is a value: a rank that holds it may send it, and no rank changes it (except by :func:`in_place`).
Timing-only runs use :class:`SizeOnly` in place of data. Functions of payloads state the size of their result with
:func:`size_rule`, so the text of an algorithm is the same with and without data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, ParamSpec, TypeAlias, TypeVar

from netsim._util.errors import ProtocolError

if TYPE_CHECKING:
    import torch

VALUE_BYTES = 4
"""Bytes of a float32 value, the element of every size-only payload."""

INDEX_BYTES = 4
"""Bytes of an int32 index. A float32 could not hold indices above 2**24."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Dense:
    """A vector of `size` elements: ``values`` has shape ``(size,)``."""

    values: torch.Tensor

    control_bytes: ClassVar[int] = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.values.numel()

    @property
    def value_bytes(self) -> int:
        """Bytes of values."""
        return self.values.numel() * self.values.element_size()

    @property
    def index_bytes(self) -> int:
        """Bytes of indices."""
        return 0

    def version(self) -> int:
        """Return a number that grows with every change of the values in place."""
        return self.values._version


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Sparse:
    """The non-zero entries of a vector of `size` elements.

    ``indices`` has shape (n,), int32, strictly ascending; ``values`` has shape (n,).
    """

    indices: torch.Tensor
    values: torch.Tensor
    size: int

    control_bytes: ClassVar[int] = 0

    @property
    def value_bytes(self) -> int:
        """Bytes of values."""
        return self.values.numel() * self.values.element_size()

    @property
    def index_bytes(self) -> int:
        """Bytes of indices."""
        return self.indices.numel() * self.indices.element_size()

    def version(self) -> int:
        """Return a number that grows with every change in place."""
        return self.values._version + self.indices._version


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class SizeOnly:
    """A vector of `size` float32 elements without values.

    ``entries`` is the number of (value, index) pairs of a sparse vector, and None for a dense vector.
    """

    size: int
    entries: int | None = None

    control_bytes: ClassVar[int] = 0

    @property
    def value_bytes(self) -> int:
        """Bytes of values."""
        return VALUE_BYTES * (self.size if self.entries is None else self.entries)

    @property
    def index_bytes(self) -> int:
        """Bytes of indices."""
        return INDEX_BYTES * (self.entries or 0)

    def version(self) -> int:
        """Return 0: sizes do not change."""
        return 0


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Flag:
    """A yes or no of one byte, counted separately from values and indices."""

    value: bool

    value_bytes: ClassVar[int] = 0
    index_bytes: ClassVar[int] = 0
    control_bytes: ClassVar[int] = 1

    def version(self) -> int:
        """Return 0: a flag does not change."""
        return 0


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Bundle:
    """Several payloads that travel as one message."""

    parts: tuple[Vector | Flag, ...]

    @property
    def value_bytes(self) -> int:
        """Bytes of values."""
        return sum(part.value_bytes for part in self.parts)

    @property
    def index_bytes(self) -> int:
        """Bytes of indices."""
        return sum(part.index_bytes for part in self.parts)

    @property
    def control_bytes(self) -> int:
        """Bytes of flags."""
        return sum(part.control_bytes for part in self.parts)

    def version(self) -> int:
        """Return a number that grows with every change in place."""
        return sum(part.version() for part in self.parts)


Vector: TypeAlias = Dense | Sparse | SizeOnly
Payload: TypeAlias = Vector | Flag | Bundle
PayloadT = TypeVar("PayloadT", bound=Payload)
VectorT = TypeVar("VectorT", bound=Vector)

P = ParamSpec("P")
R = TypeVar("R")


def size_rule(rule: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function of payloads accept size-only payloads, too; it then returns ``rule(*args)``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if SizeOnly in map(type, args):
                return rule(*args, **kwargs)  # type: ignore[no-any-return]
            return function(*args, **kwargs)

        call.has_size_rule = True  # type: ignore[attr-defined]
        return call

    return decorate


def has_size_rule(function: Callable[..., Any]) -> bool:
    """Return whether a function was given a :func:`size_rule`."""
    return getattr(function, "has_size_rule", False)


def in_place(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function that overwrites its first argument, a dense vector that no other rank holds.

    This is the only exception to the rule that payloads are not changed. It saves a copy of vectors such as residuals.
    The caller gives up the argument, and receives the result instead.
    """
    function.in_place = True  # type: ignore[attr-defined]
    return function


def is_in_place(function: Callable[..., Any]) -> bool:
    """Return whether a function is marked :func:`in_place`."""
    return getattr(function, "in_place", False)


def nbytes(payload: Payload) -> int:
    """Return the bytes that `payload` puts on the network: values, indices and flags."""
    return payload.value_bytes + payload.index_bytes + payload.control_bytes


_OF_KNOWN_SIZE = (Dense, Flag)


def has_known_size(payload: Payload) -> bool:
    """Return whether kind, size and element type of a payload determine its bytes.

    They do not for a sparse vector, whose number of entries varies, nor for a bundle, which may have fewer parts.
    """
    if isinstance(payload, SizeOnly):
        return payload.entries is None
    return isinstance(payload, _OF_KNOWN_SIZE)


def split(vector: Vector, parts: int) -> list[Vector]:
    """Cut a dense vector into `parts` consecutive chunks whose sizes differ by at most one."""
    if isinstance(vector, SizeOnly):
        small, longer = divmod(vector.size, parts)
        chunks: list[Vector] = [SizeOnly(small + 1)] * longer
        return chunks + [SizeOnly(small)] * (parts - longer)
    if isinstance(vector, Dense):
        return [Dense(chunk) for chunk in vector.values.tensor_split(parts)]
    raise TypeError("a sparse vector cannot be split into chunks: make it dense first")


def split_entries(vector: VectorT, parts: int) -> list[VectorT]:
    """Cut a sparse vector into sparse vectors of the same size, with consecutive entries, about as many each."""
    if isinstance(vector, SizeOnly):
        few, more = divmod(vector.entries or 0, parts)
        return [SizeOnly(vector.size, few + (part < more)) for part in range(parts)]  # type: ignore[misc]
    if isinstance(vector, Sparse):
        pieces = zip(vector.indices.tensor_split(parts), vector.values.tensor_split(parts), strict=True)
        return [Sparse(indices, values, vector.size) for indices, values in pieces]  # type: ignore[misc]
    raise TypeError("a dense vector has no entries to split")


@size_rule(lambda vector, first, last: SizeOnly(last - first))
def cut(vector: Vector, first: int, last: int) -> Vector:
    """Return elements `first` to `last` of a dense vector, with a version count of their own.

    Other elements may then change meanwhile. All elements are the vector itself.
    """
    assert isinstance(vector, Dense)
    return vector if (first, last) == (0, vector.size) else Dense(vector.values[first:last].data)


@size_rule(lambda *pieces: SizeOnly(sum(piece.size for piece in pieces), _entries(pieces)))
def joined(*pieces: Vector) -> Vector:
    """Join consecutive pieces of a vector, all dense or all sparse."""
    import torch

    values = torch.cat([piece.values for piece in pieces if not isinstance(piece, SizeOnly)])
    if isinstance(pieces[0], Dense):
        return Dense(values)
    indices, size = [], 0
    for piece in pieces:
        assert isinstance(piece, Sparse)
        indices.append(piece.indices + size)
        size += piece.size
    return Sparse(torch.cat(indices), values, size)


def _entries(pieces: tuple[SizeOnly, ...]) -> int | None:
    return None if pieces[0].entries is None else sum(piece.entries or 0 for piece in pieces)


@size_rule(lambda *chunks: SizeOnly(sum(chunk.size for chunk in chunks)))
def concatenate(*chunks: Dense) -> Dense:
    """Join the chunks of a dense vector."""
    import torch

    return Dense(torch.cat([chunk.values for chunk in chunks]))


@size_rule(lambda left, right: left)
def add(left: Dense, right: Dense) -> Dense:
    """Return ``left + right``, element by element."""
    return Dense(left.values + right.values)


@size_rule(lambda vector: vector)
def copied(vector: Dense) -> Dense:
    """Return a copy, so that the original may be overwritten in place."""
    return Dense(vector.values.clone())


@size_rule(lambda left, right: left)
def subtract(left: Dense, right: Dense) -> Dense:
    """Return ``left - right``, element by element."""
    return Dense(left.values - right.values)


@size_rule(lambda first, *others: first)
def add_all(first: Dense, *others: Dense) -> Dense:
    """Return the sum, added from left to right; the order is part of the result."""
    if not others:
        return first
    total = first.values + others[0].values
    for other in others[1:]:
        total += other.values
    return Dense(total)


class _Part(NamedTuple):
    """A part of a received bundle, for error messages."""

    where: object
    number: int

    def __str__(self) -> str:
        return f"{self.where}, part {self.number} of a bundle"


def check_like(payload: Payload, template: Payload, where: object) -> None:
    """Raise ProtocolError, naming `where`, unless `payload` has the kind, size and element type of `template`.

    A bundle is compared part by part. It may have fewer parts: a worker that skips its upload sends the flag only.
    """
    if payload is template:
        return
    if (
        type(payload) is type(template) is SizeOnly  # the usual case, which must be quick
        and payload.size == template.size
        and (payload.entries is None) is (template.entries is None)
    ):
        return
    if isinstance(payload, Bundle) and isinstance(template, Bundle):
        if len(payload.parts) > len(template.parts):
            raise ProtocolError(f"{where}: received {describe(payload)}, expected {describe(template)} at the most")
        for number, (part, its_like) in enumerate(zip(payload.parts, template.parts, strict=False)):
            check_like(part, its_like, _Part(where, number))
        return
    if isinstance(payload, Bundle | Flag) or isinstance(template, Bundle | Flag):
        matches = type(payload) is type(template)
    elif isinstance(payload, SizeOnly) or isinstance(template, SizeOnly):
        matches = (
            type(payload) is type(template) and _sparse(payload) == _sparse(template) and payload.size == template.size
        )
    else:
        matches = (
            type(payload) is type(template)
            and payload.size == template.size
            and payload.values.dtype == template.values.dtype
        )
    if not matches:
        raise ProtocolError(f"{where}: received {describe(payload)}, expected {describe(template)}")


def _sparse(payload: Vector) -> bool:
    return isinstance(payload, Sparse) or (isinstance(payload, SizeOnly) and payload.entries is not None)


def describe(payload: Payload) -> str:
    """Return the kind and size of a payload in words, for error messages."""
    if isinstance(payload, Bundle):
        return f"a bundle of {len(payload.parts)}"
    if isinstance(payload, Flag):
        return "a flag"
    kind = "sparse" if _sparse(payload) else "dense"
    dtype = "" if isinstance(payload, SizeOnly) else f" of {str(payload.values.dtype).removeprefix('torch.')}"
    return f"a {kind} vector of {payload.size} elements{dtype}"
