"""Makes a computation that all workers repeat with the same arguments only once.

Workers in one process receive the same objects that others sent, so arguments are compared by identity. A worker that
holds an equal but different object computes for itself. A result is kept as long as all payloads among its arguments
live.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from netsim.comm.payload import Bundle, Dense, SizeOnly, Sparse

_BY_IDENTITY = (Dense, Sparse, SizeOnly, Bundle)


class ReplicaMemo:
    """The results of replicated computations whose arguments are alive."""

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def __repr__(self) -> str:
        return f"ReplicaMemo({len(self)} results)"

    def __len__(self) -> int:
        return len(self._results)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return ``function(*args)``; equal calls with the same objects compute once."""
        payloads = [arg for arg in args if isinstance(arg, _BY_IDENTITY)]
        if not payloads:
            return function(*args)
        key = (function, *(id(arg) if isinstance(arg, _BY_IDENTITY) else ("value", arg) for arg in args))
        if key in self._results:
            return self._results[key][0]
        result = function(*args)
        # The id of a dead argument may be reused, so the entry is removed with its first argument.
        forget = tuple(weakref.ref(payload, lambda _: self._results.pop(key, None)) for payload in payloads)
        self._results[key] = (result, forget)
        return result
