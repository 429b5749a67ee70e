"""A sequence that is computed when it is first read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

T = TypeVar("T")


class OnDemand(Sequence[T]):
    """The items that a function returns, which is called when the first of them is read; a copy is a list.

    >>> squares = OnDemand(lambda: [0, 1, 4])
    >>> squares == [0, 1, 4], squares[-1], [*squares, 9]
    (True, 4, [0, 1, 4, 9])
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, compute: Callable[[], list[T]]) -> None:
        self._compute: Callable[[], list[T]] | None = compute
        self._items: list[T] = []

    def _read(self) -> list[T]:
        if (compute := self._compute) is not None:
            self._items, self._compute = compute(), None  # which frees what the function holds
        return self._items

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._read()[index]

    def __len__(self) -> int:
        return len(self._read())

    def __eq__(self, other: object) -> bool:
        return self._read() == (other._read() if isinstance(other, OnDemand) else other)

    def __repr__(self) -> str:
        return repr(self._read())

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self._read(),)
