"""The faster ways to the time of a timing-only run: rounds of all ranks at once, and steps solved once."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from netsim._util.units import PICOSECONDS
from netsim.comm.worker import COMPUTE, SELECT, Worker
from netsim.experiment.results import Ranks, Timing, Way
from netsim.network.fabric import Link
from netsim.network.sharing import Sharing
from netsim.simulator.analytic import SERVER_LINK, WORKER_LINKS, Formulas, Star
from netsim.simulator.bottleneck import bound_by
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.symmetry import RecordedPhase, SymmetryRecorder
from netsim.simulator.vectorized import CriticalPathBacktracker, Played, RankClocks
from netsim.training.algorithm import Algorithm
from netsim.training.loop import Task, Trained, train
from netsim.training.sgd import SGDConfig

if TYPE_CHECKING:
    from netsim.network.fabric import Fabric
    from netsim.training.costs import Costs

Inside: TypeAlias = Literal["batched", "compiled", "closed-form"]
"""What the vectorised engine uses: arrays a round, a compiled loop over their messages, or a formula a collective."""


class Found(NamedTuple):
    """What all ranks did, where the time went, and how that was found."""

    ranks: Ranks
    timing: Timing
    way: Way


class Training(NamedTuple):
    """What every rank does: an algorithm, on a task, for so many rounds."""

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
    inside: Inside | None = None,
    *,
    compile_few: bool = False,
) -> Found:
    """Return what :mod:`netsim.simulator.event_engine` would, from rounds of all ranks at once.

    With `compile_few`, compiled code is taken where it is needed, however few messages there are. Raises
    NoScheduleError where ranks cannot be taken all at once, or not by what is asked for `inside`.
    """
    recorder = SymmetryRecorder(world, costs)
    run(recorder, training)
    fabric = make_fabric()
    players = RankClocks(fabric, world, sharing)
    log = Log(players, recorder.steps, inside, compile_few)
    last = (players.clock == players.clock.max()).astype(np.int64)
    walk = CriticalPathBacktracker(players, last.copy(), len(fabric.bandwidth_bps))
    for trail, times in reversed(log.trails):
        walk.back(trail, times)
    totals = walk.totals
    for link in np.flatnonzero(walk.on_links).tolist():
        totals[fabric.links[link]] = walk.on_links[link]
    whole = int(players.clock.max()) * int(last.sum())
    server_hosts = [fabric.hosts[world.server]] if training.algorithm.uses_server else []
    return Found(
        did(recorder, players.sent, players.received),
        timing(totals, whole, int(last.sum()), training.rounds, server_hosts),
        log.way,
    )


class Log:
    """Plays all steps; `trails` are what each leaves to be walked back, and how often in a row.

    Where a step leaves ranks and links as it found them, but for the time, equal steps after it are the same
    again, and are not played. Where rounds share links with each other, compiled code takes over from the last instant
    at which all ranks were level.
    """

    def __init__(
        self,
        players: RankClocks,
        steps: list[list[RecordedPhase]],
        inside: Inside | None = None,
        compile_few: bool = False,
    ) -> None:
        self.trails: list[tuple[list[Played], int]] = []
        self._players, self._steps, self._inside, self._compile_few = players, steps, inside, compile_few
        self._compiled = inside == "compiled"
        number = level = 0
        saved = players.saved()
        while number < len(steps):
            if players.level:
                level, saved = number, players.saved()
            try:
                number += self._play(number)
            except NoScheduleError:
                if self._compiled or not self._worth_compiling():
                    raise
                self._compiled = True
                players.restore(saved)
                self.trails = self.trails[: self._at(level)]
                number = level

    def _at(self, step: int) -> int:
        """Return how many trails lead up to a step."""
        passed = np.cumsum([0, *(times for _, times in self.trails)])
        return int(np.searchsorted(passed, step))

    @property
    def way(self) -> Way:
        """How the steps were played."""
        if any(times > 1 for _, times in self.trails):
            return "memoised"
        return "compiled" if self._compiled else "batched"

    def _play(self, number: int) -> int:
        """Play a step, and count those after it that are the same again; return how many those are in all."""
        players, step = self._players, self._steps[number]
        found, saved = players.standing(), players.saved()
        trail = self._played(step)
        times = 1
        if players.stands_like(found):
            same = [part.key for part in step]
            while number + times < len(self._steps) and [part.key for part in self._steps[number + times]] == same:
                times += 1
            players.again(saved, times - 1)
        elif self._compiled and number + 1 < len(self._steps):
            # Ranks are apart, and the steps after this begin before it ends: all are one.
            players.restore(saved)
            trail = self._played([part for step in self._steps[number:] for part in step])
            self.trails += [(trail, 1)]
            return len(self._steps) - number
        self.trails.append((trail, times))
        return times

    def _played(self, parts: list[RecordedPhase]) -> list[Played]:
        if not self._compiled:
            return [played for part in parts for played in self._players.play(part)]
        try:
            from netsim.simulator.compiled_loop import play_compiled
        except ImportError as error:
            raise NoScheduleError("numba is not installed, or does not compile") from error
        return play_compiled(self._players, parts)

    def _worth_compiling(self) -> bool:
        if self._inside is not None or importlib.util.find_spec("numba") is None:
            return False
        if self._compile_few:
            return True
        messages = sum(len(round_.pairs.src) for step in self._steps for part in step for round_ in part.rounds)
        return messages >= WORTH_COMPILING


def closed_form(training: Training, world: RoleMap, star: Star, costs: Costs) -> Found:
    """Return what the formulas of the literature say for an idle star; raise NoScheduleError where they do not hold."""
    formulas = Formulas(world, costs, star)
    run(formulas, training)
    now, spent = formulas.last
    served = training.algorithm.uses_server
    server = "worker0" if world.server == 0 else "server"
    first = 1 if served and world.server == 0 else 0
    ranks = range(first, min(first + 8, max(world.workers, first + 1)))
    stands_for = {
        WORKER_LINKS: [(2 * rank, f"worker{rank}") for rank in ranks],  # of many alike
        SERVER_LINK: [(2 * world.server, server)],
    }
    totals: Counter[Hashable] = Counter()
    for what, picoseconds in spent.items():
        for index, host in stands_for.get(what, []):
            totals[Link(index, host, "switch", star.bandwidth_bps, 0.0)] += picoseconds / len(stands_for[what])  # type: ignore[assignment]
        if what not in stands_for:
            totals[what] = picoseconds
    server_hosts = [server] if served else []
    return Found(
        did(formulas, formulas.sent, formulas.received),
        timing(totals, now, 1, training.rounds, server_hosts),
        "closed-form",
    )


def run(recorder: SymmetryRecorder, training: Training) -> None:
    """Have the representatives train."""

    def ended(worker: Worker, _: Trained) -> None:
        recorder.end(worker)

    recorder.run(
        lambda worker: train(worker, training.algorithm, training.task, training.rounds, training.recipe, ended)
    )


def did(recorder: SymmetryRecorder, sent: np.ndarray, received: np.ndarray) -> Ranks:
    """Return what all ranks did, from the bytes (of values, of indices, of flags) of each, sent and received."""
    tally: Counter[str] = Counter()
    tallies = [worker.tally for worker in recorder.workers]
    for mine, ranks in zip(tallies, np.bincount(recorder.world.role).tolist(), strict=True):
        tally.update({what: ranks * count for what, count in mine.items()})
    stored = max(mine.get("stored_value_bytes", 0) for mine in tallies)
    return Ranks(sent[:, 0], sent[:, 1], sent.sum(1), received.sum(1), tally, stored)


def timing(totals: Counter[Hashable], whole: int, chains: int, rounds: int, server_hosts: Sequence[str]) -> Timing:
    """Return where a round's time went, along so many longest chains of events; `whole` is how long they are in all."""

    def seconds(picoseconds: int) -> float:
        return picoseconds / (PICOSECONDS * rounds * chains)

    compute = sum(totals[work] for work in COMPUTE)
    select = sum(totals[work] for work in SELECT)
    return Timing(
        seconds(whole),
        seconds(compute),
        seconds(select),
        seconds(whole - compute - select),
        bound_by(totals, server_hosts),
    )
