"""Makes a computation that all workers repeat on the same arguments only once.

Workers that share a process receive the very objects that others sent, so "the same arguments"
can be told by identity: nothing is compared, and a worker that holds an equal but different object
computes for itself. A result is kept only as long as all payloads among its arguments live.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from netsim.comm.payload import Bundle, Dense, SizeOnly, Sparse

_BY_IDENTITY = (Dense, Sparse, SizeOnly, Bundle)


class ReplicaMemo:
    """Results of replicated computations whose arguments are still alive."""

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def __len__(self) -> int:
        return len(self._results)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return ``function(*args)``, computed once for the same function and arguments."""
        payloads = [arg for arg in args if isinstance(arg, _BY_IDENTITY)]
        if not payloads:
            return function(*args)
        key = (function, *(id(arg) if isinstance(arg, _BY_IDENTITY) else ("value", arg) for arg in args))
        if key in self._results:
            return self._results[key][0]
        result = function(*args)
        # When any argument dies its id may be used again, so the entry goes with the first that does.
        forget = tuple(weakref.ref(payload, lambda _: self._results.pop(key, None)) for payload in payloads)
        self._results[key] = (result, forget)
        return result
