"""Learns what all ranks do from the few that stand for them, where sizes are all there is to know.

Rank 0, the last worker and the server run side by side, and every collective is answered for all of them at
once. What the others do follows, as long as nobody looks at its rank: so a representative's rank may be compared
with 0 and with the server's, but not looked at otherwise. Whatever does so, or sends messages outside of
collectives that have schedules, raises NoScheduleError, and has to be simulated rank by rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim._util.units import HORIZON_PS
from netsim.comm.payload import Bundle, Dense, Flag, SizeOnly, Sparse
from netsim.comm.schedule import Pairs, has_schedule, size_of, written
from netsim.comm.worker import EXPAND, Collective, Compute, Worker, evaluate, stages
from netsim.simulator.layout import NoScheduleError, PerRole, PostCompute, RoleMap, SizedRound, kind_of, lay_out
from netsim.training.costs import Costs

NOBODY = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
_PAYLOADS = (Dense, Sparse, SizeOnly, Flag, Bundle)


class RecordedPhase(NamedTuple):
    """A collective, or what is computed between two: rounds, and the picoseconds of each kind of work they refer to.

    Parts with equal keys are the same.
    """

    key: Hashable
    rounds: Sequence[SizedRound]
    charges: tuple[Counter[str], ...]

    @property
    def charged_ps(self) -> npt.NDArray[np.int64]:
        """What each of the charges comes to, or the horizon where that is earlier."""
        return np.array([min(charge.total(), HORIZON_PS) for charge in self.charges], np.int64)


class OpaqueRank:
    """Stands for the rank of whomever a representative speaks for: it can be handed on, but not looked at."""

    __slots__ = ("_number", "_special")

    def __init__(self, number: int, special: tuple[int, ...]) -> None:
        self._number, self._special = number, special

    def __eq__(self, other: object) -> bool:
        if other not in self._special:
            self._refuse()
        return self._number == other

    def __bool__(self) -> bool:
        return self._number != 0

    def _refuse(self, *_: object) -> Any:
        raise NoScheduleError("its text goes by rank")

    __hash__ = __index__ = __int__ = __float__ = __str__ = __repr__ = __iter__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __mod__ = __rmod__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = __rshift__ = __divmod__ = _refuse


class RoleRepresentative(Worker):
    """A worker that speaks for others too."""

    __slots__ = ("number",)

    number: int

    @property  # type: ignore[override]
    def rank(self) -> OpaqueRank:
        return OpaqueRank(self.number, (0, self.server))

    @rank.setter
    def rank(self, number: int) -> None:
        self.number = number

    @property
    def trains(self) -> bool:
        return self.number < self.workers

    def _check(self, peer: int, verb: str) -> None:
        raise NoScheduleError(f"it sends messages by itself, in {self.operation}")


class SymmetryRecorder:
    """Runs the representatives to their end, and notes down what all ranks do, step by step."""

    def __init__(self, world: RoleMap, costs: Costs) -> None:
        self.world = world
        self._costs = costs
        self.workers = [RoleRepresentative(rank, world.workers, world.server) for rank in world.representatives]
        self.steps: list[list[RecordedPhase]] = [[]]
        self.uneven = False

    def run(self, program: Callable[[Worker], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run ``program(worker)`` for the representatives; return their results. It calls :meth:`end` after a step."""
        self._since: list[list[Counter[str]]] = [[Counter()] for _ in self.workers]
        results: list[Any] = [None] * len(self.workers)
        with ExitStack() as stack:
            coroutines = [program(worker) for worker in self.workers]
            for coroutine in coroutines:
                stack.callback(coroutine.close)
            answers: Sequence[Any] = [None] * len(coroutines)
            while True:
                calls = [self._advance(role, coroutines[role], answers[role], results) for role in range(len(answers))]
                self._note_computing()
                if all(call is None for call in calls):
                    break
                answers = self._exchange(calls)
        self.steps.pop()  # what would begin after the last
        return results

    def end(self, worker: Worker) -> None:
        """Take note that a representative has ended a step."""
        self._since[self.workers.index(worker)].append(Counter())  # type: ignore[arg-type]

    def _advance(
        self, role: int, coroutine: Coroutine[Any, Any, Any], answer: Any, results: list[Any]
    ) -> Collective[Any] | None:
        """Run a representative up to its next collective, and return that; None if it came to its end."""
        while True:
            try:
                request = coroutine.send(answer)
            except StopIteration as stop:
                results[role] = stop.value
                return None
            match request:
                case Compute():
                    self._since[role][-1].update(self.charge([request]))
                    answer = evaluate(request)
                case Collective() if self.knows(request):
                    return request
                case Collective():
                    answer = EXPAND
                case _:
                    raise NoScheduleError("it sends messages by itself")

    def _note_computing(self) -> None:
        """Put down what was computed since the last collective, and which steps ended in between."""
        if len({len(since) for since in self._since}) > 1:
            raise NoScheduleError("ranks are not in the same step")
        for number, charges in enumerate(zip(*self._since, strict=True)):
            if number:
                self.step_ended()
            first, last = (charges[self.world.role[rank]] for rank in (0, self.world.workers - 1))
            if self.uneven and first != last:
                raise NoScheduleError("what ranks compute after a tree of merges depends on their place in it")
            if any(charges):
                self.compute(charges)
        self._since = [[Counter()] for _ in self.workers]

    def _exchange(self, calls: PerRole[Collective[Any] | None]) -> PerRole[Any]:
        named = [call for call in calls if call is not None]
        if len(named) < len(calls) or len({written(call) for call in named}) > 1:
            raise NoScheduleError("ranks do not take part in the same collectives")
        return self.exchange(named)

    def knows(self, call: Collective[Any]) -> bool:
        """Return whether a collective is taken whole, and not apart."""
        return has_schedule(call)

    def step_ended(self) -> None:
        """Begin a new step."""
        self.steps.append([])

    def compute(self, charges: tuple[Counter[str], ...]) -> None:
        """Put down what ranks compute, by their representatives."""
        at = np.flatnonzero(np.array([bool(charge) for charge in charges])[self.world.role])
        key = ("computing", *(frozenset(charge.items()) for charge in charges))
        round_ = SizedRound(NOBODY, np.zeros((0, 3), np.int64), NOBODY.src, PostCompute(at, self.world.role[at]))
        self.steps[-1].append(RecordedPhase(key, [round_], charges))

    def exchange(self, calls: PerRole[Collective[Any]]) -> PerRole[Any]:
        """Put down a collective; return what each representative gets."""
        layout = lay_out(self.world, calls)
        self.uneven |= layout.uneven
        charges = tuple(map(self.charge, layout.requests))
        prints = tuple(_print((call.args, getattr(call.function, "keywords", {}))) for call in calls)
        key = (calls[0].name, prints, *(frozenset(charge.items()) for charge in charges))
        self.steps[-1].append(RecordedPhase(key, layout.rounds, charges))
        return layout.answers

    def charge(self, requests: Sequence[Compute[Any]]) -> Counter[str]:
        """Return the picoseconds of each kind of work that computations take."""
        charge: Counter[str] = Counter()
        for stage in (stage for request in requests for stage in stages(request)):
            charge[stage.work] += self._costs.picoseconds(stage, _nothing_runs)
        return +charge


def _nothing_runs() -> None:
    """There is nothing to wait for before a computation is timed."""


def _print(value: Any) -> Hashable:
    """Return what tells two arguments of a collective apart, as far as its messages go."""
    if isinstance(value, _PAYLOADS):
        return kind_of(value), size_of(value)
    if isinstance(value, list | tuple):
        return tuple(map(_print, value))
    if isinstance(value, dict):
        return tuple((name, _print(each)) for name, each in value.items())
    return None if callable(value) else value
