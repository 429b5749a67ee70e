"""Computations charged by a profile: a fixed time, one for each entry, and one for each element, by function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

from netsim._util.units import picoseconds
from netsim.comm.payload import SizeOnly, Sparse, Vector
from netsim.comm.worker import Compute, Work
from netsim.training.costs import AssumedCosts, MeasuredCosts, Provenance, elements_of, part_of

STEP = "gradient"
"""The name under which rates hold what computing a whole step takes, the update included."""
SPARSE = "sparse_"
"""Before the name of a function that is given sparse vectors: of those, an entry costs more."""


class Rate(NamedTuple):
    """Seconds of a call, of each entry of sparse vectors that it is given, and of each element of dense ones."""

    fixed_s: float
    entry_s: float = 0.0
    element_s: float = 0.0


class Given(NamedTuple):
    """What a computation is given: which function, entries of sparse vectors, and elements of dense ones.

    Where all vectors are sparse, the elements are those of one of them, since what comes out may be dense.
    """

    function: str
    entries: int
    elements: int

    @classmethod
    def to(cls, request: Compute[Any]) -> Given:
        sparse = [arg for arg in request.args if _is_sparse(arg)]
        entries = sum(map(elements_of, sparse))
        elements = sum(elements_of(arg) for arg in request.args if not _is_sparse(arg))
        first = next((arg for arg in request.args if isinstance(arg, Vector)), None)
        name = request.function.__qualname__
        return cls(
            SPARSE + name if _is_sparse(first) else name,
            entries,
            elements or max((vector.size for vector in sparse), default=0),
        )


def _is_sparse(arg: Any) -> bool:
    return isinstance(arg, Sparse) or (isinstance(arg, SizeOnly) and arg.entries is not None)


class RatedCosts:
    """Charges what the rates say of a function, and what `rest` does for all others.

    Kinds of work in `assumed` are left to `rest`: what the user assumes takes the place of what was measured.
    """

    def __init__(self, rates: Mapping[str, Rate], assumed: Set[Work], rest: MeasuredCosts | AssumedCosts) -> None:
        self._rates, self._assumed, self.rest = rates, assumed, rest

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        if request.work in self._assumed:
            return self.rest.picoseconds(request, settle)
        if request.work in ("gradient", "update") and STEP in self._rates:
            return part_of(picoseconds(self._rates[STEP].fixed_s), request) if request.work == "gradient" else 0
        given = Given.to(request)
        if (rate := self._rates.get(given.function)) is None:
            return self.rest.picoseconds(request, settle)
        return picoseconds(rate.fixed_s + rate.entry_s * given.entries + rate.element_s * given.elements)

    def provenance(self, *works: Work) -> Provenance:
        """Return MEASURED where the profile's charges for these kinds of work are all there is, or the rest's too."""
        if self._assumed & set(works):
            return "ASSUMED"
        if set(works) <= {"gradient", "update"} and STEP not in self._rates:
            return self.rest.provenance(*works)
        return "MEASURED"
