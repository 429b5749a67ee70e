"""A copy of a model for one thread, whose parameters are views of a flat vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from netsim._util.errors import UsageError
from netsim.training.workloads.fully_connected import Pass, is_plain
from netsim.training.workloads.parameters import kind_of, tracking, trainable
from netsim.training.workloads.user_code import blaming

LossFunction = Callable[[Any, torch.Tensor], torch.Tensor]
"""``loss(outputs, labels)`` returns the mean loss of a mini-batch."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Replica:
    """A copy of `model` on `device`; :meth:`hold` sets the values of its trainable parameters.

    Frozen parameters and buffers are copied, and hooks on the gradients of parameters are kept. Norm layers of the copy
    keep no running statistics. Errors of the model's code name the workload `name`. `own_loss` replaces the
    cross-entropy.

    On a CPU, convolutions use the channels-last layout, which takes about 0.8 of the time and changes the last bits of
    a gradient.
    """

    def __init__(self, model: nn.Module, device: str, name: str = "", own_loss: LossFunction | None = None) -> None:
        self._name = name
        self._own_loss = own_loss
        copies = {id(original): _empty_like(original, device) for _, original in trainable(model)}
        with blaming(name, "copying its model", "; netsim computes gradients on copies of a model"):
            self.model = copy.deepcopy(model, dict(copies)).to(device).train()
        tracked = tracking(self.model)
        for norm in tracked:
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        batch_norms = (layer for layer in self.model.modules() if isinstance(layer, BATCH_NORMS))
        self._norms = list(dict.fromkeys((*tracked, *(each for each in batch_norms if not each.track_running_stats))))
        trained = trainable(self.model)
        self._names, self._parameters = [name for name, _ in trained], [parameter for _, parameter in trained]
        self._shapes = [parameter.shape for parameter in self._parameters]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._held: torch.Tensor | None = None
        self._plain = is_plain(model) and own_loss is None
        convolves = any(isinstance(module, nn.Conv2d) for module in self.model.modules())
        self._channels_last = convolves and device == "cpu"

    def misses(self) -> str | None:
        """Return the name of a trainable parameter that the forward has added or replaced; None if there is none."""
        held = set(map(id, self._parameters))
        return next((name for name, parameter in trainable(self.model) if id(parameter) not in held), None)

    def hold(self, flat: torch.Tensor) -> None:
        """Make the parameters views of `flat` (d,); only weights of convolutions are copied."""
        if flat is self._held:
            return
        self._held = flat
        for parameter, piece in zip(self._parameters, self._pieces(flat), strict=True):
            parameter.data = self._laid_out(piece)

    def scores(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return scores (n, classes), or (n · length, classes) for sequences, checked against `labels`."""
        hint = "; with one sample a batch there is no variance: try --batch-size 2" if len(inputs) == 1 else ""
        with blaming(self._name, "its forward", hint):
            scores = self.model(self._laid_out(inputs))
        if not isinstance(scores, torch.Tensor):
            raise UsageError(
                f"workload {self._name}: its forward returned {type(scores).__name__}, expected a tensor of scores "
                "(n, classes); return only the scores"
            )
        places = tuple(labels.shape)
        if scores.shape[:-1] not in (places, (labels.numel(),)) or not scores.is_floating_point():
            shape = ", ".join(map(str, (*places, "classes")))
            raise UsageError(
                f"workload {self._name}: its forward returned {kind_of(scores)} of shape {tuple(scores.shape)}, "
                f"expected floating-point scores of shape ({shape}) for labels of shape {places}"
            )
        return scores.flatten(0, -2)

    def loss(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss, whose gradient :meth:`passes` computes."""
        if self._own_loss is not None:
            return self._by_user(self._own_loss, inputs, labels)
        scores = self.scores(inputs, labels)
        with blaming(self._name, "the cross-entropy of its scores"):
            return nn.functional.cross_entropy(scores, labels.flatten())

    def _by_user(self, own_loss: LossFunction, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with blaming(self._name, "its forward"):
            outputs = self.model(self._laid_out(inputs))
        with blaming(self._name, "its loss"):
            loss: Any = own_loss(outputs, labels)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            what = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise UsageError(f"workload {self._name}: its loss returned {what}, expected the mean as one number")
        mean: torch.Tensor = loss.reshape(())
        return mean

    def _slopes(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the gradient of the loss for each parameter; zeros if the loss does not depend on it."""
        versions = [parameter._version for parameter in self._parameters]
        loss = self.loss(inputs, labels)
        with blaming(self._name, "its backward"):
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        for name, parameter, version in zip(self._names, self._parameters, versions, strict=True):
            if parameter._version != version:
                raise UsageError(
                    f"workload {self._name}: its forward changes parameter {name!r} in place (as an embedding with "
                    "max_norm does), which all workers would see; compute a new tensor instead"
                )
        return gradients

    @property
    def shares_passes(self) -> bool:
        """Whether :meth:`passes` computes several workers in one pass, in about 0.6 of the time."""
        return self._plain

    def passes(
        self, flat: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, workers: int
    ) -> tuple[Callable[[int, torch.Tensor], None], Callable[[], bool]]:
        """Prepare the gradients of the mean cross-entropy of several workers.

        Parameters
        ----------
        flat
            The parameters (d,).
        inputs, labels
            The mini-batches of the workers, one after another.
        workers
            The number of workers.

        Returns
        -------
        write
            ``write(worker, row)`` writes the gradient of a worker into `row` (d,).
        is_finite
            ``is_finite()`` returns whether all gradients are known to be finite.
        """
        if self._plain:
            with blaming(self._name, "its gradient"):
                shared = Pass(self._pieces(flat), inputs, labels, workers)
            # A GPU would have to be waited for several times; the sum of the gradient takes one wait.
            is_finite = shared.is_finite if flat.device.type == "cpu" else lambda: False
            return lambda worker, row: shared.write(worker, self._pieces(row)), is_finite
        batch_size = len(labels) // workers

        def write(worker: int, row: torch.Tensor) -> None:
            batch = slice(worker * batch_size, (worker + 1) * batch_size)
            self.hold(flat)
            for piece, gradient in zip(self._pieces(row), self._slopes(inputs[batch], labels[batch]), strict=True):
                piece.copy_(_dense(gradient))

        return write, lambda: False

    def gradual(
        self,
        flat: torch.Tensor,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        row: torch.Tensor,
        written: Callable[[int], None],
    ) -> None:
        """Write the gradient at `flat` (d,) into `row` (d,), and call ``written(n)`` when tensor n is complete."""
        pieces = self._pieces(row)
        if self._plain:

            def reached(halfway: Pass, layer: int) -> None:
                halfway.write_layer(layer, 0, pieces)
                written(2 * layer + 1)
                written(2 * layer)

            with blaming(self._name, "its gradient"):
                Pass(self._pieces(flat), inputs, labels, 1, reached)
            return

        def take(index: int, gradient: torch.Tensor) -> None:
            pieces[index].copy_(_dense(gradient))
            left.discard(index)
            written(index)

        left = set(range(len(pieces)))
        self.hold(flat)
        hooks = [
            parameter.register_hook(partial(take, index))  # type: ignore[no-untyped-call]
            for index, parameter in enumerate(self._parameters)
        ]
        try:
            gradients = self._slopes(inputs, labels)
        finally:
            for hook in hooks:
                hook.remove()
        for index in sorted(left):  # tensors on which the loss does not depend
            take(index, gradients[index])

    def _pieces(self, flat: torch.Tensor) -> list[torch.Tensor]:
        pieces = flat.split_with_sizes(self._sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._channels_last and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    @property
    def normalises(self) -> bool:
        """Whether the model has norm layers that use statistics of a batch in training, and others in evaluation."""
        return bool(self._norms)

    def fix_statistics(self, batches: Iterable[torch.Tensor]) -> None:
        """Make norm layers use population statistics, computed from `batches` at the current parameters.

        This is "precise batch norm": each batch is normalised by its own statistics, and means and unbiased variances
        are averaged over the batches. Afterwards the replica is for evaluation only.
        """
        for norm in self._norms:
            device = self._parameters[0].device
            norm.track_running_stats = True
            norm.running_mean = torch.zeros(norm.num_features, device=device)
            norm.running_var = torch.ones(norm.num_features, device=device)
        with torch.no_grad(), blaming(self._name, "its forward"):
            for count, batch in enumerate(batches, 1):
                for norm in self._norms:
                    norm.momentum = 1 / count  # makes the running statistics the mean over batches
                self.model(self._laid_out(batch))
        self.model.eval()


def _empty_like(original: nn.Parameter, device: str) -> nn.Parameter:
    """Return a parameter of the same shape, with the same hooks on its gradient."""
    if original.is_contiguous():  # empty_like of a meta tensor imports sympy, which takes a second
        parameter = nn.Parameter(torch.empty(original.shape, dtype=original.dtype, device=device))
    else:
        parameter = nn.Parameter(torch.empty_like(original, device=device))
    for hook in (original._backward_hooks or {}).values():
        parameter.register_hook(hook)  # type: ignore[no-untyped-call]
    return parameter


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    """Return a dense gradient; an embedding with ``sparse=True`` has a sparse one."""
    return gradient.to_dense() if gradient.is_sparse else gradient
