"""Data-parallel tasks: a workload divided among workers, and the gradients that they compute."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from netsim._util.errors import NonFiniteGradientError, unknown
from netsim._util.random_streams import Stream, generator
from netsim.comm.payload import Dense, Vector
from netsim.training.buffers import passing_row
from netsim.training.workloads.parameters import initial_values
from netsim.training.workloads.replica import Replica
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.splits import RANDOM, SAMPLINGS, Divisible, Sampler, divide
from netsim.training.workloads.user_code import blaming
from netsim.training.workloads.workload import Workload

POPULATION = 1024
"""Training samples from which batch norm statistics are computed before an evaluation."""


class Evaluation(NamedTuple):
    """The mean loss, and the accuracy: the fraction of samples, or of places in sequences.

    The loss is the cross-entropy in nats unless the workload has its own. Then `accuracy` is None. `gradient_norm_sq`
    is ‖∇f‖² of the mean training loss f; None if it was not requested.
    """

    loss: float
    accuracy: float | None
    gradient_norm_sq: float | None = None


class DataParallelTask:
    """A workload divided among workers; each worker has a shard, and uses mini-batches of it in every step.

    With `accumulate` N, step t has the mini-batches t N to t N + N - 1. Their gradients are added in this order, as
    ``loss.backward()`` adds them to ``parameter.grad``, and the sum is divided by N.

    Random numbers are drawn with NumPy from `seed`, so they are the same on every CPU and device. Methods may be called
    from several threads at once, and repeated calls give the same bits.
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
        accumulate: int = 1,
    ) -> None:
        if sampling not in SAMPLINGS:
            raise unknown("sampling", sampling, SAMPLINGS)
        self.workload = workload
        self.tensors = workload.tensors
        self.shapes = workload.shapes
        self.elements = workload.elements
        self._accumulate = accumulate
        self._own = threading.local()
        self.shares: dict[int, bool] = {}
        """For each number of workers tried: whether gradients from a shared pass have the bits of separate passes."""
        self.device = device
        self.at_once = 1
        """How many gradients one call of :meth:`gradients` computes at the same time."""
        self.training, self._test = workload.training.to(device), workload.test.to(device)
        self.shards = divide(_divisible(workload), workers, split, seed)
        self._sampler = Sampler(self.shards, batch_size, seed, sampling)
        initial = initial_values(workload.model, seed) if workload.initial is None else workload.initial
        self._initial = Dense(torch.from_numpy(initial.astype(np.float32)).to(device))
        self._fixed = generator(seed, Stream.JUDGED_SAMPLES).permutation(len(workload.training))

    def __repr__(self) -> str:
        return f"DataParallelTask({self.workload.name}, {len(self.shards)} workers, {self.elements:,} parameters)"

    def initial_parameters(self) -> Dense:
        """Return the initial parameters (d,)."""
        return self._initial

    def batch(self, rank: int, number: int) -> np.ndarray:
        """Return the indices of the samples of a worker's mini-batch (batch_size,), by the number of the mini-batch."""
        return self._sampler.batch(rank, number)

    def batches(self, rank: int, step: int) -> np.ndarray:
        """Return the indices of the samples of a worker's mini-batches of a step (accumulate, batch_size)."""
        return np.stack([self.batch(rank, number) for number in self._numbers(step)])

    def gradient(self, parameters: Vector, rank: int, step: int) -> Dense:
        """Return the gradient (d,) of the mean loss over the worker's mini-batches of a step.

        Batch norm uses the statistics of the mini-batch.

        Raises
        ------
        NonFiniteGradientError
            If the gradient contains NaN or infinity.
        """
        assert isinstance(parameters, Dense)
        return next(self._accumulated(parameters, [rank], step))

    @property
    def shares_passes(self) -> bool:
        """Whether one call of :meth:`gradients` is faster than one call of :meth:`gradient` per worker."""
        return self._replica_of_thread().shares_passes

    def gradients(self, calls: Sequence[tuple[Vector, int, int]]) -> Iterator[Dense]:
        """Yield the same bits as :meth:`gradient` for each (parameters, rank, step) of `calls`.

        Fully connected networks compute workers with equal parameters and step in one pass, if a pass gives the same
        bits. A matrix product need not, so this is tried once for each number of workers. Where the bits differ, each
        half of the workers is tried as a pass of its own.
        """
        workers: dict[tuple[int, int], list[int]] = {}
        for parameters, rank, step in calls:
            workers.setdefault((id(parameters), step), []).append(rank)
        passes: dict[tuple[int, int], Iterator[Dense]] = {}
        for parameters, _, step in calls:
            assert isinstance(parameters, Dense)
            if (key := (id(parameters), step)) not in passes:
                passes[key] = self._method_for(len(workers[key]))(parameters, workers[key], step)
            yield next(passes[key])

    def _method_for(self, workers: int) -> Callable[[Dense, Sequence[int], int], Iterator[Dense]]:
        """Return how to compute so many gradients: in one pass, in two parts, or the first time in turn as well."""
        if workers == 1 or not self._replica_of_thread().shares_passes:
            return self._in_turn
        return {None: self._compared, True: self._accumulated, False: self._in_halves}[self.shares.get(workers)]

    def _compared(self, parameters: Dense, ranks: Sequence[int], step: int) -> Iterator[Dense]:
        """Yield the gradients of `ranks` in turn; note whether those of one pass have the same bits."""
        both = zip(self._in_turn(parameters, ranks, step), self._accumulated(parameters, ranks, step), strict=True)
        alike = True
        for count, (separate, shared) in enumerate(both, 1):
            alike = alike and torch.equal(separate.values, shared.values)
            if count == len(ranks):  # nobody asks this generator for more
                self.shares[count] = alike
            yield separate

    def _in_halves(self, parameters: Dense, ranks: Sequence[int], step: int) -> Iterator[Dense]:
        """Yield the gradients of `ranks` in two parts: a product of fewer rows may have the bits of a separate one."""
        half = len(ranks) // 2
        for part in (ranks[:half], ranks[half:]):
            yield from self._method_for(len(part))(parameters, part, step)

    def _in_turn(self, parameters: Dense, ranks: Sequence[int], step: int) -> Iterator[Dense]:
        return (self.gradient(parameters, rank, step) for rank in ranks)

    def gradient_on(self, replica: Replica, parameters: Dense, rank: int, number: int) -> Dense:
        """Return the gradient (d,) over one mini-batch, computed on a given copy of the model."""
        return next(self._in_one_pass(parameters, [rank], number, replica))

    def _accumulated(self, parameters: Dense, ranks: Sequence[int], step: int) -> Iterator[Dense]:
        """Yield the gradient of each of `ranks`; every mini-batch of the step is one pass of all ranks."""
        first, *others = (self._in_one_pass(parameters, ranks, number) for number in self._numbers(step))
        for gradient in first:
            for other in others:
                gradient.values.add_(next(other).values)
            if others:
                gradient.values.div_(gradient.values.new_full((), self._accumulate))  # as :func:`quotient`
            yield gradient

    def _numbers(self, step: int) -> range:
        """Return the numbers of the mini-batches of a step."""
        return range(step * self._accumulate, (step + 1) * self._accumulate)

    def _in_one_pass(
        self, parameters: Dense, ranks: Sequence[int], number: int, replica: Replica | None = None
    ) -> Iterator[Dense]:
        indices = np.concatenate([self.batch(rank, number) for rank in ranks])
        inputs, labels = self.training.take(torch.from_numpy(indices).to(self.device))
        replica = self._replica_of_thread() if replica is None else replica
        write, is_finite = replica.passes(parameters.values, inputs, labels, len(ranks))
        finite = is_finite()
        for worker, rank in enumerate(ranks):
            row = passing_row(parameters.values)
            write(worker, row)
            if not finite:
                self.check_finite(row, rank, number // self._accumulate)
            yield Dense(row)

    def gradual(self, written: Callable[[Vector, int], None], parameters: Vector, rank: int, step: int) -> Dense:
        """Return the same bits as :meth:`gradient`, and call ``written(vector, n)`` when tensor n is complete.

        The check for NaN and infinity follows at the end.
        """
        assert isinstance(parameters, Dense)
        *earlier, last = self._numbers(step)
        total = None
        for number in earlier:
            row = next(self._in_one_pass(parameters, [rank], number)).values
            total = row if total is None else total.add_(row)
        inputs, labels = self.samples(rank, last)
        gradient = Dense(torch.empty_like(parameters.values))
        sizes = [size for _, size in self.tensors]
        pieces = gradient.values.split_with_sizes(sizes)
        before = None if total is None else total.split_with_sizes(sizes)
        count = gradient.values.new_full((), self._accumulate)

        def note(tensor: int) -> None:
            if before is not None:
                pieces[tensor].add_(before[tensor]).div_(count)
            written(gradient, tensor)

        self._replica_of_thread().gradual(parameters.values, inputs, labels, gradient.values, note)
        self.check_finite(gradient.values, rank, step)
        return gradient

    def check_finite(self, row: torch.Tensor, rank: int, step: int) -> None:
        """Raise NonFiniteGradientError if the gradient `row` (d,) of a worker's step contains NaN or infinity."""
        # A finite sum has only finite terms; a sum takes 1/40 of the time of testing every element.
        if not math.isfinite(float(row.sum())) and (bad := self._first_bad(row)):
            fix = (
                "lower --lr (the training diverged)" if step else "no step was taken yet, so check the model, not --lr"
            )
            raise NonFiniteGradientError(f"worker {rank}, step {step}: the gradient of {bad} is not finite; {fix}")

    def loss(self, parameters: Dense) -> float:
        """Return the mean training loss in nats, over all training data or over a fixed set of `loss_samples`."""
        return self._evaluate(parameters, self.training, self._samples_for_loss()).loss

    def batch_loss(self, parameters: Dense, rank: int, step: int) -> float:
        """Return the mean loss in nats of a worker's mini-batches of a step: that of :meth:`gradient`."""
        replica = self._replica_of_thread()
        replica.hold(parameters.values)
        with torch.no_grad():
            losses = [float(replica.loss(*self.samples(rank, number))) for number in self._numbers(step)]
        return sum(losses) / len(losses)

    def sampled_loss(self, parameters: Dense, samples: int) -> float:
        """Return the mean loss in nats of a fixed set of at most `samples` training samples, the same in every call.

        Unlike :meth:`loss`, it takes one forward pass only: batch norm uses the statistics of each chunk of samples.
        """
        replica, chunk = self._replica_of_thread(), self.workload.chunk
        numbers = np.sort(self._fixed[: max(1, samples // chunk) * chunk if samples > chunk else samples])
        replica.hold(parameters.values)
        with torch.no_grad():
            chunks = self._chunks(self.training, numbers)
            return sum(float(replica.loss(inputs, labels)) * len(labels) for inputs, labels in chunks) / len(numbers)

    def gradient_norm_sq(self, parameters: Dense) -> float:
        """Return ‖∇f‖² of the training loss f that :meth:`loss` returns.

        Batch norm uses the statistics of each chunk of samples, as it does with a mini-batch.
        """
        replica, numbers = self._replica_of_thread(), self._samples_for_loss()
        total = torch.zeros_like(parameters.values, dtype=torch.float64)
        row = torch.empty_like(parameters.values)
        for inputs, labels in self._chunks(self.training, numbers):
            write, _ = replica.passes(parameters.values, inputs, labels, 1)
            write(0, row)
            total.add_(row, alpha=len(labels) / len(numbers))
        return float(total.square().sum())

    def _samples_for_loss(self) -> np.ndarray:
        """Return the indices of the training samples for the loss, the same in every call."""
        everything, few = len(self.training), self.workload.loss_samples
        return np.arange(everything) if everything <= few else np.sort(self._fixed[:few])

    def evaluate(self, parameters: Dense, most: int | None = None) -> Evaluation:
        """Return loss and accuracy on the test data, or on its first `most` samples.

        Batch norm uses population statistics of a fixed set of 1,024 training samples at these parameters
        (:meth:`Replica.fix_statistics`).
        """
        return self._evaluate(parameters, self._test, np.arange(len(self._test))[:most])

    def rehearse_evaluation(self) -> None:
        """Evaluate the first and the last chunk of the evaluation samples at the initial parameters.

        An error that :meth:`loss` or :meth:`evaluate` would raise after the run is so raised before it.
        """
        chunk, most = self.workload.chunk, self.workload.loss_samples
        for samples, numbers in (
            (self.training, self._samples_for_loss()),
            (self._test, np.arange(len(self._test))[:most]),
        ):
            for start in {0, (len(numbers) - 1) // chunk * chunk}:
                self._evaluate(self._initial, samples, numbers[start : start + chunk])

    def samples(self, rank: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs and labels of a worker's mini-batch as new tensors."""
        return self.training.take(torch.from_numpy(self.batch(rank, number)).to(self.device))

    def _evaluate(self, parameters: Dense, samples: Samples, numbers: np.ndarray) -> Evaluation:
        replica = self._replica_of_thread()
        if replica.normalises:
            replica = self.replica()
        replica.hold(parameters.values)
        if replica.normalises:
            population = self._fixed[:POPULATION]
            whole = len(population) // self.workload.chunk * self.workload.chunk
            replica.fix_statistics(inputs for inputs, _ in self._chunks(self.training, population[: whole or None]))
        loss = 0.0
        right = places = 0
        with torch.no_grad():
            for inputs, labels in self._chunks(samples, numbers):
                if self.workload.loss is not None:
                    loss += float(replica.loss(inputs, labels)) * len(labels)
                    places += len(labels)
                    continue
                scores, expected = replica.scores(inputs, labels), labels.flatten()
                with blaming(self.workload.name, "the cross-entropy of its scores"):
                    loss += float(nn.functional.cross_entropy(scores, expected)) * len(expected)
                right += int((scores.argmax(1) == expected).sum())
                places += len(expected)
        return Evaluation(loss / places, right / places if self.workload.loss is None else None)

    def _chunks(self, samples: Samples, numbers: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(numbers), self.workload.chunk):
            yield samples.take(torch.from_numpy(numbers[start : start + self.workload.chunk]).to(self.device))

    def _replica_of_thread(self) -> Replica:
        if not hasattr(self._own, "replica"):
            self._own.replica = self.replica()
        replica: Replica = self._own.replica
        return replica

    def replica(self) -> Replica:
        """Return a new copy of the model."""
        return Replica(self.workload.model, self.device, self.workload.name, self.workload.loss)

    def _first_bad(self, gradient: torch.Tensor) -> str | None:
        pieces = torch.split(gradient, [size for _, size in self.tensors])
        names = (name for name, _ in self.tensors)
        return next((name for name, piece in zip(names, pieces, strict=True) if not piece.isfinite().all()), None)


def _divisible(workload: Workload) -> Divisible:
    labels, part = workload.training.labels, workload.training.part
    classes = labels.cpu().numpy() if labels.dim() == 1 and labels.dtype == torch.int64 else None
    data = f"{workload.name} on {workload.source}" if workload.source != workload.name else workload.name
    return Divisible(data, len(labels), classes, None if part is None else part.cpu().numpy())
