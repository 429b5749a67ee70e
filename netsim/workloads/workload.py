"""A model, its data, and what workers compute on it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from netsim.device import passing_row
from netsim.errors import NonFiniteGradientError, UsageError, unknown
from netsim.payload import Dense, Vector
from netsim.workloads.initial import initial_values
from netsim.workloads.replica import Replica
from netsim.workloads.samples import Samples
from netsim.workloads.sampling import RANDOM, SAMPLINGS, Sampler
from netsim.workloads.splits import Divisible, divide

POPULATION = 1024
"""How many training samples batch norm's statistics are taken from before an evaluation."""

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True, slots=True)
class Workload:
    """`model` is trained on the `training` samples by cross-entropy, and judged by the `test` samples.

    The model's own parameters are only names and shapes; the values are a flat vector handed in, which
    starts as `initial` (d,), or drawn by :func:`initial_values`. `data` names the data sets and `note`
    says in a line what they are. At most `chunk` samples are evaluated at once, and :meth:`loss
    <DataParallelTask.loss>` is over `loss_samples` of them. Raises UsageError for a model whose
    gradient would depend on more than parameters and batch, or for samples that cannot be.
    """

    name: str
    model: nn.Module
    training: Samples
    test: Samples
    data: str = "its own"
    note: str = ""
    chunk: int = 2048
    loss_samples: int = 10_000
    initial: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, module in self.model.named_modules():
            where = f"workload {self.name}: {type(module).__name__} {name!r}"
            if getattr(module, "track_running_stats", False):
                raise UsageError(f"{where} keeps running statistics; give it track_running_stats=False")
            dropout = module.p if isinstance(module, DROPOUTS) else getattr(module, "dropout", 0)
            if isinstance(dropout, int | float) and dropout > 0:
                raise UsageError(f"{where} drops out at random; give it a probability of 0")
        for kind, samples in (("training", self.training), ("test", self.test)):
            if not len(samples) or len(samples.inputs) != len(samples.labels):
                counts = f"{len(samples.inputs)} inputs and {len(samples.labels)} labels"
                raise UsageError(f"workload {self.name}: {counts} for {kind}; expected as many, and at least one")
            if samples.labels.dtype != torch.int64:
                raise UsageError(f"workload {self.name}: {kind} labels are {samples.labels.dtype}, expected int64")
        if self.initial is not None and self.initial.shape != (self.elements,):
            raise UsageError(f"workload {self.name}: initial {self.initial.shape}, expected ({self.elements},)")

    @property
    def elements(self) -> int:
        return sum(size for _, size in self.tensors)

    @property
    def tensors(self) -> tuple[tuple[str, int], ...]:
        """The name and size of each parameter tensor, in the order of the flat vector."""
        return tuple((name, parameter.numel()) for name, parameter in self.model.named_parameters())

    def data_sha256(self) -> tuple[str, str]:
        """Return the SHA-256 of the training and of the test data."""
        return self.training.sha256(), self.test.sha256()


class Evaluation(NamedTuple):
    """The mean cross-entropy, and the share of samples (of places, in sequences) that are classed right.

    With them, if it was asked for, ‖∇f‖² of the mean loss over the training data.
    """

    loss: float
    accuracy: float
    gradient_norm_sq: float | None = None


class DataParallelTask:
    """A workload split over workers: each has its own shard, and a mini-batch of it every step.

    Everything random is drawn with NumPy from `seed`, so it is the same on every CPU and device. All
    methods may be called from several threads at once, and give the same bits each time.
    """

    def __init__(
        self,
        workload: Workload,
        workers: int,
        batch_size: int,
        seed: int,
        device: str,
        split: str = "iid",
        sampling: str = RANDOM,
    ) -> None:
        if sampling not in SAMPLINGS:
            raise unknown("sampling", sampling, SAMPLINGS)
        self.workload = workload
        self.tensors = workload.tensors
        self.elements = workload.elements
        self._own = threading.local()
        self.shares: dict[int, bool] = {}
        """Whether so many workers' gradients, of one pass, have the bits of each alone; as far as it was tried."""
        self._device = device
        self._training, self._test = workload.training.to(device), workload.test.to(device)
        self.shards = divide(_divisible(workload), workers, split, seed)
        self._sampler = Sampler(self.shards, batch_size, seed, sampling)
        initial = initial_values(workload.model, seed) if workload.initial is None else workload.initial
        self._initial = Dense(torch.from_numpy(initial.astype(np.float32)).to(device))
        self._fixed = np.random.default_rng((seed, 4)).permutation(len(workload.training))

    def initial_parameters(self) -> Dense:
        return self._initial

    def batch(self, rank: int, step: int) -> np.ndarray:
        """Return the sample numbers of a mini-batch (batch_size,)."""
        return self._sampler.batch(rank, step)

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        """Return the gradient of the mean loss over the worker's mini-batch; it is finite.

        Batch norm uses the statistics of that mini-batch.
        """
        assert isinstance(parameters, Dense)
        return next(self._in_one_pass(parameters, [rank], step))

    @property
    def shares_passes(self) -> bool:
        """Whether :meth:`gradients` of several workers at once are faster."""
        return self._replica_of_thread().shares_passes

    def gradients(self, calls: Sequence[tuple[Vector, int, int]]) -> Iterator[Dense]:
        """Yield what :meth:`gradient` returns for each of `calls` (parameters, rank, step), bit for bit.

        Fully connected networks take the workers of equal parameters and step in one pass, if that gives
        the same bits: a product of matrices need not, and so it is tried once for each number of workers.
        """
        workers: dict[tuple[int, int], list[int]] = {}
        for parameters, rank, step in calls:
            workers.setdefault((id(parameters), step), []).append(rank)
        passes: dict[tuple[int, int], Iterator[Dense]] = {}
        for parameters, _, step in calls:
            assert isinstance(parameters, Dense)
            if (key := (id(parameters), step)) not in passes:
                together = self._in_one_pass if self._may_share(parameters, workers[key], step) else self._in_turn
                passes[key] = together(parameters, workers[key], step)
            yield next(passes[key])

    def _in_turn(self, parameters: Dense, ranks: Sequence[int], step: int) -> Iterator[Dense]:
        return (self.gradient(parameters, rank, step) for rank in ranks)

    def _in_one_pass(self, parameters: Dense, ranks: Sequence[int], step: int) -> Iterator[Dense]:
        numbers = np.concatenate([self.batch(rank, step) for rank in ranks])
        inputs, labels = self._training.take(torch.from_numpy(numbers).to(self._device))
        write, finite = self._replica_of_thread().passes(parameters.values, inputs, labels, len(ranks))
        for number, rank in enumerate(ranks):
            row = passing_row(parameters.values)
            write(number, row)
            if not finite:
                self._check_finite(row, rank, step)
            yield Dense(row)

    def gradual(self, written: Callable[[Vector, int], None], parameters: Vector, rank: int, step: int) -> Dense:
        """Return what :meth:`gradient` returns, bit for bit; call ``written(vector, n)`` when tensor n of it is there.

        Whether it is finite is known only when it is complete.
        """
        assert isinstance(parameters, Dense)
        inputs, labels = self._training.take(torch.from_numpy(self.batch(rank, step)).to(self._device))
        gradient = Dense(torch.empty_like(parameters.values))
        note = partial(written, gradient)
        self._replica_of_thread().gradual(parameters.values, inputs, labels, gradient.values, note)
        self._check_finite(gradient.values, rank, step)
        return gradient

    def _check_finite(self, row: torch.Tensor, rank: int, step: int) -> None:
        # A sum is finite only if all of it is, and costs 1/40 of asking every element.
        if not math.isfinite(float(row.sum())) and (bad := self._first_bad(row)):
            raise NonFiniteGradientError(
                f"worker {rank}, step {step}: the gradient of {bad} is not finite; "
                "lower --lr (the training diverged) or check the data"
            )

    def _may_share(self, parameters: Dense, ranks: Sequence[int], step: int) -> bool:
        """Return whether so many workers share a pass, and find out if that changes bits."""
        if len(ranks) == 1 or not self._replica_of_thread().shares_passes:
            return False
        if len(ranks) not in self.shares:
            both = zip(self._in_turn(parameters, ranks, step), self._in_one_pass(parameters, ranks, step), strict=True)
            self.shares[len(ranks)] = all(torch.equal(one.values, other.values) for one, other in both)
        return self.shares[len(ranks)]

    def loss(self, parameters: Dense) -> float:
        """Return the mean loss over the training data, or over the same `loss_samples` of it each time."""
        return self._evaluate(parameters, self._training, self._judged()).loss

    def gradient_norm_sq(self, parameters: Dense) -> float:
        """Return ‖∇f‖², where f is what :meth:`loss` returns.

        Batch norm normalises each chunk of the samples by that chunk's own statistics, as it does a mini-batch.
        """
        replica, numbers = self._replica_of_thread(), self._judged()
        total = torch.zeros_like(parameters.values, dtype=torch.float64)
        row = torch.empty_like(parameters.values)
        for inputs, labels in self._chunks(self._training, numbers):
            write, _ = replica.passes(parameters.values, inputs, labels, 1)
            write(0, row)
            total.add_(row, alpha=len(labels) / len(numbers))
        return float(total.square().sum())

    def _judged(self) -> np.ndarray:
        """Return the numbers of the training samples that a loss is taken over, always the same."""
        everything, few = len(self._training), self.workload.loss_samples
        return np.arange(everything) if everything <= few else np.sort(self._fixed[:few])

    def evaluate(self, parameters: Dense, most: int | None = None) -> Evaluation:
        """Return loss and accuracy on the test data, or on the first `most` of its samples.

        Batch norm uses population statistics, taken at these parameters from a fixed set of 1,024
        training samples (:meth:`Replica.fix_statistics`).
        """
        return self._evaluate(parameters, self._test, np.arange(len(self._test))[:most])

    def _evaluate(self, parameters: Dense, samples: Samples, numbers: np.ndarray) -> Evaluation:
        replica = self._replica_of_thread()
        if replica.normalises:
            replica = Replica(self.workload.model, self._device)
        replica.hold(parameters.values)
        if replica.normalises:
            population = self._fixed[:POPULATION]
            whole = len(population) // self.workload.chunk * self.workload.chunk
            replica.fix_statistics(inputs for inputs, _ in self._chunks(self._training, population[: whole or None]))
        loss = 0.0
        right = places = 0
        with torch.no_grad():
            for inputs, labels in self._chunks(samples, numbers):
                scores, expected = replica.scores(inputs), labels.flatten()
                loss += float(nn.functional.cross_entropy(scores, expected)) * len(expected)
                right += int((scores.argmax(1) == expected).sum())
                places += len(expected)
        return Evaluation(loss / places, right / places)

    def _chunks(self, samples: Samples, numbers: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(numbers), self.workload.chunk):
            yield samples.take(torch.from_numpy(numbers[start : start + self.workload.chunk]).to(self._device))

    def _replica_of_thread(self) -> Replica:
        if not hasattr(self._own, "replica"):
            self._own.replica = Replica(self.workload.model, self._device)
        replica: Replica = self._own.replica
        return replica

    def _first_bad(self, gradient: torch.Tensor) -> str | None:
        pieces = torch.split(gradient, [size for _, size in self.tensors])
        names = (name for name, _ in self.tensors)
        return next((name for name, piece in zip(names, pieces, strict=True) if not piece.isfinite().all()), None)


def _divisible(workload: Workload) -> Divisible:
    labels, part = workload.training.labels, workload.training.part
    classes = labels.cpu().numpy() if labels.dim() == 1 else None
    data = f"{workload.name} on {workload.data}" if workload.data != workload.name else workload.name
    return Divisible(data, len(labels), classes, None if part is None else part.cpu().numpy())
