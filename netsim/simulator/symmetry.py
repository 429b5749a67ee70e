"""Records the messages and computations of all ranks from a few representative ranks; only sizes are simulated.

The representatives are rank 0, the last worker and the server. Their programs run side by side, and every collective is
answered for all ranks at once. Every other rank behaves like a representative if no algorithm depends on its rank. A
representative's rank can therefore be compared with 0 and with the server's rank only. Any other use of the rank, and
any message outside of schedules, raises NoScheduleError; the event engine must then simulate the algorithm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim._util.units import HORIZON_PS
from netsim.comm.payload import Bundle, Dense, Flag, SizeOnly, Sparse
from netsim.comm.schedule import Pairs, has_schedule, size_of
from netsim.comm.worker import EXPAND, Collective, Compute, Fork, Handle, Worker, evaluate, stages
from netsim.simulator.layout import (
    NoScheduleError,
    PerRole,
    PostCompute,
    RoleMap,
    SizedRound,
    SizedRounds,
    kind_of,
    lay_out,
)
from netsim.training.costs import Costs

NOBODY = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
_PAYLOADS = (Dense, Sparse, SizeOnly, Flag, Bundle)


class RecordedPhase(NamedTuple):
    """A collective, or the computation between two collectives.

    `rounds` refer to `charges`; a charge holds the picoseconds of each kind of work. Phases with equal keys are equal.
    A rank posts its messages of a round when those of all rounds are done but for the `ahead` rounds before. Instead of
    rounds, a phase may have the phases of an `exchange` that begins `beside` what follows; a phase with the number of
    the exchange alone waits for its end.
    """

    key: Hashable
    rounds: Sequence[SizedRound]
    charges: tuple[Counter[str], ...]
    ahead: int = 0
    beside: Sequence[RecordedPhase] | None = None
    exchange: int = 0

    @property
    def charged_ps(self) -> npt.NDArray[np.int64]:
        """The sum of each charge in picoseconds; at most the horizon."""
        return np.array([min(charge.total(), HORIZON_PS) for charge in self.charges], np.int64)

    @property
    def messages(self) -> int:
        """The number of messages of all rounds."""
        if self.beside is not None:
            return sum(part.messages for part in self.beside)
        if isinstance(self.rounds, SizedRounds):
            return self.rounds.messages
        return sum(len(round_.pairs.src) for round_ in self.rounds)


class OpaqueRank:
    """The rank of a representative, which also stands for other ranks: code may pass it on, but not read its value."""

    __slots__ = ("_comparable", "_rank")

    def __init__(self, rank: int, comparable: tuple[int, ...]) -> None:
        self._rank, self._comparable = rank, comparable

    def __eq__(self, other: object) -> bool:
        if other not in self._comparable:
            self._refuse()
        return self._rank == other

    def __bool__(self) -> bool:
        return self._rank != 0

    def _refuse(self, *_: object) -> Any:
        raise NoScheduleError("its program depends on the rank")

    __hash__ = __index__ = __int__ = __float__ = __str__ = __repr__ = __iter__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __mod__ = __rmod__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = __rshift__ = __divmod__ = _refuse


class RoleRepresentative(Worker):
    """A worker that represents other workers as well."""

    __slots__ = ("number",)

    number: int

    @property  # type: ignore[override]
    def rank(self) -> OpaqueRank:
        """The rank, which can be compared with 0 and the server's rank only."""
        return OpaqueRank(self.number, (0, self.server))

    @rank.setter
    def rank(self, number: int) -> None:
        """Set the number of the rank."""
        self.number = number

    @property
    def trains(self) -> bool:
        """Whether the representative has training data."""
        return self.number < self.workers

    def _check(self, peer: int, verb: str) -> None:
        raise NoScheduleError(f"it sends messages outside of schedules, in {self.operation}")


class ExchangeBeside(Handle[Any]):
    """An exchange that a representative began beside what it does next: its number, and its result."""

    __slots__ = ("number", "result")

    def __init__(self, number: int, result: Any) -> None:
        self.number, self.result = number, result


class SymmetryRecorder:
    """Runs the programs of the representatives, and records messages and computations of all ranks, step by step.

    With `concurrent`, the ranks may exchange beside computations, in one coroutine at a time.
    """

    def __init__(self, world: RoleMap, costs: Costs, *, concurrent: bool = False) -> None:
        self._concurrent = concurrent
        self._begun = 0
        self.world = world
        self._costs = costs
        self.workers = [RoleRepresentative(rank, world.workers, world.server) for rank in world.representatives]
        self.steps: list[list[RecordedPhase]] = [[]]
        self.uneven = False

    def run(self, program: Callable[[Worker], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run ``program(worker)`` for all representatives, and return their results.

        The program calls :meth:`end` after every step.
        """
        self._since: list[list[Counter[str]]] = [[Counter()] for _ in self.workers]
        results: list[Any] = [None] * len(self.workers)
        self._run_all([program(worker) for worker in self.workers], results)
        self.steps.pop()  # the step that would begin after the last one
        return results

    def _run_all(self, coroutines: Sequence[Coroutine[Any, Any, Any]], results: list[Any]) -> None:
        """Run a coroutine of each representative to its end, side by side."""
        with ExitStack() as stack:
            for coroutine in coroutines:
                stack.callback(coroutine.close)
            answers: Sequence[Any] = [None] * len(coroutines)
            while True:
                calls = [self._advance(role, coroutines[role], answers[role], results) for role in range(len(answers))]
                self._note_computing()
                if all(call is None for call in calls):
                    break
                answers = self._exchange(calls)

    def end(self, worker: Worker) -> None:
        """Record that a representative has ended a step."""
        self._since[self.workers.index(worker)].append(Counter())  # type: ignore[arg-type]

    def _advance(
        self, role: int, coroutine: Coroutine[Any, Any, Any], answer: Any, results: list[Any]
    ) -> Collective[Any] | Fork[Any] | ExchangeBeside | None:
        """Run a representative up to its next collective, and return the collective; None at the program's end.

        The begin and the end of an exchange beside others count as collectives.
        """
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
                case Fork() | ExchangeBeside() if self._concurrent:
                    return request
                case Fork():
                    answer = self.fork(request)
                case _:
                    raise NoScheduleError("it sends messages outside of schedules")

    def _note_computing(self) -> None:
        """Record the computation since the last collective, and the steps that ended in between."""
        if len({len(since) for since in self._since}) > 1:
            raise NoScheduleError("ranks are not in the same step")
        for steps_ended, charges in enumerate(zip(*self._since, strict=True)):
            if steps_ended:
                self.step_ended()
            first, last = (charges[self.world.role[rank]] for rank in (0, self.world.workers - 1))
            if self.uneven and first != last:
                raise NoScheduleError("what ranks compute after a tree of merges depends on their place in it")
            if any(charges):
                self.compute(charges)
        self._since = [[Counter()] for _ in self.workers]

    def _exchange(self, calls: PerRole[Collective[Any] | Fork[Any] | ExchangeBeside | None]) -> PerRole[Any]:
        forks = [call for call in calls if isinstance(call, Fork)]
        if len(forks) == len(calls):
            return self._begin_beside([fork.coroutine for fork in forks])
        handles = [call for call in calls if isinstance(call, ExchangeBeside)]
        if len(handles) == len(calls) and len({handle.number for handle in handles}) == 1:
            self.join(handles[0].number)
            return [handle.result for handle in handles]
        collectives = [call for call in calls if isinstance(call, Collective)]
        if len(collectives) < len(calls) or len({call.function for call in collectives}) > 1:
            raise NoScheduleError("ranks do not take part in the same collectives")
        return self.exchange(collectives)

    def _begin_beside(self, coroutines: Sequence[Coroutine[Any, Any, Any]]) -> PerRole[ExchangeBeside]:
        """Record an exchange that begins now; return the handle of each representative."""
        self._begun += 1
        results: list[Any] = [None] * len(coroutines)
        since, self._since = self._since, [[Counter()] for _ in coroutines]
        with self.beside(self._begun):
            self._run_all(coroutines, results)
        self._since = since
        return [ExchangeBeside(self._begun, result) for result in results]

    @contextmanager
    def beside(self, number: int) -> Iterator[None]:
        """Record what follows as an exchange of a `number`, beside everything after it.

        Raises
        ------
        NoScheduleError
            If ranks compute in it, because a host makes one computation after another.
        """
        outer, parts = self.steps[-1], []  # type: list[RecordedPhase], list[RecordedPhase]
        self.steps[-1] = parts
        yield
        if any(any(part.charges) for part in parts):
            raise NoScheduleError("an exchange computes beside other computations")
        self.steps[-1] = outer
        outer.append(RecordedPhase(("beside", number), (), (), beside=parts, exchange=number))

    def join(self, number: int) -> None:
        """Record that all ranks wait for the end of an exchange."""
        self.steps[-1].append(RecordedPhase(("join", number), (), (), exchange=number))

    def knows(self, call: Collective[Any]) -> bool:
        """Return whether a collective is answered as a whole, instead of being expanded into messages."""
        return has_schedule(call)

    def fork(self, request: Fork[Any]) -> Handle[Any]:
        """Return the handle of a coroutine beside others; raise NoScheduleError, because their messages share links."""
        request.coroutine.close()
        raise NoScheduleError("it exchanges in several coroutines at a time")

    def step_ended(self) -> None:
        """Begin a new step."""
        self.steps.append([])

    def compute(self, charges: tuple[Counter[str], ...]) -> None:
        """Record a computation of all ranks, given as one charge per representative."""
        at = np.flatnonzero(np.array([bool(charge) for charge in charges])[self.world.role])
        key = ("computing", *(frozenset(charge.items()) for charge in charges))
        round_ = SizedRound(NOBODY, np.zeros((0, 3), np.int64), NOBODY.src, PostCompute(at, self.world.role[at]))
        self.steps[-1].append(RecordedPhase(key, [round_], charges))

    def exchange(self, calls: PerRole[Collective[Any]]) -> PerRole[Any]:
        """Record a collective; return the answer of each representative."""
        layout = lay_out(self.world, calls)
        self.uneven |= layout.uneven
        charges = tuple(map(self.charge, layout.requests))
        fingerprints = tuple(_fingerprint((call.args, call.kwargs)) for call in calls)
        key = (calls[0].name, fingerprints, *(frozenset(charge.items()) for charge in charges))
        self.steps[-1].append(RecordedPhase(key, layout.rounds, charges, layout.ahead))
        return layout.answers

    def charge(self, requests: Sequence[Compute[Any]]) -> Counter[str]:
        """Return the picoseconds of each kind of work that computations take."""
        charge: Counter[str] = Counter()
        for stage in (stage for request in requests for stage in stages(request)):
            charge[stage.work] += self._costs.picoseconds(stage, _nothing_runs)
        return +charge


def _nothing_runs() -> None:
    """Do nothing: an assumed cost is charged without synchronising the device."""


def _fingerprint(value: Any) -> Hashable:
    """Return a key that is equal for arguments of a collective with which it sends equal messages."""
    if isinstance(value, _PAYLOADS):
        return kind_of(value), size_of(value)
    if isinstance(value, list | tuple):
        return tuple(map(_fingerprint, value))
    if isinstance(value, dict):
        return tuple((name, _fingerprint(argument)) for name, argument in value.items())
    return None if callable(value) else value
