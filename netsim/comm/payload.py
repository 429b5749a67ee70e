"""Payloads of messages: a dense vector, a sparse vector, a flag, a bundle of these, or only their sizes.

A payload is a value: a rank that holds it may send it, and no rank changes it (except by :func:`in_place`).
Timing-only runs use :class:`SizeOnly` in place of data. Functions of payloads state the size of their result with
:func:`size_rule`, so the text of an algorithm is the same with and without data.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar

from netsim._util.errors import NonFiniteGradientError, ProtocolError

if TYPE_CHECKING:
    import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "uint8"]
"""The type of the values in messages: float32, bfloat16 or IEEE's float16; or bytes, into which an algorithm packed
them. Wider values count as fp32."""
PRECISION_BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "uint8": 1}
"""Bytes of a value by its precision."""
FLOATS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
"""The precisions of floating-point values."""
_NARROW: dict[Precision, str] = {"bf16": "bfloat16", "fp16": "float16", "uint8": "uint8"}
"""The names of torch's types of fewer than 32 bits."""
_PRECISION_OF: dict[str, Precision] = {f"torch.{of}": name for name, of in _NARROW.items()}
VALUE_BYTES = PRECISION_BYTES["fp32"]
"""Bytes of a float32 value."""

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

    @property
    def precision(self) -> Precision:
        """The precision of the values."""
        return _precision_of(self.values.dtype)

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

    @property
    def precision(self) -> Precision:
        """The precision of the values."""
        return _precision_of(self.values.dtype)

    def version(self) -> int:
        """Return a number that grows with every change in place."""
        return self.values._version + self.indices._version


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class SizeOnly:
    """A vector of `size` elements of a precision, without values.

    ``entries`` is the number of (value, index) pairs of a sparse vector, and None for a dense vector.
    """

    size: int
    entries: int | None = None
    precision: Precision = "fp32"

    control_bytes: ClassVar[int] = 0

    @property
    def value_bytes(self) -> int:
        """Bytes of values."""
        return PRECISION_BYTES[self.precision] * (self.size if self.entries is None else self.entries)

    @property
    def index_bytes(self) -> int:
        """Bytes of indices."""
        return INDEX_BYTES * (self.entries or 0)

    def resized(self, size: int, entries: int | None = None) -> SizeOnly:
        """Return a vector of another size with values of the same precision."""
        return SizeOnly(size, entries, self.precision)

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


def many_on_gpu(many: Callable[[Iterable[Any]], Iterator[R]]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function of a dense vector a way to make several calls at once: ``many([args, ...])`` yields the results.

    Where the vectors are on a GPU, several workers' calls are made so. On a CPU a vector that was just computed is
    still in the cache, so calls are better made one by one.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        function.many_on_gpu = many  # type: ignore[attr-defined]
        return function

    return decorate


def is_on_gpu(payload: Any) -> bool:
    """Return whether a payload is a dense vector that is not in main memory."""
    return isinstance(payload, Dense) and payload.values.device.type != "cpu"


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
        chunks: list[Vector] = [vector.resized(small + 1)] * longer
        return chunks + [vector.resized(small)] * (parts - longer)
    if isinstance(vector, Dense):
        return [Dense(chunk) for chunk in vector.values.tensor_split(parts)]
    raise TypeError("a sparse vector cannot be split into chunks: make it dense first")


def templates_of_parts(vector: Vector, parts: int) -> list[Vector]:
    """Return a template of each chunk into which :func:`split` cuts a dense vector; chunks of a size share one."""
    if not isinstance(vector, Dense):
        return split(vector, parts)
    small, longer = divmod(vector.size, parts)
    templates: list[Vector] = [Dense(vector.values[: small + 1])] * longer
    return templates + [Dense(vector.values[:small])] * (parts - longer)


def split_entries(vector: VectorT, parts: int) -> list[VectorT]:
    """Cut a sparse vector into sparse vectors of the same size, with consecutive entries, about as many each."""
    if isinstance(vector, SizeOnly):
        few, more = divmod(vector.entries or 0, parts)
        longer, shorter = (vector.resized(vector.size, entries) for entries in (few + 1, few))
        return [longer] * more + [shorter] * (parts - more)  # type: ignore[return-value]
    if isinstance(vector, Sparse):
        both = zip(vector.indices.tensor_split(parts), vector.values.tensor_split(parts), strict=True)
        return [Sparse(indices, values, vector.size) for indices, values in both]  # type: ignore[misc]
    raise TypeError("a dense vector has no entries to split")


@size_rule(lambda vector, first, last: vector.resized(last - first))
def cut(vector: Vector, first: int, last: int) -> Vector:
    """Return elements `first` to `last` of a dense vector, with a version count of their own.

    Other elements may then change meanwhile. All elements are the vector itself.
    """
    assert isinstance(vector, Dense)
    return vector if (first, last) == (0, vector.size) else Dense(vector.values[first:last].data)


@size_rule(lambda *pieces: pieces[0].resized(sum(piece.size for piece in pieces), _entries(pieces)))
def joined(*pieces: Vector) -> Vector:
    """Join consecutive pieces of a vector: sparse if all are, else dense."""
    import torch

    sparse = [piece for piece in pieces if isinstance(piece, Sparse)]
    if len(sparse) < len(pieces):
        return Dense(torch.cat([_all_values(piece) for piece in pieces]))
    starts = itertools.accumulate((piece.size for piece in sparse), initial=0)
    indices = [piece.indices + start for piece, start in zip(sparse, starts, strict=False)]
    return Sparse(
        torch.cat(indices), torch.cat([piece.values for piece in sparse]), sum(piece.size for piece in sparse)
    )


def _all_values(piece: Vector) -> torch.Tensor:
    """Return the values (d,) of a dense or sparse vector."""
    assert not isinstance(piece, SizeOnly)
    if isinstance(piece, Dense):
        return piece.values
    return piece.values.new_zeros(piece.size).index_copy_(0, piece.indices.long(), piece.values)


def _entries(pieces: tuple[SizeOnly, ...]) -> int | None:
    counts = [piece.entries for piece in pieces if piece.entries is not None]
    return sum(counts) if len(counts) == len(pieces) else None


@size_rule(lambda *chunks: chunks[0].resized(sum(chunk.size for chunk in chunks)))
def concatenate(*chunks: Dense) -> Dense:
    """Join the chunks of a dense vector."""
    import torch

    return Dense(torch.cat([chunk.values for chunk in chunks]))


@functools.cache
def _precision_of(dtype: torch.dtype) -> Precision:
    return _PRECISION_OF.get(str(dtype), "fp32")


@size_rule(lambda vector, precision: SizeOnly(vector.size, vector.entries, precision))
def rounded(vector: VectorT, precision: Precision) -> VectorT:
    """Return a vector with its values rounded to a precision, to the nearest one and of two to the even one.

    This is the only place where values are narrowed. With fp32 the values remain as they are.

    Raises
    ------
    NonFiniteGradientError
        If a value exceeds the range of fp16.
    """
    import torch

    assert isinstance(vector, Dense | Sparse)
    if precision == "fp32" or vector.precision == precision:
        return vector
    values = vector.values.to(getattr(torch, _NARROW[precision]))
    if precision == "fp16" and not bool(values.isfinite().all()):
        raise NonFiniteGradientError(
            f"a value of {float(vector.values.abs().max()):g} is beyond the range of fp16, which ends at 65504; use "
            "--dtype bf16 or a lower --lr"
        )
    return _with_values(vector, values)  # type: ignore[return-value]


@size_rule(lambda vector: vector if vector.precision == "fp32" else SizeOnly(vector.size, vector.entries))
def widened(vector: VectorT) -> VectorT:
    """Return a vector with its values as float32, exactly; the vector itself if they have no fewer bits."""
    assert isinstance(vector, Dense | Sparse)
    return vector if vector.precision == "fp32" else _with_values(vector, vector.values.float())  # type: ignore[return-value]


def _with_values(vector: Dense | Sparse, values: torch.Tensor) -> Dense | Sparse:
    return Dense(values) if isinstance(vector, Dense) else Sparse(vector.indices, values, vector.size)


def template_of(vector: Vector, precision: Precision) -> Vector:
    """Return a template of dense vectors of a precision, of the size and on the device of `vector`, without memory."""
    if precision == vector.precision:
        return vector
    if isinstance(vector, SizeOnly):
        return SizeOnly(vector.size, None, precision)
    import torch

    dtype = getattr(torch, _NARROW.get(precision, "float32"))
    return Dense(vector.values.new_zeros(1, dtype=dtype).expand(vector.size))


def entry_bytes(vector: Vector) -> int:
    """Return the bytes of a value and its index."""
    return PRECISION_BYTES[vector.precision] + INDEX_BYTES


@size_rule(lambda left, right: left)
def add(left: Dense, right: Dense) -> Dense:
    """Return ``left + right``, element by element, rounded to their precision."""
    return Dense(left.values + right.values)


@size_rule(lambda vector: vector)
def copied(vector: Dense) -> Dense:
    """Return a copy, so that the original may be overwritten in place."""
    return Dense(vector.values.clone())


@size_rule(lambda left, right: left)
def subtract(left: Dense, right: Dense) -> Dense:
    """Return ``left - right``, element by element."""
    return Dense(left.values - right.values)


@size_rule(lambda first, *others: widened(first))
def add_all(first: Dense, *others: Dense) -> Dense:
    """Return the sum, added from left to right in at least float32; the order is part of the result."""
    if not others:
        return widened(first)
    total = widened(first).values + others[0].values
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
        and payload.precision == template.precision
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
            type(payload) is type(template)
            and _sparse(payload) == _sparse(template)
            and payload.size == template.size
            and payload.precision == template.precision
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
    if isinstance(payload, SizeOnly):
        dtype = "" if payload.precision == "fp32" else f" of {payload.precision}"
    else:
        dtype = f" of {str(payload.values.dtype).removeprefix('torch.')}"
    return f"a {kind} vector of {payload.size} elements{dtype}"
