"""Stochastic gradient descent around the exchange: what is done to a gradient before, to parameters after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from netsim.device import zero_row
from netsim.errors import UsageError
from netsim.payload import Dense, SizeOnly, Sparse, Vector, in_place, size_rule

if TYPE_CHECKING:
    import torch

Aggregate = Literal["mean", "sum"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters of SGD.

    `learning_rate` is γ; it grows linearly over the first `warmup_rounds` rounds and is multiplied by
    `decay` at every round in `decay_at`. `momentum` is heavy-ball momentum on the aggregated update.
    `weight_decay` adds its multiple of the parameters to each gradient, and `clip` bounds each worker's
    gradient norm. `aggregate` says whether the workers' vectors are averaged or, as in the authors' code
    of SASG, summed; a summed γ is P times smaller than an averaged one of the same effect.
    """

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    warmup_rounds: int = 0
    decay: float = 0.1
    decay_at: tuple[int, ...] = ()
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        last = math.prod([self.decay] * len(self.decay_at), start=self.learning_rate)
        if not 0 < last < math.inf:
            raise UsageError(
                f"learning rate {self.learning_rate!r}, multiplied by {self.decay!r} {len(self.decay_at)} times, "
                f"ends at {last!r}; it must stay finite and more than 0"
            )

    def rate(self, step: int) -> float:
        """Return γ of a step."""
        rate = self.learning_rate * self.decay ** sum(step >= at for at in self.decay_at)
        return rate * (step + 1) / self.warmup_rounds if step < self.warmup_rounds else rate

    def divisor(self, workers: int) -> int:
        """Return what the sum over workers is divided by."""
        return workers if self.aggregate == "mean" else 1


class Moved(NamedTuple):
    """Parameters after a step, and the velocity they move with (None without momentum, and at first)."""

    parameters: Vector
    velocity: Vector | None


class Scaled(NamedTuple):
    """A vector that is not multiplied by its factor yet: who adds it somewhere does both at once."""

    vector: Dense
    factor: float


def scaled(vector: Dense | Scaled) -> tuple[torch.Tensor, float]:
    """Return the values of a vector, and what they are to be multiplied by."""
    return (vector.vector.values, vector.factor) if isinstance(vector, Scaled) else (vector.values, 1.0)


def product(vector: Dense | Scaled) -> torch.Tensor:
    """Return the values of a vector, multiplied in place."""
    return vector.vector.values.mul_(vector.factor) if isinstance(vector, Scaled) else vector.values


@in_place
@size_rule(lambda gradient, parameters, recipe, step: gradient)
def weigh(gradient: Dense, parameters: Dense, recipe: Recipe, step: int) -> Scaled:
    """Make of g what a worker puts into the exchange: γ (g + λ x), with g + λ x cut to the norm `clip`.

    γ multiplies before the exchange (gTop-k paper, algorithm 1, line 3), so that a residual keeps the
    rate that its gradient was computed under.
    """
    values = gradient.values
    if recipe.weight_decay:
        values += recipe.weight_decay * parameters.values
    rate = recipe.rate(step)
    if recipe.clip is not None:
        norm = float(values.norm())
        rate *= min(1.0, recipe.clip / norm) if norm else 1.0
    return Scaled(Dense(values), rate)


@in_place
@size_rule(lambda gradient, parameters, recipe, step: gradient)
def prepare(gradient: Dense, parameters: Dense, recipe: Recipe, step: int) -> Dense:
    """Return what :func:`weigh` does, multiplied."""
    return Dense(product(weigh(gradient, parameters, recipe, step)))


@size_rule(lambda parameters, total, velocity, recipe, workers: Moved(parameters, velocity))
def descend(parameters: Dense, total: Dense | Sparse, velocity: Dense | None, recipe: Recipe, workers: int) -> Moved:
    """Return x - u, where u is the aggregated update (algorithm 1, line 6), or μ u' + it with momentum."""
    divisor = recipe.divisor(workers)
    if not recipe.momentum and isinstance(total, Sparse):
        moved = parameters.values.clone()
        moved[total.indices.long()] -= total.values / divisor
        return Moved(Dense(moved), None)
    update = dense_values(total) if divisor == 1 else dense_values(total) / divisor
    if velocity is not None:
        update = recipe.momentum * velocity.values + update
    return Moved(Dense(parameters.values - update), Dense(update) if recipe.momentum else None)


def dense_values(vector: Dense | Sparse) -> torch.Tensor:
    """Return all elements of a vector, zeros included: (d,)."""
    if isinstance(vector, Dense):
        return vector.values
    values = vector.values.new_zeros(vector.size)
    values[vector.indices.long()] = vector.values
    return values


@size_rule(lambda like: like)
def zeros(like: Dense | SizeOnly) -> Dense | SizeOnly:
    """Return the zero vector of the size, type and device of `like`, for who keeps it and works on it in place."""
    assert isinstance(like, Dense)
    return Dense(zero_row(like.values))
