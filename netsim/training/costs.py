"""Costs of computations in simulated time: measured on this device, from a profile, or assumed by the user."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Set
from typing import Any, Literal, NamedTuple, Protocol

from netsim._util.device import is_gpu, wait_for_gpu
from netsim._util.units import picoseconds
from netsim.comm.payload import Bundle, Dense, SizeOnly, Sparse, Vector, copied, is_in_place
from netsim.comm.worker import WHOLE, Compute, Work, evaluate
from netsim.training.sgd import descend

Provenance = Literal["MEASURED", "ASSUMED"]

WARM_UP = 2
"""Timed calls that are discarded."""
REPEATS = 5
"""Timed calls of which the median counts."""
WINDOW_S, MOST_REPEATS = 0.02, 100
"""Seconds and calls up to which a short computation is repeated, so that a brief disturbance leaves the median."""

STEP = "gradient"
"""Name of the rate for the computation of a whole step: gradient and update."""
UPDATE = descend.__qualname__
"""Name of the rate for the update, where the rate of a step is that of the gradient alone; other updates are free."""
SPARSE = "sparse_"
"""Prefix of a function's name for calls with sparse vectors, whose entries cost more."""


class Costs(Protocol):
    """A cost model: the time that a computation takes on a simulated host."""

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Return the time of the computation `request` in picoseconds.

        A model that times the computation first calls `settle`, which waits until no other computation runs.
        """


class ReportedCosts(Costs, Protocol):
    """A cost model whose source appears in reports and whose measurements are saved in checkpoints."""

    def provenance(self, *works: Work) -> Provenance:
        """Return MEASURED if the costs of all these kinds of work are measured, else ASSUMED."""

    @property
    def timed(self) -> MeasuredCosts | None:
        """The part of the model that times computations; None if no part does."""


class AssumedCosts:
    """Assumed costs: fixed seconds per call, by kind of work; a kind without an entry takes no time.

    A computation of a part of a vector takes that part of the seconds.
    """

    def __init__(self, seconds: Mapping[Work, float]) -> None:
        self._picoseconds = {work: picoseconds(charge) for work, charge in seconds.items()}

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Return the assumed time of `request` in picoseconds."""
        return part_of(self._picoseconds.get(request.work, 0), request)

    def provenance(self, *works: Work) -> Provenance:
        """Return ASSUMED: the source of the costs of these kinds of work."""
        return "ASSUMED"

    @property
    def timed(self) -> None:
        """None: nothing is timed."""
        return None


class MeasuredCosts:
    """Measured costs: the median of timed calls on this device.

    A function is timed the first time it is called with arguments of a size, to a factor of two. Timing calls the
    function again, on copies of the arguments that it overwrites. The measured cost then stays the same for the run.
    Where only sizes are known, the cost is scaled from the nearest measured size.

    Parameters
    ----------
    assumed
        Seconds per call for kinds of work that are not measured.
    device
        The torch device on which computations run.
    """

    def __init__(self, assumed: Mapping[Work, float], device: str = "cpu") -> None:
        self._assumed = AssumedCosts(assumed)
        self._names = set(assumed)
        self._device = device
        self.measured: dict[str, dict[int, tuple[int, int]]] = {}
        """Function name -> bit length of the number of elements -> (elements, picoseconds)."""

    @property
    def timed(self) -> MeasuredCosts:
        """This model."""
        return self

    def provenance(self, *works: Work) -> Provenance:
        """Return MEASURED if the costs of all these kinds of work are measured, else ASSUMED."""
        return "ASSUMED" if self._names & set(works) else "MEASURED"

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Return the measured time of `request` in picoseconds, timing it if its function and size are new."""
        if request.work in self._names:
            return self._assumed.picoseconds(request, settle)
        # All gradients share one entry: a task without data is charged the gradient measured on the real task.
        function = "gradient" if request.work == "gradient" else request.function.__qualname__
        by_size = self.measured.setdefault(function, {})
        elements = sum(map(elements_of, request.args))
        if any(isinstance(arg, SizeOnly) for arg in request.args):
            cost = self._scaled(by_size, elements)
        else:
            magnitude = elements.bit_length()
            if magnitude not in by_size:
                settle()
                by_size[magnitude] = (elements, self._time(request))
            cost = by_size[magnitude][1]
        # A gradient is timed whole, so its parts divide its time; any other function is timed on the part itself.
        return part_of(cost, request) if request.work == "gradient" else cost

    def ready(self, gradual: Callable[[Callable[[Any, int], None]], Any]) -> list[float]:
        """Return, for each tensor, the fraction of the gradient's time after which the tensor is complete.

        ``gradual(written)`` computes a gradient and calls `written` for each tensor, as :meth:`Task.gradual` does.
        """
        times = self.measured.setdefault("ready", {})
        if not times:
            runs = [_instants(gradual, self._device) for _ in range(WARM_UP + REPEATS)][WARM_UP:]
            for tensor in runs[0]:
                times[tensor] = (1, picoseconds(statistics.median(run[tensor] for run in runs)))
        return [times[tensor][1] / times[WHOLE_GRADIENT][1] for tensor in sorted(times) if tensor != WHOLE_GRADIENT]

    @staticmethod
    def _scaled(by_size: Mapping[int, tuple[int, int]], elements: int) -> int:
        if not by_size:
            return 0
        nearest = min(by_size.values(), key=lambda measurement: abs(measurement[0] - elements))
        return nearest[1] * elements // max(1, nearest[0])

    def _time(self, request: Compute[Any]) -> int:
        args = [evaluate(arg, _on_copies) if isinstance(arg, Compute) else arg for arg in request.args]
        samples: list[float] = []
        while len(samples) < WARM_UP + REPEATS or (sum(samples[WARM_UP:]) < WINDOW_S and len(samples) < MOST_REPEATS):
            fresh_args = _spared(request, args)
            wait_for_gpu(self._device)
            started = time.perf_counter()
            request.function(*fresh_args)
            wait_for_gpu(self._device)
            samples.append(time.perf_counter() - started)
        return picoseconds(statistics.median(samples[WARM_UP:]))


def _spared(request: Compute[Any], args: list[Any]) -> list[Any]:
    """Return the arguments, with a copy of the first one if the function overwrites it."""
    return [copied(args[0]), *args[1:]] if is_in_place(request.function) else args


def _on_copies(request: Compute[Any], args: list[Any]) -> Any:
    return request.function(*_spared(request, args))


WHOLE_GRADIENT = -1
"""Key of the time of the whole gradient, beside the indices of its tensors."""


def _instants(gradual: Callable[[Callable[[Any, int], None]], Any], device: str) -> dict[int, float]:
    """Return the seconds after which each tensor of a gradient, and the whole gradient, was complete."""
    if is_gpu(device):
        return _instants_of_gpu(gradual, device)
    seconds: dict[int, float] = {}
    started = time.perf_counter()

    def written(_: Any, tensor: int) -> None:
        seconds[tensor] = time.perf_counter() - started

    gradual(written)
    seconds[WHOLE_GRADIENT] = time.perf_counter() - started
    return seconds


def _instants_of_gpu(gradual: Callable[[Callable[[Any, int], None]], Any], device: str) -> dict[int, float]:
    """Return what :func:`_instants` does, from events of the GPU's streams: the CPU's clock tells when it launched."""
    import torch

    def event() -> torch.cuda.Event:
        made = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        made.record(torch.cuda.current_stream(device))
        return made

    started, events = event(), {}

    def written(_: Any, tensor: int) -> None:
        events[tensor] = event()

    gradual(written)
    events[WHOLE_GRADIENT] = event()
    torch.cuda.synchronize(device)
    return {tensor: started.elapsed_time(ended) / 1e3 for tensor, ended in events.items()}


def part_of(cost: int, request: Compute[Any]) -> int:
    """Return the cost of the part of a vector that `request` works on; the costs of all parts sum to `cost`."""
    if request.part is WHOLE:
        return cost
    start, end = request.part
    return round(cost * end) - round(cost * start)


def elements_of(arg: Any) -> int:
    """Return the number of elements of an argument of a computation; of a sparse vector, its entries."""
    match arg:
        case Compute():  # its result is as large as its largest argument, as a gradient is as large as the parameters
            return max(map(elements_of, arg.args), default=0)
        case Dense():
            return arg.size
        case Sparse():
            return arg.values.numel()
        case SizeOnly():
            return arg.size if arg.entries is None else arg.entries
        case Bundle():
            return sum(map(elements_of, arg.parts))
    return 0


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
            name = STEP if request.work == "gradient" else request.function.__qualname__
            rate = self._rates.get(name, Rate(0.0))
            return part_of(picoseconds(rate.fixed_s), request)
        given = Given.to(request)
        if (line := self._rates.get(given.function)) is None:
            return self._rest.picoseconds(request, settle)
        return picoseconds(line.fixed_s + line.entry_s * given.entries + line.element_s * given.elements)

    def provenance(self, *works: Work) -> Provenance:
        """Return MEASURED if the profile, or else `rest`, has measured all these kinds of work; else ASSUMED."""
        if self._assumed & set(works):
            return "ASSUMED"
        of_step = set(works) <= {"gradient", "update"}
        if STEP not in self._rates if of_step else self._rates.keys() <= {STEP, UPDATE}:
            return self._rest.provenance(*works)
        return "MEASURED"

    @property
    def timed(self) -> MeasuredCosts | None:
        """The part of `rest` that times computations; None if no part does."""
        return self._rest.timed
