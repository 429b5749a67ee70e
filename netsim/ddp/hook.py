"""The communication hooks: one exchange for each bucket of gradients of DDP, or for each shard of FSDP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from netsim._util.errors import NonFiniteGradientError, UsageError
from netsim.comm.payload import Dense, SizeOnly, widened
from netsim.comm.worker import Worker
from netsim.ddp.memory import Leaves, ParameterMemory
from netsim.distributed.interpreter import RankInterpreter
from netsim.training.algorithm import Algorithm, TensorShapes
from netsim.training.sgd import dense_values, quotient

AlgorithmOf = Callable[[TensorShapes, int], Algorithm]
"""``algorithm_of(shapes, index)`` returns the algorithm for the bucket with this index and these tensors."""


class ExchangeHook:
    """The exchange of gradients by an algorithm on one rank, as :func:`netsim.ddp.register` returns it.

    Gradients of 16 bits become float32 here, because a residual of 16 bits would lose small gradients. The values in
    messages have 16 bits if ``dtype`` says so.

    Parameters
    ----------
    text
        The algorithm with its options.
    algorithm_of
        Builds the algorithm of a bucket.
    worker, interpreter
        This rank, and the interpreter that performs its communication.
    group
        The ranks that exchange; nothing else communicates in this group.
    scaler
        The loss scaler of the training, if there is one.

    Attributes
    ----------
    step
        Number of exchanges so far; each follows a backward pass that synchronises gradients.
    """

    def __init__(
        self,
        text: str,
        algorithm_of: AlgorithmOf,
        worker: Worker,
        interpreter: RankInterpreter,
        group: dist.ProcessGroup,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.step = 0
        self._text = text
        self._algorithm_of = lru_cache(maxsize=None)(algorithm_of)
        self._worker, self._interpreter, self._group = worker, interpreter, group
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._memory = ParameterMemory()
        self._before: dict[str, Leaves] = {}
        self._step_before = self._overflowed = -1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text}, {self._worker.workers} ranks, step {self.step})"

    @property
    def bytes_sent(self) -> int:
        """Bytes of values and indices that this rank has sent."""
        return self._worker.traffic.bytes_up

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank remembers: the step, and the vectors of its memory by parameter.

        Ranks remember different vectors, so every rank saves its own. ``torch.load(…, weights_only=True)`` can load it.
        """
        return {"algorithm": self._text, "step": self.step, "memory": self._memory.by_parameter()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; parameters may be in other buckets now than when the state was saved.

        Raises
        ------
        UsageError
            If the state belongs to another algorithm or model.
        """
        if state["algorithm"] != self._text:
            raise UsageError(
                f"state of algorithm {state['algorithm']!r} was given, expected that of {self._text!r}; register the "
                "algorithm that was saved"
            )
        self._check_sizes(state["memory"])
        self.step = state["step"]
        self._memory = ParameterMemory()
        self._memory.put_back(state["memory"])

    def _check_sizes(self, memory: Mapping[str, Leaves]) -> None:
        """Raise UsageError if the model has no parameters of the names and sizes in a memory."""

    def _replace_by_mean(self, views: dict[str, torch.Tensor], number: int, step: int) -> bool:
        """Replace the gradients in a bucket by their mean over ranks, as the algorithm computes it.

        Parameters
        ----------
        views
            The gradients by name; they are overwritten.
        number, step
            Number of the bucket, and of the exchange.

        Returns
        -------
        bool
            Whether the gradients of all ranks were finite; if not, nothing has changed. Without a scaler an error is
            raised instead.
        """
        vector = torch.cat([view.reshape(-1) for view in views.values()])
        if vector.element_size() < 4:
            vector = vector.float()
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        vector /= scale
        if self._scaler is None:
            self._check_finite(vector, views, step)
        elif self._overflow(vector, step):
            return False
        mean = self._mean(Dense(vector), views, number, step)
        mean *= scale
        sizes = [view.numel() for view in views.values()]
        for view, piece in zip(views.values(), mean.split_with_sizes(sizes), strict=True):
            view.copy_(piece.view_as(view))
        return True

    def _mean(self, vector: Dense, views: dict[str, torch.Tensor], number: int, step: int) -> torch.Tensor:
        """Return the sum (d,) of all ranks' vectors that the algorithm gives, divided by their number."""
        sizes = {name: view.numel() for name, view in views.items()}
        algorithm = self._algorithm_of(tuple(tuple(view.shape) for view in views.values()), number)
        memory = self._memory.take(sizes, algorithm, vector)
        if self._scaler is not None:
            self._before |= self._memory.by_parameter(sizes)
        self._worker.step = step
        total, memory = self._interpreter.run(algorithm.exchange_rounded(self._worker, vector, memory, vector))
        self._interpreter.timeline.spent()  # forget the times
        self._memory.keep(sizes, memory)
        assert not isinstance(total, SizeOnly)
        return quotient(dense_values(widened(total)), self._worker.workers)

    def _check_finite(self, vector: torch.Tensor, views: dict[str, torch.Tensor], step: int) -> None:
        if not _is_finite(vector):
            bad = next(name for name, view in views.items() if not view.isfinite().all())
            raise NonFiniteGradientError(
                f"rank {self._worker.rank}, step {step}: the gradient of {bad} is not finite; lower the "
                "learning rate, or give scaler= if a GradScaler scales the loss"
            )

    def _overflow(self, vector: torch.Tensor, step: int) -> bool:
        """Return whether a gradient of this step is not finite on any rank; then undo the step's changes of memory."""
        if self._overflowed == step:
            return True
        if self._step_before != step:
            self._step_before, self._before = step, {}
        finite = torch.tensor(int(_is_finite(vector)))
        dist.all_reduce(finite, dist.ReduceOp.MIN, self._group)
        if finite:
            return False
        self._overflowed = step
        self._memory.put_back(self._before)
        return True


class BucketGradients(NamedTuple):
    """The gradients of a bucket by parameter, in the model's order; they are views of the `buffer`."""

    number: int
    step: int
    views: dict[str, torch.Tensor]
    buffer: torch.Tensor


class BucketHook(ExchangeHook):
    """The hook of a DistributedDataParallel model.

    A thread exchanges the buckets one after another, in the order in which DDP hands them over, which is the same on
    all ranks. The backward pass goes on meanwhile.

    The vector that is exchanged has the order of the model's parameters, as in simulations, whatever the order in the
    bucket. DDP drops what a hook returns for a parameter that no rank has used (``find_unused_parameters``). The
    exchange leaves such a parameter out, so that its residual stays.

    Parameters
    ----------
    names
        The parameters that are trained, with their names, in the model's order.
    finds_unused
        Whether DDP looks for parameters that are not used.
    *args, **options
        As for :class:`ExchangeHook`.
    """

    def __init__(self, names: dict[torch.nn.Parameter, str], finds_unused: bool, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._names, self._finds_unused = names, finds_unused
        self._shapes = {name: tuple(parameter.shape) for parameter, name in names.items()}
        self._places = {name: place for place, name in enumerate(self._shapes)}
        # The number of torch's threads is each thread's own, and changes bits.
        self._thread = ThreadPoolExecutor(1, "exchange", torch.set_num_threads, (torch.get_num_threads(),))

    def _check_sizes(self, memory: Mapping[str, Leaves]) -> None:
        for name, vectors in memory.items():
            shape = self._shapes.get(name)
            own = {} if shape is None else self._algorithm_of((shape,), 0).memory_sizes()
            for leaf, values in vectors.items():
                expected = None if shape is None else own.get(leaf, (math.prod(shape),))[0]
                if values.numel() != expected:
                    raise UsageError(
                        f"state has {values.numel()} elements for parameter {name!r}, expected "
                        f"{'no such parameter' if expected is None else expected}; load the state of the same model"
                    )

    def start(self, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
        """Begin the exchange of a bucket; the future holds the bucket's buffer with the mean over ranks."""
        gradients = self._gradients(bucket)
        self.step += bucket.is_last()
        device = gradients.buffer.device
        computed: Any = None
        if device.type == "cuda":
            computed = torch.cuda.current_stream(device).record_event()

        def exchange(_: object) -> torch.Tensor:
            if computed is not None:
                computed.synchronize()
            return self._exchange(gradients)

        # `exchange` runs in the thread that sets the result. Its error becomes the future's, and so backward's.
        begun: torch.futures.Future[None] = torch.futures.Future(devices=[device] if computed is not None else None)
        exchanged = begun.then(exchange)
        self._thread.submit(begun.set_result, None)
        return exchanged

    def _gradients(self, bucket: dist.GradBucket) -> BucketGradients:  # type: ignore[name-defined]
        pairs = zip(bucket.parameters(), bucket.gradients(), strict=True)
        views = {self._names[parameter]: view for parameter, view in pairs}
        ordered = sorted(views, key=self._places.__getitem__)
        return BucketGradients(bucket.index(), self.step, {name: views[name] for name in ordered}, bucket.buffer())

    @torch.no_grad()
    def _exchange(self, gradients: BucketGradients) -> torch.Tensor:
        """Exchange a bucket, and return its buffer."""
        views = self._used(gradients.views) if self._finds_unused else gradients.views
        if views and not self._replace_by_mean(views, gradients.number, gradients.step):
            gradients.buffer.fill_(torch.inf)  # the scaler of every rank then skips the step
        return gradients.buffer

    def _used(self, views: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the gradients with a non-zero element on at least one rank."""
        used = torch.tensor([bool(view.any()) for view in views.values()], dtype=torch.uint8)
        dist.all_reduce(used, dist.ReduceOp.MAX, self._group)
        return {name: view for (name, view), anywhere in zip(views.items(), used.tolist(), strict=True) if anywhere}


class ShardHook(ExchangeHook):
    """The hook of an FSDP model on ranks that hold the same shard, one of each group that shards the model.

    FSDP adds the gradients of a group up and gives every rank its shard; here the shards of the groups are exchanged.
    Backward waits for each exchange.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._exchanged: set[str] = set()

    @torch.no_grad()
    def exchange(self, name: str, number: int, shard: torch.Tensor) -> None:
        """Replace a shard (n,) of the gradients of module `name` by its mean over ranks; `number` is the module's."""
        if not self._exchanged or name in self._exchanged:
            self._exchanged.clear()
            self.step += 1
        self._exchanged.add(name)
        self._replace_by_mean({name: shard}, number, self.step - 1)


def _is_finite(vector: torch.Tensor) -> bool:
    # A finite sum has only finite terms, and is faster than a test of every element.
    return math.isfinite(float(vector.sum())) or bool(vector.isfinite().all())
