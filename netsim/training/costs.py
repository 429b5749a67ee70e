"""What computations are charged in simulated time: measured on this device, or assumed by the user."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from netsim._util.units import picoseconds
from netsim.comm.payload import Bundle, Dense, SizeOnly, Sparse, copied, is_in_place
from netsim.comm.worker import Compute, Work, evaluate

Provenance = Literal["MEASURED", "ASSUMED"]

WARM_UP = 2
REPEATS = 5
WINDOW_S, MOST_REPEATS = 0.02, 100
"""A short computation is called more often, for so long: something else that runs for a moment is not its median."""


class Costs(Protocol):
    """How long computations take on the hosts that are simulated."""

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Return the time to charge for `request`.

        `settle` waits until nothing else runs; a model that times the computation calls it first.
        """


class AssumedCosts:
    """Charges fixed seconds a call, or part of them; kinds of work that are not named take no time."""

    def __init__(self, seconds: Mapping[Work, float]) -> None:
        self._picoseconds = {work: picoseconds(charge) for work, charge in seconds.items()}

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        return part_of(self._picoseconds.get(request.work, 0), request)

    def provenance(self, *works: Work) -> Provenance:
        """Return where the charges for these kinds of work come from."""
        return "ASSUMED"


class MeasuredCosts:
    """Charges the median of timed calls, made when a function is first called at a size.

    Timing a computation is calling it again, on copies of what it overwrites. A function is timed once for each size
    of its arguments (to a factor of two), and the charge then never changes within a run. Where only
    sizes are known, the charge is scaled from the nearest size that was measured. Kinds of work in
    `assumed` are charged that many seconds instead.
    """

    def __init__(self, assumed: Mapping[Work, float], device: str = "cpu") -> None:
        self._assumed = AssumedCosts(assumed)
        self._names = set(assumed)
        self._device = device
        self.measured: dict[str, dict[int, tuple[int, int]]] = {}
        """Function -> order of magnitude -> (elements, picoseconds)."""

    def provenance(self, *works: Work) -> Provenance:
        """Return MEASURED only if the charges for all these kinds of work are."""
        return "ASSUMED" if self._names & set(works) else "MEASURED"

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        if request.work in self._names:
            return self._assumed.picoseconds(request, settle)
        # One task's gradient stands for another's: a prediction for other sizes is charged the same.
        function = "gradient" if request.work == "gradient" else request.function.__qualname__
        known = self.measured.setdefault(function, {})
        elements = sum(map(elements_of, request.args))
        if any(isinstance(arg, SizeOnly) for arg in request.args):
            charge = self._scaled(known, elements)
        else:
            magnitude = elements.bit_length()
            if magnitude not in known:
                settle()
                known[magnitude] = (elements, self._time(request))
            charge = known[magnitude][1]
        # Other pieces of vectors are measured as they are; a piece of a gradient is part of the whole one's time.
        return part_of(charge, request) if request.work == "gradient" else charge

    def ready(self, gradual: Callable[[Callable[[Any, int], None]], Any]) -> list[float]:
        """Return the share of a gradient's time after which each tensor is there; ``gradual(written)`` makes one."""
        known = self.measured.setdefault("ready", {})
        if not known:
            runs = [_instants(gradual) for _ in range(WARM_UP + REPEATS)][WARM_UP:]
            for number in runs[0]:
                known[number] = (1, picoseconds(statistics.median(run[number] for run in runs)))
        return [known[number][1] / known[WHOLE_GRADIENT][1] for number in sorted(known) if number != WHOLE_GRADIENT]

    @staticmethod
    def _scaled(known: Mapping[int, tuple[int, int]], elements: int) -> int:
        if not known:
            return 0
        nearest = min(known.values(), key=lambda point: abs(point[0] - elements))
        return nearest[1] * elements // max(1, nearest[0])

    def _time(self, request: Compute[Any]) -> int:
        args = [evaluate(arg, _on_copies) if isinstance(arg, Compute) else arg for arg in request.args]
        samples: list[float] = []
        while len(samples) < WARM_UP + REPEATS or (sum(samples) < WINDOW_S and len(samples) < MOST_REPEATS):
            own = _spared(request, args)
            self._synchronise()
            started = time.perf_counter()
            request.function(*own)
            self._synchronise()
            samples.append(time.perf_counter() - started)
        return picoseconds(statistics.median(samples[WARM_UP:]))

    def _synchronise(self) -> None:
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._device)


def _spared(request: Compute[Any], args: list[Any]) -> list[Any]:
    """Return the arguments, with a copy of that which the function overwrites."""
    return [copied(args[0]), *args[1:]] if is_in_place(request.function) else args


def _on_copies(request: Compute[Any], args: list[Any]) -> Any:
    return request.function(*_spared(request, args))


WHOLE_GRADIENT = -1


def _instants(gradual: Callable[[Callable[[Any, int], None]], Any]) -> dict[int, float]:
    """Return the seconds after which each tensor of a gradient was there, and all of it."""
    found: dict[int, float] = {}
    started = time.perf_counter()

    def written(_: Any, number: int) -> None:
        found[number] = time.perf_counter() - started

    gradual(written)
    found[WHOLE_GRADIENT] = time.perf_counter() - started
    return found


def part_of(charge: int, request: Compute[Any]) -> int:
    """Return what part of a charge falls to a piece; those of all pieces sum to the charge."""
    start, end = request.part
    return round(charge * end) - round(charge * start)


def elements_of(arg: Any) -> int:
    """Return how many elements, or entries of a sparse vector, an argument of a computation holds."""
    match arg:
        case Compute():  # a gradient is as large as the parameters, and what is made of it as large as that
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
