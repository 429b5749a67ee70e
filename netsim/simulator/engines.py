"""The vectorised engine: rounds of all ranks at once, repeated steps solved once, or closed forms.

The engine simulates timing-only runs. It records what a few representative ranks do (:mod:`.symmetry`), and advances
all ranks from this record (:mod:`.vectorized`). It returns what :mod:`.event_engine` would, to the picosecond.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from netsim._util.units import PICOSECONDS, TIE
from netsim.comm.worker import COMPUTE, SELECT, Traffic, Worker
from netsim.experiment.results import EngineMethod, Ranks, Timing
from netsim.network.fabric import Link
from netsim.network.flow import Sharing
from netsim.simulator.analytic import SERVER_LINK, WORKER_LINKS, Formulas, Star
from netsim.simulator.critical_path import timing, with_alike_links
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.symmetry import RecordedPhase, SymmetryRecorder
from netsim.simulator.vectorized import CriticalPathBacktracker, PlayedPart, RankClocks
from netsim.training.algorithm import Algorithm
from netsim.training.loop import Task, Trained, train
from netsim.training.sgd import SGDConfig

if TYPE_CHECKING:
    from netsim.network.fabric import Fabric
    from netsim.training.costs import Costs

VectorizedMethod: TypeAlias = Literal["batched", "compiled", "closed-form"]
"""How the vectorised engine computes: arrays per round, a compiled loop over messages, or a formula per collective."""


class EngineResult(NamedTuple):
    """The outcomes of all ranks, the parts of a round's time, and the method by which the engine computed them."""

    ranks: Ranks
    timing: Timing
    method: EngineMethod


class Training(NamedTuple):
    """The training that every rank performs: an algorithm on a task, for a number of rounds."""

    algorithm: Algorithm
    task: Task
    recipe: SGDConfig
    rounds: int


WORTH_COMPILING = 20_000
"""Messages from which compiled code is faster in spite of the time that it takes to load, or, once, to compile."""


def all_at_once(
    training: Training,
    world: RoleMap,
    make_fabric: Callable[[], Fabric],
    costs: Costs,
    sharing: Sharing,
    method: VectorizedMethod | None = None,
    *,
    compile_few: bool = False,
) -> EngineResult:
    """Simulate all ranks at once, round by round.

    Parameters
    ----------
    training
        What every rank does.
    world
        The ranks.
    make_fabric
        Builds the network; called if the ranks can be taken all at once.
    costs
        What computing is charged.
    sharing
        How flows share a link.
    method
        How the engine computes; by default with arrays, and by the compiled loop where rounds share links.
    compile_few
        Whether the compiled loop is used even for few messages, which take longer to compile than to simulate.

    Raises
    ------
    NoScheduleError
        If the ranks cannot be taken all at once, or not by `method`.
    """
    recorder = SymmetryRecorder(world, costs, concurrent=bool(training.algorithm.concurrent))
    run(recorder, training)
    fabric = make_fabric()
    server_hosts = [fabric.hosts[world.server]] if training.algorithm.uses_server else []
    timed = time_steps(recorder.steps, world, fabric, sharing, server_hosts, method, compile_few=compile_few)
    return EngineResult(ranks_of(recorder, timed.sent, timed.received), timed.timing, timed.method)


class TimedSteps(NamedTuple):
    """The times of recorded steps, and what ranks sent and received.

    `sent` and `received` are bytes of values, indices and flags, of shape (ranks, 3); `messages` are those sent.
    `ends_s` are the seconds at which the last rank ends each step. Steps that were played as one count as equally long.
    """

    sent: np.ndarray
    received: np.ndarray
    messages: np.ndarray
    timing: Timing
    method: EngineMethod
    ends_s: list[float]

    def traffic(self, rank: int) -> Traffic:
        """Return what a rank sent and received."""
        (values_up, indices_up, flags_up), (values, indices, flags) = self.sent[rank], self.received[rank]
        return Traffic(*map(int, (values_up, indices_up, values, indices, flags_up, flags, self.messages[rank])))


def time_steps(
    steps: list[list[RecordedPhase]],
    world: RoleMap,
    fabric: Fabric,
    sharing: Sharing,
    server_hosts: Sequence[str],
    method: VectorizedMethod | None = None,
    *,
    compile_few: bool = False,
) -> TimedSteps:
    """Find the times of recorded steps; the parameters are those of :func:`all_at_once`.

    Raises
    ------
    NoScheduleError
        If messages have to be simulated one by one, or if `method` cannot find the times.
    """
    clocks = RankClocks(fabric, world, sharing)
    steps_played = StepPlayer(clocks, steps, method, compile_few)
    # A path is known from its end only, so walkers go back from all ranks that end last; timing takes their mean.
    end = int(clocks.clock.max())
    last = (clocks.clock == end).astype(np.int64)

    def totals(walkers: np.ndarray) -> Counter[Hashable]:
        backtracker = CriticalPathBacktracker(clocks, walkers, len(fabric.bandwidth_bps))
        for history, times in reversed(steps_played.histories):
            backtracker.backtrack(history, times)
        for link in np.flatnonzero(backtracker.on_links).tolist():
            backtracker.totals[fabric.links[link]] = backtracker.on_links[link]
        return backtracker.totals

    chains = int(last.sum())
    parts = timing(totals(last.copy()), end * chains, chains, len(steps), server_hosts)
    near = (end <= clocks.clock * (1 + TIE)).astype(np.int64)
    parts = with_alike_links(parts, lambda: totals(near), server_hosts)
    if any(part.beside is not None for step in steps for part in step):
        parts = beside_computation(parts, *_spent(steps, last > 0), clocks.hidden[last > 0].mean(), len(steps))
    ends_s = steps_played.ends_s()
    return TimedSteps(clocks.sent, clocks.received, clocks.messages, parts, steps_played.method, ends_s)


def beside_computation(
    path_timing: Timing, compute_ps: float, select_ps: float, hidden_ps: float, rounds: int
) -> Timing:
    """Return a timing with the picoseconds that a rank computed, selected, and exchanged meanwhile in all rounds.

    Communication runs beside computation, so the critical path alone does not have all times.
    """
    compute, select, hidden = (
        picoseconds / (PICOSECONDS * rounds) for picoseconds in (compute_ps, select_ps, hidden_ps)
    )
    comm_s = path_timing.round_s - compute - select
    return replace(path_timing, compute_s=compute, select_s=select, comm_s=comm_s, hidden_s=hidden)


def _spent(steps: list[list[RecordedPhase]], ranks: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return the mean picoseconds that some ranks (P,) computed, and that they selected, in all steps."""
    spent = np.zeros((2, len(ranks)))
    for part in (part for step in steps for part in step):
        table = np.array(
            [[sum(charge[work] for work in kind) for charge in part.charges] for kind in (COMPUTE, SELECT)]
        )
        for then in (round_.then for round_ in part.rounds if part.charges and round_.then is not None):
            for row, charges in zip(spent, table, strict=True):
                np.add.at(row, then.at, charges[then.pick])
    compute, select = spent[:, ranks].mean(1).tolist()
    return compute, select


class StepPlayer:
    """Plays all steps; `histories` hold the rounds of each step, and how often it was played in a row.

    A step may leave ranks and links in the state in which it found them, only later. Equal steps after it then take the
    same time, and are not played. Where rounds share links with each other, the compiled loop takes over from the last
    instant at which all clocks were equal.
    """

    def __init__(
        self,
        clocks: RankClocks,
        steps: list[list[RecordedPhase]],
        method: VectorizedMethod | None = None,
        compile_few: bool = False,
    ) -> None:
        self.histories: list[tuple[Sequence[PlayedPart], int]] = []
        self._clocks, self._steps, self._method, self._compile_few = clocks, steps, method, compile_few
        self._compiled = method == "compiled"
        self._ends = [(0, 0)]
        step = last_equal = 0
        saved = clocks.snapshot()
        while step < len(steps):
            # Where clocks are equal, no message is under way. Nowhere else may the compiled loop take over.
            if clocks.level:
                last_equal, saved = step, clocks.snapshot()
            try:
                step += self._play(step)
                self._ends.append((step, int(clocks.clock.max())))
            except NoScheduleError:
                if self._compiled or not self._worth_compiling():
                    raise
                # The failed step has moved some clocks, and steps since the last equal clocks may have left links busy.
                self._compiled = True
                clocks.restore(saved)
                self.histories = self.histories[: self._histories_before(last_equal)]
                self._ends = [end for end in self._ends if end[0] <= last_equal]
                step = last_equal

    def _histories_before(self, step: int) -> int:
        """Return the number of histories before a step."""
        passed = np.cumsum([0, *(times for _, times in self.histories)])
        return int(np.searchsorted(passed, step))

    def ends_s(self) -> list[float]:
        """Return the seconds at which the last rank ends each step; those between two known times lie on a line."""
        numbers, picoseconds = zip(*self._ends, strict=True)
        ends = np.interp(np.arange(1, len(self._steps) + 1), numbers, picoseconds) / PICOSECONDS
        return ends.tolist()  # type: ignore[no-any-return]

    @property
    def method(self) -> EngineMethod:
        """The method by which the engine computed the steps."""
        if any(times > 1 for _, times in self.histories):
            return "memoised"
        return "compiled" if self._compiled else "batched"

    def _play(self, first: int) -> int:
        """Play a step, and skip equal steps after it that take the same time; return the number of all these steps."""
        clocks, step = self._clocks, self._steps[first]
        state_before, saved = clocks.state(), clocks.snapshot()
        history = self._played(step)
        times = 1
        if clocks.is_in_state(state_before):
            keys = [part.key for part in step]
            while first + times < len(self._steps) and [part.key for part in self._steps[first + times]] == keys:
                times += 1
            clocks.repeat(saved, times - 1)
        elif self._compiled and first + 1 < len(self._steps):
            # Ranks are apart, and the steps after this begin before it ends. The compiled loop starts from equal clocks
            # only, so it plays this step once more, together with all that follow.
            clocks.restore(saved)
            history = self._played([part for step in self._steps[first:] for part in step])
            self.histories += [(history, 1)]
            return len(self._steps) - first
        self.histories.append((history, times))
        return times

    def _played(self, parts: list[RecordedPhase]) -> Sequence[PlayedPart]:
        if not self._compiled:
            return [played for part in parts for played in self._clocks.advance(part)]
        try:
            # numba is optional, and takes longer to import than most simulations take (docs/decisions/0012).
            from netsim.simulator.compiled_loop import play_compiled
        except ImportError as error:
            raise NoScheduleError("numba is not installed, or does not compile") from error
        return play_compiled(self._clocks, parts)

    def _worth_compiling(self) -> bool:
        if any(part.beside is not None for step in self._steps for part in step):
            return False  # the compiled loop knows one order of all messages
        # Who names a method compares it with others, so it must fail rather than become another one.
        if self._method is not None or importlib.util.find_spec("numba") is None:
            return False
        if self._compile_few:
            return True
        return sum(part.messages for step in self._steps for part in step) >= WORTH_COMPILING


def closed_form(training: Training, world: RoleMap, star: Star, costs: Costs) -> EngineResult:
    """Solve all collectives by the formulas of the literature, on an idle star of equal links.

    Raises
    ------
    NoScheduleError
        If a formula does not hold.
    """
    formulas = Formulas(world, costs, star, concurrent=bool(training.algorithm.concurrent))
    run(formulas, training)
    path = formulas.last_path
    served = training.algorithm.uses_server
    server = "worker0" if world.server == 0 else "server"
    # The time on equal links is spread over a few of them: a link with more than half of it would be named as the
    # bottleneck by itself (`bound_by`), where a simulation would name worker links in general.
    first = 1 if served and world.server == 0 else 0
    ranks = range(first, min(first + 8, max(world.workers, first + 1)))
    stands_for = {
        WORKER_LINKS: [(2 * rank, f"worker{rank}") for rank in ranks],
        SERVER_LINK: [(2 * world.server, server)],
    }
    totals: Counter[Hashable] = Counter()
    for what, picoseconds in path.spent.items():
        for index, host in stands_for.get(what, []):
            totals[Link(index, host, "switch", star.bandwidth_bps, 0.0)] += picoseconds / len(stands_for[what])  # type: ignore[assignment]
        if what not in stands_for:
            totals[what] = picoseconds
    server_hosts = [server] if served else []
    parts = timing(totals, path.end_ps, 1, training.rounds, server_hosts)
    if training.algorithm.concurrent:
        compute, select = (sum(formulas.computed[0][work] for work in kind) for kind in (COMPUTE, SELECT))
        parts = beside_computation(parts, compute, select, formulas.hidden_ps(), training.rounds)
    return EngineResult(ranks_of(formulas, formulas.sent, formulas.received), parts, "closed-form")


def run(recorder: SymmetryRecorder, training: Training) -> None:
    """Run the training of the representatives, and record it."""

    def ended(worker: Worker, _: Trained) -> None:
        recorder.end(worker)

    recorder.run(
        lambda worker: train(worker, training.algorithm, training.task, training.rounds, training.recipe, ended)
    )


def ranks_of(recorder: SymmetryRecorder, sent: np.ndarray, received: np.ndarray) -> Ranks:
    """Return traffic and tallies of all ranks.

    `sent` and `received` are bytes of values, indices and flags, each of shape (P, 3).
    """
    tally: Counter[str] = Counter()
    tallies = [worker.tally for worker in recorder.workers]
    for role_tally, ranks in zip(tallies, np.bincount(recorder.world.role).tolist(), strict=True):
        tally.update({what: ranks * count for what, count in role_tally.items()})
    stored = max(role_tally.get("stored_value_bytes", 0) for role_tally in tallies)
    return Ranks(sent[:, 0], sent[:, 1], sent.sum(1), received.sum(1), tally, stored)
