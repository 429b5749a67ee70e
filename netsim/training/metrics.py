"""Per-step metrics of a run, one row per step: training loss, δ, residual norm, staleness, uploads, bytes and accuracy.

A value that a step does not have, such as the test loss between evaluations, is empty in CSV and null in JSON. With
pandas, ``read_csv("rows.csv").plot("time_s", "train_loss")`` draws the loss of one algorithm over simulated seconds.

Metrics need all workers in one process, because δ compares the vectors of all workers. A simulation has that; a real
run does not.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

from netsim._util.errors import NetsimError, reason_of
from netsim._util.storage import whole_file
from netsim.comm.payload import Dense, Sparse, Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm
from netsim.training.buffers import on_device
from netsim.training.loop import Trained
from netsim.training.sgd import dense_values

if TYPE_CHECKING:
    import torch

COLUMNS = (
    "algorithm",
    "step",
    "time_s",
    "train_loss",
    "delta",
    "leak",
    "residual_norm",
    "batch_gradient_norm_sq",
    "uploads",
    "skip_rate",
    "staleness_mean",
    "staleness_max",
    "value_bits_up",
    "index_bits_up",
    "bits_down",
    "value_bytes_up",
    "index_bytes_up",
    "bytes_down",
    "test_loss",
    "test_accuracy",
    "gradient_norm_sq",
    "gradient_norm_sq_mean",
)
Emit = Callable[[dict[str, Any]], None]
"""Takes one row of metrics: a value for each of the COLUMNS."""
BatchLoss = Callable[[Any, int, int], float]
"""Returns the mean loss of a rank's mini-batch of a step at some parameters."""


class Evaluator(Protocol):
    """An evaluation of parameters on the test set and, optionally, on the training set."""

    @property
    def loss(self) -> float:
        """Test loss in nats."""

    @property
    def accuracy(self) -> float | None:
        """Test accuracy from 0 to 1; None with a loss of the user."""

    @property
    def gradient_norm_sq(self) -> float | None:
        """‖∇f‖² of the training loss f; None if it was not computed."""


class Totals(NamedTuple):
    """The counters of a rank from the start of the run to the end of a step."""

    rank: int
    trains: bool = True
    residual_norm: float | None = None
    uploads: int = 0
    value_bits_up: int = 0
    index_bits_up: int = 0
    bits_down: int = 0


class MetricsRecorder:
    """Observes all workers of one algorithm, and emits a row when the last worker has finished a step.

    Parameters
    ----------
    algorithm, workers
        The algorithm, and all its ranks.
    now
        Returns the simulated time in seconds.
    emit
        Takes each row.
    evaluate
        Evaluates parameters on the test set; None for no evaluations.
    every
        Steps between two evaluations.
    batch_loss
        ``batch_loss(parameters, rank, step)`` returns the mean loss of a mini-batch; None for rows without it.
    initial
        The parameters before the first step, for `batch_loss`.

    Notes
    -----
    Columns, with x^p the gradient times γ plus the residual of worker p, and P workers:

    ``train_loss``
        The loss in nats of the mini-batches of this step at the parameters before it, averaged over workers.
    ``delta``
        δ = ‖x̄ - u‖² / E‖x̄ - randomK(x̄)‖², with x̄ = (1/P) Σ_p x^p, u the mean update, and
        E‖x̄ - randomK(x̄)‖² = (1 - k/d) ‖x̄‖² (gTop-k paper, Assumption 1, eq. (13)). Null for dense algorithms.
    ``leak``
        The fraction of gradient mass lost, ‖Σ_p x^p - total - Σ_p residual_p‖₁ / ‖Σ_p x^p‖₁; rounding makes it > 0.
    ``residual_norm``
        ‖residual_p‖, averaged over workers.
    ``batch_gradient_norm_sq``
        ‖(1/P) Σ_p g_p‖² of the mini-batch gradients.
    ``staleness_mean``, ``staleness_max``
        Uploads that a worker has skipped since its last upload: mean and maximum over workers.
    ``gradient_norm_sq``
        ‖∇f‖² of the training loss f at the parameters after the step; null between evaluations.
    ``gradient_norm_sq_mean``
        The mean of ``gradient_norm_sq`` over all evaluations so far, which the convergence theorems bound.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        workers: list[Worker],
        now: Callable[[], float],
        emit: Emit,
        evaluate: Callable[[Any], Evaluator] | None = None,
        every: int = 1,
        batch_loss: BatchLoss | None = None,
        initial: Any = None,
    ) -> None:
        self._batch_loss = batch_loss
        self._initial = initial
        self._parameters: dict[int, Any] = {}
        self._algorithm = algorithm
        self._ranks = len(workers)
        self._now = now
        self._emit = emit
        self._evaluate = evaluate
        self._every = every
        self._sums: defaultdict[tuple[int, str], Any] = defaultdict(float)
        self._ended: defaultdict[int, list[Totals]] = defaultdict(list)
        self._last = {worker.rank: Totals(worker.rank) for worker in workers}
        self.staleness = {worker.rank: 0 for worker in workers if worker.trains}
        """Uploads that each worker has skipped since its last upload, by rank."""
        self.norms = 0.0, 0
        """The sum and the number of the values of ``gradient_norm_sq`` so far."""

    def resume(
        self,
        workers: list[Worker],
        trained: Mapping[int, Trained],
        skipped: Mapping[int, int],
        norms: tuple[float, int],
    ) -> None:
        """Continue after a step that all ranks finished.

        Parameters
        ----------
        workers
            All ranks.
        trained
            Parameters and state of each rank.
        skipped
            Uploads that each worker has skipped since its last upload; 0 for a rank without an entry.
        norms
            The sum and the number of the values of ``gradient_norm_sq`` so far.
        """
        self._last = {worker.rank: self._totals(worker, trained[worker.rank]) for worker in workers}
        self._initial = next(trained[worker.rank].parameters for worker in workers if worker.trains)
        self._sums.clear()  # these are residuals of the step before
        self.staleness |= skipped
        self.norms = norms

    def observe(self, worker: Worker, what: str, *vectors: Vector) -> None:
        """Add the vectors that a worker reports: its "gradient", what it "accumulated", or the exchanged "total".

        The total is the same on all ranks and is taken from rank 0 only.
        """
        if what == "total" and worker.rank != 0:
            return
        for vector in vectors:
            if isinstance(vector, Dense | Sparse):
                key = (worker.step, what)
                self._sums[key] = self._sums[key] + dense_values(vector)

    def finished(self, worker: Worker, trained: Trained) -> None:
        """Record that a rank finished its step; emit the row if it was the last rank to do so."""
        if worker.trains and self._batch_loss is not None:
            self._parameters[worker.step + 1] = trained.parameters
        ended = self._ended[worker.step]
        ended.append(self._totals(worker, trained))
        if len(ended) == self._ranks:
            self._emit(self._row(worker.step, trained, self._ended.pop(worker.step)))

    def _totals(self, worker: Worker, trained: Trained) -> Totals:
        """Return the counters of a rank at the end of its step, before it runs ahead of other ranks."""
        traffic, residual = worker.traffic, self._algorithm.residual(trained.state.memory)
        if isinstance(residual, Dense):
            self._sums[worker.step, "residual"] = self._sums[worker.step, "residual"] + residual.values
        norm = float(residual.values.norm()) if isinstance(residual, Dense) else None
        if not self._algorithm.uses_server:
            bits = (8 * traffic.value_bytes_up, 8 * traffic.index_bytes_up, 8 * traffic.bytes_down)
            uploads = worker.tally.get("uploads", worker.step + 1)
            return Totals(worker.rank, worker.trains, norm, uploads, *bits)
        down = 0 if worker.rank == worker.server or not worker.trains else 8 * traffic.bytes_down
        tally = worker.tally
        counted = (tally["uploads"], tally["value_bits"], tally["index_bits"])
        return Totals(worker.rank, worker.trains, norm, *counted, down)

    def _row(self, step: int, trained: Trained, ended: list[Totals]) -> dict[str, Any]:
        training = [totals for totals in ended if totals.trains]
        for totals in training:
            skipped = totals.uploads == self._last[totals.rank].uploads
            self.staleness[totals.rank] = self.staleness[totals.rank] + 1 if skipped else 0
        norms = [totals.residual_norm for totals in training if totals.residual_norm is not None]
        gradient = self._sums.pop((step, "gradient"), None)
        uploads = self._gained("uploads", training)
        test = self._evaluate(trained.parameters) if self._evaluate and step % self._every == 0 else None
        bits = {name: self._gained(name, ended) for name in ("value_bits_up", "index_bits_up", "bits_down")}
        row = {
            "algorithm": self._algorithm.name,
            "step": step,
            "time_s": self._now(),
            "train_loss": self._loss_of_batches(step, training),
            **self._conserved(step, len(training)),
            "residual_norm": sum(norms) / len(norms) if norms else None,
            "batch_gradient_norm_sq": None if gradient is None else _square(gradient) / len(training) ** 2,
            "uploads": uploads,
            "skip_rate": 1 - uploads / len(training),
            "staleness_mean": sum(self.staleness.values()) / len(training),
            "staleness_max": max(self.staleness.values()),
            **bits,
            **{name.replace("bits", "bytes"): count // 8 for name, count in bits.items()},
            "test_loss": None if test is None else test.loss,
            "test_accuracy": None if test is None else test.accuracy,
            "gradient_norm_sq": None if test is None else test.gradient_norm_sq,
            "gradient_norm_sq_mean": self._mean_norm(test),
        }
        self._last = {totals.rank: totals for totals in ended}
        return row

    def _loss_of_batches(self, step: int, training: list[Totals]) -> float | None:
        """Return the mean loss of the mini-batches of a step at the parameters before it."""
        before = self._parameters.pop(step, self._initial)
        if self._batch_loss is None:
            return None
        return sum(self._batch_loss(before, totals.rank, step) for totals in training) / len(training)

    def _mean_norm(self, test: Evaluator | None) -> float | None:
        """Return the mean of ‖∇f‖² over this evaluation and those before; None between evaluations."""
        if test is None or test.gradient_norm_sq is None:
            return None
        total, count = self.norms
        self.norms = total + test.gradient_norm_sq, count + 1
        return self.norms[0] / self.norms[1]

    def _gained(self, counter: str, ended: list[Totals]) -> int:
        return sum(getattr(totals, counter) - getattr(self._last[totals.rank], counter) for totals in ended)

    def _conserved(self, step: int, workers: int) -> dict[str, float | None]:
        """Return δ and the leak; None for an algorithm whose workers accumulate no residual."""
        accumulated, total, residual = (
            self._sums.pop((step, kind), None) for kind in ("accumulated", "total", "residual")
        )
        if accumulated is None or total is None or residual is None:
            return {"delta": None, "leak": None}
        total = on_device(total, accumulated.device)
        mass = float(accumulated.abs().sum())
        leak = float((accumulated - total - residual).abs().sum()) / mass if mass else None
        return {"delta": self._delta(step, workers, accumulated, total), "leak": leak}

    def _delta(self, step: int, workers: int, accumulated: torch.Tensor, total: torch.Tensor) -> float | None:
        mean = accumulated / workers
        size = mean.numel()
        random = (1 - self._algorithm.selected(size, step) / size) * _square(mean)
        return _square(mean - total / workers) / random if random else None


def _square(values: torch.Tensor) -> float:
    """Return ‖values‖² in double precision."""
    return float(values.double().square().sum())


@contextmanager
def metrics_file(path: Path, failed: list[str]) -> Iterator[Emit]:
    """Open a file for rows of metrics: JSON lines if its name ends in .jsonl, CSV otherwise.

    Parameters
    ----------
    path
        The file.
    failed
        Gets a sentence at the end if a row could not be written; the run continues without further rows.

    Yields
    ------
    Emit
        Writes a row.

    Raises
    ------
    NetsimError
        If the file cannot be created.

    Notes
    -----
    Rows are written at once to a temporary file beside `path`. The temporary file replaces `path` at the end, also
    when the run fails or is interrupted. A killed run leaves the temporary file.
    """
    stopped: BaseException | None = None
    rows = None
    try:
        with whole_file(path, buffering=0) as file:
            rows = _Rows(file)
            try:
                yield _json_lines(rows) if path.suffix == ".jsonl" else _comma_separated(rows)
            except BaseException as error:
                stopped = error
        failure = rows.failure
    except OSError as error:
        if rows is None:
            raise NetsimError(f"metrics {str(path)!r} could not be written: {reason_of(error)}") from error
        failure = error
    if failure is not None:
        failed.append(f"metrics {str(path)!r} could not be written: {reason_of(failure)}")
    if stopped is not None:
        raise stopped


class _Rows:
    """A file of rows, each written whole or not at all; after the first failure no more rows are written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._good = 0
        self.failure: OSError | None = None

    def write(self, row: str) -> None:
        if self.failure is not None:
            return
        content, written = row.encode(), 0
        try:
            while written < len(content):
                written += self._file.write(content[written:])
            self._good += written
        except OSError as error:
            self.failure = error
            with suppress(OSError):  # a device or a FIFO cannot be truncated
                self._file.truncate(self._good)


def _json_lines(rows: _Rows) -> Emit:
    return lambda row: rows.write(json.dumps(row, allow_nan=False) + "\n")


def _comma_separated(rows: _Rows) -> Emit:
    writer = csv.DictWriter(rows, COLUMNS)  # calls write once per row
    writer.writeheader()
    return lambda row: writer.writerow(row)
