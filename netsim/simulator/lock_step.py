"""Runs all ranks with their values from collective to collective, and records what the vectorised engine then times.

The values of a collective follow from the order of its messages and combinations, which its schedule fixes. They do not
depend on when a message arrives. :class:`LockStep` therefore plays a collective round by round in memory, for all ranks
at once, with the same operands in the same order as :func:`~netsim.comm.schedule.play` on each rank. It records the
bytes of each message and the charges of each computation, from which the engine finds the times afterwards.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from hashlib import blake2b
from typing import Any

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.payload import Bundle, Dense, Payload, Sparse, check_like
from netsim.comm.schedule import Combine, Pairs, Round, has_schedule, schedule_at, size_of
from netsim.comm.worker import EXPAND, Collective, Compute, Worker, evaluate, stages
from netsim.simulator.compute_pool import Backlog, ReplicaMemo, is_long
from netsim.simulator.layout import NoScheduleError, PostCompute, SizedRound
from netsim.simulator.scheduler import Message, Place
from netsim.simulator.symmetry import NOBODY, RecordedPhase
from netsim.training.costs import Costs


class LockStep:
    """Runs the programs of all ranks side by side; `steps` holds the phases of each step.

    Parameters
    ----------
    workers
        All ranks, in order.
    costs
        The simulated time of each computation.
    executor
        Its threads make long computations, if given.
    """

    def __init__(self, workers: Sequence[Worker], costs: Costs, executor: Executor | None = None) -> None:
        self.steps: list[list[RecordedPhase]] = [[]]
        self._workers = workers
        self._costs = costs
        self._backlog = Backlog(executor, getattr(executor, "_max_workers", 1))
        self._replicas = ReplicaMemo()
        self._phases: dict[bytes, RecordedPhase] = {}
        self._since: list[list[dict[str, int]]] = [[{}] for _ in workers]
        """What each rank has been charged since the last collective, for each step that it has been in."""

    def __repr__(self) -> str:
        return f"LockStep({len(self._workers)} ranks, {len(self.steps)} steps)"

    def run(self, program: Callable[[Worker], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run ``program(worker)`` for all ranks, and return their results; the program calls :meth:`end` after a step.

        Raises
        ------
        NoScheduleError
            If a rank sends messages outside of schedules, or ranks do not take part in the same collectives.
        """
        results: list[Any] = [None] * len(self._workers)
        with ExitStack() as stack:
            coroutines = [program(worker) for worker in self._workers]
            for coroutine in coroutines:
                stack.callback(coroutine.close)
            answers = [None for _ in coroutines]
            while True:
                calls = self._next_calls(coroutines, answers, results)
                self._note_computing()
                if all(call is None for call in calls):
                    break
                answers = self._exchange(calls)
                del calls  # the vectors in it, whose memory the next gradients take
        self.steps.pop()  # the step that would begin after the last one
        return results

    def end(self, worker: Worker) -> None:
        """Record that a rank has ended a step."""
        self._since[worker.rank].append({})

    def _next_calls(
        self, coroutines: Sequence[Coroutine[Any, Any, Any]], answers: Sequence[Any], results: list[Any]
    ) -> list[Collective[Any] | None]:
        """Run every rank up to its next collective, and return the collectives; None for a rank that has finished.

        Long computations, such as gradients, are made when every rank has requested one or awaits a collective.
        """
        calls: list[Collective[Any] | None] = [None] * len(coroutines)
        waiting: deque[tuple[int, Callable[[], Any]]] = deque()

        def advance(rank: int, answer: Any) -> None:
            while True:
                try:
                    request = coroutines[rank].send(answer)
                except StopIteration as stop:
                    results[rank] = stop.value
                    return
                match request:
                    case Compute():
                        parts = stages(request)
                        charge = self._charge(parts, self._since[rank][-1])
                        if not request.replicated and is_long(parts, charge):
                            waiting.append((rank, self._backlog.add(request, parts)))
                            return
                        answer = self._computed(request)
                    case Collective() if has_schedule(request):
                        calls[rank] = request
                        return
                    case Collective():
                        answer = EXPAND
                    case _:
                        raise NoScheduleError("it sends messages outside of schedules, or in several coroutines")

        for rank, answer in enumerate(answers):
            advance(rank, answer)
        while waiting:
            rank, finish = waiting.popleft()
            advance(rank, finish())
        return calls

    def _charge(self, parts: Iterable[Compute[Any]], spent: dict[str, int]) -> int:
        """Add the picoseconds of the stages of a computation to those `spent` on each kind of work; return them."""
        charge = 0
        for stage in parts:
            if picoseconds := self._costs.picoseconds(stage, self._backlog.settle):
                spent[stage.work] = spent.get(stage.work, 0) + picoseconds
                charge += picoseconds
        return charge

    def _computed(self, request: Compute[Any]) -> Any:
        return self._replicas.call(request.function, request.args) if request.replicated else evaluate(request)

    def _combined(self, requests: Generator[Any, Any, Any], spent: dict[str, int]) -> Any:
        """Make the computations by which a coroutine combines two payloads, and return the result."""
        answer: Any = None
        try:
            while True:
                request = requests.send(answer)
                if not isinstance(request, Compute):
                    raise NoScheduleError("messages are exchanged while payloads are combined")
                self._charge(stages(request), spent)
                answer = self._computed(request)
        except StopIteration as stop:
            return stop.value

    def _note_computing(self) -> None:
        """Record the computation since the last collective, and the steps that ended in between."""
        if len({len(since) for since in self._since}) > 1:
            raise NoScheduleError("ranks are not in the same step")
        if not any(since[0] or len(since) > 1 for since in self._since):
            return
        for number, charges in enumerate(zip(*self._since, strict=True)):
            if number:
                self.steps.append([])
            if at := [rank for rank, charge in enumerate(charges) if charge]:
                table = _Numbers()
                picks = [table[tuple(charges[rank].items())] for rank in at]
                then = PostCompute(np.array(at), np.array(picks))
                self._record("computing", [SizedRound(NOBODY, np.zeros((0, 3), np.int64), NOBODY.src, then)], table)
        self._since = [[{}] for _ in self._workers]

    def _exchange(self, calls: Sequence[Collective[Any] | None]) -> list[Any]:
        """Play and record a collective of all ranks; return the answer of each."""
        taking_part = [call for call in calls if call is not None]
        if len(taking_part) < len(calls) or len({call.function for call in taking_part}) > 1:
            raise NoScheduleError("ranks do not take part in the same collectives")
        schedules = [schedule_at(worker, call) for worker, call in zip(self._workers, taking_part, strict=True)]
        held = [list(schedule.held) for schedule in schedules]
        collective = _Played(taking_part[0].name, held, [schedule.combine for schedule in schedules])
        played = [(round_.pairs, *self._play(round_, collective)) for round_ in schedules[0].rounds]
        sizes, computes = np.array(collective.sizes).reshape(-1, 3), any(collective.charges)
        rounds = [
            SizedRound(pairs, sizes, kinds, PostCompute(pairs.dst, charges) if computes else None)
            for pairs, kinds, charges in played
        ]
        self._record(collective.name, rounds, collective.charges, schedules[0].ahead)
        return [schedule.answer(slots) for schedule, slots in zip(schedules, held, strict=True)]

    def _play(self, round_: Round, collective: _Played) -> tuple[IntArray, IntArray]:
        """Exchange the messages of a round; return the kind of each, and the number of the charge that follows it."""
        pairs, held = round_.pairs, collective.held
        src, dst = pairs.src.tolist(), pairs.dst.tolist()
        uncharged = np.full(len(src), collective.charges[()])
        if round_.signal is not None:
            return np.full(len(src), collective.kind(round_.signal)), uncharged
        if round_.bundled is not None:
            return self._play_bundles(round_, collective), uncharged
        slots = round_.slot(pairs.src, pairs.dst).tolist()
        payloads = [held[rank][slot] for rank, slot in zip(src, slots, strict=True)]
        expected = [held[rank][slot] for rank, slot in zip(dst, slots, strict=True)]
        kinds = self._checked(pairs, payloads, expected, collective)
        if not collective.combining:
            for rank, slot, payload in zip(dst, slots, payloads, strict=True):
                held[rank][slot] = payload
            return np.array(kinds), uncharged
        for rank, slot in zip(src, slots, strict=True):
            held[rank][slot] = None  # nobody needs it any longer
        messages = zip(dst, slots, payloads, kinds, strict=True)
        return np.array(kinds), np.array([self._combine(collective, *message) for message in messages])

    def _play_bundles(self, round_: Round, collective: _Played) -> IntArray:
        """Exchange the messages of a round, each of which has the payloads of several slots; return their kinds."""
        if collective.combining:
            raise NoScheduleError("payloads are combined in bundles")
        held, pairs = collective.held, round_.pairs
        messages = list(zip(pairs.src.tolist(), pairs.dst.tolist(), strict=True))
        payloads = [round_.message(held[src], src, dst) for src, dst in messages]
        expected = [round_.message(held[dst], src, dst) for src, dst in messages]
        kinds = self._checked(pairs, payloads, expected, collective)
        for (src, dst), payload in zip(messages, payloads, strict=True):
            assert isinstance(payload, Bundle)
            for slot, part in zip(round_.slots(src, dst, len(held[dst])), payload.parts, strict=True):
                held[dst][slot] = part
        return np.array(kinds)

    def _checked(self, pairs: Pairs, payloads: list[Any], expected: list[Any], collective: _Played) -> list[int]:
        """Return the kinds of payloads; raise ProtocolError, as the event engine does, if one is not as expected."""
        kinds = list(map(collective.kind, payloads))
        if kinds != list(map(collective.kind, expected)):
            for src, dst, payload, template in zip(pairs.src, pairs.dst, payloads, expected, strict=True):
                check_like(payload, template, Place(self._workers[dst], Message(src, payload, collective.name, 0)))
        return kinds

    def _combine(self, collective: _Played, rank: int, slot: int, payload: Any, kind: int) -> int:
        """Combine a rank's payload with a received one, whose `kind` is known; return the number of the charge."""
        mine, combine = collective.held[rank], collective.combines[rank]
        assert combine is not None
        work = combine(mine[slot], payload)
        if not isinstance(work, Compute):
            spent: dict[str, int] = {}
            mine[slot] = self._combined(work.__await__(), spent)
            return collective.charges[tuple(spent.items())]
        # A single computation takes the same time for all payloads of one kind.
        kinds = collective.kind(mine[slot]), kind
        if (charge := collective.charged.get(kinds)) is None:
            spent = {}
            self._charge(stages(work), spent)
            charge = collective.charged[kinds] = collective.charges[tuple(spent.items())]
        mine[slot] = self._computed(work)
        return charge

    def _record(self, name: str, rounds: Sequence[SizedRound], charges: _Numbers, ahead: int = 0) -> None:
        """Add a phase to the present step: the same object as an equal phase before it."""
        key = blake2b(repr((name, ahead, list(charges))).encode(), digest_size=16)
        for pairs, sizes, which, then in rounds:
            for array in (pairs.src, pairs.dst, sizes, which, *(then or ())):
                key.update(array.tobytes())
        spent = tuple(Counter(dict(charge)) for charge in charges)
        phase = RecordedPhase(key.digest(), rounds, spent, ahead)
        self.steps[-1].append(self._phases.setdefault(key.digest(), phase))


class _Numbers(dict[Any, int]):
    """Numbers different keys from 0 on, in the order in which they are looked up."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


class _Played:
    """A collective of all ranks: the slots of each, how each combines, and all kinds of payloads and charges.

    `sizes` has the bytes of values, indices and flags of each kind; `charged` the number of the charge for combining
    payloads of two kinds.
    """

    def __init__(self, name: str, held: Sequence[list[Any]], combines: Sequence[Combine[Any] | None]) -> None:
        self.name, self.held, self.combines = name, held, combines
        self.combining = combines[0] is not None
        self.sizes: list[tuple[int, int, int]] = []
        self.charges = _Numbers()
        self.charged: dict[tuple[int, int], int] = {}
        self._kinds = _Numbers()
        self._known: dict[int, tuple[int, Payload]] = {}

    def kind(self, payload: Any) -> int:
        """Return a number that is the same for payloads of the same type, size and bytes."""
        if not self.combining and (known := self._known.get(id(payload))) is not None:
            return known[0]
        kind = self._kinds[_form(payload)]
        if kind == len(self.sizes):
            self.sizes.append(size_of(payload))
        if not self.combining:  # they only move, many times each; kept, so that no other payload has the id of one
            self._known[id(payload)] = kind, payload
        return kind


def _form(payload: Any) -> tuple[Any, ...]:
    """Return what all payloads of a kind have in common."""
    if isinstance(payload, Dense):
        return payload.values.shape, payload.values.dtype
    if isinstance(payload, Bundle):
        return tuple(map(_form, payload.parts))
    if isinstance(payload, Sparse):
        indices, values = payload.indices, payload.values
        return payload.size, values.shape, values.dtype, indices.shape, indices.dtype
    return type(payload), getattr(payload, "size", None), size_of(payload)
