"""A session: runs the algorithms of one experiment in one process, over a simulated network or in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from netsim._util.errors import InfeasibleError, NonFiniteGradientError, UsageError
from netsim._util.progress import OnRound, ignore
from netsim._util.units import PICOSECONDS, is_tie
from netsim.comm.payload import Dense, Vector
from netsim.comm.worker import SELECT, Worker
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import EngineMethod, LossCurve, RankOutcome, Ranks, Result, Timing, sha256_of, summarise
from netsim.network.flow import Sharing
from netsim.simulator.analytic import Star
from netsim.simulator.checkpoint import Checkpoint, CheckpointObserver, CheckpointState
from netsim.simulator.critical_path import CriticalPath, sum_of, timing, with_alike_links
from netsim.simulator.engines import Training, VectorizedMethod, all_at_once, closed_form, time_steps
from netsim.simulator.estimates import all_scheduled, check_one_by_one, check_played, worth_formulas
from netsim.simulator.event_engine import open_transport
from netsim.simulator.execution_graph import ExecutionGraph, GraphObserver
from netsim.simulator.layout import NoScheduleError, RoleMap
from netsim.simulator.lock_step import LockStep
from netsim.simulator.message_replay import MessageReplay, RecordedCosts
from netsim.simulator.observer import (
    UNOBSERVED,
    LossObserver,
    MetricsObserver,
    Observers,
    ProgressObserver,
    RoundEndObserver,
    RunObserver,
    tell,
)
from netsim.simulator.scheduler import InMemoryTransport, RankCoroutine, RankScheduler, Transport
from netsim.simulator.symmetry import RecordedPhase
from netsim.simulator.timeline import TimelineObserver
from netsim.simulator.trace import Trace, TraceObserver
from netsim.simulator.workers import holds_a_part, make_workers
from netsim.training.algorithm import Algorithm
from netsim.training.costs import ReportedCosts
from netsim.training.loop import Task, TimingOnly, Trained, train
from netsim.training.metrics import Emit, MetricsRecorder
from netsim.training.overlap import Overlapped, described
from topologies import STARS

if TYPE_CHECKING:
    from netsim.network.fabric import Fabric
    from netsim.training.workloads.task import DataParallelTask, Evaluation

logger = logging.getLogger(__name__)

LOSSES = 10
"""The most rounds of a run, evenly spaced, whose training loss is computed for a comparison of algorithms."""


class Recording(NamedTuple):
    """A run with values, before its times are known: every rank, its parameters and state, and all steps."""

    algorithm: Algorithm
    workers: list[Worker]
    trained: list[Trained]
    steps: list[list[RecordedPhase]]


class Session:
    """The common parts of an experiment's algorithms: the task, and the costs of computations.

    Parameters
    ----------
    experiment
        The configuration.
    task
        What is trained, or the sizes of its vectors alone.
    tensors
        The number of elements of each of the model's tensors; a vector of `elements` holds all of them in a row.
    costs
        The simulated time of each computation.
    device
        Where gradients are computed; None if only sizes are known.
    executor
        Computes the gradients of several workers at once, if given.
    device_choice
        Why `device` was taken, if netsim chose it.
    """

    def __init__(
        self,
        experiment: Experiment,
        task: Task,
        tensors: tuple[int, ...],
        costs: ReportedCosts,
        device: str | None = None,
        executor: Executor | None = None,
        device_choice: str | None = None,
    ) -> None:
        self.experiment = experiment
        self.task = task
        self.tensors = tensors
        self.elements = sum(tensors)
        self.costs = costs
        self.device = device
        self.device_choice = device_choice
        self._executor = executor
        self._start_loss: float | None = None

    def __repr__(self) -> str:
        return f"Session({', '.join(self.experiment.algorithms)}, {self.experiment.workers} workers)"

    def of_sizes(self) -> Session:
        """Return a session that simulates exchanges of the same sizes at the same costs, and holds no data."""
        return Session(self.experiment, TimingOnly(self.elements), self.tensors, self.costs)

    def simulate(
        self,
        name: str,
        on_round: OnRound = ignore,
        emit: Emit | None = None,
        checkpoint: Checkpoint | None = None,
        trace: Trace | None = None,
        graph: ExecutionGraph | None = None,
        train_loss: bool = False,
        losses: LossCurve | None = None,
        gradient_norm: bool = True,
    ) -> Result:
        """Return the result of one algorithm over the simulated network.

        Parameters
        ----------
        name
            The algorithm.
        on_round
            Called with the algorithm and the step whenever rank 0 ends a step.
        emit
            Called with a row of metrics a step, if given.
        checkpoint
            The run goes on from there. Every ``checkpoint.every`` rounds all ranks wait until the network is idle, and
            their state is saved.
        trace
            Filled with all computations and messages.
        graph
            Filled with all computations and messages, and with what each waits for; not with a checkpoint.
        train_loss
            Whether rows of metrics have the training loss, which takes another forward pass of each mini-batch.
        losses
            Filled with the training loss on fixed samples, at the start and after LOSSES rounds at most, and with the
            times at which rounds end. After the last round only if the experiment has one algorithm.
        gradient_norm
            Whether rows with an evaluation have ‖∇f‖² of the training loss, which takes longer than the evaluation.

        Raises
        ------
        InfeasibleError
            If the engine that was asked for cannot simulate this algorithm, or if the graph gets too large.
        """
        if checkpoint is not None and (finished := checkpoint.result(name)) is not None:
            return finished
        experiment = self.experiment
        algorithm = experiment.algorithm(name, self.tensors, self.ready(), self.task.shapes)
        reason = self._why_message_by_message(algorithm, emit, checkpoint, trace, graph)
        if reason is None:
            try:
                if not isinstance(self.task, TimingOnly):
                    return self._in_lock_step(algorithm, on_round, losses)
                result = self.vectorized(algorithm)
                on_round(name, experiment.round_count - 1)
                return result
            except NoScheduleError as error:
                reason = str(error)
                if experiment.timing_only and experiment.engine != "vectorized":
                    check_one_by_one(experiment, name, reason)
        if experiment.engine == "vectorized":
            raise InfeasibleError(f"engine 'vectorized' cannot be taken for {name}: {reason}; use --engine auto")
        logger.info("%s is simulated message by message: %s", name, reason or "the engine 'event' was asked for")
        fabric = experiment.fabric()
        workers = make_workers(algorithm, experiment.workers, experiment.servers)
        if trace is not None:
            trace.hosts = fabric.hosts[: len(workers)]
        every, state = experiment.round_count, CheckpointState()
        if checkpoint is not None:
            every = checkpoint.every
            state = checkpoint.state(name, workers, fabric.links, self.device or "cpu")
        if losses is not None and not state.step:
            losses.clear()
        recorder = self._recorder(algorithm, workers, lambda: transport.now, emit, train_loss, gradient_norm)
        if recorder is not None and state.step:
            recorder.resume(workers, state.trained, state.skipped, state.norms)
        observers = self._observers(
            algorithm, workers, on_round, recorder, checkpoint, trace, graph, losses, lambda: transport.now
        )
        while True:
            transport = self._transport(fabric, state, observers)
            until = min(state.step + every, experiment.round_count)
            tasks = self._run(transport, algorithm, workers, until, state, observers)
            if checkpoint is None or until == experiment.round_count:
                break
            state = _checkpoint_state(until, tasks, recorder)
            del tasks  # the ranks replace what they hold, which must be freed then
            tell(observers.paused, state)
        assert tasks[0].result is not None
        timing = _timing(tasks, experiment.round_count, self._server_hosts(fabric, algorithm, workers[0].server))
        if algorithm.concurrent:
            timing = _overlapped(timing, tasks, experiment.round_count)
        result = self._summarise(
            algorithm,
            Ranks.of(_outcomes(workers, [task.result for task in tasks])),
            timing,
            "messages",
            final_quality(self.task, tasks[0].result.parameters),
            reason or None,
        )
        if checkpoint is not None:
            checkpoint.finish(result)
        return result

    @property
    def measures_ready(self) -> bool:
        """Whether the instants at which the buckets of a gradient are ready are measured rather than assumed."""
        return self.experiment.trace is not None or self._times_ready

    @property
    def _times_ready(self) -> bool:
        """Whether the instants at which the buckets of a gradient are ready are measured here."""
        ready = self.experiment.ready
        measured = self.costs.timed is not None and self.costs.provenance("gradient") == "MEASURED"
        return ready == "measured" or (ready is None and measured)

    def ready(self) -> list[float] | None:
        """Return the share of a gradient's time after which each tensor is ready; None unless it is measured here."""
        if self.experiment.overlap is None or not self._times_ready:
            return None
        timed, task = self.costs.timed, self.task
        assert timed is not None
        return timed.ready(lambda written: task.gradual(written, task.initial_parameters(), 0, 0))

    def _transport(self, fabric: Fabric, state: CheckpointState, observers: Observers) -> Transport:
        """Return the network with the effects that were asked for; its clock starts where `state` ended."""
        experiment = self.experiment
        return open_transport(
            fabric,
            self.costs,
            experiment.effects,
            experiment.seed,
            eager=experiment.sends == "eager",
            executor=self._executor,
            now=state.path.total(),
            sharing=experiment.sharing,
            observers=observers,
        )

    def in_memory(self, name: str) -> list[RankOutcome]:
        """Run one algorithm without a network and without time; return the outcome of each rank."""
        algorithm = self.experiment.algorithm(name, self.tensors, shapes=self.task.shapes)
        workers = make_workers(algorithm, self.experiment.workers, self.experiment.servers)
        tasks = self._run(InMemoryTransport(), algorithm, workers, self.experiment.round_count, CheckpointState())
        return _outcomes(workers, [task.result for task in tasks])

    def _run(
        self,
        transport: Transport,
        algorithm: Algorithm,
        workers: list[Worker],
        until: int,
        state: CheckpointState,
        observers: Observers = UNOBSERVED,
    ) -> list[RankCoroutine[Trained]]:
        """Run an algorithm from where it stands until `until` rounds have ended."""
        recipe = self.experiment.recipe(algorithm.name)

        def ended(worker: Worker, trained: Trained) -> None:
            tell(observers.step_ended, worker, trained)

        def program(worker: Worker) -> Any:
            start = state.trained.pop(worker.rank, None)
            return train(worker, algorithm, self.task, until, recipe, ended, state.step, start)

        ranks = RankScheduler[Trained](transport, observers)
        return ranks.run(workers, program, CriticalPath.after(state.path))

    def _observers(
        self,
        algorithm: Algorithm,
        workers: Sequence[Worker],
        on_round: OnRound,
        recorder: MetricsRecorder | None,
        checkpoint: Checkpoint | None,
        trace: Trace | None,
        graph: ExecutionGraph | None,
        losses: LossCurve | None,
        now: Callable[[], int],
    ) -> Observers:
        """Return everything that watches a run of `algorithm`."""
        observers: list[RunObserver] = [ProgressObserver(algorithm.name, on_round), *self._loss_observers(losses)]
        if losses is not None and self.device is not None:
            observers.append(RoundEndObserver(losses, lambda: now() / PICOSECONDS))
        if recorder is not None:
            observers.append(MetricsObserver(recorder))
        if algorithm.concurrent:
            observers.append(TimelineObserver(len(workers), algorithm.concurrent))
        if trace is not None:
            observers.append(TraceObserver(trace))
        if graph is not None:
            observers.append(GraphObserver(graph, len(workers), eager=self.experiment.sends == "eager"))
        if checkpoint is not None:
            observers.append(CheckpointObserver(checkpoint, algorithm.name, workers))
        listening = Observers(observers)
        for worker in workers if listening.showed else ():  # algorithms prepare what they show only for an observer
            worker.observer = partial(tell, listening.showed)
        return listening

    def _loss_observers(self, losses: LossCurve | None) -> list[RunObserver]:
        """Return the observer that adds losses to a curve, which gets the one of the start here; none without data.

        Its forward passes are about a sixth of those and the backward passes of training, or each has a quarter of the
        samples of the final loss.
        """
        if losses is None or self.device is None:
            return []
        experiment, task = self.experiment, cast("DataParallelTask", self.task)
        rounds = experiment.round_count
        times = min(LOSSES if len(experiment.algorithms) > 1 else 1, rounds)
        trained = experiment.workers * experiment.batch_size * experiment.accumulate * rounds
        most = task.workload.loss_samples
        samples = min(most, max(most // 4, trained // (2 * max(2, times))))
        ends = {-(-rounds * part // times) for part in range(1, times + 1)}

        def loss(parameters: Vector) -> float:
            return task.sampled_loss(cast(Dense, parameters), samples)

        if not losses.losses:
            if self._start_loss is None:  # all algorithms start alike
                self._start_loss = loss(task.initial_parameters())
            if math.isfinite(self._start_loss):
                losses.losses.append((0, self._start_loss))
        return [LossObserver(losses, ends, loss)]

    def _recorder(
        self,
        algorithm: Algorithm,
        workers: list[Worker],
        now: Callable[[], int],
        emit: Emit | None,
        train_loss: bool,
        gradient_norm: bool,
    ) -> MetricsRecorder | None:
        """Return the recorder that turns vectors shown by workers into rows of metrics; None without `emit`."""
        if emit is None:
            return None
        every = self.experiment.eval_every
        evaluation = _evaluate_fully if gradient_norm else _evaluate
        evaluate = partial(evaluation, self.task) if every and self.device is not None else None
        batch_loss = initial = None
        if train_loss and self.device is not None:
            batch_loss, initial = cast("DataParallelTask", self.task).batch_loss, self.task.initial_parameters()
        return MetricsRecorder(
            algorithm, workers, lambda: now() / PICOSECONDS, emit, evaluate, every or 1, batch_loss, initial
        )

    def _why_message_by_message(
        self,
        algorithm: Algorithm,
        emit: Emit | None,
        checkpoint: Checkpoint | None,
        trace: Trace | None,
        graph: ExecutionGraph | None,
    ) -> str | None:
        """Return why messages must be simulated one by one: "" if the user asked for it, None if they need not be."""
        if self.experiment.engine == "event":
            return ""
        parts = "parts of a gradient" if self.experiment.overlap is None else "buckets"
        reasons = {
            f"{parts} are exchanged separately": isinstance(algorithm, Overlapped),
            "sends are eager": self.experiment.sends == "eager",
            "effects were asked for": self.experiment.effects.any,
            "rows of metrics were asked for": emit is not None,
            "a checkpoint was asked for": checkpoint is not None,
            "a trace was asked for": trace is not None,
            "an execution trace was asked for": graph is not None,
        }
        return next((reason for reason, present in reasons.items() if present), None)

    def _in_lock_step(self, algorithm: Algorithm, on_round: OnRound, losses: LossCurve | None) -> Result:
        """Return the result of an algorithm with values, which are computed first; they depend on no time.

        Raises
        ------
        NoScheduleError
            If ranks have to be run one by one, or if a named engine cannot find the times.
        """
        observers = Observers([ProgressObserver(algorithm.name, on_round), *self._loss_observers(losses)])
        recording = self.record(algorithm, observers)
        quality = final_quality(self.task, recording.trained[0].parameters)
        return self.time_recording(recording, self.experiment.fabric(), losses, quality)

    def record(self, algorithm: Algorithm, observers: Observers = UNOBSERVED) -> Recording:
        """Train with an algorithm of this session's experiment, without a network and without time.

        Raises
        ------
        NoScheduleError
            If ranks have to be run one by one.
        """
        experiment = self.experiment
        if not all_scheduled(experiment, algorithm.name, self.elements):
            why = "messages are sent outside of schedules, in several coroutines at a time, or without a size rule"
            raise NoScheduleError(why)
        workers = make_workers(algorithm, experiment.workers, experiment.servers)
        recipe, ranks = experiment.recipe(algorithm.name), LockStep(workers, self.costs, self._executor)

        def ended(worker: Worker, trained: Trained) -> None:
            ranks.end(worker)
            tell(observers.step_ended, worker, trained)

        trained = ranks.run(lambda worker: train(worker, algorithm, self.task, experiment.round_count, recipe, ended))
        return Recording(algorithm, workers, trained, ranks.steps)

    def time_recording(
        self,
        recording: Recording,
        fabric: Fabric,
        losses: LossCurve | None = None,
        quality: dict[str, float | None] | None = None,
    ) -> Result:
        """Return the result of a recorded run on a network, which need not be the one of this session's experiment.

        The times are those of the vectorised engine, or found message by message where it cannot. The seconds at which
        rounds end are put into `losses`, if given; `quality` has the final loss and accuracy by name.

        Raises
        ------
        NoScheduleError
            If a named engine cannot find the times.
        """
        experiment, algorithm, workers = self.experiment, recording.algorithm, recording.workers
        sharing, named = cast(Sharing, experiment.sharing), experiment.engine == "vectorized"
        server_hosts = self._server_hosts(fabric, algorithm, workers[0].server)
        try:
            timed = time_steps(
                recording.steps, self._world(algorithm), fabric, sharing, server_hosts, compile_few=named
            )
        except NoScheduleError as error:
            if named:
                raise
            reason: str | None = str(error)
            method: EngineMethod = "messages"
            transport = open_transport(fabric, RecordedCosts(), experiment.effects, experiment.seed, sharing=sharing)

            def replayed(step: int) -> None:
                if losses is not None:
                    losses.round_ended(step, transport.now / PICOSECONDS)

            ranks = make_workers(algorithm, experiment.workers, experiment.servers)
            tasks = RankScheduler[None](transport).run(ranks, MessageReplay(recording.steps, replayed).run)
            timing = _timing(tasks, experiment.round_count, server_hosts)
            traffic = [rank.traffic for rank in ranks]
        else:
            reason, timing, method = None, timed.timing, timed.method
            if losses is not None:
                losses.ends_s[:] = timed.ends_s
            traffic = [timed.traffic(worker.rank) for worker in workers]
        for worker, sent in zip(workers, traffic, strict=True):
            worker.traffic = sent
        outcomes = Ranks.of(_outcomes(workers, recording.trained))
        return self._summarise(algorithm, outcomes, timing, method, quality, reason)

    def _server_hosts(self, fabric: Fabric, algorithm: Algorithm, server: int) -> Sequence[str]:
        """Return the hosts of the parameter servers, the first of which is rank `server`."""
        return fabric.hosts[server:][: max(1, self.experiment.servers)] if algorithm.uses_server else []

    def vectorized(self, algorithm: Algorithm, method: VectorizedMethod | None = None) -> Result:
        """Return the result of the vectorised engine.

        Parameters
        ----------
        algorithm
            What to simulate, built from this session's experiment.
        method
            How the engine computes; by default, by the fastest method that is exact. Tests and benchmarks name one.

        Raises
        ------
        NoScheduleError
            Where the ranks cannot be taken all at once.
        """
        if method is None and worth_formulas(self.experiment, algorithm.name):
            try:
                return self.vectorized(algorithm, "closed-form")
            except NoScheduleError as error:
                check_played(self.experiment, algorithm.name, str(error))
        experiment = self.experiment
        training, world = self._training(algorithm), self._world(algorithm)
        if method == "closed-form":
            simulated = closed_form(training, world, self._star(), self.costs)
        else:
            sharing = cast(Sharing, experiment.sharing)
            named = experiment.engine == "vectorized"
            simulated = all_at_once(training, world, experiment.fabric, self.costs, sharing, method, compile_few=named)
        return self._summarise(algorithm, simulated.ranks, simulated.timing, simulated.method)

    def _training(self, algorithm: Algorithm) -> Training:
        experiment = self.experiment
        return Training(algorithm, self.task, experiment.recipe(algorithm.name), experiment.round_count)

    def _world(self, algorithm: Algorithm) -> RoleMap:
        dedicated = self.experiment.servers > 0 and algorithm.uses_server
        return RoleMap(self.experiment.workers, self.experiment.workers if dedicated else 0)

    def _star(self) -> Star:
        """Return the network as a star; raise NoScheduleError unless it is a star with equal links."""
        experiment = self.experiment
        if experiment.topology not in STARS:
            raise NoScheduleError(f"formulas are for a star whose links are all alike, not for {experiment.topology}")
        if experiment.host_ceiling_bps is not None:
            raise NoScheduleError("formulas are for links alone, and hosts have a ceiling")
        links = experiment.links()
        assert links is not None
        latency_ps = round(2 * links.latency_s[0] * PICOSECONDS)
        if experiment.sharing == "rtt" and not latency_ps:
            raise UsageError(
                "sharing 'rtt' on links that have no latency to weigh by; give --latency, or share 'maxmin'"
            )
        return Star(latency_ps, links.bandwidth_bps[0])

    def _summarise(
        self,
        algorithm: Algorithm,
        ranks: Ranks,
        timing: Timing,
        method: EngineMethod,
        quality: dict[str, float | None] | None = None,
        reason: str | None = None,
    ) -> Result:
        dedicated = len(ranks.bytes_up) > self.experiment.workers
        return summarise(
            ranks=ranks,
            server=(self.experiment.workers if dedicated else 0) if algorithm.uses_server else None,
            timing=timing,
            rounds=self.experiment.round_count,
            algorithm=algorithm.name,
            title=algorithm.title,
            mode="simulated",
            workers=self.experiment.workers,
            elements=self.elements,
            k=self.experiment.k_in_all(algorithm.name, self.tensors) if algorithm.sparse else None,
            **described(algorithm, self.measures_ready),
            dtype=algorithm.precision,
            momentum=None if self.experiment.timing_only else self.experiment.momentum_of(algorithm.name),
            compute_provenance=self.costs.provenance("gradient"),
            select_provenance=self.costs.provenance(*SELECT),
            way=method,
            way_reason=reason,
            **(quality or {"final_loss": None, "final_accuracy": None}),
        )


def _evaluate(task: Task, parameters: Dense) -> Evaluation:
    """Return loss and accuracy on the test data, or on a part of it for models that would take minutes."""
    trained = cast("DataParallelTask", task)
    return trained.evaluate(parameters, most=trained.workload.loss_samples)


def _evaluate_fully(task: Task, parameters: Dense) -> Evaluation:
    """Return loss and accuracy on the test data, and ‖∇f‖² of the training loss."""
    norm = cast("DataParallelTask", task).gradient_norm_sq(parameters)
    return _evaluate(task, parameters)._replace(gradient_norm_sq=norm)


def final_quality(task: Task, parameters: Vector) -> dict[str, float | None]:
    """Return the training loss and test accuracy at the end of a run; None if only sizes are known.

    Raises
    ------
    NonFiniteGradientError
        If the loss is not finite.
    """
    if not isinstance(parameters, Dense):
        return {"final_loss": None, "final_accuracy": None}
    loss = cast("DataParallelTask", task).loss(parameters)
    if not math.isfinite(loss):
        raise NonFiniteGradientError(f"the loss after the last step is {loss}; lower --lr (the training diverged)")
    return {"final_loss": loss, "final_accuracy": _evaluate(task, parameters).accuracy}


def _outcomes(workers: Sequence[Worker], trained: Sequence[Trained | None]) -> list[RankOutcome]:
    """Return the traffic, the checksum of the parameters and the tally of every rank."""
    hashes: dict[int, str | None] = {}  # by id: ranks share one parameters object if it was computed once
    outcomes = []
    for worker, result in zip(workers, trained, strict=True):
        assert result is not None
        sha256, parameters = None, result.parameters
        if not holds_a_part(worker, len(workers)):
            if id(parameters) not in hashes:
                hashes[id(parameters)] = sha256_of(parameters) if isinstance(parameters, Dense) else None
            sha256 = hashes[id(parameters)]
        outcomes.append(RankOutcome(worker.rank, worker.traffic, sha256, dict(worker.tally)))
    return outcomes


def _checkpoint_state(
    step: int, tasks: list[RankCoroutine[Trained]], recorder: MetricsRecorder | None
) -> CheckpointState:
    """Return the state of an algorithm after all ranks have ended the round before `step`."""
    path = max(tasks, key=lambda task: task.ended_at).path.totals()
    trained = {task.worker.rank: task.result for task in tasks if task.result is not None}
    if recorder is None:
        return CheckpointState(step, path, trained)
    return CheckpointState(step, path, trained, recorder.staleness, recorder.norms)


def _overlapped(timing: Timing, tasks: list[RankCoroutine[Trained]], rounds: int) -> Timing:
    """Return the timing with the mean times of the workers that end last.

    With overlap, communication runs beside computation, so the critical path alone does not have all times.
    """
    training = [task for task in tasks if task.worker.trains]
    end = max(task.ended_at for task in training)
    last = [task.worker.tally for task in training if task.ended_at == end]

    def seconds(name: str) -> float:
        return sum(tally[name] for tally in last) / (PICOSECONDS * rounds * len(last))

    compute, select = seconds("compute"), seconds("select")
    return replace(
        timing,
        compute_s=compute,
        select_s=select,
        comm_s=timing.round_s - compute - select,
        hidden_s=seconds("hidden"),
    )


def _timing(tasks: Sequence[RankCoroutine[Any]], rounds: int, server_hosts: Sequence[str]) -> Timing:
    """Return the times along the critical path; the mean of several paths if several ranks end last."""
    end = max(task.ended_at for task in tasks)
    last = [task.path for task in tasks if task.ended_at == end]
    totals = sum_of(last)
    found = timing(totals, totals.total(), len(last), rounds, server_hosts)
    return with_alike_links(
        found, lambda: sum_of(task.path for task in tasks if is_tie(end, task.ended_at)), server_hosts
    )
