"""A thread's own copy of a model, whose parameters are wherever a vector of all of them is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from netsim.workloads.fully_connected import FullyConnected, Pass

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Replica:
    """A copy of `model` on `device`; :meth:`hold` gives it values, and it keeps no state besides.

    On a CPU, convolutions work on images with the channels last, which takes them about 0.8 of the
    time, and changes the last bits of a gradient.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        own = {id(theirs): nn.Parameter(torch.empty_like(theirs, device=device)) for theirs in model.parameters()}
        self.model = copy.deepcopy(model, dict(own)).to(device).train()
        self._parameters = list(self.model.parameters())
        self._shapes = [parameter.shape for parameter in self._parameters]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._held: torch.Tensor | None = None
        convolves = any(isinstance(module, nn.Conv2d) for module in self.model.modules())
        self._channels_last = convolves and device == "cpu"

    def hold(self, flat: torch.Tensor) -> None:
        """Take the elements of `flat` (d,) for parameters, without copying but for convolutions."""
        if flat is self._held:
            return
        self._held = flat
        for parameter, piece in zip(self._parameters, self._pieces(flat), strict=True):
            parameter.data = self._laid_out(piece)

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the scores (n, classes), or (n length, classes) where samples are sequences."""
        scores: torch.Tensor = self.model(self._laid_out(inputs))
        return scores.flatten(0, -2)

    @property
    def shares_passes(self) -> bool:
        """Whether :meth:`passes` takes several workers in one pass, in about 0.6 of the time."""
        return isinstance(self.model, FullyConnected)

    def passes(
        self, flat: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, workers: int
    ) -> tuple[Callable[[int, torch.Tensor], None], bool]:
        """Return what writes one worker's gradient of its mean cross-entropy at `flat` (d,) into a row (d,).

        The samples are those of one worker after another. The second answer is whether all of it is known to
        be finite.
        """
        if isinstance(self.model, FullyConnected):
            shared = Pass(self._pieces(flat), inputs, labels, workers)
            return lambda worker, row: shared.write(worker, self._pieces(row)), shared.finite
        batch_size = len(labels) // workers

        def write(worker: int, row: torch.Tensor) -> None:
            own = slice(worker * batch_size, (worker + 1) * batch_size)
            self.hold(flat)
            loss = nn.functional.cross_entropy(self.scores(inputs[own]), labels[own].flatten())
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
            for piece, gradient in zip(self._pieces(row), gradients, strict=True):
                piece.copy_(gradient)

        return write, False

    def gradual(
        self,
        flat: torch.Tensor,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        row: torch.Tensor,
        written: Callable[[int], None],
    ) -> None:
        """Write one worker's gradient at `flat` (d,) into `row` (d,); call ``written(n)`` when tensor n is there."""
        pieces = self._pieces(row)
        if isinstance(self.model, FullyConnected):

            def reached(halfway: Pass, layer: int) -> None:
                halfway.write_layer(layer, 0, pieces)
                written(2 * layer + 1)
                written(2 * layer)

            Pass(self._pieces(flat), inputs, labels, 1, reached)
            return

        def take(number: int, gradient: torch.Tensor) -> None:
            pieces[number].copy_(gradient)
            left.discard(number)
            written(number)

        left = set(range(len(pieces)))
        self.hold(flat)
        loss = nn.functional.cross_entropy(self.scores(inputs), labels.flatten())
        hooks = [
            each.register_hook(partial(take, number))  # type: ignore[no-untyped-call]
            for number, each in enumerate(self._parameters)
        ]
        try:
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        finally:
            for hook in hooks:
                hook.remove()
        for number in sorted(left):  # tensors that the loss does not depend on
            take(number, gradients[number])

    def _pieces(self, flat: torch.Tensor) -> list[torch.Tensor]:
        pieces = flat.split_with_sizes(self._sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._channels_last and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    @property
    def normalises(self) -> bool:
        """Return whether the model has batch norm."""
        return any(isinstance(module, NORMS) for module in self.model.modules())

    def fix_statistics(self, batches: Iterable[torch.Tensor]) -> None:
        """Have batch norm use population statistics from now on: those of `batches` at the parameters held.

        "Precise batch norm": each batch is normalised by its own statistics, and the means and
        (unbiased) variances are averaged over the batches. Such a replica is for evaluation only.
        """
        norms = [module for module in self.model.modules() if isinstance(module, NORMS)]
        for norm in norms:
            device = self._parameters[0].device
            norm.track_running_stats = True
            norm.running_mean = torch.zeros(norm.num_features, device=device)
            norm.running_var = torch.ones(norm.num_features, device=device)
        with torch.no_grad():
            for number, batch in enumerate(batches):
                for norm in norms:
                    norm.momentum = 1 / (number + 1)
                self.model(self._laid_out(batch))
        self.model.eval()
