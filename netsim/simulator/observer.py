"""Observers of a run: the protocol through which traces, timelines, metrics, progress and checkpoints get its events.

An observer derives from :class:`RunObserver` and overrides the events that it needs. :class:`Observers` sorts several
observers by event, so an event without a listener costs one look at an empty tuple::

    class Longest(RunObserver):
        def __init__(self):
            self.picoseconds = 0

        def computed(self, computation):
            self.picoseconds = max(self.picoseconds, computation.end - computation.start)

    observers = Observers([Longest()])
    transport = SimulatedTransport(fabric, hosts, costs, observers=observers)
    RankScheduler(transport, observers).run(workers, program)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.experiment.results import LossCurve
from netsim.training.loop import Trained

if TYPE_CHECKING:
    from netsim._util.progress import OnRound
    from netsim.simulator.checkpoint import CheckpointState
    from netsim.simulator.scheduler import Operation, RankCoroutine, Transport
    from netsim.training.metrics import MetricsRecorder


class Computation(NamedTuple):
    """One computation of a rank in a step; instants are simulated picoseconds."""

    rank: int
    work: str
    step: int
    start: int
    end: int


class TracedMessage(NamedTuple):
    """One message; instants are simulated picoseconds.

    The sender posts it at `start` and may go on at `sent`; the last byte arrives at `end`.
    """

    src: int
    dst: int
    nbytes: int
    operation: str
    step: int
    tag: int
    start: int
    sent: int
    end: int


class RunObserver:
    """The events of a run; every method does nothing here, and an observer overrides those that it needs."""

    def began(self, transport: Transport) -> None:
        """Take note that ranks start, or continue after a pause, over `transport`."""

    def requested(self, task: RankCoroutine[Any], request: Any, operation: Operation) -> None:
        """Take note of a request that a coroutine made, and of the `operation` that it began, or that it awaits.

        The stages of a computation were reported before, by :meth:`computed`.
        """

    def forked(self, parent: RankCoroutine[Any], child: RankCoroutine[Any]) -> None:
        """Take note that `child` is about to begin beside its `parent`, a coroutine of the same rank."""

    def computed(self, computation: Computation) -> None:
        """Take note of a computation that takes simulated time, as soon as its end is known."""

    def delivered(self, message: TracedMessage) -> None:
        """Take note of a message whose last byte has arrived and whose sender may continue."""

    def waited(self, rank: int, start: int, end: int) -> None:
        """Take note that a coroutine of `rank` waited for a message between two instants, in picoseconds."""

    def advanced(self) -> None:
        """Take note that the transport processed an event, which may have advanced simulated time."""

    def showed(self, worker: Worker, what: str, *vectors: Vector) -> None:
        """Take note of vectors that an algorithm shows with :meth:`~netsim.comm.worker.Worker.observe`."""

    def step_ended(self, worker: Worker, trained: Trained) -> None:
        """Take note that a rank ended step ``worker.step``; `trained` holds its parameters and state."""

    def paused(self, state: CheckpointState) -> None:
        """Take note that all ranks ended the steps before ``state.step`` and that the network is idle."""


class Observers:
    """The observers of one run: each attribute is a tuple of the methods that listen to the event of that name."""

    def __init__(self, observers: Sequence[RunObserver] = ()) -> None:
        def listening(event: str) -> tuple[Callable[..., None], ...]:
            unheard = getattr(RunObserver, event)
            return tuple(
                getattr(observer, event) for observer in observers if getattr(type(observer), event) is not unheard
            )

        self.began = listening("began")
        self.requested = listening("requested")
        self.forked = listening("forked")
        self.computed = listening("computed")
        self.delivered = listening("delivered")
        self.waited = listening("waited")
        self.advanced = listening("advanced")
        self.showed = listening("showed")
        self.step_ended = listening("step_ended")
        self.paused = listening("paused")

    def __repr__(self) -> str:
        return f"Observers({', '.join(f'{event}: {len(heard)}' for event, heard in vars(self).items() if heard)})"


UNOBSERVED = Observers()
"""No observers: the run is not watched."""


def tell(listeners: tuple[Callable[..., None], ...], *event: Any) -> None:
    """Call every listener with the same event."""
    for listener in listeners:
        listener(*event)


class ProgressObserver(RunObserver):
    """Calls ``on_round(algorithm, step)`` when rank 0 ends a step."""

    def __init__(self, algorithm: str, on_round: OnRound) -> None:
        self._algorithm, self._on_round = algorithm, on_round

    def step_ended(self, worker: Worker, trained: Trained) -> None:
        """Report the step if the worker is rank 0."""
        if worker.rank == 0:
            self._on_round(self._algorithm, worker.step)


class LossObserver(RunObserver):
    """Adds (finished rounds, loss at rank 0's parameters) to `curve` at the end of some rounds, if it is finite."""

    def __init__(self, curve: LossCurve, rounds: Collection[int], loss: Callable[[Vector], float]) -> None:
        self._curve, self._rounds, self._loss = curve, rounds, loss

    def step_ended(self, worker: Worker, trained: Trained) -> None:
        """Compute the loss if the worker is rank 0 and the round is one of those."""
        rounds = worker.step + 1
        if worker.rank == 0 and rounds in self._rounds and math.isfinite(loss := self._loss(trained.parameters)):
            self._curve.losses.append((rounds, loss))


class RoundEndObserver(RunObserver):
    """Notes in `curve` the simulated time `now`, in seconds, at which each round ends."""

    def __init__(self, curve: LossCurve, now: Callable[[], float]) -> None:
        self._curve, self._now = curve, now

    def step_ended(self, worker: Worker, trained: Trained) -> None:
        """Note the time."""
        self._curve.round_ended(worker.step, self._now())


class MetricsObserver(RunObserver):
    """Passes the vectors that workers show, and the end of every rank's step, on to a recorder of metrics."""

    def __init__(self, recorder: MetricsRecorder) -> None:
        self._recorder = recorder

    def showed(self, worker: Worker, what: str, *vectors: Vector) -> None:
        """Pass the vectors to the recorder."""
        self._recorder.observe(worker, what, *vectors)

    def step_ended(self, worker: Worker, trained: Trained) -> None:
        """Pass the end of the step to the recorder."""
        self._recorder.finished(worker, trained)
