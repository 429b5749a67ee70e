"""Random-k with error feedback: all workers send the same k random entries, so no indices are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from algorithms.compression import Selected, take_out
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.pipelining import DEFAULT, SEGMENT, Segment, pipeline_of
from algorithms.selection import Selector
from netsim._util.random_streams import Stream, generator
from netsim.comm.collectives import ring_all_reduce
from netsim.comm.payload import Dense, Sparse, Vector, in_place, size_rule
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import Scaled, SGDConfig, product

if TYPE_CHECKING:
    import torch


class RandK(ErrorFeedback):
    """The values of k random entries, the same entries on every worker, are summed by a ring all-reduce.

    Random-k is the baseline of Assumption 1 (gTop-k paper, eq. (13)).

    Parameters
    ----------
    selector, momentum_correction
        As for :class:`~algorithms.feedback.ErrorFeedback`.
    seed, bucket
        With the step, they determine the random entries; `bucket` is the index of a bucket of the gradient.
    segment
        The slices in which the ring forwards, as for :class:`~algorithms.dense.DenseRing`.
    """

    name = "randk"
    title = "Random-k"
    colour = "#8d7a5b"
    exchanges = "the same k random entries on all workers, ring all-reduce"
    sends = "2((P-1)/P) k values per worker, no indices"
    untried = "entries at random, which converge far more slowly than the largest ones"
    random: ClassVar[bool] = True
    options = (SEGMENT,)

    def __init__(
        self,
        selector: Selector,
        momentum_correction: SGDConfig | float = 0.0,
        seed: int = 0,
        bucket: int = 0,
        segment: Segment = DEFAULT,
    ) -> None:
        super().__init__(selector, momentum_correction)
        self.seed = seed
        self.bucket = bucket
        self._pipeline = pipeline_of(segment)

    def draw(self, size: int, step: int) -> RandomKey:
        """Return the key that determines the entries of a step in a vector of `size` elements."""
        return RandomKey(self.selector.at(step, size), self.seed, self.bucket, step)

    async def select(self, worker: Worker, residual: Vector, vector: Contribution, selector: Selector) -> Selected:
        """Return the random entries of residual + vector, and the rest as the new residual."""
        return await worker.compute("select", pick, residual, vector, self.draw(residual.size, worker.step))

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the sum of the workers' values at the random entries, as a sparse vector."""
        assert vector is not None
        picked, memory = await self.compress(worker, vector, memory)
        summed = await ring_all_reduce(worker, values_of(picked), self._pipeline)
        return await worker.replicated("merge", place, summed, template, self.draw(template.size, worker.step)), memory


class RandomKey(NamedTuple):
    """The number of random entries, and the key of the random stream that picks them."""

    selector: Selector
    seed: int
    bucket: int
    step: int


def random_positions(size: int, draw: RandomKey) -> torch.Tensor:
    """Return k random positions below `size`, ascending; with blocks, the k of each tensor."""
    import torch

    random = generator(draw.seed, Stream.RANDOM_K, draw.bucket, draw.step)
    drawn, first = [], 0
    for of, k in draw.selector.blocks or ((size, draw.selector.k),):
        drawn.append(np.sort(random.choice(of, min(k, of), replace=False)) + first)
        first += of
    return torch.from_numpy(np.concatenate(drawn))


@in_place
@size_rule(
    lambda residual, vector, draw: Selected(vector.resized(vector.size, min(draw.selector.k, vector.size)), vector)
)
def pick(residual: Dense, vector: Dense | Scaled, draw: RandomKey) -> Selected:
    """Return the picked entries of residual + vector, zeros included, and the rest."""
    rest = residual.values
    rest += product(vector)
    return take_out(rest, random_positions(residual.size, draw))


@size_rule(lambda picked: picked.resized(picked.entries))
def values_of(picked: Vector) -> Vector:
    """Return the values of entries without their indices, as a dense vector (k,)."""
    assert isinstance(picked, Sparse)
    return Dense(picked.values)


@size_rule(lambda summed, template, draw: summed.resized(template.size, summed.size))
def place(summed: Dense, template: Dense, draw: RandomKey) -> Sparse:
    """Return the summed values as entries at their random positions."""
    import torch

    positions = random_positions(template.size, draw).to(torch.int32)
    return Sparse(positions, summed.values.cpu(), template.size)
