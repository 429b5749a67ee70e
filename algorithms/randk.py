"""Random-k with error feedback: all workers send the same k random entries, so no index travels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from algorithms.compression import Selected, take_out
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.selection import Selector
from netsim.algorithm import Contribution
from netsim.collectives import ring_all_reduce
from netsim.payload import Dense, SizeOnly, Sparse, Vector, in_place, size_rule
from netsim.sgd import Scaled, product
from netsim.worker import Worker

if TYPE_CHECKING:
    import torch


class RandK(ErrorFeedback):
    """The baseline of Assumption 1 (gTop-k paper, eq. (13)); the k values go around a ring, densely.

    The entries of a step are drawn from the step's number, alike everywhere.
    """

    name = "randk"
    title = "Random-k"

    async def select(self, worker: Worker, residual: Vector, vector: Contribution, selector: Selector) -> Selected:
        return await worker.compute("select", pick, residual, vector, selector, worker.step)

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, like: Vector
    ) -> tuple[Vector, Feedback]:
        assert vector is not None
        picked, memory = await self.compress(worker, vector, memory)
        summed = await ring_all_reduce(worker, values_of(picked))
        selector = self.selector.at(worker.step, like.size)
        return await worker.replicated("merge", place, summed, like, selector, worker.step), memory


def random_positions(size: int, selector: Selector, step: int) -> torch.Tensor:
    """Return k positions of `size`, or each tensor's own k, ascending; drawn with NumPy from the step's number."""
    import torch

    random = np.random.default_rng((4, step))
    drawn, first = [], 0
    for of, k in selector.blocks or ((size, selector.k),):
        drawn.append(np.sort(random.choice(of, min(k, of), replace=False)) + first)
        first += of
    return torch.from_numpy(np.concatenate(drawn))


@in_place
@size_rule(
    lambda residual, vector, selector, step: Selected(SizeOnly(vector.size, min(selector.k, vector.size)), vector)
)
def pick(residual: Dense, vector: Dense | Scaled, selector: Selector, step: int) -> Selected:
    """Return the picked entries of residual + vector, zeros among them, and the rest."""
    rest = residual.values
    rest += product(vector)
    return take_out(rest, random_positions(residual.size, selector, step).to(rest.device))


@size_rule(lambda picked: SizeOnly(picked.entries))
def values_of(picked: Vector) -> Vector:
    """Return the values of entries without their indices, as a dense vector (k,)."""
    assert isinstance(picked, Sparse)
    return Dense(picked.values)


@size_rule(lambda summed, like, selector, step: SizeOnly(like.size, summed.size))
def place(summed: Dense, like: Dense, selector: Selector, step: int) -> Sparse:
    """Return the summed values at the positions that they were picked from."""
    import torch

    positions = random_positions(like.size, selector, step).to(torch.int32)
    return Sparse(positions.to(summed.values.device), summed.values, like.size)
