"""Costs of computations from a profile of a machine: per function, seconds per call, per entry and per element."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

from netsim._util.units import picoseconds
from netsim.comm.payload import SizeOnly, Sparse, Vector
from netsim.comm.worker import Compute, Work
from netsim.training.costs import MeasuredCosts, Provenance, ReportedCosts, elements_of, part_of

STEP = "gradient"
"""Name of the rate for the computation of a whole step: gradient and update."""
SPARSE = "sparse_"
"""Prefix of a function's name for calls with sparse vectors, whose entries cost more."""


class Rate(NamedTuple):
    """Seconds per call, per entry of its sparse arguments, and per element of its dense arguments."""

    fixed_s: float
    entry_s: float = 0.0
    element_s: float = 0.0


class Given(NamedTuple):
    """The function of a computation, the entries of its sparse arguments, and the elements of its dense arguments.

    If all vectors are sparse, `elements` is the size d of one of them, because the result may be dense.
    """

    function: str
    entries: int
    elements: int

    @classmethod
    def to(cls, request: Compute[Any]) -> Given:
        """Return function, entries and elements of `request`."""
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
    """Costs from the rates of a profile; functions without a rate take their cost from another model.

    Parameters
    ----------
    rates
        Rates by the name of the function.
    assumed
        Kinds of work whose cost the user assumed; the assumption, in `rest`, replaces the profile's rate.
    rest
        The cost model for functions without a rate, and for the kinds of work in `assumed`.
    """

    def __init__(self, rates: Mapping[str, Rate], assumed: Set[Work], rest: ReportedCosts) -> None:
        self._rates, self._assumed, self._rest = rates, assumed, rest

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Return fixed + entry · entries + element · elements of the function's rate, in picoseconds."""
        if request.work in self._assumed:
            return self._rest.picoseconds(request, settle)
        if request.work in ("gradient", "update") and STEP in self._rates:
            return part_of(picoseconds(self._rates[STEP].fixed_s), request) if request.work == "gradient" else 0
        given = Given.to(request)
        if (rate := self._rates.get(given.function)) is None:
            return self._rest.picoseconds(request, settle)
        return picoseconds(rate.fixed_s + rate.entry_s * given.entries + rate.element_s * given.elements)

    def provenance(self, *works: Work) -> Provenance:
        """Return MEASURED if the profile, or else `rest`, has measured all these kinds of work; else ASSUMED."""
        if self._assumed & set(works):
            return "ASSUMED"
        if set(works) <= {"gradient", "update"} and STEP not in self._rates:
            return self._rest.provenance(*works)
        return "MEASURED"

    @property
    def timed(self) -> MeasuredCosts | None:
        """The part of `rest` that times computations; None if no part does."""
        return self._rest.timed
