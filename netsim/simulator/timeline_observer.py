"""Splits each rank's step into computing, selecting and waiting for messages, for algorithms that overlap them."""

from __future__ import annotations

from netsim.comm.worker import Worker
from netsim.simulator.observer import Computation, RunObserver
from netsim.simulator.timeline import Timeline
from netsim.training.loop import Trained


class TimelineObserver(RunObserver):
    """Keeps a timeline a rank, and adds what each step spent to the rank's tally, in picoseconds."""

    def __init__(self, ranks: int) -> None:
        self._timelines = [Timeline() for _ in range(ranks)]

    def computed(self, computation: Computation) -> None:
        """Add a computation to its rank's timeline."""
        self._timelines[computation.rank].computed(computation.work, computation.start, computation.end)

    def waited(self, rank: int, start: int, end: int) -> None:
        """Add a wait for a message to the rank's timeline."""
        self._timelines[rank].communicated(start, end)

    def step_ended(self, worker: Worker, trained: Trained) -> None:
        """Add the step's times to the worker's tally, and begin the next step's timeline."""
        spent = self._timelines[worker.rank].spent()
        worker.tally.update({name: int(time) for name, time in spent._asdict().items()})
